//! `rds-iam doctor`: the way of a connection, step by step, and what is wrong at the first that
//! fails.

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
use self::step::{Failed, Step, Trouble};
use crate::target::Target;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam doctor                                            # what DATABASE_URL names
  rds-iam doctor --host \"$HOST\" --user app --profile production
  rds-iam doctor --json | jq .failure

Exit status: 0 if a connection can be opened, or else the step that failed:
  10  string        the connection string, or its parts, cannot work
  11  region        no region was found
  12  credentials   AWS credentials are missing, refused or ended
  13  clock         this machine's clock is more than five minutes from AWS's
  14  token         no token could be signed that PostgreSQL would take
  15  dns           the host name has no address
  16  tcp           nothing answers there
  17  tls           the certificate is not to be trusted
  18  login         the token was refused
  19  role          the user is no member of rds_iam
  20  server        the server gives no answer, or its clock is more than five minutes from ours
1 and 2 are for what went wrong before any step.";

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
    // What failed stands in the report, with its exit status.
    let _ = examine(&arguments.target, &mut report);
    Ok(report.finish()?)
}

/// What is known of a connection after its string was read.
struct Patient {
    manager: PgConnectionManager,
    endpoint: Endpoint,
    auth: IamAuth,
}

impl Patient {
    /// One of libpq's parameters; empty where it is not set.
    fn parameter(&self, keyword: &str) -> &str {
        self.manager
            .parameters()
            .find(|(name, _)| *name == keyword)
            .map_or("", |(_, value)| value)
    }
}

fn examine(target: &Target, report: &mut Report) -> Result<(), Failed> {
    let mut patient = report.step(Step::String, || read(target))?;
    // From here on the region is known, and so is what the policy has to say.
    let endpoint = report.step(Step::Region, || identity::region(&patient))?;
    patient.endpoint = endpoint;
    let credentials = report.step(Step::Credentials, || identity::credentials(&patient))?;
    report.step(Step::Clock, || identity::clock(&patient))?;
    report.step(Step::Token, || identity::token(&patient))?;
    let addresses = report.step(Step::Dns, || network::resolve(&patient))?;
    let stream = report.step(Step::Tcp, || network::dial(&addresses))?;
    report.step(Step::Tls, || tls::shake_hands(&patient, stream))?;

    let account = credentials.account_id.as_deref();
    // Where the server asks for a password, that is what the next step is about.
    let attempt = report.attempt(|| database::log_in(&patient, account));
    let mut connection = match attempt.result {
        Err((step, trouble)) => return Err(report.fail(step, attempt.took, trouble)),
        Ok(connection) => {
            let found = format!("as {:?}, with a token", patient.endpoint.user());
            report.pass(Step::Login, attempt.took, found);
            connection
        }
    };
    report.step(Step::Role, || database::role(&patient, &mut connection))?;
    report.step(Step::Server, || database::server(&mut connection))
}

fn read(target: &Target) -> step::Outcome<Patient> {
    let wrong = |error: diesel_rds_iam::Error| {
        Trouble::new(
            error,
            "correct the connection string or the options, as it says",
        )
    };
    let manager = target.manager().map_err(wrong)?;
    let (Some(endpoint), Some(auth)) = (manager.endpoint(), manager.auth()) else {
        return Err(Trouble::new(
            "the connection string has a password or says iam=off, so no token would be used",
            "leave the password and iam=off out",
        ));
    };
    let patient = Patient {
        endpoint: endpoint.clone(),
        auth: auth.clone(),
        manager: manager.clone(),
    };
    let found = format!(
        "{} at {}:{}, sslmode {}",
        patient.endpoint.user(),
        patient.parameter("host"),
        patient.parameter("port"),
        patient.parameter("sslmode"),
    );
    Ok((patient, found.into()))
}
