//! Figures of the emulator itself.

use std::env;
use std::process::{Command, Stdio};

use crate::Bench;
use crate::figure::Figure;

pub(crate) fn run(bench: &Bench) {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "bench",
        "--locked",
        "--quiet",
        "-p",
        "rds-iam-emulator",
        "--",
        "--json",
    ]);
    if bench.is_quick {
        cargo.arg("--quick");
    }
    // Removes cargo's variables about this package. Build scripts that depend on them, such as ring's, would
    // run again and cause a rebuild during the measurement.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .current_dir(crate::ROOT)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the emulator's: {}", output.status);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        bench.results.add(Figure::parse(line));
    }
}
