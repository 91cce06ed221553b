//! How long a process takes from its start to its first row, beside diesel with a password.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::Figure;
use crate::measure::{compare, seconds};
use crate::peers::{self, cargo};

const OURS: &str = "with-diesel-rds-iam";
const STOCK: &str = "with-diesel";

pub(crate) fn run(bench: &Bench) {
    let (ours, stock) = (release(bench, OURS, &[]), release(bench, STOCK, &[]));
    let emulator = emulator();
    let database = Database::of(&emulator);
    let with_password = || {
        let mut command = peers::clean(&stock);
        command.env("DATABASE_URL", database.conninfo_with_password());
        command
    };
    let with_iam = || {
        let mut command = peers::clean(&ours);
        command.env("DATABASE_URL", database.conninfo());
        command.env("AWS_REGION", &database.region);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("credentials");
    let (access_key, secret_key) = (&database.access_key, &database.secret_key);
    fs::write(
        &profile,
        format!(
            "[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
        ),
    )
    .unwrap();
    let environment = || {
        let mut command = with_iam();
        command.envs(peers::credentials(&database));
        command
    };
    let container = || {
        let mut command = with_iam();
        command.envs(emulator.aws().container_environment());
        command
    };
    let from_profile = || {
        let mut command = with_iam();
        command.env("AWS_SHARED_CREDENTIALS_FILE", &profile);
        command
    };
    let what = "from the start of a process to its first row, with credentials of";
    let figure = |name: &str, source: &str, ours: &dyn Fn() -> Command| {
        let measured = compare(
            bench.pick(15, 101),
            || first_row(ours()),
            || first_row(with_password()),
        );
        Figure::compared(name, &format!("{what} {source}"), "ms", &measured)
    };
    let keys = figure("first_query", "the environment", &environment);
    bench.results.add(keys.ratio_at_most(1.08));
    let others: [(&str, &str, &dyn Fn() -> Command); 2] = [
        (
            "first_query_container",
            "a container's endpoint",
            &container,
        ),
        ("first_query_profile", "a profile", &from_profile),
    ];
    for (name, source, command) in others {
        bench.results.add(figure(name, source, command));
    }
}

/// The binary of a package of the peers, in Cargo's profile `release` with these `settings`.
pub(crate) fn release(bench: &Bench, package: &str, settings: &[&str]) -> PathBuf {
    let target = peers::target(bench);
    let arguments = ["--release", "--locked", "--quiet", "-p", package];
    cargo("build", &[&arguments, settings].concat(), Some(&target));
    target.join("release").join(package)
}

/// Milliseconds until a program prints its first line.
fn first_row(mut command: Command) -> f64 {
    let mut line = String::new();
    let mut child = None;
    let spent = seconds(|| {
        let mut started = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(started.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        child = Some(started);
    });
    assert!(child.unwrap().wait().unwrap().success());
    assert_eq!(line, "1\n");
    spent * 1e3
}

/// The size of a binary without its symbols, in MB.
pub(crate) fn stripped_size(binary: &Path) -> Option<f64> {
    let stripped = binary.with_extension("stripped");
    let strip = Command::new("strip")
        .arg(binary)
        .arg("-o")
        .arg(&stripped)
        .status();
    if !strip.is_ok_and(|status| status.success()) {
        println!("binary_size: not measured, strip is not installed");
        return None;
    }
    Some(fs::metadata(stripped).unwrap().len() as f64 / 1e6)
}
