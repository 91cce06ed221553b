//! The emulator in front of an existing PostgreSQL, which here is that of another emulator.

use std::time::Duration;

use rds_iam_emulator::{Emulator, ErrorKind, LoginResult};

use crate::client::{Token, config, connect, login, query_one, tls};
use crate::raw::{Dialer, log_in};

/// A superuser of `behind` who logs in by password, and a URL for an emulator in front.
fn url_with_password(behind: &Emulator, user: &str, password: &str) -> String {
    behind
        .execute(&format!(
            "CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'right'"
        ))
        .unwrap();
    let url = behind.superuser_url();
    url.replace("user=rdsadmin", &format!("user={user} password={password}"))
}

#[test]
fn a_session_goes_on_as_the_user_whose_token_was_verified() {
    let behind = Emulator::builder().start().unwrap();
    // By SCRAM and by MD5.
    for (user, encryption) in [("boss", "scram-sha-256"), ("old_boss", "md5")] {
        // For the emulator's own session, which creates the role.
        let statement = format!("SET password_encryption = '{encryption}'");
        behind.execute(&statement).unwrap();
        let url = url_with_password(&behind, user, "right");
        let emulator = Emulator::builder().upstream(url).start().unwrap();
        emulator.ensure_iam_user("app").unwrap();
        emulator.ensure_iam_user("app").unwrap();
        emulator.ensure_database("shop", "app").unwrap();
        emulator.ensure_database("shop", "app").unwrap();

        let mut client = login(&emulator, "app");
        let row = client
            .query_one("SELECT session_user::text, current_user::text", &[])
            .unwrap();
        assert_eq!((row.get(0), row.get(1)), ("app", "app"));
        client.batch_execute("CREATE ROLE x").unwrap_err();
        let refused = connect(&emulator, "app", "no token").map(drop).unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "28000");
        let results = emulator
            .wait_for_logins(2, Duration::from_secs(30))
            .unwrap();
        assert_eq!(*results[0].result(), LoginResult::Accepted);
        let mut boss = connect(&emulator, user, "right").unwrap();
        boss.batch_execute("SELECT").unwrap();
    }
}

#[test]
fn an_error_of_the_upstream_reaches_the_client() {
    let behind = Emulator::builder().start().unwrap();
    let url = url_with_password(&behind, "boss", "right");
    let emulator = Emulator::builder().upstream(url).start().unwrap();
    emulator.ensure_iam_user("app").unwrap();
    behind.execute("ALTER ROLE app NOLOGIN").unwrap();
    let token = Token::new(&emulator, "app").sign();
    let error = connect(&emulator, "app", &token).map(drop).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "28000", "{error}");
    assert!(
        error.message().contains("not permitted to log in"),
        "{error}"
    );
}

/// Connection pools send both at check-in.
#[test]
fn a_reset_session_stays_the_users_own() {
    let behind = Emulator::builder().start().unwrap();
    let url = url_with_password(&behind, "boss", "right");
    let emulator = Emulator::builder().upstream(url).start().unwrap();
    emulator.ensure_iam_user("app").unwrap();
    let mut client = login(&emulator, "app");
    for statement in ["DISCARD ALL", "RESET SESSION AUTHORIZATION"] {
        client.batch_execute(statement).unwrap();
        let user = query_one(&mut client, "SELECT session_user::text");
        assert_eq!(user, "app", "{statement}");
        client.batch_execute("CREATE ROLE x").unwrap_err();
    }
    // A start-up option that only a superuser may set.
    let token = Token::new(&emulator, "app").sign();
    let error = config(&emulator, "app", &token)
        .options("-c session_replication_role=replica")
        .connect(tls(&emulator))
        .map(drop)
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error}");
}

#[test]
fn a_role_that_is_created_again_can_log_in() {
    let behind = Emulator::builder().start().unwrap();
    let url = url_with_password(&behind, "boss", "right");
    let emulator = Emulator::builder().upstream(url).start().unwrap();
    emulator.ensure_iam_user("app").unwrap();
    login(&emulator, "app");
    behind.execute("ALTER ROLE app PASSWORD 'another'").unwrap();
    login(&emulator, "app");
    emulator.execute("DROP DATABASE app").unwrap();
    emulator.execute("DROP ROLE app").unwrap();
    emulator.ensure_iam_user("app").unwrap();
    login(&emulator, "app");
}

/// PostgreSQL uses the last value of a repeated parameter, and cuts names to 63 bytes before it looks
/// the role up. A reading that differs would verify one user and open the session of another.
#[test]
fn a_start_up_packet_has_one_reading() {
    let behind = Emulator::builder().start().unwrap();
    let url = url_with_password(&behind, "boss", "right");
    let emulator = Emulator::builder().upstream(url).start().unwrap();
    let long = "x".repeat(63);
    for user in ["app", "other", &long] {
        emulator.ensure_iam_user(user).unwrap();
    }
    for server in [&emulator, &behind] {
        let overlong = [long.as_bytes(), b"\xff"].concat();
        for (users, opened) in [
            (["other".as_bytes(), "app".as_bytes()], "app"),
            (["app".as_bytes(), overlong.as_slice()], long.as_str()),
        ] {
            for signed_for in ["app", "other", &long] {
                let session_user = session_user(server, &users, signed_for);
                let expected = (signed_for == opened).then(|| opened.to_owned());
                assert_eq!(
                    session_user, expected,
                    "{users:?} by a token of {signed_for}"
                );
            }
        }
    }
}

/// Logs in by a start-up packet with these values of `user` in it, and a token for `signed_for`. Returns
/// the session's user, or nothing if the login was refused.
fn session_user(emulator: &Emulator, users: &[&[u8]], signed_for: &str) -> Option<String> {
    let mut body = vec![0, 3, 0, 0];
    for user in users {
        body.extend([b"user\0", *user, b"\0"].concat());
    }
    body.extend(b"database\0postgres\0\0");
    let token = Token::new(emulator, signed_for).sign();
    log_in(Dialer::new(emulator).encrypted(), &body, Some(&token))
        .map(|[session_user, _]| session_user)
}

#[test]
fn an_invalid_upstream_is_rejected_without_its_password_in_the_error() {
    for url in [
        "postgres://boss:hunter2@127.0.0.1:1/postgres",
        "postgres://boss:hunter2@127.0.0.1/postgres?sslmode=require",
        "postgres://boss:hunter2@/?port=x",
        "host=127.0.0.1 password=hunter2",
    ] {
        let builder = Emulator::builder().upstream(url);
        assert!(!format!("{builder:?}").contains("hunter2"));
        let error = builder.start().map(drop).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let behind = Emulator::builder().start().unwrap();
    let emulator = Emulator::builder()
        .upstream(behind.superuser_url())
        .start()
        .unwrap();
    assert_eq!(
        emulator.stop_postgres().unwrap_err().kind(),
        ErrorKind::Setting
    );
    assert_eq!(emulator.fail_over().unwrap_err().kind(), ErrorKind::Setting);
}
