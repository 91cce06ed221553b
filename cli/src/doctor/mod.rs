//! `rds-iam doctor`: performs each step of a connection, and explains the first failure.

mod advice;
mod database;
mod identity;
mod network;
mod report;
mod step;
mod tls;

use std::error::Error;
use std::process::ExitCode;

use clap::Args;
use diesel_rds_iam::{Endpoint, IamAuth, PgConnectionManager};

use self::report::Report;
use self::step::{Failed, Problem, Step};
use crate::target::Target;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam doctor                                            # checks DATABASE_URL
  rds-iam doctor --host \"$HOST\" --user app --profile production
  rds-iam doctor --json | jq .failure

Exit status: 0 if a connection can be opened, otherwise the step that failed:
  10  string        the connection string or the options are invalid
  11  region        no region was found
  12  credentials   AWS credentials are missing, refused or expired
  13  clock         this machine's clock differs from AWS's by more than five minutes
  14  token         no token was signed, or it is too long for PostgreSQL
  15  dns           the host name does not resolve
  16  tcp           no TCP connection was established
  17  tls           the TLS handshake failed, or the certificate is not trusted
  18  login         the server refused the login
  19  role          the user is not a member of rds_iam
  20  server        a query failed, or the server's clock differs by more than five minutes
1 and 2 are for failures before the first step.";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    /// Prints one JSON document at the end instead of lines
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut report = Report::new(arguments.json);
    // The report has the failure and its exit status.
    let _ = check(&arguments.target, &mut report);
    Ok(report.finish()?)
}

/// The connection under examination, once its connection string is parsed.
struct Context {
    manager: PgConnectionManager,
    endpoint: Endpoint,
    auth: IamAuth,
}

impl Context {
    /// The value of a libpq parameter, or an empty string if it is not set.
    fn parameter(&self, keyword: &str) -> &str {
        self.manager
            .parameters()
            .find(|(name, _)| *name == keyword)
            .map_or("", |(_, value)| value)
    }
}

fn check(target: &Target, report: &mut Report) -> Result<(), Failed> {
    let mut context = report.step(Step::String, || read(target))?;
    // The region is needed for the policy that later steps print.
    let endpoint = report.step(Step::Region, || identity::region(&context))?;
    context.endpoint = endpoint;
    let credentials = report.step(Step::Credentials, || identity::credentials(&context))?;
    report.step(Step::Clock, || identity::clock(&context))?;
    report.step(Step::Token, || identity::token(&context))?;
    let addresses = report.step(Step::Dns, || network::resolve(&context))?;
    let stream = report.step(Step::Tcp, || network::dial(&addresses))?;
    report.step(Step::Tls, || tls::shake_hands(&context, stream))?;

    let account = credentials.account_id.as_deref();
    // If the server asks for a password, the failure belongs to the next step, `role`.
    let attempt = report.attempt(|| database::log_in(&context, account));
    let mut connection = match attempt.result {
        Err((step, problem)) => return Err(report.fail(step, attempt.took, problem)),
        Ok(connection) => {
            let found = format!("as {:?}, with a token", context.endpoint.user());
            report.pass(Step::Login, attempt.took, found);
            connection
        }
    };
    report.step(Step::Role, || database::role(&context, &mut connection))?;
    report.step(Step::Server, || database::server(&mut connection))
}

fn read(target: &Target) -> step::StepResult<Context> {
    let wrong = |error: diesel_rds_iam::Error| {
        Problem::new(error, "correct the connection string or the options")
    };
    let manager = target.manager().map_err(wrong)?;
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
