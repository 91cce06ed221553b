//! Settings of a manager, and what is made of them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::health::Health;
use super::passwords::Passwords;
use super::{Inner, RdsConnectionManager};
use crate::auth::{IamAuth, IamAuthBuilder, Password};
use crate::backend::Backend;
use crate::credentials::AssumeRole;
use crate::endpoint::{ConnectionString, Login, SslMode};
use crate::error::Error;
use crate::roots::Roots;
use crate::token::Token;

/// How long opening a connection may take, with the token and a second attempt inside it. Below the
/// 10 s for which a pool's callers wait, so that they are told why.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(9);

/// Settings of an [`RdsConnectionManager`].
#[must_use]
pub struct ManagerBuilder<C> {
    target: Result<ConnectionString, Error>,
    auth: Option<IamAuth>,
    /// What `auth` is made from if there is none.
    auth_settings: IamAuthBuilder,
    password: Option<Password>,
    connect_timeout: Duration,
    connection: PhantomData<fn() -> C>,
}

impl<C: Backend> ManagerBuilder<C> {
    pub(super) fn new(connection_string: &str) -> Self {
        ManagerBuilder {
            target: ConnectionString::parse(connection_string),
            auth: None,
            auth_settings: IamAuth::builder(),
            password: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            connection: PhantomData,
        }
    }

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

    /// A profile of AWS's configuration files to take credentials from; `iam_profile` of the
    /// connection string. Not looked at where [`auth`](ManagerBuilder::auth) is set.
    pub fn profile(self, name: impl Into<String>) -> Self {
        self.set(|target| target.iam.profile = Some(name.into()))
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

    /// Connects to a server that takes writes, and to no other; `target_session_attrs=read-write` of
    /// the connection string. `primary` counts as `read-write`. False by default.
    ///
    /// A server that is read-only is passed over when a connection is opened, with
    /// [`ErrorKind::ServerUnavailable`](crate::ErrorKind::ServerUnavailable), and so is a connection of
    /// a pool whose server became read-only, in the one round trip (with the crate `postgres` two) that
    /// is made when it is taken. So a pool gets back to the writer after a failover. What was under way
    /// on the old one fails with SQLSTATE 25006, `DatabaseErrorKind::ReadOnlyTransaction` of diesel's:
    /// return that connection, take another and begin again.
    ///
    /// Read-only is what `transaction_read_only` says: a standby, and a server, database or user
    /// with `default_transaction_read_only`.
    pub fn writer(self) -> Self {
        self.set(ConnectionString::require_writer)
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
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration), as [`RdsConnectionManager::new`].
    pub fn build(self) -> Result<RdsConnectionManager<C>, Error> {
        let mut target = self.target?;
        if target.wants_writer() {
            target.require_writer();
        }
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
                Passwords::Iam {
                    source: auth.source(&endpoint),
                    auth,
                    endpoint,
                }
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
        // Whoever logs in elsewhere, as another or to another database may not be refused there.
        let whereto = ["user", "host", "hostaddr", "port", "dbname"]
            .map(|keyword| target.get(keyword).unwrap_or_default())
            .join("\n");
        let backoff = match passwords.source() {
            Some(source) => source.backoff(&whereto),
            None => Arc::default(),
        };
        let mut parameters: Vec<_> = target
            .parameters()
            .map(|(keyword, value)| (keyword.to_owned(), value.to_owned()))
            .collect();
        if let Some(mode) = target.sslmode()? {
            parameters.push(("sslmode".to_owned(), mode.as_str().to_owned()));
        }
        Ok(RdsConnectionManager {
            inner: Arc::new(Inner {
                connector: C::prepare(&target, roots.as_ref())?,
                parameters,
                roots,
                passwords,
                backoff,
                health: Health::default(),
                clock,
                events,
                connect_timeout: self.connect_timeout,
                is_writer: target.wants_writer(),
            }),
            pooled: None,
        })
    }

    /// Changes the settings of the identity that the connection string names, such as
    /// [`token_lifetime`](IamAuthBuilder::token_lifetime). Has no effect if
    /// [`auth`](ManagerBuilder::auth) is set.
    pub fn tune_auth(mut self, tune: impl FnOnce(IamAuthBuilder) -> IamAuthBuilder) -> Self {
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
