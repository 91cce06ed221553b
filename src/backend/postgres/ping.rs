//! Tests an open connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::SimpleQueryMessage;

use super::blocking;
use super::connect_error;
use super::connection::PostgresConnection;
use crate::backend::classify;
use crate::error::{Error, ErrorKind};

/// The time limit of the test.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Fails if the server does not respond.
pub(super) fn ping(connection: &mut PostgresConnection) -> Result<(), Error> {
    let tested = checked(blocking::run(|| connection.is_valid(PING_LIMIT)));
    connection.is_silent = tested.is_err();
    tested
}

/// Fails as well if the server does not accept writes.
pub(super) fn ping_writer(connection: &mut PostgresConnection) -> Result<(), Error> {
    // A second round trip, since a query has no time limit. A writer that is unreachable may never respond.
    ping(connection)?;
    let asked = blocking::run(|| connection.simple_query("SHOW transaction_read_only"));
    let is_off = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => false,
    };
    match asked {
        Ok(Ok(messages)) if !messages.iter().any(is_off) => Err(classify::read_only()),
        asked => checked(asked.map(|answer| answer.map(drop))),
    }
}

/// Runs a query with one column of text, and returns its values.
pub(super) fn lines(
    connection: &mut PostgresConnection,
    query: &str,
) -> Result<Vec<String>, Error> {
    let messages = blocking::run(|| connection.simple_query(query))?;
    let messages = messages.map_err(connect_error::classify)?;
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(messages.iter().filter_map(line).collect())
}

/// Maps the result of a test, or the panic in asynchronous code.
fn checked(tried: Result<Result<(), postgres::Error>, Error>) -> Result<(), Error> {
    static SAID: AtomicBool = AtomicBool::new(false);
    match tried {
        Ok(outcome) => outcome.map_err(|error| {
            let message = "the connection does not answer; it is replaced";
            Error::with_cause(ErrorKind::Network, message, error)
        }),
        Err(error) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "a connection was taken from a pool in asynchronous code");
            }
            // A failure would make the pool open one connection after the other.
            Ok(())
        }
    }
}
