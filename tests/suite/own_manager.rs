//! Pools of a manager of the application's own that contains one of this crate.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::Error;
use diesel_rds_iam::{ErrorKind, HasRdsManager, PgConnectionManager, PoolBuilder, retire_all};
use r2d2::{HandleEvent, ManageConnection};

use crate::support::database::{Ask, auth_builder, backend_pid, manager, shared_emulator};
use crate::support::{PATIENCE, SECOND, accept};

/// An enum over several databases, which also prepares its connections.
enum Own {
    Rds(PgConnectionManager),
    Other,
}

struct OwnConnection(PgConnection);

impl Own {
    fn rds(&self) -> &PgConnectionManager {
        match self {
            Own::Rds(manager) => manager,
            Own::Other => panic!("the other database"),
        }
    }
}

impl ManageConnection for Own {
    type Connection = OwnConnection;
    type Error = Error;

    fn connect(&self) -> Result<OwnConnection, Error> {
        let mut connection = self.rds().connect()?;
        let set = connection.batch_execute("SET statement_timeout = '5s'");
        set.map_err(Error::QueryError)?;
        Ok(OwnConnection(connection))
    }

    fn is_valid(&self, connection: &mut OwnConnection) -> Result<(), Error> {
        self.rds().is_valid(&mut connection.0)
    }

    fn has_broken(&self, connection: &mut OwnConnection) -> bool {
        self.rds().has_broken(&mut connection.0)
    }
}

impl HasRdsManager for Own {
    type Backend = PgConnection;

    fn rds_manager(&mut self) -> Option<&mut PgConnectionManager> {
        match self {
            Own::Rds(manager) => Some(manager),
            Own::Other => None,
        }
    }
}

fn builder() -> PoolBuilder<Own> {
    PoolBuilder::new(Own::Rds(manager(shared_emulator())))
        .max_size(1)
        .connection_timeout(PATIENCE)
}

/// FAULTS.md row 69.
#[test]
fn a_pool_of_an_own_manager_keeps_lifetimes_of_a_busy_connection() {
    let pool = builder().max_lifetime(Some(SECOND)).build().unwrap();
    assert_eq!(pool.state().connections, 1);
    assert_eq!(
        pool.get()
            .unwrap()
            .0
            .ask("current_setting('statement_timeout')"),
        "5s"
    );
    let first = backend_pid(&mut pool.get().unwrap().0);
    let begun = Instant::now();
    // The connections are never idle for longer than a moment.
    while backend_pid(&mut pool.get().unwrap().0) == first {
        assert!(begun.elapsed() < PATIENCE / 2, "it is never replaced");
    }
}

/// FAULTS.md row 69.
#[test]
fn retire_all_replaces_the_connections_of_an_own_manager() {
    let pool = builder().build().unwrap();
    let first = backend_pid(&mut pool.get().unwrap().0);
    assert_eq!(backend_pid(&mut pool.get().unwrap().0), first);
    retire_all(&pool).unwrap();
    assert_ne!(backend_pid(&mut pool.get().unwrap().0), first);
}

/// FAULTS.md row 69: r2d2's workers poll for a connection, and do not wait for the server. A worker that waited would
/// keep the pool alive until the connect ends.
#[test]
fn a_dropped_pool_of_an_own_manager_ends_although_its_server_is_silent() {
    #[derive(Debug)]
    struct Handler {
        _held: Arc<()>,
    }

    impl HandleEvent for Handler {}

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let host = shared_emulator().host();
    let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=app");
    let rds = PgConnectionManager::builder(&url)
        .auth(auth_builder(shared_emulator()).build().unwrap())
        .connect_timeout(3 * PATIENCE)
        .build()
        .unwrap();
    let held = Arc::new(());
    let weak = Arc::downgrade(&held);
    let pool = PoolBuilder::new(Own::Rds(rds))
        .event_handler(Box::new(Handler { _held: held }))
        .build_unchecked()
        .unwrap();
    // A worker is inside.
    let client = accept(&silent);
    drop(pool);
    let dropped = Instant::now();
    while weak.strong_count() > 0 {
        assert!(dropped.elapsed() < PATIENCE, "the pool still exists");
        thread::yield_now();
    }
    drop(client);
}

#[test]
fn an_own_manager_of_another_database_is_an_error() {
    let error = PoolBuilder::new(Own::Other).build().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("r2d2::Pool::builder"), "{error}");
}
