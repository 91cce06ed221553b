//! A secret that serves as a password until its expiry, and cannot be printed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::cache::{Expiring, Freshness};
use crate::clock::Moment;

/// The longest lifetime of a token that AWS accepts: 15 minutes.
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(900);

/// The shortest lifetime that is useful with the margin.
pub(crate) const SHORTEST_LIFETIME: Duration = Duration::from_secs(5);

const SHORTEST_MARGIN: Duration = Duration::from_secs(2);
const LONGEST_MARGIN: Duration = Duration::from_secs(60);

/// An IAM token, or another password with an expiry.
///
/// It has no `Display` and no `Serialize`. Its `Debug` shows its age and not its text. Its memory is
/// overwritten when the last reference is dropped.
pub struct Token {
    secret: Zeroizing<String>,
    /// The user that it belongs to, if that is not the one of the connection string.
    user: Option<String>,
    id: u64,
    issued: Moment,
    ends: Option<Ends>,
}

#[derive(Clone, Copy)]
struct Ends {
    /// When its issuer stops accepting it.
    expires_at: SystemTime,
    /// From here on a refresh is due, and the token still valid.
    refresh_from: Moment,
    /// From here on it must not be used.
    usable_until: Moment,
}

/// When a token is refreshed, as a part of its usable lifetime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The part of the usable lifetime, in thousandths, after which a refresh is due.
    refresh_after: u32,
}

impl Schedule {
    /// A refresh becomes due only when the token must no longer be used.
    const AT_THE_END: Schedule = Schedule {
        refresh_after: 1000,
    };

    /// Starts a refresh ahead of the expiry, or only at it.
    pub(crate) fn new(refresh_ahead: bool) -> Schedule {
        match refresh_ahead {
            true => Schedule::ahead(),
            false => Schedule::AT_THE_END,
        }
    }

    /// A refresh becomes due between 11 and 12 of 14 minutes, or at that part of another lifetime.
    /// The spread keeps processes that started together from refreshing together.
    fn ahead() -> Schedule {
        Schedule {
            refresh_after: fastrand::u32(11_000 / 14..=12_000 / 14),
        }
    }
}

/// How long before its expiry a token with this lifetime is no longer used: a fifteenth of it, so one minute of
/// fifteen, and at least 2 s, since `X-Amz-Date` has whole seconds only.
///
/// It covers the time until the server checks the token, and differences between clocks.
pub(crate) fn margin(lifetime: Duration) -> Duration {
    (lifetime / 15).clamp(SHORTEST_MARGIN, LONGEST_MARGIN)
}

impl Token {
    /// A secret that is valid from `issued` for `lifetime`, or until `cut_short` if that is sooner.
    pub(crate) fn new(
        secret: Zeroizing<String>,
        issued: Moment,
        lifetime: Duration,
        cut_short: Option<SystemTime>,
        schedule: Schedule,
    ) -> Token {
        let full_life = issued.wall + lifetime;
        let expires_at = cut_short.map_or(full_life, |end| end.min(full_life));
        let life = expires_at.duration_since(issued.wall).unwrap_or_default();
        let usable = life.saturating_sub(margin(lifetime));
        let refresh_after = usable / 1000 * schedule.refresh_after;
        Token::with_ends(
            secret,
            issued,
            Some(Ends {
                expires_at,
                refresh_from: issued + refresh_after,
                usable_until: issued + usable,
            }),
        )
    }

    /// A secret without an expiry.
    pub(crate) fn everlasting(secret: Zeroizing<String>, issued: Moment) -> Token {
        Token::with_ends(secret, issued, None)
    }

    fn with_ends(secret: Zeroizing<String>, issued: Moment, ends: Option<Ends>) -> Token {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Token {
            secret,
            user: None,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            issued,
            ends,
        }
    }

    /// A secret of this user, whatever user the connection string names.
    pub(crate) fn of_user(mut self, user: Option<String>) -> Token {
        self.user = user;
        self
    }

    #[cfg(any(feature = "diesel", feature = "postgres"))]
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the text to send as the password. The caller is responsible for keeping it secret.
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }

    /// Returns a number that identifies this token in events and logs of this process, counted from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns when it was signed, by the wall clock, truncated to the second like `X-Amz-Date`.
    pub fn issued_at(&self) -> SystemTime {
        self.issued.wall
    }

    /// Returns when its issuer stops accepting it; `None` for a fixed password.
    ///
    /// For an IAM token that is its expiry or that of the credentials that signed it, whichever comes first:
    /// AWS rejects a token whose credentials have expired.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.ends.map(|ends| ends.expires_at)
    }

    /// Returns when a refresh becomes due: at 11 to 12 of 14 minutes, or at that part of another lifetime.
    /// `None` for a fixed password.
    pub fn refresh_due_at(&self) -> Option<SystemTime> {
        self.ends.map(|ends| ends.refresh_from.wall)
    }

    /// Returns when this crate stops using it: [`expires_at`](Token::expires_at) less a margin of 60 s, or of a
    /// fifteenth of a shorter lifetime, at least 2 s. `None` for a fixed password.
    pub fn usable_until(&self) -> Option<SystemTime> {
        self.ends.map(|ends| ends.usable_until.wall)
    }

    pub(crate) fn age_at(&self, now: &Moment) -> Duration {
        now.since(&self.issued)
    }

    pub(crate) fn is_usable_at(&self, now: &Moment) -> bool {
        self.freshness_at(now) != Freshness::Expired
    }

    /// Whether a token signed at `now` would be this one again: dates are signed in whole seconds.
    pub(crate) fn would_be_signed_again_at(&self, now: &Moment) -> bool {
        now.whole_second().wall == self.issued.wall
    }
}

impl Expiring for Token {
    #[inline]
    fn freshness_at(&self, now: &Moment) -> Freshness {
        let Some(ends) = &self.ends else {
            return Freshness::Fresh;
        };
        if now.has_reached(&ends.usable_until) {
            Freshness::Expired
        } else if now.has_reached(&ends.refresh_from) || now.wall < self.issued.wall {
            // If the wall clock is before the date of issue, it was set back since then. Whether AWS's clock still
            // accepts the token is unknown, so it is used while a new one is being signed.
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("issued_at", &self.issued_at())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn token(issued: Moment, lifetime: Duration) -> Token {
        let secret = Zeroizing::new("secret".to_owned());
        Token::new(secret, issued, lifetime, None, Schedule::ahead())
    }

    #[test]
    fn a_token_of_fifteen_minutes_is_used_for_fourteen() {
        let issued = ManualClock::new().clock().now();
        let token = token(issued, 15 * MINUTE);
        assert_eq!(token.usable_until(), Some(issued.wall + 14 * MINUTE));
        let at = |span| token.freshness_at(&(issued + span));
        assert_eq!(at(Duration::ZERO), Freshness::Fresh);
        assert_eq!(at(11 * MINUTE - SECOND), Freshness::Fresh);
        assert_eq!(at(12 * MINUTE), Freshness::Stale);
        assert_eq!(at(14 * MINUTE - SECOND), Freshness::Stale);
        assert_eq!(at(14 * MINUTE), Freshness::Expired);
    }

    #[test]
    fn a_short_lifetime_keeps_a_margin_of_two_seconds() {
        assert_eq!(margin(5 * SECOND), 2 * SECOND);
        assert_eq!(margin(30 * SECOND), 2 * SECOND);
        assert_eq!(margin(5 * MINUTE), 20 * SECOND);
        assert_eq!(margin(15 * MINUTE), 60 * SECOND);
    }

    #[test]
    fn credentials_that_expire_earlier_shorten_a_token() {
        let issued = ManualClock::new().clock().now();
        let secret = Zeroizing::new("secret".to_owned());
        let end = Some(issued.wall + 3 * MINUTE);
        let token = Token::new(secret, issued, 15 * MINUTE, end, Schedule::ahead());
        assert_eq!(token.expires_at(), end);
        assert_eq!(token.usable_until(), Some(issued.wall + 2 * MINUTE));
    }

    #[test]
    fn a_wall_clock_set_back_makes_a_token_stale_and_one_set_forward_expires_it() {
        let time = ManualClock::new();
        let issued = time.clock().now();
        let token = token(issued, 15 * MINUTE);
        time.set_wall(issued.wall - 60 * MINUTE);
        assert_eq!(token.freshness_at(&time.clock().now()), Freshness::Stale);
        time.set_wall(issued.wall + 60 * MINUTE);
        assert_eq!(token.freshness_at(&time.clock().now()), Freshness::Expired);
    }

    #[test]
    fn a_token_cannot_be_printed() {
        let token = token(ManualClock::new().clock().now(), 15 * MINUTE);
        assert!(!format!("{token:?}").contains("secret"));
    }
}
