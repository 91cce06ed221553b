//! How often a login that is refused is tried again, over all threads and pools that want it.
//!
//! r2d2 backs off for each slot of a pool by itself, so a pool of ten makes two logins a second, and
//! ten processes with two such pools forty: enough to be throttled by AWS, when all that is wrong is
//! a policy. Here they share one allowance.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind};

/// So many refused connects are tried again as soon as anyone wants to: a server that is short of
/// memory refuses some, and heals by itself.
const AT_ONCE: u32 = 6;

/// After that there is one in between this long...
const SHORTEST_PAUSE: Duration = Duration::from_secs(3);

/// ...and this long, so that processes that were refused together do not come back together. A pool
/// looks every 5 s by default, so it does not notice.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Where nobody has tried for this long, nothing is known any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The allowance of one identity at one database.
#[derive(Default)]
pub(crate) struct Backoff(Mutex<Option<Row>>);

/// Refusals without a success between them.
struct Row {
    /// How the last login failed, and when.
    error: Error,
    failed: Moment,
    /// How many may be tried before the next pause.
    left: u32,
    /// When one more may be tried.
    next: Moment,
}

/// Leave to log in.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit {
    /// It was taken off the allowance already, in a row of refusals.
    is_counted: bool,
}

impl Backoff {
    /// Whether a login may be tried at `now`; otherwise how the last one failed.
    pub(crate) fn enter_at(&self, now: &Moment) -> Result<Permit, Error> {
        let mut held = self.0.lock();
        let Some(row) = held
            .as_mut()
            .filter(|row| now.since(&row.failed) < FORGOTTEN_AFTER)
        else {
            *held = None;
            return Ok(Permit { is_counted: false });
        };
        if row.left == 0 && now.has_reached(&row.next) {
            row.left = 1;
        }
        if row.left == 0 {
            return Err(row.held_back_at(now));
        }
        row.take_one_at(now);
        Ok(Permit { is_counted: true })
    }

    /// A refusal begins a row, or goes on with it; another failure in a row is worth no more
    /// attempts, but is what there is to tell.
    pub(crate) fn failed_at(&self, permit: Permit, now: &Moment, error: &Error) {
        let mut held = self.0.lock();
        if let Some(row) = held.as_mut() {
            row.error = error.clone();
            row.failed = *now;
            if !permit.is_counted {
                row.take_one_at(now);
            }
        } else if matches!(error.kind(), ErrorKind::LoginRefused | ErrorKind::Throttled) {
            *held = Some(Row {
                error: error.clone(),
                failed: *now,
                left: AT_ONCE - 1,
                next: *now,
            });
        }
    }

    /// A login worked, so everyone's may.
    pub(crate) fn succeeded(&self) {
        *self.0.lock() = None;
    }
}

impl Row {
    fn take_one_at(&mut self, now: &Moment) {
        if self.left > 0 {
            self.left -= 1;
            let spread = LONGEST_PAUSE - SHORTEST_PAUSE;
            self.next = *now + SHORTEST_PAUSE + spread.mul_f64(fastrand::f64());
        }
    }

    fn held_back_at(&self, now: &Moment) -> Error {
        let left = self.next.since(now).as_secs_f64();
        Error::with_cause(
            self.error.kind(),
            format!(
                "not tried, because logins were refused again and again; the next is tried in \
                 {left:.1}s, and this is how the last one failed"
            ),
            self.error.clone(),
        )
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_in_use = self.0.lock().is_some();
        f.debug_tuple("Backoff").field(&is_in_use).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused() -> Error {
        Error::new(ErrorKind::LoginRefused, "refused")
    }

    fn use_up(backoff: &Backoff, now: &Moment) {
        for _ in 0..AT_ONCE {
            let permit = backoff.enter_at(now).unwrap();
            backoff.failed_at(permit, now, &refused());
        }
        assert!(backoff.enter_at(now).is_err());
    }

    /// How many of those who try once every `step` for a minute may.
    fn allowed(backoff: &Backoff, start: Moment, step: Duration) -> usize {
        let attempts = 60_000 / step.as_millis() as u32;
        (0..attempts)
            .filter(|attempt| {
                let now = start + step * *attempt;
                let permit = backoff.enter_at(&now).ok();
                let is_allowed = permit.is_some();
                if let Some(permit) = permit {
                    backoff.failed_at(permit, &now, &refused());
                }
                is_allowed
            })
            .count()
    }

    /// FAULTS.md row 23: the figures.
    #[test]
    fn an_identity_that_is_refused_costs_twenty_logins_a_minute() {
        let start = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        let first = allowed(&backoff, start, Duration::from_millis(10));
        assert!((15 + 5..=20 + 6).contains(&first), "{first} at first");
        for minute in 1..10 {
            let then = start + 60 * minute * SECOND;
            let count = allowed(&backoff, then, Duration::from_millis(10));
            assert!((15..=20).contains(&count), "{count} in minute {minute}");
        }
    }

    #[test]
    fn those_that_were_under_way_together_count_each() {
        let now = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        let permits: Vec<Permit> = (0..16).map(|_| backoff.enter_at(&now).unwrap()).collect();
        for permit in permits {
            backoff.failed_at(permit, &now, &refused());
        }
        let error = backoff.enter_at(&now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRefused);
        assert!(error.to_string().ends_with(": refused"), "{error}");
        assert!(backoff.enter_at(&(now + LONGEST_PAUSE)).is_ok());
        assert!(backoff.enter_at(&(now + LONGEST_PAUSE)).is_err(), "one");
    }

    #[test]
    fn a_success_lets_everyone_in() {
        let now = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        use_up(&backoff, &now);
        backoff.succeeded();
        for _ in 0..100 {
            let _ = backoff.enter_at(&now).unwrap();
        }
    }

    #[test]
    fn nobody_waits_where_the_network_fails() {
        let now = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        for _ in 0..100 {
            let permit = backoff.enter_at(&now).unwrap();
            let error = Error::new(ErrorKind::Network, "connection refused");
            backoff.failed_at(permit, &now, &error);
        }
    }

    #[test]
    fn what_was_long_ago_holds_nobody_back() {
        let now = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        use_up(&backoff, &now);
        let later = now + FORGOTTEN_AFTER;
        for _ in 0..100 {
            let _ = backoff.enter_at(&later).unwrap();
        }
    }

    #[test]
    fn what_is_told_is_the_last_failure() {
        let now = ManualClock::new().clock().now();
        let backoff = Backoff::default();
        use_up(&backoff, &now);
        let later = now + LONGEST_PAUSE;
        let permit = backoff.enter_at(&later).unwrap();
        let error = Error::new(ErrorKind::Network, "connection refused");
        backoff.failed_at(permit, &later, &error);
        let error = backoff.enter_at(&later).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
    }
}
