//! r2d2's manager: a connection with a token that is good now, and one more attempt where a cached
//! token was refused. Nothing here panics outwards, since r2d2 loses a slot of the pool when
//! `connect` does.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::auth::{IamAuth, IamAuthBuilder, Offer, Password, PasswordKind, TokenSource};
use crate::backend::Backend;
use crate::clock::{Clock, Moment};
use crate::credentials::AssumeRole;
use crate::endpoint::{ConnectionString, Endpoint, Login, SslMode};
use crate::error::{Error, ErrorKind};
use crate::event::{ConnectionOpened, Events, LoginRefused, LoginRetried, Stats};
use crate::lifetime::{self, Lifetimes};
use crate::roots::Roots;
use crate::token::Token;

/// How long opening a connection may take, with the token and a second attempt inside it. Below the
/// 10 s for which a pool's callers wait, so that they are told why.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(9);

/// With less time left than this, a second attempt would only hide the answer to the first.
const LEAST_TIME_FOR_AN_ATTEMPT: Duration = Duration::from_secs(1);

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
    /// Present in the manager that a pool of [`PoolBuilder`]'s has.
    pooled: Option<Arc<Pooled<C>>>,
}

struct Inner<C: Backend> {
    connector: C::Connector,
    passwords: Passwords,
    clock: Clock,
    events: Events,
    connect_timeout: Duration,
}

/// Where the password of a login comes from.
enum Passwords {
    Iam(TokenSource, Endpoint),
    Rotating(TokenSource),
    Fixed(Arc<Token>),
    /// What libpq finds, or none.
    Libpq,
}

/// What a manager knows of the one pool that it is in.
pub(crate) struct Pooled<C> {
    /// Opened to see whether it works, and handed to whoever asks first.
    pub(crate) first: Mutex<Option<C>>,
    /// Below the pool's own timeout.
    pub(crate) connect_timeout: Duration,
    pub(crate) lifetimes: Option<Arc<Lifetimes>>,
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
        ManagerBuilder {
            target: ConnectionString::parse(connection_string),
            auth: None,
            auth_settings: IamAuth::builder(),
            password: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            connection: std::marker::PhantomData,
        }
    }

    /// Opens one connection, in or outside a pool.
    ///
    /// This is `connect` of [`r2d2::ManageConnection`] with the typed error. It takes at most
    /// [`connect_timeout`](ManagerBuilder::connect_timeout), give or take a second, in which libpq
    /// counts, for each address that the host name has.
    ///
    /// A process that ends waits for diesel's connections that are being opened, for a second at
    /// the most, and opens no more: libpq crashes where the C libraries under it are torn down.
    ///
    /// # Errors
    ///
    /// Every [`ErrorKind`] is possible.
    pub fn try_connect(&self) -> Result<C, Error> {
        let limit = match &self.pooled {
            Some(pooled) => pooled.connect_timeout.min(self.inner.connect_timeout),
            None => self.inner.connect_timeout,
        };
        panic::catch_unwind(AssertUnwindSafe(|| self.inner.log_in(limit))).unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "opening a connection panicked; the panic's message tells where",
            ))
        })
    }

    /// The token that a connection opened now would log in with, and whom it is for.
    ///
    /// For handing it to another program; connections of this manager have theirs without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if this manager does not log in with IAM, and those of
    /// [`TokenSource::token`].
    pub fn token(&self) -> Result<(Endpoint, Arc<Token>), Error> {
        match &self.inner.passwords {
            Passwords::Iam(source, endpoint) => Ok((endpoint.clone(), source.token()?)),
            _ => Err(Error::configuration(
                "there is no token where login is not by iam; leave out the password and iam=off",
            )),
        }
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

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn events(&self) -> &Events {
        &self.inner.events
    }

    pub(crate) fn lifetimes(&self) -> Option<Arc<Lifetimes>> {
        self.pooled.as_ref()?.lifetimes.clone()
    }

    /// What tokens are signed for; none where no token is used.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.inner.passwords {
            Passwords::Iam(_, endpoint) => Some(endpoint),
            _ => None,
        }
    }
}

impl<C: Backend> r2d2::ManageConnection for RdsConnectionManager<C> {
    type Connection = C;
    type Error = C::Error;

    fn connect(&self) -> Result<C, C::Error> {
        let first = self
            .pooled
            .as_ref()
            .and_then(|pooled| pooled.first.lock().take());
        if let Some(mut first) = first {
            // It may have waited for long, in a pool that keeps no idle connections.
            if first.ping().is_ok() {
                return Ok(first);
            }
        }
        Ok(self.try_connect()?)
    }

    fn is_valid(&self, connection: &mut C) -> Result<(), C::Error> {
        connection.ping()
    }

    fn has_broken(&self, connection: &mut C) -> bool {
        let is_retired = match &self.pooled {
            Some(pooled) => pooled.lifetimes.is_some() && lifetime::take_verdict(),
            None => {
                say_once_that_lives_are_not_kept();
                false
            }
        };
        is_retired || std::thread::panicking() || connection.is_broken()
    }
}

impl<C: Backend> Inner<C> {
    fn log_in(&self, limit: Duration) -> Result<C, Error> {
        let started = self.clock.now();
        let mut offer = self.passwords.offer()?;
        loop {
            let error = match self.attempt(offer.as_ref(), limit, &started) {
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
            });
            let (Some(source), Some(refused)) = (self.passwords.source(), &offer) else {
                return Err(error);
            };
            // What replaces it counts as new, so this goes round twice at the most.
            match source.replace(refused)? {
                Some(replacement) if now.since(&started) + LEAST_TIME_FOR_AN_ATTEMPT < limit => {
                    let token = &replacement.token;
                    self.events.login_retried(&LoginRetried { token });
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
    ) -> Result<C, Error> {
        let left = limit.saturating_sub(self.clock.now().since(started));
        let password = offer.map(|offer| offer.token.expose_secret());
        let connection = C::establish(&self.connector, password, left)?;
        self.events.connection_opened(&ConnectionOpened {
            token: offer.map(|offer| &*offer.token),
            took: self.clock.now().since(started),
        });
        Ok(connection)
    }
}

impl Passwords {
    fn offer(&self) -> Result<Option<Offer>, Error> {
        match self {
            Passwords::Iam(source, _) | Passwords::Rotating(source) => source.offer().map(Some),
            Passwords::Fixed(token) => Ok(Some(Offer {
                token: token.clone(),
                is_cached: false,
            })),
            Passwords::Libpq => Ok(None),
        }
    }

    /// Where another comes from when one is refused.
    fn source(&self) -> Option<&TokenSource> {
        match self {
            Passwords::Iam(source, _) | Passwords::Rotating(source) => Some(source),
            Passwords::Fixed(_) | Passwords::Libpq => None,
        }
    }

    fn refused_for_good(&self, cause: Error) -> Error {
        let message = match self {
            Passwords::Iam(_, endpoint) => format!(
                "login as {:?} was refused with a new token; check that the user exists and has \
                 been granted rds_iam, that the policy allows rds-db:connect for it, and this \
                 machine's clock",
                endpoint.user()
            ),
            _ => {
                "login was refused with the password that its source gives at present; check that \
                  it is this user's, and that the user is no member of rds_iam"
                    .to_owned()
            }
        };
        Error::with_cause(ErrorKind::LoginRefused, message, cause)
    }
}

/// What a user set on the builder.
impl From<&Password> for Passwords {
    fn from(password: &Password) -> Passwords {
        match password.kind() {
            PasswordKind::Fixed(token) => Passwords::Fixed(token.clone()),
            PasswordKind::Rotating(source) => Passwords::Rotating(source.clone()),
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
            Passwords::Iam(_, endpoint) => debug.field("login", &"iam").field("endpoint", endpoint),
            Passwords::Fixed(_) => debug.field("login", &"password"),
            Passwords::Rotating(_) => debug.field("login", &"rotating password"),
            Passwords::Libpq => debug.field("login", &"libpq"),
        };
        debug.finish_non_exhaustive()
    }
}

/// Settings of an [`RdsConnectionManager`].
#[must_use]
pub struct ManagerBuilder<C> {
    target: Result<ConnectionString, Error>,
    auth: Option<IamAuth>,
    /// What `auth` is made from if there is none.
    auth_settings: IamAuthBuilder,
    password: Option<Password>,
    connect_timeout: Duration,
    connection: std::marker::PhantomData<fn() -> C>,
}

impl<C: Backend> ManagerBuilder<C> {
    /// Signs tokens with this identity. By default one is made from `iam_profile`, `iam_role_arn`,
    /// `iam_external_id` and `iam_session_name` of the connection string, or else from AWS's
    /// default chain.
    pub fn auth(mut self, auth: IamAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Logs in with this password instead of IAM, and not with one of the connection string.
    ///
    /// TLS is as with IAM: `verify-full` against RDS's roots, unless `sslmode` and `sslrootcert`
    /// say otherwise. Other than with IAM, every `sslmode` may be asked for by name, `disable` for a
    /// database on this machine; a Unix socket needs none.
    pub fn password(mut self, password: Password) -> Self {
        self.password = Some(password);
        self.set(ConnectionString::supply_password)
    }

    /// Refuses a connection string with a password, or with `iam=off`, instead of logging in with
    /// that; `iam=on` of the connection string.
    pub fn require_iam(self) -> Self {
        self.set(ConnectionString::require_iam)
    }

    /// The region to sign for; `iam_region` of the connection string. By default it is read from
    /// the host name, or else from the AWS configuration.
    pub fn region(self, region: impl Into<String>) -> Self {
        self.set(|target| target.iam.region = Some(region.into()))
    }

    /// The database's real name, to sign for, where another is dialled: behind a CNAME, a tunnel or
    /// a load balancer. `iam_host` and `iam_port` of the connection string.
    pub fn sign_for(self, host: impl Into<String>, port: u16) -> Self {
        self.set(|target| {
            target.iam.host = Some(host.into());
            target.iam.port = Some(port);
        })
    }

    /// The database user.
    pub fn user(self, user: &str) -> Self {
        self.set(|target| target.set_user(user))
    }

    /// How far the server's certificate is verified. [`SslMode::VerifyFull`] by default with IAM.
    pub fn sslmode(self, mode: SslMode) -> Self {
        self.set(|target| target.set_sslmode(mode))
    }

    /// A PEM file with the roots to trust, or `system`. By default this crate's own of RDS's, for
    /// the region.
    pub fn sslrootcert(self, path: &str) -> Self {
        self.set(|target| target.set_sslrootcert(path))
    }

    /// How long opening a connection may take, with the token and a second attempt inside it. 9 s
    /// by default, and in a pool nine tenths of its `connection_timeout` if that is less. libpq
    /// counts whole seconds, from two.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Checks it all. Nothing is asked or dialled yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`], as [`RdsConnectionManager::new`].
    pub fn build(self) -> Result<RdsConnectionManager<C>, Error> {
        let target = self.target?;
        target.check()?;
        if self.auth.is_some() && self.password.is_some() {
            return Err(Error::configuration(
                "both auth and password are set on the builder; keep the one to log in with",
            ));
        }
        let auth = match self.auth {
            Some(auth) => auth,
            None => auth_of(&target, self.auth_settings)?,
        };
        let (mut clock, mut events) = (auth.clock().clone(), auth.events().clone());
        let passwords = match target.login() {
            Login::Iam => {
                let endpoint = target.endpoint()?;
                Passwords::Iam(auth.source(&endpoint), endpoint)
            }
            Login::Supplied => match &self.password {
                Some(password) => {
                    (clock, events) = (password.clock(), password.events());
                    Passwords::from(password)
                }
                None => Passwords::Libpq,
            },
            Login::Password(password) => {
                tracing::info!(
                    user = target.get("user"),
                    "a password is set, so IAM is not used"
                );
                let password = Zeroizing::new(password.expose().to_owned());
                Passwords::Fixed(Arc::new(Token::everlasting(password, clock.now())))
            }
            Login::None => Passwords::Libpq,
        };
        let roots = roots_for(&target)?;
        Ok(RdsConnectionManager {
            inner: Arc::new(Inner {
                connector: C::prepare(&target, roots.as_ref())?,
                passwords,
                clock,
                events,
                connect_timeout: self.connect_timeout,
            }),
            pooled: None,
        })
    }

    /// Settings of the identity that the connection string names.
    #[cfg(feature = "config")]
    pub(crate) fn tune_auth(mut self, tune: impl FnOnce(IamAuthBuilder) -> IamAuthBuilder) -> Self {
        self.auth_settings = tune(self.auth_settings);
        self
    }

    pub(crate) fn set(mut self, change: impl FnOnce(&mut ConnectionString)) -> Self {
        if let Ok(target) = &mut self.target {
            change(target);
        }
        self
    }
}

impl<C> fmt::Debug for ManagerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("target", &self.target)
            .field("auth", &self.auth)
            .field("password", &self.password)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// The roots that the server's certificate must go back to; `None` leaves it to the TLS library,
/// as `sslmode=require` and logins without IAM do.
fn roots_for(target: &ConnectionString) -> Result<Option<Roots>, Error> {
    let verifies = target.sslmode()?.is_some_and(|mode| mode.verifies());
    match (target.sslrootcert(), target.login()) {
        (Some(given), _) => Roots::given(given).map(Some),
        (None, Login::Iam | Login::Supplied) if verifies => {
            Roots::carried(&target.endpoint()?).map(Some)
        }
        _ => Ok(None),
    }
}

/// The identity that a connection string names.
fn auth_of(target: &ConnectionString, mut builder: IamAuthBuilder) -> Result<IamAuth, Error> {
    if let Some(profile) = &target.iam.profile {
        builder = builder.profile(profile);
    }
    if let Some(arn) = &target.iam.role_arn {
        let mut role = AssumeRole::new(arn);
        if let Some(id) = &target.iam.external_id {
            role = role.external_id(id);
        }
        if let Some(name) = &target.iam.session_name {
            role = role.session_name(name);
        }
        builder = builder.assume_role(role);
    }
    builder.build()
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
