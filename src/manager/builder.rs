//! The settings of a manager.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::Members;
use super::health::Health;
use super::server::{Login, servers_of};
use super::{DEFAULT_CONNECT_TIMEOUT, Inner, RdsConnectionManager};
use crate::auth::{IamAuth, IamAuthBuilder, Password};
use crate::backend::Backend;
use crate::clock::FOREVER;
use crate::cluster::Cluster;
use crate::credentials::AssumeRole;
use crate::dial::Resolver;
use crate::endpoint::{self, ConnectionString, SslMode};
use crate::error::Error;

/// Builds an [`RdsConnectionManager`].
#[must_use]
pub struct ManagerBuilder<C: Backend> {
    target: Result<ConnectionString, Error>,
    auth: Option<IamAuth>,
    /// The settings of the identity if `auth` is not set.
    auth_settings: IamAuthBuilder,
    password: Option<Password>,
    connect_timeout: Option<Duration>,
    resolver: Resolver,
    max_lag: Option<Duration>,
    tuning: C::Tuning,
}

impl<C: Backend> ManagerBuilder<C> {
    pub(super) fn new(connection_string: &str) -> Self {
        ManagerBuilder {
            target: ConnectionString::parse(connection_string),
            auth: None,
            auth_settings: IamAuth::builder(),
            password: None,
            connect_timeout: None,
            resolver: Resolver::default(),
            max_lag: None,
            tuning: C::Tuning::default(),
        }
    }

    /// Sets the identity that signs tokens. Default: one from `iam_profile`, `iam_role_arn`,
    /// `iam_external_id` and `iam_session_name` of the connection string, or else from AWS's default chain.
    pub fn auth(mut self, auth: IamAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Sets a password to log in with instead of IAM. It takes precedence over one in the connection string.
    ///
    /// TLS defaults to `verify-full` against RDS's root certificates, as with IAM. Unlike with IAM, every
    /// `sslmode` is permitted if it is set explicitly, such as `disable` for a database on this machine. A
    /// Unix socket needs no TLS.
    pub fn password(mut self, password: Password) -> Self {
        self.password = Some(password);
        self.set(ConnectionString::supply_password)
    }

    /// Rejects a connection string with a password or with `iam=off`. Same as `iam=on` in the connection
    /// string. Default: off.
    pub fn require_iam(self) -> Self {
        self.set(ConnectionString::require_iam)
    }

    /// Sets the region to sign for. Same as `iam_region` in the connection string. Default: the region in the
    /// host name, or else that of the AWS configuration.
    pub fn region(self, region: impl Into<String>) -> Self {
        self.set(|target| target.iam.region = Some(region.into()))
    }

    /// Sets the profile of the AWS configuration files that provides the credentials. Same as `iam_profile` in
    /// the connection string. Ignored if [`auth`](ManagerBuilder::auth) is set.
    pub fn profile(self, name: impl Into<String>) -> Self {
        self.set(|target| target.iam.profile = Some(name.into()))
    }

    /// Sets the time limit of a fetch of credentials. Same as `iam_credentials_timeout` in the connection string, and as
    /// [`IamAuthBuilder::refresh_timeout`]. Default: 4 s. Ignored if [`auth`](ManagerBuilder::auth) is set.
    ///
    /// For a source that takes long, such as a program that asks for a second factor. A connect waits for
    /// [`connect_timeout`](ManagerBuilder::connect_timeout) at most; a fetch that takes longer serves the next one.
    pub fn credentials_timeout(self, timeout: Duration) -> Self {
        self.set(|target| target.iam.credentials_timeout = Some(timeout))
    }

    /// Sets the database's own endpoint, which tokens are signed for, if another host is dialled: a CNAME, a
    /// tunnel or a load balancer. Same as `iam_host` and `iam_port` in the connection string.
    pub fn sign_for(self, host: impl Into<String>, port: u16) -> Self {
        self.set(|target| {
            target.iam.host = Some(host.into());
            target.iam.port = Some(port);
        })
    }

    /// Sets the database user.
    pub fn user(self, user: &str) -> Self {
        self.set(|target| target.set_user(user))
    }

    /// Sets how far the server's certificate is verified. Default with IAM: [`SslMode::VerifyFull`].
    pub fn sslmode(self, mode: SslMode) -> Self {
        self.set(|target| target.set_sslmode(mode))
    }

    /// Sets a PEM file with the root certificates to trust, or `system`. Default: RDS's roots of the region,
    /// which this crate contains.
    pub fn sslrootcert(self, path: &str) -> Self {
        self.set(|target| target.set_sslrootcert(path))
    }

    /// Connects only to a server that accepts writes. Same as `target_session_attrs=read-write` in the
    /// connection string; `primary` counts as `read-write`. Default: off.
    ///
    /// A connect to a read-only server fails with
    /// [`ErrorKind::ServerUnavailable`](crate::ErrorKind::ServerUnavailable). The pool's test at checkout also
    /// drops a connection whose server has become read-only; it is one round trip, or two with the crate
    /// `postgres`. So the pool returns to the writer after a failover. A transaction that was open on the old
    /// writer fails with SQLSTATE 25006, diesel's `DatabaseErrorKind::ReadOnlyTransaction`: return that
    /// connection and repeat the transaction on another.
    ///
    /// A server is read-only if `transaction_read_only` is on: a standby, or a server, database or user with
    /// `default_transaction_read_only`.
    pub fn writer(self) -> Self {
        self.set(ConnectionString::require_writer)
    }

    /// Connects to readers, and to the writer if there is none. Same as `target_session_attrs=prefer-standby` in
    /// the connection string; `standby` and `read-only` do without the writer. Default: off.
    ///
    /// For the endpoint of an Aurora cluster or of an RDS Multi-AZ DB cluster, preferably its reader endpoint
    /// (`cluster-ro-`). See [`cluster`](ManagerBuilder::cluster) for how a pool chooses among the readers.
    pub fn readers(self) -> Self {
        self.set(ConnectionString::prefer_readers)
    }

    /// Sets whether the members of a cluster are dialled by their own names. Same as `iam_cluster=on` or `off` in
    /// the connection string. Default: on, if the host is the endpoint of an Aurora cluster or of an RDS Multi-AZ
    /// DB cluster and [`writer`](ManagerBuilder::writer) or [`readers`](ManagerBuilder::readers) is set.
    ///
    /// For tens of seconds after a failover, the cluster's DNS name leads to the old writer. Connections for writes
    /// therefore go to the member that was the writer last, then to the cluster's name, and then to the other
    /// members. Connections for reads go to the reader with the fewest connections of the pool, and of several to
    /// the one with the least lag. A member that failed is tried after the others for 5 s, and for up to 5 minutes
    /// if it fails again.
    ///
    /// The members are read over new connections, at most every 30 s, and every second while a member fails, with
    /// `aurora_replica_status()`, or with `rds_tools.show_topology()` of a Multi-AZ DB cluster. If the user has
    /// no right to call it, that is logged once and the DNS name alone is followed, as it is through a tunnel, at
    /// a fixed address, or at an alias without [`sign_for`](ManagerBuilder::sign_for).
    ///
    /// Each member has tokens of its own, which are signed with the same credentials: a failover needs no request
    /// to AWS.
    pub fn cluster(self, use_members: bool) -> Self {
        self.set(|target| target.use_cluster(use_members))
    }

    /// Sets how far a [reader](ManagerBuilder::readers) may be behind the writer to get a new connection. Default:
    /// no limit. Aurora reports the lag in milliseconds; a Multi-AZ DB cluster reports none, so the limit has no
    /// effect there.
    pub fn max_lag(mut self, limit: Duration) -> Self {
        self.max_lag = Some(limit);
        self
    }

    /// Sets the time limit of one connect, including the token, the resolution of names, all hosts and
    /// addresses, and a second attempt. Default: `connect_timeout` of the connection string, or else 9 s. In a
    /// pool it is at most nine tenths of `connection_timeout`, and exactly that by default. libpq counts whole
    /// seconds, and at least two.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout.min(FOREVER));
        self
    }

    /// Checks the settings. No request is made and no connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration), as [`RdsConnectionManager::new`].
    pub fn build(self) -> Result<RdsConnectionManager<C>, Error> {
        let mut target = self.target?;
        if target.wants_writer() {
            target.require_writer();
        }
        target.set_database_of_dsql();
        let targets = servers_of::<C>(&target)?;
        for target in &targets {
            target.check()?;
        }
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
        if let (endpoint::Login::Supplied, Some(password)) = (target.login(), &self.password) {
            (clock, events) = (password.clock(), password.events());
        }
        if let endpoint::Login::Password(_) = target.login() {
            tracing::info!(
                user = target.get("user"),
                "the connection string has a password, so IAM is not used"
            );
        }
        let login = Login {
            auth,
            password: self.password,
            clock: clock.clone(),
            resolver: self.resolver,
            tuning: self.tuning,
        };
        let servers = targets
            .iter()
            .map(|target| login.server(target).map(Arc::new));
        let servers = servers.collect::<Result<Vec<_>, Error>>()?;
        let mut parameters: Vec<_> = target
            .parameters()
            .map(|(keyword, value)| (keyword.to_owned(), value.to_owned()))
            .collect();
        if let Some(mode) = target.sslmode()? {
            parameters.push(("sslmode".to_owned(), mode.as_str().to_owned()));
        }
        let members = target.cluster()?.map(|(host, role)| {
            Members::new(Cluster::new(host, role, self.max_lag), targets, login)
        });
        Ok(RdsConnectionManager {
            inner: Arc::new(Inner {
                servers,
                members,
                is_load_balanced: target.is_load_balanced()?,
                parameters,
                health: Health::default(),
                clock,
                events,
                connect_timeout: self.connect_timeout.or(target.connect_timeout()?),
                is_writer: target.wants_writer(),
            }),
            pooled: None,
        })
    }

    /// Sets how host names are resolved: a closure that gets the host and the port to dial, and returns the
    /// addresses in the order in which they are tried. Default: the system's resolver.
    ///
    /// For tunnels, service discovery and tests: the addresses may have another port. Tokens and certificates
    /// remain those of the host that the connection string names. An address in `host` or `hostaddr` needs no
    /// resolver. The closure is called for each connect, one call at a time for each host, on a thread of its
    /// own; a call that outlasts the connect serves the next one.
    ///
    /// With diesel's connections it applies to logins with IAM or [`password`](ManagerBuilder::password); in
    /// all others libpq resolves names itself.
    pub fn resolver(
        mut self,
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Resolver::new(resolve);
        self
    }

    /// Changes the settings of the identity that the connection string names, such as
    /// [`token_lifetime`](IamAuthBuilder::token_lifetime). Has no effect if
    /// [`auth`](ManagerBuilder::auth) is set.
    pub fn tune_auth(mut self, tune: impl FnOnce(IamAuthBuilder) -> IamAuthBuilder) -> Self {
        self.auth_settings = tune(self.auth_settings);
        self
    }

    /// Makes [`build`](ManagerBuilder::build) fail.
    #[cfg(feature = "config")]
    pub(crate) fn fail(mut self, error: Error) -> Self {
        self.target = Err(error);
        self
    }

    pub(crate) fn set(mut self, change: impl FnOnce(&mut ConnectionString)) -> Self {
        if let Ok(target) = &mut self.target {
            change(target);
        }
        self
    }
}

#[cfg(feature = "postgres")]
impl ManagerBuilder<postgres::Client> {
    /// Sets a closure that changes the settings of each login, for what a connection string cannot contain, such as
    /// [`notice_callback`](postgres::Config::notice_callback). Default: none. Called for each attempt to log in.
    ///
    /// User, TLS and the time limit remain those of this crate. The closure must not block. If it sets a host, an
    /// address, a port or a password, the connect fails with
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration).
    ///
    /// ```no_run
    /// use diesel_rds_iam::PostgresConnectionManager;
    ///
    /// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    /// let manager = PostgresConnectionManager::builder(url)
    ///     .tune_config(|config| {
    ///         config.notice_callback(|notice| eprintln!("{}", notice.message()));
    ///     })
    ///     .build()?;
    /// # Ok::<(), diesel_rds_iam::Error>(())
    /// ```
    pub fn tune_config(
        mut self,
        tune: impl Fn(&mut postgres::Config) + Send + Sync + 'static,
    ) -> Self {
        self.tuning = crate::backend::Tuning::new(tune);
        self
    }
}

impl<C: Backend> fmt::Debug for ManagerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerBuilder")
            .field("target", &self.target)
            .field("auth", &self.auth)
            .field("password", &self.password)
            .field(
                "connect_timeout",
                &self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            )
            .finish_non_exhaustive()
    }
}

/// The identity that a connection string names.
fn auth_of(target: &ConnectionString, mut builder: IamAuthBuilder) -> Result<IamAuth, Error> {
    if let Some(profile) = &target.iam.profile {
        builder = builder.profile(profile);
    }
    if let Some(timeout) = target.iam.credentials_timeout {
        builder = builder.refresh_timeout(timeout);
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
