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
    hba: Option<String>,
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
    /// template's `pg_hba.conf`. With `primary`, the folder of another server's socket, it is a standby of that.
    pub(crate) fn start(
        root: &Path,
        hba: Option<&str>,
        binaries: Binaries,
        account: Account,
        settings: Vec<(String, String)>,
        primary: Option<&Path>,
    ) -> Result<Cluster, Error> {
        let folder = make_folder(root, "1", account)?;
        // Created first, so that its supervisor removes the folder from here on.
        let writer = Postgres::new(root, &folder, &binaries, account, &settings)?;
        fill(&writer.data(), hba, &binaries, account, primary)?;
        writer.start()?;
        Ok(Cluster {
            root: root.to_owned(),
            hba: hba.map(str::to_owned),
            binaries,
            account,
            settings,
            nodes: Mutex::new(Nodes {
                writer,
                reader: None,
            }),
        })
    }

    /// Makes the one server a standby of the server with its socket in `primary`, from the first transaction on. For
    /// one that may have data which that server has not.
    pub(crate) fn start_over_as_standby(&self, primary: &Path) -> Result<(), Error> {
        let nodes = self.nodes();
        nodes.writer.stop()?;
        let data = nodes.writer.data();
        fs::remove_dir_all(&data)
            .map_err(|cause| Error::io("a server's data could not be removed", cause))?;
        fill(
            &data,
            self.hba.as_deref(),
            &self.binaries,
            self.account,
            Some(primary),
        )?;
        Ok(())
    }

    /// Lets a standby replicate from another server, once it has read its configuration again.
    pub(crate) fn follow(&self, primary: &Path) -> Result<(), Error> {
        set_primary(&self.nodes().writer.data(), primary)
            .map_err(|cause| Error::io("the primary of a standby could not be set", cause))
    }

    /// Replaces a file in the folder of the server's data.
    pub(crate) fn write_file(&self, name: &str, content: &str) -> Result<(), Error> {
        let data = self.nodes().writer.data();
        let (new, file) = (data.join(format!("{name}.new")), data.join(name));
        fs::write(&new, content)
            .and_then(|()| self.account.own(&new))
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|cause| Error::io("a file for PostgreSQL could not be written", cause))
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
        make_standby(&nodes.writer.data(), heir.folder(), self.account).map_err(failed)?;
        heir.start()?;
        let old = std::mem::replace(&mut nodes.writer, heir);
        let started = old.start();
        nodes.reader = Some(old);
        started
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a new cluster into `data`, which does not exist.
fn fill(
    data: &Path,
    hba: Option<&str>,
    binaries: &Binaries,
    account: Account,
    primary: Option<&Path>,
) -> Result<(), Error> {
    template::copy_to(data, binaries, account)?;
    if let Some(hba) = hba {
        fs::write(data.join("pg_hba.conf"), hba)
            .map_err(|cause| Error::io("pg_hba.conf could not be written", cause))?;
    }
    if let Some(primary) = primary {
        make_standby(data, primary, account)
            .map_err(|cause| Error::io("a standby could not be set up", cause))?;
    }
    Ok(())
}

/// Turns the cluster in `data` into a standby of the server at `primary`.
fn make_standby(data: &Path, primary: &Path, account: Account) -> io::Result<()> {
    let signal = data.join("standby.signal");
    fs::write(&signal, "")?;
    account.own(&signal)?;
    set_primary(data, primary)
}

/// PostgreSQL uses the last line of several.
fn set_primary(data: &Path, primary: &Path) -> io::Result<()> {
    let mut settings = OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.auto.conf"))?;
    writeln!(
        settings,
        "primary_conninfo = 'host={} user={SUPERUSER}'",
        primary.display(),
    )
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
