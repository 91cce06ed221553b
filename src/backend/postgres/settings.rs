//! Translates a connection string into settings of the crate `postgres`. Unsupported parameters are rejected by
//! name. The crate reads none of libpq's environment variables, so none has to be overridden.

use std::path::PathBuf;
use std::time::Duration;

use postgres::Config;
use postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};

use super::role::Role;
use crate::backend::classify;
use crate::endpoint::{self, ConnectionString};
use crate::error::Error;

/// Keywords of libpq whose given values request only what is done here anyway.
const AS_IT_IS: &[(&str, &[&str])] = &[
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8"]),
    ("gssencmode", &["disable", "prefer"]),
    ("max_protocol_version", &["3.0"]),
    ("min_protocol_version", &["3.0"]),
    ("ssl_min_protocol_version", &["TLSv1.2"]),
    ("sslcertmode", &["allow", "disable"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
];

/// The settings of a login, and the server.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) place: Place,
    /// What the crate does not check.
    pub(super) role: Option<Role>,
}

/// The server.
#[derive(Debug)]
pub(super) enum Place {
    /// The folder of a Unix socket.
    Socket(PathBuf),
    /// The name to verify in the certificate.
    Server(String),
}

impl Settings {
    /// # Errors
    ///
    /// If the crate `postgres` does not support a setting of `target`.
    pub(super) fn new(target: &ConnectionString) -> Result<Settings, Error> {
        let place = place(target)?;
        let mut config = Config::new();
        match place {
            Place::Socket(_) => config.ssl_mode(SslMode::Disable),
            // With direct TLS, `postgres` passes us the socket before the first byte.
            Place::Server(_) => config
                .ssl_mode(SslMode::Require)
                .ssl_negotiation(SslNegotiation::Direct),
        };
        if let Place::Socket(_) = place
            && let Some(port) = port(target)?
        {
            config.port(port);
        }
        if let Some(name) = target.get("fallback_application_name") {
            config.application_name(name);
        }
        for (keyword, value) in target.parameters().chain(target.tcp_defaults()) {
            if !value.is_empty() {
                apply(&mut config, keyword, value)?;
            }
        }
        Ok(Settings {
            config,
            place,
            role: Role::required_by(target),
        })
    }
}

fn place(target: &ConnectionString) -> Result<Place, Error> {
    if let Some(host) = target.verified_host()? {
        return Ok(Place::Server(host));
    }
    // Without the trailing dot that a name may have.
    let host = target.parameters().find(|(keyword, _)| *keyword == "host");
    let host = host.map(|(_, host)| host).filter(|host| !host.is_empty());
    match (host, target.get("hostaddr")) {
        (Some(host), None) if host.starts_with('/') => Ok(Place::Socket(host.into())),
        (Some(host), _) if host.starts_with(['/', '@']) => Err(Error::configuration(
            "host names a Unix socket of a kind that the crate postgres cannot dial: set it to the \
             socket's folder, without hostaddr",
        )),
        (host, address) => Ok(Place::Server(
            host.or(address).unwrap_or_default().to_owned(),
        )),
    }
}

fn port(target: &ConnectionString) -> Result<Option<u16>, Error> {
    target
        .get("port")
        .map(|port| number("port", port))
        .transpose()
}

fn apply(config: &mut Config, keyword: &str, value: &str) -> Result<(), Error> {
    let seconds = || number(keyword, value).map(Duration::from_secs);
    match keyword {
        // Handled elsewhere.
        "host" | "hostaddr" | "port" | "connect_timeout" | "fallback_application_name" => {}
        "user" => {
            config.user(value);
        }
        "dbname" => {
            config.dbname(value);
        }
        "application_name" => {
            config.application_name(value);
        }
        "options" => {
            config.options(value);
        }
        // libpq's manual calls this the system's default. The system itself rejects the value.
        "keepalives_idle" | "keepalives_interval" | "keepalives_count" | "tcp_user_timeout"
            if number::<u64>(keyword, value)? == 0 => {}
        "keepalives" => {
            config.keepalives(number::<u64>(keyword, value)? != 0);
        }
        "keepalives_idle" => {
            config.keepalives_idle(seconds()?);
        }
        "keepalives_interval" => {
            config.keepalives_interval(seconds()?);
        }
        "keepalives_count" => {
            config.keepalives_retries(number(keyword, value)?);
        }
        "tcp_user_timeout" => {
            config.tcp_user_timeout(Duration::from_millis(number(keyword, value)?));
        }
        "target_session_attrs" => {
            config.target_session_attrs(one_of(
                keyword,
                value,
                &[
                    ("any", TargetSessionAttrs::Any),
                    ("read-write", TargetSessionAttrs::ReadWrite),
                    ("read-only", TargetSessionAttrs::ReadOnly),
                    // Checked after the login.
                    ("primary", TargetSessionAttrs::Any),
                    ("standby", TargetSessionAttrs::Any),
                ],
            )?);
        }
        "channel_binding" => {
            config.channel_binding(one_of(
                keyword,
                value,
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
            )?);
        }
        _ if AS_IT_IS
            .iter()
            .any(|(known, values)| *known == keyword && values.contains(&value)) => {}
        _ if endpoint::is_keyword_of_libpq(keyword) => {
            return Err(Error::configuration(format!(
                "{keyword} is not supported by the crate postgres: leave it out of the connection \
                 string, or use diesel's connections, which are libpq's"
            )));
        }
        _ => return Err(classify::unknown_keyword()),
    }
    Ok(())
}

fn number<N: std::str::FromStr>(keyword: &str, value: &str) -> Result<N, Error> {
    value.trim().parse().map_err(|_| {
        Error::configuration(format!(
            "{keyword} is not a whole number, or is out of range: correct it"
        ))
    })
}

fn one_of<T: Copy>(keyword: &str, value: &str, known: &[(&str, T)]) -> Result<T, Error> {
    let meant = known.iter().find(|(name, _)| *name == value);
    meant.map(|(_, meant)| *meant).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Error::configuration(format!(
            "{keyword} has a value that the crate postgres does not support: it can be {}",
            names.join(", ")
        ))
    })
}
