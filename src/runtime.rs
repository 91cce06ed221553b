//! The thread on which credentials are fetched and tokens signed.
//!
//! AWS's SDK is asynchronous and the applications that this crate is for are not, so there is one
//! small tokio runtime on one thread, shared by the whole process. Nobody ever enters it from
//! outside: `block_on`, and dropping a `Runtime`, panic inside asynchronous code, and a pool may
//! well be built, used and dropped there.

use std::future::Future;
use std::io;
use std::process;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};

const THREAD_NAME: &str = "rds-iam-signer";

/// Blocking credential sources and password closures run on threads of their own, so that a slow
/// one holds up nobody else's token; more than this many at a time wait.
const BLOCKING_THREADS: usize = 8;

/// How long such a thread waits for more work.
const BLOCKING_THREAD_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// Starting a thread takes far less than a millisecond; this only bounds the wait.
const START_LIMIT: Duration = Duration::from_secs(5);

static SHARED: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());

/// A handle to the thread, which ends when the last handle is dropped.
pub(crate) struct Runtime {
    handle: Handle,
    /// The thread exists in the process that started it only: a forked child has to start its own.
    process: u32,
    /// Dropping this is what ends the thread.
    _running: oneshot::Sender<()>,
}

impl Runtime {
    /// The process's own, started if nobody has it at the moment.
    pub(crate) fn shared() -> Result<Arc<Runtime>, Error> {
        let mut shared = SHARED.lock();
        if let Some(runtime) = shared.upgrade()
            && runtime.belongs_to_this_process()
        {
            return Ok(runtime);
        }
        let runtime = Arc::new(Runtime::start()?);
        *shared = Arc::downgrade(&runtime);
        Ok(runtime)
    }

    /// False in a child that was forked after the thread was started.
    pub(crate) fn belongs_to_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// Runs `task` on the thread. It is dropped where it stands when the last handle is.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    fn start() -> Result<Runtime, Error> {
        let (running, ended) = oneshot::channel::<()>();
        let (started, start) = mpsc::sync_channel(1);
        // The runtime is made on its own thread, so that it is never dropped on another.
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || run(&started, ended));
        let outcome = match thread {
            Ok(_detached) => start
                .recv_timeout(START_LIMIT)
                .unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(error) => Err(error),
        };
        let handle = outcome.map_err(|error| {
            let message = "cannot start the thread that signs tokens; raise the process's limit \
                           of threads or file descriptors";
            Error::with_cause(ErrorKind::Internal, message, error)
        })?;
        Ok(Runtime {
            handle,
            process: process::id(),
            _running: running,
        })
    }
}

fn run(started: &mpsc::SyncSender<io::Result<Handle>>, ended: oneshot::Receiver<()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE)
        .thread_name(THREAD_NAME)
        .build();
    match runtime {
        Ok(runtime) => {
            // Whoever started us may have given up; then `ended` is closed as well.
            let _ = started.send(Ok(runtime.handle().clone()));
            // An error says that the sender is gone, and that is the signal to end.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}

/// Awaits `future` for at most `limit`; `None` if it took longer. For use on the thread only.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Runs blocking code of the user's beside the thread; `None` if it panicked.
pub(crate) async fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Starts `task` beside the one that calls this. For use on the thread only.
pub(crate) fn spawn_here(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}
