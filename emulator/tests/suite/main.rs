//! The emulator's tests, by clients that log in through it.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panicking, and measures time itself"
)]

mod aws;
mod client;
mod cluster;
mod database;
mod descriptors;
mod engine;
mod fault;
mod lifecycle;
mod login;
mod postgresql;
mod protocol;
mod raw;
mod refusal;
mod rejection;
mod startup;
mod tool;
mod upstream;
