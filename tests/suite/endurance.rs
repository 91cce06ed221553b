//! Thousands of refreshes and connects, and their memory, threads and file descriptors. Each test runs in a process
//! of its own, so that only its own are counted.

use std::env;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use diesel_rds_iam::{IamAuth, ManualClock, PgConnectionManager};

use crate::support::child::{self, Child};
use crate::support::database::shared_emulator;
use crate::support::footprint::Footprint;
use crate::support::{FakeSource, PATIENCE, endpoint, keys_until};

/// Memory that an allocator may keep. A token has about 1 KiB.
const ALLOCATORS_OWN: Footprint = Footprint {
    kibibytes: 1024,
    threads: 0,
    descriptors: 0,
};

fn child(test: &str) -> Child {
    // A single arena: with one for each thread, memory depends on how many threads run at once.
    Child::new(module_path!(), test, Path::new("/dev/null/none")).env("MALLOC_ARENA_MAX", "1")
}

/// FAULTS.md row 29.
#[test]
fn ten_thousand_refreshes_leak_nothing() {
    const TEST: &str = "ten_thousand_refreshes_leak_nothing";
    if !child::is_running(module_path!(), TEST) {
        return child(TEST).run();
    }
    let time = ManualClock::new();
    let (credentials, clock) = (FakeSource::default(), time.clock());
    // The credentials expire with the token, so that both are fetched each time.
    credentials.answer(move || {
        let end = clock.now().wall + Duration::from_secs(15 * 60);
        Ok(keys_until(end))
    });
    let auth = IamAuth::builder()
        .credentials_fn(credentials.fetch())
        .clock(time.clock());
    let auth = auth.build().unwrap();
    let source = auth.source(&endpoint());
    let refresh = || {
        source.token().unwrap();
        time.advance(Duration::from_secs(16 * 60));
    };
    (0..1_000).for_each(|_| refresh());
    let before = Footprint::own().unwrap();
    (0..10_000).for_each(|_| refresh());
    assert_has_not_grown_since(&before);
    assert_eq!(auth.stats().tokens_signed, 11_000);
    assert!(credentials.calls() >= 11_000);
}

/// FAULTS.md row 29.
#[test]
fn many_connects_leak_nothing() {
    const TEST: &str = "many_connects_leak_nothing";
    /// 10,000 connects take minutes.
    const CONNECTS: &str = "RDS_IAM_CONNECTS";
    if !child::is_running(module_path!(), TEST) {
        let emulator = shared_emulator();
        return child(TEST)
            .argument("URL", emulator.url("app"))
            .argument("ACCESS_KEY", emulator.access_key())
            .argument("SECRET_KEY", emulator.secret_key())
            .run();
    }
    let connects = env::var(CONNECTS).map_or(150, |count| count.parse().unwrap());
    let (key, secret) = (child::argument("ACCESS_KEY"), child::argument("SECRET_KEY"));
    let auth = IamAuth::builder()
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&child::argument("URL")).auth(auth);
    let manager = manager.build().unwrap();
    let connect = || drop(manager.try_connect().unwrap());
    (0..30).for_each(|_| connect());
    let before = Footprint::own().unwrap();
    (0..connects).for_each(|_| connect());
    assert_has_not_grown_since(&before);
    assert_eq!(manager.stats().connections_opened, 30 + connects);
}

/// Fails if this process uses more than before. Waits for what ends on its own.
fn assert_has_not_grown_since(before: &Footprint) {
    let begun = Instant::now();
    loop {
        match Footprint::own()
            .unwrap()
            .growth_since(before, &ALLOCATORS_OWN)
        {
            Ok(growth) => return println!("{growth}"),
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}
