//! Classifies failed logins, for every backend: by the server's SQLSTATE if the backend has it, or else by the
//! server's message.
//!
//! Messages are recognised in English only. An unrecognised message counts as a refused login. If that is wrong,
//! the cost is one signature, one more login, and the rate limit of refused logins.

use std::error::Error as StdError;

use crate::error::{Error, ErrorKind};

/// The kind of a failure, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Classification {
    kind: ErrorKind,
    message: &'static str,
}

impl Classification {
    pub(super) const fn new(kind: ErrorKind, message: &'static str) -> Classification {
        Classification { kind, message }
    }

    #[cfg(feature = "diesel")]
    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the error for a login that failed in this way.
    pub(super) fn error(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::with_cause(self.kind, self.message, cause)
    }
}

pub(super) const NETWORK: Classification = Classification::new(
    ErrorKind::Network,
    "cannot reach the server; check host, port, security group and route",
);

pub(super) const TLS: Classification = Classification::new(
    ErrorKind::Tls,
    "the TLS handshake failed or the server's certificate was rejected; check the host name and sslrootcert",
);

pub(super) const NOT_WANTED: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "the server is not of the kind that writer() or target_session_attrs requires; after a failover its \
     name soon leads to another, otherwise change target_session_attrs",
);

pub(super) const CONFIGURATION: Classification = Classification::new(
    ErrorKind::Configuration,
    "a setting is not accepted; correct the connection string",
);

const THROTTLED: Classification = Classification::new(
    ErrorKind::Throttled,
    "the server throttles logins; open fewer connections at a time",
);

const UNAVAILABLE: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "the server accepts no logins at present",
);

const NOT_ENCRYPTED: Classification = Classification::new(
    ErrorKind::Tls,
    "the server requires TLS; set sslmode=verify-full",
);

const NO_DATABASE: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server has no database of that name; correct it in the connection string",
);

const SETTING: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server rejected a setting; correct the connection string, including options, or PGTZ, \
     PGDATESTYLE and PGGEQO, which libpq sends to it",
);

pub(super) const REFUSED: Classification =
    Classification::new(ErrorKind::LoginRefused, "the server refused the login");

const IN_DOUBT: Classification = Classification::new(
    ErrorKind::LoginRefused,
    "the server rejected the connection with a message that is not recognised; it may be full or \
     starting, or have refused the login",
);

/// RDS Proxy, and RDS itself in front of PostgreSQL.
const THROTTLED_WORDS: &[&str] = &[
    "too many competing requests",
    "Rate of connection to proxy exceeded",
];

/// [postmaster.c, proc.c, postinit.c, auth.c; RDS Proxy]
const UNAVAILABLE_WORDS: &[&str] = &[
    "the database system is",
    "too many clients already",
    "remaining connection slots",
    "too many connections for",
    "not currently accepting connections",
    "canceling authentication due to timeout",
    "terminating connection",
    "could not fork new process",
    "out of memory",
    "waiting to acquire database connection",
];

/// [auth.c; `SSL off` before PostgreSQL 14; RDS Proxy]
const NOT_ENCRYPTED_WORDS: &[&str] = &["no encryption", "SSL off", "only with SSL connections"];

/// [guc.c, postinit.c; RDS Proxy]
const SETTING_WORDS: &[&str] = &[
    "invalid value for parameter",
    "unrecognized configuration parameter",
    "requires a Boolean value",
    "requires a numeric value",
    "RDS Proxy currently",
];

/// [auth.c, miscinit.c, postinit.c; RDS Proxy; Aurora DSQL]
const REFUSED_WORDS: &[&str] = &[
    "authentication failed",
    "rejects connection",
    "no pg_hba.conf entry",
    "does not exist",
    "not permitted to log in",
    "permission denied",
    "access denied",
    "no credentials for the role",
    "is wrong",
];

/// Classifies a server's message, without its severity.
pub(super) fn from_message(words: &str) -> Classification {
    let words = without_names(words);
    let says = |list: &[&str]| list.iter().any(|it| words.contains(it));
    if says(THROTTLED_WORDS) {
        THROTTLED
    } else if says(UNAVAILABLE_WORDS) {
        UNAVAILABLE
    } else if says(NOT_ENCRYPTED_WORDS) {
        NOT_ENCRYPTED
    } else if says(SETTING_WORDS) {
        SETTING
    } else if words.trim_start().starts_with("database ") && words.contains("does not exist") {
        NO_DATABASE
    } else if says(REFUSED_WORDS) {
        REFUSED
    } else {
        IN_DOUBT
    }
}

/// Classifies an SQLSTATE. RDS Proxy and `pg_hba.conf` use one state for several causes, which their messages
/// distinguish.
#[cfg(feature = "postgres")]
pub(super) fn from_sqlstate(state: &str, words: &str) -> Classification {
    let by_words = from_message(words);
    if by_words == THROTTLED || by_words == NOT_ENCRYPTED {
        return by_words;
    }
    match (state.get(..2), state) {
        // Connection exceptions; insufficient resources; stopping, starting, too slow.
        (Some("08"), _) => NETWORK,
        (Some("53" | "57"), _) => UNAVAILABLE,
        (Some("3D"), _) => NO_DATABASE,
        // Unsupported by RDS Proxy; invalid value of a parameter; unknown parameter.
        (Some("0A" | "22"), _) | (_, "42704") => SETTING,
        (Some("28"), _) => REFUSED,
        _ => by_words,
    }
}

/// The server is read-only, and the pool needs a writer.
pub(super) fn read_only() -> Error {
    Error::new(
        ErrorKind::ServerUnavailable,
        "the server takes no writes: it is a standby, or default_transaction_read_only is on",
    )
}

/// The keyword is not quoted, since it may be a part of a password that was not quoted.
pub(super) fn unknown_keyword() -> Error {
    Error::configuration(
        "the connection string has a keyword that libpq does not know; correct it, or put single \
         quotes around the value before it if that holds spaces",
    )
}

/// Removes quoted names of users and databases, which may contain any words.
fn without_names(words: &str) -> String {
    words.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_its_kind() {
        for (words, kind) in [
            // RDS and PostgreSQL.
            (
                "PAM authentication failed for user \"app\"",
                ErrorKind::LoginRefused,
            ),
            (
                "password authentication failed for user \"app\"",
                ErrorKind::LoginRefused,
            ),
            (
                "no pg_hba.conf entry for host \"10.0.0.1\", user \"app\", database \"db\", SSL on",
                ErrorKind::LoginRefused,
            ),
            (
                "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"app\", database \
                 \"db\", no encryption",
                ErrorKind::Tls,
            ),
            ("role \"app\" does not exist", ErrorKind::LoginRefused),
            (
                "permission denied for database \"db\"\nDETAIL:  User does not have CONNECT \
                 privilege.",
                ErrorKind::LoginRefused,
            ),
            ("database \"db\" does not exist", ErrorKind::Configuration),
            (
                "sorry, too many clients already",
                ErrorKind::ServerUnavailable,
            ),
            (
                "remaining connection slots are reserved for roles with the SUPERUSER attribute",
                ErrorKind::ServerUnavailable,
            ),
            (
                "too many connections for role \"app\"",
                ErrorKind::ServerUnavailable,
            ),
            (
                "the database system is not accepting connections\nDETAIL:  Hot standby mode is \
                 disabled.",
                ErrorKind::ServerUnavailable,
            ),
            (
                "canceling authentication due to timeout",
                ErrorKind::ServerUnavailable,
            ),
            (
                "could not fork new process for connection: Cannot allocate memory",
                ErrorKind::ServerUnavailable,
            ),
            // RDS Proxy.
            (
                "The IAM authentication failed for the role app. Check the IAM token for this \
                 role and try again.",
                ErrorKind::LoginRefused,
            ),
            (
                "The IAM authentication failed because of too many competing requests.",
                ErrorKind::Throttled,
            ),
            (
                "Rate of connection to proxy exceeded 100.",
                ErrorKind::Throttled,
            ),
            ("IAM is allowed only with SSL connections.", ErrorKind::Tls),
            (
                "This RDS proxy has no credentials for the role app. Check the credentials for \
                 this role and try again.",
                ErrorKind::LoginRefused,
            ),
            (
                "Feature not supported: RDS Proxy currently doesn't support command-line options.",
                ErrorKind::Configuration,
            ),
            (
                "Timed-out waiting to acquire database connection",
                ErrorKind::ServerUnavailable,
            ),
            // Aurora DSQL.
            (
                "unable to accept connection, access denied",
                ErrorKind::LoginRefused,
            ),
        ] {
            let classification = from_message(words);
            assert_eq!(classification.kind, kind, "{words}: {classification:?}");
            assert_ne!(classification, IN_DOUBT, "{words}");
        }
    }

    /// Messages of servers whose `lc_messages` is not English, and of one with a single SQLSTATE for all
    /// errors.
    #[cfg(feature = "postgres")]
    #[test]
    fn a_sqlstate_decides_in_any_language() {
        for (state, words, classification) in [
            (
                "28000",
                "пользователь \"app\" не прошёл проверку подлинности (PAM)",
                REFUSED,
            ),
            (
                "28P01",
                "пользователь \"app\" не прошёл проверку подлинности (по паролю)",
                REFUSED,
            ),
            (
                "28000",
                "la autenticación PAM falló para el usuario «app»",
                REFUSED,
            ),
            ("3D000", "база данных \"db\" не существует", NO_DATABASE),
            ("53300", "извините, уже слишком много клиентов", UNAVAILABLE),
            ("57P03", "система баз данных запускается", UNAVAILABLE),
            (
                "57P03",
                "el sistema de base de datos está apagándose",
                UNAVAILABLE,
            ),
            (
                "57014",
                "отмена проверки подлинности из-за таймаута",
                UNAVAILABLE,
            ),
            ("08P01", "неверный стартовый пакет", NETWORK),
            (
                "22023",
                "неверное значение для параметра \"work_mem\": \"x\"",
                SETTING,
            ),
            (
                "42704",
                "нераспознанный параметр конфигурации: \"nonsense\"",
                SETTING,
            ),
            (
                "0A000",
                "Feature not supported: RDS Proxy currently doesn't support command-line options.",
                SETTING,
            ),
            // RDS Proxy uses one state for all refusals, and `pg_hba.conf` another.
            (
                "28000",
                "The IAM authentication failed because of too many competing requests.",
                THROTTLED,
            ),
            (
                "28000",
                "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"app\", database \
                 \"db\", no encryption",
                NOT_ENCRYPTED,
            ),
            // Words in a quoted name must not decide.
            (
                "28000",
                "PAM authentication failed for user \"no encryption\"",
                REFUSED,
            ),
            // If the state is not specific, a recognised message decides.
            ("42501", "permission denied for database \"db\"", REFUSED),
            ("XX000", "the database system is starting up", UNAVAILABLE),
            ("XX000", "что-то пошло не так", IN_DOUBT),
            ("", "", IN_DOUBT),
        ] {
            assert_eq!(
                from_sqlstate(state, words),
                classification,
                "{state}: {words}"
            );
        }
        assert!(IN_DOUBT.message.contains("not recognised"));
    }

    #[test]
    fn a_quoted_name_does_not_decide_the_kind() {
        for name in ["the database system is", "no encryption", "out of memory"] {
            let words = format!("PAM authentication failed for user \"{name}\"");
            assert_eq!(from_message(&words), REFUSED);
        }
    }

    #[test]
    fn an_unrecognised_message_counts_as_a_refused_login_and_says_so() {
        assert_eq!(
            from_message("lo siento, ya tenemos demasiados clientes"),
            IN_DOUBT
        );
        assert_eq!(from_message(""), IN_DOUBT);
    }
}
