//! The messages of libpq 14 to 18, PostgreSQL, RDS Proxy, Aurora DSQL and poolers, with the kind that each gets.

use super::classify;
use super::diesel::libpq;
use crate::error::ErrorKind::{
    self, Configuration, LoginRefused, Network, ServerUnavailable, Throttled, Tls,
};

/// libpq's own messages.
const LIBPQ: &[(&str, ErrorKind)] = &[
    (
        "could not translate host name \"h\" to address: Name or service not known",
        Network,
    ),
    (
        "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        Network,
    ),
    (
        "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
        Network,
    ),
    ("timeout expired", Network),
    (
        "could not receive data from server: Connection timed out",
        Network,
    ),
    ("could not send startup packet: Broken pipe", Network),
    ("SSL SYSCALL error: Connection reset by peer", Network),
    ("SSL SYSCALL error: EOF detected", Network),
    ("SSL error: unexpected eof while reading", Network),
    ("SSL connection has been closed unexpectedly", Network),
    ("received invalid response to SSL negotiation: H", Network),
    (
        "received invalid response to GSSAPI negotiation: E",
        Network,
    ),
    (
        "expected authentication request from server, but received S",
        Network,
    ),
    (
        "lost synchronization with server: got message type \"1\", length 2",
        Network,
    ),
    // libpq 18.
    (
        "received invalid protocol negotiation message: server requested downgrade to a higher-numbered version",
        Network,
    ),
    ("SSL error: certificate verify failed", Tls),
    ("SSL error: tlsv1 alert internal error", Tls),
    (
        "could not establish SSL connection: no SSL error reported",
        Tls,
    ),
    (
        "server certificate for \"a\" does not match host name \"b\"",
        Tls,
    ),
    (
        "server certificate for \"a\" (and 2 other names) does not match host name \"b\"",
        Tls,
    ),
    (
        "root certificate file \"/none\" does not exist\nEither provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification.",
        Tls,
    ),
    ("server does not support SSL, but SSL was required", Tls),
    ("received unencrypted data after SSL response", Tls),
    (
        "received unencrypted data after GSSAPI encryption response",
        Tls,
    ),
    ("SSL certificate's name contains embedded null", Tls),
    ("SSL certificate's name entry is missing", Tls),
    ("certificate contains IP address with invalid length 3", Tls),
    (
        "could not get server's host name from server certificate",
        Tls,
    ),
    // libpq 17.
    (
        "direct SSL connection was established without ALPN protocol negotiation extension",
        Tls,
    ),
    ("incorrect server signature", Tls),
    ("could not verify server signature: OpenSSL failure", Tls),
    ("malformed SCRAM message (invalid iteration count)", Tls),
    ("invalid SCRAM response (nonce mismatch)", Tls),
    (
        "error received from server in SCRAM exchange: other-error",
        Tls,
    ),
    (
        "AuthenticationSASLFinal received from server, but SASL authentication was not completed",
        Tls,
    ),
    ("authentication method 7 not supported", Configuration),
    ("Kerberos 5 authentication not supported", Configuration),
    ("SSPI authentication not supported", Configuration),
    (
        "none of the server's SASL authentication mechanisms are supported",
        Configuration,
    ),
    (
        "could not initiate GSSAPI security context: No credentials were supplied: No Kerberos credentials available",
        Configuration,
    ),
    (
        "GSSAPI continuation error: Unspecified GSS failure",
        Configuration,
    ),
    (
        "GSSAPI encryption required but was impossible (possibly no credential cache, no server support, or using a local socket)",
        Configuration,
    ),
    (
        "server doesn't support GSSAPI encryption, but it was required",
        Configuration,
    ),
    (
        "channel binding required, but server authenticated client without channel binding",
        Configuration,
    ),
    // libpq 16.
    (
        "authentication method requirement \"md5\" failed: server requested a cleartext password",
        Configuration,
    ),
    (
        "authentication method requirement \"password\" failed: server requested SASL authentication",
        LoginRefused,
    ),
    (
        "authentication method requirement \"password\" failed: server requested a hashed password",
        LoginRefused,
    ),
    (
        "definition of service \"nonsense\" not found",
        Configuration,
    ),
    ("invalid channel_binding value: \"nonsense\"", Configuration),
    ("invalid sslmode value: \"nonsense\"", Configuration),
    ("invalid port number: \"x\"", Configuration),
    (
        "setsockopt(TCP_KEEPIDLE) failed: Invalid argument",
        Configuration,
    ),
    (
        "host name must be specified for a verified SSL connection",
        Configuration,
    ),
    (
        "could not open certificate file \"/none\": No such file or directory",
        Configuration,
    ),
    ("fe_sendauth: no password supplied", Configuration),
    (
        "out of memory\nfe_sendauth: error in SASL authentication",
        Configuration,
    ),
    // libpq since 17.1, 16.5, 15.9 and 14.14, and before.
    (
        "server sent an error response during SSL exchange",
        ServerUnavailable,
    ),
    (
        "could not fork new process for connection: Cannot allocate memory",
        ServerUnavailable,
    ),
    ("session is read-only", ServerUnavailable),
    ("server is in hot standby mode", ServerUnavailable),
];

/// Messages of servers, with their SQLSTATE.
const SERVERS: &[(&str, &str, ErrorKind)] = &[
    // PostgreSQL and RDS.
    (
        "28000",
        "PAM authentication failed for user \"app\"",
        LoginRefused,
    ),
    (
        "28P01",
        "password authentication failed for user \"app\"",
        LoginRefused,
    ),
    ("28000", "role \"app\" does not exist", LoginRefused),
    (
        "28000",
        "role \"app\" is not permitted to log in",
        LoginRefused,
    ),
    (
        "42501",
        "permission denied for database \"db\"",
        LoginRefused,
    ),
    (
        "28000",
        "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"app\", database \"db\", no encryption",
        Tls,
    ),
    (
        "28000",
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"app\", database \"db\", no encryption",
        Tls,
    ),
    // A cluster of Aurora Serverless that resumes; before PostgreSQL 14, and since.
    (
        "28000",
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"app\", database \"db\", SSL on",
        ServerUnavailable,
    ),
    (
        "28000",
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"app\", database \"db\", SSL encryption",
        ServerUnavailable,
    ),
    ("3D000", "database \"db\" does not exist", Configuration),
    (
        "22023",
        "invalid value for parameter \"work_mem\": \"x\"",
        Configuration,
    ),
    (
        "42704",
        "unrecognized configuration parameter \"nonsense\"",
        Configuration,
    ),
    (
        "42601",
        "invalid command-line argument for server process: -x",
        Configuration,
    ),
    (
        "53300",
        "sorry, too many clients already",
        ServerUnavailable,
    ),
    (
        "53300",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        ServerUnavailable,
    ),
    (
        "53300",
        "too many connections for role \"app\"",
        ServerUnavailable,
    ),
    (
        "57P03",
        "the database system is not accepting connections",
        ServerUnavailable,
    ),
    (
        "57P03",
        "the database system is starting up",
        ServerUnavailable,
    ),
    (
        "57014",
        "canceling authentication due to timeout",
        ServerUnavailable,
    ),
    (
        "57P01",
        "terminating connection due to administrator command",
        ServerUnavailable,
    ),
    // RDS Proxy.
    (
        "28000",
        "The IAM authentication failed for the role app. Check the IAM token for this role and try again.",
        LoginRefused,
    ),
    (
        "28000",
        "This RDS proxy has no credentials for the role app. Check the credentials for this role and try again.",
        LoginRefused,
    ),
    (
        "28000",
        "The IAM authentication failed because of too many competing requests.",
        Throttled,
    ),
    (
        "28000",
        "Rate of connection to proxy exceeded 100.",
        Throttled,
    ),
    ("28000", "IAM is allowed only with SSL connections.", Tls),
    (
        "0A000",
        "Feature not supported: RDS Proxy currently doesn't support command-line options.",
        Configuration,
    ),
    (
        "58000",
        "Timed-out waiting to acquire database connection",
        ServerUnavailable,
    ),
    // Aurora DSQL.
    (
        "28000",
        "unable to accept connection, access denied",
        LoginRefused,
    ),
    (
        "53400",
        "Unable to accept connection, rate exceeded.",
        Throttled,
    ),
    (
        "53300",
        "Unable to accept connection, too many open connections.",
        ServerUnavailable,
    ),
    (
        "08001",
        "unable to accept connection, sni was not received",
        Configuration,
    ),
    // PgBouncer.
    ("08P01", "no such database: db", Configuration),
    ("08P01", "no such user: app", Configuration),
    (
        "08P01",
        "unsupported startup parameter: options",
        Configuration,
    ),
    (
        "08P01",
        "no more connections allowed (max_client_conn)",
        ServerUnavailable,
    ),
    ("08P01", "query_wait_timeout", ServerUnavailable),
    (
        "08P01",
        "server login has been failing, cached error: password authentication failed for user \"app\" (server_login_retry)",
        ServerUnavailable,
    ),
    (
        "08P01",
        "pgbouncer cannot connect to server",
        ServerUnavailable,
    ),
    ("08P01", "SASL authentication failed", LoginRefused),
    ("08P01", "SSL required", Tls),
    // pgcat.
    (
        "58000",
        "No pool configured for database: \"db\", user: \"app\"",
        Configuration,
    ),
    (
        "58000",
        "could not get connection from the pool - AllServersDown",
        ServerUnavailable,
    ),
    ("28P01", "Invalid password for user \"app\"", LoginRefused),
    // Supavisor.
    ("XX000", "Tenant or user not found", Configuration),
    (
        "XX000",
        "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
        ServerUnavailable,
    ),
    ("XX000", "Max client connections reached", ServerUnavailable),
    ("28P01", "Wrong password", LoginRefused),
    ("XX000", "SSL connection is required", Tls),
    // Neon.
    (
        "XX000",
        "Endpoint ID is not specified. Either please upgrade the postgres client library (libpq) for SNI support or pass the endpoint ID (first part of the domain name) as a parameter: '?options=endpoint%3D<endpoint-id>'.",
        Configuration,
    ),
    (
        "XX000",
        "The endpoint has been disabled. Enable it using Neon API and retry.",
        ServerUnavailable,
    ),
    (
        "08006",
        "Couldn't connect to compute node",
        ServerUnavailable,
    ),
    (
        "XX000",
        "Failed to acquire permit to connect to the database. Too many database connection attempts are currently ongoing.",
        Throttled,
    ),
    (
        "XX000",
        "connection is insecure (try using `sslmode=require`)",
        Tls,
    ),
];

const PREFIX: &str = "connection to server at \"h\" (1.2.3.4), port 5432 failed: ";

/// FAULTS.md row 57.
#[test]
fn each_message_of_libpq_has_its_kind() {
    for (message, kind) in LIBPQ {
        for text in [format!("{message}\n"), format!("{PREFIX}{message}\n")] {
            let error = libpq::classify(&text);
            assert_eq!(error.kind(), *kind, "{error}");
            assert!(!error.to_string().contains("not recognised"), "{error}");
        }
    }
}

/// FAULTS.md row 57: poolers have one SQLSTATE for nearly everything.
#[test]
fn each_message_of_a_server_has_the_same_kind_in_both_backends() {
    for (state, message, kind) in SERVERS {
        for text in [
            format!("FATAL:  {message}\n"),
            format!("{PREFIX}FATAL:  {message}\nDETAIL:  out of memory\n"),
            format!("{PREFIX}ERROR:  {message}\n"),
        ] {
            let error = libpq::classify(&text);
            assert_eq!(error.kind(), *kind, "{error}");
            assert!(!error.to_string().contains("not recognised"), "{error}");
        }
        let by_state = classify::from_sqlstate(state, message);
        assert_eq!(by_state.kind(), *kind, "{state} {message}");
    }
}
