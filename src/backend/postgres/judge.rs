//! What a failed connect means, by its SQLSTATE where the server gave one.

use std::error::Error as StdError;
use std::io;

use postgres::error::DbError;

use crate::backend::verdict::{failed_login, is_throttled};
use crate::error::{Error, ErrorKind};

/// The error for a failed connect.
pub(super) fn judge(error: postgres::Error) -> Error {
    if let Some(said) = error.as_db_error() {
        return failed_login(kind_of_refusal(said), said.clone());
    }
    let Some(cause) = error.source() else {
        // The server hung up, or does not speak PostgreSQL's protocol.
        return failed_login(ErrorKind::Network, error);
    };
    if let Some(ours) = cause.downcast_ref::<Error>() {
        return ours.clone();
    }
    let kind = match cause.downcast_ref::<io::Error>() {
        // Not the system's word: it is how `postgres` says that the server is no writer, or no reader,
        // and `target_session_attrs` wants one.
        Some(io) if io.kind() == io::ErrorKind::PermissionDenied && io.raw_os_error().is_none() => {
            ErrorKind::ServerUnavailable
        }
        Some(_) => ErrorKind::Network,
        // It cannot do what the server asks for, or has not got it: a password, channel binding.
        None => ErrorKind::Configuration,
    };
    failed_login(kind, error)
}

/// As libpq's texts are judged in `backend/diesel`: what is none of the others is a refusal.
fn kind_of_refusal(said: &DbError) -> ErrorKind {
    let state = said.code().code();
    if is_throttled(said.message()) {
        return ErrorKind::Throttled;
    }
    match state.get(..2) {
        // Connection exceptions; too few resources; stopping, starting, too slow.
        Some("08") => ErrorKind::Network,
        Some("53" | "57") => ErrorKind::ServerUnavailable,
        // Nothing that RDS Proxy can do; a parameter's value; no such database; no such parameter.
        Some("0A" | "22" | "3D") => ErrorKind::Configuration,
        _ if state == "42704" => ErrorKind::Configuration,
        _ => ErrorKind::LoginRefused,
    }
}
