//! RDS's IAM login on a laptop: TLS, token verification and RDS's own error texts in front of a real
//! PostgreSQL, for testing clients that log in with IAM tokens instead of passwords.
//!
//! ```no_run
//! use rds_iam_emulator::{Emulator, Fault};
//!
//! let emulator = Emulator::builder().start()?;
//! emulator.create_iam_user("app")?;
//! println!("connect to {} with a token for {}", emulator.url("app"), emulator.host());
//!
//! emulator.fault(Fault::RefuseNext(5));
//! for login in emulator.watch() {
//!     println!("{login}");
//! }
//! # Ok::<(), rds_iam_emulator::Error>(())
//! ```
//!
//! PostgreSQL must be installed (`initdb` and `postgres`); nothing else is needed, and nothing is
//! left behind: neither after a panic nor after SIGKILL.

#![forbid(unsafe_code)]

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
mod gate;
mod language;
mod login;
#[doc(hidden)]
pub mod packet;
mod policy;
mod postgres;
mod reason;
mod server;
mod sessions;
mod sigv4;
mod start;
mod token;
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
pub use login::{Login, Verdict};
pub use reason::Reason;
