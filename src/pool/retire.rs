//! All connections of a pool replaced at once.

use std::time::Duration;

use r2d2::Pool;

use crate::backend::Backend;
use crate::error::Error;
use crate::lifetime::Drawing;
use crate::manager::RdsConnectionManager;

/// Drops every connection that `pool` has opened before now, for when the application learns of a
/// failover or of a revocation before the pool does.
///
/// Idle ones go before this returns, and busy ones when they are returned to the pool, as do those
/// whose login is under way. It waits for none of them, nor for the server: the pool opens others
/// as it needs them. It may be called from any thread, as often as one likes, and with a
/// [`max_lifetime`](crate::PoolBuilder::max_lifetime) of `None` too.
///
/// ```no_run
/// use diesel_rds_iam::{PgConnectionManager, retire_all};
///
/// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
/// let pool = PgConnectionManager::new(url)?.into_pool()?;
/// // When an event of RDS tells of a failover:
/// retire_all(&pool)?;
/// # Ok::<(), diesel_rds_iam::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the pool was built by r2d2's own
/// builder, whose connections cannot be told apart; nothing is dropped then.
pub fn retire_all<C: Backend>(pool: &Pool<RdsConnectionManager<C>>) -> Result<(), Error> {
    let drawing = Drawing::begin();
    // A plain pool does not show its event handler, but tells it on this thread what came of this:
    // a connection, or that there is none at once.
    let first = pool.get_timeout(Duration::ZERO);
    let lifetimes = drawing.lifetimes().ok_or_else(|| {
        Error::configuration(
            "this pool was built without pool_builder() or into_pool(), so its connections cannot \
             be told apart; build it with one of them",
        )
    })?;
    lifetimes.retire_all();
    // The free list is last-in first-out: none is returned, and judged, until all were drawn.
    let mut idle: Vec<_> = first.into_iter().collect();
    while let Some(connection) = pool.try_get() {
        idle.push(connection);
    }
    Ok(())
}
