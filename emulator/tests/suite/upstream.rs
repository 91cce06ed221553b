//! In front of somebody else's PostgreSQL, which here is that of another emulator.

use std::time::Duration;

use rds_iam_emulator::{Emulator, ErrorKind, Verdict};

use crate::client::{connect, login};

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
    // By SCRAM, and by the older way.
    for (user, encryption) in [("boss", "scram-sha-256"), ("old_boss", "md5")] {
        // For the emulator's own session, which makes the role.
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
        let verdicts = emulator
            .wait_for_logins(2, Duration::from_secs(30))
            .unwrap();
        assert_eq!(*verdicts[0].verdict(), Verdict::Accepted);
        let mut boss = connect(&emulator, user, "right").unwrap();
        boss.batch_execute("SELECT").unwrap();
    }
}

#[test]
fn what_the_upstream_refuses_the_client_is_told() {
    let behind = Emulator::builder().start().unwrap();
    let url = url_with_password(&behind, "boss", "right");
    let emulator = Emulator::builder().upstream(url).start().unwrap();
    emulator.ensure_iam_user("app").unwrap();
    behind.execute("ALTER ROLE boss NOSUPERUSER").unwrap();
    let error = connect(
        &emulator,
        "app",
        &crate::client::Token::new(&emulator, "app").sign(),
    );
    let error = error.map(drop).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error}");
}

#[test]
fn what_cannot_be_an_upstream_is_refused_and_its_password_not_repeated() {
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
