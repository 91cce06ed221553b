//! A process that forks after it has built a pool.

use std::collections::HashSet;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::{IamAuth, ManualClock, PgConnectionManager, PgPool};
use fork::Fork;

use crate::support::child::{self, Child};
use crate::support::database::{backend_pid, shared_emulator};
use crate::support::{FakeSource, MINUTE, PATIENCE, endpoint, keys, keys_until};

/// FAULTS.md row 29.
#[test]
fn a_forked_child_gets_an_error_and_its_parent_is_unaffected() {
    const TEST: &str = "a_forked_child_gets_an_error_and_its_parent_is_unaffected";
    if !child::is_running(module_path!(), TEST) {
        let emulator = shared_emulator();
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
            .argument("URL", emulator.url("app"))
            .argument("ACCESS_KEY", emulator.access_key())
            .argument("SECRET_KEY", emulator.secret_key())
            .run();
    }
    let (key, secret) = (child::argument("ACCESS_KEY"), child::argument("SECRET_KEY"));
    let auth = IamAuth::builder()
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&child::argument("URL")).auth(auth.clone());
    let manager = manager.build().unwrap();
    let pool = manager.pool_builder().max_size(3).build().unwrap();
    let before = sessions(&pool);
    // One connection is checked out, and none is being opened.
    let mut busy = pool.get().unwrap();

    // Neither the pool nor its connections are dropped in the child: they are the parent's.
    in_a_child(|| {
        let error = pool.get_timeout(Duration::from_secs(2)).err().unwrap();
        assert!(error.to_string().contains("forked"), "{error}");
        // The cached token is valid in the child too, and the credentials sign others.
        manager
            .try_connect()
            .unwrap()
            .batch_execute("SELECT 1")
            .unwrap();
        auth.source(&endpoint()).token().unwrap();
        // It builds no pool of its own: the threads of one could hang, since r2d2's threads were waiting in
        // the parent (ARCHITECTURE, Fork safety).
    });
    busy.batch_execute("SELECT 1").unwrap();
    drop(busy);
    assert_eq!(sessions(&pool), before);
}

/// The connections of a pool of three.
fn sessions(pool: &PgPool) -> HashSet<i32> {
    let all = [(); 3].map(|()| pool.get().unwrap());
    all.into_iter()
        .map(|mut one| backend_pid(&mut one))
        .collect()
}

/// FAULTS.md row 46.
#[test]
fn a_child_that_is_forked_during_a_fetch_begins_anew() {
    const TEST: &str = "a_child_that_is_forked_during_a_fetch_begins_anew";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let time = ManualClock::new();
    let source = FakeSource::default();
    // The credentials expire with their first token, so that its refresh requests others.
    let expiry = time.clock().now().wall + 20 * MINUTE;
    source.answer(move || Ok(keys_until(expiry)));
    let auth = IamAuth::builder()
        .credentials_fn(source.fetch())
        .clock(time.clock())
        .build()
        .unwrap();
    let (fresh, refreshed) = (endpoint(), auth.source(&endpoint()));
    let cold = auth.source(&fresh.with_region("eu-west-2").unwrap());
    let first = refreshed.token().unwrap().id();

    // One token is due for a refresh, and callers wait for another one; both need credentials.
    time.advance(13 * MINUTE);
    source.hold();
    assert_eq!(refreshed.token().unwrap().id(), first);
    let waiting = cold.clone();
    thread::spawn(move || waiting.token());
    source.wait_for_caller();

    in_a_child(|| {
        // The child's copy of the source is blocked as well, and the child releases it.
        source.release();
        let begun = Instant::now();
        cold.token().unwrap();
        while refreshed.token().unwrap().id() == first {
            assert!(begun.elapsed() < PATIENCE / 3, "it was not refreshed");
            thread::yield_now();
        }
    });
    source.release();
}

/// FAULTS.md row 65.
#[test]
fn a_child_that_is_forked_during_a_lookup_resolves_the_name_itself() {
    const TEST: &str = "a_child_that_is_forked_during_a_lookup_resolves_the_name_itself";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let parent = process::id();
    let (begun, begins) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    let auth = IamAuth::builder().credentials_provider(keys());
    let manager = PgConnectionManager::builder(url)
        .auth(auth.build().unwrap())
        .connect_timeout(PATIENCE / 3)
        .resolver(move |_, _| {
            if process::id() == parent {
                begun.send(()).unwrap();
                // An error means that the test is over.
                let _ = released.lock().unwrap().recv();
            }
            Err(io::Error::other("resolved"))
        });
    let manager = manager.build().unwrap();
    let waiting = manager.clone();
    let waiting = thread::spawn(move || waiting.try_connect().err().unwrap().to_string());
    begins.recv_timeout(PATIENCE).unwrap();

    in_a_child(|| {
        let error = manager.try_connect().err().unwrap().to_string();
        assert!(error.ends_with("resolved"), "{error}");
    });
    drop(release);
    assert!(waiting.join().unwrap().ends_with("resolved"));
}

/// Runs `check` in a forked child, which must neither fail nor hang.
fn in_a_child(check: impl FnOnce()) {
    match fork::fork().unwrap() {
        Fork::Child => {
            let outcome = panic::catch_unwind(AssertUnwindSafe(check));
            process::exit(i32::from(outcome.is_err()));
        }
        Fork::Parent(child) => {
            // The parent limits the time: a thread for that in the child would make it unlike most children.
            let begun = Instant::now();
            let status = loop {
                if let Some(status) = fork::waitpid_nohang(child).unwrap() {
                    break status;
                }
                if begun.elapsed() > PATIENCE {
                    let child = rustix::process::Pid::from_raw(child).unwrap();
                    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
                    panic!("the child hung");
                }
                thread::sleep(Duration::from_millis(1));
            };
            assert_eq!(status, 0);
        }
    }
}
