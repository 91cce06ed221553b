//! The error type of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::sync::Arc;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why no password could be issued or no connection opened.
///
/// Cheap to clone, because all callers that waited for an operation share its failure. Programs can rely on
/// [`kind`](Error::kind); the text is for people. It is one sentence that names the setting to change, if there
/// is one, and ends with the cause, since r2d2 keeps the text only. It never contains a token, password, key or
/// session token.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A connection string, a setting or a combination of settings cannot work. Found before any connection,
    /// or reported by libpq or the server.
    Configuration,
    /// No AWS credentials, or no other password, were found.
    CredentialsNotFound,
    /// The source of AWS credentials or of the password failed or was refused.
    CredentialsRefused,
    /// The source of AWS credentials cannot be reached, throttles its callers or fails (429, 5xx). It may work again
    /// without a change of settings.
    CredentialsUnavailable,
    /// The source of AWS credentials or of the password did not respond in time.
    CredentialsTimeout,
    /// The AWS credentials or the password have expired, or expire too soon, and the source has no others.
    CredentialsExpired,
    /// The server refused the login: token, user, `GRANT` or policy.
    LoginRefused,
    /// AWS or the server throttles logins.
    Throttled,
    /// The server accepts no logins at present: it starts, stops or is full, or it is read-only and a writer
    /// is required.
    ServerUnavailable,
    /// The server could not be reached, or the connection broke before the login was answered.
    Network,
    /// The server's certificate, the TLS handshake, or the server's proof that it has the password was rejected.
    Tls,
    /// The pool's connection customizer failed; see [`Error::customizer`].
    Customizer,
    /// A migration failed, or what has been applied cannot be read (feature `migrations`).
    Migration,
    /// Another process held the migration lock for too long (feature `migrations`).
    MigrationLock,
    /// This process failed: a thread could not be started, or code panicked.
    Internal,
}

impl ErrorKind {
    /// Ranks failed connects by how far they got, to tell which of several attempts decides.
    pub(crate) fn progress(self) -> u8 {
        match self {
            ErrorKind::LoginRefused => 5,
            ErrorKind::Configuration => 4,
            // Without TLS, or with a certificate that is not accepted, no login was attempted.
            ErrorKind::Tls => 3,
            ErrorKind::Network => 1,
            // The server answered.
            _ => 2,
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: None,
        }))
    }

    /// An error with `cause`, which must not contain a secret: its text becomes part of this error's.
    pub(crate) fn with_cause(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        cause: impl Into<Cause>,
    ) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: Some(Arc::from(cause.into())),
        }))
    }

    /// The error of a pool's connection customizer, with its cause: of kind [`ErrorKind::Customizer`].
    ///
    /// For customizers of the crate `postgres`'s connections, whose error type this is. With the feature `postgres`,
    /// a [`postgres::Error`] is converted by `?`. The cause must not contain a secret: its text is logged.
    pub fn customizer(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let message = "the pool's connection customizer failed";
        Error::with_cause(ErrorKind::Customizer, message, cause)
    }

    pub(crate) fn configuration(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Configuration, message)
    }

    /// Adds a note in parentheses to the message, before the cause.
    pub(crate) fn with_note(&self, note: &str) -> Error {
        Error(Arc::new(Inner {
            kind: self.0.kind,
            message: format!("{} ({note})", self.0.message).into(),
            cause: self.0.cause.clone(),
        }))
    }

    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

/// The message, then each cause down to the first, separated by `: `; all in one line. Control characters are
/// escaped, such as `\u{1b}`: a server chooses some of the text, and a terminal would interpret them.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.0.message)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            f.write_str(": ")?;
            // An error of this crate is escaped already.
            let text = error.to_string();
            for (at, line) in text.trim().lines().enumerate() {
                f.write_str(if at == 0 { "" } else { "; " })?;
                write_escaped(f, line.trim())?;
            }
            // The text of an error of this crate contains its causes.
            cause = if error.is::<Error>() {
                None
            } else {
                error.source()
            };
        }
        Ok(())
    }
}

/// Writes `text` with an escape in place of characters that a terminal interprets, or that change the direction of
/// text.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            write!(f, "{}", c.escape_unicode())
        }
        c if c.is_control() => write!(f, "{}", c.escape_default()),
        c => f.write_char(c),
    })
}

/// As [`Error::customizer`].
#[cfg(feature = "postgres")]
impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Error {
        Error::customizer(error)
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
    fn the_message_ends_with_the_root_cause() {
        let io = std::io::Error::other("no route\n  to host\n");
        let inner = Error::with_cause(ErrorKind::Network, "cannot reach sts", io);
        let outer = Error::with_cause(ErrorKind::CredentialsRefused, "no credentials", inner);
        assert_eq!(
            outer.to_string(),
            "no credentials: cannot reach sts: no route; to host"
        );
        assert_eq!(outer.kind(), ErrorKind::CredentialsRefused);
    }

    /// FAULTS.md row 58.
    #[test]
    fn control_characters_are_escaped_and_other_text_is_not() {
        let text = "bad\u{1b}[31m\u{7}\u{9b}x\r\ty\u{202e}z\u{0}\ngrüße \\ 'テスト' \"q\"";
        let inner = Error::with_cause(ErrorKind::Network, "inner\u{1b}", text);
        let outer = Error::with_cause(ErrorKind::LoginRefused, "outer", inner);
        assert_eq!(
            outer.to_string(),
            "outer: inner\\u{1b}: bad\\u{1b}[31m\\u{7}\\u{9b}x\\r\\ty\\u{202e}z\\u{0}; grüße \\ 'テスト' \"q\""
        );
        let shown = format!("{outer:?} {outer:#?}");
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown}"
        );
    }

    #[test]
    fn an_error_can_be_shared_between_threads() {
        fn is_send_sync_clone<T: Send + Sync + Clone>() {}
        is_send_sync_clone::<Error>();
    }
}
