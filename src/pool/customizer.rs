//! Protects the pool from the user's customizer.

use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;

use r2d2::CustomizeConnection;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::event::{FailureStreak, Recovered};
use crate::lifetime::without_notes;

/// The user's customizer, whose panic would lose a slot of the pool permanently.
pub(super) struct GuardedCustomizer<C, E> {
    inner: Box<dyn CustomizeConnection<C, E>>,
    clock: Clock,
    failures: FailureStreak,
    /// Where the pool's manager counts a failure and keeps it.
    note_failure: Box<dyn Fn(Error) + Send + Sync>,
    /// The process that the connections belong to, and not a child that was forked from it.
    process: u32,
}

impl<C, E> GuardedCustomizer<C, E> {
    pub(super) fn new(
        inner: Box<dyn CustomizeConnection<C, E>>,
        clock: Clock,
        note_failure: impl Fn(Error) + Send + Sync + 'static,
    ) -> Self {
        GuardedCustomizer {
            inner,
            clock,
            note_failure: Box::new(note_failure),
            failures: FailureStreak::default(),
            process: process::id(),
        }
    }
}

impl<C: 'static, E: std::error::Error + From<Error> + 'static> CustomizeConnection<C, E>
    for GuardedCustomizer<C, E>
{
    fn on_acquire(&self, connection: &mut C) -> Result<(), E> {
        let customized = panic::catch_unwind(AssertUnwindSafe(|| {
            without_notes(|| self.inner.on_acquire(connection))
        }))
        .unwrap_or_else(|_| {
            Err(E::from(Error::new(
                ErrorKind::Internal,
                "the pool's connection customizer panicked; its message tells where",
            )))
        });
        let now = self.clock.now();
        match &customized {
            Ok(()) => {
                if let Some(Recovered { failures, after }) = self.failures.succeeded_at(&now) {
                    tracing::info!(failures, ?after, "the connection customizer works again");
                }
            }
            Err(error) => {
                if self.failures.failed_at(&now) {
                    tracing::warn!(%error, "the connection customizer failed");
                }
                (self.note_failure)(as_ours(error));
            }
        }
        customized
    }

    fn on_release(&self, connection: C) {
        if self.process != process::id() {
            // Closing it would end the session that the parent uses.
            mem::forget(connection);
            return;
        }
        let release = AssertUnwindSafe(|| without_notes(|| self.inner.on_release(connection)));
        if panic::catch_unwind(release).is_err() {
            tracing::error!(
                "the pool's connection customizer panicked, or the drop of a connection"
            );
        }
    }
}

impl<C: 'static, E: 'static> fmt::Debug for GuardedCustomizer<C, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Converts the error of a customizer to this crate's, unless it is one already.
fn as_ours<E: std::error::Error + 'static>(error: &E) -> Error {
    let error: &(dyn std::error::Error + 'static) = error;
    match error.downcast_ref::<Error>() {
        Some(ours) if ours.kind() == ErrorKind::Customizer => ours.clone(),
        _ => Error::customizer(error.to_string()),
    }
}
