//! The service that is emulated, and its messages.

use std::time::Duration;

use crate::language::{Described, Phrases};
use crate::postgres::template::HBA_WITHOUT_PASSWORDS;
use crate::reason::Reason;

/// The service that the emulator stands in for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// RDS or Aurora, without a proxy.
    #[default]
    Rds,
    /// RDS Proxy: its messages, a certificate of a public CA, and no command-line options. Users log in with a
    /// token, or by password if they are not members of `rds_iam`.
    Proxy,
    /// Aurora DSQL: all users log in with a token that contains neither user nor port. Clients must name the
    /// server in the TLS handshake (SNI). Sessions end after an hour.
    Dsql,
}

/// The error that a client receives: an SQLSTATE and a message.
pub(crate) type Answer = (&'static str, String);

impl Engine {
    /// The default host name of the endpoint.
    pub(crate) fn default_host(self, region: &str) -> String {
        match self {
            Engine::Rds => format!("emulator.c9akciq32rqv.{region}.rds.amazonaws.com"),
            Engine::Proxy => format!("emulator.proxy-c9akciq32rqv.{region}.rds.amazonaws.com"),
            Engine::Dsql => format!("emulatorabcdefghijklmnopqr.dsql.{region}.on.aws"),
        }
    }

    /// The service in a token's scope.
    pub(crate) fn service(self) -> &'static str {
        match self {
            Engine::Rds | Engine::Proxy => "rds-db",
            Engine::Dsql => "dsql",
        }
    }

    /// The action that a token of `user` must contain.
    pub(crate) fn action(self, user: &str) -> &'static str {
        match self {
            Engine::Rds | Engine::Proxy => "connect",
            Engine::Dsql if user == "admin" => "DbConnectAdmin",
            Engine::Dsql => "DbConnect",
        }
    }

    /// Whether tokens contain the user and the port.
    pub(crate) fn token_names_user_and_port(self) -> bool {
        self != Engine::Dsql
    }

    /// The `pg_hba.conf` of the PostgreSQL server, if it is not the default one.
    pub(crate) fn hba(self) -> Option<&'static str> {
        match self {
            Engine::Rds | Engine::Proxy => None,
            Engine::Dsql => Some(HBA_WITHOUT_PASSWORDS),
        }
    }

    /// The default limit for the life of a session.
    pub(crate) fn session_limit(self) -> Option<Duration> {
        match self {
            Engine::Rds | Engine::Proxy => None,
            Engine::Dsql => Some(Duration::from_secs(60 * 60)),
        }
    }

    /// The error for a client that names no server in its handshake, if the service requires one.
    pub(crate) fn no_server_name(self) -> Option<Answer> {
        // Many clusters share an address, and Aurora DSQL finds the cluster by this name.
        (self == Engine::Dsql).then(|| {
            (
                "28000",
                "unable to accept connection, sni was not received".to_owned(),
            )
        })
    }

    /// The error for a refused token.
    pub(crate) fn refusal(self, phrases: &Phrases, user: &str, reason: Reason) -> Answer {
        match (self, reason) {
            (Engine::Rds, _) => ("28000", phrases.pam_failed(user)),
            (Engine::Proxy, Reason::Throttled) => (
                "28000",
                "The IAM authentication failed because of too many competing requests.".to_owned(),
            ),
            (Engine::Proxy, _) => (
                "28000",
                format!(
                    "The IAM authentication failed for the role {user}. \
                     Check the IAM token for this role and try again."
                ),
            ),
            (Engine::Dsql, _) => (
                "28000",
                "unable to accept connection, access denied".to_owned(),
            ),
        }
    }

    /// The error for an unknown user; `None` if PostgreSQL itself responds.
    pub(crate) fn unknown_user(self, user: &str) -> Option<Answer> {
        match self {
            Engine::Proxy => Some((
                "28000",
                format!(
                    "This RDS proxy has no credentials for the role {user}. \
                     Check the credentials for this role and try again."
                ),
            )),
            Engine::Rds | Engine::Dsql => None,
        }
    }

    /// The error for a member of `rds_iam` whose connection is not encrypted.
    pub(crate) fn not_encrypted(self, phrases: &Phrases, client: &Described<'_>) -> Answer {
        match self {
            Engine::Rds | Engine::Dsql => ("28000", phrases.rejects(client)),
            Engine::Proxy => (
                "28000",
                "IAM is allowed only with SSL connections.".to_owned(),
            ),
        }
    }
}
