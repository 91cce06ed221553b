//! `rds-iam exec`: another program, with a token to log in with.
//!
//! On Unix the program takes the place of this process, so that signals, the terminal, job control
//! and the exit status are the program's own, with no code here that could get them wrong.

mod environment;
mod handed;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use clap::Args;
use diesel_rds_iam::{PgConnectionManager, Roots, Token};

use self::environment::Environment;
use self::handed::Handed;
use crate::target::Target;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam exec -- psql -c 'select 1'                   # to where DATABASE_URL says
  rds-iam exec --host \"$HOST\" --user app --dbname shop -- pg_dump --schema-only
  rds-iam exec -- sh -c 'diesel migration run'         # DATABASE_URL is set, without a password

What the program gets: PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE, PGSSLROOTCERT and DATABASE_URL
in its environment, and PGPASSFILE, which names a file with the token that only it and what it starts
can read. Variables of libpq that would say otherwise are left out, and so are none of the others.
The token is good for that host, and for connections that are opened within 15 minutes; those that
are open go on.

The file is inherited memory on Linux. A program that closes what it inherits before it starts
another (Python's subprocess does, without close_fds=False) and drivers that read no PGPASSFILE need
--password-in-environment, which other processes of the same user can read. On macOS the file is a
temporary one, removed when the program and all that it started have ended; on Windows it is removed
when the program has ended, and signals are not passed on. libpq must be version 14 or later.

Exit status: the program's own; 127 if it is not found, 126 if it cannot be run, 1 if there is no
token for it.";

/// What shells say of a program that is not there.
const NOT_FOUND: u8 = 127;

/// What shells say of a program that cannot be run.
const CANNOT_RUN: u8 = 126;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    /// Hands the token over in PGPASSWORD, for programs that read no PGPASSFILE
    #[arg(long)]
    password_in_environment: bool,

    /// The program and its arguments, after `--`
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let manager = arguments.target.manager()?;
    let (_, token) = manager.token()?;
    let (name, rest) = arguments
        .program
        .split_first()
        .ok_or("no program is named after --")?;

    let mut command = Command::new(name);
    command.args(rest);
    let handed = hand_over(
        &manager,
        &token,
        arguments.password_in_environment,
        &mut command,
    )?;
    match start(&mut command, handed) {
        Ok(status) => Ok(status),
        Err(error) => {
            let name = name.display();
            eprintln!("rds-iam: cannot run {name}, which has to be a program on the PATH: {error}");
            Ok(ExitCode::from(match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => CANNOT_RUN,
            }))
        }
    }
}

/// Says in `command`'s environment all that a login needs, and returns the files that it names.
fn hand_over(
    manager: &PgConnectionManager,
    token: &Token,
    in_environment: bool,
    command: &mut Command,
) -> Result<Vec<Handed>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut environment = Environment::new(manager.parameters());
    match manager.roots() {
        Some(Roots::Carried(pem)) => {
            let file = Handed::new(pem.as_bytes())?;
            environment.trust(file.path());
            files.push(file);
        }
        Some(Roots::File(path)) => environment.trust(path),
        Some(Roots::System) => environment.trust("system"),
        _ => {}
    }
    environment.apply(command);
    if in_environment {
        command.env("PGPASSWORD", token.expose_secret());
    } else {
        let file = Handed::new(environment.passfile(token.expose_secret()).as_bytes())?;
        command.env("PGPASSFILE", file.path());
        files.push(file);
    }
    Ok(files)
}

/// Becomes the program. Returns only if that cannot be.
#[cfg(unix)]
fn start(command: &mut Command, _open: Vec<Handed>) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(command.exec())
}

#[cfg(not(unix))]
fn start(command: &mut Command, _kept: Vec<Handed>) -> io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    // Wider on Windows than what can be returned here.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
