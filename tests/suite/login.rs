//! One login, as recorded by a real PostgreSQL.

use diesel::PgConnection;
use diesel_rds_iam::{Backend, ErrorKind, IamAuth, PgConnectionManager, RdsConnectionManager};

use crate::support::database::{Ask, auth_builder, emulator, manager, shared_emulator};

#[test]
fn a_token_opens_a_session_as_its_user() {
    let mut connection = manager(shared_emulator()).try_connect().unwrap();
    assert_eq!(connection.ask("current_user"), "app");
}

/// FAULTS.md row 14.
#[test]
fn any_user_name_is_signed_and_sent_unchanged() {
    fn assert_is<C: Backend<Connection: Ask>>(user: &str, url: &str, auth: &IamAuth) {
        let manager = RdsConnectionManager::<C>::builder(url).auth(auth.clone());
        let mut connection = manager.build().unwrap().try_connect().unwrap();
        assert_eq!(connection.ask("current_user"), user);
    }
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    for user in [
        "a b",
        "a+b",
        "a&b=c",
        "a#b",
        "a%b",
        "a%20b",
        "a@b.com",
        "ü",
        "MixedCase",
        "o'brien",
        r"back\slash",
        "a/b?c",
        "*",
        "a:b",
        "\"quoted\"",
    ] {
        emulator.create_iam_user(user).unwrap();
        assert_is::<PgConnection>(user, &emulator.url(user), &auth);
        #[cfg(feature = "postgres")]
        assert_is::<diesel_rds_iam::postgres::Client>(user, &emulator.url(user), &auth);
    }
}

/// FAULTS.md row 21.
#[test]
fn a_user_without_rds_iam_gets_an_error_with_the_grant() {
    let emulator = emulator();
    emulator.create_password_user("bob", "password").unwrap();
    let auth = auth_builder(&emulator).build().unwrap();
    for user in ["bob", "nobody"] {
        let manager = PgConnectionManager::builder(&emulator.url(user)).auth(auth.clone());
        let error = manager.build().unwrap().try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
        assert!(error.to_string().contains("rds_iam"), "{error}");
        assert!(error.to_string().contains(user), "{error}");
    }
}
