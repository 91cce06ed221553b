//! The first connection of a pool.

use std::thread;
use std::time::Duration;

use r2d2::{ManageConnection, Pool};

use crate::backend::Backend;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::lifetime::Drain;
use crate::manager::RdsConnectionManager;

/// The pause between two attempts, as of the probe of an unreachable server.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// The longest interval between two checks of the pool. It grows with the time that was waited, since without a
/// customizer a worker needs microseconds.
const LONGEST_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Opens a connection, and repeats transient failures for `limit`.
pub(super) fn open<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    // Not the clock of the identity, which may be a manual one in an application's tests.
    let clock = Clock::default();
    let begun = clock.monotonic();
    loop {
        let error = match attempt() {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let waited = clock.monotonic().saturating_duration_since(begun);
        if !may_pass(error.kind()) || waited >= limit {
            return Err(error);
        }
        tracing::debug!(%error, ?waited, "the first connection is tried again");
        thread::sleep(ATTEMPT_INTERVAL.min(limit.saturating_sub(waited)));
    }
}

fn may_pass(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Network
            | ErrorKind::ServerUnavailable
            | ErrorKind::Throttled
            | ErrorKind::CredentialsNotFound
            | ErrorKind::CredentialsUnavailable
            | ErrorKind::CredentialsTimeout
            | ErrorKind::CredentialsExpired
    )
}

/// Waits until a worker has added the first connection to the pool, as r2d2's own `build` does. r2d2 has no event for
/// it. `startup_timeout` is the time for a customizer that fails, and `limit` for one that is slow.
///
/// # Errors
///
/// The error of the customizer.
pub(super) fn wait_until_added<M: ManageConnection, C: Backend>(
    pool: &Pool<M>,
    manager: &RdsConnectionManager<C>,
    startup_timeout: Duration,
    limit: Duration,
) -> Result<(), Error> {
    if pool.min_idle() == Some(0) {
        // r2d2 would add it for the first caller only. This one asks for a connection and does not wait.
        let _drain = Drain::begin();
        drop(pool.get_timeout(Duration::ZERO));
    }
    let clock = Clock::default();
    let begun = clock.monotonic();
    while pool.state().connections == 0 {
        let waited = clock.monotonic().saturating_duration_since(begun);
        let failure = manager.last_failure();
        let customizers = failure.filter(|error| error.kind() == ErrorKind::Customizer);
        match customizers {
            Some(error) if waited >= startup_timeout => return Err(error),
            None if waited >= limit => return Ok(()),
            _ => thread::sleep((waited / 8).min(LONGEST_LOOK_INTERVAL)),
        }
    }
    Ok(())
}
