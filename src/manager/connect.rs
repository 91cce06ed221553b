//! Opens one connection: with a password that is good now, and with another one where that was a
//! cached token that the server refused.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::Inner;
use super::health::Failed;
use crate::auth::IssuedPassword;
use crate::backend::Backend;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::event::{ConnectFailed, ConnectionOpened, LoginRefused, LoginRetried};

/// The part of the time to connect that must be left for a second attempt. With less, it would only hide the
/// answer to the first.
const LEFT_FOR_A_RETRY: f64 = 0.1;

impl<C: Backend> Inner<C> {
    /// Opens a connection within `limit`, and notes it if that fails.
    pub(super) fn open(&self, limit: Duration) -> Result<C::Connection, Error> {
        let started = self.clock.now();
        let connected = panic::catch_unwind(AssertUnwindSafe(|| self.connect(limit, &started)))
            .unwrap_or_else(|_| {
                Err(Failed::Login(Error::new(
                    ErrorKind::Internal,
                    "opening a connection panicked; the panic's message tells where",
                )))
            });
        connected.map_err(|failed| self.note_failure(failed, &started))
    }

    fn connect(&self, limit: Duration, started: &Moment) -> Result<C::Connection, Failed> {
        let permit = self.limiter.admit_at(started);
        let permit = permit.map_err(Failed::RateLimited)?;
        let issued = self.passwords.issue_within(limit);
        let issued = issued.map_err(Failed::Password)?;
        match self.log_in(issued, limit, started) {
            Ok(connection) => {
                permit.succeeded();
                Ok(connection)
            }
            Err(error) => {
                permit.failed_at(&self.clock.now(), &error);
                Err(Failed::Login(error))
            }
        }
    }

    fn left_of(&self, limit: Duration, started: &Moment) -> Duration {
        limit.saturating_sub(self.clock.now().since(started))
    }

    fn log_in(
        &self,
        mut issued: Option<IssuedPassword>,
        limit: Duration,
        started: &Moment,
    ) -> Result<C::Connection, Error> {
        let endpoint = self.passwords.endpoint();
        loop {
            let error = match self.attempt(issued.as_ref(), limit, started) {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::LoginRefused {
                return Err(error);
            }
            let now = self.clock.now();
            self.events.login_refused(&LoginRefused {
                token: issued.as_ref().map(|issued| &*issued.token),
                token_age: issued
                    .as_ref()
                    .map(|issued| issued.token.age_at(&now))
                    .unwrap_or_default(),
                error: &error,
                endpoint,
            });
            let (Some(source), Some(refused)) = (self.passwords.source(), &issued) else {
                return Err(error);
            };
            let left = self.left_of(limit, started);
            // A replacement counts as new, so there are two attempts at most.
            match source.replace(refused, left)? {
                Some(_) if left < limit.mul_f64(LEFT_FOR_A_RETRY) => return Err(no_time(error)),
                Some(replacement) => {
                    let token = &replacement.token;
                    self.events.login_retried(&LoginRetried { token, endpoint });
                    issued = Some(replacement);
                }
                None => return Err(self.passwords.refused_for_good(error)),
            }
        }
    }

    fn attempt(
        &self,
        issued: Option<&IssuedPassword>,
        limit: Duration,
        started: &Moment,
    ) -> Result<C::Connection, Error> {
        let left = self.left_of(limit, started);
        let password = issued.map(|issued| issued.token.expose_secret());
        let connection = C::establish(&self.connector, password, left)?;
        let now = self.clock.now();
        if let Some(source) = self.passwords.source() {
            source.accepted();
        }
        let event = ConnectionOpened {
            token: issued.map(|issued| &*issued.token),
            took: now.since(started),
            endpoint: self.passwords.endpoint(),
        };
        self.events
            .connection_opened(&event, self.health.succeeded_at(&now));
        Ok(connection)
    }

    fn note_failure(&self, failed: Failed, started: &Moment) -> Error {
        let now = self.clock.now();
        let event = ConnectFailed {
            error: failed.error(),
            took: now.since(started),
            was_rate_limited: matches!(failed, Failed::RateLimited(_)),
            endpoint: self.passwords.endpoint(),
        };
        self.events
            .connect_failed(&event, self.health.failed_at(&now, &failed));
        failed.into_error()
    }
}

/// The cached token was refused, and a new one is there for the next connection.
fn no_time(cause: Error) -> Error {
    Error::with_cause(
        ErrorKind::LoginRefused,
        "the server refused a cached token, and connect_timeout left no time to try the new one; the next \
         connection uses it; raise connect_timeout",
        cause,
    )
}
