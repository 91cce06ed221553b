//! The library's `cache` and `manager/handoff`, compiled again with loom's locks instead of the real ones, so that
//! `cargo test --workspace` runs the models beside it.
//!
//! A package of its own. Otherwise the cfg would have to be passed to the compiler by hand, which would rebuild every
//! dependency of the library.

#![cfg(test)]

use self::library::{clock, sync};

#[path = "../../src"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the models use part of what the library gives to its users"
)]
mod library {
    pub(crate) mod cache;
    pub(crate) mod clock;
    #[path = "manager/handoff.rs"]
    pub(crate) mod handoff;
    pub(crate) mod sync;
}
