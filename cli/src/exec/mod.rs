//! `rds-iam exec`: runs a program that logs in with a token.
//!
//! On Unix the program replaces this process. Signals, the terminal, job control and the exit status
//! are therefore the program's own, and no code here has to forward them.

mod environment;
mod inherited_file;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use clap::Args;
use diesel_rds_iam::{PgConnectionManager, Roots, Token};

use self::environment::Environment;
use self::inherited_file::InheritedFile;
use crate::target::Target;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam exec -- psql -c 'select 1'                   # connects to DATABASE_URL
  rds-iam exec --host \"$HOST\" --user app --dbname shop -- pg_dump --schema-only
  rds-iam exec -- diesel migration run                 # DATABASE_URL is set, without a password

The environment of the program has PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE, PGSSLROOTCERT and
DATABASE_URL. PGPASSFILE names a file with the token, which only the program and its children can
read. libpq's variables that would override these are removed; all other variables stay. The token is
accepted for this host and for connections that are opened within 15 minutes. Open connections are
not affected when it expires.

On Linux the file is an inherited memory file. Two kinds of programs need --password-in-environment,
which other processes of the same user can read: those that close inherited files before they start
another program (Python's subprocess without close_fds=False), and drivers that do not read
PGPASSFILE. On macOS the file is a temporary file, removed when the program and its children have
ended. On Windows it is removed when the program has ended, and signals are not forwarded. libpq must
be version 14 or later.

Exit status: the program's own; 127 if it is not found, 126 if it cannot be run, 1 if no token was
obtained.";

/// The exit status with which shells report a program that does not exist.
const NOT_FOUND: u8 = 127;

/// The exit status with which shells report a program that cannot be run.
const CANNOT_RUN: u8 = 126;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    /// Passes the token in PGPASSWORD, for programs that do not read PGPASSFILE
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
    let files = configure(
        &manager,
        &token,
        arguments.password_in_environment,
        &mut command,
    )?;
    match start(&mut command, files) {
        Ok(status) => Ok(status),
        Err(error) => {
            let name = name.display();
            eprintln!(
                "rds-iam: cannot run {name}; check that it is a program on the PATH: {error}"
            );
            Ok(ExitCode::from(match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => CANNOT_RUN,
            }))
        }
    }
}

/// Sets everything that a login needs in `command`'s environment. Returns the files that it names.
fn configure(
    manager: &PgConnectionManager,
    token: &Token,
    in_environment: bool,
    command: &mut Command,
) -> Result<Vec<InheritedFile>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut environment = Environment::new(manager.parameters());
    match manager.roots() {
        Some(Roots::Carried(pem)) => {
            let file = InheritedFile::new(pem.as_bytes())?;
            environment.set_roots(file.path());
            files.push(file);
        }
        Some(Roots::File(path)) => environment.set_roots(path),
        Some(Roots::System) => environment.set_roots("system"),
        _ => {}
    }
    environment.apply(command);
    if in_environment {
        command.env("PGPASSWORD", token.expose_secret());
    } else {
        let file = InheritedFile::new(environment.passfile(token.expose_secret()).as_bytes())?;
        command.env("PGPASSFILE", file.path());
        files.push(file);
    }
    Ok(files)
}

/// Replaces this process with the program. Returns only on failure.
#[cfg(unix)]
fn start(command: &mut Command, _open: Vec<InheritedFile>) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(command.exec())
}

#[cfg(not(unix))]
fn start(command: &mut Command, _open: Vec<InheritedFile>) -> io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    // On Windows an exit code has more bits than `ExitCode` takes.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
