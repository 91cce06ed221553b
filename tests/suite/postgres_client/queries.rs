//! The features of the crate `postgres` over a pooled connection. Rotation, time limits and the pool's own wrapper
//! must not interfere with them.

use std::io::{Read, Write};
use std::time::Instant;

use diesel_rds_iam::postgres::error::SqlState;
use diesel_rds_iam::postgres::fallible_iterator::FallibleIterator;
use diesel_rds_iam::postgres::types::Type;
use diesel_rds_iam::postgres::{Client, SimpleQueryMessage};
use diesel_rds_iam::{PostgresConnection, PostgresConnectionManager};
use r2d2::PooledConnection;

use super::manager;
use crate::support::database::{Ask, shared_emulator};
use crate::support::{PATIENCE, SECOND};

type Pooled = PooledConnection<PostgresConnectionManager>;

/// A pooled connection with an empty table of its own.
fn connection() -> Pooled {
    let builder = manager(shared_emulator()).pool_builder();
    let pool = builder.max_size(1).build().unwrap();
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    connection
        .batch_execute("CREATE TEMPORARY TABLE notes (id int PRIMARY KEY, text text)")
        .unwrap();
    connection
}

fn ids(connection: &mut PostgresConnection) -> String {
    connection.ask("SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM notes")
}

#[test]
fn a_pooled_connection_can_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let mut connection = connection();
    is_send(&connection);
    let user = std::thread::scope(|scope| {
        let other = scope.spawn(|| connection.ask("current_user"));
        other.join().unwrap()
    });
    assert_eq!(user, "app");
}

#[test]
fn statements_are_prepared_and_portals_read_in_parts() {
    let mut connection = connection();
    let insert = connection
        .prepare_typed(
            "INSERT INTO notes VALUES ($1, $2)",
            &[Type::INT4, Type::TEXT],
        )
        .unwrap();
    for (id, text) in [(1, Some("one")), (2, None), (3, Some("three"))] {
        assert_eq!(connection.execute(&insert, &[&id, &text]).unwrap(), 1);
    }
    let row = connection
        .query_one("SELECT text FROM notes WHERE id = $1", &[&2])
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), None);

    let mut transaction = connection.transaction().unwrap();
    let portal = transaction
        .bind("SELECT id FROM notes ORDER BY id", &[])
        .unwrap();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(transaction.query_portal(&portal, 2).unwrap().len());
    }
    assert_eq!(sizes, [2, 1, 0]);
    transaction.commit().unwrap();

    let messages = connection
        .simple_query("SELECT id FROM notes; DELETE FROM notes")
        .unwrap();
    let rows = messages
        .iter()
        .filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
    assert_eq!(rows.count(), 3);
}

#[test]
fn transactions_commit_roll_back_and_nest() {
    let mut connection = connection();
    let insert = "INSERT INTO notes VALUES ($1)";
    let mut outer = connection.transaction().unwrap();
    outer.execute(insert, &[&1]).unwrap();
    let mut inner = outer.transaction().unwrap();
    inner.execute(insert, &[&2]).unwrap();
    inner.rollback().unwrap();
    let mut savepoint = outer.savepoint("kept").unwrap();
    savepoint.execute(insert, &[&3]).unwrap();
    savepoint.commit().unwrap();
    outer.commit().unwrap();
    assert_eq!(ids(&mut connection), "1 3");

    // Rolled back by its drop.
    let mut dropped = connection.transaction().unwrap();
    dropped.execute(insert, &[&4]).unwrap();
    drop(dropped);
    let error = connection.execute(insert, &[&1]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    assert_eq!(ids(&mut connection), "1 3");
}

#[test]
fn rows_are_copied_in_and_out() {
    let mut connection = connection();
    let copied = {
        let mut writer = connection.copy_in("COPY notes FROM stdin").unwrap();
        writer.write_all(b"1\tone\n2\t\\N\n").unwrap();
        writer.finish().unwrap()
    };
    assert_eq!(copied, 2);
    // A writer that is dropped before its end copies nothing.
    let mut aborted = connection.copy_in("COPY notes FROM stdin").unwrap();
    aborted.write_all(b"3\tthree\n").unwrap();
    drop(aborted);
    assert_eq!(ids(&mut connection), "1 2");

    let mut text = String::new();
    connection
        .copy_out("COPY notes TO stdout")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "1\tone\n2\t\\N\n");

    // More than the buffers between client and server can hold.
    let mut length = 0;
    let mut reader = connection
        .copy_out("COPY (SELECT repeat('x', 1023) FROM generate_series(1, 4096)) TO stdout")
        .unwrap();
    let mut part = [0; 65_536];
    loop {
        match reader.read(&mut part).unwrap() {
            0 => break,
            read => length += read,
        }
    }
    drop(reader);
    assert_eq!(length, 4096 * 1024);
    assert_eq!(connection.ask("current_user"), "app");
}

#[test]
fn notifications_arrive() {
    let mut connection = connection();
    let notify = |client: &mut Client, text: &str| {
        client
            .execute("SELECT pg_notify('pool', $1)", &[&text])
            .unwrap();
    };
    connection.batch_execute("LISTEN pool").unwrap();
    notify(&mut connection, "own");
    let own = connection.notifications().iter().next().unwrap().unwrap();
    assert_eq!((own.channel(), own.payload()), ("pool", "own"));
    assert!(connection.notifications().is_empty());

    let mut other = manager(shared_emulator()).try_connect().unwrap();
    notify(&mut other, "other");
    let waited = connection.notifications().timeout_iter(PATIENCE).next();
    assert_eq!(waited.unwrap().unwrap().payload(), "other");
    let none = connection.notifications().timeout_iter(SECOND / 20).next();
    assert!(none.unwrap().is_none());
    notify(&mut other, "again");
    let waited = connection.notifications().blocking_iter().next();
    assert_eq!(waited.unwrap().unwrap().payload(), "again");
}

#[test]
fn a_connection_that_is_closed_says_so_and_is_replaced() {
    let builder = manager(shared_emulator()).pool_builder();
    let pool = builder.max_size(1).build().unwrap();
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    let pid = connection.ask("pg_backend_pid()");
    assert!(!connection.is_closed());
    connection
        .execute("SELECT pg_terminate_backend(pg_backend_pid())", &[])
        .unwrap_err();
    // The end of the connection follows the error.
    let begun = Instant::now();
    while !connection.is_closed() && begun.elapsed() < PATIENCE {
        let _ = connection.is_valid(SECOND);
    }
    assert!(connection.is_closed());
    drop(connection);
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    assert_ne!(connection.ask("pg_backend_pid()"), pid);

    let client = manager(shared_emulator()).try_connect().unwrap();
    client.into_inner().close().unwrap();
}
