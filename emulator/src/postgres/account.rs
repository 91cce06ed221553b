//! Which account PostgreSQL runs under: it refuses to be root.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, ErrorKind};

/// Accounts to drop to, the one with the least to lose first.
const UNPRIVILEGED: [&str; 2] = ["nobody", "postgres"];

/// The account of PostgreSQL's processes and files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Account {
    /// The one that this process runs under.
    Own,
    /// Another one, because this process runs as root.
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

    /// A command that will run under this account.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Account::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        // The caller's folder may be closed to this account, and settings of libpq or of PostgreSQL
        // in the environment are meant for others.
        command.current_dir("/");
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGOPTIONS", "PGTZ"] {
            command.env_remove(variable);
        }
        command
    }

    /// Makes `path` this account's.
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
