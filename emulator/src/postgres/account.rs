//! The account that PostgreSQL runs under. It refuses to run as root.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, ErrorKind};

/// Accounts to use instead of root, the one with the fewest rights first.
const UNPRIVILEGED: [&str; 2] = ["nobody", "postgres"];

/// The account of PostgreSQL's processes and files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The account of this process.
    Own,
    /// Another account, because this process runs as root.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Account {
    pub(crate) fn choose() -> Result<Account, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Account::Own);
        }
        UNPRIVILEGED
            .iter()
            .find_map(|name| {
                Some(Account::Other {
                    uid: id("-u", name)?,
                    gid: id("-g", name)?,
                })
            })
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Postgres,
                    "PostgreSQL does not run as root, and there is neither an account nobody nor \
                     one called postgres to run it under: run the emulator as another user",
                )
            })
    }

    /// Returns a command that runs under this account.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Account::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        // This account may not be able to read the caller's folder. The environment's settings of libpq or
        // PostgreSQL are not meant for the emulator.
        command.current_dir("/");
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGOPTIONS", "PGTZ"] {
            command.env_remove(variable);
        }
        command
    }

    /// Makes this account the owner of `path`.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Account::Own => Ok(()),
            Account::Other { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }
}

fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().ok()?;
    std::str::from_utf8(&output.stdout)
        .ok()?
        .trim()
        .parse()
        .ok()
}
