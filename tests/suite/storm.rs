//! Concurrent logins that are refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use diesel_rds_iam::{Error, ErrorKind, IamAuth, ManualClock, PgConnectionManager, PgPool};
use parking_lot::Mutex;
use rds_iam_emulator::{Emulator, Fault};

use crate::support::database::{auth_builder, emulator, refused};
use crate::support::{PATIENCE, SECOND, SetOnDrop};

fn pool(auth: &IamAuth, emulator: &Emulator) -> (PgConnectionManager, PgPool) {
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth.clone());
    let manager = manager.build().unwrap();
    let pool = manager
        .pool_builder()
        .max_size(10)
        .connection_timeout(SECOND)
        .build_unchecked()
        .unwrap();
    (manager, pool)
}

/// FAULTS.md row 23: twenty slots of two pools that retry every half a second, for 24 s of refusal.
#[test]
fn a_refused_identity_makes_few_logins_for_any_number_of_pools() {
    let emulator = emulator();
    emulator.create_iam_user("other").unwrap();
    emulator.allow("*", "other");
    // In the past, so that no token is from the future when the clock is advanced.
    let time = ManualClock::starting_at(SystemTime::now() - 60 * SECOND);
    let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
    // Each has a manager of its own. They share the identity only.
    let pools = [pool(&auth, &emulator), pool(&auth, &emulator)];
    let is_over = AtomicBool::new(false);
    let causes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        for (_, pool) in &pools {
            for _ in 0..10 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        if let Err(error) = pool.get() {
                            causes.lock().push(error.to_string());
                        }
                    }
                });
            }
        }
        // The logins that six workers had under way at the first refusal, and six more.
        let rate_limited = || auth.stats().connects_rate_limited;
        wait_until(|| rate_limited() > 20);
        let mut logins = emulator.login_count();
        assert!(logins <= 6 + 6, "{logins} logins at first");
        for _ in 0..6 {
            time.advance(4 * SECOND);
            emulator.wait_for_logins(logins + 1, PATIENCE).unwrap();
            let now = rate_limited();
            wait_until(|| rate_limited() > now + 20);
            logins += 1;
            assert_eq!(emulator.login_count(), logins, "one every 4 s");
        }
        for (manager, _) in &pools {
            let failure = manager.last_failure().unwrap();
            assert_eq!(failure.kind(), ErrorKind::LoginRefused);
        }

        // Another user is admitted meanwhile.
        let other = PgConnectionManager::builder(&emulator.url("other")).auth(auth.clone());
        drop(other.build().unwrap().try_connect().unwrap());

        // When logins are allowed again, the next one lifts the limit for all.
        emulator.allow("*", "app");
        time.advance(4 * SECOND);
        wait_until(|| pools.iter().all(|(_, pool)| pool.state().connections > 0));
    });
    assert_eq!(
        refused(&emulator).len() + accepted_of(&emulator, "other"),
        emulator.login_count() - accepted_of(&emulator, "app")
    );
    let causes = causes.into_inner();
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("PAM authentication failed")),
        "no get told the cause: {causes:?}"
    );
    for (_, pool) in &pools {
        drop(pool.get_timeout(PATIENCE).unwrap());
    }
}

/// FAULTS.md row 23: with the machine's clock.
#[test]
fn a_pool_recovers_within_seconds_once_logins_are_accepted() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    emulator.fault(Fault::RefuseNext(u32::MAX));
    let (manager, pool) = pool(&auth, &emulator);
    wait_until(|| manager.stats().connects_rate_limited > 3);
    let error: Error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    let text = error.to_string();
    assert!(text.starts_with("not tried"), "{text}");
    assert!(text.contains("PAM authentication failed"), "{text}");
    emulator.heal();
    drop(pool.get_timeout(PATIENCE).unwrap());
}

fn accepted_of(emulator: &Emulator, user: &str) -> usize {
    let logins = emulator.logins();
    let of_user = logins.iter().filter(|login| login.user() == user);
    of_user
        .filter(|login| *login.result() == rds_iam_emulator::LoginResult::Accepted)
        .count()
}

fn wait_until(mut reached: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        thread::sleep(Duration::from_millis(5));
    }
}
