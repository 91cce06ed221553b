//! What a failed connect means, from the text that libpq gives: there is no SQLSTATE for it.
//!
//! libpq's own words are English, since a Rust program does not call `setlocale`; the server's are
//! in the server's language, and RDS Proxy's are its own. So libpq's words are recognized, and what
//! is not among them was said by the server. Of the server's words, those that can only be a
//! shortage are recognized, in English; anything else counts as a refusal, since the price of that
//! mistake is one signature and one more login.

use crate::backend::verdict;
use crate::endpoint;
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

/// What libpq says of settings that it cannot use, where that quotes no more than the value of a
/// keyword that it knows; and what the server says of those that are passed on to it.
/// [fe-connect.c, guc.c, postinit.c]
const CONFIGURATION: &[&str] = &[
    "invalid sslmode value",
    "invalid integer value",
    "invalid port number",
    "invalid value for connection option",
    "invalid value for parameter",
    "requires a Boolean value",
    "requires a numeric value",
    "value: \"",
    "FATAL:  database \"",
];

/// What libpq says of PGSERVICE, the one variable that cannot be overruled. [fe-connect.c]
const SERVICE: &[&str] = &["definition of service", "service file"];

/// What libpq says of a keyword that it does not know, before it quotes that. [fe-connect.c]
const UNKNOWN_KEYWORD: &str = "invalid connection option \"";

/// What the server says when no login would do at the moment, and libpq when the server is not of the
/// kind that `target_session_attrs` names. [postmaster.c, proc.c, postinit.c, fe-connect.c]
const UNAVAILABLE: &[&str] = &[
    "the database system is",
    "too many clients already",
    "remaining connection slots",
    "too many connections for",
    "canceling authentication due to timeout",
    "terminating connection",
    "session is read-only",
    "session is not read-only",
    "hot standby mode",
];

/// The error for what libpq said of a failed connect.
pub(super) fn judge(text: &str) -> Error {
    if let Some((_, keyword)) = text.split_once(UNKNOWN_KEYWORD) {
        return unknown_keyword(keyword.split('"').next().unwrap_or_default());
    }
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    // What the server says comes behind its severity; before that stands what libpq has to add.
    let kind = if verdict::is_throttled(text) {
        ErrorKind::Throttled
    } else if says(UNAVAILABLE) {
        ErrorKind::ServerUnavailable
    } else if says(SERVICE) {
        let message = "PGSERVICE names a service that libpq cannot read; unset it";
        return Error::with_cause(ErrorKind::Configuration, message, text.to_owned());
    } else if says(TLS) {
        ErrorKind::Tls
    } else if says(NETWORK) {
        ErrorKind::Network
    } else if says(CONFIGURATION) {
        let message = "a setting is not accepted; correct the connection string, or PGTZ, \
                       PGDATESTYLE and PGGEQO, which libpq sends to the server";
        return Error::with_cause(ErrorKind::Configuration, message, text.to_owned());
    } else {
        ErrorKind::LoginRefused
    };
    verdict::failed_login(kind, text.to_owned())
}

/// Whether `text` is about a keyword that this libpq does not know.
pub(super) fn is_unknown_keyword(text: &str) -> bool {
    text.contains(UNKNOWN_KEYWORD)
}

/// Only a name that is libpq's is repeated: anything else may be a piece of a password that was not
/// quoted.
fn unknown_keyword(keyword: &str) -> Error {
    if endpoint::is_keyword_of_libpq(keyword) {
        return Error::configuration(format!(
            "this libpq is too old to know {keyword}; leave it out of the connection string, or use \
             libpq 14 or later, such as the one of the feature bundled"
        ));
    }
    verdict::unknown_keyword()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_its_kind() {
        for (text, kind) in [
            (
                "connection to server at \"h\" (1.2.3.4), port 5432 failed: FATAL:  PAM \
                 authentication failed for user \"app\"\n",
                ErrorKind::LoginRefused,
            ),
            (
                "FATAL:  PAM-Authentifizierung für Benutzer »app« fehlgeschlagen",
                ErrorKind::LoginRefused,
            ),
            (
                "FATAL:  sorry, too many clients already",
                ErrorKind::ServerUnavailable,
            ),
            (
                "FATAL:  The IAM authentication failed because of too many competing requests.",
                ErrorKind::Throttled,
            ),
            (
                "could not translate host name \"h\" to address: Name or service not known",
                ErrorKind::Network,
            ),
            ("SSL error: certificate verify failed", ErrorKind::Tls),
            (
                "definition of service \"nonsense\" not found",
                ErrorKind::Configuration,
            ),
            (
                "FATAL:  invalid value for parameter \"TimeZone\": \"nonsense\"",
                ErrorKind::Configuration,
            ),
            (
                "FATAL:  database \"nonsense\" does not exist",
                ErrorKind::Configuration,
            ),
            (
                "connection to server at \"h\" (1.2.3.4), port 5432 failed: session is read-only",
                ErrorKind::ServerUnavailable,
            ),
            (
                "invalid channel_binding value: \"nonsense\"",
                ErrorKind::Configuration,
            ),
        ] {
            let error = judge(text);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().ends_with(text.trim_end()), "{error}");
        }
    }

    #[test]
    fn a_keyword_is_repeated_only_if_it_is_no_piece_of_a_password() {
        let error = judge("invalid connection option \"hunter2\"\n");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = judge("invalid connection option \"sslsni\"\n");
        assert!(error.to_string().contains("libpq 14"), "{error}");
    }
}
