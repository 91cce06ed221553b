//! A file that another program is given, and nobody else can read.

use std::io::{self, Write};

/// Open for as long as the program that it is handed to runs.
#[derive(Debug)]
pub(super) struct Handed {
    path: String,
    _open: Open,
}

#[derive(Debug)]
enum Open {
    /// Memory without a name, inherited.
    #[cfg(target_os = "linux")]
    Memory { _file: std::fs::File },
    /// A file that a keeper removes when nobody holds this end of its pipe any more.
    #[cfg(unix)]
    Kept { _pipe: io::PipeWriter },
    #[cfg(not(unix))]
    Temporary { _file: tempfile::NamedTempFile },
}

impl Handed {
    pub(super) fn new(contents: &[u8]) -> Result<Handed, String> {
        #[cfg(target_os = "linux")]
        if let Ok(file) = Handed::in_memory(contents) {
            return Ok(file);
        }
        Handed::temporary(contents).map_err(|cause| {
            format!(
                "cannot make a file for the program to read, set TMPDIR to a folder that can be \
                 written: {cause}"
            )
        })
    }

    /// Good in this process, in what it becomes, and in what that starts.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    #[cfg(target_os = "linux")]
    fn in_memory(contents: &[u8]) -> io::Result<Handed> {
        use std::os::fd::AsRawFd;

        use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

        // Without CLOEXEC: to be inherited is what it is for.
        let fd = memfd_create("rds-iam", MemfdFlags::empty())?;
        // libpq does not read a password file that anyone else could.
        fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(contents)?;
        // Each opening of this path starts at the front, also in several processes at once.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Not every sandbox has /proc.
        std::fs::metadata(&path)?;
        Ok(Handed {
            path,
            _open: Open::Memory { _file: file },
        })
    }

    /// The program takes this process's place, so somebody else has to remove the file: a shell in
    /// the background, which waits for the end of a pipe that the program and all that it starts
    /// inherit. It is no child of the program's, which might wait for its children.
    #[cfg(unix)]
    fn temporary(contents: &[u8]) -> io::Result<Handed> {
        use std::os::unix::process::CommandExt;
        use std::process::{Command, Stdio};

        use rustix::io::{FdFlags, fcntl_setfd};

        const KEEPER: &str = r#"exec 3<&0; { cat <&3 >&2; rm -f -- "$1"; } &"#;

        let (file, path) = named(contents)?;
        let (reader, writer) = io::pipe()?;
        let started = Command::new("/bin/sh")
            .args(["-c", KEEPER, "rds-iam-keeper", &path])
            .process_group(0)
            .stdin(reader)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !started.success() {
            return Err(io::Error::other("the shell that removes it did not start"));
        }
        file.keep().map_err(|error| error.error)?;
        fcntl_setfd(&writer, FdFlags::empty())?;
        Ok(Handed {
            path,
            _open: Open::Kept { _pipe: writer },
        })
    }

    #[cfg(not(unix))]
    fn temporary(contents: &[u8]) -> io::Result<Handed> {
        let (file, path) = named(contents)?;
        Ok(Handed {
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
        .ok_or_else(|| io::Error::other("the temporary folder's name is not UTF-8"))?
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
    fn a_temporary_file_is_removed_by_its_keeper() {
        let file = Handed::temporary(b"contents").unwrap();
        let path = file.path().to_owned();
        assert_eq!(std::fs::read(&path).unwrap(), b"contents");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(file);
        // Only a failure takes as long as all of these together.
        let gone = (0..3000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !Path::new(&path).exists()
        });
        assert!(gone, "{path} is still there");
    }
}
