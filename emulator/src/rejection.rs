//! Rejections of connections that a test requests.

use crate::engine::{Answer, Engine};
use crate::language::{Described, Phrases};

/// An error that ends a connection before the server requests a password. It does not concern the token, and
/// is not recorded as a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// Aurora DSQL's rate limit of new connections: SQLSTATE 53400, `Unable to accept connection, rate
    /// exceeded.` (its user guide, "Cluster quotas and database limits").
    RateExceeded,
    /// The server has no connection left: SQLSTATE 53300. The message is Aurora DSQL's `Unable to accept
    /// connection, too many open connections.` for [`Engine::Dsql`], and PostgreSQL's `sorry, too many clients
    /// already` otherwise.
    TooManyConnections,
    /// Aurora Serverless v2 resumes from 0 ACU: SQLSTATE 28000, `no pg_hba.conf entry for host "…", user "…",
    /// database "…", SSL encryption`, as reported in aws-cdk issue 20282. A resume takes about 15 s. Combine
    /// this with [`Fault::Delay`](crate::Fault::Delay) at [`Stage::Accept`](crate::Stage::Accept).
    Resuming,
    /// PostgreSQL cannot start a process: `could not fork new process for connection: Cannot allocate memory`,
    /// instead of its answer to the request for TLS. The message is one of protocol 2 and has no SQLSTATE
    /// (`report_fork_failure_to_client` in PostgreSQL's `postmaster.c`).
    CannotFork,
}

/// PostgreSQL's message if it cannot start a process.
pub(crate) const CANNOT_FORK: &[u8] =
    b"Ecould not fork new process for connection: Cannot allocate memory\n\0";

impl Rejection {
    /// The error for a client whose start-up packet has been read.
    pub(crate) fn answer(
        self,
        engine: Engine,
        phrases: &Phrases,
        client: &Described<'_>,
    ) -> Answer {
        let (sqlstate, message) = match (self, engine) {
            (Rejection::RateExceeded, _) => {
                ("53400", "Unable to accept connection, rate exceeded.")
            }
            (Rejection::TooManyConnections, Engine::Dsql) => (
                "53300",
                "Unable to accept connection, too many open connections.",
            ),
            (Rejection::TooManyConnections, _) => ("53300", "sorry, too many clients already"),
            // Sent before any start-up packet is read.
            (Rejection::CannotFork, _) => ("53000", "could not fork new process for connection"),
            (Rejection::Resuming, _) => return ("28000", phrases.no_entry(client)),
        };
        (sqlstate, message.to_owned())
    }
}
