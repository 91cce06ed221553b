//! A parsed connection string: the address to dial, the endpoint to sign for, and how to log in.

mod check;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::foreign;
use super::grammar::{self, Value};
use super::ssl_mode::SslMode;
use super::{Endpoint, Engine};
use crate::error::Error;

/// PostgreSQL's default port.
pub(super) const DEFAULT_PORT: &str = "5432";

/// libpq's parameter for the kind of server to accept.
pub(super) const TARGET_SESSION_ATTRS: &str = "target_session_attrs";

/// A connection is probed after 15 s of silence, and closed after 24 s if three probes are lost. One with
/// unacknowledged data is closed after 23 s, which bounds the checkout test. On Linux `tcp_user_timeout` also
/// overrides the number of probes. Below the time of the last one, it would close a connection for fewer lost
/// packets. [tcp(7); libpq's manual, keepalives]
const TCP_DEFAULTS: &[(&str, &str)] = &[
    ("keepalives_idle", "15"),
    ("keepalives_interval", "3"),
    ("keepalives_count", "3"),
    // In milliseconds. Linux only.
    ("tcp_user_timeout", "23000"),
];

/// A connection string, parsed and decoded.
///
/// Settings of a builder overwrite parsed ones. [`check`](ConnectionString::check) therefore runs after them,
/// and parsing rejects only what no setting can correct.
#[derive(Clone)]
pub(crate) struct ConnectionString {
    /// libpq's parameters, in the order of the string, each keyword once.
    parameters: Vec<(String, String)>,
    password: Option<GivenPassword>,
    sslmode: Option<SslMode>,
    /// The last of `sslmode`, `requiressl` and `ssl=true`, which is the one that libpq follows.
    libpqs_sslmode: Option<SslMode>,
    sslrootcert: Option<String>,
    /// Whether the string has the keyword or the place of a password, even without a value. Any other part may then
    /// be a part of a password that was not encoded.
    mentions_password: bool,
    /// Whether the builder has a password.
    has_supplied_password: bool,
    /// `iam=on`, `iam=off`, or `None` without the parameter.
    use_iam: Option<bool>,
    /// `iam_cluster=off`: only the name of a cluster is dialled, and not its members.
    pub(super) has_no_cluster: bool,
    pub(crate) iam: IamSettings,
}

/// The `iam_*` parameters, which are not passed to libpq. None of them is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct IamSettings {
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) role_arn: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) session_name: Option<String>,
    /// The host to sign for, if it is not the host to dial.
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    /// The time limit of a fetch of credentials.
    pub(crate) credentials_timeout: Option<Duration>,
}

/// The kind of login.
#[derive(Debug)]
pub(crate) enum Login<'a> {
    Iam,
    /// The builder's password.
    Supplied,
    /// The password in the string.
    Password(&'a GivenPassword),
    /// `iam=off` without a password: libpq finds a password by its own rules, or sends none.
    None,
}

impl Login<'_> {
    /// Whether this crate controls the whole login, so that libpq's environment variables and files do not
    /// affect it. Other logins, for development, follow libpq's rules.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(self, Login::Iam | Login::Supplied)
    }
}

/// A password from a connection string. It cannot be printed, and is wiped when it is dropped.
#[derive(Clone)]
pub(crate) struct GivenPassword(Zeroizing<String>);

impl GivenPassword {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GivenPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenPassword")
    }
}

impl ConnectionString {
    /// Parses `input`, a URL or pairs of keyword and value.
    pub(crate) fn parse(input: &str) -> Result<ConnectionString, Error> {
        let mut parsed = ConnectionString {
            parameters: Vec::new(),
            password: None,
            sslmode: None,
            libpqs_sslmode: None,
            sslrootcert: None,
            mentions_password: false,
            has_supplied_password: false,
            use_iam: None,
            has_no_cluster: false,
            iam: IamSettings::default(),
        };
        let input = foreign::accept(input)?;
        grammar::parse(input, |keyword, value| parsed.assign(keyword, value))?;
        Ok(parsed)
    }

    /// Stores one parameter. As in libpq, the last one of a name wins.
    fn assign(&mut self, keyword: &str, value: Value) -> Result<(), Error> {
        match keyword {
            // An empty password counts as none, as in libpq.
            "password" => {
                self.mentions_password = true;
                self.password = (!value.is_empty()).then_some(GivenPassword(value));
            }
            "sslmode" => {
                self.set_sslmode(SslMode::from_name(&value).ok_or_else(|| {
                    Error::configuration(
                        "sslmode is none of disable, allow, prefer, require, verify-ca and \
                         verify-full",
                    )
                })?);
            }
            // libpq's old name for `require` and `prefer`.
            "requiressl" => {
                self.libpqs_sslmode = Some(if value.starts_with('1') {
                    SslMode::Require
                } else {
                    SslMode::Prefer
                });
            }
            // `verify-full` in JDBC, and `require` in libpq.
            "ssl" if value.as_str() == "true" => self.libpqs_sslmode = Some(SslMode::Require),
            "sslrootcert" => {
                self.sslrootcert = (!value.is_empty()).then(|| value.to_string());
            }
            "iam" => {
                self.use_iam = Some(is_on(keyword, &value)?);
            }
            "iam_cluster" => self.has_no_cluster = !is_on(keyword, &value)?,
            "iam_region" => self.iam.region = Some(not_empty(keyword, value)?),
            "iam_profile" => self.iam.profile = Some(not_empty(keyword, value)?),
            "iam_role_arn" => self.iam.role_arn = Some(not_empty(keyword, value)?),
            "iam_external_id" => self.iam.external_id = Some(not_empty(keyword, value)?),
            "iam_session_name" => self.iam.session_name = Some(not_empty(keyword, value)?),
            "iam_host" => self.iam.host = Some(not_empty(keyword, value)?),
            "iam_credentials_timeout" => {
                let seconds = value.trim().parse().ok().filter(|seconds| *seconds > 0);
                let seconds: u32 = seconds.ok_or_else(|| {
                    Error::configuration(
                        "iam_credentials_timeout is not a number of seconds: set it to whole seconds, one or more",
                    )
                })?;
                self.iam.credentials_timeout = Some(Duration::from_secs(seconds.into()));
            }
            "iam_port" => self.iam.port = Some(port_number(keyword, &value)?),
            _ if keyword.starts_with("iam_") => {
                // Not quoted: after a stray `?` or `&` in a password, a part of that password is in this place.
                return Err(Error::configuration(
                    "a parameter that begins with iam_ is not known: there are iam, iam_region, \
                     iam_profile, iam_role_arn, iam_external_id, iam_session_name, iam_host, iam_port, \
                     iam_cluster and iam_credentials_timeout",
                ));
            }
            "port" => {
                // One for each host, and the default where one is empty.
                for port in value.split(',').filter(|port| !port.is_empty()) {
                    port_number(keyword, port)?;
                }
                self.put(keyword, &value);
            }
            _ => self.put(keyword, &value),
        }
        Ok(())
    }

    pub(super) fn put(&mut self, keyword: &str, value: &str) {
        match self.parameters.iter_mut().find(|(name, _)| name == keyword) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.parameters.push((keyword.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn remove(&mut self, keyword: &str) {
        self.parameters.retain(|(name, _)| name != keyword);
    }

    /// Returns the value of a libpq parameter. An empty value counts as none, as in libpq.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(name, _)| name == keyword)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Returns the decoded parameters for libpq in the order of the string, without the password, `sslmode`,
    /// `sslrootcert` and the `iam` parameters.
    ///
    /// In a login that this crate controls, the port is always included, since PGPORT must not change the port
    /// that is signed. The host has no trailing dot, since libpq compares it with the certificate's names
    /// character by character.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_guarded = self.login().is_guarded();
        let port = (is_guarded && self.get("port").is_none()).then_some(("port", DEFAULT_PORT));
        self.parameters
            .iter()
            .map(|(keyword, value)| (keyword.as_str(), value.as_str()))
            .filter(move |(keyword, _)| port.is_none() || *keyword != "port")
            .map(move |(keyword, value)| match keyword {
                "host" if is_guarded => (keyword, value.strip_suffix('.').unwrap_or(value)),
                _ => (keyword, value),
            })
            .chain(port)
    }

    /// Returns the settings of TCP that the string does not contain. Without them, a statement on a connection
    /// whose network was cut waits for a quarter of an hour.
    pub(crate) fn tcp_defaults(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_missing = |(keyword, _): &&(&str, &str)| self.get(keyword).is_none();
        TCP_DEFAULTS.iter().filter(is_missing).copied()
    }

    /// Returns the string's time limit of a connect; `None` if it is missing or 0, which means no limit.
    pub(crate) fn connect_timeout(&self) -> Result<Option<Duration>, Error> {
        let Some(seconds) = self.get("connect_timeout") else {
            return Ok(None);
        };
        let seconds: i32 = seconds.trim().parse().map_err(|_| {
            Error::configuration("connect_timeout is not a number: set it to whole seconds")
        })?;
        let seconds = u64::try_from(seconds).unwrap_or_default();
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    pub(crate) fn sslrootcert(&self) -> Option<&str> {
        self.sslrootcert.as_deref()
    }

    /// IAM, unless the builder or the string has a password, or the string contains `iam=off`.
    pub(crate) fn login(&self) -> Login<'_> {
        match (self.use_iam, &self.password) {
            (Some(true), _) => Login::Iam,
            _ if self.has_supplied_password => Login::Supplied,
            (None, None) => Login::Iam,
            (_, Some(password)) => Login::Password(password),
            (Some(false), None) => Login::None,
        }
    }

    /// Same as `iam=on`: a password is then an error, and not another way to log in.
    pub(crate) fn require_iam(&mut self) {
        self.use_iam = Some(true);
    }

    /// Returns whether the server must accept writes.
    pub(crate) fn wants_writer(&self) -> bool {
        matches!(
            self.get(TARGET_SESSION_ATTRS),
            Some("read-write" | "primary")
        )
    }

    /// Same as `target_session_attrs=read-write`. The checkout test checks the same, so that a connection that
    /// could be opened also passes it.
    pub(crate) fn require_writer(&mut self) {
        self.put(TARGET_SESSION_ATTRS, "read-write");
    }

    /// Same as `iam_cluster=off`, or `on`.
    pub(crate) fn use_cluster(&mut self, use_cluster: bool) {
        self.has_no_cluster = !use_cluster;
    }

    /// The builder has the password, and one in the string is ignored.
    pub(crate) fn supply_password(&mut self) {
        self.has_supplied_password = true;
    }

    /// Names DSQL's only database, `postgres`, unless the string names one. libpq and the crate `postgres` would ask
    /// for one with the name of the user.
    pub(crate) fn set_database_of_dsql(&mut self) {
        let is_dsql = |server: Endpoint| server.engine() == Engine::Dsql;
        if self.get("dbname").is_none() && self.server().is_ok_and(is_dsql) {
            self.put("dbname", "postgres");
        }
    }

    pub(crate) fn set_user(&mut self, user: &str) {
        self.put("user", user);
    }

    pub(crate) fn set_sslmode(&mut self, mode: SslMode) {
        self.sslmode = Some(mode);
        self.libpqs_sslmode = Some(mode);
    }

    /// Sets `sslrootcert`: a file, or `system`, as in libpq.
    pub(crate) fn set_sslrootcert(&mut self, sslrootcert: &str) {
        self.sslrootcert = Some(sslrootcert.to_owned());
    }
}

/// Shows no parameter, since its value may be a part of a password that was not encoded.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("login", &self.login())
            .field("sslmode", &self.sslmode)
            .finish_non_exhaustive()
    }
}

/// The two forms in which libpq accepts a Unix socket. libpq does not use TLS on sockets.
pub(super) fn is_socket(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

fn is_on(keyword: &str, value: &str) -> Result<bool, Error> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Error::configuration(format!(
            "{keyword} is neither on nor off"
        ))),
    }
}

fn not_empty(keyword: &str, value: Value) -> Result<String, Error> {
    if value.is_empty() {
        return Err(Error::configuration(format!(
            "{keyword} is empty: give it a value or leave it out"
        )));
    }
    Ok(value.to_string())
}

pub(super) fn port_number(keyword: &str, value: &str) -> Result<u16, Error> {
    match value.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::configuration(format!(
            "{keyword} is not a number from 1 to 65535 (in a URL, write %3A, %2F and %40 for `:`, \
             `/` and `@` in a user name or password)"
        ))),
    }
}
