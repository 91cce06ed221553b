//! The open sessions, and how a test ends them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::monotonic;

/// How connections end if a test ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// They are closed, as by a server that stops.
    #[default]
    Close,
    /// They are reset, as after the loss of a host.
    Reset,
}

/// How long the caller waits for connections to end. They end almost at once.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Sessions {
    state: Mutex<State>,
    changed: Condvar,
    ending: watch::Sender<SessionEnd>,
}

#[derive(Default)]
struct State {
    /// The number of open sessions.
    open: usize,
    /// How many times all connections were ended.
    generation: u64,
    /// The connections, including those that are logging in, by the value of the counter above when they were
    /// accepted.
    connected: HashMap<u64, usize>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            state: Mutex::default(),
            changed: Condvar::new(),
            ending: watch::Sender::new(SessionEnd::default()),
        }
    }
}

/// Counts as one connection until it is dropped.
pub(crate) struct Connected<'a> {
    sessions: &'a Sessions,
    generation: u64,
    ending: watch::Receiver<SessionEnd>,
}

/// Counts as one session until it is dropped.
pub(crate) struct Open<'a>(&'a Sessions);

impl Sessions {
    pub(crate) fn connect(&self) -> Connected<'_> {
        self.change(|state| {
            *state.connected.entry(state.generation).or_default() += 1;
            Connected {
                sessions: self,
                generation: state.generation,
                ending: self.ending.subscribe(),
            }
        })
    }

    pub(crate) fn open(&self) -> Open<'_> {
        self.change(|state| state.open += 1);
        Open(self)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().open
    }

    /// Ends all connections, including those that are logging in, and waits until they are closed.
    pub(crate) fn end_all(&self, ending: SessionEnd) {
        let generation = self.change(|state| {
            state.generation += 1;
            self.ending.send_replace(ending);
            state.generation
        });
        // If the emulator's threads have ended, their connections have as well.
        let _ = self.wait_until(
            |state| state.connected.keys().all(|came| *came >= generation),
            ENDING_LIMIT,
        );
    }

    /// Waits until `enough` returns true for the number of sessions; `None` if that takes longer than `limit`.
    pub(crate) fn wait(&self, enough: impl Fn(usize) -> bool, limit: Duration) -> Option<usize> {
        let reached = self.wait_until(|state| enough(state.open), limit)?;
        Some(reached.open)
    }

    fn wait_until(
        &self,
        reached: impl Fn(&State) -> bool,
        limit: Duration,
    ) -> Option<MutexGuard<'_, State>> {
        let deadline = monotonic() + limit;
        let mut state = self.lock();
        while !reached(&state) {
            let left = deadline.checked_duration_since(monotonic())?;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some(state)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected<'_> {
    /// Waits until a test ends all connections, and returns how.
    pub(crate) async fn ended(&mut self) -> SessionEnd {
        // This cannot fail: `self` owns the sender.
        let _ = self.ending.changed().await;
        *self.ending.borrow()
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.sessions.change(|state| {
            let Entry::Occupied(mut count) = state.connected.entry(self.generation) else {
                return;
            };
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        });
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0
            .change(|state| state.open = state.open.saturating_sub(1));
    }
}
