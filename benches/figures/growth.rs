//! Whether memory, threads or descriptors grow over many rotations.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use diesel_rds_iam::{IamAuth, ManualClock};
use serde::{Deserialize, Serialize};

use crate::Bench;
use crate::callgrind::child;
use crate::database::{Database, emulator};
use crate::figure::Figure;
use crate::measure::{process, wait_until};

pub(crate) const PROBE: &str = "growth";

/// Rotations before the first count, so that one-time allocations are included in it.
const WARM_UP: u64 = 500;

/// In a process of its own, since the emulator records every login.
pub(crate) fn run(bench: &Bench) {
    let rotations = 10_000;
    let emulator = emulator();
    let database = Database::of(&emulator);
    let output = child(PROBE, rotations, Some(&database))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let [before, after]: [State; 2] = serde_json::from_slice(&output.stdout).unwrap();
    let what = "memory after 10,000 new tokens and connections, beside that after 500";
    let grown = after.resident_memory - before.resident_memory;
    let figure = Figure::new("growth", what, "KiB", after.resident_memory)
        .against(before.resident_memory)
        .with("threads", format!("{} → {}", before.threads, after.threads))
        .with(
            "descriptors",
            format!("{} → {}", before.descriptors, after.descriptors),
        );
    let no_more = after.threads <= before.threads && after.descriptors <= before.descriptors;
    // The allocator returns pages at times of its own.
    bench
        .results
        .add(figure.target("none, within 1 MiB", no_more && grown <= 1024.0));
}

#[derive(Deserialize, Serialize)]
struct State {
    resident_memory: f64,
    threads: usize,
    descriptors: usize,
}

impl State {
    fn now() -> State {
        State {
            resident_memory: process::resident_memory(),
            threads: process::threads().len(),
            descriptors: process::descriptors(),
        }
    }
}

/// Runs as a child.
pub(crate) fn probe(rotations: u64, database: &Database) {
    let time = ManualClock::new();
    let auth = IamAuth::builder()
        .credentials_provider(database.credentials())
        .clock(time.clock())
        .build()
        .unwrap();
    let pool = database.manager(auth.clone()).pool_builder().max_size(1);
    let pool = pool.build().unwrap();
    let rotate = || {
        let connection = pool.get().unwrap();
        // By the monotonic clock only; with another date the server would refuse the token.
        time.advance(Duration::from_secs(900));
        time.set_wall(SystemTime::now());
        // Retires the connection, and its successor needs a new token.
        drop(connection);
    };
    let state = || {
        // A connection that is being opened has files open for a moment.
        wait_until("an idle pool", || pool.state().idle_connections == 1);
        State::now()
    };
    (0..WARM_UP).for_each(|_| rotate());
    let before = state();
    (0..rotations).for_each(|_| rotate());
    let after = state();
    assert!(auth.stats().tokens_signed >= WARM_UP + rotations);
    println!("{}", serde_json::to_string(&[before, after]).unwrap());
}
