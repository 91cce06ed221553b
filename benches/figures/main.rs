//! The figures of BENCHMARKS.md: `script/bench`.
//!
//! Each is a ratio to the alternative that a user has, measured in turns in the same process or run, through
//! the public API. Each result is a line of JSON in `target/bench/results.jsonl`.
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
mod cluster;
mod connect;
mod database;
mod databases;
mod emulator;
/// The library's items that `lifetimes` imports.
mod event {
    pub(crate) use diesel_rds_iam::RetireReason;
}
mod failover_write;
mod figure;
mod first_query;
mod fleet;
mod growth;
// The library's own file, since the simulation is of its decisions.
#[path = "../../src/lifetime/lifetimes.rs"]
#[allow(
    dead_code,
    reason = "the simulation uses part of it, and its tests are the library's to run"
)]
mod lifetimes;
mod measure;
// The tests' own file.
#[cfg(target_os = "linux")]
#[path = "../../tests/suite/support/packets.rs"]
mod packets;
mod panels;
mod peers;
mod recovery;
mod report;
mod rotation;
mod rotation_peers;
mod silence;
mod summary;
mod svg;
mod token;
mod token_peers;

use std::alloc::System;
use std::path::{Path, PathBuf};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::database::Database;
use crate::figure::Results;

/// Counts all allocations, those of this crate and of the baselines.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The figures by name, and whether a quick run includes them.
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
    ("silent_checkout", silence::checkout, InQuickRun::No),
    ("sleep", silence::sleep, InQuickRun::No),
    ("failover_write_dead", failover_write::dead, InQuickRun::No),
    (
        "failover_write_read_only",
        failover_write::read_only,
        InQuickRun::No,
    ),
    (
        "failover_write_silent",
        failover_write::silent,
        InQuickRun::No,
    ),
    ("cluster_connect", cluster::connect, InQuickRun::No),
    ("cluster_balance", cluster::balance, InQuickRun::No),
    ("rotation_peers", rotation_peers::run, InQuickRun::No),
    ("token_peers", token_peers::run, InQuickRun::No),
    ("first_query", first_query::run, InQuickRun::No),
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

/// The settings of a run.
struct Bench {
    is_quick: bool,
    results: Results,
    /// A folder for temporary files.
    target: PathBuf,
}

impl Bench {
    /// Chooses between the values of a quick and of a full run.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// The place of a file that a full run updates in the repository, and a quick run elsewhere.
    fn output(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        match self.is_quick {
            true => self.target.join(path.file_name().unwrap()),
            false => Path::new(ROOT).join(path),
        }
    }

    /// Prints a message if there is none.
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
    // Test runners ask every target for its tests. This one has none.
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
    report::write(&bench, names.is_empty());
}

/// The task of a child of this program.
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
        rotation_peers::OURS | rotation_peers::PASSWORD => {
            rotation_peers::probe(name, times, database());
        }
        growth::PROBE => growth::probe(times, database()),
        _ if checkout::PROBES.contains(&name) => checkout::probe(name, times, database()),
        _ => panic!("no probe is called {name}"),
    }
}
