//! Counts instructions with valgrind, which other load on the machine does not affect.

use std::fs;
use std::process::{Command, Stdio};

use crate::database::Database;

/// The variable that names the probe a child runs.
const PROBE: &str = "--probe";

/// The variable that passes the database to a child.
const DATABASE: &str = "RDS_IAM_BENCH_DATABASE";

/// Whether valgrind is installed.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A child of this program that runs the probe `name` this many times.
pub(crate) fn child(name: &str, times: u64, database: Option<&Database>) -> Command {
    arm(Command::new(program()), name, times, database)
}

/// If this process is a child: the name of its probe, the number of runs, and the database.
pub(crate) fn probe() -> Option<(String, u64, Option<Database>)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != PROBE);
    arguments.next()?;
    let (name, times) = (arguments.next()?, arguments.next()?.parse().ok()?);
    let database = std::env::var(DATABASE).ok();
    let database = database.map(|text| serde_json::from_str(&text).unwrap());
    Some((name, times, database))
}

/// The instructions per run of the probe `name` in the function whose name contains `within`. Without such a
/// function, those of the whole process without its start and end.
pub(crate) fn instructions(
    name: &str,
    times: u64,
    within: Option<&str>,
    database: Option<&Database>,
) -> f64 {
    let run = |times| count(name, times, within, database) as f64;
    match within {
        Some(_) => run(times) / times as f64,
        None => (run(times + times) - run(times)) / times as f64,
    }
}

fn count(name: &str, times: u64, within: Option<&str>, database: Option<&Database>) -> u64 {
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "-q"]);
    valgrind.arg(format!("--callgrind-out-file={}", output.path().display()));
    if let Some(function) = within {
        valgrind.arg(format!("--toggle-collect=*{function}*"));
    }
    valgrind.arg(program());
    let status = arm(valgrind, name, times, database).status().unwrap();
    assert!(status.success(), "{name} under callgrind: {status}");
    let profile = fs::read_to_string(output.path()).unwrap();
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals:"))
        .unwrap();
    let total = total.trim().parse().unwrap();
    assert!(total > 0, "no function is called {within:?}");
    total
}

fn program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

fn arm(mut command: Command, name: &str, times: u64, database: Option<&Database>) -> Command {
    command.args([PROBE, name, &times.to_string()]);
    if let Some(database) = database {
        command.env(DATABASE, serde_json::to_string(database).unwrap());
    }
    command
}
