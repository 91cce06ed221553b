//! What can go wrong while an emulator is started or told to do something.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why the emulator could not start, or could not do what it was told.
///
/// Cheap to clone. What may be relied on is [`kind`](Error::kind); the text is for people, and ends
/// with its cause. What becomes of a *login* is not an error: see [`Login`](crate::Login).
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
    /// A setting, or a name that was passed in, cannot work.
    Setting,
    /// PostgreSQL's programs were not found on this machine.
    PostgresNotFound,
    /// PostgreSQL was found, but did not start or stop.
    Postgres,
    /// PostgreSQL refused a statement.
    Sql,
    /// A file, folder, socket or thread could not be had.
    Io,
    /// What was waited for did not happen in time.
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

    /// What kind of failure this is.
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
