//! The command `rds-iam`: IAM tokens for programs that are not written in Rust.

#![forbid(unsafe_code)]

mod doctor;
#[cfg(unix)]
mod emulate;
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
  rds-iam doctor    # what is wrong with the connection that DATABASE_URL names";

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a token, which serves as the password of new connections for 15 minutes
    #[command(after_help = token::EXAMPLES)]
    Token(token::Arguments),

    /// Runs a program that uses libpq, such as psql or pg_dump, with a token to log in with
    #[command(after_help = exec::EXAMPLES)]
    Exec(exec::Arguments),

    /// Applies and reverts diesel's migrations, one process at a time
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(migrate::Arguments),

    /// Goes the way of a connection step by step, and says what is wrong at the first that fails
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::Arguments),

    /// Runs RDS's login on this machine, in front of a PostgreSQL of its own or of yours
    #[cfg(unix)]
    #[command(after_help = emulate::EXAMPLES)]
    Emulate(emulate::Arguments),

    /// Prints what makes a shell complete this command's options
    #[command(after_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(shell::CompletionsArguments),

    /// Prints the manual page, or writes those of all subcommands into a folder
    #[command(after_help = shell::MAN_EXAMPLES)]
    Man(shell::ManArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Token(arguments) => token::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Migrate(arguments) => Ok(migrate::run(&arguments)),
        Command::Doctor(arguments) => doctor::run(&arguments),
        #[cfg(unix)]
        Command::Emulate(arguments) => emulate::run(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
    };
    match result {
        Ok(status) => status,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rds-iam: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
