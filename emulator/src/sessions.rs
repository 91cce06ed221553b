//! The sessions that are open, and how they are ended from outside.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::monotonic;

/// How connections end when a test ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// As when a server stops: in order.
    #[default]
    Close,
    /// As when a host is gone: by a reset.
    Reset,
}

/// How long the caller waits for connections to end, which takes them hardly any time.
const ENDING_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Sessions {
    state: Mutex<State>,
    changed: Condvar,
    ending: watch::Sender<SessionEnd>,
}

#[derive(Default)]
struct State {
    /// Sessions that are open.
    open: usize,
    /// How often all connections were ended.
    round: u64,
    /// Connections, those in their login too, by the round in which they came.
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

/// Counts as one connection for as long as it is held.
pub(crate) struct Connected<'a> {
    sessions: &'a Sessions,
    round: u64,
    ending: watch::Receiver<SessionEnd>,
}

/// Counts as one session for as long as it is held.
pub(crate) struct Open<'a>(&'a Sessions);

impl Sessions {
    pub(crate) fn connect(&self) -> Connected<'_> {
        self.change(|state| {
            *state.connected.entry(state.round).or_default() += 1;
            Connected {
                sessions: self,
                round: state.round,
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

    /// Ends all connections, those in their login too, and waits until they are closed.
    pub(crate) fn end_all(&self, ending: SessionEnd) {
        let round = self.change(|state| {
            state.round += 1;
            self.ending.send_replace(ending);
            state.round
        });
        // Where the emulator's threads are gone, so are the connections.
        let _ = self.wait_until(
            |state| state.connected.keys().all(|came| *came >= round),
            ENDING_LIMIT,
        );
    }

    /// Waits until the number of sessions suits `enough`; `None` when that took longer than `limit`.
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
    /// Waits until a test ends all connections, and says how.
    pub(crate) async fn ended(&mut self) -> SessionEnd {
        // No error: the sender is there for as long as what is borrowed here.
        let _ = self.ending.changed().await;
        *self.ending.borrow()
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.sessions.change(|state| {
            let Entry::Occupied(mut count) = state.connected.entry(self.round) else {
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
