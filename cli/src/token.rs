//! `rds-iam token`.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use humantime::format_rfc3339_seconds;

use crate::escape::json;
use crate::target::{Target, TokenLifetime};

pub(crate) const EXAMPLES: &str = "\
Examples:
  PGPASSWORD=$(rds-iam token --host \"$HOST\" --user app) psql \"host=$HOST user=app sslmode=verify-full\"
  rds-iam token --url postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com --json";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    lifetime: TokenLifetime,

    /// Prints JSON: the token, its dates, and the host, port, user and region that it is for
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let (endpoint, token) = Target::token_of(&arguments.target.signer(arguments.lifetime)?)?;
    let date = |time: SystemTime| format_rfc3339_seconds(time).to_string();
    let mut output = io::stdout().lock();
    if arguments.json {
        let document = serde_json::json!({
            "schema_version": 1,
            "token": token.expose_secret(),
            "issued": date(token.issued_at()),
            "expires": token.expires_at().map(date),
            "host": endpoint.host(),
            "port": endpoint.port(),
            "user": endpoint.user(),
            "region": endpoint.region(),
        });
        writeln!(output, "{}", json(&document, false))?;
    } else {
        writeln!(output, "{}", token.expose_secret())?;
    }
    Ok(ExitCode::SUCCESS)
}
