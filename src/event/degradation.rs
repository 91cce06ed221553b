//! When something that goes on failing is worth a line in a production log: once when it begins, and
//! once when it is over.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;

/// What fails and works in turns is not said more often than this.
const LEAST_TIME_BETWEEN_ROWS: Duration = Duration::from_secs(60);

/// Whether something works, told by those who use it.
#[derive(Debug, Default)]
pub(crate) struct Degradation(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    row: Option<Row>,
    /// When a row was last said.
    said: Option<Moment>,
}

/// Failures without a success between them.
#[derive(Debug)]
struct Row {
    began: Moment,
    failures: u64,
    is_said: bool,
}

/// A row of failures that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) failures: u64,
    /// From the first failure to the success.
    pub(crate) after: Duration,
}

impl Degradation {
    /// Notes a failure; whether it is to be said.
    pub(crate) fn failed_at(&self, now: &Moment) -> bool {
        let mut state = self.0.lock();
        let is_too_soon = state
            .said
            .is_some_and(|last| now.since(&last) < LEAST_TIME_BETWEEN_ROWS);
        let row = state.row.get_or_insert(Row {
            began: *now,
            failures: 0,
            is_said: false,
        });
        row.failures += 1;
        let is_news = !row.is_said && !is_too_soon;
        if is_news {
            row.is_said = true;
            state.said = Some(*now);
        }
        is_news
    }

    /// Notes a success; what it ends, if that was said.
    pub(crate) fn succeeded_at(&self, now: &Moment) -> Option<Recovered> {
        let row = self.0.lock().row.take()?;
        row.is_said.then(|| Recovered {
            failures: row.failures,
            after: now.since(&row.began),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_row_of_failures_is_said_once_and_so_is_its_end() {
        let start = ManualClock::new().clock().now();
        let degradation = Degradation::default();
        assert_eq!(degradation.succeeded_at(&start), None);
        assert!(degradation.failed_at(&start));
        for minutes in 1..=10 {
            assert!(!degradation.failed_at(&(start + 60 * minutes * SECOND)));
        }
        let recovered = degradation.succeeded_at(&(start + 601 * SECOND)).unwrap();
        assert_eq!((recovered.failures, recovered.after), (11, 601 * SECOND));
        assert_eq!(degradation.succeeded_at(&(start + 602 * SECOND)), None);
    }

    #[test]
    fn what_fails_and_works_in_turns_is_said_once_a_minute() {
        let start = ManualClock::new().clock().now();
        let degradation = Degradation::default();
        let said = (0..120).filter(|second| {
            let now = start + SECOND * *second;
            let is_news = degradation.failed_at(&now);
            assert_eq!(degradation.succeeded_at(&now).is_some(), is_news);
            is_news
        });
        assert_eq!(said.count(), 2);
    }

    #[test]
    fn a_row_that_began_too_soon_is_said_if_it_goes_on() {
        let start = ManualClock::new().clock().now();
        let degradation = Degradation::default();
        assert!(degradation.failed_at(&start));
        assert!(degradation.succeeded_at(&start).is_some());
        assert!(!degradation.failed_at(&(start + SECOND)));
        assert!(degradation.failed_at(&(start + 60 * SECOND)));
        let end = start + 61 * SECOND;
        assert_eq!(degradation.succeeded_at(&end).unwrap().failures, 2);
    }
}
