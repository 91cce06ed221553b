//! Logs in with a password that a command prints: `vault read`, `aws secretsmanager get-secret-value`, or a script of
//! yours.
//!
//! ```sh
//! cargo run --example command_password -- postgres://app@db.example.com/app \
//!     vault read -field=password database/static-creds/app
//! ```

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_rds_iam::{BoxError, Password, PgConnectionManager, RotatingPassword};

/// How long a password is used before the command is run again. If the server refuses it sooner, the command is run
/// at once, and the login is retried.
const TRUSTED_FOR: Duration = Duration::from_secs(10 * 60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("give a connection string")?;
    let command = arguments.collect();
    println!("logged in as {}", log_in(&url, command)?);
    Ok(())
}

/// Opens a pool, and prints the user of the session.
pub fn log_in(url: &str, command: Vec<String>) -> Result<String, Box<dyn Error>> {
    let password = Password::rotating(move || {
        Ok(RotatingPassword::new(output_of(&command)?).lasts_for(TRUSTED_FOR))
    });
    let pool = PgConnectionManager::builder(url)
        .password(password)
        .build()?
        .into_pool()?;
    let user = diesel::select(diesel::dsl::sql::<Text>("current_user::text"));
    Ok(user.get_result(&mut *pool.get()?)?)
}

/// The output of the command, without the line break at its end. The command's messages go to this program's standard
/// error, and not into the error here, which is logged.
fn output_of(command: &[String]) -> Result<String, BoxError> {
    let (program, arguments) = command.split_first().ok_or("give a command")?;
    let output = Command::new(program)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{program} failed: {}", output.status).into());
    }
    let printed = String::from_utf8(output.stdout).map_err(|_| "the password is not UTF-8")?;
    Ok(printed.trim_end_matches(['\r', '\n']).to_owned())
}
