//! Settings and faults that can be changed while an emulator runs.

use std::sync::Arc;
use std::time::Duration;

use crate::credentials::Credentials;
use crate::emulator::Emulator;
use crate::error::{Error, ErrorKind};
use crate::faults::Fault;
use crate::language::Language;
use crate::postgres::cluster::{self, Cluster};
use crate::sessions::SessionEnd;

/// A PostgreSQL server of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Node {
    /// The server that accepts writes.
    Writer,
    /// The read-only server that was the writer before the last failover.
    Reader,
}

/// # Who may log in
impl Emulator {
    /// Accepts tokens that are signed with these credentials from now on. They replace credentials with the
    /// same access key.
    pub fn add_credentials(&self, credentials: Credentials) {
        self.server.keyring.add(credentials);
    }

    /// Forgets credentials, as if the access key were deleted. Returns whether they were known.
    pub fn remove_credentials(&self, access_key: &str) -> bool {
        self.server.keyring.remove(access_key)
    }

    /// Adds a statement to the policy: credentials that match `principal`, by access key or by the ARN of
    /// [`Credentials::principal`], may log in as the users that match `user` (`rds-db:connect`). `*` matches
    /// any characters, `?` one. Without a statement, all credentials may log in as any user.
    pub fn allow(&self, principal: impl Into<String>, user: impl Into<String>) {
        self.server.policy.allow(principal.into(), user.into());
    }

    /// Removes a statement, and returns whether it existed. After the last one is removed, no credentials are
    /// allowed.
    pub fn revoke(&self, principal: &str, user: &str) -> bool {
        self.server.policy.revoke(principal, user)
    }
}

/// # Sessions, faults and time
impl Emulator {
    /// Closes all connections, including those that are logging in, as a server does that stops. Returns when
    /// they are closed.
    pub fn drop_sessions(&self) {
        self.server.sessions.end_all(SessionEnd::Close);
    }

    /// Resets all connections, as after the loss of a host. Returns when they are reset.
    pub fn reset_sessions(&self) {
        self.server.sessions.end_all(SessionEnd::Reset);
    }

    /// Activates a fault. It replaces an earlier one of its kind and stage.
    pub fn fault(&self, fault: Fault) {
        self.server.faults.add(fault);
    }

    /// Activates exactly these faults.
    pub fn set_faults(&self, faults: &[Fault]) {
        self.heal();
        for fault in faults {
            self.fault(*fault);
        }
    }

    /// Deactivates all faults. Connections that they have broken stay broken.
    pub fn heal(&self) {
        self.server.faults.clear();
    }

    /// Sets by how many seconds the server's clock is ahead of this machine's, or behind it if negative.
    /// Default: 0.
    pub fn set_server_clock_skew(&self, seconds: i64) {
        self.server.clock.set_skew(seconds);
    }

    /// Sets how long after its date a token is accepted, from now on.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.server.token_lifetime.set(lifetime);
    }

    /// Sets how long the login of clients that connect from now on may take.
    pub fn set_authentication_timeout(&self, timeout: Duration) {
        self.server.authentication_timeout.set(timeout);
    }

    /// Sets how long sessions that are opened from now on may last. Zero means no limit.
    pub fn set_session_limit(&self, limit: Duration) {
        self.server.session_limit.set(limit);
    }

    /// Sets the language of the server's messages. The emulator's own messages change at once. PostgreSQL's
    /// change in sessions that are opened later, and only if this machine has the locale, which many containers
    /// lack.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is stopped.
    pub fn set_language(&self, language: Language) -> Result<(), Error> {
        self.server.language.set(language);
        let statement = format!("ALTER SYSTEM SET lc_messages = '{}'", language.locale());
        match self.execute(&statement) {
            // This machine lacks the locale.
            Err(error) if error.kind() == ErrorKind::Sql => self.execute("SELECT"),
            Err(error) => Err(error),
            Ok(()) => self.execute("SELECT pg_reload_conf()"),
        }
    }
}

/// # PostgreSQL itself
impl Emulator {
    /// Stops PostgreSQL and refuses connections, as an instance that stops or reboots. All sessions end.
    ///
    /// # Errors
    ///
    /// If PostgreSQL does not stop.
    pub fn stop_postgres(&self) -> Result<(), Error> {
        let cluster = self.postgres()?;
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
        self.postgres()?.start_again()?;
        self.open_door()
    }

    /// Fails over: another PostgreSQL server becomes the writer, with all data, and the previous one returns as
    /// its read-only standby. All sessions end. Connections are refused meanwhile.
    ///
    /// # Errors
    ///
    /// If one of the two servers does not stop or start.
    pub fn fail_over(&self) -> Result<(), Error> {
        let cluster = self.postgres()?;
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

    /// Sets where new sessions go: to the reader, as for a client whose DNS cache still has the previous
    /// writer's address, or to the writer.
    ///
    /// # Errors
    ///
    /// If there is no reader, because [`fail_over`](Emulator::fail_over) was never called.
    pub fn route_to(&self, node: Node) -> Result<(), Error> {
        let cluster = self.postgres()?;
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

    pub(crate) fn postgres(&self) -> Result<&Cluster, Error> {
        self.cluster.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Setting,
                "the emulator does not stop or start the PostgreSQL of upstream: leave upstream out",
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
