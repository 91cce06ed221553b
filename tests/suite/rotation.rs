//! Tokens that live for seconds, under load.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use diesel::prelude::*;
use diesel::sql_query;
use diesel_rds_iam::PgConnectionManager;

use crate::support::PATIENCE;
use crate::support::database::{auth_builder, emulator_with, manager_builder, refused};

/// FAULTS.md rows 5 and 13.
#[test]
fn two_hundred_connects_across_expiries_all_log_in() {
    const LIFETIME: Duration = Duration::from_secs(8);
    // 6 s of use. A refresh is due after 78.5 % of it at the earliest, counted from a date in whole seconds.
    const EARLIEST_REFRESH: Duration = Duration::from_millis(3_700);

    let emulator = emulator_with(LIFETIME);
    let auth = auth_builder(&emulator)
        .token_lifetime(LIFETIME)
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth.clone());
    let manager = manager.build().unwrap();
    let connects = AtomicUsize::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // Until enough connections were opened with enough tokens.
                while connects.load(Ordering::Relaxed) < 200 || auth.stats().tokens_signed < 3 {
                    drop(manager.try_connect().unwrap());
                    connects.fetch_add(1, Ordering::Relaxed);
                    assert!(begun.elapsed() < 2 * PATIENCE, "{:?}", auth.stats());
                    // A few dozen a second, so that the machine is not the bottleneck.
                    thread::park_timeout(Duration::from_millis(200));
                }
            });
        }
    });
    let elapsed = begun.elapsed();

    assert!(refused(&emulator).is_empty(), "{:?}", refused(&emulator));
    let logins = emulator.logins();
    assert!(logins.len() >= 200);
    assert!(
        logins
            .iter()
            .all(|login| login.token_age() < Some(LIFETIME))
    );
    let used: HashSet<_> = logins.iter().map(|login| login.fingerprint()).collect();
    let signed = auth.stats().tokens_signed;
    assert!(used.len() as u64 <= signed);
    let due = elapsed.as_secs_f64() / EARLIEST_REFRESH.as_secs_f64();
    assert!(
        signed as f64 <= due + 1.0,
        "{signed} signatures in {elapsed:?}"
    );
}

/// FAULTS.md row 18.
#[test]
fn a_session_outlives_its_token() {
    const LIFETIME: Duration = Duration::from_secs(5);
    let emulator = emulator_with(LIFETIME);
    let auth = auth_builder(&emulator)
        .token_lifetime(LIFETIME)
        .build()
        .unwrap();
    let manager = manager_builder(&emulator).auth(auth).build().unwrap();
    let mut connection = manager.try_connect().unwrap();
    let end = SystemTime::now() + LIFETIME;
    let mut queries = 0;
    while SystemTime::now() < end {
        sql_query("SELECT pg_sleep(0.2)")
            .execute(&mut connection)
            .unwrap();
        queries += 1;
    }
    sql_query("SELECT 1").execute(&mut connection).unwrap();
    assert!(queries > 0);
    assert_eq!(emulator.login_count(), 1);
}
