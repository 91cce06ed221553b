//! How many connections of one pool lead to each member.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(crate) struct Balance(Mutex<HashMap<Arc<str>, usize>>);

/// Counts one connection for as long as it lives.
pub(crate) struct Held {
    balance: Arc<Balance>,
    id: Arc<str>,
}

/// The counts, which do not change while this lives.
pub(super) struct Counts<'a>(MutexGuard<'a, HashMap<Arc<str>, usize>>);

impl Balance {
    pub(super) fn lock(&self) -> Counts<'_> {
        Counts(self.0.lock())
    }

    pub(crate) fn hold(self: &Arc<Self>, id: &Arc<str>) -> Held {
        self.lock().hold(self, id)
    }
}

impl Counts<'_> {
    pub(super) fn of(&self, id: &str) -> usize {
        self.0.get(id).copied().unwrap_or_default()
    }

    /// `balance` is the one that is locked.
    pub(super) fn hold(&mut self, balance: &Arc<Balance>, id: &Arc<str>) -> Held {
        *self.0.entry(id.clone()).or_default() += 1;
        Held {
            balance: balance.clone(),
            id: id.clone(),
        }
    }
}

impl Held {
    /// The id of the member.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.balance.0.lock();
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").field(&self.id).finish()
    }
}
