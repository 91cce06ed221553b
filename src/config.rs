//! Settings of named connections in an application's configuration.
//!
//! [`Connections`] is a serde structure. Read it from TOML, YAML or the environment, with the crate `config` or
//! another, on its own or as a field of the application's settings. Unknown keys are rejected by name. Omitted
//! ones have the defaults of [`ManagerBuilder`], [`IamAuthBuilder`](crate::IamAuthBuilder) and [`PoolBuilder`].
//! Durations are written as `"14m"` or `"1h 30m"`.
//!
//! No error of this module contains a password, a URL or an external id. An error of the format can: the crate `toml`
//! shows the line in which it found a mistake, such as a misspelt key of an inline table. Its `Error::message` has no
//! line.
//!
//! ```
//! # #[cfg(feature = "diesel")] {
//! use diesel_rds_iam::config::Connections;
//!
//! let settings = r#"
//!     [connections.default]
//!     url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app"
//!     iam = { role_arn = "arn:aws:iam::123456789012:role/database" }
//!     pool = { max_size = 20, max_lifetime = "14m" }
//!
//!     [connections.local]
//!     url = "postgres://app@localhost/app"
//!     password = "local"
//!     sslmode = "disable"
//! "#;
//! let connections: Connections = toml::from_str(settings)?;
//! let managers = connections.managers::<diesel::PgConnection>()?;
//! assert!(managers["default"].endpoint().is_some());
//! assert!(managers["local"].endpoint().is_none());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod secret;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use self::secret::{Secret, Value};
pub use self::values::{ConfiguredPassword, ConnectionUrl, ExternalId, Limit};
use self::values::{not_table, not_text, sslmode};
use crate::auth::Password;
use crate::backend::Backend;
use crate::endpoint::{ConnectionString, SslMode};
use crate::error::Error;
use crate::manager::{ManagerBuilder, RdsConnectionManager};
use crate::pool::{HasRdsManager, PoolBuilder};

/// Reads a table of settings. A text in its place is noted, since an error of serde's would repeat it.
macro_rules! deserialize_table {
    ($settings:ident) => {
        impl<'de> Deserialize<'de> for $settings {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // The function that serde derives, which reads the table itself.
                struct Table($settings);

                impl<'de> Deserialize<'de> for Table {
                    fn deserialize<D: Deserializer<'de>>(
                        deserializer: D,
                    ) -> Result<Self, D::Error> {
                        $settings::deserialize(deserializer).map(Table)
                    }
                }

                let table = Value::<Table>::read(deserializer)?.table();
                Ok(table.map_or_else(
                    || $settings {
                        is_no_table: true,
                        ..$settings::default()
                    },
                    |Table(settings)| settings,
                ))
            }
        }
    };
}

/// Connections by name: `[connections.NAME]`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Connections {
    /// The settings of each.
    pub connections: BTreeMap<String, ConnectionSettings>,
    is_no_table: bool,
}

/// A text in place of the table may be a URL with a password, so it is no error of serde's, which would repeat it.
impl<'de> Deserialize<'de> for Connections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            connections: Option<ByName>,
        }

        struct ByName(Option<BTreeMap<String, ConnectionSettings>>);

        impl<'de> Deserialize<'de> for ByName {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(ByName(Value::read(deserializer)?.table()))
            }
        }

        let connections = match Value::<Table>::read(deserializer)?.table() {
            Some(Table { connections: None }) => Some(BTreeMap::new()),
            Some(Table {
                connections: Some(ByName(connections)),
            }) => connections,
            None => None,
        };
        Ok(Connections {
            is_no_table: connections.is_none(),
            connections: connections.unwrap_or_default(),
        })
    }
}

impl Connections {
    /// Builds a manager for each connection. No connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration), with the name of the
    /// connection whose settings cannot work.
    pub fn managers<C: Backend>(&self) -> Result<BTreeMap<String, RdsConnectionManager<C>>, Error> {
        self.each(ConnectionSettings::manager)
    }

    /// Builds a pool for each connection, one after the other.
    ///
    /// # Errors
    ///
    /// Every [`ErrorKind`](crate::ErrorKind) is possible, since each pool opens a connection; with
    /// the name of the one that failed.
    pub fn pools<C: Backend>(
        &self,
    ) -> Result<BTreeMap<String, r2d2::Pool<RdsConnectionManager<C>>>, Error> {
        self.each(ConnectionSettings::pool)
    }

    fn each<T>(
        &self,
        make: impl Fn(&ConnectionSettings) -> Result<T, Error>,
    ) -> Result<BTreeMap<String, T>, Error> {
        if self.is_no_table {
            return Err(not_table("connections"));
        }
        let make = |(name, settings): (&String, _)| match make(settings) {
            Ok(made) => Ok((name.clone(), made)),
            Err(cause) => {
                let message = format!("connection {name:?} of the settings cannot be used");
                Err(Error::with_cause(cause.kind(), message, cause))
            }
        };
        self.connections.iter().map(make).collect()
    }
}

/// The settings of one connection. A text instead of a table is the connection string.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// The connection string, as for [`RdsConnectionManager::new`]. The settings below take precedence.
    pub url: ConnectionUrl,
    /// A password to log in with instead of IAM, as [`ManagerBuilder::password`] takes it; one from
    /// the environment is better than one in a file. None by default.
    #[serde(default)]
    pub password: Option<ConfiguredPassword>,
    /// As [`ManagerBuilder::sslmode`], by libpq's names.
    #[serde(default, deserialize_with = "sslmode")]
    pub sslmode: Option<SslMode>,
    /// As [`ManagerBuilder::sslrootcert`].
    #[serde(default)]
    pub sslrootcert: Option<String>,
    /// As [`ManagerBuilder::connect_timeout`].
    #[serde(default, with = "humantime_serde")]
    pub connect_timeout: Option<Duration>,
    /// The identity that signs tokens.
    #[serde(default)]
    pub iam: Option<IamSettings>,
    /// The pool's settings.
    #[serde(default)]
    pub pool: PoolSettings,
}

/// An error about a text in place of a table would repeat the text, which may contain a password.
impl<'de> Deserialize<'de> for ConnectionSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Table(
            #[serde(deserialize_with = "ConnectionSettings::deserialize")] ConnectionSettings,
        );

        Ok(match Value::<Table>::read(deserializer)? {
            Value::Table(Table(settings)) => settings,
            Value::Text(url) => ConnectionSettings::with_url(ConnectionUrl(url)),
            Value::Other => ConnectionSettings::with_url(ConnectionUrl(Secret::not_text())),
        })
    }
}

impl ConnectionSettings {
    /// The default settings for this connection string.
    pub fn new(url: impl Into<String>) -> ConnectionSettings {
        ConnectionSettings::with_url(url.into().into())
    }

    fn with_url(url: ConnectionUrl) -> ConnectionSettings {
        ConnectionSettings {
            url,
            password: None,
            sslmode: None,
            sslrootcert: None,
            connect_timeout: None,
            iam: None,
            pool: PoolSettings::default(),
        }
    }

    /// Returns a builder with these settings, for further ones in code.
    pub fn builder<C: Backend>(&self) -> ManagerBuilder<C> {
        let mut builder = RdsConnectionManager::builder(self.url.0.expose().unwrap_or_default());
        if self.url.0.expose().is_none() {
            builder = builder.fail(not_text("url"));
        }
        if let Some(password) = &self.password {
            builder = match password.0.expose() {
                Some(password) => builder.password(Password::fixed(password)),
                None => builder.fail(not_text("password")),
            };
        }
        if let Some(mode) = self.sslmode {
            builder = builder.sslmode(mode);
        }
        if let Some(path) = &self.sslrootcert {
            builder = builder.sslrootcert(path);
        }
        if let Some(timeout) = self.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if self.pool.is_no_table {
            builder = builder.fail(not_table("pool"));
        }
        match &self.iam {
            Some(iam) => iam.apply(builder),
            None => builder,
        }
    }

    /// Builds a manager with these settings.
    ///
    /// # Errors
    ///
    /// As [`ManagerBuilder::build`].
    pub fn manager<C: Backend>(&self) -> Result<RdsConnectionManager<C>, Error> {
        self.builder().build()
    }

    /// Builds a pool with these settings.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`].
    pub fn pool<C: Backend>(&self) -> Result<r2d2::Pool<RdsConnectionManager<C>>, Error> {
        self.pool.apply(self.manager()?.pool_builder()).build()
    }
}

/// The settings `iam` of a connection. They require IAM: a password beside them is an error. They take
/// precedence over the `iam_*` parameters of the connection string.
///
/// Each connection has an identity of its own, which fetches its own credentials. To share one, call
/// [`ManagerBuilder::auth`] on [`ConnectionSettings::builder`].
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct IamSettings {
    /// As [`ManagerBuilder::region`].
    pub region: Option<String>,
    /// As [`IamAuthBuilder::profile`](crate::IamAuthBuilder::profile).
    pub profile: Option<String>,
    /// The role to assume, as [`AssumeRole::new`](crate::AssumeRole::new) takes it.
    pub role_arn: Option<String>,
    /// As [`AssumeRole::external_id`](crate::AssumeRole::external_id).
    pub external_id: Option<ExternalId>,
    /// As [`AssumeRole::session_name`](crate::AssumeRole::session_name).
    pub session_name: Option<String>,
    /// The database's own endpoint, if another host is dialled.
    pub host: Option<String>,
    /// The database's own port, if another is dialled.
    pub port: Option<u16>,
    /// As [`IamAuthBuilder::token_lifetime`](crate::IamAuthBuilder::token_lifetime).
    #[serde(with = "humantime_serde")]
    pub token_lifetime: Option<Duration>,
    /// As [`IamAuthBuilder::refresh_ahead`](crate::IamAuthBuilder::refresh_ahead).
    pub refresh_ahead: Option<bool>,
    /// As [`IamAuthBuilder::refresh_timeout`](crate::IamAuthBuilder::refresh_timeout).
    #[serde(with = "humantime_serde")]
    pub refresh_timeout: Option<Duration>,
    #[serde(skip)]
    is_no_table: bool,
}

deserialize_table!(IamSettings);

/// Without the external id, which is a secret to some.
impl fmt::Debug for IamSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamSettings")
            .field("region", &self.region)
            .field("profile", &self.profile)
            .field("role_arn", &self.role_arn)
            .field("session_name", &self.session_name)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl IamSettings {
    fn apply<C: Backend>(&self, mut builder: ManagerBuilder<C>) -> ManagerBuilder<C> {
        if self.is_no_table {
            builder = builder.fail(not_table("iam"));
        }
        let external_id = match &self.external_id {
            None => None,
            Some(id) => {
                if id.0.expose().is_none() {
                    builder = builder.fail(not_text("external_id"));
                }
                id.0.expose().map(str::to_owned)
            }
        };
        let with = |target: &mut ConnectionString| {
            let iam = &mut target.iam;
            for (ours, parameter) in [
                (&self.region, &mut iam.region),
                (&self.profile, &mut iam.profile),
                (&self.role_arn, &mut iam.role_arn),
                (&external_id, &mut iam.external_id),
                (&self.session_name, &mut iam.session_name),
                (&self.host, &mut iam.host),
            ] {
                if ours.is_some() {
                    parameter.clone_from(ours);
                }
            }
            iam.port = self.port.or(iam.port);
        };
        builder.require_iam().set(with).tune_auth(|mut auth| {
            if let Some(lifetime) = self.token_lifetime {
                auth = auth.token_lifetime(lifetime);
            }
            if let Some(ahead) = self.refresh_ahead {
                auth = auth.refresh_ahead(ahead);
            }
            if let Some(timeout) = self.refresh_timeout {
                auth = auth.refresh_timeout(timeout);
            }
            auth
        })
    }
}

/// The settings `pool` of a connection, with the names of [`PoolBuilder`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct PoolSettings {
    /// As [`PoolBuilder::max_size`].
    pub max_size: Option<u32>,
    /// As [`PoolBuilder::min_idle`].
    pub min_idle: Option<u32>,
    /// As [`PoolBuilder::test_on_check_out`].
    pub test_on_check_out: Option<bool>,
    /// As [`PoolBuilder::max_lifetime`]; `"never"` for no limit.
    pub max_lifetime: Option<Limit>,
    /// As [`PoolBuilder::idle_timeout`]; `"never"` for no limit.
    pub idle_timeout: Option<Limit>,
    /// As [`PoolBuilder::connection_timeout`].
    #[serde(with = "humantime_serde")]
    pub connection_timeout: Option<Duration>,
    /// As [`PoolBuilder::startup_timeout`].
    #[serde(with = "humantime_serde")]
    pub startup_timeout: Option<Duration>,
    #[serde(skip)]
    is_no_table: bool,
}

deserialize_table!(PoolSettings);

impl PoolSettings {
    /// Writes these settings over those of `builder`.
    pub fn apply<M: HasRdsManager>(&self, mut builder: PoolBuilder<M>) -> PoolBuilder<M> {
        if let Some(size) = self.max_size {
            builder = builder.max_size(size);
        }
        if self.min_idle.is_some() {
            builder = builder.min_idle(self.min_idle);
        }
        if let Some(test) = self.test_on_check_out {
            builder = builder.test_on_check_out(test);
        }
        if let Some(limit) = self.max_lifetime {
            builder = builder.max_lifetime(limit.into());
        }
        if let Some(limit) = self.idle_timeout {
            builder = builder.idle_timeout(limit.into());
        }
        if let Some(timeout) = self.startup_timeout {
            builder = builder.startup_timeout(timeout);
        }
        if let Some(timeout) = self.connection_timeout {
            builder = builder.connection_timeout(timeout);
        }
        builder
    }
}
