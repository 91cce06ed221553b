//! Each pooled connection's own life, kept also while the pool is busy.
//!
//! r2d2 looks at `max_lifetime` when its reaper passes, and at idle connections only: under load a
//! connection would never be replaced, and a pool born at once would be replaced at once. Here every
//! connection has a span of its own, between 90 and 100 % of the maximum, and is retired when it is
//! checked in after the end of it.
//!
//! r2d2 tells an event handler the id of the connection that is checked in, and right after that, on
//! the same thread, asks the manager whether the connection is broken. So the handler judges, and
//! leaves the verdict where the manager finds it.

mod lives;

use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use r2d2::HandleEvent;
use r2d2::event::{AcquireEvent, CheckinEvent, CheckoutEvent, ReleaseEvent, TimeoutEvent};

pub(crate) use self::lives::Lifetimes;
use crate::clock::Clock;
use crate::event::{ConnectionRetired, Events};

thread_local! {
    static IS_RETIRED: Cell<bool> = const { Cell::new(false) };
}

/// The verdict on the connection that this thread is checking in. Taken once.
pub(crate) fn take_verdict() -> bool {
    IS_RETIRED.replace(false)
}

/// Keeps the lives of a pool's connections, and passes every event on to the user's own handler.
pub(crate) struct LifetimeHandler {
    /// `None` where connections live for ever.
    pub(crate) lifetimes: Option<Arc<Lifetimes>>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) inner: Box<dyn HandleEvent>,
}

impl LifetimeHandler {
    /// The inner handler is the user's. A panic of it would lose a slot of the pool for good where
    /// r2d2's workers call it.
    fn pass_on(&self, call: impl FnOnce(&dyn HandleEvent)) {
        if panic::catch_unwind(AssertUnwindSafe(|| call(&*self.inner))).is_err() {
            tracing::error!("the pool's event handler panicked");
        }
    }
}

impl HandleEvent for LifetimeHandler {
    fn handle_acquire(&self, event: AcquireEvent) {
        let id = event.connection_id();
        self.pass_on(|inner| inner.handle_acquire(event));
        if let Some(lifetimes) = &self.lifetimes {
            lifetimes.opened_at(id, self.clock.now().monotonic);
        }
    }

    fn handle_release(&self, event: ReleaseEvent) {
        if let Some(lifetimes) = &self.lifetimes {
            lifetimes.closed(event.connection_id());
        }
        self.pass_on(|inner| inner.handle_release(event));
    }

    fn handle_checkout(&self, event: CheckoutEvent) {
        self.pass_on(|inner| inner.handle_checkout(event));
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        self.pass_on(|inner| inner.handle_timeout(event));
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        let id = event.connection_id();
        self.pass_on(|inner| inner.handle_checkin(event));
        let Some(lifetimes) = &self.lifetimes else {
            return;
        };
        // Last, so that a pool that the inner handler used on this thread has taken its own verdict.
        let retired = lifetimes.judge_at(id, self.clock.now().monotonic);
        IS_RETIRED.set(retired.is_some());
        if let Some(age) = retired {
            self.events
                .connection_retired(&ConnectionRetired { id, age });
        }
    }
}

impl fmt::Debug for LifetimeHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
