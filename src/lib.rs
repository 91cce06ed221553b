// In the README these links lead to files, here to pages. rustdoc uses the first definition of a link.
#![cfg_attr(
    feature = "diesel",
    doc = "[setup]: guide::setup\n[defaults]: guide::defaults\n[failures]: guide::failures"
)]
#![cfg_attr(
    feature = "diesel",
    doc = "[rds_proxy]: guide::rds_proxy\n[failover]: guide::failover\n[aurora_dsql]: guide::aurora_dsql"
)]
#![cfg_attr(
    feature = "diesel",
    doc = "[aurora_serverless]: guide::aurora_serverless\n[deployment]: guide::deployment"
)]
#![cfg_attr(
    feature = "diesel",
    doc = "[testing]: guide::testing\n[coming_from]: guide::coming_from\n[security]: guide::security"
)]
#![cfg_attr(
    feature = "diesel",
    doc = "[observability]: guide::observability\n[migrations]: guide::migrations\n[own_manager]: guide::own_manager"
)]
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod auth;
mod aws_clock;
mod backend;
mod cache;
mod clock;
mod cluster;
#[cfg(feature = "config")]
pub mod config;
mod credentials;
mod dial;
#[cfg_attr(
    not(any(feature = "diesel", feature = "postgres")),
    allow(dead_code, reason = "some of it is for backends only")
)]
mod endpoint;
mod error;
mod event;
// Text only: part of the documentation and its tests, and not of the library.
#[cfg(all(any(doc, doctest), feature = "diesel"))]
pub mod guide;
mod http_client;
mod lifetime;
mod manager;
#[cfg(feature = "migrations")]
pub mod migrate;
mod pool;
#[cfg(feature = "diesel")]
mod private_file;
mod roots;
mod runtime;
mod sdk_trace;
mod sign;
mod sync;
mod token;

pub use auth::{IamAuth, IamAuthBuilder, Password, PasswordBuilder, RotatingPassword, TokenSource};
pub use backend::Backend;
#[cfg(feature = "postgres")]
pub use backend::{PostgresConnection, PostgresTls};
pub use clock::{Clock, ManualClock, Moment};
pub use cluster::ClusterMember;
pub use credentials::{AssumeRole, BoxError, CredentialsInfo};
pub use endpoint::{Endpoint, Engine, RegionSource, SslMode};
pub use error::{Error, ErrorKind};
pub use event::{
    ConnectFailed, ConnectionOpened, ConnectionRetired, HandleAuthEvent, LoginRefused,
    LoginRetried, RefreshFailed, RetireReason, StaleServed, Stats, TokenSigned,
};
pub use manager::{ManagerBuilder, RdsConnectionManager};
pub use pool::{HasRdsManager, PoolBuilder, retire_all};
pub use roots::Roots;
pub use token::Token;

// The types in the signatures above, so that an application gets the matching versions.
#[cfg(feature = "diesel")]
pub use diesel;
#[cfg(feature = "postgres")]
pub use postgres;
pub use {aws_credential_types, r2d2, scheduled_thread_pool};

/// Opens diesel's `PgConnection`s.
#[cfg(feature = "diesel")]
pub type PgConnectionManager = RdsConnectionManager<diesel::PgConnection>;

/// A pool of diesel's `PgConnection`s.
#[cfg(feature = "diesel")]
pub type PgPool = r2d2::Pool<PgConnectionManager>;

/// Opens the crate `postgres`'s clients, each as a [`PostgresConnection`]. [`Backend`] lists the differences from
/// diesel's connections.
///
/// ```no_run
/// use diesel_rds_iam::PostgresConnectionManager;
///
/// let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
/// let pool = PostgresConnectionManager::new(url)?.into_pool()?;
/// let mut client = pool.get()?;
/// let row = client.query_one("SELECT current_user::text", &[])?;
/// println!("logged in as {}", row.get::<_, String>(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "postgres")]
pub type PostgresConnectionManager = RdsConnectionManager<postgres::Client>;

/// A pool of the crate `postgres`'s clients.
#[cfg(feature = "postgres")]
pub type PostgresPool = r2d2::Pool<PostgresConnectionManager>;
