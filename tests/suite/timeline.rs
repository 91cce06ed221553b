//! The life of tokens with a manual clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use diesel_rds_iam::{ErrorKind, IamAuth, ManualClock, Token, TokenSource};

use crate::support::{FakeSource, MINUTE, PATIENCE, Recorder, SECOND, endpoint, keys, keys_until};

struct Timeline {
    time: ManualClock,
    credentials: FakeSource,
    recorder: Recorder,
    auth: IamAuth,
    source: TokenSource,
}

impl Timeline {
    fn new(refresh_ahead: bool) -> Timeline {
        let time = ManualClock::new();
        let credentials = FakeSource::default();
        let recorder = Recorder::default();
        let auth = IamAuth::builder()
            .clock(time.clock())
            .credentials_fn(credentials.fetch())
            .refresh_ahead(refresh_ahead)
            .event_handler(recorder.clone())
            .build()
            .unwrap();
        let source = auth.source(&endpoint());
        Timeline {
            time,
            credentials,
            recorder,
            auth,
            source,
        }
    }

    /// Waits until a refresh that is under way has completed.
    fn wait_for_another_than(&self, token: &Token) -> Arc<Token> {
        let begun = Instant::now();
        loop {
            let current = self.source.token().unwrap();
            if current.id() != token.id() {
                return current;
            }
            assert!(begun.elapsed() < PATIENCE, "the token was never replaced");
            std::thread::yield_now();
        }
    }

    /// Credentials that last as long as a token, so that every token needs new ones.
    fn credentials_last_for_one_token(&self) {
        let clock = self.time.clock();
        self.credentials.answer(move || {
            let expiry = clock.now().wall + 15 * MINUTE;
            Ok(Credentials::new(
                "ASIA",
                "secret",
                Some("session".into()),
                Some(expiry),
                "test",
            ))
        });
    }
}

/// Two hours of tokens, credentials and failures.
#[test]
fn a_token_is_used_for_fourteen_minutes() {
    let timeline = Timeline::new(false);
    let start = timeline.time.clock().now();
    let at = |after: Duration| {
        let now = timeline.time.clock().now();
        timeline.time.advance(after - now.since(&start));
        timeline.source.token().unwrap()
    };

    let a = at(Duration::ZERO);
    assert_eq!(a.issued_at(), start.wall);
    assert_eq!(at(30 * SECOND).id(), a.id());
    assert_eq!(at(13 * MINUTE).id(), a.id());

    let b = at(14 * MINUTE);
    assert_ne!(b.id(), a.id());
    assert_ne!(b.expose_secret(), a.expose_secret());
    assert_eq!(b.issued_at(), start.wall + 14 * MINUTE);
    assert_eq!(b.expires_at(), Some(start.wall + 29 * MINUTE));
    assert_eq!(at(14 * MINUTE + 5 * SECOND).id(), b.id());

    let c = at(28 * MINUTE);
    assert_ne!(c.id(), b.id());
    assert_eq!(timeline.auth.stats().tokens_signed, 3);
    assert_eq!(
        timeline.credentials.calls(),
        1,
        "long-lived keys are fetched once"
    );
}

#[test]
fn with_refresh_ahead_no_caller_waits_after_the_first_token() {
    let timeline = Timeline::new(true);
    timeline.credentials_last_for_one_token();
    timeline.source.token().unwrap();

    for _ in 0..6 * 60 * 2 {
        timeline.time.advance(10 * SECOND);
        // While the source is down, a caller that had to wait for a token would get none.
        timeline.credentials.hold();
        let token = timeline.source.token().unwrap();
        let now = timeline.time.clock().now().wall;
        let age = now.duration_since(token.issued_at()).unwrap();
        assert!(age < 14 * MINUTE, "a token was used that is {age:?} old");
        timeline.credentials.release();
        if age >= 12 * MINUTE {
            timeline.wait_for_another_than(&token);
        }
    }
    // Two hours of tokens that are replaced when 11 to 12 minutes old.
    let signed = timeline.auth.stats().tokens_signed;
    assert!((10..=11).contains(&signed), "{signed} tokens");
}

/// FAULTS.md row 1.
#[test]
fn a_token_ends_before_the_credentials_that_signed_it() {
    let timeline = Timeline::new(false);
    let start = timeline.time.clock().now().wall;
    timeline.credentials.answer(move || {
        let expiry = Some(start + 3 * MINUTE);
        Ok(Credentials::new(
            "ASIA",
            "secret",
            Some("session".into()),
            expiry,
            "test",
        ))
    });
    let first = timeline.source.token().unwrap();
    assert_eq!(first.expires_at(), Some(start + 3 * MINUTE));
    assert_eq!(first.usable_until(), Some(start + 2 * MINUTE));

    // They expire within a token's lifetime, so the source is requested once more.
    timeline.time.advance(2 * MINUTE - SECOND);
    assert_eq!(timeline.source.token().unwrap().id(), first.id());
    assert_eq!(timeline.credentials.calls(), 1);
    timeline.time.advance(SECOND);
    timeline.credentials_last_for_one_token();
    let second = timeline.source.token().unwrap();
    assert_eq!(timeline.credentials.calls(), 2);
    assert_eq!(
        second.usable_until(),
        Some(second.issued_at() + 14 * MINUTE)
    );
}

#[test]
fn expired_credentials_are_an_error_that_says_so() {
    let timeline = Timeline::new(false);
    let start = timeline.time.clock().now().wall;
    timeline
        .credentials
        .answer(move || Ok(keys_until(start - SECOND)));
    let error = timeline.source.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsExpired);
}

/// FAULTS.md row 6.
#[test]
fn a_failed_refresh_keeps_the_current_token_until_it_expires() {
    let timeline = Timeline::new(true);
    timeline.credentials_last_for_one_token();
    let first = timeline.source.token().unwrap();
    timeline
        .credentials
        .answer(|| Err("the source is down".into()));

    // A refresh is due at 12:00 at the latest, and after each failure when the back-off has passed.
    timeline.time.advance(12 * MINUTE);
    for failures in 1..=6 {
        assert_eq!(timeline.source.token().unwrap().id(), first.id());
        timeline
            .recorder
            .wait_until(|counts| counts.failed == failures);
        // No attempt begins before half of the back-off has passed.
        let pause = SECOND * (1 << (failures - 1));
        timeline.time.advance(pause / 2 - Duration::from_millis(1));
        assert_eq!(timeline.source.token().unwrap().id(), first.id());
        timeline.time.advance(pause / 2 + Duration::from_millis(1));
    }
    let counts = timeline.recorder.counts();
    assert_eq!(counts.failed_with_stale, counts.failed);
    assert_eq!(timeline.credentials.calls(), 1 + counts.failed);

    timeline.time.advance(MINUTE);
    let error = timeline.source.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsRefused);
    assert!(error.to_string().ends_with("the source is down"), "{error}");

    timeline.credentials.answer(|| Ok(keys()));
    timeline.time.advance(SECOND);
    assert_ne!(timeline.source.token().unwrap().id(), first.id());
}

/// FAULTS.md row 16.
#[test]
fn no_clock_step_makes_an_expired_token_usable() {
    let timeline = Timeline::new(false);
    let first = timeline.source.token().unwrap();
    let start = timeline.time.clock().now().wall;

    // Forward: the token is 61 minutes old by the wall clock.
    timeline.time.set_wall(start + 61 * MINUTE);
    let second = timeline.source.token().unwrap();
    assert_ne!(second.id(), first.id());

    // Back: the token was issued in the future. It is replaced once, in the background.
    timeline.time.set_wall(start);
    assert_eq!(timeline.source.token().unwrap().id(), second.id());
    timeline.recorder.wait_until(|counts| counts.signed == 3);
    let third = timeline.wait_for_another_than(&second);
    assert_eq!(third.issued_at(), start);

    // The machine sleeps: only the wall clock advances, by 20 minutes.
    timeline.time.set_wall(start + 20 * MINUTE);
    assert_ne!(timeline.source.token().unwrap().id(), third.id());
    assert_eq!(timeline.auth.stats().tokens_signed, 4);
}
