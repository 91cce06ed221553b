//! A transaction on Aurora DSQL, which is repeated after a conflict with another one.
//!
//! ```sh
//! DATABASE_URL=postgres://admin@abcdefghijklmnopqrstuvwxyz.dsql.us-east-1.on.aws/postgres \
//!     cargo run --example dsql_retry
//! ```
//!
//! DSQL takes no locks: of two transactions that change the same row, the second fails at its commit.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::BigInt;
use diesel_rds_iam::PgConnectionManager;

#[derive(QueryableByName)]
struct Counter {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let pool = PgConnectionManager::new(&url)?.into_pool()?;
    let mut connection = pool.get()?;
    for statement in [
        "CREATE TABLE IF NOT EXISTS counters (name text PRIMARY KEY, value bigint NOT NULL)",
        "INSERT INTO counters VALUES ('visits', 0) ON CONFLICT DO NOTHING",
    ] {
        repeated(&mut connection, |connection| {
            diesel::sql_query(statement).execute(connection)
        })?;
    }
    let attempts = Cell::new(0);
    let counter = repeated(&mut connection, |connection| {
        attempts.set(attempts.get() + 1);
        let update = "UPDATE counters SET value = value + 1 WHERE name = 'visits' RETURNING value";
        diesel::sql_query(update).get_result::<Counter>(connection)
    })?;
    println!("visit {} in {} attempts", counter.value, attempts.get());
    Ok(())
}

/// Runs `work` in a transaction, and repeats it after a conflict: ten attempts in all, with a random pause of up
/// to 50 ms, 100 ms, 200 ms and so on between them, and of at most a second.
fn repeated<T>(
    connection: &mut PgConnection,
    work: impl Fn(&mut PgConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    let mut longest_pause = Duration::from_millis(50);
    for _ in 1..10 {
        match connection.transaction(&work) {
            Err(error) if is_conflict(&error) => {
                thread::sleep(longest_pause.mul_f64(fastrand::f64()));
                longest_pause = (2 * longest_pause).min(Duration::from_secs(1));
            }
            done => return done,
        }
    }
    connection.transaction(work)
}

/// Whether another transaction changed the same rows (OC000) or the schema (OC001). DSQL names the code in its
/// message, with SQLSTATE 40001 or with the code itself, which diesel reports as `Unknown`.
fn is_conflict(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        Error::DatabaseError(DatabaseErrorKind::Unknown, information) => {
            let message = information.message();
            message.contains("(OC000)") || message.contains("(OC001)")
        }
        _ => false,
    }
}
