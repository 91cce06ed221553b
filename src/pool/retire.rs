//! Replaces all connections of a pool at once.

use std::thread;
use std::time::Duration;

use r2d2::{ManageConnection, Pool};

use crate::error::Error;
use crate::lifetime::Drain;

/// How long [`retire_all`] waits for threads that are returning a connection at the same moment. Each
/// needs microseconds, unless the operating system has suspended it.
const RETURNED_WITHIN: Duration = Duration::from_secs(1);

/// The interval between checks of the idle list meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Drops every connection that `pool` opened before now. For an application that learns of a failover or
/// a revocation before the pool does.
///
/// Idle connections are dropped before this returns. Connections that are checked out, and those whose
/// login is under way, are dropped when they are returned to the pool. This function waits neither for
/// them nor for the server; the pool opens new connections as it needs them. It can be called from any
/// thread, any number of times, and with a [`max_lifetime`](crate::PoolBuilder::max_lifetime) of `None`.
///
/// A connection that another thread is returning at this moment, or that it took with
/// [`try_get`](r2d2::Pool::try_get), which no event reports, is waited for. The limit is one second; after
/// that it is dropped at its next return.
///
/// ```no_run
/// use diesel_rds_iam::{PgConnectionManager, retire_all};
///
/// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
/// let pool = PgConnectionManager::new(url)?.into_pool()?;
/// // When an RDS event reports a failover:
/// retire_all(&pool)?;
/// # Ok::<(), diesel_rds_iam::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the pool was built by r2d2's own
/// builder, which keeps no lifetimes. No connection is dropped then.
pub fn retire_all<M: ManageConnection>(pool: &Pool<M>) -> Result<(), Error> {
    let drain = Drain::begin();
    // An r2d2 pool gives no access to its event handler, but calls it on this thread with the outcome of
    // `get`: a connection, or a time-out at once.
    let first = pool.get_timeout(Duration::ZERO);
    let lifetimes = drain.lifetimes().ok_or_else(|| {
        Error::configuration(
            "this pool was not built by PoolBuilder, so the ages of its connections are not known; build it by \
             PoolBuilder::new, pool_builder() or into_pool()",
        )
    })?;
    lifetimes.retire_all();
    let mut idle: Vec<_> = first.into_iter().collect();
    let looks = RETURNED_WITHIN.as_millis() / LOOK_INTERVAL.as_millis();
    for _ in 0..looks {
        // The idle list is last-in first-out, so none is returned before all have been taken.
        while let Ok(connection) = pool.get_timeout(Duration::ZERO) {
            idle.push(connection);
        }
        idle.clear();
        // r2d2 pushes a connection to the idle list a moment after the decision to keep it.
        if !lifetimes.has_idle_of_earlier_generation() {
            break;
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}
