#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod auth;
mod backend;
mod cache;
mod clock;
#[cfg(feature = "config")]
pub mod config;
mod credentials;
#[cfg_attr(
    not(feature = "diesel"),
    allow(dead_code, reason = "some of it is for backends only")
)]
mod endpoint;
mod error;
mod event;
mod hush;
mod lifetime;
mod manager;
#[cfg(feature = "migrations")]
pub mod migrate;
mod pool;
#[cfg(feature = "diesel")]
mod private_file;
mod roots;
mod runtime;
mod sign;
mod token;

pub use auth::{IamAuth, IamAuthBuilder, Password, PasswordBuilder, RotatingPassword, TokenSource};
pub use backend::Backend;
pub use clock::{Clock, ManualClock, Moment};
pub use credentials::{AssumeRole, BoxError};
pub use endpoint::{Endpoint, Engine, SslMode};
pub use error::{Error, ErrorKind};
pub use event::{
    ConnectFailed, ConnectionOpened, ConnectionRetired, HandleAuthEvent, LoginRefused,
    LoginRetried, RefreshFailed, RetireReason, StaleServed, Stats, TokenSigned,
};
pub use manager::{ManagerBuilder, RdsConnectionManager};
pub use pool::{PoolBuilder, retire_all};
pub use token::Token;

// What the signatures above name, so that an application need not find the versions that match.
#[cfg(feature = "diesel")]
pub use diesel;
pub use {aws_credential_types, r2d2, scheduled_thread_pool};

/// Opens diesel's `PgConnection`s.
#[cfg(feature = "diesel")]
pub type PgConnectionManager = RdsConnectionManager<diesel::PgConnection>;

/// A pool of diesel's `PgConnection`s.
#[cfg(feature = "diesel")]
pub type PgPool = r2d2::Pool<PgConnectionManager>;
