//! The lock that lets one process migrate at a time.

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use diesel_rds_iam::ManualClock;
use parking_lot::Mutex;
use rds_iam_emulator::Engine;

use super::*;
use crate::support::{child, example};

#[test]
fn twenty_processes_that_start_together_run_each_migration_once() {
    let emulator = shared_emulator();
    let database = Database::new("twenty_processes");
    let mut held = database.hold_lock();
    let replicas: Vec<_> = (0..20)
        .map(|_| {
            let mut command = Command::new(example("migrate_at_start"));
            child::forget_aws_and_postgresql(&mut command);
            command
                .env("DATABASE_URL", &database.url)
                .env("AWS_ACCESS_KEY_ID", emulator.access_key())
                .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
                .stdin(Stdio::null())
                .stdout(Stdio::piped());
            let mut replica = command.spawn().unwrap();
            let output = BufReader::new(replica.stdout.take().unwrap()).lines();
            (replica, output)
        })
        .collect();
    let mut waiting = Vec::new();
    for (replica, mut output) in replicas {
        let first = output.next().unwrap().unwrap();
        assert!(first.contains("waiting"), "{first}");
        waiting.push((replica, output));
    }
    // All of them request the lock at once.
    execute(
        &mut held,
        &format!("SELECT pg_advisory_unlock({})", migrate::DEFAULT_LOCK_KEY),
    );

    let mut applied = Vec::new();
    for (mut replica, output) in waiting {
        let lines: Vec<String> = output.map(Result::unwrap).collect();
        assert_eq!(lines.last().map(String::as_str), Some("ready"), "{lines:?}");
        assert!(replica.wait().unwrap().success());
        let names = lines
            .iter()
            .filter_map(|line| line.strip_prefix("applied "));
        applied.extend(names.map(|line| line.split(' ').next().unwrap().to_owned()));
    }
    applied.sort();
    assert_eq!(
        applied,
        [
            "2026-11-22-000001_create_readings",
            "2026-11-22-000002_index_readings"
        ]
    );
}

#[test]
fn the_lock_is_awaited_for_lock_wait() {
    let database = Database::new("bounded_wait");
    let folder = Folder::new(&[("1_one", "SELECT 1", "SELECT 1")]);
    let _held = database.hold_lock();

    // Five minutes by default, which the manual clock lets pass at once.
    let time = ManualClock::new();
    let auth = auth_builder(shared_emulator()).clock(time.clock());
    let manager = PgConnectionManager::builder(&database.url).auth(auth.build().unwrap());
    let mut limits = Vec::new();
    let options = Options::new().on_progress(|progress| {
        if let Progress::Waiting { limit } = progress {
            limits.push(limit);
            time.advance(limit);
        }
    });
    let manager = manager.build().unwrap();
    let error = migrate::run_pending(&manager, folder.source(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationLock);
    let holder = database.text(
        "SELECT pid::text AS text FROM pg_locks WHERE locktype = 'advisory' AND database = \
         (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    for said in ["lock_wait", "300s", &format!("pid {holder}")] {
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(limits, [Duration::from_secs(300)]);

    // Another key is another lock. Without time to wait, no wait is reported.
    let none = || {
        let told = |progress: Progress<'_>| {
            let waits = matches!(progress, Progress::Waiting { .. });
            assert!(!waits, "there is no time to wait");
        };
        Options::new().lock_wait(Duration::ZERO).on_progress(told)
    };
    let error = migrate::run_pending(&database.manager, folder.source(), none()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MigrationLock);
    let ran = migrate::run_pending(&database.manager, folder.source(), none().lock_key(7));
    assert_eq!(names(&ran.unwrap()), ["1_one"]);
    // No migration is pending now, so the lock is not requested.
    let ran = migrate::run_pending(&database.manager, folder.source(), none());
    assert_eq!(ran.unwrap(), []);
}

#[test]
fn the_lock_is_the_documented_one() {
    assert_eq!(migrate::DEFAULT_LOCK_KEY, 8_242_840_071_689_561_970);
}

#[test]
fn a_lost_connection_or_a_panic_releases_the_lock() {
    let database = Database::new("lost_connection");
    let folder = Folder::new(&[
        ("1_one", "CREATE TABLE one ()", ""),
        ("2_two", "CREATE TABLE two ()", ""),
        ("3_three", "CREATE TABLE three ()", ""),
    ]);
    let options = Options::new().on_progress(|progress| match progress {
        Progress::Started { step } if step.version == "2" => database.end_sessions(),
        _ => {}
    });
    let error = migrate::run_pending(&database.manager, folder.source(), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("2_two"), "{error}");

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let options = Options::new().on_progress(|progress| match progress {
            Progress::Finished { step, .. } if step.version == "2" => {
                panic!("the handler panics, as this test wants it to")
            }
            _ => {}
        });
        migrate::run_pending(&database.manager, folder.source(), options)
    }));
    assert!(panicked.is_err());

    let ran = migrate::run_pending(&database.manager, folder.source(), Options::new()).unwrap();
    assert_eq!(names(&ran), ["3_three"]);
}

#[test]
fn create_index_concurrently_completes_while_others_wait_for_the_lock() {
    let database = Database::new("concurrent_index");
    let folder = Folder::new(&[
        ("1_table", "CREATE TABLE indexed (id int)", ""),
        (
            "2_index",
            "CREATE INDEX CONCURRENTLY indexed_id ON indexed (id)",
            "",
        ),
    ]);
    folder.write("2_index", "metadata.toml", "run_in_transaction = false");
    let (waits, waiting) = mpsc::channel();
    let waiting = Mutex::new(waiting);
    let replica = || {
        let waits = waits.clone();
        let options = Options::new().on_progress(|progress| match progress {
            Progress::Waiting { .. } => waits.send(()).unwrap(),
            Progress::Started { step } if step.version == "2" => {
                let waiting = waiting.lock();
                for _ in 0..2 {
                    waiting.recv_timeout(PATIENCE).unwrap();
                }
            }
            _ => {}
        });
        migrate::run_pending(&database.manager, folder.source(), options).unwrap()
    };
    let ran: Vec<Step> = thread::scope(|scope| {
        let replicas: Vec<_> = (0..3).map(|_| scope.spawn(replica)).collect();
        let ran = replicas.into_iter().map(|replica| replica.join().unwrap());
        ran.flatten().collect()
    });
    assert_eq!(names(&ran), ["1_table", "2_index"]);
}

#[test]
fn no_lock_is_asked_of_dsql() {
    let emulator = Emulator::builder().engine(Engine::Dsql).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.create_database("own", "app").unwrap();
    let manager = manager_of(&emulator, "own");
    let folder = Folder::new(&[
        ("1_one", "CREATE TABLE one ()", "DROP TABLE one"),
        ("2_two", "CREATE TABLE two ()", "DROP TABLE two"),
    ]);
    let _held = hold_lock(&emulator, "own");
    let options = || Options::new().lock_wait(Duration::ZERO);
    let ran = migrate::run_pending(&manager, folder.source(), options()).unwrap();
    assert_eq!(names(&ran), ["1_one", "2_two"]);

    // With one statement in a transaction, a failure does not undo the statements before it.
    folder.write("1_one", "up.sql", "SELECT 1 / 0");
    let error = migrate::redo(&manager, folder.source(), 2, options()).unwrap_err();
    assert!(
        error.to_string().contains("1_one could not be applied"),
        "{error}"
    );
    let pending = migrate::list(&manager, folder.source()).unwrap();
    assert!(pending.iter().all(Status::is_pending), "{pending:?}");
}
