//! How one kind of connection is opened, pinged and judged broken.

#[cfg(any(feature = "diesel", feature = "postgres"))]
mod classify;
#[cfg(feature = "diesel")]
mod diesel;
#[cfg(any(feature = "diesel", feature = "postgres"))]
mod password;
#[cfg(feature = "postgres")]
mod postgres;

use std::fmt;
use std::time::Duration;

#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresConnection, PostgresTls};
use crate::endpoint::ConnectionString;
use crate::error::Error;
use crate::roots::Roots;

/// A kind of connection that an [`RdsConnectionManager`](crate::RdsConnectionManager) can open.
///
/// With the feature `diesel`, diesel's `PgConnection`, which needs libpq 14 or later: older ones cut a
/// token off at 320 bytes, so a login with one is refused. With it, what libpq's environment variables
/// and files in the home folder say is overruled in a login with IAM or
/// [`Password`](crate::Password), but for PGSERVICE, PGTZ, PGDATESTYLE and PGGEQO, which it has no way
/// to overrule.
///
/// With the feature `postgres`, the crate `postgres`'s `Client`, over native-tls. It reads none of those
/// variables and files. It knows fewer of libpq's keywords, and what it does not know is refused by
/// name when the manager is built. `sslrootcert` is read then as well, and not again. An open connection
/// that does not answer within 5 s when a pool checks it is given up; a
/// [writer](crate::ManagerBuilder::writer) is checked with two round trips.
///
/// What comes out is a `PostgresConnection`, which is used as the `Client` in it and can be dropped
/// anywhere. Such a client blocks by means of a tokio runtime of its own, which panics in asynchronous
/// code. There, to open one is an [`Internal`](crate::ErrorKind::Internal) error that says so, also as the
/// first of a pool; one that is taken from a pool there is not tried, with a word in the log. To use it,
/// and what borrows from it, such as a transaction, is up to the application: inside `spawn_blocking`, or
/// on a thread of its own. What is dropped there, be it the last clone of a pool, is closed elsewhere.
///
/// It cannot be implemented outside this crate.
pub trait Backend: sealed::Backend {}

impl<C: sealed::Backend> Backend for C {}

#[expect(
    private_interfaces,
    reason = "nobody outside this crate can name the trait, so nobody misses its types"
)]
pub(crate) mod sealed {
    use super::*;

    pub trait Backend: Sized + 'static {
        /// What is opened, and held by a pool.
        type Connection: Send + 'static;

        /// What r2d2 is told.
        type Error: std::error::Error + From<Error> + 'static;

        /// Everything about a login but its password, made once.
        type Connector: Send + Sync + fmt::Debug + 'static;

        /// Checks what can be checked before anything is dialled.
        fn prepare(
            target: &ConnectionString,
            roots: Option<&Roots>,
        ) -> Result<Self::Connector, Error>;

        /// Opens a connection within about `timeout`.
        fn establish(
            connector: &Self::Connector,
            password: Option<&str>,
            timeout: Duration,
        ) -> Result<Self::Connection, Error>;

        /// Fails if the server does not answer.
        fn ping(connection: &mut Self::Connection) -> Result<(), Self::Error>;

        /// The same, which fails too if the server takes no writes.
        fn ping_writer(connection: &mut Self::Connection) -> Result<(), Self::Error>;

        /// Whether it is known, without a round trip, that the connection is of no more use.
        fn is_broken(connection: &mut Self::Connection) -> bool;
    }
}
