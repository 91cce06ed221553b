//! The sessions that are open, and how they are ended from outside.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::monotonic;

/// How connections end when a test ends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As when a server stops: in order.
    #[default]
    Close,
    /// As when a host is gone: by a reset.
    Reset,
}

pub(crate) struct Sessions {
    open: Mutex<usize>,
    changed: Condvar,
    ending: watch::Sender<Ending>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            open: Mutex::default(),
            changed: Condvar::new(),
            ending: watch::Sender::new(Ending::default()),
        }
    }
}

/// Counts as one session for as long as it is held.
pub(crate) struct Open<'a>(&'a Sessions);

impl Sessions {
    pub(crate) fn open(&self) -> Open<'_> {
        self.change(|open| *open += 1);
        Open(self)
    }

    pub(crate) fn count(&self) -> usize {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all connections, those in their login too.
    pub(crate) fn end_all(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }

    /// Tells a connection when it shall end.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    /// Waits until the number of sessions suits `enough`; `None` when that took longer than `limit`.
    pub(crate) fn wait(&self, enough: impl Fn(usize) -> bool, limit: Duration) -> Option<usize> {
        let deadline = monotonic() + limit;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !enough(*open) {
            let left = deadline.checked_duration_since(monotonic())?;
            open = self
                .changed
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some(*open)
    }

    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.change(|open| *open = open.saturating_sub(1));
    }
}
