//! The memory and the threads that tokens cost. This is a program of its own with one test, since it counts all
//! allocations of the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::alloc::System;

use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{Endpoint, IamAuth};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const DATABASES: usize = 1_000;

/// BENCHMARKS.md has the figures, `token_hit` and `thousand_databases`. This test fails if they grow.
#[test]
fn a_fresh_token_costs_no_allocation_and_a_thousand_databases_one_thread() {
    let auth = IamAuth::builder()
        .credentials_provider(Credentials::new(
            "AKIDEXAMPLE",
            "secret",
            None,
            None,
            "test",
        ))
        .build()
        .unwrap();
    let region = Region::new(ALLOCATOR);
    let sources: Vec<_> = (0..DATABASES)
        .map(|number| {
            let host = format!("db{number:04}.c9akciq32rqv.eu-west-1.rds.amazonaws.com");
            let source = auth.source(&Endpoint::new(&host, 5432, "app").unwrap());
            source.token().unwrap();
            source
        })
        .collect();
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    assert!(held <= 4_096 * DATABASES, "{held} bytes for {DATABASES}");
    assert_eq!(auth.stats().tokens_signed, DATABASES as u64);
    #[cfg(target_os = "linux")]
    assert_eq!(signing_threads(), 1);

    let region = Region::new(ALLOCATOR);
    for source in &sources {
        source.token().unwrap();
    }
    assert_eq!(region.change().allocations, 0);
}

#[cfg(target_os = "linux")]
fn signing_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names
        .filter(|name| name.trim_end() == "rds-iam-signer")
        .count()
}
