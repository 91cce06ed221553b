//! The emulator as its users hold it.

use std::fmt;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::builder::Builder;
use crate::certificates::{Certificates, Wanted};
use crate::clock::Clock;
use crate::credentials::{Credentials, Keyring};
use crate::error::{Error, ErrorKind};
use crate::faults::{Fault, Faults};
use crate::login::{Login, LoginLog};
use crate::policy::Policy;
use crate::postgres::Postgres;
use crate::postgres::account::Account;
use crate::postgres::admin::Admin;
use crate::postgres::binaries::Binaries;
use crate::postgres::template;
use crate::server::{Door, Millis, Port, Server};
use crate::sessions::{Ending, Sessions};

/// The access key that is accepted where no other was given.
const ACCESS_KEY: &str = "AKIAEMULATOREXAMPLE0";

/// Its secret, which opens nothing but emulators.
const SECRET_KEY: &str = "rds/iam/emulator/EXAMPLE/secret/key+0123";

/// How long Drop waits for what still runs.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// A running emulator. Everything that it started and made is gone when it is dropped.
///
/// Its methods may be called from any thread, inside an async runtime too; those that wait for
/// PostgreSQL block the thread meanwhile.
pub struct Emulator {
    server: Arc<Server>,
    door: Door,
    address: SocketAddr,
    credentials: Credentials,
    ca_pem: String,
    ca_path: PathBuf,
    // Dropped in this order: first what talks to PostgreSQL, then PostgreSQL, then its folder.
    runtime: Option<Runtime>,
    postgres: Mutex<Postgres>,
    _folder: tempfile::TempDir,
}

impl Emulator {
    /// An emulator that is not started yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(builder: Builder) -> Result<Emulator, Error> {
        raise_descriptor_limit();
        let account = Account::choose()?;
        let binaries = Binaries::find()?;
        let folder = temporary_folder(account)?;
        let postgres = prepare_postgres(folder.path(), &binaries, account, &builder.settings)?;
        postgres.start()?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("rds-iam-emulator")
            .enable_all()
            .build()
            .map_err(|cause| Error::io("the emulator's threads could not be started", cause))?;
        let port = {
            let _inside = runtime.enter();
            Port::reserve(builder.port)?
        };
        let address = port.address();
        let (host, signed_port) = builder
            .endpoint
            .unwrap_or_else(|| (builder.engine.default_host(&builder.region), address.port()));
        let names = builder
            .certificate_names
            .unwrap_or_else(|| vec![host.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()]);
        let certificates = Certificates::generate(&Wanted {
            engine: builder.engine,
            names: &names,
            expired: builder.expired_certificate,
        })?;
        let ca_path = folder.path().join("ca.pem");
        fs::write(&ca_path, &certificates.ca_pem)
            .map_err(|cause| Error::io("the CA's certificate could not be written", cause))?;

        let mut accepted = builder.credentials;
        if accepted.is_empty() {
            accepted.push(Credentials::new(ACCESS_KEY, SECRET_KEY));
        }
        let keyring = Arc::new(Keyring::default());
        let credentials = accepted
            .first()
            .cloned()
            .unwrap_or_else(|| Credentials::new(ACCESS_KEY, SECRET_KEY));
        for credentials in accepted {
            keyring.add(credentials);
        }
        let session_limit = builder
            .session_limit
            .or(builder.engine.session_limit())
            .unwrap_or_default();
        let server = Arc::new(Server {
            engine: builder.engine,
            region: builder.region,
            host,
            signed_port,
            force_ssl: builder.force_ssl,
            authentication_timeout: builder.authentication_timeout,
            token_lifetime: Millis::new(builder.token_lifetime),
            session_limit: Millis::new(session_limit),
            tls: TlsAcceptor::from(certificates.server),
            clock: Arc::new(Clock::default()),
            keyring,
            policy: Policy::default(),
            logins: LoginLog::default(),
            faults: Faults::default(),
            sessions: Sessions::default(),
            admin: Admin::new(postgres.folder()),
            upstream: postgres.socket().into(),
        });
        let door = {
            let _inside = runtime.enter();
            Door::build(Arc::clone(&server), port)
        };
        let emulator = Emulator {
            server,
            door,
            address,
            credentials,
            ca_pem: certificates.ca_pem,
            ca_path,
            runtime: Some(runtime),
            postgres: Mutex::new(postgres),
            _folder: folder,
        };
        emulator.execute("SELECT")?;
        let door = emulator.door.clone();
        emulator.wait(async move { door.open().await })?;
        Ok(emulator)
    }

    /// Where it listens: a port of 127.0.0.1.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint's host name, which tokens must be signed for.
    pub fn host(&self) -> &str {
        &self.server.host
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The port that tokens must be signed for: another one than [`port`](Emulator::port) only if
    /// [`Builder::endpoint`] said so.
    pub fn signed_port(&self) -> u16 {
        self.server.signed_port
    }

    /// The region that tokens must be signed for.
    pub fn region(&self) -> &str {
        &self.server.region
    }

    /// The access key of the first credentials that are accepted.
    pub fn access_key(&self) -> &str {
        &self.credentials.access_key
    }

    /// The secret key of the first credentials that are accepted.
    pub fn secret_key(&self) -> &str {
        &self.credentials.secret_key
    }

    /// A file with the certificate of the CA that clients must trust.
    pub fn ca_path(&self) -> &Path {
        &self.ca_path
    }

    /// The same certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A libpq URL without password for `user` and the database `postgres`, which verifies the
    /// server in full.
    pub fn url(&self, user: &str) -> String {
        format!(
            "postgres://{}@{}:{}/postgres?hostaddr={}&sslmode=verify-full&sslrootcert={}",
            utf8_percent_encode(user, NON_ALPHANUMERIC),
            self.host(),
            self.port(),
            self.address.ip(),
            self.ca_path.display(),
        )
    }

    /// A libpq connection string for PostgreSQL itself, past the emulator, as its superuser.
    pub fn superuser_url(&self) -> String {
        let postgres = self.postgres.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "host={} user={} dbname=postgres",
            postgres.folder().display(),
            template::SUPERUSER,
        )
    }

    /// Creates a database user who logs in with a token: a member of `rds_iam`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL refuses the name, for instance because there is such a user.
    pub fn create_iam_user(&self, name: &str) -> Result<(), Error> {
        self.execute_format("CREATE ROLE %1$I LOGIN; GRANT rds_iam TO %1$I", &[name])
    }

    /// Creates a database user who logs in with a password.
    ///
    /// # Errors
    ///
    /// If PostgreSQL refuses the name.
    pub fn create_password_user(&self, name: &str, password: &str) -> Result<(), Error> {
        self.execute_format("CREATE ROLE %I LOGIN PASSWORD %L", &[name, password])
    }

    /// Creates a database that belongs to `owner`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL refuses the name, or there is no such owner.
    pub fn create_database(&self, name: &str, owner: &str) -> Result<(), Error> {
        self.execute_format("CREATE DATABASE %I OWNER %I", &[name, owner])
    }

    /// Runs statements, separated by semicolons, as the superuser in the database `postgres`.
    ///
    /// # Errors
    ///
    /// If PostgreSQL refuses one, or is stopped.
    pub fn execute(&self, statements: &str) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        let statements = statements.to_owned();
        self.wait(async move { server.admin.execute(&statements).await })
    }

    /// Accepts tokens that were signed with these credentials too, from now on. Credentials with
    /// the same access key are replaced.
    pub fn add_credentials(&self, credentials: Credentials) {
        self.server.keyring.add(credentials);
    }

    /// Forgets credentials, as when an access key is deleted; says whether they were known.
    pub fn remove_credentials(&self, access_key: &str) -> bool {
        self.server.keyring.remove(access_key)
    }

    /// Adds a statement to the policy: who matches `principal`, an access key or the ARN of
    /// [`Credentials::principal`], may be the database users that match `user` (`rds-db:connect`).
    /// `*` stands for any characters, `?` for one. Without a statement everyone may be everyone.
    pub fn allow(&self, principal: impl Into<String>, user: impl Into<String>) {
        self.server.policy.allow(principal.into(), user.into());
    }

    /// Takes such a statement back, and says whether it was there. After the last one nobody may be
    /// anyone.
    pub fn revoke(&self, principal: &str, user: &str) -> bool {
        self.server.policy.revoke(principal, user)
    }

    /// Every login so far, the oldest first; the latest 100,000 if there were more.
    pub fn logins(&self) -> Vec<Login> {
        self.server.logins.all()
    }

    /// How many logins there were.
    pub fn login_count(&self) -> usize {
        self.server.logins.count()
    }

    /// Waits until there were `count` logins, and returns all.
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

    /// Every login from now on, as it happens. It ends when the emulator is dropped.
    pub fn watch(&self) -> Receiver<Login> {
        self.server.logins.watch()
    }

    /// How many sessions are open.
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

    /// Closes all connections, those in their login too, as a server does that stops.
    pub fn drop_sessions(&self) {
        self.server.sessions.end_all(Ending::Close);
    }

    /// Resets all connections, as when a host is gone.
    pub fn reset_sessions(&self) {
        self.server.sessions.end_all(Ending::Reset);
    }

    /// Lets something go wrong from now on. It replaces an earlier fault of its kind and stage, and
    /// adds to all others.
    pub fn fault(&self, fault: Fault) {
        self.server.faults.add(fault);
    }

    /// Lets exactly these things go wrong from now on.
    pub fn set_faults(&self, faults: &[Fault]) {
        self.heal();
        for fault in faults {
            self.fault(*fault);
        }
    }

    /// Ends all faults. What they have broken stays broken.
    pub fn heal(&self) {
        self.server.faults.clear();
    }

    /// Moves the server's clock: by so many seconds it is ahead of this machine's, or behind if
    /// negative. Default: 0.
    pub fn set_server_clock_skew(&self, seconds: i64) {
        self.server.clock.set_skew(seconds);
    }

    /// For how long after its date a token is accepted, from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.server.token_lifetime.set(lifetime);
    }

    /// After what time sessions that are opened from now on are cut; zero for never.
    pub fn set_session_limit(&self, limit: Duration) {
        self.server.session_limit.set(limit);
    }

    /// Stops PostgreSQL and refuses connections, as an instance that stops or reboots. All sessions
    /// end.
    ///
    /// # Errors
    ///
    /// If PostgreSQL does not stop.
    pub fn stop_postgres(&self) -> Result<(), Error> {
        let door = self.door.clone();
        self.wait(async move { door.close().await })?;
        let postgres = self.postgres.lock().unwrap_or_else(PoisonError::into_inner);
        postgres.stop()?;
        self.drop_sessions();
        Ok(())
    }

    /// Starts PostgreSQL again after [`stop_postgres`](Emulator::stop_postgres), with all its data.
    ///
    /// # Errors
    ///
    /// If PostgreSQL does not start.
    pub fn start_postgres(&self) -> Result<(), Error> {
        self.postgres
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .start()?;
        let door = self.door.clone();
        self.wait(async move { door.open().await })
    }

    fn execute_format(&self, statement: &'static str, names: &[&str]) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.wait(async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            server.admin.execute_format(statement, &names).await
        })
    }

    /// Runs `future` on the emulator's threads. `Runtime::block_on` would panic in async code.
    fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let gone = || Error::new(ErrorKind::Io, "the emulator's threads are gone");
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.as_ref().ok_or_else(gone)?.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| gone())?
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

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own: waiting for a runtime to end panics in async code.
            let ended = thread::Builder::new()
                .spawn(move || runtime.shutdown_timeout(SHUTDOWN_LIMIT))
                .map(thread::JoinHandle::join);
            drop(ended);
        }
    }
}

/// The folder of everything that this emulator makes. Short, since a socket's path may have little
/// more than a hundred bytes.
fn temporary_folder(account: Account) -> Result<tempfile::TempDir, Error> {
    let failed = |cause| {
        Error::io(
            "no temporary folder could be made: set TMPDIR to a place",
            cause,
        )
    };
    let prefix = "rds-iam-";
    let default = std::env::temp_dir();
    let parent = if default.as_os_str().len() > 60 {
        Path::new("/tmp")
    } else {
        &default
    };
    let folder = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(parent)
        .map_err(failed)?;
    account.own(folder.path()).map_err(failed)?;
    Ok(folder)
}

fn prepare_postgres(
    root: &Path,
    binaries: &Binaries,
    account: Account,
    settings: &[(String, String)],
) -> Result<Postgres, Error> {
    let folder = root.join("1");
    let failed = |cause| Error::io("a folder for PostgreSQL could not be made", cause);
    fs::create_dir(&folder).map_err(failed)?;
    account.own(&folder).map_err(failed)?;
    template::copy_to(&folder.join("data"), binaries, account)?;
    Postgres::new(root, &folder, binaries, account, settings)
}

/// A thousand sessions are two thousand descriptors, and the usual limit is 1,024. It is raised as
/// far as this process may; if that fails, fewer sessions fit, which is no reason not to start.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
