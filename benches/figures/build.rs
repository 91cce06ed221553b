//! The cost of this library in an application's build, compared with AWS's own RDS client.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Bench;
use crate::figure::{Figure, rounded};
use crate::first_query::{release, stripped_size};
use crate::measure::{process, rounds, seconds};
use crate::peers::cargo;

const OURS: &str = "with-diesel-rds-iam";
const THEIRS: &str = "with-aws-sdk-rds";
const STOCK: &str = "with-diesel";

/// The settings of a profile for a small program.
const SMALL: &[&str] = &[
    "--config=profile.release.lto=true",
    "--config=profile.release.codegen-units=1",
];

pub(crate) fn run(bench: &Bench) {
    cargo("fetch", &["--locked"], None);
    let (ours, theirs) = (crates(OURS), crates(THEIRS));
    let what = "crates that an application is built of";
    let figure = Figure::new("build_crates", what, "crates", ours).against(theirs);
    bench.results.add(figure.ratio_at_most(0.8));

    let size = |package, settings| stripped_size(&release(bench, package, settings));
    let sizes = (size(OURS, &[]), size(OURS, SMALL), size(STOCK, &[]));
    if let (Some(ours), Some(small), Some(theirs)) = sizes {
        let what = "a release binary without symbols, beside diesel alone";
        let figure = Figure::new("binary_size", what, "MB", ours).against(theirs);
        let figure = figure.with("with lto and one codegen unit", rounded(small));
        bench.results.add(figure.target("≤ 6 MB", ours <= 6.0));
    }

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
    bench.results.add(figure.ratio_at_most(0.4));
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
