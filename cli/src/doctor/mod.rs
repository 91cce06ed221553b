//! `rds-iam doctor`: performs each step of a connection, and explains the first failure.

mod advice;
mod causes;
mod certificate;
mod cluster;
mod database;
mod identity;
mod network;
mod report;
mod step;
mod tls;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use diesel_rds_iam::{Endpoint, IamAuth, PgConnectionManager};

use self::report::Report;
use self::step::{Failed, Problem, Step};
use crate::target::{ConnectTimeout, Target, waiting_for};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam doctor                                            # checks DATABASE_URL
  rds-iam doctor --host \"$HOST\" --user app --profile production
  rds-iam doctor --json | jq .failure

Each step has a time limit, and so has the whole run. --connect-timeout or connect_timeout of the
connection string sets it for the steps from `dns` on.

Exit status: 0 if a connection can be opened, otherwise the step that failed:
  10  string        the connection string or the options are invalid, or the database does not exist
  11  region        no region was found
  12  credentials   AWS credentials are missing, refused or expired
  13  clock         this machine's clock differs from AWS's by more than five minutes
  14  token         no token was signed, or it is too long for PostgreSQL
  15  dns           the host name does not resolve
  16  tcp           no TCP connection was established, or it broke in the login
  17  tls           the TLS handshake failed, or the certificate is not trusted
  18  login         the server refused the token, limits logins or accepts none
  19  role          the user does not exist, or lacks rds_iam, LOGIN or CONNECT
  20  server        a query failed, the server is not of the wanted kind, or its clock differs by more
                    than five minutes
  21  cluster       the names of a cluster's members were not resolved in time
1 and 2 are for failures before the first step.";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    timeout: ConnectTimeout,

    /// Prints one JSON document at the end instead of lines
    #[arg(long)]
    json: bool,
}

/// The time limit of a step that neither dials nor waits for the server or for credentials.
const LOCAL_LIMIT: Duration = Duration::from_secs(15);

/// The time limit of the step that fetches credentials. The library limits a fetch to `--credentials-timeout`, or to
/// `iam_credentials_timeout` of the connection string.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(10 * 60);

/// The time that a step gets beyond a limit inside it, which reports the cause.
const MARGIN: Duration = Duration::from_secs(3);

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut report = Report::new(arguments.json, LOCAL_LIMIT);
    // The report has the failure and its exit status.
    let _ = check(arguments, &mut report);
    Ok(report.finish()?)
}

/// The connection under examination, once its connection string is parsed.
#[derive(Clone)]
struct Context {
    manager: PgConnectionManager,
    endpoint: Endpoint,
    auth: IamAuth,
    /// The time limit of a connect.
    limit: Duration,
}

impl Context {
    /// The value of a libpq parameter, or an empty string if it is not set. Of several hosts it is that of the
    /// first, which the doctor examines.
    fn parameter(&self, keyword: &str) -> &str {
        self.manager
            .parameters()
            .find(|(name, _)| *name == keyword)
            .and_then(|(name, value)| match name {
                "host" | "hostaddr" | "port" => value.split(',').next(),
                _ => Some(value),
            })
            .unwrap_or_default()
    }
}

fn check(arguments: &Arguments, report: &mut Report) -> Result<(), Failed> {
    let (target, timeout) = (arguments.target.clone(), arguments.timeout);
    let read = move || read(&target, timeout);
    let mut context = report.step(Step::String, LOCAL_LIMIT, read)?;
    let limit = context.limit;
    report.extend(LOCAL_LIMIT + limit * 5);
    // The region is needed for the policy that later steps print.
    context.endpoint = report.step(Step::Region, LOCAL_LIMIT, with(&context, identity::region))?;
    report.extend(CREDENTIALS_LIMIT);
    let credentials = with(&context, |context| {
        waiting_for("AWS credentials", || identity::credentials(context))
    });
    let credentials = report.step(Step::Credentials, CREDENTIALS_LIMIT, credentials)?;
    report.step(Step::Clock, LOCAL_LIMIT, with(&context, identity::clock))?;
    report.step(Step::Token, LOCAL_LIMIT, with(&context, identity::token))?;
    let addresses = report.step(Step::Dns, limit, with(&context, network::resolve))?;
    let for_all = limit * u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let dial = move || network::dial(&addresses, limit);
    let stream = report.step(Step::Tcp, for_all + MARGIN, dial)?;
    let handshake = with(&context, |context| tls::shake_hands(context, stream));
    report.step(Step::Tls, limit, handshake)?;
    let login = with(&context, move |context| {
        database::log_in(context, credentials.account_id.as_deref())
    });
    // libpq counts whole seconds, and the library may log in twice.
    let connection = report.step(Step::Login, limit + MARGIN, login)?;
    let role = with(&context, |context| database::role(context, connection));
    let connection = report.step(Step::Role, limit, role)?;
    report.step(Step::Server, limit, move || database::server(connection))?;
    report.step(Step::Cluster, limit, with(&context, cluster::members))
}

/// The work of a step, on a thread of its own.
fn with<T>(
    context: &Context,
    work: impl FnOnce(&Context) -> T + Send + 'static,
) -> impl FnOnce() -> T + Send + 'static {
    let context = context.clone();
    move || work(&context)
}

fn read(target: &Target, timeout: ConnectTimeout) -> step::StepResult<Context> {
    let wrong = |error: diesel_rds_iam::Error| {
        Problem::new(error, "correct the connection string or the options")
    };
    let manager = target.manager_within(timeout).map_err(wrong)?;
    let (Some(endpoint), Some(auth)) = (manager.endpoint(), manager.auth()) else {
        return Err(Problem::new(
            "the connection string has a password or iam=off, so the login would not use a token",
            "remove the password and iam=off",
        ));
    };
    let context = Context {
        endpoint: endpoint.clone(),
        auth: auth.clone(),
        manager: manager.clone(),
        limit: target.connect_timeout(timeout),
    };
    let found = format!(
        "{} at {}:{}, sslmode {}",
        context.endpoint.user(),
        context.parameter("host"),
        context.parameter("port"),
        context.parameter("sslmode"),
    );
    Ok((context, found.into()))
}
