//! Logins that the server refuses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::SystemTime;

use diesel::PgConnection;
use diesel_rds_iam::{
    Backend, ErrorKind, HandleAuthEvent, IamAuth, LoginRefused, ManualClock, PgConnectionManager,
    RdsConnectionManager,
};
use rds_iam_emulator::{Emulator, Fault};

use crate::support::SECOND;
use crate::support::database::{auth_builder, emulator, refused};

/// A manager with a manual clock, so that the test decides which tokens are of the same second.
struct Refusing<C: Backend> {
    emulator: Emulator,
    time: ManualClock,
    auth: IamAuth,
    manager: RdsConnectionManager<C>,
}

impl<C: Backend> Refusing<C> {
    fn new() -> Refusing<C> {
        let emulator = emulator();
        // In the past, so that no token is from the future when the clock is advanced.
        let time = ManualClock::starting_at(SystemTime::now() - 60 * SECOND);
        let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
        let manager = RdsConnectionManager::builder(&emulator.url("app")).auth(auth.clone());
        Refusing {
            manager: manager.build().unwrap(),
            emulator,
            time,
            auth,
        }
    }
}

/// FAULTS.md row 7.
#[test]
fn a_cached_token_that_is_refused_is_replaced_inside_connect() {
    assert_is_replaced::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is_replaced::<diesel_rds_iam::postgres::Client>();
}

fn assert_is_replaced<C: Backend>() {
    let it = Refusing::<C>::new();
    drop(it.manager.try_connect().unwrap());
    it.time.advance(SECOND);
    it.emulator.fault(Fault::RefuseNext(1));

    drop(it.manager.try_connect().unwrap());
    let stats = it.auth.stats();
    assert_eq!((stats.logins_refused, stats.logins_retried), (1, 1));
    assert_eq!(stats.tokens_signed, 2);

    // The replacement is cached like any other.
    drop(it.manager.try_connect().unwrap());
    assert_eq!(it.auth.stats().tokens_signed, 2);
    assert_eq!(refused(&it.emulator).len(), 1);
}

/// FAULTS.md row 7.
#[test]
fn a_second_refusal_is_an_error_with_a_hint() {
    assert_hints::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_hints::<diesel_rds_iam::postgres::Client>();
}

fn assert_hints<C: Backend>() {
    let it = Refusing::<C>::new();
    drop(it.manager.try_connect().unwrap());
    it.time.advance(SECOND);
    it.emulator.fault(Fault::RefuseNext(2));

    let error = it.manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    let text = error.to_string();
    for part in [
        "\"app\"",
        "rds_iam",
        "rds-db:connect",
        "clock",
        "PAM authentication failed",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(refused(&it.emulator).len(), 2);

    it.time.advance(SECOND);
    drop(it.manager.try_connect().unwrap());
}

/// FAULTS.md row 7: also if another thread made the replacement.
#[test]
fn a_connect_makes_at_most_two_logins() {
    /// At the first refusal, opens another connection first, whose token stays in the cache. At the fourth, advances
    /// the clock by a second, after which a cached token could be replaced again.
    struct Meddler {
        time: ManualClock,
        manager: Arc<OnceLock<PgConnectionManager>>,
        refusals: AtomicUsize,
    }

    impl HandleAuthEvent for Meddler {
        fn handle_login_refused(&self, _: &LoginRefused<'_>) {
            match self.refusals.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    self.time.advance(SECOND);
                    assert!(self.manager.get().unwrap().try_connect().is_err());
                }
                3 => self.time.advance(SECOND),
                _ => {}
            }
        }
    }

    let emulator = emulator();
    let time = ManualClock::starting_at(SystemTime::now() - 60 * SECOND);
    let manager = Arc::new(OnceLock::new());
    let meddler = Meddler {
        time: time.clone(),
        manager: manager.clone(),
        refusals: AtomicUsize::new(0),
    };
    let auth = auth_builder(&emulator)
        .clock(time.clock())
        .event_handler(meddler)
        .build()
        .unwrap();
    let built = PgConnectionManager::builder(&emulator.url("app"))
        .auth(auth)
        .build()
        .unwrap();
    let manager = manager.get_or_init(|| built);
    drop(manager.try_connect().unwrap());

    emulator.fault(Fault::RefuseNext(u32::MAX));
    assert!(manager.try_connect().is_err());
    assert_eq!(refused(&emulator).len(), 4, "two connects");
}

#[test]
fn a_refused_new_token_is_not_retried() {
    let it = Refusing::<PgConnection>::new();
    it.emulator.fault(Fault::RefuseNext(1));
    let error = it.manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    assert_eq!(it.auth.stats().logins_retried, 0);

    // It is not cached either.
    it.time.advance(SECOND);
    drop(it.manager.try_connect().unwrap());
    assert_eq!(it.auth.stats().tokens_signed, 2);
}

/// FAULTS.md row 7.
#[test]
fn a_refused_identity_costs_one_signature_a_second() {
    let it = Refusing::<PgConnection>::new();
    drop(it.manager.try_connect().unwrap());
    for seconds in 1..=3 {
        it.time.advance(SECOND);
        it.emulator.fault(Fault::RefuseNext(u32::MAX));
        let barrier = Barrier::new(16);
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..3 {
                        let error = it.manager.try_connect().err().unwrap();
                        assert_eq!(error.kind(), ErrorKind::LoginRefused);
                    }
                });
            }
        });
        let signed = it.auth.stats().tokens_signed;
        assert!(
            signed <= 1 + seconds,
            "{signed} signatures after {seconds} s"
        );
    }
    // Allowed again, it recovers with the next login.
    it.emulator.heal();
    it.time.advance(4 * SECOND);
    drop(it.manager.try_connect().unwrap());
}

#[test]
fn credentials_that_were_replaced_at_their_source_are_fetched_after_a_refusal() {
    let emulator = emulator();
    let time = ManualClock::starting_at(SystemTime::now() - 60 * SECOND);
    let old = rds_iam_emulator::Credentials::new("AKIDOLD", "old");
    let new = rds_iam_emulator::Credentials::new("AKIDNEW", "new");
    emulator.add_credentials(old);
    let source = crate::support::FakeSource::default();
    let keys = |id, secret| aws_credential_types::Credentials::new(id, secret, None, None, "test");
    source.answer(move || Ok(keys("AKIDOLD", "old")));
    let auth = IamAuth::builder()
        .clock(time.clock())
        .credentials_fn(source.fetch())
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth);
    let manager = manager.build().unwrap();
    drop(manager.try_connect().unwrap());

    // A key is rotated. Long-lived keys have no expiry that would show it.
    emulator.remove_credentials("AKIDOLD");
    emulator.add_credentials(new);
    source.answer(move || Ok(keys("AKIDNEW", "new")));
    time.advance(SECOND);
    assert!(manager.try_connect().is_err());
    time.advance(SECOND);
    drop(manager.try_connect().unwrap());
    assert_eq!(source.calls(), 2);
}

/// FAULTS.md row 24.
#[test]
fn a_pool_survives_some_refused_logins() {
    let emulator = emulator();
    let manager = crate::support::database::manager(&emulator);
    emulator.fault(Fault::RefuseNext(5));
    let pool = manager.pool_builder().build_unchecked().unwrap();
    drop(pool.get().unwrap());
    assert!(!refused(&emulator).is_empty());
}
