//! A real PostgreSQL behind the emulator, on a Unix socket in a temporary folder.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod binaries;
pub(crate) mod cluster;
pub(crate) mod supervisor;
pub(crate) mod template;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::monotonic;
use crate::error::{Error, ErrorKind};
use crate::postgres::account::Account;
use crate::postgres::binaries::Binaries;
use crate::postgres::supervisor::Supervisor;

/// How long a server may take to start, including a recovery on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The interval at which a starting server is checked.
const START_INTERVAL: Duration = Duration::from_millis(5);

/// One PostgreSQL server.
pub(crate) struct Postgres {
    folder: PathBuf,
    supervisor: Mutex<Supervisor>,
}

impl Postgres {
    /// Prepares a server in the existing folder `folder`. Its cluster must be in `data` before it starts.
    /// `root` and its content are removed when the server is dropped.
    pub(crate) fn new(
        root: &Path,
        folder: &Path,
        binaries: &Binaries,
        account: Account,
        settings: &[(String, String)],
    ) -> Result<Postgres, Error> {
        let mut server = vec![
            binaries.postgres().into_os_string(),
            "-D".into(),
            folder.join("data").into_os_string(),
        ];
        let folder_setting = ("unix_socket_directories", folder.to_string_lossy());
        let fixed = SETTINGS.map(|(name, value)| (name, value.into()));
        let all = fixed.into_iter().chain([folder_setting]).chain(
            settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.into())),
        );
        for (name, value) in all {
            server.push("-c".into());
            server.push(format!("{name}={value}").into());
        }
        Ok(Postgres {
            supervisor: Mutex::new(Supervisor::spawn(
                root,
                &folder.join("log"),
                &server,
                account,
            )?),
            folder: folder.to_owned(),
        })
    }

    /// The folder of its socket, for libpq's `host`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the server and waits until it accepts connections.
    pub(crate) fn start(&self) -> Result<(), Error> {
        // The log of an earlier run says nothing about this one.
        let log_start = fs::metadata(self.log()).map_or(0, |metadata| metadata.len());
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .start()?;
        let deadline = monotonic() + START_LIMIT;
        loop {
            if self.is_ready() {
                return Ok(());
            }
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let log = log
                .get(usize::try_from(log_start).unwrap_or(usize::MAX)..)
                .unwrap_or_default();
            let died = log
                .lines()
                .find(|line| line.contains("FATAL:") || line.contains("PANIC:"));
            if let Some(line) = died {
                return Err(Error::with_cause(
                    ErrorKind::Postgres,
                    "PostgreSQL did not start",
                    line.to_owned(),
                ));
            }
            if monotonic() > deadline {
                return Err(Error::with_cause(
                    ErrorKind::Postgres,
                    format!(
                        "PostgreSQL did not start within {} s",
                        START_LIMIT.as_secs()
                    ),
                    log.lines()
                        .last()
                        .unwrap_or("it has logged nothing")
                        .to_owned(),
                ));
            }
            thread::sleep(START_INTERVAL);
        }
    }

    /// Stops the server cleanly, which ends its sessions, and waits until it has ended.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop()
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Whether the server reports that it is ready, in the last line of its lock file.
    fn is_ready(&self) -> bool {
        fs::read_to_string(self.data().join("postmaster.pid")).is_ok_and(|text| {
            text.lines()
                .nth(7)
                .is_some_and(|status| status.trim() == "ready")
        })
    }
}

/// The data does not outlive the emulator, so nothing is made durable.
const SETTINGS: [(&str, &str); 11] = [
    ("listen_addresses", ""),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "1100"),
    ("max_wal_size", "4GB"),
    ("jit", "off"),
    ("logging_collector", "off"),
    ("log_min_messages", "warning"),
    ("timezone", "UTC"),
    ("unix_socket_permissions", "0700"),
];
