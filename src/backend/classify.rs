//! Classifies failed logins, for every backend: by the server's message if it is known, or else by the server's
//! SQLSTATE if the backend has it.
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

    #[cfg(any(feature = "diesel", test))]
    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the error for a login that failed in this way.
    pub(super) fn error(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::with_cause(self.kind, self.message, cause)
    }
}

/// Parts of messages, with the classification of the messages that contain one. The first match decides.
pub(super) type Table = &'static [(Classification, &'static [&'static str])];

/// Finds the classification of `message`.
pub(super) fn look_up(table: Table, message: &str) -> Option<Classification> {
    let contains_any = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    let row = table.iter().find(|(_, parts)| contains_any(parts));
    row.map(|(classification, _)| *classification)
}

pub(super) const NETWORK: Classification = Classification::new(
    ErrorKind::Network,
    "cannot reach the server; check host, port, security group and route",
);

pub(super) const TLS: Classification = Classification::new(
    ErrorKind::Tls,
    "the TLS handshake failed or the server's certificate was rejected; check the host name and sslrootcert",
);

/// A server that does not have the password cannot complete SCRAM.
pub(super) const NOT_PROVEN: Classification = Classification::new(
    ErrorKind::Tls,
    "the server did not prove that it knows the password, so it may be another one; check host and port",
);

pub(super) const OTHER_METHOD: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server requests an authentication method that this login does not have or allow; check host, port \
     and require_auth, and grant rds_iam to the user",
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

pub(super) const UNAVAILABLE: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "the server accepts no logins at present",
);

const THROTTLED: Classification = Classification::new(
    ErrorKind::Throttled,
    "the server throttles logins; open fewer connections at a time",
);

/// An Aurora Serverless cluster has no rules while it resumes. [aws-cdk 20282]
const NO_RULE: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "the server has no rule for this login in its pg_hba.conf, as an aurora serverless cluster that resumes; \
     otherwise use no replication connection",
);

const POOLER_UNAVAILABLE: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "a connection pooler in front of the server is full, or cannot reach the server; check its limits and its \
     log",
);

const NOT_IN_POOLER: Classification = Classification::new(
    ErrorKind::Configuration,
    "a connection pooler in front of the server does not have this database or user; correct the connection \
     string or the pooler's settings",
);

/// Connection exceptions (08) of a server that has answered.
#[cfg(feature = "postgres")]
const REJECTED: Classification = Classification::new(
    ErrorKind::ServerUnavailable,
    "the server, or a proxy in front of it, ended the connection during the login; see its message",
);

const NO_SERVER_NAME: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server got no server name with TLS (SNI), which it requires; set host to its name instead of an \
     address, and leave out sslsni=0",
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

/// The messages of servers, without quoted names. Poolers come first, since they pass the server's messages on.
const MESSAGES: Table = &[
    (
        POOLER_UNAVAILABLE,
        &[
            // PgBouncer. [disconnect_client in its source]
            "no more connections allowed",
            "client connections exceeded",
            "server login failed",
            "server login has been failing",
            "pgbouncer cannot connect to server",
            "query_wait_timeout",
            "client_login_timeout",
            "bouncer config error",
            "database \"\" is disabled",
            // pgcat.
            "could not get connection from the pool",
            "connection pool is shut down",
            // Supavisor.
            "max clients reached",
            "Max client connections reached",
            "MaxClientsInSessionMode",
            // Neon.
            "endpoint has been disabled",
            "ouldn't connect to compute node",
            "exceeded the compute time quota",
        ],
    ),
    (
        NOT_IN_POOLER,
        &[
            "no such database",
            "no such user",
            "No pool configured for database",
            "Tenant or user not found",
        ],
    ),
    // Aurora DSQL, Neon.
    (
        NO_SERVER_NAME,
        &["sni was not received", "Endpoint ID is not specified"],
    ),
    // RDS Proxy, RDS itself in front of PostgreSQL, Aurora DSQL, Neon.
    (
        THROTTLED,
        &[
            "too many competing requests",
            "Rate of connection to proxy exceeded",
            "rate exceeded",
            "Too many database connection attempts",
        ],
    ),
    // postmaster.c, proc.c, postinit.c, auth.c; RDS Proxy; Aurora DSQL.
    (
        UNAVAILABLE,
        &[
            "the database system is",
            "too many clients already",
            "remaining connection slots",
            "too many connections for",
            "too many open connections",
            "not currently accepting connections",
            "canceling authentication due to timeout",
            "terminating connection",
            "could not fork new process",
            "out of memory",
            "waiting to acquire database connection",
        ],
    ),
    // auth.c; `SSL off` before PostgreSQL 14; RDS Proxy; PgBouncer; Supavisor; Neon.
    (
        NOT_ENCRYPTED,
        &[
            "no encryption",
            "SSL off",
            "only with SSL connections",
            "SSL required",
            "SSL connection is required",
            "connection is insecure",
        ],
    ),
    (NO_RULE, &["no pg_hba.conf entry"]),
    // guc.c, postinit.c; RDS Proxy; PgBouncer.
    (
        SETTING,
        &[
            "invalid value for parameter",
            "unrecognized configuration parameter",
            "invalid command-line argument",
            "requires a Boolean value",
            "requires a numeric value",
            "RDS Proxy currently",
            "unsupported startup parameter",
        ],
    ),
    (NO_DATABASE, &["database \"\" does not exist"]),
    // auth.c, miscinit.c, postinit.c; RDS Proxy; Aurora DSQL; pgcat; Supavisor.
    (
        REFUSED,
        &[
            "authentication failed",
            "rejects connection",
            "does not exist",
            "not permitted to log in",
            "permission denied",
            "access denied",
            "no credentials for the role",
            "is wrong",
            "Invalid password",
            "Wrong password",
        ],
    ),
];

/// Classifies a server's message, without its severity.
pub(super) fn from_message(message: &str) -> Classification {
    // PostgreSQL's messages are one line each. DETAIL and HINT follow on lines of their own.
    let line = message.trim_start().lines().next().unwrap_or_default();
    look_up(MESSAGES, &without_names(line)).unwrap_or(IN_DOUBT)
}

/// Classifies a server's error by its message if that is known, since RDS Proxy, `pg_hba.conf` and poolers have one
/// SQLSTATE for several causes, and otherwise by its SQLSTATE, in any language.
#[cfg(feature = "postgres")]
pub(super) fn from_sqlstate(state: &str, message: &str) -> Classification {
    let by_message = from_message(message);
    if by_message != IN_DOUBT {
        return by_message;
    }
    match (state.get(..2), state) {
        (Some("08"), _) => REJECTED,
        // Aurora DSQL's limit of connections a second.
        (_, "53400") => THROTTLED,
        // Too few resources; stopping, starting, too slow; an error of the system.
        (Some("53" | "57" | "58"), _) => UNAVAILABLE,
        (Some("3D"), _) => NO_DATABASE,
        // RDS Proxy does not support it; an invalid value; an unknown parameter.
        (Some("0A" | "22"), _) | (_, "42704") => SETTING,
        (Some("28"), _) => REFUSED,
        _ => IN_DOUBT,
    }
}

/// The error for a connection of a writer's pool whose server is read-only.
pub(super) fn read_only() -> Error {
    Error::new(
        ErrorKind::ServerUnavailable,
        "the server takes no writes: it is a standby, or default_transaction_read_only is on",
    )
}

/// The error for a keyword that must not be quoted, since it may be a part of a password.
pub(super) fn unknown_keyword() -> Error {
    Error::configuration(
        "the connection string has a keyword that libpq does not support; correct it, or put single \
         quotes around the value before it if that holds spaces",
    )
}

/// Replaces everything between the first and the last quotation mark by nothing: the names of users, databases and
/// certificates may be any text, with quotation marks of their own.
pub(super) fn without_names(message: &str) -> String {
    const MARKS: &[char] = &['"', '«', '»', '„', '“', '”', '「', '」'];
    let Some(first) = message.find(MARKS) else {
        return message.to_owned();
    };
    let (before, rest) = message.split_at(first);
    let last = rest.rfind(MARKS).unwrap_or_default();
    let after = rest.get(last..).unwrap_or_default();
    // With one mark only, a line break in the name has cut off the rest.
    let after = if last == 0 {
        ""
    } else {
        after.trim_start_matches(MARKS)
    };
    format!("{before}\"\"{after}")
}

#[cfg(test)]
mod tests;
