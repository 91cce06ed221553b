//! Opens one connection: at the first server and address that can be had, with a current password, and with
//! another one if the server refuses a cached token.

use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use super::Inner;
use super::health::Failed;
use super::passwords::Passwords;
use super::server::Server;
use crate::auth::IssuedPassword;
use crate::backend::Backend;
use crate::clock::Moment;
use crate::dial::{self, Attempts};
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
        let servers = self.in_order();
        let mut attempts = Attempts::default();
        for (at, server) in servers.iter().enumerate() {
            let left = self.left_of(limit, started);
            if left.is_zero() {
                break;
            }
            let share = dial::share_of(left, servers.len() - at);
            match self.connect_to(server, share, started) {
                Err(Failed::Login(error)) => attempts.failed(error).map_err(Failed::Login)?,
                done => return done,
            }
        }
        Err(Failed::Login(attempts.furthest()))
    }

    /// The servers in the order in which this connect tries them.
    fn in_order(&self) -> Vec<&Server<C>> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        if self.is_load_balanced {
            fastrand::shuffle(&mut servers);
            // Where a standby is preferred, all servers are first asked whether they are one.
            servers.sort_by_key(|server| server.pass);
        }
        servers
    }

    fn connect_to(
        &self,
        server: &Server<C>,
        limit: Duration,
        started: &Moment,
    ) -> Result<C::Connection, Failed> {
        let begun = self.clock.now();
        let permit = server.limiter.admit_at(&begun);
        let permit = permit.map_err(Failed::RateLimited)?;
        let issued = server.passwords.issue_within(limit);
        let issued = issued.map_err(Failed::Password)?;
        match self.log_in(server, issued, limit, &begun) {
            Ok((connection, issued)) => {
                permit.succeeded();
                self.note_success(server, issued.as_ref(), started);
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

    /// Tries the addresses of one server. Returns the connection, and the password that it was opened with.
    fn log_in(
        &self,
        server: &Server<C>,
        mut issued: Option<IssuedPassword>,
        limit: Duration,
        begun: &Moment,
    ) -> Result<(C::Connection, Option<IssuedPassword>), Error> {
        let mut addresses = server.addresses.find(self.left_of(limit, begun))?;
        if self.is_load_balanced {
            fastrand::shuffle(&mut addresses);
        }
        let mut attempts = Attempts::default();
        for (at, address) in addresses.iter().enumerate() {
            let left = self.left_of(limit, begun);
            if left.is_zero() {
                break;
            }
            let share = dial::share_of(left, addresses.len() - at);
            match self.log_in_at(server, *address, &mut issued, share) {
                Ok(connection) => return Ok((connection, issued)),
                Err(error) => attempts.failed(error)?,
            }
        }
        Err(attempts.furthest())
    }

    /// Logs in at one address, and once more if the server refuses a cached token.
    fn log_in_at(
        &self,
        server: &Server<C>,
        address: Option<SocketAddr>,
        issued: &mut Option<IssuedPassword>,
        limit: Duration,
    ) -> Result<C::Connection, Error> {
        let begun = self.clock.now();
        let endpoint = server.passwords.endpoint();
        loop {
            let left = self.left_of(limit, &begun);
            let password = issued.as_ref().map(|issued| issued.token.expose_secret());
            let error = match C::establish(&server.connector, password, address, left) {
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
            let (Some(source), Some(refused)) = (server.passwords.source(), &issued) else {
                return Err(error);
            };
            let left = self.left_of(limit, &begun);
            // A replacement counts as new, so there are two attempts at most.
            match source.replace(refused, left)? {
                Some(_) if left < limit.mul_f64(LEFT_FOR_A_RETRY) => return Err(no_time(error)),
                Some(replacement) => {
                    let token = &replacement.token;
                    self.events.login_retried(&LoginRetried { token, endpoint });
                    *issued = Some(replacement);
                }
                None => return Err(server.passwords.refused_for_good(error)),
            }
        }
    }

    fn note_success(&self, server: &Server<C>, issued: Option<&IssuedPassword>, started: &Moment) {
        let now = self.clock.now();
        if let Some(source) = server.passwords.source() {
            source.accepted();
        }
        let event = ConnectionOpened {
            token: issued.map(|issued| &*issued.token),
            took: now.since(started),
            endpoint: server.passwords.endpoint(),
        };
        self.events
            .connection_opened(&event, self.health.succeeded_at(&now));
    }

    fn note_failure(&self, failed: Failed, started: &Moment) -> Error {
        let now = self.clock.now();
        let event = ConnectFailed {
            error: failed.error(),
            took: now.since(started),
            was_rate_limited: matches!(failed, Failed::RateLimited(_)),
            endpoint: self.passwords().and_then(Passwords::endpoint),
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
