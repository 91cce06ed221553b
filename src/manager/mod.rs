//! r2d2's manager: a connection with a token that is good now, and one more attempt where a cached
//! token was refused. Nothing here panics outwards, since r2d2 loses a slot of the pool when
//! `connect` does.

mod builder;
mod connect;
mod dialer;
mod handoff;
mod health;
mod passwords;

use std::fmt;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use self::builder::ManagerBuilder;
pub(crate) use self::dialer::{Dialer, Opened, Workers};
use self::health::Health;
use self::passwords::Passwords;
use crate::auth::{IamAuth, LoginLimiter, Provenance};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, Stats};
use crate::lifetime::{self, Lifetimes};
use crate::roots::Roots;
use crate::token::Token;

/// Opens connections that log in with IAM tokens. An [`r2d2::ManageConnection`].
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
    connector: C::Connector,
    /// What is dialled, for whoever asks.
    parameters: Vec<(String, String)>,
    roots: Option<Roots>,
    passwords: Passwords,
    /// Shared with all managers that log in with the same settings and the same source of passwords.
    limiter: Arc<LoginLimiter>,
    health: Health,
    clock: Clock,
    events: Events,
    connect_timeout: Duration,
    is_writer: bool,
}

/// What the manager inside a pool shares with the threads that open its connections. It goes with the pool.
pub(crate) struct Pooled<C: Backend> {
    pub(crate) dialer: Dialer<C>,
    /// Below the pool's own timeout.
    pub(crate) connect_timeout: Duration,
    pub(crate) lifetimes: Arc<Lifetimes>,
    /// The pool is of no use in a child that is forked later.
    pub(crate) process: u32,
}

impl<C: Backend> RdsConnectionManager<C> {
    /// A manager for the database that a connection string names: a URL or libpq's
    /// `keyword=value` pairs, without a password.
    ///
    /// Credentials come from AWS's default chain, the region from the host name or the AWS
    /// configuration. The server's certificate is verified in full. Nothing is asked or dialled
    /// yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if the connection string cannot be read, names no user or host,
    /// or asks for something that IAM does not go with, such as `sslmode=prefer`.
    pub fn new(connection_string: &str) -> Result<Self, Error> {
        Self::builder(connection_string).build()
    }

    /// The same with more to set. A setting on the builder wins over one in the connection string.
    pub fn builder(connection_string: &str) -> ManagerBuilder<C> {
        ManagerBuilder::new(connection_string)
    }

    /// Opens one connection, in or outside a pool.
    ///
    /// This is `connect` of [`r2d2::ManageConnection`] with the typed error. It takes at most
    /// [`connect_timeout`](ManagerBuilder::connect_timeout) and the time that the system takes to look
    /// the host name up; with libpq, give or take a second, in which it counts, for each address that
    /// the name has.
    ///
    /// Where logins are refused again and again, or throttled, most of these calls fail at once with
    /// the last refusal, and the server is not asked: over all threads and pools of an identity in
    /// this process, six connects in a row are tried as they come, and after that 20 a minute at the
    /// most, one every 3 to 4 s. A login that works ends that for everyone.
    ///
    /// A process that exits waits for diesel's connections that are being opened by other threads, for 3 s
    /// at most, and opens no more: libpq crashes after the C libraries under it have freed their memory.
    ///
    /// A panic of the application's own code inside this call becomes an error, unless the application is
    /// built with `panic = "abort"`: then it ends the process.
    ///
    /// # Errors
    ///
    /// Every [`ErrorKind`] is possible.
    pub fn try_connect(&self) -> Result<C::Connection, Error> {
        let limit = self.pooled.as_ref().map(|pooled| pooled.connect_timeout);
        self.open_within(limit.unwrap_or(Duration::MAX))
    }

    pub(crate) fn open_within(&self, limit: Duration) -> Result<C::Connection, Error> {
        self.inner.open(limit.min(self.inner.connect_timeout))
    }

    /// Why the last attempt to open a connection failed, if none has worked since; over all clones
    /// and pools of this manager.
    ///
    /// r2d2 gives the cause to one of the callers that time out in `get` and only as text. Whoever
    /// keeps a clone of the manager beside the pool has it here, for every caller and with its kind.
    pub fn last_failure(&self) -> Option<Error> {
        self.inner.health.last_failure()
    }

    /// The token that a connection opened now would log in with, and whom it is for; its region is
    /// the one that was signed for, also where that came from the AWS configuration.
    ///
    /// For handing it to another program; connections of this manager have theirs without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if this manager does not log in with IAM, and those of
    /// [`TokenSource::token`](crate::TokenSource::token).
    pub fn token(&self) -> Result<(Endpoint, Arc<Token>), Error> {
        match &self.inner.passwords {
            Passwords::Iam {
                auth,
                source,
                endpoint,
            } => {
                let token = source.token()?;
                if endpoint.region().is_some() {
                    return Ok((endpoint.clone(), token));
                }
                let (region, _) = auth.region(endpoint)?;
                Ok((endpoint.clone().with_region(&region)?, token))
            }
            _ => Err(Error::configuration(
                "there is no token where login is not by iam; leave out the password and iam=off",
            )),
        }
    }

    /// What tokens are signed for; none where no token is used.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.inner.passwords.endpoint()
    }

    /// The identity that signs this manager's tokens; none where no token is used.
    pub fn auth(&self) -> Option<&IamAuth> {
        match &self.inner.passwords {
            Passwords::Iam { auth, .. } => Some(auth),
            _ => None,
        }
    }

    /// What is dialled and how, by libpq's keywords: what the connection string and the builder
    /// said, decoded, without the password, the `iam` parameters and `sslrootcert`, which is
    /// [`roots`](RdsConnectionManager::roots). With IAM there are always `host`, `port`, `user` and
    /// `sslmode`.
    ///
    /// For handing a connection to another program, together with
    /// [`token`](RdsConnectionManager::token).
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner
            .parameters
            .iter()
            .map(|(keyword, value)| (keyword.as_str(), value.as_str()))
    }

    /// What the server's certificate must go back to; `None` where `sslmode` does not verify it, or
    /// where that is left to the TLS library.
    pub fn roots(&self) -> Option<&Roots> {
        self.inner.roots.as_ref()
    }

    /// How often what happened so far, over all managers of this one's identity.
    pub fn stats(&self) -> Stats {
        self.inner.events.stats()
    }

    pub(crate) fn in_pool(&self, pooled: Pooled<C>) -> Self {
        RdsConnectionManager {
            inner: self.inner.clone(),
            pooled: Some(Arc::new(pooled)),
        }
    }

    pub(crate) fn parameter(&self, keyword: &str) -> Option<&str> {
        let found = self.parameters().find(|(name, _)| *name == keyword);
        found.map(|(_, value)| value)
    }

    /// What tokens are signed with; none where no token is used.
    pub(crate) fn provenance(&self) -> Option<Provenance> {
        self.inner.passwords.source()?.provenance()
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
    /// What [`CancelToken::cancel_query`](postgres::CancelToken::cancel_query) needs to reach the
    /// server as this manager's connections do.
    pub fn tls(&self) -> crate::backend::PostgresTls {
        self.inner.connector.tls()
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
        let outcome = self.inner.ping(connection);
        if outcome.is_err() && self.inner.is_writer && C::ping(connection).is_ok() {
            lifetime::note_read_only();
        }
        outcome
    }

    fn has_broken(&self, connection: &mut C::Connection) -> bool {
        let is_retired = if self.pooled.is_some() {
            lifetime::take_retirement()
        } else {
            say_once_that_lives_are_not_kept();
            false
        };
        is_retired || std::thread::panicking() || C::is_broken(connection)
    }
}

impl<C: Backend> Inner<C> {
    /// What is asked when a connection is taken.
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
        match &self.inner.passwords {
            Passwords::Iam { endpoint, .. } => {
                debug.field("login", &"iam").field("endpoint", endpoint)
            }
            Passwords::Fixed(_) => debug.field("login", &"password"),
            Passwords::Rotating(_) => debug.field("login", &"rotating password"),
            Passwords::Libpq => debug.field("login", &"libpq"),
        };
        debug.finish_non_exhaustive()
    }
}

fn forked() -> Error {
    Error::new(
        ErrorKind::Internal,
        "this pool was built before the process was forked, and its connections are the parent's; \
         build another pool in the child",
    )
}

fn say_once_that_lives_are_not_kept() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "this pool was built without pool_builder() or into_pool(), so max_lifetime is kept \
             for idle connections only"
        );
    }
}
