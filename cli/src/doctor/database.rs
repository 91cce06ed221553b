//! The database itself: login, role and clock.

use std::time::SystemTime;

use diesel_rds_iam::diesel::sql_types::{Bool, Double, Text};
use diesel_rds_iam::diesel::{self, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use diesel_rds_iam::{Clock, Engine, Error, ErrorKind};

use super::identity::{CLOCK_TOLERANCE_SECONDS, compare};
use super::step::{Outcome, Step, Trouble};
use super::{Patient, advice};

/// Whether the user is a member of `rds_iam`, directly or through others, as `pg_hba.conf` asks.
/// `pg_has_role` says yes to every superuser.
const MEMBERSHIP: &str = "\
WITH RECURSIVE held (oid) AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION
    SELECT roleid FROM pg_auth_members JOIN held ON member = held.oid
)
SELECT EXISTS (SELECT FROM held JOIN pg_roles USING (oid) WHERE rolname = 'rds_iam') AS is_member";

const SERVER: &str = "\
SELECT split_part(version(), ' on ', 1) AS version, extract(epoch FROM now())::float8 AS now";

/// What PostgreSQL says to a user whom it has asked for a password of his own, and not for a token.
/// [auth.c]
const ASKED_FOR_A_PASSWORD: &str = "password authentication failed";

/// What libpq adds of a file that is gone by then. [fe-connect.c]
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

/// Logs in; or says what is wrong, and which step it belongs to.
pub(super) fn log_in(
    patient: &Patient,
    account: Option<&str>,
) -> Result<PgConnection, (Step, Trouble)> {
    patient
        .manager
        .try_connect()
        .map_err(|error| refused(patient, account, &error))
}

fn refused(patient: &Patient, account: Option<&str>, error: &Error) -> (Step, Trouble) {
    let endpoint = &patient.endpoint;
    let text = first_cause(error);
    let user = endpoint.user();
    if error.kind() == ErrorKind::LoginRefused && text.contains(ASKED_FOR_A_PASSWORD) {
        let trouble = Trouble::new(
            format!(
                "the server asked {user:?} for a password instead of a token: there is no such \
                 user, or it has not been granted rds_iam: {text}"
            ),
            "run this as the database's master user, the first line only if there is no such user",
        );
        let statements = advice::create_and_grant(endpoint, account);
        return (Step::Role, trouble.paste(statements));
    }
    let trouble = match error.kind() {
        ErrorKind::LoginRefused => {
            let next = match advice::resource_hint(endpoint) {
                Some(command) => format!(
                    "attach this policy to the identity of the credentials above, with the id that \
                     `{command}` gives"
                ),
                None => "attach this policy to the identity of the credentials above".to_owned(),
            };
            Trouble::new(
                format!(
                    "the server did not accept the token: the identity has no policy for it, its \
                     keys are not AWS's any more, or the clocks differ: {text}"
                ),
                next,
            )
            .paste(advice::policy(endpoint, account))
        }
        ErrorKind::Throttled => {
            Trouble::new(text, "open fewer connections at a time, and try again")
        }
        ErrorKind::ServerUnavailable => Trouble::new(text, "wait until the server takes logins"),
        _ => Trouble::new(text, "mend what it says; all before the login went well"),
    };
    (Step::Login, trouble)
}

/// What the server or libpq said, without what the library makes of it: that is the doctor's part.
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

pub(super) fn role(patient: &Patient, connection: &mut PgConnection) -> Outcome<()> {
    let endpoint = &patient.endpoint;
    if endpoint.engine() == Engine::Dsql {
        let found = "Aurora DSQL has no rds_iam: it maps users by AWS IAM GRANT";
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
            format!("{user:?} is no member of rds_iam, and RDS Proxy asks for no membership");
        return Ok(((), found.into()));
    }
    Err(Trouble::new(
        format!("{user:?} is no member of rds_iam, so RDS itself would ask it for a password"),
        "run this as the database's master user",
    )
    .paste(advice::grant(endpoint, None)))
}

pub(super) fn server(connection: &mut PgConnection) -> Outcome<()> {
    let clock = Clock::default();
    let asked = clock.now();
    let server: Server = sql_query(SERVER)
        .get_result(connection)
        .map_err(unanswered)?;
    let answered = clock.now();
    // The answer was true somewhere between the two.
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
        return Err(Trouble::new(
            format!("{found}; tokens may be refused as too old or as signed in the future"),
            "set this machine's clock, and have it kept right",
        )
        .paste("sudo timedatectl set-ntp true"));
    }
    Ok(((), found.into()))
}

fn unanswered(error: diesel::result::Error) -> Trouble {
    Trouble::new(
        format!("the server did not answer a query: {error}"),
        "see the server's log, and try again",
    )
}
