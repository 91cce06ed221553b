//! What a failed connect means, by its SQLSTATE where the server gave one.

use std::error::Error as StdError;
use std::io;

use crate::backend::classify;
use crate::error::Error;

/// The error for a failed connect.
pub(super) fn classify(error: postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        return classify::from_sqlstate(said.code().code(), said.message()).error(said.clone());
    }
    let Some(cause) = error.source() else {
        // The server hung up, or does not speak PostgreSQL's protocol.
        return classify::NETWORK.error(error);
    };
    if let Some(ours) = cause.downcast_ref::<Error>() {
        return ours.clone();
    }
    let classification = match cause.downcast_ref::<io::Error>() {
        // Not the system's word: it is how `postgres` says that the server is no writer, or no reader,
        // and `target_session_attrs` wants one.
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() => {
            classify::NOT_WANTED
        }
        Some(_) => classify::NETWORK,
        // It cannot do what the server asks for, or has not got it: a password, channel binding.
        None => classify::CONFIGURATION,
    };
    classification.error(error)
}
