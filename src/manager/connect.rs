//! Opens one connection: with a password that is good now, and with another one where that was a
//! cached token that the server refused.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::Inner;
use super::health::Failed;
use crate::auth::Offer;
use crate::backend::Backend;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::event::{ConnectFailed, ConnectionOpened, LoginRefused, LoginRetried};

/// With less time left than this, a second attempt would only hide the answer to the first.
const LEAST_TIME_FOR_AN_ATTEMPT: Duration = Duration::from_secs(1);

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
        let permit = self.backoff.enter_at(started).map_err(Failed::HeldBack)?;
        let offer = self.passwords.offer().map_err(Failed::Password)?;
        self.log_in(offer, limit, started).map_err(|error| {
            self.backoff.failed_at(permit, &self.clock.now(), &error);
            Failed::Login(error)
        })
    }

    fn log_in(
        &self,
        mut offer: Option<Offer>,
        limit: Duration,
        started: &Moment,
    ) -> Result<C::Connection, Error> {
        let endpoint = self.passwords.endpoint();
        loop {
            let error = match self.attempt(offer.as_ref(), limit, started) {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::LoginRefused {
                return Err(error);
            }
            let now = self.clock.now();
            self.events.login_refused(&LoginRefused {
                token: offer.as_ref().map(|offer| &*offer.token),
                token_age: offer
                    .as_ref()
                    .map(|offer| offer.token.age_at(&now))
                    .unwrap_or_default(),
                error: &error,
                endpoint,
            });
            let (Some(source), Some(refused)) = (self.passwords.source(), &offer) else {
                return Err(error);
            };
            // What replaces it counts as new, so this goes round twice at the most.
            match source.replace(refused)? {
                Some(replacement) if now.since(started) + LEAST_TIME_FOR_AN_ATTEMPT < limit => {
                    let token = &replacement.token;
                    self.events.login_retried(&LoginRetried { token, endpoint });
                    offer = Some(replacement);
                }
                _ => return Err(self.passwords.refused_for_good(error)),
            }
        }
    }

    fn attempt(
        &self,
        offer: Option<&Offer>,
        limit: Duration,
        started: &Moment,
    ) -> Result<C::Connection, Error> {
        let left = limit.saturating_sub(self.clock.now().since(started));
        let password = offer.map(|offer| offer.token.expose_secret());
        let connection = C::establish(&self.connector, password, left)?;
        let now = self.clock.now();
        self.backoff.succeeded();
        let event = ConnectionOpened {
            token: offer.map(|offer| &*offer.token),
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
            was_held_back: matches!(failed, Failed::HeldBack(_)),
            endpoint: self.passwords.endpoint(),
        };
        self.events
            .connect_failed(&event, self.health.failed_at(&now, &failed));
        failed.into_error()
    }
}
