//! The settings of an emulator.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::certificates::Authority;
use crate::credentials::Credentials;
use crate::emulator::Emulator;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};

/// Settings of an [`Emulator`]. Created by [`Emulator::builder`].
#[derive(Clone)]
#[must_use = "nothing runs until `start`"]
pub struct Builder {
    pub(crate) engine: Engine,
    pub(crate) region: String,
    pub(crate) endpoint: Option<(String, u16)>,
    pub(crate) port: u16,
    pub(crate) credentials: Vec<Credentials>,
    pub(crate) token_lifetime: Duration,
    pub(crate) session_limit: Option<Duration>,
    pub(crate) authentication_timeout: Duration,
    pub(crate) force_ssl: bool,
    pub(crate) expired_certificate: bool,
    pub(crate) certificate_names: Option<Vec<String>>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) upstream: Option<String>,
    pub(crate) member: Option<Member>,
}

/// What a server of a cluster shares with the others.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) authority: Arc<Authority>,
    /// The names of the cluster.
    pub(crate) other_hosts: Vec<String>,
    /// The folder of the primary's socket, for a standby.
    pub(crate) primary: Option<PathBuf>,
    /// Where it listens.
    pub(crate) address: IpAddr,
}

impl Emulator {
    /// Returns a builder. Nothing runs before [`Builder::start`].
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            engine: Engine::Rds,
            region: "eu-west-1".to_owned(),
            endpoint: None,
            port: 0,
            credentials: Vec::new(),
            token_lifetime: Duration::from_secs(900),
            session_limit: None,
            authentication_timeout: Duration::from_secs(60),
            force_ssl: true,
            expired_certificate: false,
            certificate_names: None,
            settings: Vec::new(),
            upstream: None,
            member: None,
        }
    }
}

impl Builder {
    /// Sets the service to stand in for. Default: [`Engine::Rds`].
    pub fn engine(mut self, engine: Engine) -> Builder {
        self.engine = engine;
        self
    }

    /// Sets the region that tokens must be signed for. Default: `eu-west-1`.
    pub fn region(mut self, region: impl Into<String>) -> Builder {
        self.region = region.into();
        self
    }

    /// Sets the host and port that tokens must be signed for. The certificate names the host besides
    /// `localhost`, `127.0.0.1` and `::1`. Default: a host name of the service's form in the region, and the port that
    /// the emulator listens on.
    pub fn endpoint(mut self, host: impl Into<String>, port: u16) -> Builder {
        self.endpoint = Some((host.into(), port));
        self
    }

    /// Sets the port to listen on, on 127.0.0.1 and ::1. Default: 0, which stands for any free port. Without IPv6,
    /// or if another program listens on this port of ::1, the emulator listens on 127.0.0.1 only.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// Accepts tokens that are signed with these credentials. Can be called repeatedly. Default: one pair,
    /// [`Emulator::access_key`] and [`Emulator::secret_key`], which is not accepted if others are configured.
    pub fn credentials(mut self, credentials: Credentials) -> Builder {
        self.credentials.push(credentials);
        self
    }

    /// Sets how long after its date a token is accepted. Default: 900 s, as on AWS. A token that requests less
    /// expires earlier.
    pub fn token_lifetime(mut self, lifetime: Duration) -> Builder {
        self.token_lifetime = lifetime;
        self
    }

    /// Sets how long an open session may last. Default: no limit, and an hour with [`Engine::Dsql`].
    pub fn session_limit(mut self, limit: Duration) -> Builder {
        self.session_limit = Some(limit);
        self
    }

    /// Sets how long a login may take before it is rejected with SQLSTATE 57014. Default: 60 s, as in
    /// PostgreSQL.
    pub fn authentication_timeout(mut self, timeout: Duration) -> Builder {
        self.authentication_timeout = timeout;
        self
    }

    /// Sets whether users who are not members of `rds_iam` need TLS as well. Default: true, as on RDS since
    /// PostgreSQL 15. Members always need it.
    pub fn force_ssl(mut self, force_ssl: bool) -> Builder {
        self.force_ssl = force_ssl;
        self
    }

    /// Makes the server present a certificate that expired in the year 2000. Default: false.
    pub fn expired_certificate(mut self, expired: bool) -> Builder {
        self.expired_certificate = expired;
        self
    }

    /// Sets the names in the server's certificate. Default: the endpoint's, `localhost` and `127.0.0.1`.
    pub fn certificate_names<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Builder {
        self.certificate_names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a setting of the PostgreSQL server, such as `("log_min_messages", "debug1")`. Can be called
    /// repeatedly; the last value of a setting wins. Default: the settings of a server whose data is not kept.
    pub fn postgres_setting(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Builder {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Stands in front of the PostgreSQL at this URL instead of one of its own. It is reached without
    /// TLS, and needs no PostgreSQL on this machine. Default: none.
    ///
    /// The URL's user must be a superuser. The emulator sets a password for each user whose token it has
    /// verified, and logs in as that user. The `pg_hba.conf` there must let users log in by password
    /// from this machine. An earlier password of such a user is lost. The role `rds_iam` is created there
    /// if it is missing, and stays. Methods that stop, start or fail over PostgreSQL return an error.
    pub fn upstream(mut self, url: impl Into<String>) -> Builder {
        self.upstream = Some(url.into());
        self
    }

    /// Starts the emulator and its PostgreSQL, and returns when both accept connections.
    ///
    /// The first start on a machine creates a template cluster, which takes a second or two. Later starts copy
    /// it. Can be called inside an async runtime, whose thread it blocks.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is not installed or does not start, if the port is in use, or if a setting is invalid.
    pub fn start(self) -> Result<Emulator, Error> {
        self.check()?;
        Emulator::start(self)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.region.is_empty() {
            return Err(Error::new(
                ErrorKind::Setting,
                "the region is empty: leave it out for eu-west-1, or name one",
            ));
        }
        if let Some((host, _)) = &self.endpoint
            && !is_host_name(host)
        {
            return Err(Error::new(
                ErrorKind::Setting,
                format!(
                    "the endpoint {host:?} is no host name: give the one that clients sign for"
                ),
            ));
        }
        Ok(())
    }
}

/// Omits the upstream's URL, which may contain a password.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("engine", &self.engine)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("port", &self.port)
            .field("token_lifetime", &self.token_lifetime)
            .finish_non_exhaustive()
    }
}

/// Whether a certificate can name the host and a token can be signed for it.
fn is_host_name(host: &str) -> bool {
    host.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    })
}
