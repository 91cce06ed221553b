//! Whether the files of the AWS configuration have changed since they were read.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// The state of both files at one time. A file that is missing is a state too.
#[derive(PartialEq, Eq)]
pub(super) struct FileStates([Option<FileState>; 2]);

#[derive(PartialEq, Eq)]
struct FileState {
    modified: SystemTime,
    length: u64,
    /// A file that was moved into place may be as old and as long as the one before.
    #[cfg(unix)]
    inode: u64,
}

impl FileStates {
    pub(super) fn current() -> FileStates {
        FileStates([
            FileState::of("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            FileState::of("AWS_CONFIG_FILE", "config"),
        ])
    }
}

impl FileState {
    fn of(variable: &str, name: &str) -> Option<FileState> {
        let path = match env::var_os(variable).filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => env::home_dir()?.join(".aws").join(name),
        };
        let metadata = fs::metadata(path).ok()?;
        Some(FileState {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}
