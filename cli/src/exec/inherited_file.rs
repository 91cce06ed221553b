//! The files that the program reads, which other users cannot.
//!
//! On Linux they are memory files, which have no name in any folder and go with the last process that
//! inherited them. Elsewhere, and on request, they are in a private folder.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::TempDir;

/// The name of the file with the root certificates.
pub(super) const ROOTS: &str = "roots.pem";

/// The files of one program.
#[derive(Debug)]
pub(super) enum InheritedFiles {
    #[cfg(target_os = "linux")]
    Memory(Vec<File>),
    Folder {
        folder: TempDir,
        /// The folder itself, which the program inherits as a sign that it has not ended.
        #[cfg(unix)]
        open: File,
    },
}

impl InheritedFiles {
    /// Memory files if this system has them and `in_folder` is false.
    pub(super) fn new(in_folder: bool) -> Result<InheritedFiles, String> {
        #[cfg(target_os = "linux")]
        if !in_folder && memory_file(b"").is_ok() {
            return Ok(InheritedFiles::Memory(Vec::new()));
        }
        let _ = in_folder;
        InheritedFiles::folder().map_err(cannot_create)
    }

    fn folder() -> io::Result<InheritedFiles> {
        let mut builder = tempfile::Builder::new();
        // Only its owner can enter the folder.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = builder.prefix("rds-iam-").tempdir()?;
        Ok(InheritedFiles::Folder {
            #[cfg(unix)]
            open: File::open(folder.path())?,
            folder,
        })
    }

    /// Creates a file, and returns its path. The path is valid in this process, after `exec`, and in
    /// child processes that inherit the file.
    pub(super) fn add(&mut self, name: &str, contents: &[u8]) -> Result<String, String> {
        match self {
            #[cfg(target_os = "linux")]
            InheritedFiles::Memory(files) => memory_file(contents).map(|(file, path)| {
                files.push(file);
                path
            }),
            InheritedFiles::Folder { folder, .. } => write(folder.path(), name, contents),
        }
        .map_err(cannot_create)
    }

    /// Whether a file is replaced in place, rather than by a rename.
    #[cfg(unix)]
    pub(super) fn are_in_memory(&self) -> bool {
        !matches!(self, InheritedFiles::Folder { .. })
    }

    /// The folder that has to be removed after the program.
    #[cfg(unix)]
    pub(super) fn to_remove(&self) -> Option<&Path> {
        match self {
            InheritedFiles::Folder { folder, .. } => Some(folder.path()),
            #[cfg(target_os = "linux")]
            InheritedFiles::Memory(_) => None,
        }
    }

    /// What the program inherits.
    #[cfg(unix)]
    pub(super) fn open(&self) -> &[File] {
        match self {
            InheritedFiles::Folder { open, .. } => std::slice::from_ref(open),
            #[cfg(target_os = "linux")]
            InheritedFiles::Memory(files) => files,
        }
    }

    /// Leaves the folder to the process that removes it.
    #[cfg(unix)]
    pub(super) fn keep(&mut self) {
        if let InheritedFiles::Folder { folder, .. } = self {
            folder.disable_cleanup(true);
        }
    }
}

fn cannot_create(cause: io::Error) -> String {
    format!(
        "cannot create a file for the program to read; set TMPDIR to a writable folder: {cause}"
    )
}

#[cfg(target_os = "linux")]
fn memory_file(contents: &[u8]) -> io::Result<(File, String)> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

    let fd = memfd_create("rds-iam", MemfdFlags::CLOEXEC)?;
    // libpq and node-postgres ignore a password file that other users can read.
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(fd);
    file.write_all(contents)?;
    // Each open of this path has its own offset, also in concurrent processes.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Some sandboxes have no /proc.
    std::fs::metadata(&path)?;
    Ok((file, path))
}

/// Creates a file that only its owner can read.
fn write(folder: &Path, name: &str, contents: &[u8]) -> io::Result<String> {
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&path)?.write_all(contents)?;
    let path = path.into_os_string().into_string();
    path.map_err(|_| io::Error::other("the path of the temporary folder is not UTF-8"))
}
