//! One value and its age: a cache with single flight, stale-while-revalidate and back-off.
//!
//! A fresh value costs a read lock. If a refresh is due, one caller gets the [`Refresh`]: the exclusive right,
//! and the duty, to fetch a new value. The cache itself fetches nothing and holds no lock during a fetch, so a
//! refresh may take any time, on any thread. All callers that wait for it receive its result, success or
//! failure.
//!
//! loom runs the interleavings in `models.rs`.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::process;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Moment;
use crate::sync::{Condvar, Mutex, RwLock};

#[cfg(test)]
#[cfg(rds_iam_loom)]
mod models;
#[cfg(test)]
#[cfg(not(rds_iam_loom))]
mod tests;

/// How long a failure is returned to callers if there is no value. Ten workers that ask one after the other then
/// make one request, and a person who has just corrected the cause does not notice the delay.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(1);

/// The back-off after the first failed refresh. It doubles with each consecutive failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// The number of steps in which a time limit is waited for.
const STEPS: u32 = 16;

/// The longest back-off.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A value that expires.
pub(crate) trait Expiring {
    /// The freshness at `now`. The cache decides by nothing else.
    fn freshness_at(&self, now: &Moment) -> Freshness;
}

/// How far a value may be used, in the terms of HTTP caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It is used without a refresh.
    Fresh,
    /// It is used while it is refreshed.
    Stale,
    /// It must not be used.
    Expired,
}

/// A value that many callers use and one at a time refreshes.
pub(crate) struct Cache<V, E> {
    /// Only a completed refresh stores a value, and it holds `state` meanwhile.
    value: RwLock<Option<Arc<V>>>,
    /// Locked before `value` if both are needed.
    state: Mutex<RefreshState<V, E>>,
}

/// The result of [`Cache::look_up`].
pub(crate) enum Lookup<V: Expiring, E: Clone + From<Abandoned>> {
    /// A value to use now. With a `Refresh`, the caller has to start it, and does not wait for it.
    Value(Arc<V>, Option<Refresh<V, E>>),
    /// There is no value before the refresh completes. With a `Refresh`, the caller has to start it.
    Wait(Waiter<V, E>, Option<Refresh<V, E>>),
    /// There is no value, and a refresh has failed too recently for another attempt.
    Failed(E),
}

impl<V: Expiring, E: Clone + From<Abandoned>> Cache<V, E> {
    pub(crate) fn new() -> Cache<V, E> {
        Cache {
            value: RwLock::new(None),
            state: Mutex::new(RefreshState {
                refresh: None,
                last_failure: None,
            }),
        }
    }

    /// Returns the value if it is fresh. This is the path of nearly every call.
    #[inline]
    pub(crate) fn fresh_at(&self, now: &Moment) -> Option<Arc<V>> {
        let value = self.value.read();
        value
            .as_ref()
            .filter(|value| value.freshness_at(now) == Freshness::Fresh)
            .cloned()
    }

    /// Returns the value, fresh or not.
    pub(crate) fn peek(&self) -> Option<Arc<V>> {
        self.value.read().clone()
    }

    /// Decides how a caller gets a value at `now`: it uses the present one, waits for a refresh, starts one, or
    /// fails.
    pub(crate) fn look_up(self: &Arc<Self>, now: &Moment) -> Lookup<V, E> {
        if let Some(value) = self.fresh_at(now) {
            return Lookup::Value(value, None);
        }
        let mut state = self.state.lock();
        // Between the check above and the lock, another thread may have changed the cache. So check again:
        // 1. A refresh succeeded. Its value is used, and another refresh would be one too many.
        // 2. A refresh failed, or another caller has started one. `state` has it.
        // 3. The value was discarded.
        // 4. Nothing changed. Then this caller is the first, for as long as it holds the lock.
        let value = self.peek();
        let value = value.map(|value| (value.freshness_at(now), value));
        match (value, state.refresh()) {
            (Some((Freshness::Fresh, value)), _) => Lookup::Value(value, None),
            (Some((Freshness::Stale, value)), None) if !state.in_backoff(now) => {
                Lookup::Value(value, Some(self.start_refresh(&mut state, now).1))
            }
            (Some((Freshness::Stale, value)), _) => Lookup::Value(value, None),
            // Waiting for a refresh in flight takes precedence over an older failure.
            (_, Some(in_flight)) => Lookup::Wait(Waiter::of(in_flight), None),
            (_, None) => match state.recent_failure(now) {
                Some(error) => Lookup::Failed(error),
                None => {
                    let (waiter, refresh) = self.start_refresh(&mut state, now);
                    Lookup::Wait(waiter, Some(refresh))
                }
            },
        }
    }

    /// Starts a refresh although the value may be fresh; `None` if one is in flight. The present value is used
    /// meanwhile, and afterwards if the refresh fails.
    pub(crate) fn refresh_early(self: &Arc<Self>, now: &Moment) -> Option<Refresh<V, E>> {
        let mut state = self.state.lock();
        match state.refresh() {
            Some(_) => None,
            None => Some(self.start_refresh(&mut state, now).1),
        }
    }

    /// A waiter for the refresh in flight, if there is one.
    pub(crate) fn in_flight(&self) -> Option<Waiter<V, E>> {
        self.state.lock().refresh().map(Waiter::of)
    }

    /// Gives up the refresh that `waiter` waits for, so that the next caller can start another. Its result is
    /// ignored, except by the callers that wait for it.
    pub(crate) fn give_up(&self, waiter: &Waiter<V, E>) {
        let mut state = self.state.lock();
        if state.is_current(&waiter.in_flight) {
            state.refresh = None;
        }
    }

    /// Removes exactly `value`, unless another has replaced it. Returns whether it was removed.
    ///
    /// A refresh in flight goes on, and its value is stored.
    pub(crate) fn discard(&self, value: &Arc<V>) -> bool {
        let mut current = self.value.write();
        let is_current = current.as_ref().is_some_and(|it| Arc::ptr_eq(it, value));
        if is_current {
            *current = None;
        }
        is_current
    }

    fn start_refresh(
        self: &Arc<Self>,
        state: &mut RefreshState<V, E>,
        now: &Moment,
    ) -> (Waiter<V, E>, Refresh<V, E>) {
        let in_flight = Arc::new(InFlight::new());
        state.refresh = Some(in_flight.clone());
        let waiter = Waiter::of(&in_flight);
        let refresh = Refresh {
            cache: self.clone(),
            in_flight: Some(in_flight),
            started: *now,
        };
        (waiter, refresh)
    }

    /// Completes a refresh: first for later callers, then for those that wait, so that a caller that has
    /// waited finds it completed.
    fn settle(&self, in_flight: &InFlight<V, E>, result: Result<V, E>, now: &Moment) -> Completed {
        let result = result.map(Arc::new);
        let is_fresh = matches!(&result, Ok(value) if value.freshness_at(now) == Freshness::Fresh);

        let mut state = self.state.lock();
        if !state.is_current(in_flight) {
            drop(state);
            in_flight.resolve(result);
            return Completed {
                consecutive_failures: 0,
                was_given_up: true,
            };
        }
        let replaced = match &result {
            Ok(value) => self.value.write().replace(value.clone()),
            Err(_) => None,
        };
        let earlier = state.last_failure.take();
        let consecutive_failures = earlier
            .as_ref()
            .map_or(0, |last_failure| last_failure.consecutive);
        if !is_fresh {
            let consecutive = consecutive_failures.saturating_add(1);
            state.last_failure = Some(LastFailure {
                error: result.as_ref().err().cloned(),
                at: *now,
                consecutive,
                backoff: backoff_after(consecutive),
            });
        }
        state.refresh = None;
        drop(state);

        in_flight.resolve(result);
        // The old value and error are freed without a lock.
        drop((replaced, earlier));
        Completed {
            consecutive_failures,
            was_given_up: false,
        }
    }
}

/// Which refresh is in flight, and how the last one ended.
struct RefreshState<V, E> {
    /// The refresh in flight.
    refresh: Option<Arc<InFlight<V, E>>>,
    /// The last refresh, if it returned no fresh value.
    last_failure: Option<LastFailure<E>>,
}

/// A refresh that failed, or returned a value that was stale already and is no reason to refresh again at once.
struct LastFailure<E> {
    error: Option<E>,
    at: Moment,
    consecutive: u32,
    /// How long after `at` a stale value is not refreshed.
    backoff: Duration,
}

impl<V, E: Clone> RefreshState<V, E> {
    /// The refresh in flight. One that a forked child has copied from its parent never completes there, since
    /// its thread is the parent's.
    fn refresh(&self) -> Option<&Arc<InFlight<V, E>>> {
        let refresh = self.refresh.as_ref()?;
        (refresh.process == process::id()).then_some(refresh)
    }

    /// Whether `in_flight` was neither given up nor left behind by a fork.
    fn is_current(&self, in_flight: &InFlight<V, E>) -> bool {
        let refresh = self.refresh.as_deref();
        refresh.is_some_and(|current| std::ptr::eq(current, in_flight))
    }

    fn in_backoff(&self, now: &Moment) -> bool {
        self.last_failure
            .as_ref()
            .is_some_and(|last_failure| now.since(&last_failure.at) < last_failure.backoff)
    }

    fn recent_failure(&self, now: &Moment) -> Option<E> {
        self.last_failure
            .as_ref()
            .filter(|last_failure| now.since(&last_failure.at) < FAILURE_REMEMBERED)
            .and_then(|last_failure| last_failure.error.clone())
    }
}

/// 1 s, 2 s, 4 s and so on, up to the longest back-off. With jitter, between half and all of that, so that
/// processes that failed together do not retry together.
fn backoff_after(consecutive_failures: u32) -> Duration {
    let doublings = consecutive_failures.saturating_sub(1).min(u32::BITS - 1);
    let step = FIRST_BACKOFF
        .saturating_mul(1 << doublings)
        .min(LONGEST_BACKOFF);
    step.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The exclusive right, and the duty, to fetch a value. A cache has one at a time.
///
/// It can move to another thread or into an async task. If it is dropped there before it is completed, by a panic
/// or a shutdown, it completes as [`Abandoned`]. One that is leaked keeps callers waiting, so every fetch has a
/// time limit.
#[must_use = "a refresh that is dropped has failed"]
pub(crate) struct Refresh<V: Expiring, E: Clone + From<Abandoned>> {
    cache: Arc<Cache<V, E>>,
    /// `None` once it is completed.
    in_flight: Option<Arc<InFlight<V, E>>>,
    started: Moment,
}

/// The state before a refresh was completed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    /// The number of consecutive refreshes before this one that returned no fresh value. A failure after 0 is
    /// logged, and so is a success after more.
    pub(crate) consecutive_failures: u32,
    /// Whether another refresh has taken its place, so that its result was ignored.
    pub(crate) was_given_up: bool,
}

impl<V: Expiring, E: Clone + From<Abandoned>> Refresh<V, E> {
    /// Hands the result to all callers that wait. A value replaces the present one; a failure leaves it.
    ///
    /// A value is stored whatever its freshness, so an expired one should be completed as a failure.
    pub(crate) fn complete(mut self, result: Result<V, E>, now: &Moment) -> Completed {
        match self.in_flight.take() {
            Some(in_flight) => self.cache.settle(&in_flight, result, now),
            // Not reached: only this and `drop` take it, and both own the refresh.
            None => Completed {
                consecutive_failures: 0,
                was_given_up: true,
            },
        }
    }
}

impl<V: Expiring, E: Clone + From<Abandoned>> Drop for Refresh<V, E> {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            // The time is not known here, so it counts as failed at its start.
            let error = E::from(Abandoned);
            self.cache.settle(&in_flight, Err(error), &self.started);
        }
    }
}

/// A refresh ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fetch panicked or was shut down before it had a result")
    }
}

impl StdError for Abandoned {}

/// Waits for the result of one refresh, and of no later one: a thread with [`wait`](Waiter::wait), a task with
/// `.await`.
pub(crate) struct Waiter<V, E> {
    in_flight: Arc<InFlight<V, E>>,
    /// The index of this waiter's waker.
    waker_index: Option<usize>,
}

impl<V, E: Clone> Waiter<V, E> {
    fn of(in_flight: &Arc<InFlight<V, E>>) -> Waiter<V, E> {
        Waiter {
            in_flight: in_flight.clone(),
            waker_index: None,
        }
    }

    /// Blocks until the refresh completes; `None` if it does not within `limit`.
    ///
    /// The limit is waited for in steps, so that time in which the process was suspended counts as one.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Result<Arc<V>, E>> {
        let mut outcome = self.in_flight.outcome.lock();
        outcome.threads += 1;
        for _ in 0..STEPS {
            outcome = self.in_flight.completed.wait_while_for(
                outcome,
                |outcome| outcome.result.is_none(),
                limit / STEPS,
            );
            if outcome.result.is_some() {
                break;
            }
        }
        outcome.threads -= 1;
        outcome.result.clone()
    }
}

impl<V, E: Clone> Future for Waiter<V, E> {
    type Output = Result<Arc<V>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiter = &mut *self;
        let mut outcome = waiter.in_flight.outcome.lock();
        if let Some(result) = &outcome.result {
            return Poll::Ready(result.clone());
        }
        match waiter
            .waker_index
            .and_then(|waker_index| outcome.wakers.get_mut(waker_index))
        {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                waiter.waker_index = Some(outcome.wakers.len());
                outcome.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// A refresh in flight. Each refresh has its own: a shared one could give a late waiter the result of the next
/// refresh.
struct InFlight<V, E> {
    /// The process in which it was started.
    process: u32,
    outcome: Mutex<Outcome<V, E>>,
    completed: Condvar,
}

struct Outcome<V, E> {
    result: Option<Result<Arc<V>, E>>,
    /// The number of threads that wait.
    threads: usize,
    /// Those of the tasks that wait.
    wakers: Vec<Waker>,
}

impl<V, E> InFlight<V, E> {
    fn new() -> InFlight<V, E> {
        InFlight {
            process: process::id(),
            outcome: Mutex::new(Outcome {
                result: None,
                threads: 0,
                wakers: Vec::new(),
            }),
            completed: Condvar::new(),
        }
    }

    fn resolve(&self, result: Result<Arc<V>, E>) {
        let mut outcome = self.outcome.lock();
        outcome.result = Some(result);
        let wakers = std::mem::take(&mut outcome.wakers);
        let has_threads = outcome.threads > 0;
        drop(outcome);
        // A system call, which a caller that signs its token itself does not need.
        if has_threads {
            self.completed.notify_all();
        }
        for waker in wakers {
            waker.wake();
        }
    }
}
