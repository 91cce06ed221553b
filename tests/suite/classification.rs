//! The classification of failed connects, and the advice of each error.

use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use diesel_rds_iam::{Error, ErrorKind, ManualClock, PgConnectionManager, SslMode};
use rds_iam_emulator::{Emulator, Engine, Fault, Language, Stage};

use crate::support::PATIENCE;
use crate::support::database::{auth_builder, emulator, manager, manager_builder};

const LANGUAGES: [Language; 4] = [
    Language::German,
    Language::French,
    Language::Japanese,
    Language::Russian,
];

fn proxy() -> Emulator {
    let proxy = Emulator::builder().engine(Engine::Proxy).start().unwrap();
    proxy.create_iam_user("app").unwrap();
    proxy
}

fn error_of(manager: &PgConnectionManager) -> Error {
    manager.try_connect().err().unwrap()
}

/// Fails if the text of `error` lacks one of `parts`.
fn assert_says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// FAULTS.md row 27.
#[test]
fn a_refused_login_is_recognised_in_any_language() {
    let emulator = emulator();
    for language in LANGUAGES {
        emulator.set_language(language).unwrap();
        // In the past, so that no token is from the future when the clock is advanced.
        let time = ManualClock::starting_at(SystemTime::now() - Duration::from_secs(60));
        let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
        let manager = manager_builder(&emulator).auth(auth).build().unwrap();
        drop(manager.try_connect().unwrap());
        // A token signed within the same second would be the same.
        time.advance(Duration::from_secs(1));
        emulator.fault(Fault::RefuseNext(1));
        drop(manager.try_connect().unwrap());
        assert_eq!(manager.stats().logins_retried, 1, "{language:?}");

        time.advance(Duration::from_secs(1));
        emulator.fault(Fault::RefuseNext(2));
        let error = error_of(&manager);
        assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
        assert_says(&error, &["rds_iam", "PAM", "not recognised"]);
        emulator.heal();
    }
}

/// FAULTS.md row 27.
#[test]
fn a_broken_connection_is_not_a_refused_login_in_any_language() {
    let emulator = emulator();
    let manager = manager(&emulator);
    for language in LANGUAGES {
        emulator.set_language(language).unwrap();
        for stage in [Stage::Accept, Stage::Tls, Stage::Login] {
            emulator.fault(Fault::Reset(stage));
            let error = error_of(&manager);
            assert_eq!(error.kind(), ErrorKind::Network, "{stage:?}: {error}");
            emulator.heal();
        }
    }
    // The token was kept, too.
    let stats = manager.stats();
    assert_eq!((stats.logins_refused, stats.tokens_signed), (0, 1));
}

/// FAULTS.md row 27: a full server is recognised in English only. Any other text counts as a refusal.
#[test]
fn an_unrecognised_shortage_says_that_it_may_be_one() {
    let emulator = emulator();
    emulator.set_authentication_timeout(Duration::from_millis(200));
    emulator.fault(Fault::Delay(Stage::Login, Duration::from_secs(20)));
    let error = error_of(&manager(&emulator));
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    emulator.set_language(Language::Russian).unwrap();
    let error = error_of(&manager(&emulator));
    assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
    assert_says(&error, &["not recognised", "full or starting"]);
}

/// FAULTS.md row 27: the messages of RDS Proxy.
#[test]
fn a_proxys_answers_are_told_apart() {
    let proxy = proxy();
    for fault in [
        Fault::Throttle(NonZeroU32::MIN),
        Fault::LimitConnections(NonZeroU32::MIN),
    ] {
        let manager = manager(&proxy);
        drop(manager.try_connect().unwrap());
        proxy.fault(fault);
        // One of them has to come within a second of another; otherwise the limit of one a second would not be
        // reached.
        let begun = Instant::now();
        let kind = loop {
            assert!(begun.elapsed() < PATIENCE, "no login was throttled");
            let kinds = thread::scope(|scope| {
                let threads = [(); 4].map(|()| scope.spawn(|| manager.try_connect().err()));
                threads.map(|thread| thread.join().unwrap().map(|error| error.kind()))
            });
            if let Some(kind) = kinds.into_iter().flatten().next() {
                break kind;
            }
        };
        assert_eq!(kind, ErrorKind::Throttled, "{fault:?}");
        proxy.heal();
        let stats = manager.stats();
        assert_eq!(stats.logins_refused, 0, "no token is worth another try");
    }

    let auth = auth_builder(&proxy).build().unwrap();
    let with = |url: &str| {
        let builder = PgConnectionManager::builder(url).auth(auth.clone());
        builder.build().unwrap()
    };
    let error = error_of(&with(&proxy.url("nobody")));
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    assert_says(&error, &["\"nobody\"", "secret", "proxy"]);

    let in_clear = proxy.url("app").replace("verify-full", "disable") + "&iam=off";
    let error = error_of(&with(&in_clear));
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_says(&error, &["sslmode=verify-full", "only with SSL"]);
}

#[test]
fn common_mistakes_get_advice() {
    let emulator = emulator();
    emulator.create_password_user("bob", "password").unwrap();
    let auth = auth_builder(&emulator).build().unwrap();
    let with = |url: &str| PgConnectionManager::builder(url).auth(auth.clone());
    let refusal = |builder: diesel_rds_iam::ManagerBuilder<_>| {
        let error = error_of(&builder.build().unwrap());
        assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
        error
    };
    let url = emulator.url("app");

    // No rds_iam.
    let error = refusal(with(&emulator.url("bob")));
    assert_says(&error, &["\"bob\"", "grant rds_iam"]);

    // Another region; another host than the database's own.
    let contradiction = with(&url).region("us-east-1").build().err().unwrap();
    assert_says(&contradiction, &["us-east-1", "iam_region"]);
    // A host whose name has no region, which the certificate contains too.
    let local = url.replacen(emulator.host(), "localhost", 1);
    let region = refusal(with(&local).region("us-east-1"));
    assert_says(&region, &["us-east-1", "iam_region"]);
    let alias = refusal(
        with(&url)
            .sign_for("alias.example.com", 5432)
            .sslmode(SslMode::VerifyCa)
            .region("eu-west-1"),
    );
    assert_says(&alias, &["alias.example.com:5432", "sign_for"]);

    // No policy.
    emulator.allow("*", "nobody");
    let error = refusal(with(&url));
    assert_says(&error, &["rds-db:connect", "credentials from provider"]);
    emulator.allow("*", "app");

    // A clock that is an hour slow.
    emulator.set_server_clock_skew(3600);
    assert_says(&refusal(with(&url)), &["this machine's clock"]);
    emulator.set_server_clock_skew(0);

    // No such database.
    let elsewhere = with(&emulator.url_of("app", "nowhere")).build().unwrap();
    let error = error_of(&elsewhere);
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert_says(&error, &["\"nowhere\"", "no database of that name"]);
}
