//! Detects that the crate `postgres` panicked because it was used in asynchronous code.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

use crate::error::{Error, ErrorKind};

/// The text of every such panic. Any check beforehand would also reject threads on which blocking is allowed.
const SIGN: &str = "within a runtime";

/// Runs `work`, which blocks through the crate `postgres`.
///
/// # Errors
///
/// If this thread drives asynchronous code.
pub(super) fn run<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    // The runtime refuses to start before anything has been changed.
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
