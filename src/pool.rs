//! Builds an r2d2 pool with settings for IAM.
//!
//! r2d2's own builder has no getters, so `lifetime` could not read the user's settings from it. Some of its
//! combinations also fail: `min_idle` above `max_size` panics, `min_idle` of 0 starves waiting callers after
//! a retirement, and a pool whose first connects fail reports nothing until it times out.

mod announce;
mod customizer;
mod error_handler;
mod first;
mod has_manager;
mod retire;
mod workers;

use std::fmt;
use std::process;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use r2d2::{CustomizeConnection, HandleError, HandleEvent, NopConnectionCustomizer, Pool};
use scheduled_thread_pool::ScheduledThreadPool;

use self::announce::announce;
use self::customizer::GuardedCustomizer;
use self::error_handler::{DebugErrorHandler, GuardedErrorHandler};
pub use self::has_manager::HasRdsManager;
pub use self::retire::retire_all;
use crate::backend::{Backend, sealed};
use crate::clock::FOREVER;
use crate::cluster::Balance;
use crate::endpoint::{Endpoint, Engine};
use crate::error::Error;
use crate::lifetime::{LifetimeHandler, Lifetimes, idle_timeout};
use crate::manager::{Connected, Dialer, Opened, Pooled, RdsConnectionManager, Workers};

const DEFAULT_MAX_SIZE: u32 = 10;
const DEFAULT_MIN_IDLE: u32 = 2;
const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(14 * 60);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DEFAULT_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Aurora DSQL closes every session after an hour.
const DSQL_LONGEST_LIFETIME: Duration = Duration::from_secs(59 * 60);

/// The connection that the contained manager opens.
type Opens<M> = <<M as HasRdsManager>::Backend as sealed::Backend>::Connection;

impl<C: Backend> RdsConnectionManager<C> {
    /// Builds a pool with this crate's defaults; see [`PoolBuilder`].
    ///
    /// # Errors
    ///
    /// See [`PoolBuilder::build`].
    pub fn into_pool(self) -> Result<r2d2::Pool<Self>, Error> {
        self.pool_builder().build()
    }

    /// Returns a builder for a pool with other settings: [`PoolBuilder::new`] with a clone of this manager. One manager
    /// can serve any number of pools.
    pub fn pool_builder(&self) -> PoolBuilder<Self> {
        PoolBuilder::new(self.clone())
    }
}

/// Builds an [`r2d2::Pool`]. The settings have the names of [`r2d2::Builder`] and other defaults.
///
/// The pool belongs to the process that built it. In a child that is forked later, `get` fails, since the
/// connections are the parent's. Pass it to [`std::mem::forget`] there; dropping it would close the parent's
/// idle connections. The child can open connections by
/// [`try_connect`](RdsConnectionManager::try_connect). A second pool there can hang, since r2d2's threads
/// were waiting in the parent: build pools after the fork.
///
/// A duration of a hundred years or more, such as [`Duration::MAX`], means no limit.
#[must_use]
pub struct PoolBuilder<M: HasRdsManager> {
    manager: M,
    /// A clone of the one that `manager` contains.
    rds: Option<RdsConnectionManager<M::Backend>>,
    max_size: u32,
    min_idle: Option<u32>,
    test_on_check_out: bool,
    max_lifetime: Option<Duration>,
    idle_timeout: Option<Duration>,
    connection_timeout: Option<Duration>,
    startup_timeout: Duration,
    thread_pool: Option<Arc<ScheduledThreadPool>>,
    error_handler: Box<dyn HandleError<M::Error>>,
    event_handler: Option<Box<dyn HandleEvent>>,
    customizer: Box<dyn CustomizeConnection<M::Connection, M::Error>>,
}

impl<M: HasRdsManager> PoolBuilder<M> {
    /// Creates a builder for a pool of `manager`, which is or contains an [`RdsConnectionManager`].
    pub fn new(mut manager: M) -> PoolBuilder<M> {
        PoolBuilder {
            rds: manager.rds_manager().cloned(),
            manager,
            max_size: DEFAULT_MAX_SIZE,
            min_idle: Some(DEFAULT_MIN_IDLE),
            test_on_check_out: true,
            max_lifetime: Some(DEFAULT_MAX_LIFETIME),
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            connection_timeout: None,
            startup_timeout: Duration::ZERO,
            thread_pool: None,
            error_handler: Box::new(DebugErrorHandler),
            event_handler: None,
            customizer: Box::new(NopConnectionCustomizer),
        }
    }

    /// Sets the maximum number of connections. Default: 10. At least 1.
    pub fn max_size(mut self, max_size: u32) -> Self {
        self.max_size = max_size;
        self
    }

    /// Sets the minimum number of idle connections. Default: 2. `None` means `max_size`.
    ///
    /// More than `max_size` counts as `max_size`. With 0, no connection stays open after
    /// [`idle_timeout`](PoolBuilder::idle_timeout), so that a database can pause. Connections whose lifetime has ended
    /// are then dropped at their next checkout, since r2d2 replaces none for a caller that waits. So 0 counts as 1
    /// without [`test_on_check_out`](PoolBuilder::test_on_check_out), unless `max_lifetime` is `None`.
    pub fn min_idle(mut self, min_idle: Option<u32>) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// Sets whether a connection is tested at checkout, with one round trip. Default: true. A
    /// [writer](crate::ManagerBuilder::writer) requires it.
    pub fn test_on_check_out(mut self, test: bool) -> Self {
        self.test_on_check_out = test;
        self
    }

    /// Sets the maximum lifetime of a connection. Default: 14 minutes. `None` means no limit.
    ///
    /// A session outlives the token that it was opened with. This limit bounds how long a revoked identity
    /// keeps a session, makes the pool follow the database's DNS name after a failover, and spreads sessions
    /// over readers that were added.
    ///
    /// Each connection has its own lifetime, between 90 and 100 % of the maximum. It is retired at the first
    /// check-in after that, and at most a tenth of the pool is replaced at a time. r2d2's reaper retires idle
    /// connections; it runs every 30 s. With Aurora DSQL the limit is 59 minutes at most.
    pub fn max_lifetime(mut self, max_lifetime: Option<Duration>) -> Self {
        self.max_lifetime = max_lifetime.map(|limit| limit.min(FOREVER));
        self
    }

    /// Sets how long a connection may be idle. Default: 10 minutes. `None` means no limit.
    ///
    /// Each pool has its own limit, between 60 and 100 % of this, which r2d2's
    /// [`idle_timeout`](r2d2::Pool::idle_timeout) returns. r2d2's reaper closes such connections; it runs every 30 s
    /// and also replaces those of `min_idle`. With one limit, all pools that started together would log in again in
    /// the same second.
    pub fn idle_timeout(mut self, idle_timeout: Option<Duration>) -> Self {
        self.idle_timeout = idle_timeout.map(|limit| limit.min(FOREVER));
        self
    }

    /// Sets how long `get` waits. Default: 10 s, or a ninth more than the manager's `connect_timeout` if that is
    /// longer. No connect takes longer than nine tenths of it. [`get_timeout`](r2d2::Pool::get_timeout) is r2d2's own
    /// and panics with a time-out near [`Duration::MAX`].
    ///
    /// r2d2 waits for up to half of this between two attempts of the same slot. While the server is
    /// unreachable, the pool probes it every 0.5 s, unless its workers are
    /// [shared](PoolBuilder::thread_pool). A pool of ten busy connections therefore reconnects within about a
    /// second of the server's return; a pool with one or two slots may take up to half of this time.
    pub fn connection_timeout(mut self, connection_timeout: Duration) -> Self {
        self.connection_timeout = Some(connection_timeout.min(FOREVER));
        self
    }

    /// Sets the worker threads, which several pools can share. Default: three threads for each pool, which
    /// end with it.
    ///
    /// Shared workers open connections themselves and are not kept busy by a pool whose server is
    /// unreachable. Such a pool takes up to half of `connection_timeout` to reconnect after the server's
    /// return, and a dropped one ends after the attempts that are under way.
    pub fn thread_pool(mut self, thread_pool: Arc<ScheduledThreadPool>) -> Self {
        self.thread_pool = Some(thread_pool);
        self
    }

    /// Sets the handler of failed connects and failed checkout tests. By default they are logged at DEBUG,
    /// and consecutive connect failures once at WARN. r2d2's `LoggingErrorHandler` logs each as an error.
    pub fn error_handler(mut self, handler: Box<dyn HandleError<M::Error>>) -> Self {
        self.error_handler = handler;
        self
    }

    /// Sets the handler of r2d2's events. Default: none.
    pub fn event_handler(mut self, handler: Box<dyn HandleEvent>) -> Self {
        self.event_handler = Some(handler);
        self
    }

    /// Sets a customizer that prepares each new connection. Default: none.
    pub fn connection_customizer(
        mut self,
        customizer: Box<dyn CustomizeConnection<M::Connection, M::Error>>,
    ) -> Self {
        self.customizer = customizer;
        self
    }

    /// Sets how long [`build`](PoolBuilder::build) keeps trying to open the first connection. Default: zero, so that
    /// the first failure is returned at once.
    ///
    /// For an application that starts together with its database. Only failures that may pass are tried again, every
    /// half a second: the server cannot be reached, accepts no logins or throttles them, or there are no credentials
    /// yet. After this time the last error is returned. A connect that is under way then is waited for.
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup_timeout = timeout.min(FOREVER);
        self
    }

    /// Opens one connection, builds the pool with it, and returns when it is in the pool.
    ///
    /// # Errors
    ///
    /// The error of that connection, without waiting for a time-out unless there is a
    /// [`startup_timeout`](PoolBuilder::startup_timeout);
    /// [`ErrorKind::Customizer`](crate::ErrorKind::Customizer) if the customizer fails with it;
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a size or a time of zero, and for a
    /// writer without the checkout test; [`ErrorKind::Internal`](crate::ErrorKind::Internal) if no thread can
    /// be started.
    pub fn build(self) -> Result<Pool<M>, Error> {
        let rds = self.check()?;
        let balance = Arc::default();
        // The threads start while the server is waited for.
        let workers = self.workers()?;
        let first = first::open(self.startup_timeout, || {
            rds.open_within(self.connect_timeout(), &balance)
        })?;
        let (startup_timeout, limit) = (self.startup_timeout, self.longest_wait());
        let pool = self.assemble(&rds, Some(first), balance, workers);
        first::wait_until_added(&pool, &rds, startup_timeout, limit)?;
        Ok(pool)
    }

    /// Builds the pool without a connection. Its workers connect as soon as they can.
    ///
    /// For applications that start before their database.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal), as [`build`](PoolBuilder::build).
    pub fn build_unchecked(self) -> Result<Pool<M>, Error> {
        let rds = self.check()?;
        let workers = self.workers()?;
        Ok(self.assemble(&rds, None, Arc::default(), workers))
    }

    /// Checks the settings, and returns the contained manager.
    fn check(&self) -> Result<RdsConnectionManager<M::Backend>, Error> {
        let Some(rds) = &self.rds else {
            return Err(Error::configuration(
                "this manager contains no RdsConnectionManager at present; build its pool with r2d2::Pool::builder()",
            ));
        };
        if rds.is_writer() && !self.test_on_check_out {
            return Err(Error::configuration(
                "writer() needs the test at checkout to notice a server that has become read-only; leave out \
                 test_on_check_out(false), or writer() and target_session_attrs",
            ));
        }
        let is_zero = |time: Option<Duration>| time.is_some_and(|time| time.is_zero());
        let wrong = if self.max_size == 0 {
            "max_size"
        } else if is_zero(self.connection_timeout) {
            "connection_timeout"
        } else if is_zero(self.max_lifetime) {
            "max_lifetime"
        } else if is_zero(self.idle_timeout) {
            "idle_timeout"
        } else {
            return Ok(rds.clone());
        };
        Err(Error::configuration(format!(
            "{wrong} of the pool is zero; set more"
        )))
    }

    fn workers(&self) -> Result<Arc<ScheduledThreadPool>, Error> {
        match &self.thread_pool {
            Some(shared) => Ok(shared.clone()),
            None => workers::start(),
        }
    }

    fn assemble(
        mut self,
        rds: &RdsConnectionManager<M::Backend>,
        first: Option<Connected<Opens<M>>>,
        balance: Arc<Balance>,
        workers: Arc<ScheduledThreadPool>,
    ) -> Pool<M> {
        let max_lifetime = self.longest_life();
        let longest_wait = self.longest_wait();
        let fewest_idle = self.fewest_idle();
        let pooled = self.pooled(balance, &workers);
        if let Some(connected) = first {
            let opened = Opened::new(connected, 0, rds.clock());
            pooled.dialer.handoff.put(opened);
        }
        let lifetimes = pooled.lifetimes.clone();
        announce(rds, self.max_size, max_lifetime);
        if let Some(contained) = self.manager.rds_manager() {
            *contained = rds.in_pool(pooled);
        }
        let handler = LifetimeHandler {
            lifetimes,
            clock: rds.clock().clone(),
            events: rds.events().clone(),
            held: Mutex::default(),
            inner: self.event_handler,
        };
        Pool::builder()
            .max_size(self.max_size)
            .min_idle(fewest_idle)
            .test_on_check_out(self.test_on_check_out)
            .max_lifetime(max_lifetime)
            .idle_timeout(self.idle_timeout.map(idle_timeout))
            .connection_timeout(longest_wait)
            .error_handler(Box::new(GuardedErrorHandler(self.error_handler)))
            .event_handler(Box::new(handler))
            .connection_customizer(Box::new(GuardedCustomizer::new(
                self.customizer,
                rds.clock().clone(),
                rds.note_customizer_failure(),
            )))
            .thread_pool(workers)
            .build_unchecked(self.manager)
    }

    /// Shorter than `get` waits, so that it returns the reason of a failure.
    fn connect_timeout(&self) -> Duration {
        let longest = self.longest_wait() * 9 / 10;
        let configured = self.configured_connect_timeout();
        configured.map_or(longest, |limit| limit.min(longest))
    }

    fn longest_wait(&self) -> Duration {
        self.connection_timeout.unwrap_or_else(|| {
            let connect_timeout = self.configured_connect_timeout().unwrap_or_default();
            let with_reserve = connect_timeout.saturating_mul(10) / 9;
            with_reserve.clamp(DEFAULT_CONNECTION_TIMEOUT, FOREVER)
        })
    }

    fn configured_connect_timeout(&self) -> Option<Duration> {
        self.rds.as_ref()?.connect_timeout()
    }

    fn pooled(
        &self,
        balance: Arc<Balance>,
        workers: &Arc<ScheduledThreadPool>,
    ) -> Pooled<M::Backend> {
        let own_workers = match self.thread_pool {
            Some(_) => None,
            None => Some(Workers::new(workers, workers::COUNT)),
        };
        Pooled {
            dialer: Dialer::new(own_workers),
            connect_timeout: self.connect_timeout(),
            lifetimes: Arc::new(
                Lifetimes::new(self.longest_life(), self.max_size, self.longest_wait())
                    .retiring_at_checkout(self.fewest_idle() == Some(0)),
            ),
            balance,
            is_silent: AtomicBool::new(false),
            process: process::id(),
        }
    }

    fn fewest_idle(&self) -> Option<u32> {
        // A retired connection would not be replaced for a caller that waits.
        let starves = self.longest_life().is_some() && !self.test_on_check_out;
        self.min_idle
            .map(|wanted| wanted.clamp(starves.into(), self.max_size))
    }

    fn longest_life(&self) -> Option<Duration> {
        let endpoint = self.rds.as_ref().and_then(RdsConnectionManager::endpoint);
        match endpoint.map(Endpoint::engine) {
            Some(Engine::Dsql) => {
                let limit = DSQL_LONGEST_LIFETIME;
                Some(
                    self.max_lifetime
                        .map_or(limit, |lifetime| lifetime.min(limit)),
                )
            }
            _ => self.max_lifetime,
        }
    }
}

impl<M: HasRdsManager> fmt::Debug for PoolBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("manager", &self.rds)
            .field("max_size", &self.max_size)
            .field("min_idle", &self.min_idle)
            .field("max_lifetime", &self.max_lifetime)
            .field("idle_timeout", &self.idle_timeout)
            .field("connection_timeout", &self.connection_timeout)
            .finish_non_exhaustive()
    }
}
