//! What shows whether an open connection is of use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::{Client, SimpleQueryMessage};

use super::blocking;
use crate::backend::classify;
use crate::error::{Error, ErrorKind};

/// How long an open connection may take to show that it lives.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Fails if the server does not answer.
pub(super) fn ping(client: &mut Client) -> Result<(), Error> {
    checked(blocking::run(|| client.is_valid(PING_LIMIT)))
}

/// The same, which fails too if the server takes no writes.
pub(super) fn ping_writer(client: &mut Client) -> Result<(), Error> {
    // A round trip more, since no query has a limit: of a writer that is gone nothing may ever come.
    ping(client)?;
    let asked = blocking::run(|| client.simple_query("SHOW transaction_read_only"));
    let is_off = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => false,
    };
    match asked {
        Ok(Ok(messages)) if !messages.iter().any(is_off) => Err(classify::read_only()),
        asked => checked(asked.map(|answer| answer.map(drop))),
    }
}

/// What is said of a connection that was tried, or could not be.
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
            // To fail would have the pool open another, over and over.
            Ok(())
        }
    }
}
