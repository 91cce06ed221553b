//! Whether connections can be opened, for the log and for `last_failure`.

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::error::Error;
use crate::event::{FailureStreak, Recovered};

#[derive(Default)]
pub(super) struct Health {
    failures: FailureStreak,
    last_failure: Mutex<Option<Error>>,
}

/// Where a connect failed.
pub(super) enum Failed {
    /// There was no password. The source has logged it.
    Password(Error),
    /// The login was rate-limited and the server not contacted.
    RateLimited(Error),
    /// The server, or the way to it.
    Login(Error),
    /// The pool's customizer, which logs it itself.
    Customizer(Error),
}

impl Failed {
    pub(super) fn error(&self) -> &Error {
        match self {
            Failed::Password(error)
            | Failed::RateLimited(error)
            | Failed::Login(error)
            | Failed::Customizer(error) => error,
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Failed::Password(error)
            | Failed::RateLimited(error)
            | Failed::Login(error)
            | Failed::Customizer(error) => error,
        }
    }
}

impl Health {
    /// Records a failure. Returns whether it is to be logged at WARN.
    pub(super) fn failed_at(&self, now: &Moment, failed: &Failed) -> bool {
        *self.last_failure.lock() = Some(failed.error().clone());
        match failed {
            Failed::Password(_) | Failed::Customizer(_) => false,
            Failed::RateLimited(_) | Failed::Login(_) => self.failures.failed_at(now),
        }
    }

    /// Records a success. Returns the failures that it ends, if they were logged.
    pub(super) fn succeeded_at(&self, now: &Moment) -> Option<Recovered> {
        *self.last_failure.lock() = None;
        self.failures.succeeded_at(now)
    }

    pub(super) fn last_failure(&self) -> Option<Error> {
        self.last_failure.lock().clone()
    }
}
