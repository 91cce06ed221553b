//! Where the password of a login comes from.

use std::sync::Arc;

use crate::auth::{IamAuth, Offer, Password, PasswordKind, TokenSource};
use crate::endpoint::Endpoint;
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
    /// What libpq finds, or none.
    Libpq,
}

impl Passwords {
    pub(super) fn offer(&self) -> Result<Option<Offer>, Error> {
        match self {
            Passwords::Iam { source, .. } | Passwords::Rotating(source) => source.offer().map(Some),
            Passwords::Fixed(token) => Ok(Some(Offer {
                token: token.clone(),
                is_cached: false,
            })),
            Passwords::Libpq => Ok(None),
        }
    }

    /// Where another comes from when one is refused.
    pub(super) fn source(&self) -> Option<&TokenSource> {
        match self {
            Passwords::Iam { source, .. } | Passwords::Rotating(source) => Some(source),
            Passwords::Fixed(_) | Passwords::Libpq => None,
        }
    }

    pub(super) fn refused_for_good(&self, cause: Error) -> Error {
        let message = match self {
            Passwords::Iam { endpoint, .. } => format!(
                "login as {:?} was refused with a new token; check that the user exists and has \
                 been granted rds_iam, that the policy allows rds-db:connect for it, and this \
                 machine's clock",
                endpoint.user()
            ),
            _ => {
                "login was refused with the password that its source gives at present; check that \
                  it is this user's, and that the user is no member of rds_iam"
                    .to_owned()
            }
        };
        Error::with_cause(ErrorKind::LoginRefused, message, cause)
    }
}

/// What a user set on the builder.
impl From<&Password> for Passwords {
    fn from(password: &Password) -> Passwords {
        match password.kind() {
            PasswordKind::Fixed(token) => Passwords::Fixed(token.clone()),
            PasswordKind::Rotating(source) => Passwords::Rotating(source.clone()),
        }
    }
}
