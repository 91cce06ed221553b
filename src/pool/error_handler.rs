//! The handler to which r2d2 reports its failures.

use std::error::Error;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use r2d2::HandleError;

use crate::lifetime::{take_no_failure, without_notes};

/// The default. Connect failures are already logged, and a failed checkout test only leads to another
/// connect.
#[derive(Debug)]
pub(super) struct DebugErrorHandler;

impl<E: Error> HandleError<E> for DebugErrorHandler {
    fn handle_error(&self, error: E) {
        tracing::debug!(%error, "r2d2 reports that a connection could not be opened or tested");
    }
}

/// The user's handler, whose panic would lose a slot of the pool permanently.
pub(super) struct GuardedErrorHandler<E>(pub(super) Box<dyn HandleError<E>>);

impl<E: 'static> HandleError<E> for GuardedErrorHandler<E> {
    fn handle_error(&self, error: E) {
        if take_no_failure() {
            return;
        }
        let call = AssertUnwindSafe(|| without_notes(|| self.0.handle_error(error)));
        if panic::catch_unwind(call).is_err() {
            tracing::error!("the pool's error handler panicked");
        }
    }
}

impl<E: 'static> fmt::Debug for GuardedErrorHandler<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
