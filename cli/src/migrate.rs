//! `rds-iam migrate`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use diesel_migrations::FileBasedMigrations;
use diesel_rds_iam::migrate::{self, Direction, Options, Progress, Status, Step};
use diesel_rds_iam::{Error, ErrorKind, PgConnectionManager};
use humantime::{format_duration, format_rfc3339_seconds};
use indicatif::{ProgressBar, ProgressStyle};

use crate::escape::{escaped, json};
use crate::target::{ConnectTimeout, Target};

pub(crate) const EXAMPLES: &str = "\
Examples:
  export DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app
  rds-iam migrate run --lock-timeout 5s
  rds-iam migrate pending || rds-iam migrate run
  rds-iam migrate list --json
  DATABASE_URL=postgres://app:password@localhost/app rds-iam migrate redo --all

Exit status:
  0  success, also if there was nothing to do
  1  any other failure
  2  the command line, a setting or the migrations folder is invalid; nothing was attempted
  3  the database is unreachable or refused the login, or the connection broke
  4  a migration failed
  5  another process held the lock for longer than --lock-wait
  6  `pending` found pending migrations";

const WRONG_SETTING: u8 = 2;
const NO_CONNECTION: u8 = 3;
const MIGRATION_FAILED: u8 = 4;
const LOCKED: u8 = 5;
const PENDING: u8 = 6;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Applies the pending migrations
    Run(Work),
    /// Reverts the last migration, or more of them
    Revert(WorkOnLast),
    /// Reverts the last migration, or more of them, and applies them again
    Redo(WorkOnLast),
    /// Prints the pending migrations; exits with 6 if there are any
    Pending(Look),
    /// Prints all migrations and when they were applied
    List(Look),
}

#[derive(Debug, Args)]
struct Source {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    timeout: ConnectTimeout,

    /// The folder of migrations [default: `migrations`, in this folder or the nearest parent that has
    /// it]
    #[arg(
        long,
        alias = "migration-dir",
        env = "MIGRATION_DIRECTORY",
        value_name = "FOLDER"
    )]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Work {
    #[command(flatten)]
    source: Source,

    /// How long to wait for another process to release the lock on migrations
    #[arg(long, default_value = "5m", value_name = "TIME")]
    lock_wait: humantime::Duration,

    /// PostgreSQL's lock_timeout for the migrations; 0s disables it [default: the setting of the user
    /// or the database]
    #[arg(long, value_name = "TIME")]
    lock_timeout: Option<humantime::Duration>,

    /// PostgreSQL's statement_timeout for the migrations; 0s disables it [default: the setting of the
    /// user or the database]
    #[arg(long, value_name = "TIME")]
    statement_timeout: Option<humantime::Duration>,
}

#[derive(Debug, Args)]
struct WorkOnLast {
    #[command(flatten)]
    work: Work,

    /// The number of applied migrations to revert, starting with the last
    #[arg(long, short, default_value_t = 1)]
    number: usize,

    /// All applied migrations
    #[arg(long, short, conflicts_with = "number")]
    all: bool,
}

#[derive(Debug, Args)]
struct Look {
    #[command(flatten)]
    source: Source,

    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// The exit status, and the message for standard error.
struct Failure(u8, String);

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let result = match &arguments.action {
        Action::Run(work) => work.go(migrate::run_pending),
        Action::Revert(last) => last.work.go(|manager, migrations, options| {
            migrate::revert(manager, migrations, last.number(), options)
        }),
        Action::Redo(last) => last.work.go(|manager, migrations, options| {
            migrate::redo(manager, migrations, last.number(), options)
        }),
        Action::Pending(look) => look.pending(),
        Action::List(look) => look.list(),
    };
    result.unwrap_or_else(|Failure(status, message)| {
        eprintln!("rds-iam: {}", escaped(&message));
        ExitCode::from(status)
    })
}

impl Source {
    fn read(&self) -> Result<(PgConnectionManager, FileBasedMigrations), Failure> {
        let migrations = match &self.dir {
            Some(dir) => FileBasedMigrations::from_path(dir).map_err(|cause| {
                let dir = dir.display();
                Failure(
                    WRONG_SETTING,
                    format!("cannot read the migrations folder {dir}; correct --dir: {cause}"),
                )
            }),
            None => FileBasedMigrations::find_migrations_directory().map_err(|cause| {
                Failure(
                    WRONG_SETTING,
                    format!("no migrations folder found; set --dir: {cause}"),
                )
            }),
        }?;
        let manager = self.target.manager_within(self.timeout)?;
        if manager.auth().is_some() {
            // A connect waits for less than a user may need to answer the source of the credentials.
            Target::token_of(&manager)?;
        }
        Ok((manager, migrations))
    }
}

impl Work {
    fn go(
        &self,
        work: impl FnOnce(
            &PgConnectionManager,
            FileBasedMigrations,
            Options<'_>,
        ) -> Result<Vec<Step>, Error>,
    ) -> Result<ExitCode, Failure> {
        let (manager, migrations) = self.source.read()?;
        let display = Display::new();
        let mut options = Options::new()
            .lock_wait(*self.lock_wait)
            .on_progress(|progress| display.show(progress));
        if let Some(timeout) = self.lock_timeout {
            options = options.lock_timeout(*timeout);
        }
        if let Some(timeout) = self.statement_timeout {
            options = options.statement_timeout(*timeout);
        }
        let done = work(&manager, migrations, options);
        display.end();
        if done?.is_empty() {
            writeln!(io::stdout(), "nothing to do")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl WorkOnLast {
    fn number(&self) -> usize {
        if self.all { usize::MAX } else { self.number }
    }
}

impl Look {
    fn pending(&self) -> Result<ExitCode, Failure> {
        let mut all = self.read()?;
        all.retain(Status::is_pending);
        self.print(&all, |status| status.name.clone().unwrap_or_default())?;
        Ok(match all.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(PENDING),
        })
    }

    fn list(&self) -> Result<ExitCode, Failure> {
        self.print(&self.read()?, |status| {
            let name = match &status.name {
                Some(name) => name.clone(),
                None => format!("{} (not in the folder)", status.version),
            };
            match status.applied_at {
                Some(time) => format!("[X] {name}  {}", format_rfc3339_seconds(time)),
                None => format!("[ ] {name}"),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn read(&self) -> Result<Vec<Status>, Failure> {
        let (manager, migrations) = self.source.read()?;
        Ok(migrate::list(&manager, migrations)?)
    }

    fn print(&self, all: &[Status], line: impl Fn(&Status) -> String) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.json {
            let migrations = all.iter().map(|status| {
                serde_json::json!({
                    "version": status.version,
                    "name": status.name,
                    "applied_at": status
                        .applied_at
                        .map(|time| format_rfc3339_seconds(time).to_string()),
                })
            });
            let document = serde_json::json!({
                "schema_version": 1,
                "migrations": serde_json::Value::from_iter(migrations),
            });
            return writeln!(output, "{}", json(&document, false));
        }
        all.iter()
            .try_for_each(|status| writeln!(output, "{}", escaped(&line(status))))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match error.kind() {
            ErrorKind::Configuration => WRONG_SETTING,
            ErrorKind::Migration => MIGRATION_FAILED,
            ErrorKind::MigrationLock => LOCKED,
            ErrorKind::Internal => 1,
            _ => NO_CONNECTION,
        };
        Failure(status, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(1, format!("cannot write to standard output: {error}"))
    }
}

/// Prints completed steps to standard output. Prints progress to standard error, as a bar on a
/// terminal and otherwise as lines.
struct Display {
    bar: Option<ProgressBar>,
}

impl Display {
    fn new() -> Display {
        let is_terminal = io::stderr().is_terminal();
        Display {
            bar: is_terminal.then(ProgressBar::new_spinner),
        }
    }

    /// Ignores failures to write, because migrations must not stop half-way for that reason.
    fn show(&self, progress: Progress<'_>) {
        match progress {
            Progress::Waiting { limit } => self.say(format!(
                "another process holds the lock; waiting for up to {}",
                format_duration(limit)
            )),
            Progress::Planned { steps } => {
                if let Some(bar) = &self.bar {
                    bar.set_style(bar_style());
                    bar.reset_elapsed();
                    bar.set_length(steps as u64);
                }
            }
            Progress::Started { step } => {
                let name = step.to_string();
                let name = escaped(&name);
                self.say(match step.direction {
                    Direction::Up => format!("applying {name}"),
                    Direction::Down => format!("reverting {name}"),
                });
            }
            Progress::Finished { step, took } => {
                let what = match step.direction {
                    Direction::Up => "applied",
                    Direction::Down => "reverted",
                };
                let took = format_duration(Duration::from_millis(took.as_millis() as u64));
                let name = step.to_string();
                let name = escaped(&name);
                let line = || drop(writeln!(io::stdout(), "{what} {name} in {took}"));
                match &self.bar {
                    Some(bar) => {
                        bar.suspend(line);
                        bar.inc(1);
                    }
                    None => line(),
                }
            }
            _ => {}
        }
    }

    fn say(&self, line: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            None => drop(writeln!(io::stderr(), "{line}")),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:20} {pos}/{len} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("#>-")
}
