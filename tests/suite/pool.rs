//! The pool of `into_pool` and `pool_builder`.

use std::collections::HashMap;
use std::fmt;
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::{CustomizeConnection, TestCustomizer};
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use diesel_rds_iam::scheduled_thread_pool::ScheduledThreadPool;
use diesel_rds_iam::{ErrorKind, IamAuth, ManualClock, PgConnectionManager};
use parking_lot::Mutex;
use r2d2::event::{AcquireEvent, HandleEvent, ReleaseEvent};

use crate::support::child::{self, Child};
use crate::support::database::{
    auth_builder, backend_pid, builder_of, credentials_of, emulator, manager, manager_builder,
    shared_emulator,
};
use crate::support::footprint::Footprint;
use crate::support::{FakeSource, PATIENCE, SECOND};

#[test]
fn the_first_failure_is_returned_at_once_with_its_kind() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("nobody"))
        .auth(auth)
        .build()
        .unwrap();
    let error = manager.into_pool().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
    // One login, and no repetition until a time-out.
    assert_eq!(emulator.login_count(), 1);
}

#[test]
fn the_connection_that_was_tried_is_the_pools_first() {
    let emulator = emulator();
    let pool = manager(&emulator)
        .pool_builder()
        .max_size(1)
        .build()
        .unwrap();
    let mut connection = pool.get().unwrap();
    connection.batch_execute("SELECT 1").unwrap();
    assert_eq!(emulator.login_count(), 1);
}

/// Two round trips of an application's start.
#[test]
fn the_pools_first_connection_is_not_tested_while_it_is_new() {
    #[derive(QueryableByName)]
    struct Prepared {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }

    let manager = manager(shared_emulator());
    let prepared = |test| {
        let builder = manager.pool_builder().test_on_check_out(test);
        let mut connection = builder.build().unwrap().get().unwrap();
        let query = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1'";
        let prepared: Prepared = sql_query(query).get_result(&mut connection).unwrap();
        prepared.count
    };
    assert_eq!(prepared(false), 0);
    // The query of the checkout test is still this one.
    assert_eq!(prepared(true), 1);
}

/// Without the checkout test, nothing else would notice that it is broken.
#[test]
fn a_connection_that_has_waited_for_a_worker_is_tested() {
    let emulator = Arc::new(emulator());
    let time = ManualClock::new();
    let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth);
    let manager = manager.build().unwrap();
    // The only worker is busy until the pool has logged that it is built.
    let (release, released) = channel::<()>();
    let workers = Arc::new(ScheduledThreadPool::new(1));
    workers.execute(move || released.recv().unwrap_or_default());
    let release = Mutex::new(Some(release));
    let server = emulator.clone();
    let when_built = move || {
        let drop_sessions = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity \
                             WHERE usename = 'app'";
        server.execute(drop_sessions).unwrap();
        time.advance(2 * SECOND);
        release.lock().take().unwrap();
        std::io::sink()
    };
    let subscriber = tracing_subscriber::fmt().with_writer(when_built).finish();
    let pool = tracing::subscriber::with_default(subscriber, || {
        let builder = manager.pool_builder().max_size(1);
        let builder = builder.thread_pool(workers).test_on_check_out(false);
        builder.build().unwrap()
    });
    let mut connection = pool.get().unwrap();
    connection.batch_execute("SELECT 1").unwrap();
    assert_eq!(emulator.login_count(), 2);
}

/// r2d2's own `build` does the same.
#[test]
fn after_build_a_connection_is_in_the_pool() {
    let manager = manager(shared_emulator());
    for min_idle in [None, Some(0), Some(2)] {
        let log = Arc::new(EventLog::default());
        let pool = manager
            .pool_builder()
            .max_size(2)
            .min_idle(min_idle)
            .event_handler(Box::new(Tells(log.clone())))
            .build()
            .unwrap();
        assert!(pool.state().connections >= 1, "{min_idle:?}");
        assert!(!log.acquired.lock().is_empty(), "{min_idle:?}");
        let mut connection = pool.try_get().unwrap();
        connection.batch_execute("SELECT 1").unwrap();
    }
}

#[test]
fn build_returns_the_error_of_the_customizer() {
    #[derive(Debug)]
    struct Fails;

    impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for Fails {
        fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
            let set = connection.batch_execute("SET ROLE nobody_at_all");
            set.map_err(diesel::r2d2::Error::QueryError)
        }
    }

    let auth = auth_builder(shared_emulator()).build().unwrap();
    let manager = manager_builder(shared_emulator())
        .auth(auth)
        .build()
        .unwrap();
    let builder = manager
        .pool_builder()
        .connection_customizer(Box::new(Fails));
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Customizer);
    assert!(error.to_string().contains("nobody_at_all"), "{error}");
    let failure = manager.last_failure().unwrap();
    assert_eq!(failure.kind(), ErrorKind::Customizer);
    assert!(manager.stats().connects_failed >= 1);
}

#[cfg(feature = "postgres")]
#[test]
fn a_customizer_of_the_crate_postgres_returns_its_error() {
    #[derive(Debug)]
    struct Fails;

    impl CustomizeConnection<diesel_rds_iam::PostgresConnection, diesel_rds_iam::Error> for Fails {
        fn on_acquire(
            &self,
            connection: &mut diesel_rds_iam::PostgresConnection,
        ) -> Result<(), diesel_rds_iam::Error> {
            if connection.query_one("SELECT 1", &[])?.is_empty() {
                return Err(diesel_rds_iam::Error::customizer("no column"));
            }
            connection.batch_execute("SET ROLE nobody_at_all")?;
            Ok(())
        }
    }

    let manager = builder_of::<diesel_rds_iam::postgres::Client>(shared_emulator());
    let pool = manager.build().unwrap().pool_builder();
    let error = pool
        .connection_customizer(Box::new(Fails))
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Customizer);
    assert!(error.to_string().contains("nobody_at_all"), "{error}");
}

/// FAULTS.md row 67.
#[test]
fn a_pool_waits_for_a_database_that_starts_with_the_application() {
    let emulator = emulator();
    emulator.stop_postgres().unwrap();
    let manager = manager(&emulator);
    let builder = || manager.pool_builder().startup_timeout(PATIENCE);
    thread::scope(|scope| {
        let building = scope.spawn(|| builder().build());
        while manager.stats().connects_failed == 0 && !building.is_finished() {
            thread::yield_now();
        }
        emulator.start_postgres().unwrap();
        building.join().unwrap().unwrap();
    });
    // A configuration error is returned at once, and a transient failure after `startup_timeout`.
    let unknown = PgConnectionManager::builder(&emulator.url("nobody"))
        .auth(auth_builder(&emulator).build().unwrap())
        .build()
        .unwrap();
    let begun = Instant::now();
    let error = unknown.pool_builder().startup_timeout(PATIENCE).build();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::LoginRefused);
    emulator.stop_postgres().unwrap();
    let error = builder().startup_timeout(SECOND).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(begun.elapsed() >= SECOND && begun.elapsed() < PATIENCE);
}

/// FAULTS.md row 68. The test waits for r2d2's reaper, which runs every 30 s.
#[test]
fn a_pool_without_idle_connections_lets_the_database_pause() {
    let emulator = emulator();
    let pool = manager(&emulator)
        .pool_builder()
        .min_idle(Some(0))
        .idle_timeout(Some(SECOND))
        .max_lifetime(Some(SECOND))
        .build()
        .unwrap();
    assert_eq!(pool.min_idle(), Some(0));
    drop(pool.get().unwrap());
    emulator.wait_for_sessions(0, 2 * PATIENCE).unwrap();
    let logins = emulator.login_count();
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();
    assert_eq!(emulator.login_count(), logins + 1);
}

/// FAULTS.md row 68.
#[test]
fn a_caller_that_waits_gets_the_place_of_a_connection_whose_lifetime_has_ended() {
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(1)
        .min_idle(Some(0))
        .max_lifetime(Some(SECOND))
        .connection_timeout(PATIENCE)
        .build()
        .unwrap();
    let mut held = pool.get().unwrap();
    let first = backend_pid(&mut held);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| backend_pid(&mut pool.get().unwrap()));
        thread::sleep(SECOND);
        let begun = Instant::now();
        drop(held);
        assert_ne!(waiting.join().unwrap(), first);
        assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    });
}

/// FAULTS.md row 2.
#[test]
fn a_customizer_that_panics_loses_no_slot() {
    #[derive(Debug, Default)]
    struct PanicsAtFirst(AtomicUsize);

    impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for PanicsAtFirst {
        fn on_acquire(&self, _: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
            if self.0.fetch_add(1, Ordering::SeqCst) < 4 {
                panic!("the customizer panics, as this test wants it to");
            }
            Ok(())
        }
    }

    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(2)
        .connection_customizer(Box::new(PanicsAtFirst::default()))
        .startup_timeout(PATIENCE)
        .build()
        .unwrap();
    let both = (pool.get().unwrap(), pool.get().unwrap());
    drop(both);
}

/// FAULTS.md row 2.
#[test]
fn a_source_of_credentials_that_panics_loses_no_slot() {
    let emulator = shared_emulator();
    let credentials = FakeSource::default();
    credentials.answer(|| panic!("the source panics, as this test wants it to"));
    let auth = IamAuth::builder()
        .credentials_fn(credentials.fetch())
        .build()
        .unwrap();
    let manager = manager_builder(emulator).auth(auth).build().unwrap();
    let pool = manager
        .pool_builder()
        .max_size(2)
        .connection_timeout(2 * SECOND)
        .build_unchecked()
        .unwrap();
    let error = pool.get().err().unwrap();
    assert!(error.to_string().contains("credentials"), "{error}");
    assert!(credentials.calls() > 0);

    let good = credentials_of(emulator);
    credentials.answer(move || Ok(good.clone()));
    let both = (get_patiently(&pool), get_patiently(&pool));
    drop(both);
}

/// FAULTS.md row 33.
#[test]
fn two_pools_of_one_manager_are_independent() {
    let manager = manager(shared_emulator());
    let one = manager
        .pool_builder()
        .max_size(1)
        .max_lifetime(Some(SECOND))
        .build()
        .unwrap();
    let other = manager
        .pool_builder()
        .max_size(1)
        .max_lifetime(None)
        .build()
        .unwrap();
    let backend = |pool: &diesel_rds_iam::PgPool| backend_pid(&mut pool.get().unwrap());
    let (first_of_one, first_of_other) = (backend(&one), backend(&other));
    assert_ne!(first_of_one, first_of_other);
    // The first pool's connection is replaced at the end of its lifetime, the other's is not.
    let begun = Instant::now();
    while backend(&one) == first_of_one {
        assert_eq!(backend(&other), first_of_other);
        assert!(
            begun.elapsed() < PATIENCE,
            "the connection was never replaced"
        );
    }
    assert_eq!(backend(&other), first_of_other);
}

/// FAULTS.md row 33.
#[test]
fn a_pool_of_one_and_a_pool_without_idle_connections_starve_no_caller() {
    let manager = manager(shared_emulator());
    for (max_size, min_idle) in [(1, Some(2)), (2, Some(0)), (3, None)] {
        let retired = manager.stats().connections_retired;
        let pool = manager
            .pool_builder()
            .max_size(max_size)
            .min_idle(min_idle)
            .max_lifetime(Some(SECOND))
            .build()
            .unwrap();
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // Until every slot has been replaced twice.
                    let enough = 2 * u64::from(max_size);
                    while manager.stats().connections_retired < retired + enough {
                        pool.get().unwrap().batch_execute("SELECT 1").unwrap();
                        assert!(begun.elapsed() < PATIENCE, "connections were never retired");
                    }
                });
            }
        });
    }
}

/// FAULTS.md row 33.
#[test]
fn the_users_event_handler_sees_every_connection_come_and_go() {
    let log = Arc::new(EventLog::default());
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(2)
        .max_lifetime(Some(SECOND))
        .event_handler(Box::new(Tells(log.clone())))
        .build()
        .unwrap();
    let begun = Instant::now();
    while log.released.lock().len() < 4 {
        pool.get().unwrap().batch_execute("SELECT 1").unwrap();
        assert!(begun.elapsed() < PATIENCE, "connections were never retired");
    }
    let acquired = log.acquired.lock();
    for (id, released) in log.released.lock().iter() {
        // The handler measures by itself: r2d2 counts an age from a little after the start of the lifetime.
        let age = *released - acquired[id];
        assert!(age >= SECOND * 9 / 10, "retired at {age:?}");
    }
}

#[test]
fn an_event_handler_that_panics_does_no_harm() {
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(1)
        .event_handler(Box::new(Panics))
        .build()
        .unwrap();
    for _ in 0..3 {
        pool.get().unwrap().batch_execute("SELECT 1").unwrap();
    }
}

#[test]
fn a_plain_r2d2_pool_and_diesels_test_customizer_work_too() {
    let emulator = emulator();
    let pool = r2d2::Pool::builder()
        .max_size(1)
        .connection_customizer(Box::new(TestCustomizer))
        .build(manager(&emulator))
        .unwrap();
    pool.get()
        .unwrap()
        .batch_execute("CREATE TEMPORARY TABLE kept (id int)")
        .unwrap();
    // The test transaction is still open.
    pool.get()
        .unwrap()
        .batch_execute("SELECT * FROM kept")
        .unwrap();
}

#[test]
fn a_size_or_duration_of_zero_is_rejected_by_name() {
    let builder = || manager(shared_emulator()).pool_builder();
    for (builder, name) in [
        (builder().max_size(0), "max_size"),
        (
            builder().connection_timeout(Duration::ZERO),
            "connection_timeout",
        ),
        (builder().max_lifetime(Some(Duration::ZERO)), "max_lifetime"),
        (builder().idle_timeout(Some(Duration::ZERO)), "idle_timeout"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn the_presets_are_those_that_the_documentation_gives() {
    let pool = manager(shared_emulator()).into_pool().unwrap();
    assert_eq!(pool.max_size(), 10);
    assert_eq!(pool.min_idle(), Some(2));
    assert_eq!(pool.max_lifetime(), Some(14 * 60 * SECOND));
    assert!((6 * 60 * SECOND..=10 * 60 * SECOND).contains(&pool.idle_timeout().unwrap()));
    assert_eq!(pool.connection_timeout(), 10 * SECOND);
    assert!(pool.test_on_check_out());
}

/// Otherwise all of them would log in again in the same second.
#[test]
fn pools_that_start_together_do_not_close_idle_connections_together() {
    let manager = manager(shared_emulator());
    let limits: Vec<_> = (0..8)
        .map(|_| {
            let builder = manager.pool_builder().max_size(1);
            let pool = builder.idle_timeout(Some(1_000 * SECOND));
            pool.build_unchecked().unwrap().idle_timeout().unwrap()
        })
        .collect();
    let range = 600 * SECOND..=1_000 * SECOND;
    assert!(
        limits.iter().all(|limit| range.contains(limit)),
        "{limits:?}"
    );
    assert!(limits.iter().any(|limit| *limit != limits[0]), "{limits:?}");
}

/// FAULTS.md row 38.
#[test]
fn the_longest_duration_means_no_limit() {
    let auth = auth_builder(shared_emulator()).refresh_timeout(Duration::MAX);
    let manager = manager_builder(shared_emulator())
        .auth(auth.build().unwrap())
        .connect_timeout(Duration::MAX)
        .build()
        .unwrap();
    let pool = manager
        .pool_builder()
        .max_size(2)
        .max_lifetime(Some(Duration::MAX))
        .idle_timeout(Some(Duration::MAX))
        .connection_timeout(Duration::MAX)
        .build()
        .unwrap();
    let both = (pool.get().unwrap(), pool.get().unwrap());
    drop(both);
    assert_eq!(pool.state().connections, 2, "no slot is lost");
    #[cfg(feature = "postgres")]
    diesel_rds_iam::PostgresConnectionManager::builder(&shared_emulator().url("app"))
        .auth(auth_builder(shared_emulator()).build().unwrap())
        .connect_timeout(Duration::MAX)
        .build()
        .unwrap()
        .try_connect()
        .unwrap();
}

/// r2d2 issue 99.
#[test]
fn the_threads_of_a_pool_end_with_it() {
    const TEST: &str = "the_threads_of_a_pool_end_with_it";
    // In a process of its own, in which no other code starts threads.
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app\
               ?hostaddr=127.0.0.1&port=1";
    let auth = IamAuth::builder().credentials_fn(|| Err("not in this test".into()));
    let manager = PgConnectionManager::builder(url).auth(auth.build().unwrap());
    let manager = manager.build().unwrap();
    drop(manager.pool_builder().build_unchecked().unwrap());
    for _ in 0..100 {
        drop(manager.pool_builder().build_unchecked().unwrap());
    }
    let begun = Instant::now();
    loop {
        let threads = Footprint::own().unwrap().threads;
        if threads <= 20 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{threads} threads");
        thread::yield_now();
    }
}

/// FAULTS.md row 38.
#[test]
fn a_pool_without_threads_is_an_error() {
    const TEST: &str = "a_pool_without_threads_is_an_error";
    if !child::is_running(module_path!(), TEST) {
        // The system has no memory for a stack of this size, so it starts no thread.
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
            .env("RUST_MIN_STACK", (1_u64 << 46).to_string())
            .run();
    }
    thread::Builder::new().spawn(|| {}).unwrap_err();
    // With `panic = "abort"`, a panic ends the process, also if it is caught.
    let panics = Arc::<AtomicUsize>::default();
    let count = panics.clone();
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        count.fetch_add(1, Ordering::SeqCst);
        print(panic);
    }));
    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    let manager = PgConnectionManager::new(url).unwrap();
    for built in [
        manager.pool_builder().build(),
        manager.pool_builder().build_unchecked(),
    ] {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("limit of threads"), "{error}");
    }
    // Inside asynchronous code, where tokio's own runtime must not be dropped.
    let tokio = tokio::runtime::Builder::new_current_thread().build();
    let connected = tokio.unwrap().block_on(async { manager.try_connect() });
    let error = connected.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("limit of threads"), "{error}");
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

/// FAULTS.md row 2.
#[test]
fn an_error_handler_that_panics_loses_no_slot() {
    #[derive(Debug)]
    struct PanicsOnError;

    impl r2d2::HandleError<diesel::r2d2::Error> for PanicsOnError {
        fn handle_error(&self, _: diesel::r2d2::Error) {
            panic!("the error handler panics, as this test wants it to");
        }
    }

    let emulator = emulator();
    let pool = manager(&emulator)
        .pool_builder()
        .max_size(1)
        .connection_timeout(SECOND)
        .error_handler(Box::new(PanicsOnError))
        .build()
        .unwrap();
    emulator.stop_postgres().unwrap();
    pool.get().err().unwrap();
    pool.get().err().unwrap();
    emulator.start_postgres().unwrap();
    drop(get_patiently(&pool));
}

#[test]
fn nothing_that_can_be_printed_shows_a_secret() {
    let emulator = shared_emulator();
    let manager = manager(emulator);
    let pool = manager.pool_builder().build().unwrap();
    let printed = format!("{manager:?} {:?} {pool:?}", manager.pool_builder());
    assert!(printed.contains(emulator.host()), "{printed}");
    for secret in [emulator.secret_key(), "X-Amz"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

fn get_patiently(pool: &diesel_rds_iam::PgPool) -> r2d2::PooledConnection<PgConnectionManager> {
    let begun = Instant::now();
    loop {
        match pool.get() {
            Ok(connection) => return connection,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    }
}

#[derive(Debug, Default)]
struct EventLog {
    acquired: Mutex<HashMap<u64, Instant>>,
    released: Mutex<Vec<(u64, Instant)>>,
}

#[derive(Debug)]
struct Tells(Arc<EventLog>);

impl HandleEvent for Tells {
    fn handle_acquire(&self, event: AcquireEvent) {
        let (id, now) = (event.connection_id(), Instant::now());
        self.0.acquired.lock().insert(id, now);
    }

    fn handle_release(&self, event: ReleaseEvent) {
        let (id, now) = (event.connection_id(), Instant::now());
        self.0.released.lock().push((id, now));
    }
}

struct Panics;

impl HandleEvent for Panics {
    fn handle_acquire(&self, _: AcquireEvent) {
        panic!("the event handler panics, as this test wants it to");
    }

    fn handle_checkin(&self, _: r2d2::event::CheckinEvent) {
        panic!("the event handler panics, as this test wants it to");
    }
}

impl fmt::Debug for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Panics")
    }
}
