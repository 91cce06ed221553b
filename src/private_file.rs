//! Data that libpq reads from a path, in a file that other users cannot read.
//!
//! On Linux it is a memory file, which has no name and disappears when it is closed, even by a crash. Elsewhere, and
//! without `/proc`, it is a temporary file that only its owner can read, and that is removed when this is dropped.

use std::fmt;
use std::io::{self, Write};

use tempfile::NamedTempFile;

pub(crate) struct PrivateFile {
    path: String,
    /// Held so that it is closed or removed on drop.
    _file: Held,
}

enum Held {
    #[cfg(target_os = "linux")]
    Memory {
        _open: std::fs::File,
    },
    Temporary {
        _named: NamedTempFile,
    },
}

impl PrivateFile {
    pub(crate) fn new(contents: &[u8]) -> io::Result<PrivateFile> {
        #[cfg(target_os = "linux")]
        if let Ok(file) = PrivateFile::in_memory(contents) {
            return Ok(file);
        }
        PrivateFile::temporary(contents)
    }

    /// The path, which is valid in this process only, for as long as this value lives.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn in_memory(contents: &[u8]) -> io::Result<PrivateFile> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};

        let fd = memfd_create("rds-iam", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // libpq ignores a password file that other users can read.
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(contents)?;
        // Sealed, so that no code of this process can change the contents.
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Some sandboxes have no /proc.
        std::fs::metadata(&path)?;
        Ok(PrivateFile {
            path,
            _file: Held::Memory { _open: file },
        })
    }

    fn temporary(contents: &[u8]) -> io::Result<PrivateFile> {
        let mut file = NamedTempFile::with_prefix("rds-iam-")?;
        file.write_all(contents)?;
        let path = file
            .path()
            .to_str()
            .ok_or_else(|| io::Error::other("the temporary folder's name is not UTF-8"))?
            .to_owned();
        Ok(PrivateFile {
            path,
            _file: Held::Temporary { _named: file },
        })
    }
}

impl fmt::Debug for PrivateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateFile").field(&self.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_memory_file_is_read_by_its_path_more_than_once() {
        let file = PrivateFile::in_memory(b"contents").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
        // Each open starts at the beginning: libpq opens the file once for each host.
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
        let target = std::fs::read_link(&path).unwrap();
        assert!(target.to_string_lossy().contains("memfd:rds-iam"));
        let other = std::fs::OpenOptions::new().write(true).open(&path);
        assert!(other.and_then(|mut it| it.write_all(b"x")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_temporary_file_is_its_owners_only_and_gone_when_dropped() {
        use std::os::unix::fs::PermissionsExt;

        let file = PrivateFile::temporary(b"contents").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(file);
        assert!(!std::path::Path::new(&path).exists());
    }
}
