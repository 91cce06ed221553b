//! The threads on which a pool opens its connections.
//!
//! r2d2 would start them itself, with a panic if the system grants no thread, and would keep them for up
//! to 30 s after the pool is gone (r2d2 issue 99).

use std::io;
use std::panic;
use std::sync::Arc;
use std::thread;

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
    let no_threads = |cause| {
        Error::with_cause(
            ErrorKind::Internal,
            "cannot start the threads of the pool; raise the process's limit of threads, or share \
             threads among pools with thread_pool",
            cause,
        )
    };
    check_threads().map_err(no_threads)?;
    // Another thread may have taken what there was.
    let build = || {
        ScheduledThreadPool::builder()
            .num_threads(COUNT)
            .thread_name_pattern(NAME_PATTERN)
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build()
    };
    let workers = panic::catch_unwind(build)
        .map_err(|_| no_threads(io::Error::other("no thread was granted")))?;
    Ok(Arc::new(workers))
}

/// Checks that the system grants as many threads. If it does not, the crate scheduled-thread-pool panics, which ends a
/// process that is built with `panic = "abort"`.
fn check_threads() -> io::Result<()> {
    let mut threads = Vec::with_capacity(COUNT);
    let mut started = Ok(());
    for _ in 0..COUNT {
        match thread::Builder::new().spawn(thread::park) {
            Ok(thread) => threads.push(thread),
            Err(error) => started = Err(error),
        }
    }
    for thread in threads {
        thread.thread().unpark();
        // The thread runs no code that panics.
        let _ = thread.join();
    }
    started
}
