//! Opens one connection: at the first server and address that accepts it, with a current password, and with another
//! one if the server refuses a cached token.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use tracing::{Span, field};

use super::Inner;
use super::cluster::Members;
use super::health::Failed;
use super::passwords::Passwords;
use super::server::Server;
use crate::auth::IssuedPassword;
use crate::backend::Backend;
use crate::clock::Moment;
use crate::cluster::{Balance, Candidate, Held, Place};
use crate::dial::{self, Attempts};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{ConnectFailed, ConnectionOpened, LoginRefused, LoginRetried};

/// The part of the time to connect that must be left for a second attempt. With less, it would only hide the
/// answer to the first.
const LEFT_FOR_A_RETRY: f64 = 0.1;

/// A connection, and which member it leads to.
pub(crate) struct Connected<T> {
    pub(crate) connection: T,
    /// Counts it among the pool's connections to its member.
    pub(crate) held: Option<Held>,
}

/// One server to try.
struct Attempt<C: Backend> {
    server: Arc<Server<C>>,
    /// Where it is in its cluster, if it belongs to one.
    candidate: Option<Candidate>,
}

impl<C: Backend> Inner<C> {
    /// Opens a connection within `limit`, and notes it if that fails.
    pub(super) fn open(
        &self,
        limit: Duration,
        balance: &Arc<Balance>,
    ) -> Result<Connected<C::Connection>, Error> {
        let started = self.clock.now();
        let span = self.span();
        let _entered = span.enter();
        let connect = AssertUnwindSafe(|| self.connect(limit, balance, &started));
        let connected = panic::catch_unwind(connect).unwrap_or_else(|_| {
            Err(Failed::Login(Error::new(
                ErrorKind::Internal,
                "opening a connection panicked; the panic's message tells where",
            )))
        });
        record_outcome(&span, connected.as_ref().map_err(Failed::error));
        connected.map_err(|failed| self.note_failure(failed, &started))
    }

    /// The trace of one connect. It costs nothing without a subscriber at DEBUG.
    fn span(&self) -> Span {
        let passwords = self.passwords();
        let endpoint = passwords.and_then(Passwords::endpoint);
        tracing::debug_span!(
            "connect",
            host = endpoint.map(Endpoint::host),
            user = endpoint.map(Endpoint::user),
            login = passwords.map(Passwords::kind),
            outcome = field::Empty,
        )
    }

    fn connect(
        &self,
        limit: Duration,
        balance: &Arc<Balance>,
        started: &Moment,
    ) -> Result<Connected<C::Connection>, Failed> {
        let mut servers = self.plan(balance)?;
        let mut has_members = self.has_members();
        let mut attempts = Attempts::default();
        let mut tried = Tried::default();
        while let Some(attempt) = servers.pop_front() {
            let left = self.left_of(limit, started);
            if left.is_zero() {
                break;
            }
            let share = dial::share_of(left, servers.len() + 1);
            let is_member = attempt.is_member();
            match self.try_server(attempt, balance, &mut tried, share, started) {
                Ok(connected) => return Ok(connected),
                // The cluster's name, or another member, may accept the login.
                Err(failed) if is_member => attempts.add(failed.into_error()),
                Err(Failed::Login(error)) => attempts.failed(error).map_err(Failed::Login)?,
                Err(failed) => return Err(failed),
            }
            // The failed attempt may have read them.
            if !has_members && self.has_members() {
                has_members = true;
                servers = self.plan(balance)?;
            }
        }
        Err(Failed::Login(attempts.furthest()))
    }

    fn has_members(&self) -> bool {
        let members = self.members.as_ref();
        members.is_none_or(|members| members.cluster.has_members())
    }

    /// The servers in the order in which this connect tries them.
    fn plan(&self, balance: &Arc<Balance>) -> Result<VecDeque<Attempt<C>>, Failed> {
        match &self.members {
            Some(members) => self.of_cluster(members, balance).map_err(Failed::Login),
            None => Ok(self.in_order()),
        }
    }

    /// The servers that the connection string names.
    fn in_order(&self) -> VecDeque<Attempt<C>> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        if self.is_load_balanced {
            fastrand::shuffle(&mut servers);
            // Where a standby is preferred, all servers are first asked whether they are one.
            servers.sort_by_key(|server| server.pass);
        }
        let attempt = |server: &Arc<Server<C>>| Attempt {
            server: server.clone(),
            candidate: None,
        };
        servers.into_iter().map(attempt).collect()
    }

    /// The members of the cluster and its name.
    fn of_cluster(
        &self,
        members: &Members<C>,
        balance: &Arc<Balance>,
    ) -> Result<VecDeque<Attempt<C>>, Error> {
        let candidates = members.cluster.candidates(balance, self.clock.monotonic());
        let listed = members.cluster.members();
        let mut attempts = VecDeque::with_capacity(candidates.len());
        for candidate in candidates {
            let server = match &candidate.place {
                Place::Name => self.servers.get(usize::from(candidate.pass)).cloned(),
                Place::Member(id) => members.server(&listed, id, candidate.pass)?,
            };
            attempts.extend(server.map(|server| Attempt {
                server,
                candidate: Some(candidate),
            }));
        }
        Ok(attempts)
    }

    fn try_server(
        &self,
        attempt: Attempt<C>,
        balance: &Arc<Balance>,
        tried: &mut Tried,
        limit: Duration,
        started: &Moment,
    ) -> Result<Connected<C::Connection>, Failed> {
        let Attempt { server, candidate } = attempt;
        let (Some(members), Some(mut candidate)) = (&self.members, candidate) else {
            let (connection, issued) = self.connect_to(&server, None, limit)?;
            self.note_success(&server, issued.as_ref(), None, started);
            return Ok(Connected {
                connection,
                held: None,
            });
        };
        tried.begin_pass(candidate.pass);
        if let (None, Place::Member(id)) = (&candidate.held, &candidate.place) {
            candidate.held = Some(balance.hold(id));
        }
        let place = &candidate.place;
        let cluster = &members.cluster;
        let under_way = cluster.begin_at(place, self.clock.monotonic());
        let opened = self.connect_to(&server, Some(tried), limit);
        drop(under_way);
        let now = self.clock.monotonic();
        let settled = opened.and_then(|(mut connection, issued)| {
            let own = members.read_over(&mut connection, place, now);
            let own = own.map_err(Failed::Login)?;
            if let Some(lag) = own.as_deref().and_then(|id| cluster.excessive_lag(id)) {
                return Err(Failed::Login(lags(lag)));
            }
            let held = candidate.held.take();
            let held = held.or_else(|| own.map(|id| balance.hold(&id)));
            let member = held.as_ref().map(|held| &**held.id());
            self.note_success(&server, issued.as_ref(), member, started);
            Ok(Connected { connection, held })
        });
        match &settled {
            Ok(_) => cluster.succeeded(place),
            Err(failed) => cluster.failed_at(place, failed.error().kind(), now),
        }
        settled
    }

    fn connect_to(
        &self,
        server: &Server<C>,
        tried: Option<&mut Tried>,
        limit: Duration,
    ) -> Result<(C::Connection, Option<IssuedPassword>), Failed> {
        let begun = self.clock.now();
        let permit = server.limiter.admit_at(&begun);
        let permit = permit.map_err(Failed::RateLimited)?;
        let issued = server.passwords.issue_within(limit);
        let issued = issued.map_err(Failed::Password)?;
        match self.log_in(server, issued, tried, limit, &begun) {
            Ok(opened) => {
                permit.succeeded();
                Ok(opened)
            }
            Err(error) => {
                permit.failed_at(&self.clock.now(), &error);
                Err(Failed::Login(error))
            }
        }
    }

    fn left_of(&self, limit: Duration, started: &Moment) -> Duration {
        limit.saturating_sub(self.elapsed(started))
    }

    /// The time since a connect started, by the monotonic clock alone: a wall clock that is set takes no time.
    fn elapsed(&self, started: &Moment) -> Duration {
        let now = self.clock.monotonic();
        now.saturating_duration_since(started.monotonic)
    }

    /// Tries the addresses of one server. Returns the connection, and the password that it was opened with.
    fn log_in(
        &self,
        server: &Server<C>,
        mut issued: Option<IssuedPassword>,
        mut tried: Option<&mut Tried>,
        limit: Duration,
        begun: &Moment,
    ) -> Result<(C::Connection, Option<IssuedPassword>), Error> {
        let mut addresses = server.addresses.find(self.left_of(limit, begun))?;
        if let Some(tried) = &tried {
            addresses.retain(|address| !tried.contains(*address));
            if addresses.is_empty() {
                return Err(same_server());
            }
        }
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
            let span = tracing::debug_span!(
                "login",
                host = server.passwords.endpoint().map(Endpoint::host),
                address = address.map(field::display),
                outcome = field::Empty,
            );
            let logged_in = span.in_scope(|| self.log_in_at(server, *address, &mut issued, share));
            record_outcome(&span, logged_in.as_ref());
            match logged_in {
                Ok(connection) => return Ok((connection, issued)),
                Err(error) => {
                    if let Some(tried) = &mut tried {
                        tried.failed(*address, &error);
                    }
                    attempts.failed(error)?;
                }
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
            let password = issued.as_ref().map(|issued| &*issued.token);
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

    fn note_success(
        &self,
        server: &Server<C>,
        issued: Option<&IssuedPassword>,
        member: Option<&str>,
        started: &Moment,
    ) {
        let now = self.clock.now();
        if let Some(source) = server.passwords.source() {
            source.accepted();
        }
        let event = ConnectionOpened {
            token: issued.map(|issued| &*issued.token),
            took: self.elapsed(started),
            endpoint: server.passwords.endpoint(),
            member,
        };
        self.events
            .connection_opened(&event, self.health.succeeded_at(&now));
    }

    /// Records that a connection was opened and is not used.
    pub(super) fn note_customizer_failure(&self, error: Error) {
        self.note_failure(Failed::Customizer(error), &self.clock.now());
    }

    fn note_failure(&self, failed: Failed, started: &Moment) -> Error {
        let now = self.clock.now();
        let event = ConnectFailed {
            error: failed.error(),
            took: self.elapsed(started),
            was_rate_limited: matches!(failed, Failed::RateLimited(_)),
            endpoint: self.passwords().and_then(Passwords::endpoint),
        };
        self.events
            .connect_failed(&event, self.health.failed_at(&now, &failed));
        failed.into_error()
    }
}

impl<C: Backend> Attempt<C> {
    fn is_member(&self) -> bool {
        let place = self.candidate.as_ref().map(|candidate| &candidate.place);
        matches!(place, Some(Place::Member(_)))
    }
}

/// The addresses of a cluster that failed in this connect. The cluster's name leads to one of its members, and an
/// address that has failed is not dialled again.
#[derive(Default)]
struct Tried {
    pass: u8,
    addresses: Vec<SocketAddr>,
}

impl Tried {
    fn begin_pass(&mut self, pass: u8) {
        if self.pass != pass {
            self.addresses.clear();
        }
        self.pass = pass;
    }

    fn contains(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|address| self.addresses.contains(&address))
    }

    fn failed(&mut self, address: Option<SocketAddr>, error: &Error) {
        // Other failures, such as a rejected certificate, depend on the name.
        let is_servers = matches!(
            error.kind(),
            ErrorKind::Network | ErrorKind::ServerUnavailable
        );
        self.addresses.extend(address.filter(|_| is_servers));
    }
}

fn record_outcome<T>(span: &Span, outcome: Result<T, &Error>) {
    match outcome {
        Ok(_) => span.record("outcome", "connected"),
        Err(error) => span.record("outcome", field::debug(error.kind())),
    };
}

fn same_server() -> Error {
    Error::new(
        ErrorKind::Network,
        "not tried, because the name leads to the address of a member that has just failed",
    )
}

fn lags(lag: Duration) -> Error {
    Error::new(
        ErrorKind::ServerUnavailable,
        format!("the reader is {lag:?} behind the writer; raise max_lag if that is acceptable"),
    )
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
