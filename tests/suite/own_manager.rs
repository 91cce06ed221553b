//! Pools of a manager of the application's own that contains one of this crate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::Error;
use diesel_rds_iam::{ErrorKind, HasRdsManager, PgConnectionManager, PoolBuilder, retire_all};
use parking_lot::Mutex;
use r2d2::ManageConnection;
use rds_iam_emulator::{Fault, Stage};

use crate::support::database::{Ask, backend_pid, emulator, manager, shared_emulator};
use crate::support::{PATIENCE, SECOND};

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
    // Never idle for longer than a moment.
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

/// FAULTS.md row 69: the connections are opened on threads of the pool's own, and r2d2's workers only look for them.
#[test]
fn the_pool_of_an_own_manager_opens_connections_beside_its_workers() {
    #[derive(Clone, Debug, Default)]
    struct Reported(Arc<Mutex<Vec<String>>>);

    impl r2d2::HandleError<Error> for Reported {
        fn handle_error(&self, error: Error) {
            self.0.lock().push(error.to_string());
        }
    }

    let emulator = emulator();
    emulator.fault(Fault::Delay(Stage::Login, Duration::from_millis(1500)));
    let reported = Reported::default();
    let rds = manager(&emulator);
    let pool = PoolBuilder::new(Own::Rds(rds.clone()))
        .max_size(1)
        .connection_timeout(PATIENCE)
        .error_handler(Box::new(reported.clone()))
        .build_unchecked()
        .unwrap();
    backend_pid(&mut pool.get().unwrap().0);
    assert_eq!(emulator.login_count(), 1);
    assert_eq!(*reported.0.lock(), [""; 0]);
    assert_eq!(rds.stats().connects_failed, 0);
}

#[test]
fn an_own_manager_of_another_database_is_an_error() {
    let error = PoolBuilder::new(Own::Other).build().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("r2d2::Pool::builder"), "{error}");
}
