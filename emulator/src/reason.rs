//! Why a login was refused.

use std::fmt;

/// The true reason of a refusal, which RDS does not tell the client.
///
/// RDS shows it in the log `iam-db-auth-error` of the instance; [`code`](Reason::code) and
/// [`status`](Reason::status) are what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The connection was not encrypted.
    NotEncrypted,
    /// The password is not a token: not a URL of the right form, or a parameter is missing, doubled
    /// or unreadable.
    Malformed,
    /// The password is longer than PostgreSQL takes (65,530 bytes). The server hangs up.
    TooLong,
    /// The token was signed for another host. Host names are compared with their case.
    Host,
    /// The token was signed for another port.
    Port,
    /// The token was signed for another region.
    Region,
    /// The token was signed for another AWS service.
    Service,
    /// The token is for another action, such as `DbConnect` where `DbConnectAdmin` is due.
    Action,
    /// The token was signed for another database user.
    User,
    /// Nobody has this access key.
    UnknownAccessKey,
    /// The session token is missing, wrong, or not needed.
    SessionToken,
    /// The signature is not that of these credentials over this token.
    Signature,
    /// The token's date lies in the future.
    NotYetValid,
    /// The token asks to be valid for more than 900 s.
    LifetimeTooLong,
    /// The token is too old.
    Expired,
    /// The credentials that signed it have ended since.
    CredentialsExpired,
    /// The policy does not let these credentials be this user.
    NotAuthorized,
    /// More logins per second than are taken.
    Throttled,
    /// A test asked for this refusal.
    Fault,
}

impl Reason {
    /// The error code in the instance's log; `None` where a login is refused before the service is
    /// asked.
    pub fn code(self) -> Option<&'static str> {
        self.service_error().map(|(code, _)| code)
    }

    /// The status code beside it.
    pub fn status(self) -> Option<u16> {
        self.service_error().map(|(_, status)| status)
    }

    fn service_error(self) -> Option<(&'static str, u16)> {
        match self {
            Reason::NotEncrypted | Reason::TooLong => None,
            Reason::Malformed
            | Reason::Host
            | Reason::Port
            | Reason::Region
            | Reason::Service
            | Reason::Action
            | Reason::User
            | Reason::UnknownAccessKey
            | Reason::SessionToken
            | Reason::Signature
            | Reason::NotYetValid
            | Reason::LifetimeTooLong => Some(("InvalidToken", 400)),
            Reason::Expired | Reason::CredentialsExpired => Some(("ExpiredToken", 400)),
            Reason::NotAuthorized => Some(("NotAuthorized", 403)),
            Reason::Throttled => Some(("ThrottlingException", 429)),
            Reason::Fault => Some(("InternalError", 500)),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotEncrypted => "the connection is not encrypted",
            Reason::Malformed => "the password is not a token",
            Reason::TooLong => "the password is longer than 65,530 bytes",
            Reason::Host => "the token is for another host",
            Reason::Port => "the token is for another port",
            Reason::Region => "the token is for another region",
            Reason::Service => "the token is for another service",
            Reason::Action => "the token is for another action",
            Reason::User => "the token is for another user",
            Reason::UnknownAccessKey => "the access key is not known",
            Reason::SessionToken => "the session token is wrong",
            Reason::Signature => "the signature is wrong",
            Reason::NotYetValid => "the token's date lies in the future",
            Reason::LifetimeTooLong => "the token asks for more than 900 s",
            Reason::Expired => "the token has expired",
            Reason::CredentialsExpired => "the credentials have expired",
            Reason::NotAuthorized => "the policy does not allow rds-db:connect",
            Reason::Throttled => "too many logins per second",
            Reason::Fault => "a test asked for it",
        })?;
        match self.service_error() {
            Some((code, status)) => {
                write!(f, " (Status Code: {status}, Error Code: {code})")
            }
            None => Ok(()),
        }
    }
}
