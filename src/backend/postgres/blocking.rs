//! The crate `postgres` in asynchronous code, where it panics.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use crate::error::{Error, ErrorKind};

/// What every panic of that kind says. There is no way to ask beforehand that does not also turn down
/// threads on which blocking is allowed.
const SIGN: &str = "within a runtime";

/// Runs `work`, which blocks by means of the crate `postgres`.
///
/// # Errors
///
/// If this thread drives asynchronous code.
pub(super) fn run<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    // Nothing has been touched when the runtime refuses to start.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        if !says(&*payload, SIGN) {
            panic::resume_unwind(payload);
        }
        Error::new(
            ErrorKind::Internal,
            "the crate postgres blocks, and panics in asynchronous code; open and use its connections \
             and build their pool inside spawn_blocking, or on a thread of their own",
        )
    })
}

fn says(payload: &(dyn Any + Send), words: &str) -> bool {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.is_some_and(|text| text.contains(words))
}
