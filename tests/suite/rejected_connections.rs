//! Connections that the server rejects before it reads a token.

use diesel::PgConnection;
use diesel_rds_iam::{Backend, ErrorKind};
use rds_iam_emulator::{Fault, Rejection};

use crate::support::database::{builder_of, emulator, manager};

/// FAULTS.md row 76.
#[test]
fn a_rejected_connection_is_no_refused_login() {
    fn assert_is<C: Backend>() {
        let emulator = emulator();
        let manager = builder_of::<C>(&emulator).build().unwrap();
        for (rejection, kind) in [
            (Rejection::RateExceeded, ErrorKind::Throttled),
            (Rejection::TooManyConnections, ErrorKind::ServerUnavailable),
            (Rejection::Resuming, ErrorKind::ServerUnavailable),
            (Rejection::CannotFork, ErrorKind::ServerUnavailable),
        ] {
            emulator.fault(Fault::RejectNext(rejection, 1));
            let error = manager.try_connect().err().unwrap();
            assert_eq!(error.kind(), kind, "{rejection:?}: {error}");
            drop(manager.try_connect().unwrap());
        }
        let stats = manager.stats();
        assert_eq!((stats.tokens_signed, stats.logins_refused), (1, 0));
    }
    assert_is::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 76.
#[test]
fn a_pool_waits_for_a_cluster_that_resumes() {
    let emulator = emulator();
    emulator.fault(Fault::RejectNext(Rejection::Resuming, 2));
    let manager = manager(&emulator);
    let pool = manager
        .pool_builder()
        .max_size(1)
        .build_unchecked()
        .unwrap();
    drop(pool.get().unwrap());
    let stats = manager.stats();
    assert_eq!((stats.tokens_signed, stats.logins_refused), (1, 0));
    assert_eq!(emulator.login_count(), 1);
}
