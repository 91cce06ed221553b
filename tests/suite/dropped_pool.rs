//! Pools whose server is unreachable: how they end, and how often they connect until then.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_rds_iam::{ErrorKind, PgConnectionManager, PgPool};
use parking_lot::Mutex;
use r2d2::HandleEvent;
use rds_iam_emulator::{Emulator, Fault, Stage};

use crate::support::child::{self, Child};
use crate::support::database::{auth_builder, emulator, manager_builder, shared_emulator};
#[cfg(target_os = "linux")]
use crate::support::thread_names;
use crate::support::{PATIENCE, SECOND};

/// The time that a worker spends inside `connect` is limited to 0.8 s. The rest is for a loaded machine.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// An event handler of the pool, which is dropped with the pool.
#[derive(Debug)]
struct Handler {
    _held: Arc<()>,
}

impl HandleEvent for Handler {}

/// A pool with default settings that has not connected yet, and a weak reference that is invalid after its end.
fn pool_of(manager: &PgConnectionManager) -> (PgPool, Weak<()>) {
    let held = Arc::new(());
    let weak = Arc::downgrade(&held);
    let pool = manager
        .pool_builder()
        .event_handler(Box::new(Handler { _held: held }))
        .build_unchecked();
    (pool.unwrap(), weak)
}

/// Drops pools after a second, and asserts that each ends soon after that.
fn assert_dropped_pools_end(manager: &PgConnectionManager) {
    let (pools, handlers): (Vec<_>, Vec<_>) = (0..5).map(|_| pool_of(manager)).unzip();
    for pool in &pools {
        // A waiting caller makes the pool connect.
        assert!(pool.get_timeout(SECOND / 5).is_err());
    }
    drop(pools);
    let dropped = Instant::now();
    while let Some(left) = handlers.iter().position(|it| it.strong_count() > 0) {
        assert!(dropped.elapsed() < ENDS_WITHIN, "pool {left} still exists");
        thread::yield_now();
    }
}

/// A manager for a server of this test, under the emulator's name.
fn manager_for(listener: &TcpListener, emulator: &Emulator) -> PgConnectionManager {
    let (host, port) = (emulator.host(), listener.local_addr().unwrap().port());
    let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=app");
    PgConnectionManager::builder(&url)
        .auth(auth_builder(emulator).build().unwrap())
        .build()
        .unwrap()
}

/// FAULTS.md row 39.
#[test]
fn a_dropped_pool_ends_although_its_server_refuses_connections() {
    let emulator = emulator();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = manager_for(&listener, &emulator);
    drop(listener);
    assert_dropped_pools_end(&manager);
}

/// FAULTS.md row 39.
#[test]
fn a_dropped_pool_ends_although_its_server_is_silent() {
    let emulator = emulator();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_dropped_pools_end(&manager_for(&silent, &emulator));
}

/// FAULTS.md row 39.
#[test]
fn a_dropped_pool_ends_although_its_server_is_full() {
    let emulator = emulator();
    let manager = manager_builder(&emulator).build().unwrap();
    emulator
        .execute("ALTER ROLE app CONNECTION LIMIT 0")
        .unwrap();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    assert_dropped_pools_end(&manager);
    // The logins that were under way have ended, and none follows.
    let begun = Instant::now();
    let mut count = emulator.login_count();
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < 2 * SECOND {
        if emulator.login_count() != count {
            (count, quiet_since) = (emulator.login_count(), Instant::now());
        }
        assert!(begun.elapsed() < PATIENCE, "logins go on");
        thread::yield_now();
    }
}

/// FAULTS.md row 39.
#[test]
fn a_dropped_pool_ends_although_its_server_is_read_only() {
    let emulator = emulator();
    let manager = manager_builder(&emulator).writer().build().unwrap();
    emulator
        .execute("ALTER ROLE app SET default_transaction_read_only = on")
        .unwrap();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    assert_dropped_pools_end(&manager);
}

/// FAULTS.md row 72: suites that build a pool for each test. r2d2's own workers stay for 30 s.
#[cfg(target_os = "linux")]
#[test]
fn four_hundred_dropped_pools_leave_no_threads() {
    const TEST: &str = "four_hundred_dropped_pools_leave_no_threads";
    const POOLS: usize = 400;
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
            .argument("URL", shared_emulator().url("app"))
            .env("AWS_ACCESS_KEY_ID", shared_emulator().access_key())
            .env("AWS_SECRET_ACCESS_KEY", shared_emulator().secret_key())
            .run();
    }
    let before = thread_names();
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    // Most of them are dropped before their workers find that the server is missing. Logins would take seconds.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let url = format!("{}&port={}", child::argument("URL"), closed.unwrap().port());
    let nowhere = PgConnectionManager::new(&url).unwrap();
    for _ in 0..POOLS {
        nowhere.pool_builder().build_unchecked().unwrap();
    }
    let dropped = Instant::now();
    while thread_names().len() > before.len() + 20 {
        assert!(dropped.elapsed() < PATIENCE / 3, "{:?}", thread_names());
        thread::yield_now();
    }
    println!("at most 20 threads {:?} after the last", dropped.elapsed());
    let _pool = manager.into_pool().unwrap();
    let names = thread_names();
    let ours: Vec<_> = names.iter().filter(|name| !before.contains(name)).collect();
    assert!(ours.iter().any(|name| name.starts_with("rds-iam-pool")));
    let others: Vec<_> = ours
        .iter()
        .filter(|name| !name.starts_with("rds-iam-"))
        .collect();
    assert_eq!(others, [&&""; 0]);
}

/// FAULTS.md row 40: three workers with ten connections to open make one attempt every half a second.
#[test]
fn a_pool_makes_two_attempts_a_second_while_its_server_is_down() {
    const ATTEMPTS: usize = 12;
    let emulator = emulator();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = manager_for(&listener, &emulator);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(client);
        }
    });
    let begun = Instant::now();
    let pool = manager.pool_builder().min_idle(None).build_unchecked();
    let pool = pool.unwrap();
    while attempts.load(Ordering::SeqCst) < ATTEMPTS {
        assert!(begun.elapsed() < PATIENCE, "it has given up");
        thread::yield_now();
    }
    // The first attempts of the workers are simultaneous, and one more may be under way beside the probe.
    let paced = u32::try_from(ATTEMPTS - 5).unwrap();
    let least = paced * SECOND / 2;
    assert!(begun.elapsed() >= least, "after {:?}", begun.elapsed());
    drop(pool);
}

/// FAULTS.md row 41.
#[test]
fn a_login_that_outlasts_a_visit_is_no_failure() {
    #[derive(Clone, Debug, Default)]
    struct Reported(Arc<Mutex<Vec<String>>>);

    impl r2d2::HandleError<diesel::r2d2::Error> for Reported {
        fn handle_error(&self, error: diesel::r2d2::Error) {
            self.0.lock().push(error.to_string());
        }
    }

    let reported = Reported::default();
    let emulator = emulator();
    emulator.fault(Fault::Delay(Stage::Login, 2 * SECOND));
    let manager = manager_builder(&emulator).connect_timeout(PATIENCE);
    let manager = manager.build().unwrap();
    let pool = manager
        .pool_builder()
        .max_size(1)
        .connection_timeout(PATIENCE)
        .error_handler(Box::new(reported.clone()))
        .build_unchecked()
        .unwrap();
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();
    assert_eq!(emulator.login_count(), 1);
    assert_eq!(*reported.0.lock(), [""; 0]);
    assert_eq!(manager.stats().connects_failed, 0);
    assert!(manager.last_failure().is_none());
}
