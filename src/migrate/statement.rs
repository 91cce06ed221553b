//! Errors of the statements that this module runs itself.

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

/// Returns whether the session has ended. If it has not, no transaction is open afterwards, including one that
/// a migration has opened.
pub(super) fn is_lost(connection: &mut PgConnection) -> bool {
    connection.batch_execute("ROLLBACK").is_err()
}
