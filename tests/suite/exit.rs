//! Programs that end while one of their threads is inside libpq.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rds_iam_emulator::Emulator;

use crate::support::database::{emulator, shared_emulator};
use crate::support::{child, example};

/// More processes at a time would only wait for each other.
const AT_A_TIME: usize = 6;

/// FAULTS.md row 32.
#[test]
fn three_hundred_programs_that_query_once_exit_cleanly() {
    run(300, "query", shared_emulator());
}

/// FAULTS.md row 32.
#[test]
fn three_hundred_migration_runners_exit_cleanly() {
    run(300, "migrate", shared_emulator());
}

/// FAULTS.md row 32: `openssl::init` comes too late here, so only the wait at the exit helps.
#[test]
fn programs_that_used_libpq_before_exit_cleanly() {
    let emulator = emulator();
    emulator.create_password_user("other", "password").unwrap();
    run(40, "connect-after-another", &emulator);
}

/// FAULTS.md row 32: a silent server, and a limit of 120 s for a connect.
#[test]
fn exit_does_not_wait_for_a_silent_server() {
    let begun = Instant::now();
    run(1, "connect-to-nobody", shared_emulator());
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// Runs the program this many times, and fails unless each run succeeds.
fn run(times: usize, what: &str, emulator: &Emulator) {
    let next = AtomicUsize::new(0);
    let mut failures = BTreeMap::<String, usize>::new();
    thread::scope(|scope| {
        let work = || {
            let mut outputs = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < times {
                outputs.push(run_once(what, emulator));
            }
            outputs
        };
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            for output in thread.join().unwrap() {
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr);
                    *failures
                        .entry(format!("{}: {said}", output.status))
                        .or_default() += 1;
                }
            }
        }
    });
    assert!(failures.is_empty(), "of {times}: {failures:#?}");
}

fn run_once(what: &str, emulator: &Emulator) -> Output {
    let other = emulator.url("other").replacen('@', ":password@", 1);
    let mut command = Command::new(example("short_program"));
    child::forget_aws_and_postgresql(&mut command);
    command
        .arg(what)
        .env("DATABASE_URL", emulator.url("app"))
        .env("OTHER_DATABASE_URL", other)
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}
