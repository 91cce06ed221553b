//! Whether connections can be opened, for the log and for whoever asks.

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
    /// There was no password to log in with. That has been said where it was to be fetched.
    Password(Error),
    /// The server was not asked, since it has refused so many lately.
    RateLimited(Error),
    /// The server was asked.
    Login(Error),
}

impl Failed {
    pub(super) fn error(&self) -> &Error {
        match self {
            Failed::Password(error) | Failed::RateLimited(error) | Failed::Login(error) => error,
        }
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Failed::Password(error) | Failed::RateLimited(error) | Failed::Login(error) => error,
        }
    }
}

impl Health {
    /// Notes a failure; whether it is worth a line in a production log.
    pub(super) fn failed_at(&self, now: &Moment, failed: &Failed) -> bool {
        *self.last_failure.lock() = Some(failed.error().clone());
        match failed {
            Failed::Password(_) => false,
            Failed::RateLimited(_) | Failed::Login(_) => self.failures.failed_at(now),
        }
    }

    /// Notes a success; what it ends, if that was said.
    pub(super) fn succeeded_at(&self, now: &Moment) -> Option<Recovered> {
        *self.last_failure.lock() = None;
        self.failures.succeeded_at(now)
    }

    pub(super) fn last_failure(&self) -> Option<Error> {
        self.last_failure.lock().clone()
    }
}
