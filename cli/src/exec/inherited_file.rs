//! A file that the program inherits and that other users cannot read.

use std::io::{self, Write};

/// The file stays open while the program that inherits it runs.
#[derive(Debug)]
pub(super) struct InheritedFile {
    path: String,
    _open: Open,
}

#[derive(Debug)]
enum Open {
    /// An inherited memory file, which has no name in any folder.
    #[cfg(target_os = "linux")]
    Memory { _file: std::fs::File },
    /// A temporary file. A cleanup process removes it when the last process closes this end of its
    /// pipe.
    #[cfg(unix)]
    Removed { _pipe: io::PipeWriter },
    #[cfg(not(unix))]
    Temporary { _file: tempfile::NamedTempFile },
}

impl InheritedFile {
    pub(super) fn new(contents: &[u8]) -> Result<InheritedFile, String> {
        #[cfg(target_os = "linux")]
        if let Ok(file) = InheritedFile::in_memory(contents) {
            return Ok(file);
        }
        InheritedFile::temporary(contents).map_err(|cause| {
            format!(
                "cannot create a file for the program to read; set TMPDIR to a writable folder: {cause}"
            )
        })
    }

    /// The path of the file in this process, after `exec`, and in child processes.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn in_memory(contents: &[u8]) -> io::Result<InheritedFile> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

        // Without CLOEXEC, because the program has to inherit it.
        let fd = memfd_create("rds-iam", MemfdFlags::empty())?;
        // libpq ignores a password file that other users can read.
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(contents)?;
        // Each open of this path has its own offset, also in concurrent processes.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Some sandboxes have no /proc.
        std::fs::metadata(&path)?;
        Ok(InheritedFile {
            path,
            _open: Open::Memory { _file: file },
        })
    }

    /// The program replaces this process, so another process has to remove the file. A background
    /// shell waits for end of file on a pipe that the program and its children inherit. The shell is
    /// not a child of the program, because the program may wait for all of its children.
    #[cfg(unix)]
    fn temporary(contents: &[u8]) -> io::Result<InheritedFile> {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        use rustix::io::{FdFlags, fcntl_setfd};

        const CLEANUP: &str = r#"exec 3<&0; { cat <&3 >&2; rm -f -- "$1"; } &"#;

        let (file, path) = named(contents)?;
        let (reader, writer) = io::pipe()?;
        let started = Command::new("/bin/sh")
            .args(["-c", CLEANUP, "rds-iam-cleanup", &path])
            .process_group(0)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !started.success() {
            return Err(io::Error::other(
                "the shell that removes the file did not start",
            ));
        }
        file.keep().map_err(|error| error.error)?;
        fcntl_setfd(&writer, FdFlags::empty())?;
        Ok(InheritedFile {
            path,
            _open: Open::Removed { _pipe: writer },
        })
    }

    #[cfg(not(unix))]
    fn temporary(contents: &[u8]) -> io::Result<InheritedFile> {
        let (file, path) = named(contents)?;
        Ok(InheritedFile {
            path,
            _open: Open::Temporary { _file: file },
        })
    }
}

/// A temporary file that only its owner can read.
fn named(contents: &[u8]) -> io::Result<(tempfile::NamedTempFile, String)> {
    let mut file = tempfile::NamedTempFile::with_prefix("rds-iam-")?;
    file.write_all(contents)?;
    let path = file
        .path()
        .to_str()
        .ok_or_else(|| io::Error::other("the path of the temporary folder is not UTF-8"))?
        .to_owned();
    Ok((file, path))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_cleanup_process_removes_a_temporary_file() {
        let file = InheritedFile::temporary(b"contents").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(file);
        // Only a failure reaches this limit.
        let is_removed = (0..3000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !Path::new(&path).exists()
        });
        assert!(is_removed, "{path} still exists");
    }
}
