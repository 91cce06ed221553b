//! How one kind of connection is opened and tested, and how its errors are classified.

#[cfg(any(feature = "diesel", feature = "postgres"))]
mod classify;
#[cfg(feature = "diesel")]
mod diesel;
#[cfg(any(feature = "diesel", feature = "postgres"))]
mod password;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(all(test, feature = "diesel", feature = "postgres"))]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

#[cfg(feature = "postgres")]
pub(crate) use self::postgres::Tuning;
#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresConnection, PostgresTls};
use crate::endpoint::ConnectionString;
use crate::error::Error;
use crate::roots::Roots;
use crate::token::Token;

/// A kind of connection that an [`RdsConnectionManager`](crate::RdsConnectionManager) can open.
///
/// With the feature `diesel`: diesel's `PgConnection`, which needs libpq 14 or later. Older versions truncate a
/// token at 320 bytes, so a login with one fails. In a login with IAM or [`Password`](crate::Password), the
/// configuration takes precedence over libpq's environment variables and its files in the home folder. libpq
/// offers no way to do so for PGSERVICE, PGTZ, PGDATESTYLE and PGGEQO.
///
/// With the feature `postgres`: the crate `postgres`'s `Client`, over native-tls. It reads none of those
/// variables and files. It supports fewer of libpq's keywords; an unsupported one is rejected by name when the
/// manager is built. `sslrootcert` is read at that time only. The checkout test of an open connection fails
/// after 5 s without a response, and takes two round trips for a [writer](crate::ManagerBuilder::writer).
///
/// The pool holds a `PostgresConnection`, which dereferences to the `Client` and can be dropped anywhere. The
/// client blocks on a tokio runtime of its own, which panics in asynchronous code. Opening one there is an
/// [`Internal`](crate::ErrorKind::Internal) error that says so. A connection that is checked out there is not
/// tested, and a line is logged. The application must use it, and what borrows from it, such as a transaction,
/// inside `spawn_blocking` or on another thread. A connection or pool that is dropped there is closed on
/// another thread.
///
/// This trait cannot be implemented outside this crate.
pub trait Backend: sealed::Backend {}

impl<C: sealed::Backend> Backend for C {}

#[expect(
    private_interfaces,
    reason = "the trait cannot be named outside this crate, so neither need its types"
)]
pub(crate) mod sealed {
    use super::*;

    pub trait Backend: Sized + 'static {
        /// The connection that is opened, and held by a pool.
        type Connection: Send + 'static;

        /// The error type for r2d2.
        type Error: std::error::Error + From<Error> + 'static;

        /// All settings of a login but the password, computed once.
        type Connector: Send + Sync + fmt::Debug + 'static;

        /// The application's changes to each login, which only the crate `postgres` supports.
        type Tuning: Clone + Default + Send + Sync + 'static;

        /// Whether the driver itself resolves names and chooses among hosts, by libpq's rules, in a login
        /// that this crate does not control.
        const HAS_OWN_RULES: bool;

        /// Checks what can be checked before dialling. `target` names one server, unless the driver
        /// chooses.
        fn prepare(
            target: &ConnectionString,
            roots: Option<&Roots>,
            tuning: &Self::Tuning,
        ) -> Result<Self::Connector, Error>;

        /// Opens a connection within about `timeout`, as the password's user if it names one. Without an
        /// `address` the driver finds the server.
        fn establish(
            connector: &Self::Connector,
            password: Option<&Token>,
            address: Option<SocketAddr>,
            timeout: Duration,
        ) -> Result<Self::Connection, Error>;

        /// Fails if the server does not respond.
        fn ping(connection: &mut Self::Connection) -> Result<(), Self::Error>;

        /// Fails as well if the server does not accept writes.
        fn ping_writer(connection: &mut Self::Connection) -> Result<(), Self::Error>;

        /// Runs a query with one column of text, and returns its values.
        fn lines(
            connection: &mut Self::Connection,
            query: &str,
        ) -> Result<Vec<String>, Self::Error>;

        /// Whether the connection is known to be unusable, without a round trip.
        fn is_broken(connection: &mut Self::Connection) -> bool;
    }
}
