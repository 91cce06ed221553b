//! The only reader of time.
//!
//! A token's expiry is a date, so the wall clock decides. But wall clocks step, and a monotonic clock stands
//! still while a machine is suspended. So everything here reads both, and a deadline has passed as soon as
//! *either* clock has passed it.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The longest span that is ever added to a moment: a hundred years. Longer ones, such as
/// [`Duration::MAX`], mean the same and would overflow the clocks of some systems.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The source of the time: the machine's clocks, or a manual clock of a test.
///
/// The default is the machine's.
#[derive(Clone, Default)]
pub struct Clock(Source);

#[derive(Clone, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<Mutex<Moment>>),
}

impl Clock {
    /// The time by both clocks.
    #[inline]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads time"
    )]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System => Moment {
                wall: SystemTime::now(),
                monotonic: Instant::now(),
            },
            Source::Manual(moment) => *moment.lock(),
        }
    }

    /// The time by the monotonic clock alone, for spans that only this process measures.
    #[inline]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads time"
    )]
    pub(crate) fn monotonic(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(moment) => moment.lock().monotonic,
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::System",
            Source::Manual(_) => "Clock::Manual",
        })
    }
}

/// One reading of the wall clock and of the monotonic clock together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moment {
    /// The wall clock, whose date is signed and checked by AWS. It may jump in either direction.
    pub wall: SystemTime,
    /// The monotonic clock, which may stand still while the machine is suspended.
    pub monotonic: Instant,
}

impl Moment {
    /// Returns whether either clock has reached `end`.
    #[inline]
    pub fn has_reached(&self, end: &Moment) -> bool {
        self.monotonic >= end.monotonic || self.wall >= end.wall
    }

    /// The last whole second of the wall clock, with the monotonic clock as much earlier.
    pub(crate) fn whole_second(&self) -> Moment {
        let since_epoch = self
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        *self - Duration::from_nanos(since_epoch.subsec_nanos().into())
    }

    /// The time from `earlier` until now by the clock that measured more of it; zero if neither measured any.
    pub fn since(&self, earlier: &Moment) -> Duration {
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        monotonic.max(wall)
    }
}

/// Both clocks later by the same span, which counts as a hundred years if it is longer.
impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        let span = span.min(FOREVER);
        Moment {
            wall: self.wall + span,
            monotonic: self.monotonic + span,
        }
    }
}

/// Both clocks earlier by the same span, as far as the monotonic clock goes back.
impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, span: Duration) -> Moment {
        Moment {
            wall: self.wall - span,
            monotonic: self.monotonic.checked_sub(span).unwrap_or(self.monotonic),
        }
    }
}

/// A clock for tests, which stands still until it is advanced or set.
///
/// ```
/// use std::time::Duration;
/// use diesel_rds_iam::ManualClock;
///
/// let time = ManualClock::new();
/// let clock = time.clock();
/// let start = clock.now();
/// time.advance(Duration::from_secs(14 * 60));
/// assert_eq!(clock.now().since(&start), Duration::from_secs(14 * 60));
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Moment>>);

impl ManualClock {
    /// A clock that stands at the present time, with a whole second on its wall clock.
    pub fn new() -> ManualClock {
        let now = Clock::default().now();
        let since_epoch = now
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        ManualClock::starting_at(
            SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs()),
        )
    }

    /// A clock whose wall clock stands at `wall`.
    pub fn starting_at(wall: SystemTime) -> ManualClock {
        let monotonic = Clock::default().now().monotonic;
        ManualClock(Arc::new(Mutex::new(Moment { wall, monotonic })))
    }

    /// Returns the clock to use in the code under test. It follows this one.
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(self.0.clone()))
    }

    /// Advances both clocks by `span`.
    pub fn advance(&self, span: Duration) {
        let mut moment = self.0.lock();
        *moment = *moment + span;
    }

    /// Sets the wall clock and leaves the monotonic clock: a correction by NTP or by hand, or a
    /// machine that slept.
    pub fn set_wall(&self, wall: SystemTime) {
        self.0.lock().wall = wall;
    }
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&*self.0.lock()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_deadline_passes_when_either_clock_passes_it() {
        let time = ManualClock::new();
        let start = time.clock().now();
        let end = start + 14 * MINUTE;
        assert!(!start.has_reached(&end));

        time.set_wall(start.wall + 14 * MINUTE);
        assert!(time.clock().now().has_reached(&end), "the wall clock alone");

        time.set_wall(start.wall);
        time.advance(14 * MINUTE);
        time.set_wall(start.wall);
        assert!(
            time.clock().now().has_reached(&end),
            "the monotonic clock alone"
        );
    }

    #[test]
    fn the_clock_on_which_more_time_passed_decides() {
        let time = ManualClock::new();
        let start = time.clock().now();
        time.advance(MINUTE);
        time.set_wall(start.wall - 60 * MINUTE);
        assert_eq!(time.clock().now().since(&start), MINUTE);
        time.set_wall(start.wall + 5 * MINUTE);
        assert_eq!(time.clock().now().since(&start), 5 * MINUTE);
    }
}
