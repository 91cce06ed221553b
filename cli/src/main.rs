//! The command `rds-iam`: IAM tokens for programs that are not written in Rust.

#![forbid(unsafe_code)]

mod migrate;
mod target;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// IAM tokens for Amazon RDS, Aurora, RDS Proxy and Aurora DSQL.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a token, which serves as the password of new connections for 15 minutes.
    #[command(after_help = token::EXAMPLES)]
    Token(token::Arguments),
    /// Applies and reverts diesel's migrations, one process at a time.
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(migrate::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Token(arguments) => token::run(&arguments),
        Command::Migrate(arguments) => return migrate::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rds-iam: {error}");
            ExitCode::FAILURE
        }
    }
}
