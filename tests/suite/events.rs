//! Events, log lines and counters.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::{ErrorKind, IamAuth, ManualClock, PgConnectionManager, PgPool};
use rds_iam_emulator::{Emulator, Fault};

use crate::support::child::{self, Child};
use crate::support::database::{emulator, manager};
use crate::support::eavesdropper::Eavesdropper;
use crate::support::{FakeSource, MINUTE, PATIENCE, Recorder, SECOND, endpoint};

/// A pool over a manual clock, whose credentials last for one token.
struct Watched {
    heard: Eavesdropper,
    emulator: Emulator,
    time: ManualClock,
    credentials: FakeSource,
    manager: PgConnectionManager,
    pool: PgPool,
}

impl Watched {
    fn start() -> Watched {
        let heard = Eavesdropper::start();
        let emulator = emulator();
        // In the past, so that no token is from the future when the clock is advanced; and a whole second, as in
        // tokens, so that all tokens of the same credentials expire together.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Duration::from_secs(now.unwrap().as_secs());
        let time = ManualClock::starting_at(SystemTime::UNIX_EPOCH + now - 12 * MINUTE);
        let credentials = FakeSource::default();
        let auth = IamAuth::builder()
            .clock(time.clock())
            .credentials_fn(credentials.fetch())
            .event_handler(heard.clone())
            .build()
            .unwrap();
        lasting_for_one_token(&credentials, &emulator, &time);
        let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth);
        let manager = manager.build().unwrap();
        let pool = manager
            .pool_builder()
            .max_size(2)
            .connection_timeout(SECOND)
            .build()
            .unwrap();
        Watched {
            heard,
            emulator,
            time,
            credentials,
            manager,
            pool,
        }
    }

    /// The lines of a production log: levels and messages of all crates, at INFO and above.
    fn lines(&self) -> Vec<String> {
        let lines = self.heard.texts().into_iter().filter(|text| {
            ["INFO ", "WARN ", "ERROR "]
                .iter()
                .any(|level| text.starts_with(level))
        });
        let cut = |line: String| {
            let (level, rest) = line.split_once(' ').unwrap();
            let (_, message) = rest.split_once("message=").unwrap();
            let message = message.split(" error=").next().unwrap();
            let message = message.split(" host=").next().unwrap();
            format!("{level} {message}")
        };
        lines.map(cut).collect()
    }

    /// Repeats `work` until a line that begins with this text is logged.
    fn until_logged(&self, line: &str, mut go_on: impl FnMut()) {
        let begun = Instant::now();
        while !self.lines().iter().any(|it| it.starts_with(line)) {
            go_on();
            assert!(begun.elapsed() < PATIENCE, "{line:?} was never logged");
        }
    }
}

fn lasting_for_one_token(source: &FakeSource, emulator: &Emulator, time: &ManualClock) {
    let (key, secret) = (
        emulator.access_key().to_owned(),
        emulator.secret_key().to_owned(),
    );
    let clock = time.clock();
    source.answer(move || {
        let end = clock.now().wall + 15 * MINUTE;
        Ok(Credentials::new(&key, &secret, None, Some(end), "test"))
    });
}

#[test]
fn a_production_log_has_one_line_for_each_fact() {
    const TEST: &str = "a_production_log_has_one_line_for_each_fact";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let it = Watched::start();
    let query = |it: &Watched| {
        let connection = it.pool.get();
        connection.is_ok_and(|mut it| it.batch_execute("SELECT 1").is_ok())
    };
    for _ in 0..20 {
        assert!(query(&it));
    }
    // Logins are refused for some time, with all connections closed.
    it.emulator.fault(Fault::RefuseNext(u32::MAX));
    it.emulator.drop_sessions();
    let begun = Instant::now();
    while it.manager.stats().connects_rate_limited < 5 {
        query(&it);
        assert!(
            begun.elapsed() < PATIENCE,
            "connects were never rate-limited"
        );
    }
    it.emulator.heal();
    it.until_logged("INFO connections can be opened again", || {
        it.time.advance(4 * SECOND);
        query(&it);
    });
    // The source of credentials fails when the next token is due, and is requested repeatedly.
    it.credentials.answer(|| Err("the source is down".into()));
    it.time.advance(12 * MINUTE);
    for failures in 1..=3 {
        it.manager.token().unwrap();
        let begun = Instant::now();
        while it.manager.stats().refreshes_failed < failures {
            std::thread::yield_now();
            assert!(begun.elapsed() < PATIENCE, "a refresh never failed");
        }
        // The longest pause of the back-off.
        it.time.advance(4 * SECOND);
    }
    lasting_for_one_token(&it.credentials, &it.emulator, &it.time);
    it.until_logged("INFO token refresh works again", || {
        it.manager.token().unwrap();
    });
    assert!(query(&it));

    let lines = it.lines();
    let expected = [
        "INFO pool built",
        "WARN connections cannot be opened",
        "INFO connections can be opened again",
        "WARN token refresh failed",
        "INFO token refresh works again",
    ];
    assert_eq!(lines, expected);
    let texts = it.heard.texts();
    let built = texts.iter().find(|text| text.contains("pool built"));
    let built = built.unwrap();
    for field in [
        format!("host=\"{}\"", it.emulator.host()),
        "user=\"app\"".to_owned(),
        format!("region=\"{}\"", it.emulator.region()),
        "credentials=\"provider\"".to_owned(),
        "token_lifetime=900s".to_owned(),
        "margin=60s".to_owned(),
        "sslmode=\"verify-full\"".to_owned(),
        "max_lifetime=840s".to_owned(),
    ] {
        assert!(built.contains(&field), "{field} is missing in {built}");
    }
}

#[test]
fn the_source_of_credentials_is_logged_with_the_pool() {
    const TEST: &str = "the_source_of_credentials_is_logged_with_the_pool";
    if !child::is_running(module_path!(), TEST) {
        let emulator = emulator();
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
            .env("AWS_ACCESS_KEY_ID", emulator.access_key())
            .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
            .argument("URL", emulator.url("app"))
            .argument("KEY", emulator.access_key())
            .argument("STRANGER", emulator.url("nobody"))
            .run();
    }
    let heard = Eavesdropper::start();
    let manager = |url| PgConnectionManager::new(&child::argument(url)).unwrap();
    let unchecked = manager("URL").pool_builder().build_unchecked();
    drop(unchecked.unwrap());
    drop(manager("URL").into_pool().unwrap());
    let texts = heard.texts();
    let mut built = texts.iter().filter(|text| text.contains("pool built"));
    for credentials in [
        // No token was signed yet.
        "credentials=\"default chain\"",
        "credentials=\"default chain (environment variables)\"",
    ] {
        let line = built.next().unwrap();
        assert!(line.contains(credentials), "{line}");
        assert!(!line.contains(&child::argument("KEY")), "{line}");
    }
}

#[test]
fn a_stale_token_that_is_served_is_an_event() {
    let time = ManualClock::new();
    let credentials = FakeSource::default();
    let recorder = Recorder::default();
    let auth = IamAuth::builder()
        .clock(time.clock())
        .credentials_fn(credentials.fetch())
        .event_handler(recorder.clone())
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    source.token().unwrap();
    source.token().unwrap();
    assert_eq!(recorder.counts().stale_served, 0, "it is fresh");
    time.advance(12 * MINUTE);
    source.token().unwrap();
    assert_eq!(recorder.counts().stale_served, 1);
    assert_eq!(auth.stats().stale_served, 1);
    recorder.wait_until(|counts| counts.signed == 2);
}

#[test]
fn last_failure_is_kept_until_a_connect_succeeds() {
    let emulator = emulator();
    let manager = manager(&emulator);
    assert!(manager.last_failure().is_none());
    emulator.fault(Fault::RefuseNext(1));
    assert!(manager.try_connect().is_err());
    for manager in [manager.clone(), manager.clone()] {
        assert_eq!(
            manager.last_failure().unwrap().kind(),
            ErrorKind::LoginRefused
        );
    }
    let stats = manager.stats();
    assert_eq!((stats.connects_failed, stats.connects_rate_limited), (1, 0));
    drop(manager.try_connect().unwrap());
    assert!(manager.last_failure().is_none());
}
