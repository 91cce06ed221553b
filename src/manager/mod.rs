//! r2d2's manager: opens a connection with a valid token, and retries once if a cached token was refused. No
//! panic leaves `connect`, since r2d2 would lose a slot of the pool.

mod builder;
mod cluster;
mod connect;
mod dialer;
mod handoff;
mod health;
mod passwords;
mod server;

use std::fmt;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use self::builder::ManagerBuilder;
use self::cluster::Members;
pub(crate) use self::connect::Connected;
pub(crate) use self::dialer::{Dialer, Opened, Workers};
use self::health::Health;
use self::passwords::Passwords;
use self::server::Server;
use crate::auth::{IamAuth, Provenance};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::cluster::{Balance, ClusterMember};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, RetireReason, Stats};
use crate::lifetime::{self, Lifetimes};
use crate::roots::Roots;
use crate::token::Token;

/// The time limit of one connect, including the token and a second attempt: nine tenths of what a pool's callers
/// wait by default, so that they get the cause.
pub(crate) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(9);

/// A checkout test that fails after this long has met a silent server, or a network that was cut.
const SILENT_AFTER: Duration = Duration::from_secs(4);

/// An [`r2d2::ManageConnection`] that logs in with IAM tokens.
///
/// Cheap to clone; clones share tokens. See [`PgConnectionManager`](crate::PgConnectionManager) for
/// diesel's connections.
///
/// ```no_run
/// use diesel_rds_iam::PgConnectionManager;
///
/// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
/// let pool = PgConnectionManager::new(url)?.into_pool()?;
/// # Ok::<(), diesel_rds_iam::Error>(())
/// ```
pub struct RdsConnectionManager<C: Backend> {
    inner: Arc<Inner<C>>,
    /// Present in the manager that a pool of `PoolBuilder`'s has.
    pooled: Option<Arc<Pooled<C>>>,
}

struct Inner<C: Backend> {
    /// In the order in which they are tried.
    servers: Vec<Arc<Server<C>>>,
    /// Present if the members of a cluster are dialled by their own names.
    members: Option<Members<C>>,
    is_load_balanced: bool,
    /// What is dialled, for `parameters()`.
    parameters: Vec<(String, String)>,
    health: Health,
    clock: Clock,
    events: Events,
    /// `None` for the default, which depends on the pool.
    connect_timeout: Option<Duration>,
    is_writer: bool,
}

/// What the manager inside a pool shares with the threads that open its connections. It goes with the pool.
pub(crate) struct Pooled<C: Backend> {
    pub(crate) dialer: Dialer<C>,
    /// Below the pool's own timeout.
    pub(crate) connect_timeout: Duration,
    pub(crate) lifetimes: Arc<Lifetimes>,
    pub(crate) balance: Arc<Balance>,
    /// Whether a checkout test has waited in vain, and no connection has been opened since.
    pub(crate) is_silent: AtomicBool,
    /// The process of the pool. A child that is forked later cannot use it.
    pub(crate) process: u32,
}

impl<C: Backend> RdsConnectionManager<C> {
    /// Creates a manager for the database that a connection string names: a URL or libpq's `keyword=value`
    /// pairs, without a password.
    ///
    /// Credentials come from AWS's default chain, and the region from the host name or the AWS configuration.
    /// The server's certificate is verified in full. No request is made and no connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if the connection string cannot be parsed, names no user or host, or has
    /// a setting that IAM login excludes, such as `sslmode=prefer`.
    pub fn new(connection_string: &str) -> Result<Self, Error> {
        Self::builder(connection_string).build()
    }

    /// Returns a builder with more settings. They take precedence over those of the connection string.
    pub fn builder(connection_string: &str) -> ManagerBuilder<C> {
        ManagerBuilder::new(connection_string)
    }

    /// Opens one connection, inside or outside a pool, and returns the typed error.
    ///
    /// It takes at most [`connect_timeout`](ManagerBuilder::connect_timeout), which includes the wait for a
    /// token, the resolution of names, and all hosts and addresses. Each of these gets an equal share of the
    /// time that is left, and one that fails at once leaves its share to the others. libpq counts whole seconds,
    /// so that the limit can be exceeded by up to two of them.
    ///
    /// Hosts are tried in the order of the connection string, and each with a token of its own. The next address
    /// or host is tried if one cannot be reached, has no acceptable certificate, accepts no logins at present, or
    /// is not what `target_session_attrs` asks for. The error is that of the attempt that got furthest, with the
    /// others as a note.
    ///
    /// If the server refuses or throttles logins repeatedly, most calls fail at once with the last refusal.
    /// All threads and pools of this process that log in with the same settings share the limit: six logins
    /// without delay, then 20 a minute at most, one every 3 to 4 s. A successful login lifts it.
    ///
    /// A process that exits waits for diesel's connections that are being opened by other threads, for 3 s at most,
    /// and opens no other: libpq crashes after the C libraries under it have freed their memory.
    ///
    /// A panic of the application's own code inside this call becomes an error, unless the application is
    /// built with `panic = "abort"`: then it ends the process.
    ///
    /// # Errors
    ///
    /// Every [`ErrorKind`] is possible.
    pub fn try_connect(&self) -> Result<C::Connection, Error> {
        let pooled = self.pooled.as_ref().map(|pooled| pooled.connect_timeout);
        let limit = pooled.or(self.connect_timeout());
        let limit = limit.unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        Ok(self.open_within(limit, &Arc::default())?.connection)
    }

    /// Opens a connection that counts in `balance`.
    pub(crate) fn open_within(
        &self,
        limit: Duration,
        balance: &Arc<Balance>,
    ) -> Result<Connected<C::Connection>, Error> {
        self.inner.open(limit, balance)
    }

    /// Returns the configured time limit of a connect, if there is one.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.inner.connect_timeout
    }

    /// Returns the error of the last failed connect, if none has succeeded since, over all clones and pools
    /// of this manager.
    ///
    /// r2d2 reports the cause as text only, to one of the callers that time out in `get`. A clone of the
    /// manager beside the pool has it for every caller, with its kind.
    pub fn last_failure(&self) -> Option<Error> {
        self.inner.health.last_failure()
    }

    /// Returns the token that a connection would log in with now, and the endpoint that it is signed for. The
    /// endpoint has a region, also if that came from the AWS configuration.
    ///
    /// For handing the token to another program. Connections of this manager do not need this call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if this manager does not log in with IAM, and those of
    /// [`TokenSource::token`](crate::TokenSource::token).
    pub fn token(&self) -> Result<(Endpoint, Arc<Token>), Error> {
        match self.inner.passwords() {
            Some(Passwords::Iam {
                auth,
                source,
                endpoint,
            }) => {
                let token = source.token()?;
                if endpoint.region().is_some() {
                    return Ok((endpoint.clone(), token));
                }
                let (region, _) = auth.region(endpoint)?;
                Ok((endpoint.clone().with_region(&region)?, token))
            }
            _ => Err(Error::configuration(
                "this manager does not log in with iam, so it has no token; leave out the password and iam=off",
            )),
        }
    }

    /// Returns the endpoint that tokens are signed for, or `None` if this manager uses no tokens. With several
    /// hosts it is that of the first; the others have tokens of their own.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.inner.passwords().and_then(Passwords::endpoint)
    }

    /// Returns the identity that signs this manager's tokens, or `None` if it uses no tokens.
    pub fn auth(&self) -> Option<&IamAuth> {
        match self.inner.passwords() {
            Some(Passwords::Iam { auth, .. }) => Some(auth),
            _ => None,
        }
    }

    /// Returns the connection settings by libpq's keywords: those of the connection string and the builder,
    /// decoded, without the password, the `iam` parameters and `sslrootcert`, which is
    /// [`roots`](RdsConnectionManager::roots). With IAM, `host`, `port`, `user` and `sslmode` are always
    /// present.
    ///
    /// For handing a connection to another program, together with
    /// [`token`](RdsConnectionManager::token).
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner
            .parameters
            .iter()
            .map(|(keyword, value)| (keyword.as_str(), value.as_str()))
    }

    /// Returns the root certificates that the server's certificate must chain to. `None` if `sslmode` does not
    /// verify it, or leaves that to the TLS library.
    pub fn roots(&self) -> Option<&Roots> {
        self.inner.servers.first()?.roots.as_ref()
    }

    /// Returns the members of the cluster, as they were read last; see [`cluster`](ManagerBuilder::cluster). None
    /// before the first connection, and if they cannot be read.
    pub fn cluster_members(&self) -> Vec<ClusterMember> {
        let members = self.inner.members.as_ref();
        members.map_or_else(Vec::new, |members| members.cluster.members())
    }

    /// Returns the event counters of this manager's identity, over all its managers.
    pub fn stats(&self) -> Stats {
        self.inner.events.stats()
    }

    pub(crate) fn in_pool(&self, pooled: Pooled<C>) -> Self {
        RdsConnectionManager {
            inner: self.inner.clone(),
            pooled: Some(Arc::new(pooled)),
        }
    }

    /// Returns a function that records a failure of a pool's customizer.
    pub(crate) fn note_customizer_failure(
        &self,
    ) -> impl Fn(Error) + Send + Sync + 'static + use<C> {
        let inner = self.inner.clone();
        move |error| inner.note_customizer_failure(error)
    }

    pub(crate) fn parameter(&self, keyword: &str) -> Option<&str> {
        let found = self.parameters().find(|(name, _)| *name == keyword);
        found.map(|(_, value)| value)
    }

    /// What tokens are signed with; `None` if no token is used.
    pub(crate) fn provenance(&self) -> Option<Provenance> {
        self.inner.passwords()?.source()?.provenance()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn events(&self) -> &Events {
        &self.inner.events
    }

    pub(crate) fn is_writer(&self) -> bool {
        self.inner.is_writer
    }
}

#[cfg(feature = "postgres")]
impl RdsConnectionManager<postgres::Client> {
    /// Returns the TLS connector for [`CancelToken::cancel_query`](postgres::CancelToken::cancel_query), which
    /// opens a connection of its own.
    ///
    /// With several hosts, whose root certificates may differ, it is that of the first.
    #[expect(
        clippy::indexing_slicing,
        reason = "a connection string names at least one server"
    )]
    pub fn tls(&self) -> crate::backend::PostgresTls {
        let server = &self.inner.servers[0];
        server.connector.tls()
    }
}

impl<C: Backend> r2d2::ManageConnection for RdsConnectionManager<C> {
    type Connection = C::Connection;
    type Error = C::Error;

    fn connect(&self) -> Result<C::Connection, C::Error> {
        let connection = match &self.pooled {
            Some(pooled) => pooled.visit(&self.inner),
            None => self.try_connect(),
        };
        Ok(connection?)
    }

    fn is_valid(&self, connection: &mut C::Connection) -> Result<(), C::Error> {
        if lifetime::is_draining() {
            return Ok(());
        }
        let Some(pooled) = &self.pooled else {
            return self.inner.ping(connection);
        };
        if pooled.process != process::id() {
            return Err(forked().into());
        }
        if pooled.lifetimes.retires_at_checkout() {
            lifetime::note_no_failure();
            lifetime::note_dropped_for(RetireReason::Lifetime);
            return Err(lifetime_ended().into());
        }
        if pooled.is_silent.load(Ordering::Relaxed) {
            return Err(idle_while_silent().into());
        }
        let begun = self.inner.clock.monotonic();
        let outcome = self.inner.ping(connection);
        if outcome.is_err() {
            let now = self.inner.clock.monotonic();
            if now.saturating_duration_since(begun) >= SILENT_AFTER {
                // Otherwise each of the other idle connections would take as long.
                pooled.is_silent.store(true, Ordering::Relaxed);
            }
        }
        if outcome.is_err() && self.inner.is_writer && C::ping(connection).is_ok() {
            lifetime::note_dropped_for(RetireReason::ReadOnly);
        }
        outcome
    }

    fn has_broken(&self, connection: &mut C::Connection) -> bool {
        let is_retired = if self.pooled.is_some() {
            lifetime::take_retirement()
        } else {
            warn_once_that_lifetimes_are_not_kept();
            false
        };
        is_retired || std::thread::panicking() || C::is_broken(connection)
    }
}

impl<C: Backend> Inner<C> {
    /// The passwords of the first server.
    fn passwords(&self) -> Option<&Passwords> {
        self.servers.first().map(|server| &server.passwords)
    }

    /// The test at checkout.
    fn ping(&self, connection: &mut C::Connection) -> Result<(), C::Error> {
        if self.is_writer {
            C::ping_writer(connection)
        } else {
            C::ping(connection)
        }
    }
}

impl<C: Backend> Clone for RdsConnectionManager<C> {
    fn clone(&self) -> Self {
        RdsConnectionManager {
            inner: self.inner.clone(),
            pooled: self.pooled.clone(),
        }
    }
}

impl<C: Backend> fmt::Debug for RdsConnectionManager<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RdsConnectionManager");
        if let Some(passwords) = self.inner.passwords() {
            debug.field("login", &passwords.kind());
        }
        if let Some(endpoint) = self.endpoint() {
            debug.field("endpoint", endpoint);
        }
        debug.finish_non_exhaustive()
    }
}

fn idle_while_silent() -> Error {
    Error::new(
        ErrorKind::Network,
        "the server stopped responding while this connection was idle; it is replaced",
    )
}

/// r2d2 shows this to a `get` that times out meanwhile.
fn lifetime_ended() -> Error {
    Error::new(
        ErrorKind::Network,
        "the lifetime of this connection has ended; it is replaced",
    )
}

fn forked() -> Error {
    Error::new(
        ErrorKind::Internal,
        "this pool was built before the process was forked, and its connections are the parent's; \
         build another pool in the child",
    )
}

fn warn_once_that_lifetimes_are_not_kept() {
    static IS_LOGGED: AtomicBool = AtomicBool::new(false);
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "this pool was not built by PoolBuilder, so max_lifetime is kept for idle connections only; build it by \
             PoolBuilder::new, pool_builder() or into_pool()"
        );
    }
}
