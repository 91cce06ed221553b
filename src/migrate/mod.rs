//! Migrations at an application's start, once for any number of replicas (feature `migrations`).
//!
//! ```no_run
//! use diesel_migrations::{EmbeddedMigrations, embed_migrations};
//! use diesel_rds_iam::{PgConnectionManager, migrate};
//!
//! const MIGRATIONS: EmbeddedMigrations = embed_migrations!();
//!
//! let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
//! let manager = PgConnectionManager::new(url)?;
//! migrate::run_pending(&manager, MIGRATIONS, migrate::Options::new())?;
//! let pool = manager.into_pool()?;
//! # Ok::<(), diesel_rds_iam::Error>(())
//! ```
//!
//! diesel's own `run_pending_migrations` takes no lock: of twenty replicas that start together, nineteen may
//! fail. This module works on one connection outside any pool, under an advisory lock of that session. The
//! other replicas wait for [`lock_wait`](Options::lock_wait) at most, and then find nothing to do. If nothing is
//! pending, it neither locks nor writes, so that the user needs no rights to the schema.
//!
//! The lock is [`DEFAULT_LOCK_KEY`] in the connected database. It is released when the work is done or has
//! failed, and in any case at the end of the session, when the process dies or the connection breaks and the
//! server notices it. It is requested repeatedly rather than waited for in the server, since a session that
//! waits there would block `CREATE INDEX CONCURRENTLY` of the lock's holder.
//!
//! The token is looked at when the connection is opened. Migrations may take longer than it lives, and
//! no `max_lifetime` applies. A long statement is silence on the wire: where a NAT gateway or a load
//! balancer is on the way, put `keepalives_idle=60` into the connection string.
//!
//! **RDS Proxy** pins a session that holds an advisory lock, which does no harm here. A pooler in
//! transaction mode, such as PgBouncer's, gives each statement to whatever session is free: connect to
//! the database itself for migrations.
//!
//! **Aurora DSQL** has no advisory locks, so none is taken: run migrations from one place. It takes one
//! DDL statement to a transaction and nothing with it, so each migration there is one statement with
//! `run_in_transaction = false` in its `metadata.toml`.

mod history;
mod lock;
mod options;
mod session;
mod source;
mod statement;

use std::time::SystemTime;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;

pub use self::options::{DEFAULT_LOCK_KEY, Direction, Options, Progress, Step};
use self::session::Session;
use self::source::Migrations;
use crate::PgConnectionManager;
use crate::error::Error;

/// A migration that was given, or that the database has, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What migrations are told apart and ordered by: the name up to its first `_`, without dashes.
    pub version: String,
    /// The name, as diesel shows it. None if it is applied and was not given: another release of the
    /// application has it.
    pub name: Option<String>,
    /// When it was applied; none if it is pending. diesel notes this without a time zone, and it is
    /// read in the session's.
    pub applied_at: Option<SystemTime>,
}

impl Status {
    /// Whether it is still to be run.
    pub fn is_pending(&self) -> bool {
        self.applied_at.is_none()
    }
}

/// Applies what is pending, in the order of versions, and returns what was done; nothing, if another
/// process has done it all.
///
/// # Errors
///
/// * [`Configuration`](crate::ErrorKind::Configuration) if the migrations cannot be read, or two have
///   one version. Nothing was tried.
/// * [`MigrationLock`](crate::ErrorKind::MigrationLock) if another process kept the lock for longer
///   than [`lock_wait`](Options::lock_wait).
/// * [`Migration`](crate::ErrorKind::Migration) if a migration failed, which the text names. Those
///   before it stay applied; the next to call this begins with the one that failed.
/// * [`Network`](crate::ErrorKind::Network) if the connection broke; and those of
///   [`try_connect`](PgConnectionManager::try_connect).
pub fn run_pending(
    manager: &PgConnectionManager,
    migrations: impl MigrationSource<Pg>,
    options: Options<'_>,
) -> Result<Vec<Step>, Error> {
    let migrations = Migrations::read(&migrations)?;
    let mut session = Session::open(manager, options)?;
    // So it is at nearly every start, and then there is nothing that a lock would be good for.
    if migrations.pending(&session.history()?).is_empty() {
        return Ok(Vec::new());
    }
    session.locked(|session| {
        session.create_history()?;
        let pending = migrations.pending(&session.history()?);
        session.perform(&pending)
    })
}

/// Reverts the last `number` of the migrations that are applied, the latest version first;
/// `usize::MAX` for all. If there are fewer, that is no error.
///
/// # Errors
///
/// As [`run_pending`]; and [`Migration`](crate::ErrorKind::Migration) before anything is reverted if
/// one of them is not among `migrations`.
pub fn revert(
    manager: &PgConnectionManager,
    migrations: impl MigrationSource<Pg>,
    number: usize,
    options: Options<'_>,
) -> Result<Vec<Step>, Error> {
    let migrations = Migrations::read(&migrations)?;
    let mut session = Session::open(manager, options)?;
    session.locked(|session| {
        let last = migrations.last(&session.history()?, number)?;
        session.perform(&last)
    })
}

/// Reverts the last `number` of the migrations that are applied and applies them again, to see whether
/// they can be reverted; `usize::MAX` for all.
///
/// All in one transaction, so that a failure leaves everything as it was; unless one of them does not
/// run in a transaction, or the database is Aurora DSQL.
///
/// # Errors
///
/// As [`revert`].
pub fn redo(
    manager: &PgConnectionManager,
    migrations: impl MigrationSource<Pg>,
    number: usize,
    options: Options<'_>,
) -> Result<Vec<Step>, Error> {
    let migrations = Migrations::read(&migrations)?;
    let mut session = Session::open(manager, options)?;
    session.locked(|session| {
        let mut plan = migrations.last(&session.history()?, number)?;
        let again: Vec<_> = plan.iter().rev().map(|planned| planned.up()).collect();
        plan.extend(again);
        session.perform_as_one(&plan)
    })
}

/// Every migration that was given or is applied, in the order of versions.
///
/// Takes no lock and writes nothing, so that a reader of the database does.
///
/// # Errors
///
/// [`Configuration`](crate::ErrorKind::Configuration) if the migrations cannot be read, and those of
/// [`try_connect`](PgConnectionManager::try_connect).
pub fn list(
    manager: &PgConnectionManager,
    migrations: impl MigrationSource<Pg>,
) -> Result<Vec<Status>, Error> {
    let migrations = Migrations::read(&migrations)?;
    let mut session = Session::open(manager, Options::new())?;
    Ok(migrations.list(&session.history()?))
}
