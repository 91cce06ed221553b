//! The command `rds-iam`: IAM tokens for programs that are not written in Rust.

#![forbid(unsafe_code)]

mod doctor;
#[cfg(unix)]
mod emulate;
mod escape;
mod exec;
mod migrate;
mod shell;
mod target;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// IAM tokens for Amazon RDS, Aurora, RDS Proxy and Aurora DSQL.
#[derive(Debug, Parser)]
#[command(name = "rds-iam", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  rds-iam exec --url postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app -- psql
  rds-iam doctor    # checks the connection that DATABASE_URL names";

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a token, the password of new connections for 15 minutes
    #[command(after_help = token::EXAMPLES)]
    Token(token::Arguments),

    /// Runs a program that uses libpq, such as psql or pg_dump, with a token that is refreshed
    #[command(after_help = exec::EXAMPLES)]
    Exec(exec::Arguments),

    /// Applies and reverts diesel migrations under an advisory lock
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(migrate::Arguments),

    /// Checks each step of a connection, and explains the first failure
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),

    /// Emulates RDS's login on this machine, in front of its own PostgreSQL or an existing one
    #[cfg(unix)]
    #[command(after_help = emulate::EXAMPLES)]
    Emulate(emulate::Arguments),

    /// Prints a completion script for a shell
    #[command(after_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(shell::CompletionsArguments),

    /// Prints the manual page, or writes the pages of all subcommands into a folder
    #[command(after_help = shell::MAN_EXAMPLES)]
    Man(shell::ManArguments),
}

fn main() -> ExitCode {
    #[cfg(unix)]
    if let Some(arguments) = exec::refresher::Arguments::of_this_process() {
        return status_of(exec::refresher::run(&arguments));
    }
    status_of(match Arguments::parse().command {
        Command::Token(arguments) => token::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Migrate(arguments) => Ok(migrate::run(&arguments)),
        Command::Doctor(arguments) => doctor::run(&arguments),
        #[cfg(unix)]
        Command::Emulate(arguments) => emulate::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
    })
}

fn status_of(result: Result<ExitCode, Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(status) => status,
        // The reader of standard output has closed it, as `head` does.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rds-iam: {}", escape::escaped(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
