//! The command's tests, which run the real program as a shell does. They are one binary, so that it
//! is linked once.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by a panic, and may read the machine's clocks"
)]
#![cfg(unix)]

mod doctor;
mod emulate;
mod exec;
mod migrate;
mod refresh;
mod shell;
mod support;
mod token;
