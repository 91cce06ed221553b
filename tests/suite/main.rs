//! The library's tests, through its public API. One program, so that it is linked once.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on panics, and measures time as anyone does"
)]

mod architecture;
mod async_code;
mod cold_cache;
#[cfg(feature = "config")]
mod config;
mod credentials;
mod environment;
mod examples;
mod exit;
mod guide;
mod login;
mod names;
mod packaging;
mod parameters;
mod password;
mod pool;
mod refusal;
mod rotation;
mod secrets;
mod support;
mod timeline;
mod tls;
