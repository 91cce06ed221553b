//! Settings of named connections in an application's configuration.
//!
//! [`Connections`] is a serde structure. Read it from TOML, YAML or the environment, with the crate `config` or
//! another, on its own or as a field of the application's settings. Unknown keys are rejected by name. Omitted
//! ones have the defaults of [`ManagerBuilder`], [`IamAuthBuilder`](crate::IamAuthBuilder) and [`PoolBuilder`].
//! Durations are written as `"14m"` or `"1h 30m"`.
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

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use self::secret::Secret;
use crate::auth::Password;
use crate::backend::Backend;
use crate::endpoint::{ConnectionString, SslMode};
use crate::error::Error;
use crate::manager::{ManagerBuilder, RdsConnectionManager};
use crate::pool::{HasRdsManager, PoolBuilder};

/// Connections by name: `[connections.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Connections {
    /// The settings of each.
    #[serde(default)]
    pub connections: BTreeMap<String, ConnectionSettings>,
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
        struct TableOrText;

        impl<'de> Visitor<'de> for TableOrText {
            type Value = ConnectionSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table or a URL")
            }

            fn visit_str<E>(self, url: &str) -> Result<ConnectionSettings, E> {
                Ok(ConnectionSettings::new(url))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ConnectionSettings, A::Error> {
                ConnectionSettings::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(TableOrText)
    }
}

impl ConnectionSettings {
    /// The default settings for this connection string.
    pub fn new(url: impl Into<String>) -> ConnectionSettings {
        ConnectionSettings {
            url: url.into().into(),
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
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct IamSettings {
    /// As [`ManagerBuilder::region`].
    pub region: Option<String>,
    /// As [`IamAuthBuilder::profile`](crate::IamAuthBuilder::profile).
    pub profile: Option<String>,
    /// The role to assume, as [`AssumeRole::new`](crate::AssumeRole::new) takes it.
    pub role_arn: Option<String>,
    /// As [`AssumeRole::external_id`](crate::AssumeRole::external_id).
    pub external_id: Option<String>,
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
}

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
    fn apply<C: Backend>(&self, builder: ManagerBuilder<C>) -> ManagerBuilder<C> {
        let with = |target: &mut ConnectionString| {
            let iam = &mut target.iam;
            for (ours, parameter) in [
                (&self.region, &mut iam.region),
                (&self.profile, &mut iam.profile),
                (&self.role_arn, &mut iam.role_arn),
                (&self.external_id, &mut iam.external_id),
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
#[serde(default, deny_unknown_fields)]
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
}

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

/// A duration such as `"14m"`, or `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// No limit.
    Never,
    /// This long.
    After(Duration),
}

impl From<Limit> for Option<Duration> {
    fn from(limit: Limit) -> Option<Duration> {
        match limit {
            Limit::Never => None,
            Limit::After(span) => Some(span),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "never" {
            return Ok(Limit::Never);
        }
        humantime_serde::re::humantime::parse_duration(&text)
            .map(Limit::After)
            .map_err(|error| D::Error::custom(format!("{error}; write \"14m\" or \"never\"")))
    }
}

/// A connection string. It may contain a password, so it cannot be printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ConnectionUrl(Secret);

/// A password. It cannot be printed, and is overwritten when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ConfiguredPassword(Secret);

impl From<String> for ConnectionUrl {
    fn from(url: String) -> ConnectionUrl {
        ConnectionUrl(Secret::new(url))
    }
}

impl From<String> for ConfiguredPassword {
    fn from(password: String) -> ConfiguredPassword {
        ConfiguredPassword(Secret::new(password))
    }
}

fn not_text(key: &str) -> Error {
    Error::configuration(format!(
        "{key} in the settings of the connection is not a text; put it in quotes"
    ))
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionUrl")
    }
}

impl fmt::Debug for ConfiguredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfiguredPassword")
    }
}

fn sslmode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SslMode>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match SslMode::from_name(&name) {
        Some(mode) => Ok(Some(mode)),
        None => Err(D::Error::custom(
            "sslmode is none of disable, allow, prefer, require, verify-ca and verify-full",
        )),
    }
}
