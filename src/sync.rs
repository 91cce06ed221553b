//! The locks of the code that loom models. In a model they are loom's, which runs every order of events.
//!
//! The lock around the cached value is parking_lot's. What threads wait in is std's: parking_lot keeps a table
//! of all waiting threads of the process. A forked child inherits that table without its threads, and can hang
//! once it starts threads of its own.

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(rds_iam_loom)]
use loom::sync as locks;
#[cfg(not(rds_iam_loom))]
use std::sync as locks;

pub(crate) use self::locks::MutexGuard;
#[cfg(rds_iam_loom)]
pub(crate) use self::modelled::RwLock;
#[cfg(not(rds_iam_loom))]
pub(crate) use parking_lot::RwLock;

/// A lock that a panic does not poison. Its content is replaced as a whole or not at all.
#[derive(Default)]
pub(crate) struct Mutex<T>(locks::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(locks::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(crate) struct Condvar(locks::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar(locks::Condvar::new())
    }

    /// Waits while `condition` holds, for at most `limit`.
    #[cfg(not(rds_iam_loom))]
    pub(crate) fn wait_while_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
        limit: Duration,
    ) -> MutexGuard<'a, T> {
        let waited = self.0.wait_timeout_while(guard, limit, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Time does not pass in a model, so the limit is never reached.
    #[cfg(rds_iam_loom)]
    pub(crate) fn wait_while_for<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        _limit: Duration,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        guard
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// loom's lock has the interface of std's. This provides the part of parking_lot's that is used.
#[cfg(rds_iam_loom)]
mod modelled {
    use loom::sync::{self, RwLockReadGuard, RwLockWriteGuard};

    const POISONED: &str = "a modelled thread panicked";

    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> RwLock<T> {
            RwLock(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().expect(POISONED)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().expect(POISONED)
        }
    }
}
