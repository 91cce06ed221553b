//! The locks of the code that loom models: parking_lot's, or in a model loom's, which run every order of
//! events.

#[cfg(not(rds_iam_loom))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};

#[cfg(rds_iam_loom)]
pub(crate) use self::modelled::{Condvar, Mutex, RwLock};

/// loom's locks have the shape of std's. This gives them the part of parking_lot's that is used.
#[cfg(rds_iam_loom)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

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

    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// `None` only while a condition variable has it.
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect(POISONED)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("the lock is held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the lock is held")
        }
    }

    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        /// Time does not pass in a model, so the limit is never reached.
        pub(crate) fn wait_while_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            mut condition: impl FnMut(&mut T) -> bool,
            _limit: Duration,
        ) {
            while condition(guard) {
                let held = guard.0.take().expect("the lock is held");
                guard.0 = Some(self.0.wait(held).expect(POISONED));
            }
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
