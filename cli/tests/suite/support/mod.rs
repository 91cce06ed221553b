//! Shared by the tests: the command in a clean environment, and a database behind the emulator.

pub mod fake_server;
pub mod schema;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rds_iam_emulator::Emulator;

/// How long a test waits for a state. Only a failure reaches this limit.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A secret key that no server accepts and that no output may contain.
pub const MARKER: &str = "MARKERmarkerMARKERmarker";

/// An emulator with the user `app`, for tests that need only a login or a database of their own.
pub fn shared_emulator() -> &'static Emulator {
    static SHARED: LazyLock<Emulator> = LazyLock::new(|| {
        let emulator = Emulator::builder().start().unwrap();
        emulator.create_iam_user("app").unwrap();
        emulator
    });
    &SHARED
}

/// The command, with no variable of AWS or libpq in its environment.
pub fn rds_iam() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_rds-iam")))
}

/// The same, with an access key and a secret key.
pub fn rds_iam_with(key: &str, secret: &str) -> Command {
    let mut command = rds_iam();
    command
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    command
}

/// The same, with the keys and the URL of `emulator`.
pub fn rds_iam_to(emulator: &Emulator, user: &str) -> Command {
    let mut command = rds_iam_with(emulator.access_key(), emulator.secret_key());
    command.env("DATABASE_URL", emulator.url(user));
    command
}

/// Removes the variables of AWS and PostgreSQL from `command`'s environment.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["AWS_", "PG", "RDS_IAM_EMULATOR_U"]
            .iter()
            .any(|of| name.starts_with(of))
            || name == "DATABASE_URL"
        {
            command.env_remove(&*name);
        }
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .stdin(Stdio::null());
    command
}

/// The exit status and the output of a program.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command`. Panics if a secret key or a signature is in its output.
pub fn run(command: &mut Command) -> Ran {
    let ran = run_openly(command);
    for secret in [MARKER, "X-Amz-Signature", "rds/iam/emulator/EXAMPLE"] {
        assert!(!ran.stdout.contains(secret), "{secret}: {ran:?}");
        assert!(!ran.stderr.contains(secret), "{secret}: {ran:?}");
    }
    ran
}

/// The same, for a command that prints a token on purpose.
pub fn run_openly(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Ran {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Returns standard output. Panics if the program failed.
pub fn text(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}

/// Prints why a test did nothing. `println!` would be captured.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
