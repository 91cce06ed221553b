//! Limits how often a refused login is tried again, over all threads and pools of the process that log in
//! with the same settings.
//!
//! r2d2 backs off for each slot of a pool by itself. A pool of ten makes two logins a second, and ten
//! processes with two such pools make forty: enough to be throttled by AWS, if the cause is a policy.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind};

/// The number of refused logins that are retried without delay. An instance short of memory refuses some
/// logins and recovers on its own.
const AT_ONCE: u32 = 6;

/// After those, one login is admitted after at least this long...
const SHORTEST_INTERVAL: Duration = Duration::from_secs(3);

/// ...and at most this long, so that processes that were refused together do not retry together. By default
/// a pool retries every 5 s, so it is not slowed down.
const LONGEST_INTERVAL: Duration = Duration::from_secs(4);

/// A streak is forgotten if no login was refused for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The limiter of one kind of login.
#[derive(Default)]
pub(crate) struct LoginLimiter(Mutex<Option<RefusalStreak>>);

/// Refused logins without a successful one between them.
struct RefusalStreak {
    /// The last refusal, and when it was.
    error: Error,
    refused: Moment,
    /// How many logins are admitted before the next interval.
    left: u32,
    /// When one more is admitted.
    next: Moment,
}

/// The permission to log in once. If it is dropped without an answer of the server, because the network failed or a
/// thread panicked, another login takes its place.
#[must_use]
pub(crate) struct Permit<'a> {
    limiter: &'a LoginLimiter,
    /// Whether it counts against a streak.
    is_counted: bool,
}

impl LoginLimiter {
    /// Admits a login at `now`, or returns the last refusal.
    pub(crate) fn admit_at(&self, now: &Moment) -> Result<Permit<'_>, Error> {
        let mut held = self.0.lock();
        let Some(streak) = held
            .as_mut()
            .filter(|streak| now.since(&streak.refused) < FORGOTTEN_AFTER)
        else {
            *held = None;
            return Ok(self.permit(false));
        };
        if streak.left == 0 && now.has_reached(&streak.next) {
            streak.left = 1;
        }
        if streak.left == 0 {
            return Err(streak.rate_limited_at(now));
        }
        streak.take_one_at(now);
        Ok(self.permit(true))
    }

    fn permit(&self, is_counted: bool) -> Permit<'_> {
        Permit {
            limiter: self,
            is_counted,
        }
    }
}

impl Permit<'_> {
    /// The login worked, so all others are admitted again.
    pub(crate) fn succeeded(mut self) {
        self.is_counted = false;
        *self.limiter.0.lock() = None;
    }

    /// The server refused the login, or throttles logins. After other failures there is no wait.
    pub(crate) fn failed_at(mut self, now: &Moment, error: &Error) {
        if !matches!(error.kind(), ErrorKind::LoginRefused | ErrorKind::Throttled) {
            return;
        }
        let mut held = self.limiter.0.lock();
        match held.as_mut() {
            Some(streak) => {
                streak.error = error.clone();
                streak.refused = *now;
                if !self.is_counted {
                    streak.take_one_at(now);
                }
            }
            None => {
                *held = Some(RefusalStreak {
                    error: error.clone(),
                    refused: *now,
                    left: AT_ONCE - 1,
                    next: *now,
                });
            }
        }
        self.is_counted = false;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_counted
            && let Some(streak) = self.limiter.0.lock().as_mut()
        {
            streak.left += 1;
        }
    }
}

impl RefusalStreak {
    fn take_one_at(&mut self, now: &Moment) {
        if self.left > 0 {
            self.left -= 1;
            let spread = LONGEST_INTERVAL - SHORTEST_INTERVAL;
            self.next = *now + SHORTEST_INTERVAL + spread.mul_f64(fastrand::f64());
        }
    }

    fn rate_limited_at(&self, now: &Moment) -> Error {
        // By the clock that is not set: the other one may be hours behind, and does not decide then.
        let left = self.next.monotonic.saturating_duration_since(now.monotonic);
        let left = left.as_secs_f64();
        Error::with_cause(
            self.error.kind(),
            format!(
                "not tried, because the server refused such logins repeatedly; the next one is tried in \
                 {left:.1}s; the last refusal was"
            ),
            self.error.clone(),
        )
    }
}

impl fmt::Debug for LoginLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_limiting = self.0.lock().is_some();
        f.debug_tuple("LoginLimiter").field(&is_limiting).finish()
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

    fn network() -> Error {
        Error::new(ErrorKind::Network, "connection refused")
    }

    fn use_up(limiter: &LoginLimiter, now: &Moment) {
        for _ in 0..AT_ONCE {
            limiter.admit_at(now).unwrap().failed_at(now, &refused());
        }
        assert!(limiter.admit_at(now).is_err());
    }

    /// The number of logins admitted if one is tried every `step` for a minute.
    fn admitted(limiter: &LoginLimiter, start: Moment, step: Duration) -> usize {
        let attempts = 60_000 / step.as_millis() as u32;
        (0..attempts)
            .filter(|attempt| {
                let now = start + step * *attempt;
                match limiter.admit_at(&now) {
                    Ok(permit) => {
                        permit.failed_at(&now, &refused());
                        true
                    }
                    Err(_) => false,
                }
            })
            .count()
    }

    /// FAULTS.md row 23: the rates.
    #[test]
    fn a_refused_identity_makes_twenty_logins_a_minute() {
        let start = ManualClock::new().clock().now();
        let limiter = LoginLimiter::default();
        let first = admitted(&limiter, start, Duration::from_millis(10));
        assert!((15 + 5..=20 + 6).contains(&first), "{first} at first");
        for minute in 1..10 {
            let then = start + 60 * minute * SECOND;
            let count = admitted(&limiter, then, Duration::from_millis(10));
            assert!((15..=20).contains(&count), "{count} in minute {minute}");
        }
    }

    #[test]
    fn concurrent_logins_count_each() {
        let now = ManualClock::new().clock().now();
        let limiter = LoginLimiter::default();
        let permits: Vec<_> = (0..16).map(|_| limiter.admit_at(&now).unwrap()).collect();
        for permit in permits {
            permit.failed_at(&now, &refused());
        }
        let error = limiter.admit_at(&now).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LoginRefused);
        assert!(error.to_string().ends_with(": refused"), "{error}");
        let later = now + LONGEST_INTERVAL;
        let permit = limiter.admit_at(&later).unwrap();
        assert!(limiter.admit_at(&later).is_err(), "one");
        permit.failed_at(&later, &refused());
    }

    #[test]
    fn a_success_admits_all() {
        let now = ManualClock::new().clock().now();
        let limiter = LoginLimiter::default();
        use_up(&limiter, &now);
        let later = now + LONGEST_INTERVAL;
        limiter.admit_at(&later).unwrap().succeeded();
        for _ in 0..100 {
            limiter
                .admit_at(&later)
                .unwrap()
                .failed_at(&later, &network());
        }
    }

    /// FAULTS.md row 43.
    #[test]
    fn only_refusals_are_limited() {
        let now = ManualClock::new().clock().now();
        let limiter = LoginLimiter::default();
        for _ in 0..100 {
            limiter.admit_at(&now).unwrap().failed_at(&now, &network());
        }
        // During a streak, too: the server accepts logins again, and no login waits.
        limiter.admit_at(&now).unwrap().failed_at(&now, &refused());
        for _ in 0..100 {
            limiter.admit_at(&now).unwrap().failed_at(&now, &network());
        }
        use_up_the_rest(&limiter, &now);
        let error = limiter.admit_at(&now).err().unwrap();
        assert!(error.to_string().ends_with(": refused"), "{error}");
        // A permit without an outcome is given back.
        let later = now + LONGEST_INTERVAL;
        for _ in 0..100 {
            drop(limiter.admit_at(&later).unwrap());
        }
    }

    fn use_up_the_rest(limiter: &LoginLimiter, now: &Moment) {
        for _ in 1..AT_ONCE {
            limiter.admit_at(now).unwrap().failed_at(now, &refused());
        }
    }

    /// FAULTS.md row 64: the same with a limit that waits.
    #[test]
    fn a_clock_that_is_set_back_does_not_lengthen_the_wait() {
        let time = ManualClock::new();
        let start = time.clock().now();
        let limiter = LoginLimiter::default();
        use_up(&limiter, &start);
        time.set_wall(start.wall - 3_600 * SECOND);
        let error = limiter.admit_at(&time.clock().now()).err().unwrap();
        let text = error.to_string();
        let (_, left) = text.split_once("tried in ").unwrap();
        assert!(
            left.starts_with(['3', '4']) && left[1..].starts_with('.'),
            "{error}"
        );
        time.advance(LONGEST_INTERVAL);
        drop(limiter.admit_at(&time.clock().now()).unwrap());
    }

    #[test]
    fn a_streak_is_forgotten() {
        let now = ManualClock::new().clock().now();
        let limiter = LoginLimiter::default();
        use_up(&limiter, &now);
        let later = now + FORGOTTEN_AFTER;
        for _ in 0..100 {
            drop(limiter.admit_at(&later).unwrap());
        }
    }
}
