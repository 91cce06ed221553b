//! The threads on which a pool opens its connections.
//!
//! r2d2 would start them itself, with a panic if the system grants no thread, and would keep them for up
//! to 30 s after the pool is gone (r2d2 issue 99).

use std::panic;
use std::sync::Arc;

use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use crate::error::{Error, ErrorKind};

/// As many as r2d2 starts.
pub(super) const COUNT: usize = 3;

const NAME_PATTERN: &str = "rds-iam-pool-{}";

/// Starts the workers of one pool. They end with it.
///
/// # Errors
///
/// [`ErrorKind::Internal`] if the system grants no more threads.
pub(super) fn start() -> Result<Arc<ScheduledThreadPool>, Error> {
    // The crate scheduled-thread-pool panics if a thread cannot be started.
    let build = || {
        ScheduledThreadPool::builder()
            .num_threads(COUNT)
            .thread_name_pattern(NAME_PATTERN)
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build()
    };
    let workers = panic::catch_unwind(build).map_err(|_| {
        Error::new(
            ErrorKind::Internal,
            "cannot start the threads of the pool; raise the process's limit of threads, or share \
             threads among pools with thread_pool",
        )
    })?;
    Ok(Arc::new(workers))
}
