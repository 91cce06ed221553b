//! `rds-iam exec`: runs a program that logs in with a token.
//!
//! On Unix the program replaces this process. Signals, the terminal, job control and the exit status
//! are therefore the program's own, and no code here has to forward them. Another process, the
//! refresher, replaces the token in the program's password file before it expires.

mod environment;
mod inherited_file;
#[cfg(unix)]
mod lease;
#[cfg(unix)]
mod passfile;
#[cfg(unix)]
mod refresh;
#[cfg(unix)]
pub(crate) mod refresher;
mod url;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use clap::Args;
use diesel_rds_iam::{PgConnectionManager, Roots, Token};

use self::environment::Environment;
use self::inherited_file::{InheritedFiles, ROOTS};
use crate::escape::escaped;
use crate::target::{Target, TokenLifetime};

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam exec -- psql -c 'select 1'                   # connects to DATABASE_URL
  rds-iam exec --host \"$HOST\" --user app --dbname shop -- pg_dump --schema-only
  rds-iam exec -- diesel migration run                 # DATABASE_URL is set, without a password
  rds-iam exec -- python service.py                    # runs for longer than a token lives

The environment of the program has PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE, PGSSLROOTCERT and
DATABASE_URL, which is the given URL without the library's parameters. PGPASSFILE names a
password file with the token, which other users cannot read. libpq's variables that would override
these are removed; all other variables stay. The token is sent to this host only.

A token is accepted for new connections for 15 minutes; open connections are not affected when it
expires. The program may run for longer: a process named `rds-iam refresh-passfile` replaces the token
in the password file at an age of 11 to 12 minutes. It ends with the last process that inherited the
file. If a refresh fails, it prints a line on standard error and tries again.

On Linux the password file is an inherited memory file. --temporary-file puts it into a private folder
instead, for programs that close inherited files before they start another program, such as Python's
subprocess. Drivers that do not read PGPASSFILE need --password-in-environment, which other processes
of the same user can read. It sets a token that is not refreshed. On macOS the password file is always
in a private folder. On Windows it is too, the token is not refreshed, and signals are not forwarded.
libpq must be version 14 or later.

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

    #[command(flatten)]
    lifetime: TokenLifetime,

    /// Does not refresh the token, for programs that open all connections within its lifetime
    #[arg(long)]
    once: bool,

    /// Uses files in a private folder instead of memory files. The folder is removed when the program
    /// has ended
    #[arg(long)]
    temporary_file: bool,

    /// Passes the token in PGPASSWORD, for programs that do not read PGPASSFILE. The token is not
    /// refreshed
    #[arg(long)]
    password_in_environment: bool,

    /// The program and its arguments, after `--`
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let manager = arguments.target.manager_of(arguments.lifetime)?;
    // The password file has one line, which a refresh can replace by a single byte.
    if manager
        .parameters()
        .any(|(name, value)| name == "host" && value.contains(','))
    {
        return Err(
            "the connection string names several hosts, and each needs a token of its own; name one host"
                .into(),
        );
    }
    let (_, token) = Target::token_of(&manager)?;
    let (name, rest) = arguments
        .program
        .split_first()
        .ok_or("no program is named after --")?;

    let mut command = Command::new(name);
    command.args(rest);
    let mut files = configure(arguments, &manager, &token, &mut command)?;
    if let Err(cause) = start_refresher(arguments, &token, &mut files) {
        return Err(format!(
            "cannot start the process that refreshes the token; set --once to run without it: {cause}"
        )
        .into());
    }
    match start(&mut command, files) {
        Ok(status) => Ok(status),
        Err(error) => {
            let name = name.to_string_lossy();
            let name = escaped(&name);
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
    arguments: &Arguments,
    manager: &PgConnectionManager,
    token: &Token,
    command: &mut Command,
) -> Result<InheritedFiles, Box<dyn Error>> {
    let mut files = InheritedFiles::new(arguments.temporary_file)?;
    let mut environment = Environment::new(manager.parameters());
    match manager.roots() {
        Some(Roots::Carried(pem)) => {
            environment.set_roots(&files.add(ROOTS, pem.as_bytes())?);
        }
        Some(Roots::File(path)) => environment.set_roots(path),
        Some(Roots::System) => environment.set_roots("system"),
        _ => {}
    }
    environment.apply(command);
    if let Some(given) = arguments.target.given_url()
        && url::is_url(given)
    {
        let overridden: &[&str] = match arguments.target.overrides_roots() {
            true => &["sslrootcert"],
            false => &[],
        };
        command.env("DATABASE_URL", url::without_parameters(given, overridden));
    }
    if arguments.password_in_environment {
        command.env("PGPASSWORD", token.expose_secret());
    } else {
        let line = environment.passfile(token.expose_secret());
        #[cfg(unix)]
        let line = match arguments.is_refreshed() && files.are_in_memory() {
            true => passfile::slots_with(&line),
            false => line.into_bytes(),
        };
        command.env("PGPASSFILE", files.add("passfile", line.as_ref())?);
    }
    Ok(files)
}

#[cfg(unix)]
impl Arguments {
    /// Whether the program's token is replaced before it expires.
    fn is_refreshed(&self) -> bool {
        !self.once && !self.password_in_environment
    }
}

/// Starts the process that refreshes the token and removes the files, where there is something to
/// refresh or to remove.
#[cfg(unix)]
fn start_refresher(
    arguments: &Arguments,
    token: &Token,
    files: &mut InheritedFiles,
) -> io::Result<()> {
    let refreshed = arguments.is_refreshed().then_some(token);
    if refreshed.is_some() || files.to_remove().is_some() {
        refresher::start(&arguments.target, arguments.lifetime, files, refreshed)?;
        files.keep();
    }
    Ok(())
}

#[cfg(not(unix))]
fn start_refresher(_: &Arguments, _: &Token, _: &mut InheritedFiles) -> io::Result<()> {
    Ok(())
}

/// Replaces this process with the program. Returns only on failure.
#[cfg(unix)]
fn start(command: &mut Command, files: InheritedFiles) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    files.open().iter().try_for_each(lease::let_inherit)?;
    Err(command.exec())
}

/// Runs the program, and removes the files after it.
#[cfg(not(unix))]
fn start(command: &mut Command, _files: InheritedFiles) -> io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    // On Windows an exit code has more bits than `ExitCode` takes.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
