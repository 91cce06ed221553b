//! One value and its age.
//!
//! Whoever asks gets the value for the price of a read lock while it is fresh. When it is not, one
//! of those who ask is given the [`Flight`]: the right to fetch a new one, which nobody else has at
//! the same time. The cache fetches nothing itself and holds no lock while a fetch runs, so a flight
//! may take as long as it likes, on any thread. What it brings home, good or bad, is the answer for
//! everyone who waited for it.
//!
//! This is the only concurrent code of the crate. Its interleavings are tried out by loom, in
//! `models.rs`.

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

/// For how long a failure answers for a value that is missing: ten workers that ask one after the
/// other are one request, and a person who has just put things right does not notice.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(1);

/// The pause after the first refresh that failed. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The pause never grows beyond this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Something that ages.
pub(crate) trait Perishable {
    /// How good this is at `now`. The cache judges by nothing else.
    fn freshness_at(&self, now: &Moment) -> Freshness;
}

/// How good a value is at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// As good as new.
    Fresh,
    /// Good, but a refresh is due.
    Aging,
    /// Must not be used any more.
    Dead,
}

/// A value that many use and one at a time renews.
pub(crate) struct Cache<V, E> {
    /// What is there to read. Only a landing puts something in, and it holds the gate meanwhile.
    value: RwLock<Option<Arc<V>>>,
    /// Who may take off. Taken before `value` where both are needed.
    gate: Mutex<Gate<V, E>>,
}

/// What [`Cache::look_up`] found.
pub(crate) enum Answer<V: Perishable, E: Clone + From<Abandoned>> {
    /// A value to use now. With a flight, a refresh is due and it falls to this caller to have it
    /// made, without waiting for it.
    Value(Arc<V>, Option<Flight<V, E>>),
    /// There is nothing to use before the flight lands. With a flight, it falls to this caller to
    /// have it made.
    Wait(Landing<V, E>, Option<Flight<V, E>>),
    /// There is nothing to use, and a flight failed so recently that another is not worth a try.
    Failed(E),
}

impl<V: Perishable, E: Clone + From<Abandoned>> Cache<V, E> {
    pub(crate) fn new() -> Cache<V, E> {
        Cache {
            value: RwLock::new(None),
            gate: Mutex::new(Gate {
                flight: None,
                setback: None,
            }),
        }
    }

    /// The value if it is fresh. This is the path of nearly every caller.
    #[inline]
    pub(crate) fn fresh_at(&self, now: &Moment) -> Option<Arc<V>> {
        let value = self.value.read();
        value
            .as_ref()
            .filter(|value| value.freshness_at(now) == Freshness::Fresh)
            .cloned()
    }

    /// Whatever value is there, dead or alive.
    pub(crate) fn peek(&self) -> Option<Arc<V>> {
        self.value.read().clone()
    }

    /// What to do for a value at `now`: use one, wait for one, fetch one, or give up for the moment.
    pub(crate) fn look_up(self: &Arc<Self>, now: &Moment) -> Answer<V, E> {
        if let Some(value) = self.fresh_at(now) {
            return Answer::Value(value, None);
        }
        let mut gate = self.gate.lock();
        // Between the look above and the gate, anything may have happened. So look again:
        // 1. A flight landed well. Its value is what we want, and another flight would be one too
        //    many.
        // 2. A flight landed badly, or another caller's began. The gate knows.
        // 3. The value was discarded, and there is nothing to use after all.
        // 4. Nothing. Then this caller is the first, and stays it for as long as it has the gate.
        let value = self.peek();
        let value = value.map(|value| (value.freshness_at(now), value));
        match (value, gate.flight()) {
            (Some((Freshness::Fresh, value)), _) => Answer::Value(value, None),
            (Some((Freshness::Aging, value)), None) if !gate.is_pausing(now) => {
                Answer::Value(value, Some(self.take_off(&mut gate, now).1))
            }
            (Some((Freshness::Aging, value)), _) => Answer::Value(value, None),
            // To share a flight costs nothing, so it comes before an older failure.
            (_, Some(slot)) => Answer::Wait(Landing::of(slot), None),
            (_, None) => match gate.recent_failure(now) {
                Some(error) => Answer::Failed(error),
                None => {
                    let (landing, flight) = self.take_off(&mut gate, now);
                    Answer::Wait(landing, Some(flight))
                }
            },
        }
    }

    /// The right to fetch a value although the present one may be fresh; `None` if a fetch is under way.
    /// The present value serves meanwhile, and afterwards if the fetch fails.
    pub(crate) fn refresh_early(self: &Arc<Self>, now: &Moment) -> Option<Flight<V, E>> {
        let mut gate = self.gate.lock();
        match gate.flight() {
            Some(_) => None,
            None => Some(self.take_off(&mut gate, now).1),
        }
    }

    /// The fetch under way, if there is one.
    pub(crate) fn under_way(&self) -> Option<Landing<V, E>> {
        self.gate.lock().flight().map(Landing::of)
    }

    /// Drops exactly `value`, unless another has taken its place. Returns whether it was dropped.
    ///
    /// A flight that is under way goes on, and what it brings is kept: it can be no worse.
    pub(crate) fn discard(&self, value: &Arc<V>) -> bool {
        let mut current = self.value.write();
        let is_current = current.as_ref().is_some_and(|it| Arc::ptr_eq(it, value));
        if is_current {
            *current = None;
        }
        is_current
    }

    fn take_off(
        self: &Arc<Self>,
        gate: &mut Gate<V, E>,
        now: &Moment,
    ) -> (Landing<V, E>, Flight<V, E>) {
        let slot = Arc::new(Slot::new());
        gate.flight = Some(slot.clone());
        let landing = Landing::of(&slot);
        let flight = Flight {
            cache: self.clone(),
            slot: Some(slot),
            took_off: *now,
        };
        (landing, flight)
    }

    /// Ends the flight of `slot`: first for those who come, then for those who wait, so that whoever
    /// has waited finds it over.
    fn settle(&self, slot: &Slot<V, E>, result: Result<V, E>, now: &Moment) -> Landed {
        let result = result.map(Arc::new);
        let is_fresh = matches!(&result, Ok(value) if value.freshness_at(now) == Freshness::Fresh);

        let mut gate = self.gate.lock();
        let replaced = match &result {
            Ok(value) => self.value.write().replace(value.clone()),
            Err(_) => None,
        };
        let earlier = gate.setback.take();
        let setbacks = earlier.as_ref().map_or(0, |setback| setback.in_a_row);
        if !is_fresh {
            let in_a_row = setbacks.saturating_add(1);
            gate.setback = Some(Setback {
                error: result.as_ref().err().cloned(),
                at: *now,
                in_a_row,
                pause: pause_after(in_a_row),
            });
        }
        // A flight of the parent's must not end one that was begun in a forked child.
        if gate
            .flight
            .as_deref()
            .is_some_and(|it| std::ptr::eq(it, slot))
        {
            gate.flight = None;
        }
        drop(gate);

        slot.resolve(result);
        // What has had its day is freed under no lock.
        drop((replaced, earlier));
        Landed { setbacks }
    }
}

/// What the gate guards.
struct Gate<V, E> {
    /// The flight under way.
    flight: Option<Arc<Slot<V, E>>>,
    /// The last flight, if it brought no fresh value.
    setback: Option<Setback<E>>,
}

/// A flight that failed, or brought a value that was aging already and is no reason to go again at
/// once.
struct Setback<E> {
    error: Option<E>,
    at: Moment,
    in_a_row: u32,
    /// How long after `at` a value that can still be used is left alone.
    pause: Duration,
}

impl<V, E: Clone> Gate<V, E> {
    /// The flight under way. One that a forked child has copied from its parent never lands there, since
    /// the thread that makes it is the parent's.
    fn flight(&self) -> Option<&Arc<Slot<V, E>>> {
        let flight = self.flight.as_ref()?;
        (flight.process == process::id()).then_some(flight)
    }

    fn is_pausing(&self, now: &Moment) -> bool {
        self.setback
            .as_ref()
            .is_some_and(|setback| now.since(&setback.at) < setback.pause)
    }

    fn recent_failure(&self, now: &Moment) -> Option<E> {
        self.setback
            .as_ref()
            .filter(|setback| now.since(&setback.at) < FAILURE_REMEMBERED)
            .and_then(|setback| setback.error.clone())
    }
}

/// 1 s, 2 s, 4 s and so on, up to the longest; of that, between half and all, so that processes that
/// failed together do not come back together.
fn pause_after(setbacks: u32) -> Duration {
    let doublings = setbacks.saturating_sub(1).min(u32::BITS - 1);
    let step = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    step.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// The right and the duty to fetch. A cache has one at a time.
///
/// It can go to another thread, or into an async task. Should it be dropped there without having
/// landed, because of a panic or a shutdown, it lands as [`Abandoned`]. One that is only forgotten
/// keeps everyone waiting, so whoever fetches sets a limit.
#[must_use = "a flight that is dropped has failed"]
pub(crate) struct Flight<V: Perishable, E: Clone + From<Abandoned>> {
    cache: Arc<Cache<V, E>>,
    /// `None` once landed.
    slot: Option<Arc<Slot<V, E>>>,
    took_off: Moment,
}

/// What was before a landing, for whoever logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Landed {
    /// How many flights in a row had brought no fresh value before this one. A failure after 0 is
    /// news; a success after more is, too.
    pub(crate) setbacks: u32,
}

impl<V: Perishable, E: Clone + From<Abandoned>> Flight<V, E> {
    /// Hands the result to all who wait for it. A value takes the place of the one before; a failure
    /// leaves that one alone.
    ///
    /// A value is stored and handed out whatever its age, so one that is dead on arrival is better
    /// landed as a failure.
    pub(crate) fn land(mut self, result: Result<V, E>, now: &Moment) -> Landed {
        match self.slot.take() {
            Some(slot) => self.cache.settle(&slot, result, now),
            // Not reached: only this and `drop` take the slot, and both have the flight to themselves.
            None => Landed { setbacks: 0 },
        }
    }
}

impl<V: Perishable, E: Clone + From<Abandoned>> Drop for Flight<V, E> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            // There is no asking for the time here, so it counts as having failed at its start.
            let error = E::from(Abandoned);
            self.cache.settle(&slot, Err(error), &self.took_off);
        }
    }
}

/// A flight ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fetch panicked or was shut down before it had a result")
    }
}

impl StdError for Abandoned {}

/// Where the result of one flight, and of no later one, can be waited for: by a thread with
/// [`wait`](Landing::wait), by a task with `.await`.
pub(crate) struct Landing<V, E> {
    slot: Arc<Slot<V, E>>,
    /// Which of the slot's wakers is this one's.
    seat: Option<usize>,
}

impl<V, E: Clone> Landing<V, E> {
    fn of(slot: &Arc<Slot<V, E>>) -> Landing<V, E> {
        Landing {
            slot: slot.clone(),
            seat: None,
        }
    }

    /// Blocks until the flight lands; `None` if it has not within `limit`.
    pub(crate) fn wait(self, limit: Duration) -> Option<Result<Arc<V>, E>> {
        let mut arrival = self.slot.arrival.lock();
        self.slot
            .landed
            .wait_while_for(&mut arrival, |arrival| arrival.result.is_none(), limit);
        arrival.result.clone()
    }
}

impl<V, E: Clone> Future for Landing<V, E> {
    type Output = Result<Arc<V>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let landing = &mut *self;
        let mut arrival = landing.slot.arrival.lock();
        if let Some(result) = &arrival.result {
            return Poll::Ready(result.clone());
        }
        match landing.seat.and_then(|seat| arrival.wakers.get_mut(seat)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                landing.seat = Some(arrival.wakers.len());
                arrival.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Where a flight and those who wait for it meet. Each flight has its own: with one for all, a late
/// waiter could be told the result of the next flight.
struct Slot<V, E> {
    /// The process in which it was begun.
    process: u32,
    arrival: Mutex<Arrival<V, E>>,
    landed: Condvar,
}

struct Arrival<V, E> {
    result: Option<Result<Arc<V>, E>>,
    wakers: Vec<Waker>,
}

impl<V, E> Slot<V, E> {
    fn new() -> Slot<V, E> {
        Slot {
            process: process::id(),
            arrival: Mutex::new(Arrival {
                result: None,
                wakers: Vec::new(),
            }),
            landed: Condvar::new(),
        }
    }

    fn resolve(&self, result: Result<Arc<V>, E>) {
        let mut arrival = self.arrival.lock();
        arrival.result = Some(result);
        let wakers = std::mem::take(&mut arrival.wakers);
        drop(arrival);
        self.landed.notify_all();
        for waker in wakers {
            waker.wake();
        }
    }
}
