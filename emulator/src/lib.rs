//! RDS's IAM login on a laptop: TLS, token verification and RDS's own error texts in front of a real
//! PostgreSQL, for testing clients that log in with IAM tokens instead of passwords.
//!
//! ```
//! use std::time::Duration;
//! use rds_iam_emulator::{Emulator, Fault, LoginResult, Reason};
//!
//! let emulator = Emulator::builder().token_lifetime(Duration::from_secs(15)).start()?;
//! emulator.create_iam_user("app")?;
//!
//! // A client needs an endpoint to sign for, keys to sign with, and a URL to connect to.
//! let (host, port) = (emulator.host(), emulator.signed_port());
//! let (access_key, secret_key) = (emulator.access_key(), emulator.secret_key());
//! let url = emulator.url("app");
//! assert!(url.contains("sslmode=verify-full"));
//!
//! // The emulator records each login with the reason of a refusal.
//! emulator.fault(Fault::RefuseNext(5));
//! for login in emulator.logins() {
//!     match login.result() {
//!         LoginResult::Refused(Reason::Expired) => println!("too old: {:?}", login.token_age()),
//!         result => println!("{}: {result:?}", login.user()),
//!     }
//! }
//! # Ok::<(), rds_iam_emulator::Error>(())
//! ```
//!
//! PostgreSQL must be installed (`initdb` and `postgres`); nothing else is needed. When an [`Emulator`] is dropped,
//! its files and processes are removed, also after a panic or SIGKILL.
//!
//! * **Verification of tokens**: [`Reason`] lists the checks, and [`Emulator::allow`] sets the policy.
//! * **Faults on demand**: [`Fault`], and the methods of [`Emulator`] that drop sessions, stop PostgreSQL or fail
//!   over.
//! * **Sources of credentials**, for clients that fetch them: [`AwsEndpoints`].
//! * **RDS Proxy and Aurora DSQL**: [`Engine`].
//! * **An existing PostgreSQL** instead of one of its own: [`Builder::upstream`].

#![forbid(unsafe_code)]

mod authenticate;
mod aws;
mod builder;
mod certificates;
mod clock;
mod connection;
mod control;
mod credentials;
mod emulator;
mod engine;
mod error;
mod faults;
mod language;
mod listener;
mod login;
mod members;
#[doc(hidden)]
pub mod packet;
mod policy;
mod postgres;
mod reason;
mod refusal;
mod rejection;
mod server;
mod sessions;
mod sigv4;
mod start;
mod stream;
mod threads;
mod token;
mod upstream;
mod verify;
mod wire;

pub use aws::{AwsBehaviour, AwsCall, AwsEndpoints, AwsService};
pub use builder::Builder;
pub use control::Node;
pub use credentials::Credentials;
pub use emulator::Emulator;
pub use engine::Engine;
pub use error::{Error, ErrorKind};
pub use faults::{ADVISED_LOGINS_PER_SECOND, Fault, Stage};
pub use language::Language;
pub use login::{Login, LoginResult};
pub use members::AuroraCluster;
pub use reason::Reason;
pub use rejection::Rejection;

/// Keeps the README's example working.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
