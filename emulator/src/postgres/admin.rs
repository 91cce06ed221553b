//! The emulator's own connection to PostgreSQL, as the superuser.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::error::{Error, ErrorKind};
use crate::postgres::template::SUPERUSER;

/// Whether a role is a member of `rds_iam`, directly or through other roles. `pg_has_role` returns true for
/// every superuser, unlike `pg_hba.conf`. The name is compared by its bytes, since PostgreSQL reads start-up
/// packets without an encoding as well.
const MEMBERSHIP: &str = "\
WITH RECURSIVE held (oid) AS (
    SELECT oid FROM pg_roles WHERE namesend(rolname) = $1
    UNION
    SELECT roleid FROM pg_auth_members JOIN held ON member = held.oid
)
SELECT EXISTS (SELECT FROM held), \
    EXISTS (SELECT FROM held JOIN pg_roles USING (oid) WHERE rolname = 'rds_iam')";

/// One connection, opened on first use and again after it was lost.
pub(crate) struct Admin {
    state: Mutex<State>,
}

/// How RDS treats a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountStatus {
    /// The role does not exist.
    Unknown,
    /// A role that can log in by password only.
    Other,
    /// A member of `rds_iam`, which logs in with a token.
    IamMember,
}

struct State {
    config: Config,
    session: Option<Arc<Session>>,
}

struct Session {
    client: Client,
    membership: Statement,
}

impl Admin {
    pub(crate) fn new(config: Config) -> Admin {
        Admin {
            state: Mutex::new(State {
                config,
                session: None,
            }),
        }
    }

    /// Uses another server from now on.
    pub(crate) async fn switch_to(&self, socket_folder: &Path) {
        let mut state = self.state.lock().await;
        state.config = config(socket_folder);
        state.session = None;
    }

    /// Returns how `user` logs in.
    pub(crate) async fn status(&self, user: &[u8]) -> Result<AccountStatus, Error> {
        let failed = |error| sql_error("the members of rds_iam could not be looked up", &error);
        let session = self.session().await?;
        let row = session
            .client
            .query_one(&session.membership, &[&user])
            .await
            .map_err(failed)?;
        let exists = row.try_get(0).map_err(failed)?;
        let member = row.try_get(1).map_err(failed)?;
        Ok(match (exists, member) {
            (false, _) => AccountStatus::Unknown,
            (true, false) => AccountStatus::Other,
            (true, true) => AccountStatus::IamMember,
        })
    }

    pub(crate) async fn execute(&self, statements: &str) -> Result<(), Error> {
        let session = self.session().await?;
        session
            .client
            .batch_execute(statements)
            .await
            .map_err(|error| sql_error("PostgreSQL refused the statement", &error))
    }

    /// Runs a query for one text.
    pub(crate) async fn text(&self, query: &str) -> Result<String, Error> {
        let session = self.session().await?;
        let row = session.client.query_one(query, &[]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| sql_error("PostgreSQL refused the query", &error))
    }

    /// Runs `statement`. PostgreSQL fills in `%I` and `%L` and quotes them.
    pub(crate) async fn execute_format(
        &self,
        statement: &str,
        names: &[&str],
    ) -> Result<(), Error> {
        if names.iter().any(|name| name.contains('\0')) {
            return Err(Error::new(
                ErrorKind::Setting,
                "a name or password with a zero byte in it cannot exist in PostgreSQL",
            ));
        }
        let session = self.session().await?;
        let row = session
            .client
            .query_one(
                "SELECT format($1, VARIADIC $2::text[])",
                &[&statement, &names],
            )
            .await
            .map_err(|error| sql_error("PostgreSQL could not quote a name", &error))?;
        let statement: String = row
            .try_get(0)
            .map_err(|error| sql_error("PostgreSQL could not quote a name", &error))?;
        self.execute(&statement).await
    }

    async fn session(&self) -> Result<Arc<Session>, Error> {
        let mut state = self.state.lock().await;
        if let Some(session) = state.session.as_ref().filter(|s| !s.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let failed = |error| sql_error("the emulator could not log in to its PostgreSQL", &error);
        let (client, connection) = state.config.connect(NoTls).await.map_err(failed)?;
        // The task ends with the client, or with the server.
        tokio::spawn(connection);
        let membership = client.prepare(MEMBERSHIP).await.map_err(failed)?;
        let session = Arc::new(Session { client, membership });
        state.session = Some(Arc::clone(&session));
        Ok(session)
    }
}

/// How to reach the emulator's own server.
pub(crate) fn config(socket_folder: &Path) -> Config {
    let mut config = Config::new();
    config
        .host_path(socket_folder)
        .user(SUPERUSER)
        .dbname("postgres")
        .application_name("rds-iam-emulator");
    config
}

fn sql_error(what: &str, error: &tokio_postgres::Error) -> Error {
    let cause = match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error.to_string(),
    };
    Error::with_cause(ErrorKind::Sql, what, cause)
}
