//! Passwords that are not IAM tokens, in the same manager and pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use diesel_rds_iam::{
    BoxError, ErrorKind, ManualClock, Password, PasswordBuilder, PgConnectionManager,
    RotatingPassword,
};
use parking_lot::Mutex;
use rds_iam_emulator::Emulator;

use crate::support::database::{Ask, auth_builder, emulator, shared_emulator};
use crate::support::{MINUTE, Recorder};

#[path = "../../examples/command_password.rs"]
#[allow(dead_code, reason = "its main is for those who run it")]
mod command_password;

/// A secrets store that counts its calls.
#[derive(Clone, Default)]
struct PasswordStore(Arc<PasswordStoreInner>);

#[derive(Default)]
struct PasswordStoreInner {
    calls: AtomicUsize,
    answer: Mutex<Option<Box<Answer>>>,
}

type Answer = dyn Fn() -> Result<RotatingPassword, BoxError> + Send;

impl PasswordStore {
    fn answer(&self, answer: impl Fn() -> Result<RotatingPassword, BoxError> + Send + 'static) {
        *self.0.answer.lock() = Some(Box::new(answer));
    }

    fn gives(&self, password: &'static str) {
        self.answer(move || Ok(RotatingPassword::new(password)));
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    fn password(&self) -> PasswordBuilder {
        let store = self.clone();
        Password::builder(move || {
            store.0.calls.fetch_add(1, Ordering::SeqCst);
            store.0.answer.lock().as_ref().expect("an answer")()
        })
    }
}

/// An emulator with the user bob, who logs in with this password.
fn emulator_with_bob(password: &str) -> Emulator {
    let emulator = emulator();
    emulator.create_password_user("bob", password).unwrap();
    emulator
}

fn manager(emulator: &Emulator, user: &str, password: Password) -> PgConnectionManager {
    let url = emulator.url(user);
    let builder = PgConnectionManager::builder(&url).password(password);
    builder.build().unwrap()
}

#[test]
fn the_builders_password_overrides_that_of_the_string() {
    let emulator = emulator_with_bob("right: \\ '");
    let url = emulator.url("bob").replace("bob@", "bob:wrong@");
    let manager = PgConnectionManager::builder(&url)
        .password(Password::fixed("right: \\ '"))
        .build()
        .unwrap();
    assert_eq!(manager.try_connect().unwrap().ask("current_user"), "bob");
}

#[test]
fn a_rotating_password_is_fetched_once_until_its_end() {
    let emulator = emulator_with_bob("first");
    let time = ManualClock::new();
    let store = PasswordStore::default();
    store.answer(|| Ok(RotatingPassword::new("first").lasts_for(15 * MINUTE)));
    let password = store
        .password()
        .clock(time.clock())
        .refresh_ahead(false)
        .build()
        .unwrap();
    let manager = manager(&emulator, "bob", password);
    for _ in 0..3 {
        manager.try_connect().unwrap();
    }
    assert_eq!(store.calls(), 1);

    // A minute before its expiry another one is fetched, and no login is refused.
    time.advance(14 * MINUTE);
    emulator
        .execute("ALTER ROLE bob PASSWORD 'second'")
        .unwrap();
    store.gives("second");
    manager.try_connect().unwrap();
    assert_eq!(store.calls(), 2);

    // The second has no expiry.
    time.advance(1000 * MINUTE);
    manager.try_connect().unwrap();
    assert_eq!(store.calls(), 2);
}

/// FAULTS.md row 70: two alternating users, as in a store that changes the user with the password.
#[test]
fn a_rotating_password_names_its_user() {
    let emulator = emulator_with_bob("bobs");
    emulator.create_password_user("carol", "carols").unwrap();
    let store = PasswordStore::default();
    store.answer(|| Ok(RotatingPassword::new("carols").user("carol")));
    let password = store.password().build().unwrap();
    let manager = manager(&emulator, "bob", password.clone());
    assert_eq!(manager.try_connect().unwrap().ask("current_user"), "carol");
    #[cfg(feature = "postgres")]
    {
        let url = emulator.url("bob");
        let manager = diesel_rds_iam::PostgresConnectionManager::builder(&url).password(password);
        let mut connection = manager.build().unwrap().try_connect().unwrap();
        assert_eq!(connection.ask("current_user"), "carol");
    }
    assert_eq!(store.calls(), 1);

    emulator.execute("ALTER ROLE carol NOLOGIN").unwrap();
    emulator
        .execute("ALTER ROLE carol PASSWORD 'other'")
        .unwrap();
    store.answer(|| Ok(RotatingPassword::new("bobs").user("bob")));
    assert_eq!(manager.try_connect().unwrap().ask("current_user"), "bob");

    let nobody = Password::rotating(|| Ok(RotatingPassword::new("bobs").user("")));
    let error = self::manager(&emulator, "bob", nobody).try_connect();
    assert_eq!(error.err().unwrap().kind(), ErrorKind::Configuration);
}

#[test]
fn a_refused_password_is_fetched_again_and_the_login_retried_once() {
    let emulator = emulator_with_bob("first");
    let store = PasswordStore::default();
    store.gives("first");
    let password = store.password().build().unwrap();
    let manager = manager(&emulator, "bob", password.clone());
    manager.try_connect().unwrap();

    // The password was changed before the cached one expired.
    emulator
        .execute("ALTER ROLE bob PASSWORD 'second'")
        .unwrap();
    store.gives("second");
    manager.try_connect().unwrap();
    assert_eq!(store.calls(), 2);
    assert_eq!(password.stats().logins_refused, 1);
    assert_eq!(password.stats().logins_retried, 1);
}

#[test]
fn an_unchanged_password_is_not_retried() {
    let emulator = emulator_with_bob("right");
    let time = ManualClock::new();
    let store = PasswordStore::default();
    store.gives("right");
    let password = store.password().clock(time.clock()).build().unwrap();
    let manager = manager(&emulator, "bob", password.clone());
    manager.try_connect().unwrap();

    emulator.execute("ALTER ROLE bob PASSWORD 'other'").unwrap();
    let before = emulator.login_count();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    assert!(error.to_string().contains("source"), "{error}");
    assert!(!error.to_string().contains("right"), "{error}");
    assert_eq!(store.calls(), 2);
    assert_eq!(emulator.login_count(), before + 1);
}

#[test]
fn a_failed_fetch_keeps_the_current_password_until_it_expires() {
    let emulator = emulator_with_bob("first");
    let time = ManualClock::new();
    let store = PasswordStore::default();
    let end = time.clock().now().wall + 15 * MINUTE;
    store.answer(move || Ok(RotatingPassword::new("first").expires_at(end)));
    let recorder = Recorder::default();
    let password = store
        .password()
        .clock(time.clock())
        .event_handler(recorder.clone())
        .build()
        .unwrap();
    let manager = manager(&emulator, "bob", password);
    manager.try_connect().unwrap();

    store.answer(|| Err("the store is sealed".into()));
    time.advance(12 * MINUTE);
    manager.try_connect().unwrap();
    recorder.wait_until(|counts| counts.failed_with_stale == 1);

    time.advance(2 * MINUTE);
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::CredentialsRefused);
    assert!(
        error.to_string().ends_with("the store is sealed"),
        "{error}"
    );
}

#[test]
fn each_failure_of_a_password_source_has_its_kind() {
    let time = ManualClock::new();
    let store = PasswordStore::default();
    let password = store.password().clock(time.clock()).build().unwrap();
    let manager = manager(shared_emulator(), "bob", password);
    let kind = || {
        // After the second for which a failure is cached.
        time.advance(Duration::from_secs(2));
        manager.try_connect().err().unwrap().kind()
    };
    store.gives("");
    assert_eq!(kind(), ErrorKind::CredentialsNotFound);
    let ended = time.clock().now().wall;
    store.answer(move || Ok(RotatingPassword::new("late").expires_at(ended)));
    assert_eq!(kind(), ErrorKind::CredentialsExpired);
    store.answer(|| Err("no".into()));
    assert_eq!(kind(), ErrorKind::CredentialsRefused);
    store.answer(|| panic!("the store panics, as this test wants it to"));
    assert_eq!(kind(), ErrorKind::Internal);
}

#[test]
fn a_password_source_that_hangs_times_out() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let password = Password::builder(move || {
        // Until the test ends.
        let _ = held.lock().recv();
        Ok(RotatingPassword::new("late"))
    })
    .refresh_timeout(Duration::from_millis(100))
    .build()
    .unwrap();
    let manager = manager(shared_emulator(), "bob", password);
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::CredentialsTimeout);
    assert!(error.to_string().contains("refresh_timeout"), "{error}");
    drop(release);
}

#[test]
fn a_cold_pool_fetches_the_password_once() {
    let emulator = emulator_with_bob("first");
    let store = PasswordStore::default();
    store.gives("first");
    let manager = manager(&emulator, "bob", store.password().build().unwrap());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| manager.try_connect().unwrap());
        }
    });
    let pool = manager.into_pool().unwrap();
    assert_eq!(pool.get().unwrap().ask("current_user"), "bob");
    assert_eq!(store.calls(), 1);
}

#[test]
fn iam_settings_with_a_password_are_rejected() {
    let emulator = shared_emulator();
    let builder = |url: &str| PgConnectionManager::builder(url).password(Password::fixed("x"));
    let url = emulator.url("bob");
    let auth = auth_builder(emulator).build().unwrap();
    for builder in [
        builder(&url).require_iam(),
        builder(&format!("{url}&iam=on")),
        builder(&url).auth(auth),
        builder(&format!("{url}&passfile=/tmp/x")),
        builder("user=bob"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    let builder = Password::builder(|| Ok(RotatingPassword::new("x")));
    let error = builder.refresh_timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
}

/// A database on this machine that requires no password, through its Unix socket.
#[test]
fn a_unix_socket_needs_neither_iam_nor_tls() {
    let socket = shared_emulator().superuser_url();
    let off = PgConnectionManager::new(&format!("{socket} iam=off")).unwrap();
    let password = PgConnectionManager::builder(&socket).password(Password::fixed("x"));
    for manager in [off, password.build().unwrap()] {
        manager.try_connect().unwrap();
        assert!(manager.endpoint().is_none());
    }
    let error = PgConnectionManager::new(&socket).unwrap_err();
    assert!(error.to_string().contains("iam=off"), "{error}");
}

#[test]
fn no_password_can_be_printed() {
    let rotating = RotatingPassword::new("hunter2");
    let fixed = Password::fixed("hunter2");
    let builder = Password::builder(|| Ok(RotatingPassword::new("hunter2")));
    let manager = PgConnectionManager::builder("postgres://u:hunter2@h").password(fixed.clone());
    let text = format!("{rotating:?} {fixed:?} {builder:?} {manager:?}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn the_example_logs_in_with_what_a_command_prints() {
    let emulator = emulator_with_bob("of a command");
    let log_in = |command: &[&str]| {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        command_password::log_in(&emulator.url("bob"), command)
    };
    assert_eq!(log_in(&["echo", "of a command"]).unwrap(), "bob");
    let error = log_in(&["false"]).unwrap_err().to_string();
    assert!(error.contains("false failed"), "{error}");
}
