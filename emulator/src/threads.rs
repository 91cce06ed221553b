//! The emulator's threads, for callers outside and inside async code.

use std::future::Future;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};

use crate::error::{Error, ErrorKind};

/// How long the shutdown waits for running tasks.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// Few, since PostgreSQL and the clients need the processors.
const WORKERS: usize = 2;

/// A runtime that can be waited for and dropped in any context.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn start() -> Result<Threads, Error> {
        Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("rds-iam-emulator")
            .enable_all()
            .build()
            .map(|runtime| Threads(Some(runtime)))
            .map_err(|cause| Error::io("the emulator's threads could not be started", cause))
    }

    /// Lets the caller create sockets and tasks of this runtime.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }

    /// Runs `future` to completion. `Runtime::block_on` would panic in async code.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let gone = || Error::new(ErrorKind::Io, "the emulator's threads have ended");
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.as_ref().ok_or_else(gone)?.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| gone())?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // On a separate thread, since waiting for a runtime's shutdown panics in async code.
            let ending =
                thread::Builder::new().spawn(move || runtime.shutdown_timeout(SHUTDOWN_LIMIT));
            // If no thread can be started, the runtime was dropped with the closure, without waiting.
            if let Ok(thread) = ending {
                let _ = thread.join();
            }
        }
    }
}
