//! One PostgreSQL server, or two after a failover.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::postgres::Postgres;
use crate::postgres::account::Account;
use crate::postgres::binaries::Binaries;
use crate::postgres::template::{self, SUPERUSER};

/// A writer and, after a failover, a reader that was the writer before.
pub(crate) struct Cluster {
    root: PathBuf,
    binaries: Binaries,
    account: Account,
    settings: Vec<(String, String)>,
    nodes: Mutex<Nodes>,
}

struct Nodes {
    writer: Postgres,
    reader: Option<Postgres>,
}

impl Cluster {
    /// Starts a server below `root`, which is removed when the cluster is dropped. `hba` replaces the
    /// template's `pg_hba.conf`.
    pub(crate) fn start(
        root: &Path,
        hba: Option<&str>,
        binaries: Binaries,
        account: Account,
        settings: Vec<(String, String)>,
    ) -> Result<Cluster, Error> {
        let folder = make_folder(root, "1", account)?;
        // Created first, so that its supervisor removes the folder from here on.
        let writer = Postgres::new(root, &folder, &binaries, account, &settings)?;
        template::copy_to(&writer.data(), &binaries, account)?;
        if let Some(hba) = hba {
            fs::write(writer.data().join("pg_hba.conf"), hba)
                .map_err(|cause| Error::io("pg_hba.conf could not be written", cause))?;
        }
        writer.start()?;
        Ok(Cluster {
            root: root.to_owned(),
            binaries,
            account,
            settings,
            nodes: Mutex::new(Nodes {
                writer,
                reader: None,
            }),
        })
    }

    /// The folder of the writer's socket.
    pub(crate) fn writer(&self) -> PathBuf {
        self.nodes().writer.folder().to_owned()
    }

    /// The folder of the reader's socket.
    pub(crate) fn reader(&self) -> Option<PathBuf> {
        self.nodes()
            .reader
            .as_ref()
            .map(|reader| reader.folder().to_owned())
    }

    pub(crate) fn stop(&self) -> Result<(), Error> {
        let nodes = self.nodes();
        nodes.writer.stop()?;
        nodes.reader.as_ref().map_or(Ok(()), Postgres::stop)
    }

    pub(crate) fn start_again(&self) -> Result<(), Error> {
        let nodes = self.nodes();
        nodes.writer.start()?;
        nodes.reader.as_ref().map_or(Ok(()), Postgres::start)
    }

    /// Makes another server the writer, with all data of the previous one. The previous one returns as its
    /// read-only standby.
    pub(crate) fn fail_over(&self) -> Result<(), Error> {
        let mut nodes = self.nodes();
        nodes.writer.stop()?;
        let heir = match nodes.reader.take() {
            Some(reader) => {
                reader.stop()?;
                reader
            }
            None => {
                let folder = make_folder(&self.root, "2", self.account)?;
                Postgres::new(
                    &self.root,
                    &folder,
                    &self.binaries,
                    self.account,
                    &self.settings,
                )?
            }
        };
        // The previous writer was shut down cleanly, so a copy of its files is complete.
        let failed = |cause| {
            Error::io(
                "the writer's data could not be copied for a failover",
                cause,
            )
        };
        match fs::remove_dir_all(heir.data()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        template::copy(&nodes.writer.data(), &heir.data(), self.account).map_err(failed)?;
        self.make_standby(&nodes.writer.data(), heir.folder())
            .map_err(failed)?;
        heir.start()?;
        let old = std::mem::replace(&mut nodes.writer, heir);
        let started = old.start();
        nodes.reader = Some(old);
        started
    }

    /// Turns the cluster in `data` into a standby of the server at `primary`.
    fn make_standby(&self, data: &Path, primary: &Path) -> io::Result<()> {
        let signal = data.join("standby.signal");
        fs::write(&signal, "")?;
        self.account.own(&signal)?;
        // PostgreSQL uses the last line of several.
        let mut settings = OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.auto.conf"))?;
        writeln!(
            settings,
            "primary_conninfo = 'host={} user={SUPERUSER}'",
            primary.display(),
        )
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_folder(root: &Path, name: &str, account: Account) -> Result<PathBuf, Error> {
    let folder = root.join(name);
    let made = match fs::create_dir(&folder) {
        // Left over from a failed failover.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    made.and_then(|()| account.own(&folder)).map_err(|cause| {
        Error::with_cause(
            ErrorKind::Io,
            "a folder for PostgreSQL could not be made",
            cause,
        )
    })?;
    Ok(folder)
}

/// The socket in a server's folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}
