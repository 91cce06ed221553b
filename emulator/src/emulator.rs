//! The emulator's handle.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::AwsEndpoints;
use crate::credentials::Credentials;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::listener::Listener;
use crate::login::Login;
use crate::postgres::cluster::Cluster;
use crate::postgres::template;
use crate::server::Server;
use crate::threads::Threads;

/// The characters of a path that are encoded in a URL's query.
const NOT_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The SQLSTATE of PostgreSQL's error for a database that exists already.
const DUPLICATE_DATABASE: &str = "(42P04)";

/// A running emulator. When it is dropped, everything that it has started and created is removed.
///
/// Its methods can be called from any thread, also inside an async runtime. Those that wait for PostgreSQL
/// block the thread.
pub struct Emulator {
    pub(crate) server: Arc<Server>,
    pub(crate) listener: Listener,
    pub(crate) aws: AwsEndpoints,
    pub(crate) address: SocketAddr,
    /// The first accepted credentials.
    pub(crate) credentials: Credentials,
    pub(crate) ca_pem: String,
    pub(crate) ca_path: PathBuf,
    // The order of dropping: what uses PostgreSQL, then PostgreSQL, then its folder.
    pub(crate) threads: Threads,
    /// `None` in front of a foreign PostgreSQL.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) _folder: tempfile::TempDir,
}

impl Emulator {
    /// The address of the listener, on 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// All addresses of the listener: the one on 127.0.0.1 and, if this machine has IPv6, the same port on ::1.
    /// For a name that resolves to both, see [`Fault::ResetAddress`](crate::Fault::ResetAddress).
    pub fn addrs(&self) -> &[SocketAddr] {
        self.listener.addresses()
    }

    /// The endpoint's host name, which tokens must be signed for.
    pub fn host(&self) -> &str {
        &self.server.host
    }

    /// The port of the listener.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The port that tokens must be signed for. It differs from [`port`](Emulator::port) only if
    /// [`Builder::endpoint`](crate::Builder::endpoint) sets it.
    pub fn signed_port(&self) -> u16 {
        self.server.signed_port
    }

    /// The region that tokens must be signed for.
    pub fn region(&self) -> &str {
        &self.server.region
    }

    /// The access key of the first accepted credentials.
    pub fn access_key(&self) -> &str {
        &self.credentials.access_key
    }

    /// The secret key of the first accepted credentials.
    pub fn secret_key(&self) -> &str {
        &self.credentials.secret_key
    }

    /// The path of a file with the certificate of the CA that clients must trust.
    pub fn ca_path(&self) -> &Path {
        &self.ca_path
    }

    /// The same certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A libpq URL without a password for `user` and this user's own database, with `sslmode=verify-full`. The
    /// methods that create a user create that database. For [`Engine::Dsql`] it is `postgres`, the only database of
    /// Aurora DSQL.
    pub fn url(&self, user: &str) -> String {
        match self.server.engine {
            Engine::Dsql => self.url_of(user, "postgres"),
            Engine::Rds | Engine::Proxy => self.url_of(user, user),
        }
    }

    /// The same for another database.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!(
            "postgres://{}@{}:{}/{}?hostaddr={}&sslmode=verify-full&sslrootcert={}",
            utf8_percent_encode(user, NON_ALPHANUMERIC),
            self.host(),
            self.port(),
            utf8_percent_encode(database, NON_ALPHANUMERIC),
            self.address.ip(),
            utf8_percent_encode(&self.ca_path.to_string_lossy(), NOT_IN_PATHS),
        )
    }

    /// A libpq connection string to PostgreSQL itself as its superuser, which bypasses the emulator. Its database
    /// is `postgres`; ` dbname=app` after it leads to another one. Empty in front of a foreign PostgreSQL.
    pub fn superuser_url(&self) -> String {
        self.cluster.as_ref().map_or(String::new(), |cluster| {
            format!(
                "host='{}' user={} dbname=postgres",
                cluster.writer().display(),
                template::SUPERUSER,
            )
        })
    }

    /// The endpoints of AWS from which clients fetch credentials.
    pub fn aws(&self) -> &AwsEndpoints {
        &self.aws
    }

    /// Creates a database user who logs in with a token: a member of `rds_iam`. Also creates a database of the
    /// same name that belongs to this user, unless it exists; see [`url`](Emulator::url).
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects the name, for example because the user exists.
    pub fn create_iam_user(&self, name: &str) -> Result<(), Error> {
        self.execute_format("CREATE ROLE %1$I LOGIN; GRANT rds_iam TO %1$I", &[name])?;
        self.ensure_own_database(name)
    }

    /// Lets `name` log in with a token: creates the user and a database of the same name if necessary, and makes
    /// the user a member of `rds_iam`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects the name.
    pub fn ensure_iam_user(&self, name: &str) -> Result<(), Error> {
        self.execute_format(
            "DO $ensure$ BEGIN \
                 IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %1$L) THEN \
                     CREATE ROLE %1$I LOGIN; \
                 END IF; \
             END $ensure$; \
             GRANT rds_iam TO %1$I",
            &[name],
        )?;
        self.ensure_own_database(name)
    }

    /// Creates a database user who logs in with a password, and a database of the same name that belongs to this
    /// user, unless it exists.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects the name.
    pub fn create_password_user(&self, name: &str, password: &str) -> Result<(), Error> {
        self.execute_format("CREATE ROLE %I LOGIN PASSWORD %L", &[name, password])?;
        self.ensure_own_database(name)
    }

    /// Creates a database that belongs to `owner`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects the name, or the owner does not exist.
    pub fn create_database(&self, name: &str, owner: &str) -> Result<(), Error> {
        self.execute_format("CREATE DATABASE %I OWNER %I", &[name, owner])
    }

    /// Creates a database that belongs to `owner`, unless it exists.
    ///
    /// # Errors
    ///
    /// As [`create_database`](Emulator::create_database).
    pub fn ensure_database(&self, name: &str, owner: &str) -> Result<(), Error> {
        match self.create_database(name, owner) {
            Err(error) if error.to_string().ends_with(DUPLICATE_DATABASE) => Ok(()),
            result => result,
        }
    }

    /// Runs statements, separated by semicolons, as the superuser in the database `postgres`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects a statement, or is stopped.
    pub fn execute(&self, statements: &str) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        let statements = statements.to_owned();
        self.threads
            .wait(async move { server.admin.execute(&statements).await })
    }

    /// Runs a query for one text as the superuser.
    pub(crate) fn query(&self, query: &'static str) -> Result<String, Error> {
        let server = Arc::clone(&self.server);
        self.threads
            .wait(async move { server.admin.text(query).await })
    }

    /// All logins so far, oldest first. The latest 100,000 are kept.
    pub fn logins(&self) -> Vec<Login> {
        self.server.logins.all()
    }

    /// The number of logins so far.
    pub fn login_count(&self) -> usize {
        self.server.logins.count()
    }

    /// Waits until there have been `count` logins, and returns all.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that takes longer than `limit`.
    pub fn wait_for_logins(&self, count: usize, limit: Duration) -> Result<Vec<Login>, Error> {
        self.server.logins.wait(count, limit).ok_or_else(|| {
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "there were {} logins within {limit:?}, not {count}",
                    self.login_count()
                ),
            )
        })
    }

    /// Receives every login from now on. The iterator ends when the emulator is dropped; until then, logins
    /// that are not received are kept.
    pub fn watch(&self) -> Receiver<Login> {
        self.server.logins.watch()
    }

    /// The number of open sessions.
    pub fn sessions(&self) -> usize {
        self.server.sessions.count()
    }

    /// Waits until exactly `count` sessions are open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that takes longer than `limit`.
    pub fn wait_for_sessions(&self, count: usize, limit: Duration) -> Result<(), Error> {
        let reached = self.server.sessions.wait(|open| open == count, limit);
        reached.map(|_| ()).ok_or_else(|| {
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "{} sessions are open after {limit:?}, not {count}",
                    self.sessions()
                ),
            )
        })
    }

    /// Creates the database that [`url`](Emulator::url) names, unless it exists.
    fn ensure_own_database(&self, user: &str) -> Result<(), Error> {
        if self.server.engine == Engine::Dsql {
            return Ok(());
        }
        let renamed = self.execute_format(
            "ALTER DATABASE %1$I RENAME TO %2$I; ALTER DATABASE %2$I OWNER TO %2$I",
            &[template::SPARE_DATABASE, user],
        );
        // Another user has the spare one, the database exists, or the PostgreSQL is a foreign one.
        renamed.or_else(|_| self.ensure_database(user, user))
    }

    fn execute_format(&self, statement: &'static str, names: &[&str]) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.threads.wait(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            server.admin.execute_format(statement, &names).await
        })
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("engine", &self.server.engine)
            .field("host", &self.server.host)
            .field("addr", &self.address)
            .finish_non_exhaustive()
    }
}
