//! The database: login, role and clock.

use std::time::SystemTime;

use diesel_rds_iam::diesel::sql_types::{Bool, Double, Text};
use diesel_rds_iam::diesel::{self, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use diesel_rds_iam::{Clock, Engine, Error, ErrorKind};

use super::causes::{Advice, Cause, classify};
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

/// Logs in. A problem may belong to another step.
pub(super) fn log_in(context: &Context, account: Option<&str>) -> StepResult<PgConnection> {
    let connection = context
        .manager
        .try_connect()
        .map_err(|error| refused(context, account, &error))?;
    let user = context.endpoint.user();
    Ok((connection, format!("as {user:?}, with a token").into()))
}

fn refused(context: &Context, account: Option<&str>, error: &Error) -> Problem {
    let message = first_cause(error);
    let (step, problem) = match (classify(&message), error.kind()) {
        (Some(cause), _) => (cause.step, known(context, account, cause, message)),
        // Neither a token nor another server changes what the connection string has.
        (None, ErrorKind::Configuration) => (
            Step::String,
            Problem::new(message, "correct this setting in the connection string"),
        ),
        (None, ErrorKind::Network) => (
            Step::Tcp,
            Problem::new(
                message,
                "check the network between here and the database: the connection broke in the login",
            ),
        ),
        (None, ErrorKind::Tls) => (
            Step::Tls,
            Problem::new(message, "correct host, sslmode and sslrootcert"),
        ),
        (None, ErrorKind::Throttled | ErrorKind::ServerUnavailable) => (
            Step::Login,
            Problem::new(message, "wait until the server accepts logins, and try again"),
        ),
        // The message may be in another language.
        (None, ErrorKind::LoginRefused) => (
            Step::Login,
            Problem::new(
                message,
                "read the server's log for the cause, which this message does not name; if the server \
                 refused the token, attach this policy to the identity of the credentials above",
            )
            .paste(advice::policy(&context.endpoint, account)),
        ),
        (None, _) => (
            Step::Login,
            Problem::new(message, "correct the cause; all steps before the login passed"),
        ),
    };
    problem.at(step)
}

/// The problem of a cause that the guide lists.
fn known(context: &Context, account: Option<&str>, cause: &Cause, message: String) -> Problem {
    let endpoint = &context.endpoint;
    let user = endpoint.user();
    match cause.advice {
        Advice::Text(next) => Problem::new(message, next),
        Advice::CreateAndGrant => Problem::new(
            format!(
                "the server asked {user:?} for a password instead of a token: the user does not exist \
                 or is not a member of rds_iam: {message}"
            ),
            "run this as the database's master user; omit the first line if the user exists",
        )
        .paste(advice::create_and_grant(endpoint, account)),
        Advice::Create => Problem::new(message, "run this as the database's master user")
            .paste(advice::create_and_grant(endpoint, account)),
        Advice::AllowLogin => Problem::new(message, "run this as the database's master user")
            .paste(advice::allow_login(endpoint)),
        Advice::GrantConnect => {
            let database = match context.parameter("dbname") {
                "" => user,
                name => name,
            };
            Problem::new(message, "run this as the database's owner or master user")
                .paste(advice::grant_connect(endpoint, database))
        }
        Advice::Policy => refused_token(context, account, &message),
    }
}

fn refused_token(context: &Context, account: Option<&str>, message: &str) -> Problem {
    let endpoint = &context.endpoint;
    if !advice::is_aws_name(endpoint) {
        let host = endpoint.host();
        return Problem::new(
            format!(
                "the server refused the token, which was signed for {host}, and {host} is not the name \
                 of an AWS endpoint: {message}"
            ),
            "add the database's own endpoint to the connection string as iam_host, and its port as \
             iam_port if it differs; tokens are signed for that name",
        )
        .paste("iam_host=NAME.ID.REGION.rds.amazonaws.com");
    }
    let next = match advice::resource_hint(endpoint) {
        Some(command) => format!(
            "attach this policy to the identity of the credentials above, with the id that `{command}` \
             prints"
        ),
        None => "attach this policy to the identity of the credentials above".to_owned(),
    };
    Problem::new(
        format!(
            "the server refused the token: the identity has no policy for it, its keys are no longer \
             valid, or the clocks differ: {message}"
        ),
        next,
    )
    .paste(advice::policy(endpoint, account))
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

pub(super) fn role(context: &Context, mut connection: PgConnection) -> StepResult<PgConnection> {
    let endpoint = &context.endpoint;
    if endpoint.engine() == Engine::Dsql {
        let found = "Aurora DSQL has no role rds_iam; AWS IAM GRANT maps its users";
        return Ok((connection, found.to_owned().into()));
    }
    let Membership { is_member } = sql_query(MEMBERSHIP)
        .get_result(&mut connection)
        .map_err(unanswered)?;
    let user = endpoint.user();
    if is_member {
        return Ok((
            connection,
            format!("{user:?} is a member of rds_iam").into(),
        ));
    }
    if advice::is_proxy(endpoint) {
        let found =
            format!("{user:?} is not a member of rds_iam, and RDS Proxy does not require it");
        return Ok((connection, found.into()));
    }
    Err(Problem::new(
        format!("{user:?} is not a member of rds_iam, so RDS would ask it for a password"),
        "run this as the database's master user",
    )
    .paste(advice::grant(endpoint, None)))
}

pub(super) fn server(mut connection: PgConnection) -> StepResult<()> {
    let clock = Clock::default();
    let asked = clock.now();
    let server: Server = sql_query(SERVER)
        .get_result(&mut connection)
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
