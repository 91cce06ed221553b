//! The figures of BENCHMARKS.md: `script/bench`.
//!
//! Each is a ratio against what a user would have otherwise, measured in the same process or in the
//! same run, in turns, and uses what users can use. A line of JSON each goes to
//! `target/bench/results.jsonl`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark may fail by panicking, and measures time itself"
)]

mod build;
mod callgrind;
mod chart;
mod checkout;
mod connect;
mod database;
mod databases;
mod emulator;
/// What `lifetimes` imports from the library.
mod event {
    pub(crate) use diesel_rds_iam::RetireReason;
}
mod figure;
mod fleet;
mod growth;
// The library's own: the simulation is of what it decides.
#[path = "../../src/lifetime/lifetimes.rs"]
#[allow(
    dead_code,
    reason = "the simulation uses part of it, and its tests are the library's to run"
)]
mod lifetimes;
mod measure;
mod recovery;
mod report;
mod rotation;
mod token;

use std::alloc::System;
use std::path::{Path, PathBuf};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::database::Database;
use crate::figure::Results;

/// Counts what is allocated, ours and the baselines' alike.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The figures by name, and whether they are worth their time in a quick run.
const FIGURES: &[(&str, Measure, InQuickRun)] = &[
    ("token_hit", token::hit, InQuickRun::Yes),
    ("token_sign", token::signing, InQuickRun::Yes),
    ("checkout", checkout::run, InQuickRun::Yes),
    ("connect_overhead", connect::overhead, InQuickRun::Yes),
    ("connect_bundle", connect::bundle, InQuickRun::Yes),
    ("rotation_stall", rotation::run, InQuickRun::Yes),
    ("cold_storm", token::cold_storm, InQuickRun::Yes),
    ("thousand_databases", databases::run, InQuickRun::Yes),
    ("fleet", fleet::run, InQuickRun::Yes),
    ("recovery", recovery::run, InQuickRun::Yes),
    ("emulator", emulator::run, InQuickRun::Yes),
    ("build", build::run, InQuickRun::No),
    ("growth", growth::run, InQuickRun::No),
];

type Measure = fn(&Bench);

#[derive(PartialEq, Eq)]
enum InQuickRun {
    Yes,
    No,
}

/// What a figure is told of the run that it is in.
struct Bench {
    is_quick: bool,
    results: Results,
    /// A folder for what is made on the way.
    target: PathBuf,
}

impl Bench {
    /// One for a quick run, another for a full one.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// Where to write what is committed after a full run, and only looked at after a quick one.
    fn output(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        match self.is_quick {
            true => self.target.join(path.file_name().unwrap()),
            false => Path::new(ROOT).join(path),
        }
    }

    /// Says so where there is none.
    fn has_valgrind(&self, name: &str) -> bool {
        let is_installed = callgrind::is_installed();
        if !is_installed {
            println!("{name}: not measured, valgrind is not installed");
        }
        is_installed
    }
}

fn main() {
    if let Some((name, times, database)) = callgrind::probe() {
        return run_probe(&name, times, database);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Test runners ask every target for its tests: this one has none.
    let Some(end) = arguments.iter().position(|argument| argument == "--bench") else {
        return;
    };
    let (options, names): (Vec<_>, Vec<_>) = arguments
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != end)
        .map(|(_, argument)| argument.as_str())
        .partition(|argument| argument.starts_with("--"));
    let target = Path::new(ROOT).join("target/bench");
    let is_quick = options.contains(&"--quick");
    let bench = Bench {
        is_quick,
        results: Results::at(&target.join("results.jsonl"), is_quick),
        target,
    };
    if names.is_empty() {
        bench.results.clear();
    }
    for (name, measure, in_quick_run) in FIGURES {
        let is_asked_for = match names.is_empty() {
            true => !bench.is_quick || *in_quick_run == InQuickRun::Yes,
            false => names.contains(name),
        };
        if is_asked_for {
            measure(&bench);
        }
    }
    report::write(&bench);
}

/// What a child of this program is for.
fn run_probe(name: &str, times: u64, database: Option<Database>) {
    let database = || database.as_ref().unwrap();
    match name {
        token::SIGN => {
            let signer = token::Signer::new();
            (0..times).for_each(|_| signer.sign());
        }
        token::SIGN_BARE => {
            let endpoint = token::endpoint();
            (0..times).for_each(|_| token::sign_bare_again(&endpoint));
        }
        growth::PROBE => growth::probe(times, database()),
        _ if checkout::PROBES.contains(&name) => checkout::probe(name, times, database()),
        _ => panic!("no probe is called {name}"),
    }
}
