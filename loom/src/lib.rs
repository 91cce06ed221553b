//! The library's `cache` and `manager/handoff`, built once more with loom's locks in place of the
//! real ones, so that `cargo test --workspace` runs the models beside it.
//!
//! A package of its own, because the cfg that makes the difference would otherwise have to be given
//! to the compiler by hand, and have every dependency of the library built again for it.

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
