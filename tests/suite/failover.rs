//! A server that stops and starts again, and a writer that becomes a reader.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::{Connection, SimpleConnection};
use diesel_rds_iam::{
    Backend, ConnectionRetired, ErrorKind, HandleAuthEvent, IamAuth, IamAuthBuilder, PgPool,
    RdsConnectionManager, RetireReason, retire_all,
};
use parking_lot::{Condvar, Mutex};
use r2d2::ManageConnection;
use r2d2::event::{CheckinEvent, CheckoutEvent, HandleEvent};
use rds_iam_emulator::{Emulator, Fault, Node, Stage};

use crate::support::database::{
    Ask, auth_builder, backend_pid, builder_of, credentials_of, emulator, manager, manager_builder,
    refused, shared_emulator,
};
use crate::support::{FakeSource, PATIENCE, SECOND, SetOnDrop};

/// The time within which a pool has to serve again.
const SOON: Duration = Duration::from_secs(5);

/// An identity whose source of credentials counts its calls.
fn counted(emulator: &Emulator) -> (IamAuthBuilder, FakeSource) {
    let (source, good) = (FakeSource::default(), credentials_of(emulator));
    source.answer(move || Ok(good.clone()));
    let auth = IamAuth::builder().credentials_fn(source.fetch());
    (auth, source)
}

/// FAULTS.md row 17.
#[test]
fn a_pool_serves_soon_after_its_server_is_back() {
    let emulator = emulator();
    let (auth, source) = counted(&emulator);
    let auth = auth.build().unwrap();
    let manager = manager_builder(&emulator).auth(auth.clone()).build();
    let pool = manager.unwrap().into_pool().unwrap();
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();

    emulator.stop_postgres().unwrap();
    let error = pool.get_timeout(SECOND).err().unwrap();
    emulator.start_postgres().unwrap();
    let started = Instant::now();
    pool.get().unwrap().batch_execute("SELECT 1").unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());

    assert_eq!(source.calls(), 1, "{error}");
    assert_eq!(auth.stats().tokens_signed, 1, "{error}");
    assert!(refused(&emulator).is_empty(), "{:?}", refused(&emulator));
}

/// FAULTS.md row 30.
#[test]
fn a_writers_pool_finds_the_new_writer() {
    assert_finds_the_new_writer::<PgConnection>();
}

/// FAULTS.md row 30.
#[cfg(feature = "postgres")]
#[test]
fn a_writers_pool_of_the_crate_postgres_finds_the_new_writer() {
    assert_finds_the_new_writer::<diesel_rds_iam::postgres::Client>();
}

fn assert_finds_the_new_writer<C: Backend<Connection: Ask>>() {
    let emulator = emulator();
    let superuser = format!("{} dbname=app", emulator.superuser_url());
    PgConnection::establish(&superuser)
        .unwrap()
        .batch_execute("CREATE SEQUENCE written; GRANT USAGE ON SEQUENCE written TO app")
        .unwrap();
    let reasons = Reasons::default();
    let (auth, source) = counted(&emulator);
    let auth = auth.event_handler(reasons.clone()).build().unwrap();
    let manager = builder_of::<C>(&emulator).auth(auth.clone()).writer();
    let manager = manager.build().unwrap();
    let pool = manager.pool_builder().max_size(2).build().unwrap();
    write(&pool);

    // One checkout is enough.
    emulator.fail_over().unwrap();
    let over = Instant::now();
    write(&pool);
    assert!(over.elapsed() < SOON, "{:?}", over.elapsed());

    // DNS still leads to the old writer, which is rejected at the login and at checkout.
    emulator.route_to(Node::Reader).unwrap();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    let reader = builder_of::<C>(&emulator).auth(auth.clone()).build();
    let reader = reader.unwrap();
    let mut old = reader.try_connect().unwrap();
    reader.is_valid(&mut old).unwrap();
    let error = manager.is_valid(&mut old).unwrap_err();
    assert!(error.to_string().contains("takes no writes"), "{error}");
    emulator.route_to(Node::Writer).unwrap();
    write(&pool);

    // A server becomes read-only under open sessions.
    set_read_only(&emulator, true);
    let begun = Instant::now();
    while reasons.0.lock().is_empty() {
        drop(pool.get_timeout(SECOND));
        assert!(begun.elapsed() < PATIENCE, "it was never noticed");
    }
    set_read_only(&emulator, false);
    while pool.get_timeout(SECOND).is_err() {
        assert!(begun.elapsed() < 2 * PATIENCE, "it was never left");
    }
    write(&pool);
    let reasons = reasons.0.lock();
    assert!(
        reasons
            .iter()
            .all(|reason| *reason == RetireReason::ReadOnly)
    );

    assert_eq!(source.calls(), 1);
    assert_eq!(auth.stats().tokens_signed, 1);
    assert!(refused(&emulator).is_empty(), "{:?}", refused(&emulator));
}

#[test]
fn a_writers_pool_requires_the_checkout_test() {
    let emulator = shared_emulator();
    let auth = auth_builder(emulator).build().unwrap();
    let by_url = |attrs| {
        let url = format!("{}&target_session_attrs={attrs}", emulator.url("app"));
        diesel_rds_iam::PgConnectionManager::builder(&url).auth(auth.clone())
    };
    for builder in [
        manager_builder(emulator).writer(),
        by_url("read-write"),
        by_url("primary"),
        by_url("any").writer(),
    ] {
        let manager = builder.build().unwrap();
        let untested = manager.pool_builder().test_on_check_out(false);
        let error = untested.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("test_on_check_out"), "{error}");
        manager.into_pool().unwrap();
    }
    let untested = by_url("any").build().unwrap().pool_builder();
    untested.test_on_check_out(false).build().unwrap();
}

#[test]
fn retire_all_drops_idle_connections_at_once_and_others_at_check_in() {
    let reasons = Reasons::default();
    let auth = auth_builder(shared_emulator()).event_handler(reasons.clone());
    let auth = auth.build().unwrap();
    let manager = manager_builder(shared_emulator()).auth(auth).build();
    let pool = manager.unwrap().pool_builder();
    let pool = pool.max_size(3).max_lifetime(None).build().unwrap();
    let mut busy = pool.get().unwrap();
    let mut idle = [pool.get().unwrap(), pool.get().unwrap()];
    let mut old: HashSet<i32> = idle.iter_mut().map(|one| backend_pid(one)).collect();
    old.insert(backend_pid(&mut busy));
    drop(idle);

    retire_all(&pool).unwrap();
    assert_eq!(*reasons.0.lock(), [RetireReason::RetireAll; 2]);
    busy.batch_execute("SELECT 1").unwrap();
    drop(busy);
    assert_eq!(*reasons.0.lock(), [RetireReason::RetireAll; 3]);
    let mut new = [(); 3].map(|()| pool.get().unwrap());
    for connection in &mut new {
        assert!(!old.contains(&backend_pid(connection)));
    }
    // Connections that were opened since then stay.
    drop(new);
    assert_eq!(reasons.0.lock().len(), 3);
}

#[test]
fn retire_all_returns_at_once_and_callers_still_get_connections() {
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(2)
        .build()
        .unwrap();
    let busy = (pool.get().unwrap(), pool.get().unwrap());
    thread::scope(|scope| {
        let waiter = scope.spawn(|| backend_pid(&mut pool.get().unwrap()));
        // All connections are checked out. The call returns at once, and their users are not disturbed.
        retire_all(&pool).unwrap();
        drop(busy);
        waiter.join().unwrap();
    });

    // The server has become silent, so a wait for its answer would not end.
    let emulator = emulator();
    let pool = manager(&emulator).pool_builder().max_size(2);
    let pool = pool.build().unwrap();
    drop((pool.get().unwrap(), pool.get().unwrap()));
    emulator.fault(Fault::BlackHole(Stage::Data));
    thread::scope(|scope| {
        let (sender, done) = mpsc::channel();
        let pool = &pool;
        scope.spawn(move || sender.send(retire_all(pool)));
        let outcome = done.recv_timeout(PATIENCE);
        emulator.drop_sessions();
        outcome.unwrap().unwrap();
    });
}

#[test]
fn retire_all_under_load_leaves_no_earlier_connection_and_fails_no_caller() {
    const THREADS: usize = 8;
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(4)
        .min_idle(None)
        .connection_timeout(PATIENCE)
        .build()
        .unwrap();
    let is_over = AtomicBool::new(false);
    let (seen, retired) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        // The threads check what they get themselves: r2d2 is not fair, so on one core another thread could
        // wait for a connection for as long as they are busy.
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let not_these = retired.lock().clone();
                    let backend = backend_pid(&mut pool.get().unwrap());
                    assert!(!not_these.contains(&backend), "{backend} {not_these:?}");
                    seen.lock().insert(backend);
                }
            });
        }
        let wait_for_four_new = || {
            let begun = Instant::now();
            while seen.lock().difference(&retired.lock()).count() < 4 {
                // On a machine with one core a busy loop would take the time of the logins.
                thread::sleep(Duration::from_millis(1));
                assert!(begun.elapsed() < PATIENCE, "{:?}", seen.lock());
            }
        };
        wait_for_four_new();
        for _ in 0..3 {
            let old = seen.lock().clone();
            retire_all(&pool).unwrap();
            retired.lock().extend(old);
            wait_for_four_new();
        }
    });
}

/// FAULTS.md row 36.
#[test]
fn retire_all_reaches_a_connection_that_is_being_returned() {
    let barrier = Barrier::default();
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(1)
        .event_handler(Box::new(barrier.clone()))
        .build()
        .unwrap();
    let mut connection = pool.get().unwrap();
    let old = backend_pid(&mut connection);
    barrier.close();
    thread::scope(|scope| {
        let _open = OpenOnDrop(&barrier);
        scope.spawn(move || drop(connection));
        barrier.wait_for_arrival();
        // The thread is inside `handle_checkin` and cannot go on. This must not wait for it.
        let (sender, done) = mpsc::channel();
        let pool = &pool;
        scope.spawn(move || sender.send(retire_all(pool)));
        done.recv_timeout(PATIENCE).unwrap().unwrap();
        barrier.open();
        assert_ne!(backend_pid(&mut pool.get().unwrap()), old);
    });
}

/// FAULTS.md row 37.
#[test]
fn retire_all_of_a_pool_whose_handler_uses_another_pool_retires_the_right_one() {
    let other = manager(shared_emulator()).pool_builder().max_size(1);
    let other = other.build().unwrap();
    let kept = backend_pid(&mut other.get().unwrap());
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(1)
        .event_handler(Box::new(UsesPool(other.clone())))
        .build()
        .unwrap();
    let old = backend_pid(&mut pool.get().unwrap());
    retire_all(&pool).unwrap();
    assert_ne!(backend_pid(&mut pool.get().unwrap()), old);
    assert_eq!(backend_pid(&mut other.get().unwrap()), kept);
}

/// FAULTS.md row 37: the handler of the identity is called while a connection is being retired.
#[test]
fn a_handler_that_uses_another_pool_does_not_keep_a_connection_from_being_retired() {
    let other = manager(shared_emulator()).pool_builder().max_size(1);
    let auth = auth_builder(shared_emulator()).event_handler(UsesPool(other.build().unwrap()));
    let manager = manager_builder(shared_emulator()).auth(auth.build().unwrap());
    let pool = manager.build().unwrap().pool_builder().max_size(1);
    let pool = pool.build().unwrap();
    let mut connection = pool.get().unwrap();
    let old = backend_pid(&mut connection);
    retire_all(&pool).unwrap();
    drop(connection);
    assert_ne!(backend_pid(&mut pool.get().unwrap()), old);
}

#[test]
fn retire_all_rejects_a_pool_built_by_r2d2() {
    let pool = r2d2::Pool::builder().max_size(1);
    let pool = pool.build(manager(shared_emulator())).unwrap();
    let backend = backend_pid(&mut pool.get().unwrap());
    let error = retire_all(&pool).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("pool_builder"), "{error}");
    assert_eq!(backend_pid(&mut pool.get().unwrap()), backend);
}

/// A handler that stops threads that check a connection in, while it is closed.
#[derive(Clone, Debug, Default)]
struct Barrier(Arc<(Mutex<BarrierState>, Condvar)>);

#[derive(Debug, Default)]
struct BarrierState {
    is_closed: bool,
    has_arrived: bool,
}

impl Barrier {
    fn close(&self) {
        self.0.0.lock().is_closed = true;
    }

    fn open(&self) {
        self.0.0.lock().is_closed = false;
        self.0.1.notify_all();
    }

    fn wait_for_arrival(&self) {
        let mut state = self.0.0.lock();
        let timed_out = self
            .0
            .1
            .wait_while_for(&mut state, |state| !state.has_arrived, PATIENCE);
        assert!(!timed_out.timed_out(), "no connection was checked in");
    }
}

impl HandleEvent for Barrier {
    fn handle_checkin(&self, _: CheckinEvent) {
        let mut state = self.0.0.lock();
        state.has_arrived = true;
        self.0.1.notify_all();
        self.0.1.wait_while(&mut state, |state| state.is_closed);
    }
}

struct OpenOnDrop<'a>(&'a Barrier);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A handler that checks a connection of another pool out and in at every event.
#[derive(Debug)]
struct UsesPool(PgPool);

impl HandleEvent for UsesPool {
    fn handle_checkout(&self, _: CheckoutEvent) {
        backend_pid(&mut self.0.get().unwrap());
    }

    fn handle_checkin(&self, _: CheckinEvent) {
        backend_pid(&mut self.0.get().unwrap());
    }
}

impl HandleAuthEvent for UsesPool {
    fn handle_connection_retired(&self, _: &ConnectionRetired) {
        backend_pid(&mut self.0.get().unwrap());
    }
}

/// The reasons for which connections were retired.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<RetireReason>>>);

impl HandleAuthEvent for Reasons {
    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        self.0.lock().push(event.reason);
    }
}

fn write<C: Backend<Connection: Ask>>(pool: &r2d2::Pool<RdsConnectionManager<C>>) {
    pool.get().unwrap().ask("nextval('written')");
}

fn set_read_only(emulator: &Emulator, is_read_only: bool) {
    let statement = format!("ALTER SYSTEM SET default_transaction_read_only = {is_read_only}");
    emulator.execute(&statement).unwrap();
    emulator.execute("SELECT pg_reload_conf()").unwrap();
}
