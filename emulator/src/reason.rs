//! The reasons for which a login is refused.

use std::fmt;

/// The actual reason of a refusal. RDS does not send it to the client.
///
/// RDS writes it to the instance's log `iam-db-auth-error`, as [`code`](Reason::code) and
/// [`status`](Reason::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The connection was not encrypted.
    NotEncrypted,
    /// The password is not a token: it is not a URL of the right form, or a parameter is missing, repeated or
    /// unreadable.
    Malformed,
    /// The password is longer than PostgreSQL accepts (65,530 bytes). The server closes the connection.
    TooLong,
    /// The token was signed for another host. Host names are compared case-sensitively.
    Host,
    /// The token was signed for another port.
    Port,
    /// The token was signed for another region.
    Region,
    /// The token was signed for another AWS service.
    Service,
    /// The token is for another action, such as `DbConnect` instead of `DbConnectAdmin`.
    Action,
    /// The token was signed for another database user.
    User,
    /// The access key is unknown.
    UnknownAccessKey,
    /// The session token is missing, wrong, or unexpected.
    SessionToken,
    /// The signature does not match these credentials and this token.
    Signature,
    /// The token's date is in the future.
    NotYetValid,
    /// The token requests a validity of more than 900 s.
    LifetimeTooLong,
    /// The token has expired.
    Expired,
    /// The credentials that signed the token have expired.
    CredentialsExpired,
    /// The policy does not allow these credentials to log in as this user.
    NotAuthorized,
    /// The logins exceed the rate limit.
    Throttled,
    /// A test requested this refusal.
    Fault,
}

impl Reason {
    /// The error code in the instance's log; `None` if the login is refused before the IAM service is called.
    pub fn code(self) -> Option<&'static str> {
        self.service_error().map(|(code, _)| code)
    }

    /// The status code in the instance's log.
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
            Reason::LifetimeTooLong => "the token requests more than 900 s",
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
