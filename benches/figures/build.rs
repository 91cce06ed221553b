//! The cost of this library in an application's build, compared with AWS's own RDS client.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Bench;
use crate::figure::{Figure, rounded};
use crate::measure::{process, rounds, seconds};

const OURS: &str = "with-diesel-rds-iam";
const THEIRS: &str = "with-aws-sdk-rds";

pub(crate) fn run(bench: &Bench) {
    cargo("fetch", &["--locked"], None);
    let (ours, theirs) = (crates(OURS), crates(THEIRS));
    let what = "crates that an application is built of";
    let figure = Figure::new("build_crates", what, "crates", ours).against(theirs);
    bench.results.add(figure.target("fewer", ours < theirs));

    let rounds = rounds(1, || {
        [OURS, THEIRS].map(|application| cold_build(&bench.target, application))
    });
    let [ours, theirs] = &rounds.kept[0];
    let what = "from nothing to the application, all of its crates included";
    let figure = Figure::new("build_time", what, "s", ours.elapsed)
        .against(theirs.elapsed)
        .with("processor time", rounded(ours.cpu))
        .with("processor time of the baseline", rounded(theirs.cpu))
        .with("ratio of these", rounded(ours.cpu / theirs.cpu))
        .rounds(rounds.dropped, rounds.disturbed);
    bench.results.add(figure.ratio_at_most(0.6));
}

fn crates(application: &str) -> f64 {
    let arguments = [
        "-p",
        application,
        "--edges=normal,build",
        "--prefix=none",
        "--locked",
    ];
    let tree = cargo("tree", &arguments, None);
    let names: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.split(" (").next().unwrap())
        .collect();
    names.len() as f64
}

struct Build {
    elapsed: f64,
    cpu: f64,
}

fn cold_build(target: &Path, application: &str) -> Build {
    let target = target.join("build").join(application);
    if target.exists() {
        fs::remove_dir_all(&target).unwrap();
    }
    let before = process::cpu_time_of_children();
    let elapsed = seconds(|| {
        cargo(
            "build",
            &["-p", application, "--locked", "--quiet"],
            Some(&target),
        );
    });
    Build {
        elapsed,
        cpu: process::cpu_time_of_children() - before,
    }
}

/// cargo's output for the peers, which are not members of the workspace.
fn cargo(command: &str, arguments: &[&str], target: Option<&PathBuf>) -> String {
    let mut cargo = Command::new("cargo");
    cargo
        .arg(command)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers"));
    if let Some(target) = target {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let output = cargo.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {command}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}
