//! What applications expect of any r2d2 pool of diesel's connections, from one of `pool_builder`.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::prelude::*;
use diesel::r2d2::CustomizeConnection;
use diesel_rds_iam::{PgConnectionManager, PgPool};
use parking_lot::Mutex;
use r2d2::PooledConnection;
use r2d2::event::{AcquireEvent, CheckinEvent, CheckoutEvent, HandleEvent, ReleaseEvent};

use crate::support::PATIENCE;
use crate::support::database::{Ask, backend_pid, emulator, manager, shared_emulator};

/// How long a checkout waits that is expected to fail.
const SHORT: Duration = Duration::from_millis(50);

fn pool(max_size: u32) -> PgPool {
    let builder = manager(shared_emulator()).pool_builder();
    builder.max_size(max_size).build().unwrap()
}

/// Opens all connections of a pool, and returns them.
fn fill(pool: &PgPool) -> Vec<PooledConnection<PgConnectionManager>> {
    let sizes = 0..pool.max_size();
    sizes.map(|_| pool.get_timeout(PATIENCE).unwrap()).collect()
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_threads_hold_two_connections_at_once() {
    let pool = pool(2);
    let both = Barrier::new(2);
    let hold = || {
        let mut connection = pool.get_timeout(PATIENCE).unwrap();
        both.wait();
        backend_pid(&mut connection)
    };
    let pids = thread::scope(|scope| {
        let threads = [scope.spawn(hold), scope.spawn(hold)];
        threads.map(|thread| thread.join().unwrap())
    });
    assert_ne!(pids[0], pids[1]);
}

#[test]
fn a_checkout_waits_for_a_return_and_for_no_longer_than_its_limit() {
    let pool = pool(1);
    let held = pool.get_timeout(PATIENCE).unwrap();
    let begun = Instant::now();
    assert!(pool.get_timeout(SHORT).is_err());
    assert!(begun.elapsed() >= SHORT);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.get_timeout(PATIENCE).map(drop));
        drop(held);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn try_get_returns_idle_connections_only() {
    let pool = pool(2);
    drop(fill(&pool));
    let (first, second) = (pool.try_get().unwrap(), pool.try_get().unwrap());
    assert!(pool.try_get().is_none());
    drop((first, second));
    assert!(pool.try_get().is_some());
    assert_eq!(pool.state().connections, 2);
}

#[test]
fn idle_connections_are_kept_beside_those_in_use() {
    let builder = manager(shared_emulator()).pool_builder();
    let pool = builder.max_size(4).min_idle(Some(1)).build().unwrap();
    let held: Vec<_> = (0..2)
        .map(|_| pool.get_timeout(PATIENCE).unwrap())
        .collect();
    wait_until("no connection was opened beside those in use", || {
        pool.state().idle_connections >= 1
    });
    assert!(pool.state().connections >= 3);
    drop(held);
}

#[test]
fn what_is_stored_with_a_connection_stays_with_it() {
    let pool = pool(2);
    let mut connections = fill(&pool);
    for connection in &mut connections {
        let pid = backend_pid(connection);
        PooledConnection::extensions_mut(connection).insert(pid);
    }
    drop(connections);
    for mut connection in fill(&pool) {
        let pid = backend_pid(&mut connection);
        let stored = PooledConnection::extensions(&connection).get::<i32>();
        assert_eq!(stored, Some(&pid));
    }
}

#[test]
fn a_connection_with_an_open_transaction_is_not_handed_out_again() {
    let pool = pool(1);
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    let pid = backend_pid(&mut connection);
    AnsiTransactionManager::begin_transaction(&mut *connection).unwrap();
    drop(connection);
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    assert_ne!(backend_pid(&mut connection), pid);
}

#[test]
fn a_connection_that_was_held_in_a_panic_is_not_handed_out_again() {
    let pool = pool(1);
    let mut pid = 0;
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut connection = pool.get_timeout(PATIENCE).unwrap();
        pid = backend_pid(&mut connection);
        panic!("while a connection is held");
    }));
    assert!(panicked.is_err());
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    assert_ne!(backend_pid(&mut connection), pid);
}

#[test]
fn a_transaction_commits_rolls_back_and_nests_on_a_pooled_connection() {
    let pool = pool(1);
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    let insert = |number: i32, connection: &mut PgConnection| {
        diesel::sql_query(format!("INSERT INTO numbers VALUES ({number})")).execute(connection)
    };
    diesel::sql_query("CREATE TEMPORARY TABLE numbers (number int)")
        .execute(&mut connection)
        .unwrap();
    connection
        .transaction(|connection| {
            insert(1, connection)?;
            let inner = connection.transaction(|connection| {
                insert(2, connection)?;
                Err::<(), _>(diesel::result::Error::RollbackTransaction)
            });
            assert_eq!(inner, Err(diesel::result::Error::RollbackTransaction));
            connection.transaction(|connection| insert(3, connection))
        })
        .unwrap();
    let outer = connection.transaction(|connection| {
        insert(4, connection)?;
        Err::<(), _>(diesel::result::Error::RollbackTransaction)
    });
    assert_eq!(outer, Err(diesel::result::Error::RollbackTransaction));
    let kept = connection.ask("SELECT string_agg(number::text, ' ' ORDER BY number) FROM numbers");
    assert_eq!(kept, "1 3");
}

/// The kinds of the events of each connection, by its id.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<(u64, &'static str)>>>);

impl Log {
    fn add(&self, id: u64, event: &'static str) {
        self.0.lock().push((id, event));
    }

    fn of(&self, id: u64) -> Vec<&'static str> {
        let events = self.0.lock();
        let own = events.iter().filter(|(other, _)| *other == id);
        own.map(|(_, event)| *event).collect()
    }
}

impl HandleEvent for Log {
    fn handle_acquire(&self, event: AcquireEvent) {
        self.add(event.connection_id(), "acquire");
    }

    fn handle_release(&self, event: ReleaseEvent) {
        self.add(event.connection_id(), "release");
    }

    fn handle_checkout(&self, event: CheckoutEvent) {
        self.add(event.connection_id(), "checkout");
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        self.add(event.connection_id(), "checkin");
    }
}

#[test]
fn each_connection_has_its_events_in_their_order() {
    let log = Log::default();
    let builder = manager(shared_emulator()).pool_builder();
    let pool = builder
        .max_size(1)
        .event_handler(Box::new(log.clone()))
        .build()
        .unwrap();
    drop(pool.get_timeout(PATIENCE).unwrap());
    let (id, _) = log.0.lock()[0];
    assert_eq!(log.of(id), ["acquire", "checkout", "checkin"]);

    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    AnsiTransactionManager::begin_transaction(&mut *connection).unwrap();
    drop(connection);
    let expected = [
        "acquire", "checkout", "checkin", "checkout", "checkin", "release",
    ];
    assert_eq!(log.of(id), expected);

    drop(pool.get_timeout(PATIENCE).unwrap());
    let (other, _) = *log.0.lock().last().unwrap();
    assert_ne!(other, id);
    assert_eq!(log.of(other), ["acquire", "checkout", "checkin"]);
}

/// Marks each connection, and counts the marked ones that it gets again.
#[derive(Clone, Debug, Default)]
struct Marks(Arc<Mutex<usize>>);

impl CustomizeConnection<PgConnection, diesel::r2d2::Error> for Marks {
    fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        diesel::sql_query("SET application_name = 'marked'")
            .execute(connection)
            .map_err(diesel::r2d2::Error::QueryError)?;
        Ok(())
    }

    fn on_release(&self, _: PgConnection) {
        *self.0.lock() += 1;
    }
}

#[test]
fn a_customizer_prepares_each_connection_and_gets_it_back() {
    let marks = Marks::default();
    let builder = manager(shared_emulator()).pool_builder();
    let pool = builder
        .max_size(2)
        .connection_customizer(Box::new(marks.clone()))
        .build()
        .unwrap();
    let mut connections = fill(&pool);
    for connection in &mut connections {
        let name = connection.ask("current_setting('application_name')");
        assert_eq!(name, "marked");
        AnsiTransactionManager::begin_transaction(&mut **connection).unwrap();
    }
    assert_eq!(*marks.0.lock(), 0);
    drop(connections);
    assert_eq!(*marks.0.lock(), 2);
}

#[test]
fn a_pool_closes_its_connections_with_the_last_that_is_held() {
    let emulator = emulator();
    let builder = manager(&emulator).pool_builder();
    let pool = builder.max_size(3).build().unwrap();
    let mut connections = fill(&pool);
    let mut held = connections.pop().unwrap();
    drop(connections);
    drop(pool);
    assert_eq!(held.ask("current_user"), "app");
    drop(held);
    emulator.wait_for_sessions(0, PATIENCE).unwrap();
}
