//! Successful logins, and their records.

use std::time::{Duration, SystemTime};

use postgres::config::SslMode;
use rds_iam_emulator::{Credentials, Emulator, LoginResult};

use crate::client::{Token, config, connect, emulator, login, query_one, refusal, tls};

#[test]
fn a_token_opens_a_session_as_the_user_that_it_names() {
    let emulator = emulator();
    let mut client = login(&emulator, "app");
    assert_eq!(query_one(&mut client, "SELECT current_user::text"), "app");
    assert_eq!(query_one(&mut client, "SELECT session_user::text"), "app");

    let logins = emulator.logins();
    assert_eq!(logins.len(), 1);
    assert_eq!(logins[0].user(), "app");
    assert_eq!(logins[0].result(), &LoginResult::Accepted);
    assert_eq!(logins[0].fingerprint().len(), 8);
    assert_eq!(logins[0].access_key(), Some(emulator.access_key()));
    assert!(logins[0].token_age().unwrap() < Duration::from_secs(60));
    assert_eq!(emulator.sessions(), 1);
    drop(client);
    emulator
        .wait_for_sessions(0, Duration::from_secs(10))
        .unwrap();
}

#[test]
fn any_user_name_reaches_postgresql_as_it_is() {
    let emulator = Emulator::builder().start().unwrap();
    for user in [
        "a b", "a+b", "a&b=c", "a#b", "a%b", "a%20b", "a@b.com", "ü", "Mixed", "o'brien", "a\\b",
        "a\"b", "a/b?c", "日本",
    ] {
        emulator.create_iam_user(user).unwrap();
        let mut client = login(&emulator, user);
        assert_eq!(query_one(&mut client, "SELECT session_user::text"), user);
    }
    assert!(
        emulator
            .logins()
            .iter()
            .all(|login| *login.result() == LoginResult::Accepted)
    );
}

#[test]
fn temporary_credentials_sign_tokens_with_their_session_token() {
    let emulator = Emulator::builder()
        .credentials(
            Credentials::new("ASIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG")
                .session_token("FwoGZXIvYXdzE+/example==")
                .expires_at(SystemTime::now() + Duration::from_secs(600)),
        )
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let token = Token {
        session_token: Some("FwoGZXIvYXdzE+/example==".to_owned()),
        ..Token::new(&emulator, "app")
    };
    connect(&emulator, "app", &token.sign()).unwrap();
}

#[test]
fn only_users_outside_rds_iam_log_in_by_password() {
    let emulator = Emulator::builder().start().unwrap();
    emulator
        .create_password_user("bob", "it's \\ a secret")
        .unwrap();
    let mut client = connect(&emulator, "bob", "it's \\ a secret").unwrap();
    assert_eq!(query_one(&mut client, "SELECT session_user::text"), "bob");

    let (sqlstate, message) = refusal(connect(&emulator, "bob", "wrong"));
    assert_eq!(sqlstate, "28P01");
    assert_eq!(message, "password authentication failed for user \"bob\"");

    let token = Token::new(&emulator, "bob").sign();
    assert_eq!(refusal(connect(&emulator, "bob", &token)).0, "28P01");

    emulator.execute("GRANT rds_iam TO bob").unwrap();
    let (sqlstate, message) = refusal(connect(&emulator, "bob", "it's \\ a secret"));
    assert_eq!(sqlstate, "28000");
    assert_eq!(message, "PAM authentication failed for user \"bob\"");
    login(&emulator, "bob");

    let results: Vec<LoginResult> = emulator
        .logins()
        .iter()
        .map(|login| *login.result())
        .collect();
    assert_eq!(results[..3], [LoginResult::Password; 3]);
}

#[test]
fn membership_counts_through_other_roles_and_for_superusers_only_if_granted() {
    let emulator = Emulator::builder().start().unwrap();
    emulator
        .execute(
            "CREATE ROLE team; GRANT rds_iam TO team; CREATE ROLE app LOGIN; GRANT team TO app; \
             CREATE ROLE master LOGIN SUPERUSER PASSWORD 'pw'",
        )
        .unwrap();
    login(&emulator, "app");
    connect(&emulator, "master", "pw").unwrap();
    emulator.execute("GRANT rds_iam TO master").unwrap();
    assert_eq!(refusal(connect(&emulator, "master", "pw")).0, "28000");
    login(&emulator, "master");
}

#[test]
fn a_user_that_does_not_exist_is_asked_for_a_password_as_on_rds() {
    let emulator = Emulator::builder().start().unwrap();
    let token = Token::new(&emulator, "nobody").sign();
    let (sqlstate, message) = refusal(connect(&emulator, "nobody", &token));
    assert_eq!(sqlstate, "28P01");
    assert_eq!(
        message,
        "password authentication failed for user \"nobody\""
    );
}

#[test]
fn connections_without_tls_are_rejected_unless_the_instance_allows_them() {
    let emulator = emulator();
    emulator.create_password_user("bob", "pw").unwrap();
    let clear = |emulator: &Emulator, user: &str, password: &str| {
        config(emulator, user, password)
            .ssl_mode(SslMode::Disable)
            .connect(tls(emulator))
    };
    let token = Token::new(&emulator, "app").sign();
    let (sqlstate, message) = refusal(clear(&emulator, "app", &token));
    assert_eq!(sqlstate, "28000");
    assert_eq!(
        message,
        "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"app\", \
         database \"postgres\", no encryption"
    );
    let (sqlstate, message) = refusal(clear(&emulator, "bob", "pw"));
    assert_eq!(sqlstate, "28000");
    assert!(
        message.starts_with("no pg_hba.conf entry for host"),
        "{message}"
    );
    drop(emulator);

    let emulator = Emulator::builder().force_ssl(false).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.create_password_user("bob", "pw").unwrap();
    clear(&emulator, "bob", "pw").unwrap();
    assert_eq!(refusal(clear(&emulator, "app", "")).0, "28000");
}

#[test]
fn the_emulators_own_superuser_is_not_for_clients() {
    let emulator = emulator();
    let (sqlstate, message) = refusal(connect(&emulator, "rdsadmin", "any"));
    assert_eq!(sqlstate, "28000");
    assert!(
        message.starts_with("pg_hba.conf rejects connection"),
        "{message}"
    );
}

#[test]
fn logins_can_be_waited_for_and_watched() {
    let emulator = emulator();
    let watcher = emulator.watch();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| emulator.wait_for_logins(2, Duration::from_secs(60)));
        login(&emulator, "app");
        let _ = connect(&emulator, "app", "no token");
        assert_eq!(waiter.join().unwrap().unwrap().len(), 2);
    });
    let seen: Vec<LoginResult> = watcher.try_iter().map(|login| *login.result()).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], LoginResult::Accepted);
    let error = emulator
        .wait_for_logins(3, Duration::from_millis(1))
        .unwrap_err();
    assert_eq!(error.kind(), rds_iam_emulator::ErrorKind::Timeout);
    drop(emulator);
    assert!(
        watcher.recv().is_err(),
        "the stream of logins ends with the emulator"
    );
}

#[test]
fn the_url_is_one_that_libpq_takes() {
    let emulator = Emulator::builder().start().unwrap();
    let url = emulator.url("a b@c");
    assert!(url.starts_with("postgres://a%20b%40c@emulator."), "{url}");
    let mut superuser =
        postgres::Client::connect(&emulator.superuser_url(), postgres::NoTls).unwrap();
    assert_eq!(
        query_one(&mut superuser, "SELECT session_user::text"),
        "rdsadmin"
    );
}
