//! What can go wrong, in one type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why a password could not be had, or a connection not be opened.
///
/// Cheap to clone, because one failure is shared by everyone who waited for it. What may be relied
/// on is [`kind`](Error::kind); the text is written for people. It is one sentence that names the
/// setting to change where there is one, and ends with its cause, since r2d2 keeps the text of an
/// error only. No token, password, key or session token is ever part of it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    cause: Option<Cause>,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, a setting or a combination of settings cannot work: found before anything
    /// was tried, or told by libpq or the server.
    Configuration,
    /// No AWS credentials, or no other password, were found where they were looked for.
    CredentialsNotFound,
    /// There is a source of AWS credentials or of the password, and it failed or was refused.
    CredentialsRefused,
    /// The source of AWS credentials or of the password did not answer in time.
    CredentialsTimeout,
    /// The AWS credentials or the password end too soon, or have ended, and the source has no
    /// others.
    CredentialsExpired,
    /// The server refused the login: token, user, `GRANT` or policy.
    LoginRefused,
    /// AWS or the server asks for fewer logins per second.
    Throttled,
    /// The server cannot take a login at the moment: it starts, stops or is full, or it is read-only
    /// where a writer was asked for.
    ServerUnavailable,
    /// The server could not be reached, or the connection broke before the login was answered.
    Network,
    /// The server's certificate or the TLS handshake was not acceptable.
    Tls,
    /// A migration failed, or what has been applied cannot be read (feature `migrations`).
    Migration,
    /// Another process had the lock on migrations for too long (feature `migrations`).
    MigrationLock,
    /// Something in this process failed: a thread could not be started, or code panicked.
    Internal,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: None,
        }))
    }

    /// The same with `cause`, which must not hold a secret: its text becomes part of this error's.
    pub(crate) fn with_cause(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        cause: impl Into<Cause>,
    ) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: Some(cause.into()),
        }))
    }

    pub(crate) fn configuration(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Configuration, message)
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

/// The message, then each cause down to the first, separated by `: `; all in one line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            f.write_str(": ")?;
            for (at, line) in error.to_string().trim().lines().enumerate() {
                let between = if at == 0 { "" } else { "; " };
                write!(f, "{between}{}", line.trim())?;
            }
            // An error of ours has its causes in its own text already.
            cause = if error.is::<Error>() {
                None
            } else {
                error.source()
            };
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.0.kind, self.to_string())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_with_the_first_cause() {
        let io = std::io::Error::other("no route\n  to host\n");
        let inner = Error::with_cause(ErrorKind::Network, "cannot reach sts", io);
        let outer = Error::with_cause(ErrorKind::CredentialsRefused, "no credentials", inner);
        assert_eq!(
            outer.to_string(),
            "no credentials: cannot reach sts: no route; to host"
        );
        assert_eq!(outer.kind(), ErrorKind::CredentialsRefused);
    }

    #[test]
    fn an_error_can_be_shared_between_threads() {
        fn is_send_sync_clone<T: Send + Sync + Clone>() {}
        is_send_sync_clone::<Error>();
    }
}
