//! The databases of users.

use postgres::Client;
use postgres::error::SqlState;
use rds_iam_emulator::{Emulator, Engine};

use crate::client::{Token, emulator, query_one, tls};

/// Connects to the database that the user's URL names.
fn own_database(emulator: &Emulator, user: &str, password: &str) -> Client {
    let url = emulator.url(user);
    let (url, _) = url.split_once("&sslmode=").unwrap();
    let mut config: postgres::Config = url.parse().unwrap();
    config
        .password(password)
        .ssl_mode(postgres::config::SslMode::Require);
    config.connect(tls(emulator)).unwrap()
}

fn creates_tables(client: &mut Client, user: &str) {
    assert_eq!(query_one(client, "SELECT current_database()::text"), user);
    client
        .batch_execute("CREATE TABLE kept AS SELECT 'data' AS what; CREATE SCHEMA more")
        .unwrap();
}

#[test]
fn each_user_owns_the_database_of_its_url() {
    let emulator = emulator();
    emulator.create_iam_user("Other user").unwrap();
    emulator.ensure_iam_user("third").unwrap();
    emulator.ensure_iam_user("third").unwrap();
    emulator.create_password_user("bob", "secret").unwrap();
    for user in ["app", "Other user", "third"] {
        let token = Token::new(&emulator, user).sign();
        creates_tables(&mut own_database(&emulator, user, &token), user);
    }
    creates_tables(&mut own_database(&emulator, "bob", "secret"), "bob");

    // An existing database keeps its owner.
    emulator.create_database("late", "app").unwrap();
    emulator.create_iam_user("late").unwrap();
    let token = Token::new(&emulator, "late").sign();
    let mut late = own_database(&emulator, "late", &token);
    let error = late.batch_execute("CREATE SCHEMA more").unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[test]
fn a_users_database_is_as_new_and_survives_a_failover() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    creates_tables(&mut own_database(&emulator, "app", &token), "app");
    emulator.fail_over().unwrap();
    let mut client = own_database(&emulator, "app", &token);
    assert_eq!(query_one(&mut client, "SELECT what FROM kept"), "data");
    // Every database but template0, whose files are shared, is the emulator's own.
    emulator
        .execute("CREATE DATABASE copied TEMPLATE template0 OWNER app")
        .unwrap();
    let query = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    assert_eq!(
        query_one(&mut client, query),
        "app copied postgres template0 template1"
    );
}

#[test]
fn dsql_has_one_database() {
    let emulator = Emulator::builder().engine(Engine::Dsql).start().unwrap();
    emulator.create_iam_user("reader").unwrap();
    assert!(emulator.url("reader").contains("/postgres?"));
    let token = Token::of_dsql(&emulator, "DbConnect");
    let mut client = own_database(&emulator, "reader", &token.sign());
    let query = "SELECT count(*)::text FROM pg_database WHERE datname = 'reader'";
    assert_eq!(query_one(&mut client, query), "0");
}
