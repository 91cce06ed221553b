//! Failed statements of this crate's own.

use diesel::PgConnection;
use diesel::connection::SimpleConnection;

use crate::error::{Error, ErrorKind};

/// The error for a failed statement.
pub(super) fn failed(
    connection: &mut PgConnection,
    message: &'static str,
    cause: diesel::result::Error,
) -> Error {
    let kind = if is_lost(connection) {
        ErrorKind::Network
    } else {
        ErrorKind::Migration
    };
    Error::with_cause(kind, message, cause)
}

/// Whether the session has ended. If not, it is in no transaction afterwards, not even in one that a
/// migration has opened itself.
pub(super) fn is_lost(connection: &mut PgConnection) -> bool {
    connection.batch_execute("ROLLBACK").is_err()
}
