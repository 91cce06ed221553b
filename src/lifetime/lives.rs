//! When each connection of a pool has to go. Pure but for chance: it is told what time it is, so that
//! the benchmarks play a day through with it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The lives of one pool's connections. Nobody else decides when one of them ends.
pub(crate) struct Lifetimes {
    max_lifetime: Duration,
    /// How many may be away being replaced at a time.
    away_at_most: usize,
    /// r2d2 does not replace every connection that it drops, so a place among those that are away
    /// is given up after this long.
    away_for_at_most: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lives: HashMap<u64, Life>,
    /// When those that have not been replaced yet were retired.
    away: VecDeque<Instant>,
}

#[derive(Clone, Copy)]
struct Life {
    opened: Instant,
    /// When it may be retired, if not too many others are away.
    due: Instant,
    /// When it is retired whoever is away.
    end: Instant,
}

impl Lifetimes {
    pub(crate) fn new(max_lifetime: Duration, max_size: u32, replaced_within: Duration) -> Self {
        Lifetimes {
            max_lifetime,
            away_at_most: (max_size as usize / 10).max(1),
            away_for_at_most: replaced_within,
            state: Mutex::default(),
        }
    }

    pub(crate) fn opened_at(&self, id: u64, now: Instant) {
        let earliest = self.max_lifetime.mul_f64(0.9);
        let life = Life {
            opened: now,
            due: now + earliest + (self.max_lifetime - earliest).mul_f64(fastrand::f64()),
            end: now + self.max_lifetime,
        };
        let mut state = self.state.lock();
        state.away.pop_front();
        state.lives.insert(id, life);
    }

    pub(crate) fn closed(&self, id: u64) {
        self.state.lock().lives.remove(&id);
    }

    /// Whether connection `id`, which is being checked in, is to go; its age if so.
    pub(crate) fn judge_at(&self, id: u64, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock();
        let life = *state.lives.get(&id)?;
        if now < life.due {
            return None;
        }
        let given_up = self.away_for_at_most;
        state.away.retain(|since| now - *since < given_up);
        if now < life.end && state.away.len() >= self.away_at_most {
            return None;
        }
        state.away.push_back(now);
        Some(now - life.opened)
    }
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

    /// Takes the chance out of when the connections are due.
    fn make_due(lifetimes: &Lifetimes, at: Instant) {
        for life in lifetimes.state.lock().lives.values_mut() {
            life.due = at;
        }
    }

    #[test]
    fn a_connection_is_retired_between_nine_tenths_and_all_of_its_life() {
        let born = some_instant();
        for id in 0..200 {
            let lifetimes = Lifetimes::new(14 * MINUTE, 10, 10 * SECOND);
            lifetimes.opened_at(id, born);
            assert_eq!(
                lifetimes.judge_at(id, born + 14 * MINUTE * 9 / 10 - SECOND),
                None
            );
            assert_eq!(
                lifetimes.judge_at(id, born + 14 * MINUTE),
                Some(14 * MINUTE)
            );
        }
    }

    #[test]
    fn a_tenth_is_away_at_a_time_until_the_end_of_a_life() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(14 * MINUTE, 20, 10 * SECOND);
        for id in 0..20 {
            lifetimes.opened_at(id, born);
        }
        make_due(&lifetimes, born);
        // Just before the end all are due, but two may go.
        let late = born + 14 * MINUTE - Duration::from_millis(1);
        let retired = |now| {
            (0..20)
                .filter(|id| lifetimes.judge_at(*id, now).is_some())
                .count()
        };
        assert_eq!(retired(late), 2);
        assert_eq!(retired(late), 0, "two are away");
        // A replacement makes room for the next.
        lifetimes.opened_at(100, late);
        assert_eq!(retired(late), 1);
        // At the end of their lives, pacing yields.
        assert_eq!(retired(born + 14 * MINUTE), 20);
    }

    #[test]
    fn a_connection_that_is_never_replaced_does_not_hold_its_place_for_ever() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(14 * MINUTE, 10, 10 * SECOND);
        lifetimes.opened_at(1, born);
        lifetimes.opened_at(2, born);
        let late = born + 14 * MINUTE - 11 * SECOND;
        make_due(&lifetimes, born);
        assert!(lifetimes.judge_at(1, late).is_some());
        assert!(lifetimes.judge_at(2, late).is_none());
        assert!(lifetimes.judge_at(2, late + 10 * SECOND).is_some());
    }

    #[test]
    fn the_connections_of_a_pool_born_at_once_do_not_die_at_once() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(14 * MINUTE, 1000, 10 * SECOND);
        for id in 0..1000 {
            lifetimes.opened_at(id, born);
        }
        let mut dues: Vec<_> = lifetimes
            .state
            .lock()
            .lives
            .values()
            .map(|life| life.due)
            .collect();
        dues.sort();
        // 84 s of spread: in no tenth of it more than a fifth of them.
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
}
