//! Managers of an application's own for [`PoolBuilder`](crate::PoolBuilder).

use crate::backend::Backend;
use crate::error::Error;
use crate::manager::RdsConnectionManager;

/// An [`r2d2::ManageConnection`] that contains an [`RdsConnectionManager`], so that
/// [`PoolBuilder::new`](crate::PoolBuilder::new) can build its pool.
///
/// For a manager of the application's own: an enum over several databases, or one that prepares or wraps each
/// connection. Its pool has all that the pool of an `RdsConnectionManager` has: lifetimes for busy connections,
/// [`retire_all`](crate::retire_all), and the probe of an unreachable server.
///
/// `connect`, `is_valid` and `has_broken` must call those of the contained manager on the same thread, and must not
/// use another pool around that call. A panic in the application's part of `connect` permanently loses a slot of the
/// pool. An error of that part is reported by the pool's error handler and by `get`, and not by `build`.
///
/// ```no_run
/// use diesel::PgConnection;
/// use diesel::connection::SimpleConnection;
/// use diesel::r2d2::Error;
/// use diesel_rds_iam::{HasRdsManager, PgConnectionManager, PoolBuilder};
/// use r2d2::ManageConnection;
///
/// struct Tenant {
///     manager: PgConnectionManager,
///     role: &'static str,
/// }
///
/// impl ManageConnection for Tenant {
///     type Connection = PgConnection;
///     type Error = Error;
///
///     fn connect(&self) -> Result<PgConnection, Error> {
///         let mut connection = self.manager.connect()?;
///         let set = connection.batch_execute(&format!("SET ROLE {}", self.role));
///         set.map_err(Error::QueryError)?;
///         Ok(connection)
///     }
///
///     fn is_valid(&self, connection: &mut PgConnection) -> Result<(), Error> {
///         self.manager.is_valid(connection)
///     }
///
///     fn has_broken(&self, connection: &mut PgConnection) -> bool {
///         self.manager.has_broken(connection)
///     }
/// }
///
/// impl HasRdsManager for Tenant {
///     type Backend = PgConnection;
///
///     fn rds_manager(&mut self) -> Option<&mut PgConnectionManager> {
///         Some(&mut self.manager)
///     }
/// }
///
/// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
/// let manager = PgConnectionManager::new(url)?;
/// let pool = PoolBuilder::new(Tenant { manager, role: "reader" }).max_size(5).build()?;
/// # Ok::<(), diesel_rds_iam::Error>(())
/// ```
pub trait HasRdsManager: r2d2::ManageConnection<Error: From<Error>> {
    /// The kind of connection that the contained manager opens.
    type Backend: Backend;

    /// Returns the contained manager, or `None` if there is none: a variant of an enum for another database.
    ///
    /// [`PoolBuilder`](crate::PoolBuilder) replaces it by one that belongs to the pool.
    fn rds_manager(&mut self) -> Option<&mut RdsConnectionManager<Self::Backend>>;
}

impl<C: Backend> HasRdsManager for RdsConnectionManager<C> {
    type Backend = C;

    fn rds_manager(&mut self) -> Option<&mut RdsConnectionManager<C>> {
        Some(self)
    }
}
