//! The programs of `benches/peers`: what an application would use instead of this crate, in Rust, Python and
//! JavaScript.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::Bench;
use crate::database::Database;

/// The variables of the SDKs and of libpq that a program gets from the benchmark alone.
const INHERITED: [&str; 4] = ["HOME", "LANG", "PATH", "LD_LIBRARY_PATH"];

/// A program in one of the languages.
pub(crate) enum Peer {
    /// A binary of the package `peers`.
    Rust(&'static str),
    /// A script of the folder `python`.
    Python(&'static str),
    /// A script of the folder `node`.
    Node(&'static str),
}

impl Peer {
    /// The command that runs it, which is built or installed first. `None` if that is not possible, which is
    /// printed. Only programs in Rust are required.
    pub(crate) fn command(&self, bench: &Bench) -> Option<Command> {
        match self {
            Peer::Rust(name) => {
                let target = target(bench);
                cargo(
                    "build",
                    &["--release", "--locked", "--quiet", "-p", "peers"],
                    Some(&target),
                );
                Some(clean(target.join("release").join(name)))
            }
            Peer::Python(script) => {
                let mut command = clean(said(script, python(bench))?);
                command.arg(folder().join("python").join(script));
                Some(command)
            }
            Peer::Node(script) => {
                // Node looks for packages beside the script.
                let script = said(script, node(bench, script))?;
                let mut command = clean("node");
                command.arg(script);
                Some(command)
            }
        }
    }
}

/// The folder in which the programs in Rust are built.
pub(crate) fn target(bench: &Bench) -> PathBuf {
    bench.target.join("peers")
}

/// A command without the environment of the benchmark, so that no setting of its user's changes a figure.
pub(crate) fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/dev/null");
    command.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command
}

/// The variables by which libpq and most drivers find the database.
pub(crate) fn address(database: &Database) -> Vec<(&'static str, String)> {
    vec![
        ("PGHOST", database.host.clone()),
        ("PGHOSTADDR", "127.0.0.1".to_owned()),
        ("PGPORT", database.port.to_string()),
        ("PGUSER", "app".to_owned()),
        ("PGDATABASE", "postgres".to_owned()),
        ("PGSSLROOTCERT", database.roots.clone()),
    ]
}

/// The variables with the credentials.
pub(crate) fn credentials(database: &Database) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", database.access_key.clone()),
        ("AWS_SECRET_ACCESS_KEY", database.secret_key.clone()),
        ("AWS_REGION", database.region.clone()),
        ("AWS_DEFAULT_REGION", database.region.clone()),
    ]
}

/// The last line of the output, which is JSON.
pub(crate) fn results(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a peer failed: {complaint}");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// cargo's output for the peers, which are not members of the workspace.
pub(crate) fn cargo(command: &str, arguments: &[&str], target: Option<&PathBuf>) -> String {
    let mut cargo = Command::new("cargo");
    cargo.arg(command).args(arguments).current_dir(folder());
    if let Some(target) = target {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let output = cargo.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {command}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Python with the packages, in an environment below the target folder.
fn python(bench: &Bench) -> Result<PathBuf, String> {
    let environment = bench.target.join("python");
    let python = environment.join("bin/python");
    if !python.exists() {
        run(Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment))?;
    }
    let requirements = folder().join("python/requirements.txt");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--requirement"]);
    run(install.arg(requirements))?;
    Ok(python)
}

/// The script in a folder below the target folder, where its packages are.
fn node(bench: &Bench, script: &str) -> Result<PathBuf, String> {
    let packages = bench.target.join("node");
    fs::create_dir_all(&packages).map_err(|error| error.to_string())?;
    for name in [".npmrc", "package.json", script] {
        let from = folder().join("node").join(name);
        fs::copy(from, packages.join(name)).map_err(|error| error.to_string())?;
    }
    let mut install = Command::new("npm");
    install.args(["install", "--silent", "--no-fund", "--no-audit"]);
    run(install.current_dir(&packages))?;
    Ok(packages.join(script))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let last = complaint.lines().last().unwrap_or_default();
            Err(format!("{program}: {last}"))
        }
    }
}

fn said<T>(script: &str, outcome: Result<T, String>) -> Option<T> {
    outcome
        .inspect_err(|reason| println!("{script}: not measured, {reason}"))
        .ok()
}

fn folder() -> PathBuf {
    Path::new(crate::ROOT).join("benches/peers")
}
