//! The threads on which a pool opens its connections.
//!
//! r2d2 would start them itself, with a panic if the system grants no thread, and would keep them for up
//! to 30 s after the pool is gone (r2d2 issue 99).

use std::io;
use std::panic;
use std::sync::{Arc, mpsc};
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
    // The crate scheduled-thread-pool panics if a thread cannot be started, and the panic's message
    // would appear on standard error. So it is tried out before.
    try_threads(COUNT).map_err(no_threads)?;
    let build = || {
        ScheduledThreadPool::builder()
            .num_threads(COUNT)
            .thread_name_pattern(NAME_PATTERN)
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build()
    };
    // Another thread of the process may have taken the last one meanwhile.
    let workers =
        panic::catch_unwind(build).map_err(|_| no_threads(io::ErrorKind::Other.into()))?;
    Ok(Arc::new(workers))
}

/// Has `count` threads exist at the same time, and ends them.
fn try_threads(count: usize) -> io::Result<()> {
    let mut threads = Vec::with_capacity(count);
    let mut outcome = Ok(());
    for _ in 0..count {
        let (release, released) = mpsc::channel::<()>();
        let thread = thread::Builder::new().spawn(move || {
            // An error means that the sender was dropped, and that is the signal to end.
            let _ = released.recv();
        });
        match thread {
            Ok(thread) => threads.push((release, thread)),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    for (release, thread) in threads {
        drop(release);
        // It cannot have panicked.
        let _ = thread.join();
    }
    outcome
}

fn no_threads(cause: io::Error) -> Error {
    Error::with_cause(
        ErrorKind::Internal,
        "cannot start the threads of the pool; raise the process's limit of threads, or share \
         threads among pools with thread_pool",
        cause,
    )
}
