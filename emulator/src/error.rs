//! Errors of starting and controlling an emulator.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why the emulator could not start, or a call of it failed.
///
/// Cheap to clone. Programs can rely on [`kind`](Error::kind). The text is for people and ends with the cause.
/// The result of a *login* is not an error: see [`Login`](crate::Login).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    cause: Option<Cause>,
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting or an argument is invalid.
    Setting,
    /// PostgreSQL's programs were not found on this machine.
    PostgresNotFound,
    /// PostgreSQL was found, but did not start or stop.
    Postgres,
    /// PostgreSQL refused a statement.
    Sql,
    /// A file, folder, socket or thread could not be created.
    Io,
    /// A wait reached its time limit.
    Timeout,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: None,
        }))
    }

    pub(crate) fn with_cause(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl Into<Cause>,
    ) -> Error {
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            cause: Some(cause.into()),
        }))
    }

    pub(crate) fn io(message: impl Into<String>, cause: std::io::Error) -> Error {
        Error::with_cause(ErrorKind::Io, message, cause)
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut cause: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}
