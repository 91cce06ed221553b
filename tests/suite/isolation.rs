//! Failures of one user of an identity, one pool or one endpoint, which must not affect the others.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::provider::{ProvideCredentials, future};
use diesel_rds_iam::{
    Backend, Endpoint, ErrorKind, IamAuth, ManualClock, Password, PgConnectionManager,
    RdsConnectionManager, RotatingPassword, TokenSource,
};
use parking_lot::Mutex;
use rds_iam_emulator::{Emulator, Fault};
use tokio::sync::oneshot;

use crate::support::database::{credentials_of, emulator, manager_builder};
use crate::support::{FakeSource, MINUTE, PATIENCE, SECOND, endpoint, keys, keys_until};

/// An identity with the emulator's credentials, whose source counts its calls.
fn counted(emulator: &Emulator, time: &ManualClock) -> (IamAuth, FakeSource) {
    let (source, good) = (FakeSource::default(), credentials_of(emulator));
    source.answer(move || Ok(good.clone()));
    let auth = IamAuth::builder().credentials_fn(source.fetch());
    (auth.clock(time.clock()).build().unwrap(), source)
}

fn manager(emulator: &Emulator, auth: &IamAuth, user: &str) -> PgConnectionManager {
    let builder = PgConnectionManager::builder(&emulator.url(user));
    builder.auth(auth.clone()).build().unwrap()
}

fn time() -> ManualClock {
    // In the past, so that no token is from the future when the clock is advanced.
    ManualClock::starting_at(SystemTime::now() - 600 * SECOND)
}

fn wait_until(reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "it did not happen");
        std::thread::yield_now();
    }
}

/// FAULTS.md row 42.
#[test]
fn a_wrong_user_does_not_invalidate_the_credentials_of_others() {
    let (emulator, time) = (emulator(), time());
    emulator.create_iam_user("other").unwrap();
    let (auth, source) = counted(&emulator, &time);
    drop(manager(&emulator, &auth, "app").try_connect().unwrap());

    source.answer(|| Err("the source is down".into()));
    let error = manager(&emulator, &auth, "wrong")
        .try_connect()
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
    // The new credentials were refused too, and the old ones serve.
    wait_until(|| source.calls() == 2);
    time.advance(2 * SECOND);
    drop(manager(&emulator, &auth, "other").try_connect().unwrap());
    assert_eq!(source.calls(), 2);
}

/// FAULTS.md row 42.
#[test]
fn a_wrong_user_costs_few_fetches_of_credentials() {
    let (emulator, time) = (emulator(), time());
    let (auth, source) = counted(&emulator, &time);
    let wrong = manager(&emulator, &auth, "wrong");
    for _ in 0..30 {
        let calls = source.calls();
        let error = wrong.try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
        // Another thread makes the new fetch, which counts before the next refusal.
        let begun = Instant::now();
        while source.calls() == calls && begun.elapsed() < SECOND / 20 {
            std::thread::yield_now();
        }
        time.advance(4 * SECOND);
    }
    // The first fetch, and two because of refusals, after 0 and 60 s.
    assert!(source.calls() <= 3, "{} calls", source.calls());
}

/// FAULTS.md row 43.
#[test]
fn the_limit_on_refused_logins_is_that_of_the_same_settings() {
    let emulator = emulator();
    let url = |role: &str| format!("{}&options=-c%20role%3D{role}", emulator.url("app"));
    let auth = manager_builder(&emulator)
        .build()
        .unwrap()
        .auth()
        .cloned()
        .unwrap();
    let wrong = PgConnectionManager::builder(&url("gone")).auth(auth.clone());
    let wrong = wrong.build().unwrap();
    let right = PgConnectionManager::builder(&url("app")).auth(auth);
    let right = right.build().unwrap();
    while wrong.stats().connects_rate_limited == 0 {
        assert!(wrong.try_connect().is_err());
    }
    for _ in 0..3 {
        drop(right.try_connect().unwrap());
    }
}

/// FAULTS.md row 43.
#[test]
fn the_limit_on_refused_logins_does_not_hide_a_source_that_fails() {
    let emulator = emulator();
    let source = Arc::new(AtomicBool::new(true));
    let works = source.clone();
    let password = Password::rotating(move || match works.load(Ordering::SeqCst) {
        true => Ok(RotatingPassword::new("wrong")),
        false => Err("the vault is sealed".into()),
    });
    let manager = PgConnectionManager::builder(&emulator.url("app")).password(password);
    let manager = manager.build().unwrap();
    while manager.stats().connects_rate_limited == 0 {
        assert_eq!(
            manager.try_connect().err().unwrap().kind(),
            ErrorKind::LoginRefused
        );
    }
    source.store(false, Ordering::SeqCst);
    let is_told = || {
        let error = manager.try_connect().err().unwrap();
        error.to_string().contains("the vault is sealed")
    };
    wait_until(is_told);
    // A login that the server has not seen takes the place of no other.
    assert!((0..5).all(|_| is_told()));
}

/// FAULTS.md row 44.
#[test]
fn endpoints_that_no_caller_holds_are_forgotten() {
    let auth = IamAuth::builder()
        .credentials_provider(crate::support::keys())
        .build()
        .unwrap();
    let endpoint = |port| {
        let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
        Endpoint::new(host, port, "app").unwrap()
    };
    let held = auth.source(&endpoint(1));
    let token = held.token().unwrap().id();
    let forgotten = auth.source(&endpoint(2)).token().unwrap().id();
    for port in 3..1000 {
        auth.source(&endpoint(port)).token().unwrap();
    }
    assert_eq!(auth.source(&endpoint(1)).token().unwrap().id(), token);
    assert_ne!(auth.source(&endpoint(2)).token().unwrap().id(), forgotten);
}

/// FAULTS.md row 45.
#[test]
fn a_source_that_hangs_does_not_outlast_connect_timeout() {
    let emulator = emulator();
    let source = FakeSource::default();
    let good = credentials_of(&emulator);
    source.answer(move || Ok(good.clone()));
    source.hold();
    let auth = IamAuth::builder()
        .credentials_fn(source.fetch())
        .refresh_timeout(PATIENCE);
    let manager = PgConnectionManager::builder(&emulator.url("app"))
        .auth(auth.build().unwrap())
        .connect_timeout(SECOND)
        .build()
        .unwrap();
    let begun = Instant::now();
    let error = manager.try_connect().err().unwrap();
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::CredentialsTimeout, "{error}");
    assert!(error.to_string().contains("connect_timeout"), "{error}");
    // The fetch goes on, and serves the next connection.
    source.release();
    wait_until(|| manager.try_connect().is_ok());
    assert_eq!(source.calls(), 1);
}

/// FAULTS.md row 45: what the source takes, the login has not.
#[test]
fn a_slow_source_and_a_silent_server_share_connect_timeout() {
    fn assert_share<C: Backend>() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (time, source) = (ManualClock::new(), FakeSource::default());
        let slow = time.clone();
        source.answer(move || {
            slow.advance(119 * SECOND);
            Ok(keys())
        });
        let auth = IamAuth::builder()
            .credentials_fn(source.fetch())
            .clock(time.clock());
        let (host, port) = (endpoint().host().to_owned(), silent.local_addr().unwrap());
        let url = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=app",
            port.port()
        );
        let manager = RdsConnectionManager::<C>::builder(&url)
            .auth(auth.build().unwrap())
            .connect_timeout(120 * SECOND)
            .build()
            .unwrap();
        let begun = Instant::now();
        let error = manager.try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
    assert_share::<diesel::PgConnection>();
    #[cfg(feature = "postgres")]
    assert_share::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 45.
#[test]
fn a_short_connect_timeout_leaves_time_for_a_second_attempt() {
    let (emulator, time) = (emulator(), time());
    let (auth, _) = counted(&emulator, &time);
    // libpq's shortest limit is two seconds, which is enough for a login.
    let manager = PgConnectionManager::builder(&emulator.url("app"))
        .auth(auth.clone())
        .connect_timeout(Duration::from_millis(1100))
        .build()
        .unwrap();
    drop(manager.try_connect().unwrap());
    time.advance(2 * SECOND);
    emulator.fault(Fault::RefuseNext(1));
    drop(manager.try_connect().unwrap());
    assert_eq!(auth.stats().logins_retried, 1);
}

/// FAULTS.md row 11.
#[test]
fn the_last_identity_can_be_dropped_inside_its_own_source() {
    let held: Arc<Mutex<Option<IamAuth>>> = Arc::default();
    let dropped = held.clone();
    let auth = IamAuth::builder().credentials_fn(move || {
        drop(dropped.lock().take());
        Ok(crate::support::keys())
    });
    let auth = auth.build().unwrap();
    let source = auth.source(&crate::support::endpoint());
    *held.lock() = Some(auth);
    source.token().unwrap();
    assert!(held.lock().is_none());
}

/// Drops the last users of its identity in its second call, on the thread that signs tokens.
#[derive(Debug)]
struct DropsItsUsers {
    users: Arc<Mutex<Option<(IamAuth, TokenSource)>>>,
    go_on: Mutex<Option<oneshot::Receiver<()>>>,
    dropped: Sender<()>,
    expiry: SystemTime,
}

impl ProvideCredentials for DropsItsUsers {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            if self.users.lock().is_some() {
                let go_on = self.go_on.lock().take().unwrap();
                go_on.await.unwrap();
                drop(self.users.lock().take());
                self.dropped.send(()).unwrap();
            }
            Ok(keys_until(self.expiry))
        })
    }
}

/// FAULTS.md row 11: in a refresh that no caller waits for.
#[test]
fn the_last_identity_can_be_dropped_inside_an_asynchronous_provider() {
    let time = ManualClock::new();
    let users = Arc::<Mutex<_>>::default();
    let (go, go_on) = oneshot::channel();
    let (dropped, drops) = channel();
    let provider = DropsItsUsers {
        users: users.clone(),
        go_on: Mutex::new(Some(go_on)),
        dropped,
        // The first token ends with them, so that its refresh asks the provider.
        expiry: time.clock().now().wall + 20 * MINUTE,
    };
    let auth = IamAuth::builder()
        .credentials_provider(provider)
        .clock(time.clock())
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    source.token().unwrap();
    time.advance(13 * MINUTE);
    *users.lock() = Some((auth, source.clone()));
    source.token().unwrap();
    drop(source);
    go.send(()).unwrap();
    drops.recv_timeout(PATIENCE).unwrap();
    // Nothing keeps the provider.
    drops.recv_timeout(PATIENCE).unwrap_err();
}

/// FAULTS.md row 47.
#[test]
fn a_source_that_hangs_is_called_once_and_delays_no_other() {
    let (hanging, time) = (FakeSource::default(), ManualClock::new());
    hanging.hold();
    let auth = IamAuth::builder()
        .credentials_fn(hanging.fetch())
        .clock(time.clock())
        .refresh_timeout(SECOND / 10);
    let source = auth.build().unwrap().source(&crate::support::endpoint());
    for _ in 0..20 {
        let error = source.token().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CredentialsTimeout, "{error}");
        // A failure is cached for a second.
        time.advance(2 * SECOND);
    }
    assert_eq!(hanging.calls(), 1);

    let other = FakeSource::default();
    let auth = IamAuth::builder().credentials_fn(other.fetch());
    let other_source = auth.build().unwrap().source(&crate::support::endpoint());
    other_source.token().unwrap();

    // The next caller gets its result, and the source is not called again without a waiting caller.
    hanging.release();
    wait_until(|| {
        time.advance(2 * SECOND);
        source.token().is_ok()
    });
    assert_eq!(hanging.calls(), 1);
}
