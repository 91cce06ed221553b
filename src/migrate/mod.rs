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
//! The server checks the token only when the connection is opened. Migrations may outlast it, and no
//! `max_lifetime` applies. No data is sent during a long statement. If a NAT gateway or a load balancer on the
//! way drops silent connections, set `keepalives_idle=60` in the connection string.
//!
//! **RDS Proxy** pins a session that holds an advisory lock, which is harmless here. A pooler in transaction
//! mode, such as PgBouncer's, sends each statement to any free session. Connect to the database directly for
//! migrations.
//!
//! **Aurora DSQL** has no advisory locks, so this module takes none. Run migrations from one place. DSQL accepts
//! one DDL statement per transaction, without any other statement. So each migration there is a single statement
//! with `run_in_transaction = false` in its `metadata.toml`.

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

/// A migration of the application, of the database, or of both.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Identifies the migration and decides its order: the name up to its first `_`, without dashes.
    pub version: String,
    /// The name, as diesel shows it. `None` if the migration is applied and not among those of the application,
    /// because another release has it.
    pub name: Option<String>,
    /// When it was applied; `None` if it is pending. diesel stores this without a time zone, so the session's
    /// time zone is assumed.
    pub applied_at: Option<SystemTime>,
}

impl Status {
    /// Returns whether the migration has not been applied yet.
    pub fn is_pending(&self) -> bool {
        self.applied_at.is_none()
    }
}

/// Applies the pending migrations in the order of their versions, and returns them. The result is empty if
/// another process has applied them all.
///
/// # Errors
///
/// * [`Configuration`](crate::ErrorKind::Configuration) if the migrations cannot be read, or two have
///   one version. No connection is opened then.
/// * [`MigrationLock`](crate::ErrorKind::MigrationLock) if another process held the lock for longer
///   than [`lock_wait`](Options::lock_wait).
/// * [`Migration`](crate::ErrorKind::Migration) if a migration failed, which the message names.
///   Those before it stay applied, and the next call begins with the one that failed.
/// * [`Network`](crate::ErrorKind::Network) if the connection broke; and those of
///   [`try_connect`](PgConnectionManager::try_connect).
pub fn run_pending(
    manager: &PgConnectionManager,
    migrations: impl MigrationSource<Pg>,
    options: Options<'_>,
) -> Result<Vec<Step>, Error> {
    let migrations = Migrations::read(&migrations)?;
    let mut session = Session::open(manager, options)?;
    // The case at nearly every start. It needs no lock.
    if migrations.pending(&session.history()?).is_empty() {
        return Ok(Vec::new());
    }
    session.locked(|session| {
        session.create_history()?;
        let pending = migrations.pending(&session.history()?);
        session.perform(&pending)
    })
}

/// Reverts the last `number` applied migrations, the latest version first; `usize::MAX` reverts all. It is not
/// an error if there are fewer.
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

/// Reverts the last `number` applied migrations and applies them again, to test that they can be reverted;
/// `usize::MAX` stands for all.
///
/// This runs in one transaction, so that a failure changes nothing. There is no such transaction if one of the
/// migrations does not run in one, or the database is Aurora DSQL.
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

/// Returns the migrations of the application and those that are applied, in the order of their versions.
///
/// It takes no lock and writes nothing, so a read-only server or user suffices.
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
