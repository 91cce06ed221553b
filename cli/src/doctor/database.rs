//! The database: login, role and clock.

use std::time::SystemTime;

use diesel_rds_iam::diesel::sql_types::{Bool, Double, Text};
use diesel_rds_iam::diesel::{self, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use diesel_rds_iam::{Clock, Engine, Error, ErrorKind};

use super::identity::{CLOCK_TOLERANCE_SECONDS, compare};
use super::step::{Problem, Step, StepResult};
use super::{Context, advice};

/// Whether the user is a direct or indirect member of `rds_iam`, as `pg_hba.conf` tests it.
/// `pg_has_role` returns true for every superuser.
const MEMBERSHIP: &str = "\
WITH RECURSIVE held (oid) AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION
    SELECT roleid FROM pg_auth_members JOIN held ON member = held.oid
)
SELECT EXISTS (SELECT FROM held JOIN pg_roles USING (oid) WHERE rolname = 'rds_iam') AS is_member";

const SERVER: &str = "\
SELECT split_part(version(), ' on ', 1) AS version, extract(epoch FROM now())::float8 AS now";

/// PostgreSQL's message when it asked for a stored password instead of a token. [auth.c]
const ASKED_FOR_A_PASSWORD: &str = "password authentication failed";

/// libpq's addition that names the password file, which no longer exists. [fe-connect.c]
const WHERE_THE_PASSWORD_WAS: &str = "password retrieved from file";

#[derive(QueryableByName)]
struct Membership {
    #[diesel(sql_type = Bool)]
    is_member: bool,
}

#[derive(QueryableByName)]
struct Server {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Double)]
    now: f64,
}

/// Logs in. On failure, returns the problem and the step that it belongs to.
pub(super) fn log_in(
    context: &Context,
    account: Option<&str>,
) -> Result<PgConnection, (Step, Problem)> {
    context
        .manager
        .try_connect()
        .map_err(|error| refused(context, account, &error))
}

fn refused(context: &Context, account: Option<&str>, error: &Error) -> (Step, Problem) {
    let endpoint = &context.endpoint;
    let text = first_cause(error);
    let user = endpoint.user();
    if error.kind() == ErrorKind::LoginRefused && text.contains(ASKED_FOR_A_PASSWORD) {
        let problem = Problem::new(
            format!(
                "the server asked {user:?} for a password instead of a token: the user does not \
                 exist or is not a member of rds_iam: {text}"
            ),
            "run this as the database's master user; omit the first line if the user exists",
        );
        let statements = advice::create_and_grant(endpoint, account);
        return (Step::Role, problem.paste(statements));
    }
    let problem = match error.kind() {
        ErrorKind::LoginRefused => {
            let next = match advice::resource_hint(endpoint) {
                Some(command) => format!(
                    "attach this policy to the identity of the credentials above, with the id that \
                     `{command}` prints"
                ),
                None => "attach this policy to the identity of the credentials above".to_owned(),
            };
            Problem::new(
                format!(
                    "the server refused the token: the identity has no policy for it, its keys are \
                     no longer valid, or the clocks differ: {text}"
                ),
                next,
            )
            .paste(advice::policy(endpoint, account))
        }
        ErrorKind::Throttled => {
            Problem::new(text, "open fewer connections at a time, and try again")
        }
        ErrorKind::ServerUnavailable => Problem::new(text, "wait until the server accepts logins"),
        _ => Problem::new(text, "correct the cause; all steps before the login passed"),
    };
    (Step::Login, problem)
}

/// The message of the server or libpq, without the library's explanation.
fn first_cause(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    let lines: Vec<&str> = text
        .lines()
        .flat_map(|line| line.split("; "))
        .map(str::trim)
        .filter(|line| !line.starts_with(WHERE_THE_PASSWORD_WAS))
        .collect();
    lines.join("; ")
}

pub(super) fn role(context: &Context, connection: &mut PgConnection) -> StepResult<()> {
    let endpoint = &context.endpoint;
    if endpoint.engine() == Engine::Dsql {
        let found = "Aurora DSQL has no role rds_iam; AWS IAM GRANT maps its users";
        return Ok(((), found.to_owned().into()));
    }
    let Membership { is_member } = sql_query(MEMBERSHIP)
        .get_result(connection)
        .map_err(unanswered)?;
    let user = endpoint.user();
    if is_member {
        return Ok(((), format!("{user:?} is a member of rds_iam").into()));
    }
    if advice::is_proxy(endpoint) {
        let found =
            format!("{user:?} is not a member of rds_iam, and RDS Proxy does not require it");
        return Ok(((), found.into()));
    }
    Err(Problem::new(
        format!("{user:?} is not a member of rds_iam, so RDS would ask it for a password"),
        "run this as the database's master user",
    )
    .paste(advice::grant(endpoint, None)))
}

pub(super) fn server(connection: &mut PgConnection) -> StepResult<()> {
    let clock = Clock::default();
    let asked = clock.now();
    let server: Server = sql_query(SERVER)
        .get_result(connection)
        .map_err(unanswered)?;
    let answered = clock.now();
    // The server read its clock between the two readings here.
    let midway = asked.wall + (answered.monotonic - asked.monotonic) / 2;
    let ours = midway
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float becomes the nearest number"
    )]
    let ahead = (server.now - ours).round() as i64;
    let found = format!("{}; {}", server.version, compare("its clock", ahead));
    if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
        return Err(Problem::new(
            format!("{found}; the server may refuse tokens as expired or not yet valid"),
            "set this machine's clock and synchronise it",
        )
        .paste("sudo timedatectl set-ntp true"));
    }
    Ok(((), found.into()))
}

fn unanswered(error: diesel::result::Error) -> Problem {
    Problem::new(
        format!("a query failed: {error}"),
        "read the server's log, and try again",
    )
}
