//! Decides which of consecutive failures are logged at WARN: the first one. The recovery is logged at INFO.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;

/// The shortest interval between two logged streaks.
const LEAST_TIME_BETWEEN_STREAKS: Duration = Duration::from_secs(60);

/// Whether an operation works, from the results of its calls.
#[derive(Debug, Default)]
pub(crate) struct FailureStreak(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streak: Option<Streak>,
    /// When a streak was last logged.
    logged: Option<Moment>,
}

/// Failures without a success between them.
#[derive(Debug)]
struct Streak {
    began: Moment,
    failures: u64,
    is_logged: bool,
}

/// Consecutive failures that ended with a success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) failures: u64,
    /// From the first failure to the success.
    pub(crate) after: Duration,
}

impl FailureStreak {
    /// Records a failure. Returns whether it is to be logged.
    pub(crate) fn failed_at(&self, now: &Moment) -> bool {
        let mut state = self.0.lock();
        let is_too_soon = state
            .logged
            .is_some_and(|last| now.since(&last) < LEAST_TIME_BETWEEN_STREAKS);
        let streak = state.streak.get_or_insert(Streak {
            began: *now,
            failures: 0,
            is_logged: false,
        });
        streak.failures += 1;
        let is_logged_now = !streak.is_logged && !is_too_soon;
        if is_logged_now {
            streak.is_logged = true;
            state.logged = Some(*now);
        }
        is_logged_now
    }

    /// Records a success. Returns the failures that it ends, if they were logged.
    pub(crate) fn succeeded_at(&self, now: &Moment) -> Option<Recovered> {
        let streak = self.0.lock().streak.take()?;
        streak.is_logged.then(|| Recovered {
            failures: streak.failures,
            after: now.since(&streak.began),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn consecutive_failures_are_logged_once_and_so_is_recovery() {
        let start = ManualClock::new().clock().now();
        let failures = FailureStreak::default();
        assert_eq!(failures.succeeded_at(&start), None);
        assert!(failures.failed_at(&start));
        for minutes in 1..=10 {
            assert!(!failures.failed_at(&(start + 60 * minutes * SECOND)));
        }
        let recovered = failures.succeeded_at(&(start + 601 * SECOND)).unwrap();
        assert_eq!((recovered.failures, recovered.after), (11, 601 * SECOND));
        assert_eq!(failures.succeeded_at(&(start + 602 * SECOND)), None);
    }

    #[test]
    fn alternating_failures_are_logged_once_a_minute() {
        let start = ManualClock::new().clock().now();
        let failures = FailureStreak::default();
        let logged = (0..120).filter(|second| {
            let now = start + SECOND * *second;
            let is_logged_now = failures.failed_at(&now);
            assert_eq!(failures.succeeded_at(&now).is_some(), is_logged_now);
            is_logged_now
        });
        assert_eq!(logged.count(), 2);
    }

    #[test]
    fn a_streak_within_the_log_interval_is_logged_if_it_continues() {
        let start = ManualClock::new().clock().now();
        let failures = FailureStreak::default();
        assert!(failures.failed_at(&start));
        assert!(failures.succeeded_at(&start).is_some());
        assert!(!failures.failed_at(&(start + SECOND)));
        assert!(failures.failed_at(&(start + 60 * SECOND)));
        let end = start + 61 * SECOND;
        assert_eq!(failures.succeeded_at(&end).unwrap().failures, 2);
    }
}
