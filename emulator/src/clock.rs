//! The only module that reads the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The server's wall clock: that of the machine plus the seconds that a test has set.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    skew_seconds: AtomicI64,
}

impl Clock {
    /// The date on the server.
    pub(crate) fn now(&self) -> SystemTime {
        let seconds = self.skew_seconds.load(Ordering::Relaxed);
        let skew = Duration::from_secs(seconds.unsigned_abs());
        let moved = if seconds < 0 {
            wall().checked_sub(skew)
        } else {
            wall().checked_add(skew)
        };
        moved.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn set_skew(&self, seconds: i64) {
        self.skew_seconds.store(seconds, Ordering::Relaxed);
    }
}

/// The date on this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads time"
)]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock, for limits and rates.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads time"
)]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
