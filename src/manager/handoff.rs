//! Hands connections from the threads that open them to r2d2's workers.
//!
//! r2d2 keeps a pool alive while a worker is inside `connect`. If workers opened connections themselves, a
//! server that does not answer would keep a dropped pool alive. So a worker only *visits*, for a limited
//! time, and a *dial* runs on a thread of its own. All visits end with their window. Between two windows no
//! worker is inside, so that a dropped pool ends there.
//!
//! While the server is unreachable, one dial becomes the *probe* and is repeated. Visits start no others
//! then.
//!
//! There is no I/O in here, and the time is an argument. loom runs the interleavings of `models`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

#[cfg(test)]
#[cfg(rds_iam_loom)]
#[path = "handoff/models.rs"]
mod models;
#[cfg(test)]
#[cfg(not(rds_iam_loom))]
#[path = "handoff/tests.rs"]
mod tests;

/// How long after a worker entered while no other was inside all visits end. The end of a dropped pool takes
/// no longer.
const WINDOW: Duration = Duration::from_millis(800);

/// Connections of type `T`, and errors of type `E`, on their way to the workers of one pool.
pub(crate) struct Handoff<T, E> {
    state: Mutex<State<T, E>>,
    changed: Condvar,
}

struct State<T, E> {
    /// Connections that no worker has taken yet.
    ready: VecDeque<T>,
    /// Failures of dials that no worker has returned yet.
    failed: VecDeque<E>,
    /// The number of dials under way, including the probe.
    dials: usize,
    /// The number of workers inside.
    visits: usize,
    /// When the present visits end.
    window_end: Option<Instant>,
    /// Whether the last dial found the server unreachable.
    was_unreachable: bool,
    is_probing: bool,
    /// The last failure, if no dial has succeeded since.
    last_failure: Option<E>,
}

/// What a worker does that enters.
#[derive(Debug)]
pub(crate) enum VisitStart<T> {
    /// It takes a connection that was ready.
    Ready(T),
    /// It waits for at most `limit`, after it has started a dial if `starts_dial`.
    Wait { limit: Duration, starts_dial: bool },
    /// It leaves at once, because the window has ended and other workers have not left yet.
    Leave,
}

/// How a visit ends.
#[derive(Debug)]
pub(crate) enum VisitEnd<T, E> {
    Connected(T),
    Failed(E),
    /// The dial goes on. With the last failure, if no dial has succeeded since.
    Unfinished(Option<E>),
}

/// What a thread does after a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    End,
    /// It pauses and dials again, because it is the probe.
    Probe,
}

impl<T, E: Clone> Handoff<T, E> {
    pub(crate) fn new() -> Handoff<T, E> {
        Handoff {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                failed: VecDeque::new(),
                dials: 0,
                visits: 0,
                window_end: None,
                was_unreachable: false,
                is_probing: false,
                last_failure: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds a connection that was opened before the pool existed.
    pub(crate) fn put(&self, connection: T) {
        self.state.lock().ready.push_back(connection);
    }

    /// Takes a connection that is ready, without a visit.
    pub(crate) fn take_ready(&self) -> Option<T> {
        self.state.lock().ready.pop_front()
    }

    /// Begins a visit. One that waits is ended by [`wait`](Handoff::wait).
    pub(crate) fn begin_visit(&self, now: Instant) -> VisitStart<T> {
        let mut state = self.state.lock();
        // Workers that are inside are about to take as many.
        if state.ready.len() > state.visits
            && let Some(connection) = state.ready.pop_front()
        {
            return VisitStart::Ready(connection);
        }
        let end = match state.window_end {
            Some(end) if state.visits > 0 => end,
            _ => now + WINDOW,
        };
        let limit = end.saturating_duration_since(now);
        if limit.is_zero() {
            return VisitStart::Leave;
        }
        state.window_end = Some(end);
        state.visits += 1;
        let starts_dial = !state.is_probing && state.dials + state.ready.len() < state.visits;
        if starts_dial {
            state.dials += 1;
        }
        VisitStart::Wait { limit, starts_dial }
    }

    /// Waits for the result of a dial for at most `limit`, and ends the visit.
    pub(crate) fn wait(&self, limit: Duration) -> VisitEnd<T, E> {
        let mut state = self.changed.wait_while_for(
            self.state.lock(),
            |state| state.ready.is_empty() && state.failed.is_empty(),
            limit,
        );
        state.visits -= 1;
        if let Some(connection) = state.ready.pop_front() {
            VisitEnd::Connected(connection)
        } else if let Some(error) = state.failed.pop_front() {
            VisitEnd::Failed(error)
        } else {
            VisitEnd::Unfinished(state.last_failure.clone())
        }
    }

    /// Delivers a connection, of a dial or of the probe.
    pub(crate) fn connected(&self, connection: T, is_probe: bool) {
        self.finish(is_probe, |state| {
            state.ready.push_back(connection);
            state.was_unreachable = false;
            state.last_failure = None;
        });
    }

    /// Delivers a failure that another dial would repeat, such as a refused login.
    pub(crate) fn failed(&self, error: E, is_probe: bool) {
        self.finish(is_probe, |state| {
            state.last_failure = Some(error.clone());
            state.failed.push_back(error);
            state.was_unreachable = false;
        });
    }

    /// Notes that a dial did not reach a server that accepts logins. The second in a row becomes the probe.
    pub(crate) fn unreachable(&self, error: E, is_probe: bool) -> Next {
        let mut state = self.state.lock();
        state.last_failure = Some(error.clone());
        if is_probe {
            return Next::Probe;
        }
        if state.was_unreachable && !state.is_probing {
            state.is_probing = true;
            return Next::Probe;
        }
        state.was_unreachable = true;
        state.dials -= 1;
        // With a probe, visits wait for its success.
        if !state.is_probing {
            state.failed.push_back(error);
        }
        drop(state);
        self.changed.notify_all();
        Next::End
    }

    fn finish(&self, is_probe: bool, change: impl FnOnce(&mut State<T, E>)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.dials -= 1;
        if is_probe {
            state.is_probing = false;
        }
        drop(state);
        self.changed.notify_all();
    }
}
