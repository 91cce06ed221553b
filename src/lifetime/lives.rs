//! When each connection of a pool has to go. Pure but for chance: it is told what time it is, so that
//! the benchmarks can play a day through with it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::event::RetireReason;

/// The lives of one pool's connections.
#[derive(Debug)]
pub(crate) struct Lifetimes {
    /// `None` is for ever.
    max_lifetime: Option<Duration>,
    /// How many may be away being replaced at a time.
    away_at_most: usize,
    /// r2d2 does not replace every connection that it drops, so a place among those that are away
    /// is given up after this long.
    away_for_at_most: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How often all connections were retired.
    round: u64,
    lives: HashMap<u64, Life>,
    /// When those that have not been replaced yet were retired.
    away: VecDeque<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    opened: Instant,
    /// The round in which its login began.
    round: u64,
    span: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    /// When it may be retired, if not too many others are away.
    due: Instant,
    /// When it is retired whoever is away.
    end: Instant,
}

impl Lifetimes {
    pub(crate) fn new(
        max_lifetime: Option<Duration>,
        max_size: u32,
        replaced_within: Duration,
    ) -> Self {
        Lifetimes {
            max_lifetime,
            away_at_most: (max_size as usize / 10).max(1),
            away_for_at_most: replaced_within,
            state: Mutex::default(),
        }
    }

    /// The round in which a login that begins now belongs.
    pub(crate) fn round(&self) -> u64 {
        self.state.lock().round
    }

    /// Ends the round: whatever was opened in it goes when it is checked in.
    pub(crate) fn retire_all(&self) {
        self.state.lock().round += 1;
    }

    pub(crate) fn opened_at(&self, id: u64, round: u64, now: Instant) {
        let span = self.max_lifetime.map(|max_lifetime| {
            let earliest = max_lifetime.mul_f64(0.9);
            Span {
                due: now + earliest + (max_lifetime - earliest).mul_f64(fastrand::f64()),
                end: now + max_lifetime,
            }
        });
        let life = Life {
            opened: now,
            round,
            span,
        };
        let mut state = self.state.lock();
        state.away.pop_front();
        state.lives.insert(id, life);
    }

    pub(crate) fn closed(&self, id: u64) {
        self.state.lock().lives.remove(&id);
    }

    /// Whether connection `id`, which is being checked in, is to go; its age and why if so.
    pub(crate) fn judge_at(&self, id: u64, now: Instant) -> Option<(Duration, RetireReason)> {
        let mut state = self.state.lock();
        let life = *state.lives.get(&id)?;
        let reason = if life.round < state.round {
            RetireReason::RetireAll
        } else {
            let span = life.span?;
            if now < span.due {
                return None;
            }
            let given_up = self.away_for_at_most;
            state.away.retain(|since| now - *since < given_up);
            if now < span.end && state.away.len() >= self.away_at_most {
                return None;
            }
            RetireReason::Lifetime
        };
        state.away.push_back(now);
        Some((now - life.opened, reason))
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
            life.span.as_mut().unwrap().due = at;
        }
    }

    #[test]
    fn a_connection_is_retired_between_nine_tenths_and_all_of_its_life() {
        let born = some_instant();
        for id in 0..200 {
            let lifetimes = Lifetimes::new(Some(14 * MINUTE), 10, 10 * SECOND);
            lifetimes.opened_at(id, 0, born);
            assert_eq!(
                lifetimes.judge_at(id, born + 14 * MINUTE * 9 / 10 - SECOND),
                None
            );
            assert_eq!(
                lifetimes.judge_at(id, born + 14 * MINUTE),
                Some((14 * MINUTE, RetireReason::Lifetime))
            );
        }
    }

    #[test]
    fn a_tenth_is_away_at_a_time_until_the_end_of_a_life() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 20, 10 * SECOND);
        for id in 0..20 {
            lifetimes.opened_at(id, 0, born);
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
        lifetimes.opened_at(100, 0, late);
        assert_eq!(retired(late), 1);
        // At the end of their lives, pacing yields.
        assert_eq!(retired(born + 14 * MINUTE), 20);
    }

    /// FAULTS.md row 22: three lives of a busy pool of twenty, whose connections come back every
    /// 20 ms and are replaced within 40.
    #[test]
    fn a_busy_pool_keeps_its_lives_and_its_pace() {
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
                let Some((age, _)) = lifetimes.judge_at(*id, now) else {
                    return true;
                };
                lifetimes.closed(*id);
                assert!(age >= max_lifetime * 9 / 10, "{age:?}");
                assert!(age <= max_lifetime + STEP, "{age:?}");
                if age < max_lifetime {
                    assert!(coming.len() < 2, "{} were away", coming.len());
                } else {
                    forced += 1;
                }
                coming.push_back(now + 2 * STEP);
                retired += 1;
                false
            });
        }
        assert!((40..=80).contains(&retired), "{retired}");
        // The last of a crowd has no time left to wait in.
        assert!(forced <= retired / 4, "{forced} of {retired}");
    }

    #[test]
    fn the_end_of_a_round_takes_what_was_opened_in_it_and_nothing_else() {
        let now = some_instant();
        let lifetimes = Lifetimes::new(None, 10, 10 * SECOND);
        lifetimes.opened_at(1, lifetimes.round(), now);
        let before = lifetimes.round();
        assert_eq!(lifetimes.judge_at(1, now + 100 * 60 * MINUTE), None);
        lifetimes.retire_all();
        // Its login began before and ended after.
        lifetimes.opened_at(2, before, now);
        lifetimes.opened_at(3, lifetimes.round(), now);
        let reason = |id| {
            lifetimes
                .judge_at(id, now + SECOND)
                .map(|(_, reason)| reason)
        };
        assert_eq!(reason(1), Some(RetireReason::RetireAll));
        assert_eq!(reason(2), Some(RetireReason::RetireAll));
        assert_eq!(reason(3), None);
    }

    #[test]
    fn a_connection_that_is_never_replaced_does_not_hold_its_place_for_ever() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 10, 10 * SECOND);
        lifetimes.opened_at(1, 0, born);
        lifetimes.opened_at(2, 0, born);
        let late = born + 14 * MINUTE - 11 * SECOND;
        make_due(&lifetimes, born);
        assert!(lifetimes.judge_at(1, late).is_some());
        assert!(lifetimes.judge_at(2, late).is_none());
        assert!(lifetimes.judge_at(2, late + 10 * SECOND).is_some());
    }

    #[test]
    fn the_connections_of_a_pool_born_at_once_do_not_die_at_once() {
        let born = some_instant();
        let lifetimes = Lifetimes::new(Some(14 * MINUTE), 1000, 10 * SECOND);
        for id in 0..1000 {
            lifetimes.opened_at(id, 0, born);
        }
        let mut dues: Vec<_> = lifetimes
            .state
            .lock()
            .lives
            .values()
            .map(|life| life.span.unwrap().due)
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
