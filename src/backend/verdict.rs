//! What every backend says alike of a failed login, however it came to know what failed.

use std::error::Error as StdError;

use crate::error::{Error, ErrorKind};

/// What the server or a proxy says when it asks for fewer logins: in English, and with the SQLSTATE of
/// any other refusal.
const THROTTLED: &[&str] = &[
    "too many competing requests",
    "Rate of connection to proxy exceeded",
];

/// Whether `text` asks for fewer logins.
pub(super) fn is_throttled(text: &str) -> bool {
    THROTTLED.iter().any(|words| text.contains(words))
}

/// The error for a login that failed in this way.
pub(super) fn failed_login(
    kind: ErrorKind,
    cause: impl Into<Box<dyn StdError + Send + Sync>>,
) -> Error {
    let message = match kind {
        ErrorKind::Throttled => {
            "the server takes no more logins at this rate; open fewer connections at a time"
        }
        ErrorKind::ServerUnavailable => "the server takes no logins at the moment",
        ErrorKind::Tls => {
            "no TLS connection that could be trusted; check the host name and sslrootcert"
        }
        ErrorKind::Network => "cannot reach the server; check host, port, security group and route",
        ErrorKind::Configuration => "a setting is not accepted; correct the connection string",
        _ => "the server refused the login",
    };
    Error::with_cause(kind, message, cause)
}

/// For a keyword that must not be repeated: it may be a piece of a password that was not quoted.
pub(super) fn unknown_keyword() -> Error {
    Error::configuration(
        "the connection string has a keyword that libpq does not know; correct it, or put single \
         quotes around the value before it if that holds spaces",
    )
}
