//! The state that all connections share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;

use crate::clock::Clock;
use crate::credentials::Keyring;
use crate::engine::Engine;
use crate::faults::Faults;
use crate::language::CurrentLanguage;
use crate::login::LoginLog;
use crate::policy::Policy;
use crate::postgres::admin::Admin;
use crate::sessions::Sessions;
use crate::upstream::Upstream;

/// The configuration and the state of the server.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) region: String,
    pub(crate) host: String,
    /// The names of the cluster that this server is a member of.
    pub(crate) other_hosts: Vec<String>,
    /// The port that tokens must be signed for.
    pub(crate) signed_port: u16,
    pub(crate) force_ssl: bool,
    pub(crate) authentication_timeout: Millis,
    pub(crate) token_lifetime: Millis,
    /// Zero means no limit.
    pub(crate) session_limit: Millis,
    pub(crate) tls: TlsAcceptor,
    pub(crate) clock: Arc<Clock>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) policy: Policy,
    pub(crate) language: CurrentLanguage,
    pub(crate) logins: LoginLog,
    pub(crate) faults: Faults,
    pub(crate) sessions: Sessions,
    pub(crate) admin: Admin,
    pub(crate) upstream: RwLock<PathBuf>,
    /// A foreign PostgreSQL that is used instead.
    pub(crate) other: Option<Upstream>,
}

/// A duration that can be changed while it is in use.
pub(crate) struct Millis(AtomicU64);

impl Millis {
    pub(crate) fn new(duration: Duration) -> Millis {
        let millis = Millis(AtomicU64::new(0));
        millis.set(duration);
        millis
    }

    pub(crate) fn set(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Server {
    /// The socket of the PostgreSQL that new sessions go to.
    pub(crate) fn upstream(&self) -> PathBuf {
        self.upstream
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_upstream(&self, socket: PathBuf) {
        *self
            .upstream
            .write()
            .unwrap_or_else(PoisonError::into_inner) = socket;
    }
}
