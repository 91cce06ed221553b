//! The source of a login's password.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::auth::{IamAuth, IssuedPassword, Password, PasswordKind, Provenance, TokenSource};
use crate::clock::Clock;
use crate::endpoint::{ConnectionString, Endpoint, Engine, Login};
use crate::error::{Error, ErrorKind};
use crate::token::Token;

pub(super) enum Passwords {
    Iam {
        auth: IamAuth,
        source: TokenSource,
        endpoint: Endpoint,
    },
    Rotating(TokenSource),
    Fixed(Arc<Token>),
    /// The password that libpq finds by its own rules, or none.
    Libpq,
}

impl Passwords {
    /// The passwords for a login at the server that `target` names. `supplied` is the builder's.
    pub(super) fn of(
        target: &ConnectionString,
        auth: &IamAuth,
        supplied: Option<&Password>,
        clock: &Clock,
    ) -> Result<Passwords, Error> {
        Ok(match target.login() {
            Login::Iam => {
                let endpoint = target.endpoint()?;
                endpoint.may_be_in_configured_region()?;
                Passwords::Iam {
                    source: auth.source(&endpoint),
                    auth: auth.clone(),
                    endpoint,
                }
            }
            Login::Supplied => match supplied.map(Password::kind) {
                Some(PasswordKind::Fixed(token)) => Passwords::Fixed(token.clone()),
                Some(PasswordKind::Rotating(source)) => Passwords::Rotating(source.clone()),
                None => Passwords::Libpq,
            },
            Login::Password(password) => {
                let password = Zeroizing::new(password.expose().to_owned());
                Passwords::Fixed(Arc::new(Token::everlasting(password, clock.now())))
            }
            Login::None => Passwords::Libpq,
        })
    }

    /// The kind of login, for the log.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Passwords::Iam { .. } => "iam",
            Passwords::Fixed(_) => "password",
            Passwords::Rotating(_) => "rotating password",
            Passwords::Libpq => "libpq",
        }
    }

    /// A password, for which the caller waits for at most `limit`.
    pub(super) fn issue_within(&self, limit: Duration) -> Result<Option<IssuedPassword>, Error> {
        match self {
            Passwords::Iam { source, .. } | Passwords::Rotating(source) => {
                source.issue_within(limit).map(Some)
            }
            Passwords::Fixed(token) => Ok(Some(IssuedPassword {
                token: token.clone(),
                is_cached: false,
            })),
            Passwords::Libpq => Ok(None),
        }
    }

    /// The source of another password after a refusal.
    pub(super) fn source(&self) -> Option<&TokenSource> {
        match self {
            Passwords::Iam { source, .. } | Passwords::Rotating(source) => Some(source),
            Passwords::Fixed(_) | Passwords::Libpq => None,
        }
    }

    /// The endpoint that tokens are signed for.
    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Passwords::Iam { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    /// The error for a refusal that no new password can solve, with what to do.
    pub(super) fn refused_for_good(&self, cause: Error) -> Error {
        let message = match self {
            Passwords::Iam {
                source, endpoint, ..
            } => refused_token(endpoint, source.provenance(), &cause.to_string()),
            _ => {
                "login was refused with the current password of its source; check that it is this \
                  user's, and that the user is no member of rds_iam"
                    .to_owned()
            }
        };
        Error::with_cause(ErrorKind::LoginRefused, message, cause)
    }
}

fn refused_token(endpoint: &Endpoint, provenance: Option<Provenance>, said: &str) -> String {
    let user = endpoint.user();
    // Both are texts of the server, which may be in another language. Then the general text below applies.
    if said.contains("password authentication failed")
        || said.contains("authentication method requirement \"password\" failed")
    {
        return format!(
            "the server asked {user:?} for a password instead of a token, so that user does not \
             exist or is no member of rds_iam; create it and grant rds_iam to it"
        );
    }
    if said.contains("RDS proxy has no credentials") {
        return format!(
            "the proxy has no secret for {user:?}; add one with that user's password to the proxy, \
             or let the proxy itself log in with iam, and let its clients do so"
        );
    }
    let signed_with = provenance.map_or_else(String::new, |it| {
        let region = it.region.map_or_else(String::new, |it| format!(" in {it}"));
        format!("{region} with credentials from {}", it.credentials)
    });
    let (host, port) = (endpoint.host(), endpoint.port());
    let (granted, allowed) = match endpoint.engine() {
        Engine::Dsql => (
            "that the user exists and was granted to this iam identity (AWS IAM GRANT)",
            "dsql:DbConnect (for admin dsql:DbConnectAdmin) on the cluster",
        ),
        Engine::Rds => (
            "that the user exists and has been granted rds_iam",
            "rds-db:connect for this user of this database",
        ),
    };
    format!(
        "login as {user:?} was refused with a new token, signed for {host}:{port}{signed_with}; \
         check, in this order, {granted}, that the policy of these credentials allows {allowed}, \
         that host and region are the database's own and no alias's (sign_for, iam_region), and \
         this machine's clock"
    )
}
