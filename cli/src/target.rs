//! The database to connect to: a connection string, or its parts.

use std::fmt;
use std::io::{self, IsTerminal};
#[cfg(unix)]
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Args;
use diesel_rds_iam::diesel::PgConnection;
use diesel_rds_iam::{Endpoint, Error, ManagerBuilder, PgConnectionManager, Token};

/// The library's default.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(9);

/// How long a source of credentials may take: a user may have to answer it.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(60);

/// A wait that needs no word.
const QUIET: Duration = Duration::from_secs(2);

/// The options that select the database, common to all commands.
#[derive(Args, Clone)]
pub(crate) struct Target {
    /// A connection string without a password: a URL or libpq's `keyword=value` pairs. It may have the
    /// library's parameters, such as iam_region and iam_role_arn
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: Option<String>,

    /// The host name of the database's endpoint; overrides the connection string
    #[arg(long, requires = "user", required_unless_present = "url")]
    host: Option<String>,

    /// The port [default: 5432]
    #[arg(long, requires = "host")]
    port: Option<u16>,

    /// The database user
    #[arg(long, requires = "host")]
    user: Option<String>,

    /// The database [default: the user's name]
    #[arg(long, requires = "host")]
    dbname: Option<String>,

    /// The AWS region [default: from the host name, else from the AWS configuration]
    #[arg(long)]
    region: Option<String>,

    /// A profile of the AWS configuration files
    #[arg(long)]
    profile: Option<String>,

    /// The time limit for the AWS credentials, such as those of a program that asks for a second factor
    /// [default: iam_credentials_timeout of the connection string, else 1m]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    credentials_timeout: Option<humantime::Duration>,

    /// A PEM file of root certificates, or `system` [default: the RDS roots of the region]
    #[arg(long)]
    sslrootcert: Option<String>,
}

/// The lifetime of tokens, an option of the commands that issue them.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct TokenLifetime {
    /// The lifetime of a token, from 5s to 15m. Shorter lifetimes make rotations visible in tests
    #[arg(long, value_name = "TIME", default_value = "15m")]
    token_lifetime: humantime::Duration,
}

/// The time limit of a connect, an option of the commands that open connections.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ConnectTimeout {
    /// The time limit for opening a connection [default: connect_timeout of the connection string,
    /// else 9s]
    #[arg(long, value_name = "TIME", value_parser = positive)]
    connect_timeout: Option<humantime::Duration>,
}

fn positive(text: &str) -> Result<humantime::Duration, String> {
    let time: humantime::Duration = text.parse().map_err(|cause| format!("{cause}"))?;
    match time.is_zero() {
        true => Err("the time limit is zero; set 2s or more".to_owned()),
        false => Ok(time),
    }
}

/// Does `work`, and says on a terminal what it waits for if that takes long.
pub(crate) fn waiting_for<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    if io::stderr().is_terminal() {
        thread::spawn(move || {
            if is_done.recv_timeout(QUIET) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("rds-iam: waiting for {what}");
            }
        });
    }
    let result = work();
    drop(done);
    result
}

impl Target {
    /// The manager that opens its connections. Nothing is fetched or dialled yet.
    pub(crate) fn manager(&self) -> Result<PgConnectionManager, Error> {
        self.builder().build()
    }

    /// The same, whose tokens have this lifetime.
    pub(crate) fn manager_of(&self, lifetime: TokenLifetime) -> Result<PgConnectionManager, Error> {
        self.builder_of(lifetime).build()
    }

    /// A manager that only signs. It opens no connection, so it needs no root certificates, of which the library
    /// has none for some partitions.
    pub(crate) fn signer(&self, lifetime: TokenLifetime) -> Result<PgConnectionManager, Error> {
        self.manager_of(lifetime).or_else(|error| {
            let without_roots = self.builder_of(lifetime).sslrootcert("system");
            without_roots.build().map_err(|_| error)
        })
    }

    fn builder_of(&self, lifetime: TokenLifetime) -> ManagerBuilder<PgConnection> {
        self.builder()
            .tune_auth(|auth| auth.token_lifetime(*lifetime.token_lifetime))
    }

    /// The same, whose connects take no longer than [`connect_timeout`](Target::connect_timeout).
    pub(crate) fn manager_within(
        &self,
        timeout: ConnectTimeout,
    ) -> Result<PgConnectionManager, Error> {
        self.builder()
            .connect_timeout(self.connect_timeout(timeout))
            .build()
    }

    /// The time limit of a connect: the option's, the connection string's or the library's.
    pub(crate) fn connect_timeout(&self, timeout: ConnectTimeout) -> Duration {
        let given = self.manager().ok().and_then(|manager| {
            let mut parameters = manager.parameters();
            let (_, seconds) = parameters.find(|(name, _)| *name == "connect_timeout")?;
            let seconds: u64 = seconds.trim().parse().ok()?;
            // For libpq, 0 is no limit, and 1 is 2.
            (seconds > 0).then(|| Duration::from_secs(seconds.max(2)))
        });
        match (timeout.connect_timeout, given) {
            (Some(option), _) => *option,
            (None, Some(given)) => given,
            (None, None) => DEFAULT_CONNECT_TIMEOUT,
        }
    }

    /// The settings of the manager.
    pub(crate) fn builder(&self) -> ManagerBuilder<PgConnection> {
        let mut builder = match &self.host {
            Some(host) => PgConnectionManager::builder(&self.pairs(host)),
            None => PgConnectionManager::builder(self.url.as_deref().unwrap_or_default()),
        };
        if let Some(region) = &self.region {
            builder = builder.region(region);
        }
        if let Some(profile) = &self.profile {
            builder = builder.profile(profile);
        }
        if let Some(path) = &self.sslrootcert {
            builder = builder.sslrootcert(path);
        }
        if let Some(timeout) = self.credentials_timeout {
            builder = builder.credentials_timeout(*timeout);
        }
        builder.tune_auth(|auth| auth.refresh_timeout(CREDENTIALS_TIMEOUT))
    }

    /// Fetches the credentials and a token, and says on a terminal what it waits for.
    pub(crate) fn token_of(manager: &PgConnectionManager) -> Result<(Endpoint, Arc<Token>), Error> {
        waiting_for("AWS credentials", || manager.token())
    }

    /// The connection string as it was given, unless the parts override it.
    pub(crate) fn given_url(&self) -> Option<&str> {
        match self.host {
            Some(_) => None,
            None => self.url.as_deref(),
        }
    }

    /// Whether `--sslrootcert` overrides the connection string.
    pub(crate) fn overrides_roots(&self) -> bool {
        self.sslrootcert.is_some()
    }

    /// Has `command`, which is this program again, use the same database. The connection string goes
    /// into its environment, because other users can read arguments.
    #[cfg(unix)]
    pub(crate) fn apply(&self, command: &mut Command) {
        if let Some(url) = &self.url {
            command.env("DATABASE_URL", url);
        }
        let port = self.port.map(|port| port.to_string());
        let timeout = self.credentials_timeout.map(|timeout| timeout.to_string());
        for (option, value) in [
            ("--host", &self.host),
            ("--port", &port),
            ("--user", &self.user),
            ("--dbname", &self.dbname),
            ("--region", &self.region),
            ("--profile", &self.profile),
            ("--credentials-timeout", &timeout),
            ("--sslrootcert", &self.sslrootcert),
        ] {
            if let Some(value) = value {
                command.arg(format!("{option}={value}"));
            }
        }
    }

    /// The parts as a connection string.
    fn pairs(&self, host: &str) -> String {
        let port = self.port.map(|port| port.to_string());
        [
            ("host", Some(host)),
            ("port", port.as_deref()),
            ("user", self.user.as_deref()),
            ("dbname", self.dbname.as_deref()),
        ]
        .into_iter()
        .filter_map(|(keyword, value)| {
            let value = value?.replace('\\', r"\\").replace('\'', r"\'");
            Some(format!("{keyword}='{value}'"))
        })
        .collect::<Vec<_>>()
        .join(" ")
    }
}

#[cfg(unix)]
impl TokenLifetime {
    /// Has `command`, which is this program again, use the same lifetime.
    pub(crate) fn apply(self, command: &mut Command) {
        command.arg(format!("--token-lifetime={}", self.token_lifetime));
    }

    pub(crate) fn get(self) -> Duration {
        *self.token_lifetime
    }
}

/// Omits the connection string, which may contain a password by mistake.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
