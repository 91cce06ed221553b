//! What a failed connect means, from the text that libpq gives: there is no SQLSTATE for it.
//!
//! libpq's own words are English, since a Rust program does not call `setlocale`; the server's are
//! in the server's language, and RDS Proxy's are its own. So libpq's words are recognized, and what
//! is not among them was said by the server. Of the server's words, those that can only be a
//! shortage are recognized, in English; anything else counts as a refusal, since the price of that
//! mistake is one signature and one more login.

use crate::error::{Error, ErrorKind};

/// What libpq says when the network failed. [fe-connect.c, fe-misc.c, fe-secure.c of libpq 11 to 17]
const NETWORK: &[&str] = &[
    "Connection refused",
    "Connection timed out",
    "No route to host",
    "Network is unreachable",
    "could not connect to server",
    "could not create socket",
    "could not receive",
    "could not send",
    "could not translate host name",
    "could not parse network address",
    "server closed the connection unexpectedly",
    "timeout expired",
];

/// What libpq says when TLS was not acceptable. [fe-secure-openssl.c, fe-secure-common.c]
const TLS: &[&str] = &[
    "SSL error",
    "SSL SYSCALL error",
    "root certificate file",
    "server certificate for",
    "server does not support SSL",
    "certificate verify failed",
    "could not load",
    "could not read root certificate",
];

/// What libpq says of settings that it cannot use. [fe-connect.c]
const CONFIGURATION: &[&str] = &[
    "invalid connection option",
    "invalid sslmode value",
    "invalid integer value",
    "invalid port number",
    "invalid value for connection option",
];

/// What the server or a proxy says when it asks for fewer logins.
const THROTTLED: &[&str] = &[
    "too many competing requests",
    "Rate of connection to proxy exceeded",
];

/// What the server says when no login would do at the moment. [postmaster.c, proc.c, postinit.c]
const UNAVAILABLE: &[&str] = &[
    "the database system is",
    "too many clients already",
    "remaining connection slots",
    "too many connections for",
    "canceling authentication due to timeout",
    "terminating connection",
];

/// The error for what libpq said of a failed connect.
pub(super) fn judge(text: &str) -> Error {
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    // What the server says comes behind its severity; before that stands what libpq has to add.
    let (kind, message) = if says(THROTTLED) {
        (
            ErrorKind::Throttled,
            "the server takes no more logins at this rate; open fewer connections at a time",
        )
    } else if says(UNAVAILABLE) {
        (
            ErrorKind::ServerUnavailable,
            "the server takes no logins at the moment",
        )
    } else if says(TLS) {
        (
            ErrorKind::Tls,
            "no TLS connection that could be trusted; check the host name and sslrootcert",
        )
    } else if says(NETWORK) {
        (
            ErrorKind::Network,
            "cannot reach the server; check host, port, security group and route",
        )
    } else if says(CONFIGURATION) {
        (
            ErrorKind::Configuration,
            "libpq does not accept the connection's settings",
        )
    } else {
        (ErrorKind::LoginRefused, "the server refused the login")
    };
    Error::with_cause(kind, message, one_line(text))
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
