//! Classifies failed connects of the crate `postgres`, by the SQLSTATE if the server sent one.

use std::error::Error as StdError;
use std::io;

use crate::backend::classify::{self, Classification};
use crate::error::Error;

/// The text of errors of authentication. Their kind is private.
const AUTHENTICATION: &str = "authentication error";

/// Returns the error for a failed connect.
pub(super) fn classify(error: postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        return classify::from_sqlstate(said.code().code(), said.message()).error(said.clone());
    }
    let Some(cause) = error.source() else {
        // The server closed the connection, or does not speak PostgreSQL's protocol.
        return classify::NETWORK.error(error);
    };
    if let Some(ours) = cause.downcast_ref::<Error>() {
        return ours.clone();
    }
    if error.to_string() == AUTHENTICATION {
        return of_authentication(&cause.to_string()).error(error);
    }
    let classification = match cause.downcast_ref::<io::Error>() {
        // Not an error of the system: `postgres` reports in this way that `target_session_attrs` rejects
        // the server.
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() => {
            classify::NOT_WANTED
        }
        Some(_) => classify::NETWORK,
        // The server requests what the client cannot do or does not have: a password, channel binding.
        None => classify::CONFIGURATION,
    };
    classification.error(error)
}

/// Classifies what the client did not accept of the server's authentication. The rest of these texts is about SCRAM.
fn of_authentication(text: &str) -> Classification {
    if text.starts_with("unsupported") {
        classify::OTHER_METHOD
    } else if text.contains("channel binding") {
        classify::CONFIGURATION
    } else {
        classify::NOT_PROVEN
    }
}
