//! How the refresher finds out that no process has the program's files any more.
//!
//! The program holds a shared lock on a file that it inherits. The lock belongs to the open file and
//! not to a process [flock(2)]. So it ends when the last process that inherited the file closes it or
//! ends, also by SIGKILL. The refresher opens the file again, and waits for an exclusive lock.

use std::fs::File;
use std::io;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};

/// Locks `file` for the processes that inherit it.
pub(super) fn hold(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockShared)?)
}

/// Waits until no process holds a lock of [`hold`]. `file` must have been opened anew.
pub(super) fn wait_for_holders(file: &File) -> io::Result<()> {
    Ok(retry_on_intr(|| {
        flock(file, FlockOperation::LockExclusive)
    })?)
}

/// Has programs inherit `file` from now on.
pub(super) fn let_inherit(file: &File) -> io::Result<()> {
    Ok(fcntl_setfd(file, FdFlags::empty())?)
}
