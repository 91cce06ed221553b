//! What can be changed, and made to go wrong, while an emulator runs.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::emulator::Emulator;
use crate::error::{Error, ErrorKind};
use crate::faults::Fault;
use crate::language::Language;
use crate::postgres::cluster::{self, Cluster};
use crate::sessions::SessionEnd;

/// A PostgreSQL of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Node {
    /// The one that takes writes.
    Writer,
    /// The one that was the writer before the last failover; it is read-only.
    Reader,
}

/// # Who may log in
impl Emulator {
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
}

/// # Sessions, faults and time
impl Emulator {
    /// Closes all connections, those in their login too, as a server does that stops. Returns when
    /// they are closed.
    pub fn drop_sessions(&self) {
        self.server.sessions.end_all(SessionEnd::Close);
    }

    /// Resets all connections, as when a host is gone. Returns when they are reset.
    pub fn reset_sessions(&self) {
        self.server.sessions.end_all(SessionEnd::Reset);
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

    /// How long clients that connect from now on may take for their login.
    pub fn set_authentication_timeout(&self, timeout: Duration) {
        self.server.authentication_timeout.set(timeout);
    }

    /// After what time sessions that are opened from now on are cut; zero for never.
    pub fn set_session_limit(&self, limit: Duration) {
        self.server.session_limit.set(limit);
    }

    /// What language the server speaks from now on. The emulator's own refusals change at once; of
    /// PostgreSQL's messages only those in sessions opened later, and only if this machine has the
    /// locale, which many containers have not.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is stopped.
    pub fn set_language(&self, language: Language) -> Result<(), Error> {
        self.server.language.set(language);
        let statement = format!("ALTER SYSTEM SET lc_messages = '{}'", language.locale());
        match self.execute(&statement) {
            // The machine has no such locale.
            Err(error) if error.kind() == ErrorKind::Sql => self.execute("SELECT"),
            Err(error) => Err(error),
            Ok(()) => self.execute("SELECT pg_reload_conf()"),
        }
    }
}

/// # PostgreSQL itself
impl Emulator {
    /// Stops PostgreSQL and refuses connections, as an instance that stops or reboots. All sessions
    /// end.
    ///
    /// # Errors
    ///
    /// If PostgreSQL does not stop.
    pub fn stop_postgres(&self) -> Result<(), Error> {
        let cluster = self.own_cluster()?;
        self.close_door()?;
        cluster.stop()?;
        self.drop_sessions();
        Ok(())
    }

    /// Starts PostgreSQL again after [`stop_postgres`](Emulator::stop_postgres), with all its data.
    ///
    /// # Errors
    ///
    /// If PostgreSQL does not start.
    pub fn start_postgres(&self) -> Result<(), Error> {
        self.own_cluster()?.start_again()?;
        self.open_door()
    }

    /// Fails over: another PostgreSQL becomes the writer, with all data, and the one before comes
    /// back as its read-only standby. All sessions end; new ones go to the new writer. Connections
    /// are refused meanwhile.
    ///
    /// # Errors
    ///
    /// If one of the two does not stop or start.
    pub fn fail_over(&self) -> Result<(), Error> {
        let cluster = self.own_cluster()?;
        self.close_door()?;
        self.drop_sessions();
        cluster.fail_over()?;
        let server = Arc::clone(&self.server);
        let writer = cluster.writer();
        self.threads.wait(async move {
            server.admin.switch_to(&writer).await;
            server.set_upstream(cluster::socket(&writer));
            Ok(())
        })?;
        self.open_door()
    }

    /// Where new sessions go from now on: to the reader, as for a client whose DNS cache still has
    /// the writer's old address, or to the writer again.
    ///
    /// # Errors
    ///
    /// If there was no [`fail_over`](Emulator::fail_over) yet, and so is no reader.
    pub fn route_to(&self, node: Node) -> Result<(), Error> {
        let cluster = self.own_cluster()?;
        let folder = match node {
            Node::Writer => cluster.writer(),
            Node::Reader => cluster.reader().ok_or_else(|| {
                Error::new(
                    ErrorKind::Setting,
                    "there is no reader to route to before the first fail_over",
                )
            })?,
        };
        self.server.set_upstream(cluster::socket(&folder));
        Ok(())
    }

    fn own_cluster(&self) -> Result<&Cluster, Error> {
        self.cluster.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Setting,
                "the PostgreSQL behind this emulator is somebody else's: leave upstream out for one \
                 that can be stopped",
            )
        })
    }

    fn open_door(&self) -> Result<(), Error> {
        let listener = self.listener.clone();
        self.threads.wait(async move { listener.open().await })
    }

    fn close_door(&self) -> Result<(), Error> {
        let listener = self.listener.clone();
        self.threads.wait(async move { listener.close().await })
    }
}
