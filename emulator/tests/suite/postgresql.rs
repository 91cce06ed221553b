//! PostgreSQL behind the emulator: stop, start and failover.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use postgres::error::SqlState;
use rds_iam_emulator::Node;

use crate::client::{emulator, login, query_one};

#[test]
fn a_stopped_instance_refuses_connections_and_comes_back_with_its_data() {
    let emulator = emulator();
    emulator
        .execute("CREATE TABLE kept AS SELECT 'data' AS what")
        .unwrap();
    emulator.execute("GRANT SELECT ON kept TO app").unwrap();
    let mut client = login(&emulator, "app");
    emulator.stop_postgres().unwrap();
    assert!(client.simple_query("SELECT 1").is_err());
    let error = TcpStream::connect(emulator.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    emulator
        .wait_for_sessions(0, Duration::from_secs(10))
        .unwrap();
    emulator.stop_postgres().unwrap();

    emulator.start_postgres().unwrap();
    emulator.start_postgres().unwrap();
    let mut client = login(&emulator, "app");
    assert_eq!(query_one(&mut client, "SELECT what FROM kept"), "data");
}

#[test]
fn after_a_failover_the_old_writer_is_read_only() {
    let emulator = emulator();
    assert!(emulator.route_to(Node::Reader).is_err());
    emulator
        .execute("CREATE TABLE shared (what text); GRANT SELECT, INSERT ON shared TO app")
        .unwrap();
    let mut client = login(&emulator, "app");
    client
        .execute("INSERT INTO shared VALUES ('before')", &[])
        .unwrap();

    // Twice, so that each of the two servers has been writer and reader.
    for round in ["one", "two"] {
        emulator.fail_over().unwrap();
        assert!(client.simple_query("SELECT 1").is_err());
        client = login(&emulator, "app");
        client
            .execute("INSERT INTO shared VALUES ($1)", &[&round])
            .unwrap();
        assert_eq!(
            query_one(&mut client, "SELECT what FROM shared LIMIT 1"),
            "before"
        );

        // A client whose DNS is out of date.
        emulator.route_to(Node::Reader).unwrap();
        let mut stale = login(&emulator, "app");
        emulator.route_to(Node::Writer).unwrap();
        assert_eq!(
            query_one(&mut stale, "SELECT pg_is_in_recovery()::text"),
            "true"
        );
        assert_eq!(query_one(&mut stale, "SHOW transaction_read_only"), "on");
        let error = stale
            .execute("INSERT INTO shared VALUES ('lost')", &[])
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
    }
    // The superuser's string follows the writer.
    let mut superuser =
        postgres::Client::connect(&emulator.superuser_url(), postgres::NoTls).unwrap();
    assert_eq!(
        query_one(&mut superuser, "SELECT count(*)::text FROM shared"),
        "3"
    );
}
