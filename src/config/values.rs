//! The values of settings that are more than a text or a number.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::secret::Secret;
use crate::endpoint::SslMode;
use crate::error::Error;

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
pub struct ConnectionUrl(pub(super) Secret);

/// A password. It cannot be printed, and is overwritten when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ConfiguredPassword(pub(super) Secret);

/// An external id, which is a secret to some. It cannot be printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ExternalId(pub(super) Secret);

impl From<String> for ExternalId {
    fn from(id: String) -> ExternalId {
        ExternalId(Secret::new(id))
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalId")
    }
}

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

pub(super) fn not_text(key: &str) -> Error {
    Error::configuration(format!(
        "{key} in the settings of the connection is not a text; put it in quotes"
    ))
}

pub(super) fn not_table(key: &str) -> Error {
    Error::configuration(format!(
        "{key} in the settings is not a table; write each of its settings with its name"
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

pub(super) fn sslmode<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SslMode>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match SslMode::from_name(&name) {
        Some(mode) => Ok(Some(mode)),
        None => Err(D::Error::custom(
            "sslmode is none of disable, allow, prefer, require, verify-ca and verify-full",
        )),
    }
}
