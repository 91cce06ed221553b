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
mod blocked;
mod classification;
mod cluster;
mod cold_cache;
#[cfg(feature = "config")]
mod config;
mod credentials;
mod credentials_content;
mod credentials_unavailable;
mod dial;
mod dropped_pool;
mod endurance;
mod environment;
mod events;
mod examples;
mod exit;
mod failover;
mod fork;
mod guide;
mod hostile;
mod inspection;
mod isolation;
mod lifetime;
mod log;
mod login;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "migrations")]
mod migrations;
mod names;
mod network;
mod own_manager;
mod packaging;
mod parameters;
mod password;
mod pool;
mod pool_contract;
#[cfg(feature = "postgres")]
mod postgres_client;
mod proxy;
mod refusal;
mod rejected_connections;
mod rotation;
mod secrets;
mod silent_machine;
mod storm;
mod support;
mod timeline;
mod tls;
