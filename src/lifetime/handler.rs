//! What r2d2 tells of a pool's connections, and what follows from it.
//!
//! r2d2 tells its event handler a connection's id and asks the manager about the connection itself,
//! one right after the other on the same thread. So whichever comes first leaves a note there, and
//! the other takes it:
//!
//! * `connect`, then `handle_acquire`: in which round the login began.
//! * `handle_checkin`, then `has_broken`: whether the connection is to go.
//! * `is_valid` that fails, then `handle_release`: whether the server was read-only.
//! * `get` of [`retire_all`](crate::retire_all), then `handle_checkout` or `handle_timeout`:
//!   which pool that is.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use r2d2::HandleEvent;
use r2d2::event::{AcquireEvent, CheckinEvent, CheckoutEvent, ReleaseEvent, TimeoutEvent};

use super::Lifetimes;
use crate::clock::Clock;
use crate::event::{ConnectionRetired, Events, RetireReason};

thread_local! {
    static ROUND: Cell<u64> = const { Cell::new(0) };
    static IS_RETIRED: Cell<bool> = const { Cell::new(false) };
    static IS_READ_ONLY: Cell<bool> = const { Cell::new(false) };
    /// Present while this thread draws; then the pool's lives, once it has been asked.
    static DRAWN_FROM: RefCell<Option<Option<Arc<Lifetimes>>>> = const { RefCell::new(None) };
}

/// Notes that the connection that this thread is about to open belongs to this round.
pub(crate) fn begin_connect(round: u64) {
    ROUND.set(round);
}

/// The verdict on the connection that this thread is checking in. Taken once.
pub(crate) fn take_verdict() -> bool {
    IS_RETIRED.replace(false)
}

/// Notes that the connection that this thread is giving up is alive, and its server read-only.
pub(crate) fn note_read_only() {
    IS_READ_ONLY.set(true);
}

/// Whether this thread takes a connection only to see which it is.
pub(crate) fn is_drawing() -> bool {
    DRAWN_FROM.with_borrow(Option::is_some)
}

/// While it is held, this thread draws connections: they are not tried when they are taken.
pub(crate) struct Drawing(());

impl Drawing {
    pub(crate) fn begin() -> Drawing {
        DRAWN_FROM.set(Some(None));
        Drawing(())
    }

    /// The lives of the pool that was asked; `None` if it has none.
    pub(crate) fn lifetimes(&self) -> Option<Arc<Lifetimes>> {
        DRAWN_FROM.with_borrow(|from| from.clone().flatten())
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        DRAWN_FROM.set(None);
    }
}

/// Keeps the lives of a pool's connections, and passes every event on to the user's own handler.
pub(crate) struct LifetimeHandler {
    pub(crate) lifetimes: Arc<Lifetimes>,
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

    /// Answers this thread if it draws, and says whether it does.
    fn answer_who_draws(&self) -> bool {
        DRAWN_FROM.with_borrow_mut(|from| match from {
            Some(lifetimes) => {
                *lifetimes = Some(self.lifetimes.clone());
                true
            }
            None => false,
        })
    }
}

impl HandleEvent for LifetimeHandler {
    fn handle_acquire(&self, event: AcquireEvent) {
        let id = event.connection_id();
        self.pass_on(|inner| inner.handle_acquire(event));
        let now = self.clock.monotonic();
        self.lifetimes.opened_at(id, ROUND.get(), now);
    }

    fn handle_release(&self, event: ReleaseEvent) {
        self.lifetimes.closed(event.connection_id());
        if IS_READ_ONLY.replace(false) {
            self.events.connection_retired(&ConnectionRetired {
                id: event.connection_id(),
                age: event.age(),
                reason: RetireReason::ReadOnly,
            });
        }
        self.pass_on(|inner| inner.handle_release(event));
    }

    fn handle_checkout(&self, event: CheckoutEvent) {
        self.answer_who_draws();
        self.pass_on(|inner| inner.handle_checkout(event));
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        // Whoever draws did not mean to wait.
        if !self.answer_who_draws() {
            self.pass_on(|inner| inner.handle_timeout(event));
        }
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        let id = event.connection_id();
        self.pass_on(|inner| inner.handle_checkin(event));
        // Last, so that a pool that the inner handler used on this thread has taken its own verdict.
        let retired = self.lifetimes.judge_at(id, self.clock.monotonic());
        IS_RETIRED.set(retired.is_some());
        if let Some((age, reason)) = retired {
            let event = ConnectionRetired { id, age, reason };
            self.events.connection_retired(&event);
        }
    }
}

impl fmt::Debug for LifetimeHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
