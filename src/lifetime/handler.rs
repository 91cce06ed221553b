//! The r2d2 event handler that keeps the lifetimes.
//!
//! r2d2 passes a connection's id to its event handler and the connection itself to the manager, one
//! right after the other on the same thread. The first of the two leaves a note in a thread local, and
//! the second takes it:
//!
//! * `connect`, then `handle_acquire`: the generation in which the login began.
//! * `handle_checkin`, then `has_broken`: whether the connection is retired.
//! * `connect` or `is_valid` that fails, then the error handler: whether the error is to be reported.
//! * `is_valid` that fails, then `handle_release`: why a connection that works is dropped.
//! * `get` of [`retire_all`](crate::retire_all), then `handle_checkout` or `handle_timeout`: the
//!   lifetimes of the pool that is drained.
//!
//! In between, r2d2 calls handlers and customizers of the user's, which may use another pool on this
//! thread. They run [`without_notes`], so that no pool takes the note of another.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use r2d2::HandleEvent;
use r2d2::event::{AcquireEvent, CheckinEvent, CheckoutEvent, ReleaseEvent, TimeoutEvent};

use parking_lot::Mutex;

use super::Lifetimes;
use crate::clock::Clock;
use crate::cluster::Held;
use crate::event::{ConnectionRetired, Events, RetireReason};

/// The notes that need no destructor, so that they can be used while a thread ends, too.
#[derive(Clone, Copy)]
struct Notes {
    generation: u64,
    is_retired: bool,
    /// The reason for which a working connection is being dropped.
    dropped_for: Option<RetireReason>,
    /// Whether the error that r2d2 is about to report is not a failure.
    is_no_failure: bool,
}

const NO_NOTES: Notes = Notes {
    generation: 0,
    is_retired: false,
    dropped_for: None,
    is_no_failure: false,
};

/// The pool that a thread drains: its lifetimes, once r2d2 has called its handler.
type Drained = Option<Arc<Lifetimes>>;

thread_local! {
    static NOTES: Cell<Notes> = const { Cell::new(NO_NOTES) };
    /// The count of the connection that this thread is opening.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    /// Present while this thread drains a pool.
    static DRAINED: RefCell<Option<Drained>> = const { RefCell::new(None) };
}

fn change_notes<T>(change: impl FnOnce(&mut Notes) -> T) -> T {
    let mut notes = NOTES.get();
    let result = change(&mut notes);
    NOTES.set(notes);
    result
}

/// Sets what this thread drains, and returns what it was. A thread that is ending drains nothing.
fn set_drained(drained: Option<Drained>) -> Option<Drained> {
    let previous = DRAINED.try_with(|cell| cell.replace(drained));
    previous.ok().flatten()
}

/// Runs code of the user's, whose own use of pools neither sees nor changes this thread's notes.
pub(crate) fn without_notes<T>(call: impl FnOnce() -> T) -> T {
    struct Restore(Notes, Option<Drained>);

    impl Drop for Restore {
        fn drop(&mut self) {
            NOTES.set(self.0);
            set_drained(self.1.take());
        }
    }

    let _restore = Restore(NOTES.replace(NO_NOTES), set_drained(None));
    call()
}

/// Notes the generation of the connection that this thread is about to open, and which member of a cluster it leads
/// to.
pub(crate) fn begin_connect(generation: u64, held: Option<Held>) {
    change_notes(|notes| notes.generation = generation);
    // A thread that is ending opens none.
    let _ = HELD.try_with(|cell| cell.replace(held));
}

/// Whether the connection that this thread is checking in is retired. Clears the note.
pub(crate) fn take_retirement() -> bool {
    change_notes(|notes| mem::take(&mut notes.is_retired))
}

/// Notes that the connection that this thread is about to drop works, and the reason for the drop.
pub(crate) fn note_dropped_for(reason: RetireReason) {
    change_notes(|notes| notes.dropped_for = Some(reason));
}

/// Notes that the error which this thread is about to return to r2d2 is not a failure: the connection is still being
/// opened, or its lifetime has ended.
pub(crate) fn note_no_failure() {
    change_notes(|notes| notes.is_no_failure = true);
}

/// Whether the error that this thread returned to r2d2 is not a failure. Clears the note.
pub(crate) fn take_no_failure() -> bool {
    change_notes(|notes| mem::take(&mut notes.is_no_failure))
}

/// Whether this thread checks connections out only to drop them.
pub(crate) fn is_draining() -> bool {
    let is_draining = DRAINED.try_with(|cell| cell.borrow().is_some());
    is_draining.unwrap_or(false)
}

/// While this guard exists, connections that this thread checks out are not tested.
pub(crate) struct Drain(());

impl Drain {
    pub(crate) fn begin() -> Drain {
        set_drained(Some(None));
        Drain(())
    }

    /// The lifetimes of the pool that this thread called `get` of; `None` if it has none.
    pub(crate) fn lifetimes(&self) -> Option<Arc<Lifetimes>> {
        let lifetimes = DRAINED.try_with(|cell| cell.borrow().clone().flatten());
        lifetimes.ok().flatten()
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        set_drained(None);
    }
}

/// Keeps the lifetimes of a pool's connections, and passes every event on to the user's own handler.
pub(crate) struct LifetimeHandler {
    pub(crate) lifetimes: Arc<Lifetimes>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    /// Which member of a cluster each connection leads to, by its id.
    pub(crate) held: Mutex<HashMap<u64, Held>>,
    /// The user's handler.
    pub(crate) inner: Option<Box<dyn HandleEvent>>,
}

impl LifetimeHandler {
    /// Calls the user's handler. If it panicked through one of r2d2's workers, the pool would permanently lose a
    /// slot.
    fn pass_on(&self, call: impl FnOnce(&dyn HandleEvent)) {
        let Some(inner) = self.inner.as_deref() else {
            return;
        };
        let call = AssertUnwindSafe(|| without_notes(|| call(inner)));
        if panic::catch_unwind(call).is_err() {
            tracing::error!("the pool's event handler panicked");
        }
    }

    fn tell_retired(&self, event: &ConnectionRetired) {
        without_notes(|| self.events.connection_retired(event));
    }

    /// Hands the lifetimes to this thread if it drains this pool, and returns whether it does.
    fn answer_drain(&self) -> bool {
        is_draining() && {
            set_drained(Some(Some(self.lifetimes.clone())));
            true
        }
    }
}

impl HandleEvent for LifetimeHandler {
    fn handle_acquire(&self, event: AcquireEvent) {
        let id = event.connection_id();
        let generation = NOTES.get().generation;
        if let Ok(Some(held)) = HELD.try_with(RefCell::take) {
            self.held.lock().insert(id, held);
        }
        self.pass_on(|inner| inner.handle_acquire(event));
        let now = self.clock.monotonic();
        self.lifetimes.opened_at(id, generation, now);
    }

    fn handle_release(&self, event: ReleaseEvent) {
        self.lifetimes.closed(event.connection_id());
        self.held.lock().remove(&event.connection_id());
        if let Some(reason) = change_notes(|notes| notes.dropped_for.take()) {
            self.tell_retired(&ConnectionRetired {
                id: event.connection_id(),
                age: event.age(),
                reason,
            });
        }
        self.pass_on(|inner| inner.handle_release(event));
    }

    fn handle_checkout(&self, event: CheckoutEvent) {
        self.lifetimes.checked_out(event.connection_id());
        self.answer_drain();
        self.pass_on(|inner| inner.handle_checkout(event));
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        // A drain does not wait, so its time-out is not reported to the user's handler.
        if !self.answer_drain() {
            self.pass_on(|inner| inner.handle_timeout(event));
        }
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        let id = event.connection_id();
        self.pass_on(|inner| inner.handle_checkin(event));
        let retired = self.lifetimes.checked_in_at(id, self.clock.monotonic());
        change_notes(|notes| notes.is_retired = retired.is_some());
        if let Some((age, reason)) = retired {
            self.tell_retired(&ConnectionRetired { id, age, reason });
        }
    }
}

impl fmt::Debug for LifetimeHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
