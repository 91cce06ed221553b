//! The advisory lock, which keeps other processes from running migrations at the same time.

use std::thread;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{BigInt, Bool, Integer};

use super::options::{Options, Progress};
use super::statement::failed;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// The pause between attempts grows from the shorter to the longer one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Waits until this session holds the lock.
///
/// Each attempt returns at once. `pg_advisory_lock` would wait in the server and hold a snapshot meanwhile.
/// `CREATE INDEX CONCURRENTLY` of the lock's holder waits for all snapshots, so the two would wait for each
/// other.
pub(super) fn acquire(
    connection: &mut PgConnection,
    clock: &Clock,
    options: &mut Options<'_>,
) -> Result<(), Error> {
    let limit = options.lock_wait;
    let started = clock.now();
    let mut is_reported = limit.is_zero();
    let mut pause = SHORTEST_PAUSE;
    loop {
        match try_once(connection, options.lock_key) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(cause) => {
                let message = "cannot request the lock on migrations; if this is an alias of Aurora \
                               DSQL, which has no locks, set iam_host";
                return Err(failed(connection, message, cause));
            }
        }
        if !is_reported {
            tracing::info!(
                ?limit,
                "another process runs migrations; waiting for its lock"
            );
            (options.on_progress)(Progress::Waiting { limit });
            is_reported = true;
        }
        // By the monotonic clock: many machines set their wall clock shortly after they start.
        let waited = clock
            .now()
            .monotonic
            .saturating_duration_since(started.monotonic);
        let left = limit.saturating_sub(waited);
        if left.is_zero() {
            return Err(held_for_too_long(connection, options));
        }
        thread::sleep(pause.mul_f64(0.5 + fastrand::f64()).min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

fn try_once(connection: &mut PgConnection, key: i64) -> QueryResult<bool> {
    let attempt = sql::<Bool>("pg_try_advisory_lock(")
        .bind::<BigInt, _>(key)
        .sql(")");
    diesel::select(attempt).get_result(connection)
}

/// Releases the lock. If this fails, the end of the session releases it.
pub(super) fn release(connection: &mut PgConnection, key: i64) {
    let release = sql::<Bool>("pg_advisory_unlock(")
        .bind::<BigInt, _>(key)
        .sql(")");
    let _ = diesel::select(release).get_result::<bool>(connection);
}

fn held_for_too_long(connection: &mut PgConnection, options: &Options<'_>) -> Error {
    let holder = match holder(connection, options.lock_key) {
        Ok(pid) => format!(" (its session has the pid {pid})"),
        Err(_) => String::new(),
    };
    Error::new(
        ErrorKind::MigrationLock,
        format!(
            "another process has had the lock on migrations for longer than the {:?} of \
             lock_wait{holder}; wait for it, end its session, or raise lock_wait",
            options.lock_wait
        ),
    )
}

/// Returns the pid of the server process that holds the lock. `pg_locks` shows a key of 64 bits as two halves.
fn holder(connection: &mut PgConnection, key: i64) -> QueryResult<i32> {
    let (high, low) = (i64::from((key >> 32) as u32), i64::from(key as u32));
    let query = sql::<Integer>(
        "pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = ",
    )
    .bind::<BigInt, _>(high)
    .sql(" AND objid::bigint = ")
    .bind::<BigInt, _>(low);
    diesel::select(query).get_result(connection)
}
