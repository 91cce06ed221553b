//! Sees soon that a server is back.
//!
//! r2d2 tries again at growing intervals, up to half of `connection_timeout`, and all connections that
//! a pool lacks do so at about the same time. So one worker of a pool does not go back to that after a
//! failure: it stays, and tries again at short intervals for as long as the others pause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// Between attempts. One that is turned away at the door costs next to nothing.
const PAUSE: Duration = Duration::from_millis(500);

/// One pool's.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// For how long a worker stays.
    shift: Duration,
    is_manned: AtomicBool,
    /// Whether the server was away at the last attempt. A first failure is told at once.
    was_away: AtomicBool,
}

impl Lookout {
    /// For a pool whose r2d2 pauses for up to `longest_pause`.
    pub(crate) fn new(longest_pause: Duration) -> Lookout {
        Lookout {
            shift: longest_pause,
            is_manned: AtomicBool::new(false),
            was_away: AtomicBool::new(false),
        }
    }

    /// What comes of `connect`: at once, or after more of them where the server has been away for a
    /// while and nobody else is on the lookout.
    pub(super) fn keep<C>(
        &self,
        clock: &Clock,
        connect: impl Fn() -> Result<C, Error>,
    ) -> Result<C, Error> {
        let outcome = connect();
        let is_away = is_away(&outcome);
        if !self.was_away.swap(is_away, Ordering::Relaxed) || !is_away {
            return outcome;
        }
        match Post::take(&self.is_manned) {
            Some(_post) => self.stay(clock, outcome, connect),
            None => outcome,
        }
    }

    fn stay<C>(
        &self,
        clock: &Clock,
        mut outcome: Result<C, Error>,
        connect: impl Fn() -> Result<C, Error>,
    ) -> Result<C, Error> {
        let begun = clock.now();
        // Attempts are counted as well, since a clock for tests may stand still.
        let attempts = self.shift.as_millis() / PAUSE.as_millis();
        for _ in 0..attempts {
            thread::sleep(PAUSE);
            outcome = connect();
            if !is_away(&outcome) {
                self.was_away.store(false, Ordering::Relaxed);
                break;
            }
            // One that had to be timed out has taken long already.
            if clock.now().since(&begun) >= self.shift {
                break;
            }
        }
        outcome
    }
}

/// Whether there is no server, or one that takes no logins for the moment. Everything else is an
/// answer.
fn is_away<C>(outcome: &Result<C, Error>) -> bool {
    matches!(
        outcome.as_ref().map_err(Error::kind),
        Err(ErrorKind::Network | ErrorKind::ServerUnavailable)
    )
}

/// Held by the one who is on the lookout; free again when dropped.
struct Post<'a>(&'a AtomicBool);

impl Post<'_> {
    fn take(is_manned: &AtomicBool) -> Option<Post<'_>> {
        let was_manned = is_manned.swap(true, Ordering::Relaxed);
        (!was_manned).then_some(Post(is_manned))
    }
}

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::clock::ManualClock;

    const SHIFT: Duration = Duration::from_secs(3);

    fn away() -> Result<u32, Error> {
        Err(Error::new(ErrorKind::Network, "no server"))
    }

    #[test]
    fn a_first_failure_is_told_at_once_and_the_next_waits_for_the_server() {
        let lookout = Lookout::new(SHIFT);
        let clock = Clock::default();
        let calls = Cell::new(0);
        let connect = || {
            calls.set(calls.get() + 1);
            if calls.get() < 4 {
                away()
            } else {
                Ok(calls.get())
            }
        };
        assert!(lookout.keep(&clock, connect).is_err());
        assert_eq!(calls.get(), 1);
        assert_eq!(lookout.keep(&clock, connect).unwrap(), 4);
        // It was there: a failure is a first one again.
        calls.set(0);
        assert!(lookout.keep(&clock, connect).is_err());
        assert_eq!(calls.get(), 1);
    }

    #[test]
    fn an_answer_is_told_at_once() {
        let lookout = Lookout::new(SHIFT);
        let clock = Clock::default();
        let refused = || Err::<u32, _>(Error::new(ErrorKind::LoginRefused, "no"));
        assert!(lookout.keep(&clock, away).is_err());
        let error = lookout.keep(&clock, refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRefused);
    }

    #[test]
    fn one_at_a_time_is_on_the_lookout_and_for_one_shift() {
        let lookout = Lookout::new(2 * PAUSE);
        // It stands still, so that a shift is so many attempts.
        let clock = ManualClock::new().clock();
        assert!(lookout.keep(&clock, away).is_err());
        let (tried, tries) = channel();
        let (go_on, told) = channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (tried, told) = (tried, told);
                let connect = || {
                    tried.send(()).unwrap();
                    let _ = told.recv();
                    away()
                };
                assert!(lookout.keep(&clock, connect).is_err());
            });
            // The first attempt, and the first of those from the lookout.
            tries.recv().unwrap();
            go_on.send(()).unwrap();
            tries.recv().unwrap();
            let calls = Cell::new(0);
            let connect = || {
                calls.set(calls.get() + 1);
                away()
            };
            assert!(lookout.keep(&clock, connect).is_err());
            assert_eq!(calls.get(), 1);
            drop(go_on);
            assert_eq!(tries.iter().count(), 1, "the last of its shift");
        });
    }
}
