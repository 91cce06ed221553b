//! When each pooled connection is retired. Pure but for randomness: the time is an argument, so that the
//! benchmarks can simulate a day.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::event::RetireReason;

/// The lifetimes of one pool's connections.
#[derive(Debug)]
pub(crate) struct Lifetimes {
    /// `None` means no limit.
    max_lifetime: Option<Duration>,
    /// The maximum number of connections that are being replaced at the same time.
    max_replacing: usize,
    /// r2d2 does not replace every connection that it drops, so a retired one stops counting as being
    /// replaced after this long.
    replaced_within: Duration,
    /// Whether a connection whose lifetime has ended is dropped at its next checkout. r2d2 replaces a dropped one
    /// only for a caller that checks out, if it keeps no idle connections.
    retires_at_checkout: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of times that all connections were retired.
    generation: u64,
    /// Ordered, since a lookup costs a fifth of that in a hash map.
    connections: BTreeMap<u64, Connection>,
    /// The idle connections whose lifetime has ended, the last returned one last.
    ended: Vec<u64>,
    /// When the connections that have not been replaced yet were retired.
    replacing: VecDeque<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    opened: Instant,
    /// The generation in which its login began.
    generation: u64,
    retirement: Option<Retirement>,
    /// False while a caller has it. True as soon as it is to be returned to the idle list, which r2d2
    /// does a moment later.
    is_idle: bool,
}

#[derive(Clone, Copy, Debug)]
struct Retirement {
    /// From here on it is retired, unless too many others are being replaced.
    due: Instant,
    /// From here on it is retired in any case.
    deadline: Instant,
}

impl Lifetimes {
    pub(crate) fn new(
        max_lifetime: Option<Duration>,
        max_size: u32,
        replaced_within: Duration,
    ) -> Self {
        Lifetimes {
            max_lifetime,
            max_replacing: (max_size as usize / 10).max(1),
            replaced_within,
            retires_at_checkout: false,
            state: Mutex::default(),
        }
    }

    pub(crate) fn retiring_at_checkout(mut self, at_checkout: bool) -> Self {
        self.retires_at_checkout = at_checkout;
        self
    }

    /// The generation of a login that begins now.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Begins a new generation. The connections of earlier ones are retired at their next check-in.
    pub(crate) fn retire_all(&self) {
        self.state.lock().generation += 1;
    }

    /// Whether a connection of an earlier generation is idle, or about to be.
    pub(crate) fn has_idle_of_earlier_generation(&self) -> bool {
        let state = self.state.lock();
        let mut connections = state.connections.values();
        connections.any(|connection| connection.is_idle && connection.generation < state.generation)
    }

    pub(crate) fn opened_at(&self, id: u64, generation: u64, now: Instant) {
        let retirement = self.max_lifetime.map(|max_lifetime| {
            let earliest = max_lifetime.mul_f64(0.9);
            Retirement {
                due: now + earliest + (max_lifetime - earliest).mul_f64(fastrand::f64()),
                deadline: now + max_lifetime,
            }
        });
        let connection = Connection {
            opened: now,
            generation,
            retirement,
            is_idle: true,
        };
        let mut state = self.state.lock();
        state.replacing.pop_front();
        state.connections.insert(id, connection);
    }

    pub(crate) fn closed(&self, id: u64) {
        let mut state = self.state.lock();
        state.connections.remove(&id);
        state.ended.retain(|ended| *ended != id);
    }

    /// Whether the connection that is being checked out is retired, since its lifetime has ended. r2d2 does not tell
    /// which one it is. It takes the one that was returned last, so another one is rarely dropped in its place.
    pub(crate) fn retires_at_checkout(&self) -> bool {
        self.retires_at_checkout && self.state.lock().ended.pop().is_some()
    }

    pub(crate) fn checked_out(&self, id: u64) {
        if let Some(connection) = self.state.lock().connections.get_mut(&id) {
            connection.is_idle = false;
        }
    }

    /// Decides whether connection `id`, which is being checked in, is retired. Returns its age and the
    /// reason if so. Otherwise it counts as idle from here on.
    pub(crate) fn checked_in_at(&self, id: u64, now: Instant) -> Option<(Duration, RetireReason)> {
        let mut state = self.state.lock();
        let State {
            generation,
            connections,
            ended,
            replacing,
        } = &mut *state;
        let connection = connections.get_mut(&id)?;
        let Some(reason) = self.reason_at(connection, *generation, replacing, now) else {
            connection.is_idle = true;
            return None;
        };
        replacing.push_back(now);
        if self.retires_at_checkout && reason == RetireReason::Lifetime {
            ended.push(id);
            connection.is_idle = true;
            return None;
        }
        Some((now - connection.opened, reason))
    }

    fn reason_at(
        &self,
        connection: &Connection,
        generation: u64,
        replacing: &mut VecDeque<Instant>,
        now: Instant,
    ) -> Option<RetireReason> {
        if connection.generation < generation {
            return Some(RetireReason::RetireAll);
        }
        let retirement = connection.retirement?;
        if now < retirement.due {
            return None;
        }
        let limit = self.replaced_within;
        replacing.retain(|since| now - *since < limit);
        let is_early = now < retirement.deadline && replacing.len() >= self.max_replacing;
        (!is_early).then_some(RetireReason::Lifetime)
    }
}

/// The idle timeout of one pool, between 60 and 100 % of the maximum.
///
/// r2d2's reaper closes connections that were idle for this long, and replaces those that `min_idle` requires. It
/// runs every 30 s from when the pool was built. With one idle timeout, all idle pools of a fleet that started
/// together would log in again in the same second. So the range has to include many runs of the reaper.
pub(crate) fn idle_timeout(longest: Duration) -> Duration {
    let shortest = longest.mul_f64(0.6);
    shortest + (longest - shortest).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant to count from; nothing waits for it"
    )]
    fn some_instant() -> Instant {
        Instant::now()
    }

    /// Removes the randomness from when the connections are due.
    fn make_due(lifetimes: &Lifetimes, at: Instant) {
        for connection in lifetimes.state.lock().connections.values_mut() {
            connection.retirement.as_mut().unwrap().due = at;
        }
    }

    #[test]
    fn a_connection_is_retired_between_90_and_100_percent_of_its_lifetime() {
        let born = some_instant();
        for id in 0..200 {
            let lifetimes = Lifetimes::new(Some(14 * MINUTE), 10, 10 * SECOND);
            lifetimes.opened_at(id, 0, born);
            assert_eq!(
                lifetimes.checked_in_at(id, born + 14 * MINUTE * 9 / 10 - SECOND),
                None
            );
            assert_eq!(
                lifetimes.checked_in_at(id, born + 14 * MINUTE),
                Some((14 * MINUTE, RetireReason::Lifetime))
            );
        }
    }

    #[test]
    fn at_most_a_tenth_is_replaced_at_a_time_before_the_deadline() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 20, 10 * SECOND);
        for id in 0..20 {
            lifetimes.opened_at(id, 0, born);
        }
        make_due(&lifetimes, born);
        // Just before the deadline all are due, but two may be replaced at a time.
        let late = born + 14 * MINUTE - Duration::from_millis(1);
        let retired = |now| {
            (0..20)
                .filter(|id| lifetimes.checked_in_at(*id, now).is_some())
                .count()
        };
        assert_eq!(retired(late), 2);
        assert_eq!(retired(late), 0, "two are being replaced");
        // A replacement makes room for the next.
        lifetimes.opened_at(100, 0, late);
        assert_eq!(retired(late), 1);
        // At the deadline, all are retired.
        assert_eq!(retired(born + 14 * MINUTE), 20);
    }

    /// FAULTS.md row 22: three lifetimes of a busy pool of twenty, whose connections are checked in every
    /// 20 ms and are replaced within 40.
    #[test]
    fn a_busy_pool_keeps_lifetimes_and_pacing() {
        const STEP: Duration = Duration::from_millis(20);
        let max_lifetime = 14 * SECOND;
        let begun = some_instant();
        let lifetimes = Lifetimes::new(Some(max_lifetime), 20, 10 * SECOND);
        let mut open: Vec<u64> = (0..20).collect();
        for id in &open {
            lifetimes.opened_at(*id, 0, begun);
        }
        let mut coming: VecDeque<Instant> = VecDeque::new();
        let (mut next_id, mut retired, mut forced) = (20, 0, 0);
        let mut now = begun;
        while now < begun + 3 * max_lifetime {
            now += STEP;
            while coming.front().is_some_and(|comes| *comes <= now) {
                coming.pop_front();
                lifetimes.opened_at(next_id, 0, now);
                open.push(next_id);
                next_id += 1;
            }
            open.retain(|id| {
                let Some((age, _)) = lifetimes.checked_in_at(*id, now) else {
                    return true;
                };
                lifetimes.closed(*id);
                assert!(age >= max_lifetime * 9 / 10, "{age:?}");
                assert!(age <= max_lifetime + STEP, "{age:?}");
                if age < max_lifetime {
                    assert!(coming.len() < 2, "{} were being replaced", coming.len());
                } else {
                    forced += 1;
                }
                coming.push_back(now + 2 * STEP);
                retired += 1;
                false
            });
        }
        assert!((40..=80).contains(&retired), "{retired}");
        // The last of many has no time left to wait.
        assert!(forced <= retired / 4, "{forced} of {retired}");
    }

    #[test]
    fn retire_all_retires_earlier_generations_and_no_later_one() {
        let now = some_instant();
        let lifetimes = Lifetimes::new(None, 10, 10 * SECOND);
        lifetimes.opened_at(1, lifetimes.generation(), now);
        let before = lifetimes.generation();
        assert_eq!(lifetimes.checked_in_at(1, now + 100 * 60 * MINUTE), None);
        lifetimes.retire_all();
        // Its login began before and ended after.
        lifetimes.opened_at(2, before, now);
        lifetimes.opened_at(3, lifetimes.generation(), now);
        let reason = |id| {
            lifetimes
                .checked_in_at(id, now + SECOND)
                .map(|(_, reason)| reason)
        };
        assert_eq!(reason(1), Some(RetireReason::RetireAll));
        assert_eq!(reason(2), Some(RetireReason::RetireAll));
        assert_eq!(reason(3), None);
    }

    #[test]
    fn a_connection_that_is_never_replaced_stops_counting_as_being_replaced() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 10, 10 * SECOND);
        lifetimes.opened_at(1, 0, born);
        lifetimes.opened_at(2, 0, born);
        let late = born + 14 * MINUTE - 11 * SECOND;
        make_due(&lifetimes, born);
        assert!(lifetimes.checked_in_at(1, late).is_some());
        assert!(lifetimes.checked_in_at(2, late).is_none());
        assert!(lifetimes.checked_in_at(2, late + 10 * SECOND).is_some());
    }

    #[test]
    fn a_pool_without_idle_connections_retires_at_checkout() {
        let born = some_instant();
        let lifetimes =
            Lifetimes::new(Some(14 * MINUTE), 10, 10 * SECOND).retiring_at_checkout(true);
        lifetimes.opened_at(1, lifetimes.generation(), born);
        lifetimes.opened_at(2, lifetimes.generation(), born);
        assert_eq!(lifetimes.checked_in_at(1, born), None);
        assert!(!lifetimes.retires_at_checkout());
        assert_eq!(lifetimes.checked_in_at(1, born + 14 * MINUTE), None);
        assert_eq!(lifetimes.checked_in_at(2, born + 14 * MINUTE), None);
        assert!(lifetimes.retires_at_checkout());
        // r2d2's reaper was faster.
        lifetimes.closed(1);
        assert!(!lifetimes.retires_at_checkout());
        // After a failover no connection is handed out again.
        lifetimes.opened_at(3, lifetimes.generation(), born);
        lifetimes.retire_all();
        assert!(lifetimes.checked_in_at(3, born).is_some());
    }

    #[test]
    fn connections_opened_together_are_retired_spread_out() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 1000, 10 * SECOND);
        for id in 0..1000 {
            lifetimes.opened_at(id, 0, born);
        }
        let mut dues: Vec<_> = lifetimes
            .state
            .lock()
            .connections
            .values()
            .map(|connection| connection.retirement.unwrap().due)
            .collect();
        dues.sort();
        // A spread of 84 s: no tenth of it contains more than a fifth of the connections.
        for tenth in 0..10 {
            let from = born + 14 * MINUTE * 9 / 10 + 84 * SECOND * tenth / 10;
            let to = from + 84 * SECOND / 10;
            let within = dues.iter().filter(|due| (from..to).contains(*due)).count();
            assert!(
                (20..200).contains(&within),
                "{within} of 1000 in tenth {tenth}"
            );
        }
    }

    #[test]
    fn the_idle_timeouts_of_pools_are_spread_over_many_runs_of_the_reaper() {
        const REAPER: Duration = Duration::from_secs(30);
        let mut closed = BTreeMap::new();
        for _ in 0..1000 {
            let timeout = idle_timeout(10 * MINUTE);
            assert!((6 * MINUTE..=10 * MINUTE).contains(&timeout), "{timeout:?}");
            *closed
                .entry(timeout.as_secs() / REAPER.as_secs())
                .or_insert(0) += 1;
        }
        let most = closed.values().max().unwrap();
        assert!(*most < 200, "{most} of 1000 pools at once");
    }

    /// FAULTS.md row 36: a thread has decided to keep a connection, and r2d2 has not pushed it to the
    /// idle list yet, when all are retired.
    #[test]
    fn a_connection_on_its_way_to_the_idle_list_counts_as_idle() {
        let now = some_instant();
        let lifetimes = Lifetimes::new(None, 10, 10 * SECOND);
        lifetimes.opened_at(1, lifetimes.generation(), now);
        lifetimes.checked_out(1);
        assert_eq!(lifetimes.checked_in_at(1, now), None);
        lifetimes.retire_all();
        assert!(lifetimes.has_idle_of_earlier_generation());
        lifetimes.checked_out(1);
        assert!(
            !lifetimes.has_idle_of_earlier_generation(),
            "a caller has it"
        );
        assert!(lifetimes.checked_in_at(1, now).is_some());
        assert!(!lifetimes.has_idle_of_earlier_generation(), "it is retired");
        lifetimes.opened_at(2, lifetimes.generation(), now);
        assert!(!lifetimes.has_idle_of_earlier_generation(), "it is new");
    }
}
