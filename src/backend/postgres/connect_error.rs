//! Classifies a failed connect, by its SQLSTATE if the server sent one.

use std::error::Error as StdError;
use std::io;

use crate::backend::classify;
use crate::error::Error;

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
    let classification = match cause.downcast_ref::<io::Error>() {
        // Not an error of the system: `postgres` reports in this way that `target_session_attrs` rejects the
        // server.
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() => {
            classify::NOT_WANTED
        }
        Some(_) => classify::NETWORK,
        // The client lacks what the server requires: a password, channel binding.
        None => classify::CONFIGURATION,
    };
    classification.error(error)
}
