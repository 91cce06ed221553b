//! The command's tests: the real program, as a shell would run it. One binary, so that it is linked
//! once.

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
#![cfg(unix)]

mod doctor;
mod emulate;
mod exec;
mod migrate;
mod shell;
mod support;
mod token;
