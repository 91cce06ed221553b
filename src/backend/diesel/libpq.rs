//! Classifies failed connects by libpq's text, since libpq gives no SQLSTATE for them.
//!
//! libpq's own messages are English, since a Rust program does not call `setlocale`. The server's messages
//! are in the server's language. They can be told apart in any language: libpq puts the severity, a colon
//! and two spaces before a server's message, and none of its own messages has that form.

use crate::backend::classify::{self as server, Classification, Table};
use crate::endpoint;
use crate::error::{Error, ErrorKind};

/// The start of libpq's message for an unknown keyword, which it quotes. [fe-connect.c]
const UNKNOWN_KEYWORD: &str = "invalid connection option \"";

const UNREADABLE_SERVICE: Classification = Classification::new(
    ErrorKind::Configuration,
    "PGSERVICE names a service that libpq cannot read; unset it",
);

const PASSWORD_WANTED: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server asks for a password and there is none; set one, or leave out iam=off",
);

const TOO_OLD: Classification = Classification::new(
    ErrorKind::Configuration,
    "libpq has no memory, or is older than 14 and was asked for a password instead of a token; grant \
     rds_iam to the user, and use libpq 14 or later",
);

/// A message of libpq's that is in no version known here. It is not the server's, so it is no refused login.
const UNKNOWN: Classification = Classification::new(
    ErrorKind::Network,
    "libpq reports a failure that is not recognised, and no refused login; see its message",
);

/// libpq's own messages, without quoted names. [fe-auth.c, fe-auth-scram.c, fe-connect.c, fe-gssapi-common.c, fe-misc.c,
/// fe-protocol3.c, fe-secure.c, fe-secure-common.c, fe-secure-openssl.c of libpq 14 to 18]
const MESSAGES: Table = &[
    (
        UNREADABLE_SERVICE,
        &["definition of service", "service file"],
    ),
    // A server in between, or one that is not PostgreSQL's. These go before rows that match a part of them.
    (server::TLS, &["received unencrypted data after"]),
    (server::NETWORK, &["GSSAPI negotiation"]),
    (server::CONFIGURATION, &["channel binding"]),
    // A server that cannot start a process for the connection. libpq quoted its text until CVE-2024-10977.
    (
        server::UNAVAILABLE,
        &[
            "server sent an error response during",
            "could not fork new process",
        ],
    ),
    (
        server::OTHER_METHOD,
        &[
            "authentication method",
            "authentication not supported",
            "SASL authentication mechanisms are supported",
            "GSSAPI",
            "GSS authentication",
            "SSPI",
            "OAuth",
            "OAUTHBEARER",
        ],
    ),
    (
        server::NOT_PROVEN,
        &[
            "server signature",
            "SCRAM",
            "SASL authentication was not completed",
        ],
    ),
    (
        server::TLS,
        &[
            "SSL certificate's",
            "host name from server certificate",
            "certificate contains",
            "certificate could not be obtained",
            "peer certificate",
            "server certificate signature algorithm",
        ],
    ),
    (
        server::NETWORK,
        &[
            "SSL SYSCALL error",
            "SSL connection has been closed unexpectedly",
            "unexpected eof while reading",
            "Connection refused",
            "Connection reset",
            "Connection timed out",
            // Follows the system's message for a failed connect.
            "Is the server running",
            "No route to host",
            "Network is unreachable",
            "could not connect to server",
            "could not create socket",
            "could not get socket error status",
            "could not receive",
            "could not send",
            "could not translate host name",
            "could not parse network address",
            "server closed the connection unexpectedly",
            "timeout expired",
            // The server does not speak PostgreSQL's protocol.
            "received invalid response to SSL negotiation",
            "expected authentication request from server",
            "lost synchronization with server",
            "protocol negotiation message",
            "invalid authentication request",
            "protocol error",
            "SSL_read failed",
            "SSL_write failed",
        ],
    ),
    (
        server::TLS,
        &[
            "SSL error",
            "root certificate file",
            "system root certificate paths",
            "server certificate for",
            "server does not support SSL",
            "certificate verify failed",
            "could not establish SSL connection",
            "could not load",
            "could not read root certificate",
            "could not create SSL context",
            "Server Name Indication",
            "ALPN protocol",
        ],
    ),
    // `target_session_attrs` rejects the server.
    (
        server::NOT_WANTED,
        &[
            "session is read-only",
            "session is not read-only",
            "server is in hot standby mode",
            "server is not in hot standby mode",
        ],
    ),
    // Settings that libpq cannot use. These messages quote at most the value of a known keyword.
    (
        server::CONFIGURATION,
        &[
            "invalid sslmode value",
            "invalid integer value",
            "invalid port number",
            "invalid value for connection option",
            "SSL protocol version",
            "weak sslmode",
            "not compiled in",
            // The system does not accept the value of a keepalive.
            "setsockopt(",
            "host name must be specified",
            "certificate file",
            "private key file",
            "private SSL key",
            "value: \"",
        ],
    ),
    (PASSWORD_WANTED, &["no password supplied"]),
    // libpq before 14, if the server requests a password and gets a long token. [fe-auth-scram.c]
    (TOO_OLD, &["out of memory"]),
    // Follows a message that says why.
    (server::NOT_PROVEN, &["error in SASL authentication"]),
];

/// Returns the error for a failed connect, from libpq's text.
pub(in crate::backend) fn classify(text: &str) -> Error {
    if let Some((_, keyword)) = text.split_once(UNKNOWN_KEYWORD) {
        return unknown_keyword(keyword.split('"').next().unwrap_or_default());
    }
    let mut attempts = attempts(text);
    let classified = attempts.iter().map(|attempt| classify_attempt(attempt));
    // Of two that got equally far, the later one decides. There is at least one.
    let furthest = classified
        .enumerate()
        .max_by_key(|(_, classification)| classification.kind().progress());
    let Some((at, classification)) = furthest else {
        return UNKNOWN.error(text.to_owned());
    };
    // An error ends with its cause.
    let last = attempts.remove(at);
    attempts.push(last);
    classification.error(attempts.join("\n"))
}

/// Splits `text` into the messages of the attempts: libpq tries every address of a name, and joins their
/// messages. [PQconnectPoll of fe-connect.c, libpq 14 to 18]
fn attempts(text: &str) -> Vec<&str> {
    const BEGINNINGS: &[&str] = &[
        "connection to server at \"",
        "connection to server on socket",
        "could not translate host name",
    ];
    let mut attempts = Vec::new();
    let mut begin = 0;
    for (newline, _) in text.match_indices('\n') {
        let (attempt, rest) = text.split_at(newline + 1);
        if BEGINNINGS
            .iter()
            .any(|beginning| rest.starts_with(beginning))
        {
            attempts.push(attempt.get(begin..).unwrap_or_default().trim_end());
            begin = newline + 1;
        }
    }
    attempts.push(text.get(begin..).unwrap_or_default().trim_end());
    attempts
}

fn classify_attempt(attempt: &str) -> Classification {
    let message = without_prefix(attempt);
    match server_message(message) {
        Some(message) => server::from_message(message),
        None if is_other_method(message) => server::REFUSED,
        None => server::look_up(MESSAGES, &server::without_names(message)).unwrap_or(UNKNOWN),
    }
}

/// The message of an attempt, without the host that libpq 14 and later put before it.
fn without_prefix(attempt: &str) -> &str {
    match attempt.split_once(" failed: ") {
        Some((host, message)) if host.starts_with("connection to server ") => message,
        _ => attempt,
    }
}

/// Returns the server's message, which follows a severity in any language; `None` if `message` is libpq's own. What
/// has the same form later is a DETAIL, a HINT, or a part of a name. [pqBuildErrorMessage3 of fe-protocol3.c]
fn server_message(message: &str) -> Option<&str> {
    let (severity, message) = message.split_once(":  ")?;
    let is_severity = !severity.is_empty() && !severity.contains(['"', '(', ':', '\t', '\n']);
    is_severity.then_some(message)
}

/// Whether the server asked for another kind of login than a token's, which is a cleartext password.
/// [check_expected_areq of fe-auth.c, libpq 16 to 18]
fn is_other_method(text: &str) -> bool {
    text.contains("authentication method requirement")
        && text.contains("server requested")
        && !text.contains("cleartext")
}

/// Whether `text` is libpq's message for an unknown keyword.
pub(super) fn is_unknown_keyword(text: &str) -> bool {
    text.contains(UNKNOWN_KEYWORD)
}

/// Quotes the keyword only if it is one of libpq's: any other may be a part of a password that was not
/// quoted.
fn unknown_keyword(keyword: &str) -> Error {
    if endpoint::is_keyword_of_libpq(keyword) {
        return Error::configuration(format!(
            "this libpq is too old to know {keyword}; leave it out of the connection string, or use \
             libpq 14 or later, such as the one of the feature bundled"
        ));
    }
    server::unknown_keyword()
}

#[cfg(test)]
mod tests;
