//! What the tests share: the command in a clean environment, and a database behind the emulator.

use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rds_iam_emulator::Emulator;

/// For how long a test waits for what must happen. Only a failure takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A secret key that opens nothing, and that no output may repeat.
pub const MARKER: &str = "MARKERmarkerMARKERmarker";

/// For tests that need no more than a login or a database of their own. It has the user `app`.
pub fn shared_emulator() -> &'static Emulator {
    static SHARED: LazyLock<Emulator> = LazyLock::new(|| {
        let emulator = Emulator::builder().start().unwrap();
        emulator.create_iam_user("app").unwrap();
        emulator
    });
    &SHARED
}

/// The command with nothing of AWS and libpq in its environment.
pub fn rds_iam() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_rds-iam")))
}

/// The same with a pair of keys.
pub fn rds_iam_with(key: &str, secret: &str) -> Command {
    let mut command = rds_iam();
    command
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    command
}

/// The same with the keys of `emulator`, and its database to connect to.
pub fn rds_iam_to(emulator: &Emulator, user: &str) -> Command {
    let mut command = rds_iam_with(emulator.access_key(), emulator.secret_key());
    command.env("DATABASE_URL", emulator.url(user));
    command
}

/// Leaves out of `command`'s environment what this machine says of AWS and PostgreSQL.
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

/// What a program left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `command`, and sees to it that neither a secret key nor a signature is in its output.
pub fn run(command: &mut Command) -> Ran {
    let ran = run_openly(command);
    for secret in [MARKER, "X-Amz-Signature", "rds/iam/emulator/EXAMPLE"] {
        assert!(!ran.stdout.contains(secret), "{secret}: {ran:?}");
        assert!(!ran.stderr.contains(secret), "{secret}: {ran:?}");
    }
    ran
}

/// The same for what prints a token on purpose.
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

/// Standard output of a program that has to succeed.
pub fn text(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout
}
