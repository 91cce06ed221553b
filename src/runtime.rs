//! The thread on which credentials are fetched and tokens signed.
//!
//! The AWS SDK is asynchronous, and this crate's applications are not. So there is one small tokio runtime on one
//! thread, shared by the whole process. No other thread enters it: `block_on` and the drop of a `Runtime` panic
//! inside asynchronous code, where a pool may be built, used and dropped.

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

/// The name of the threads on which blocking code of the user's runs.
const SOURCE_THREAD_NAME: &str = "rds-iam-source";

/// The AWS SDK looks up host names on tokio's blocking threads. They end this long after their last work.
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
    /// The process's own, started if there is none.
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
        .thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE)
        .thread_name(THREAD_NAME)
        .build();
    match runtime {
        Ok(runtime) => {
            // The starting thread may have timed out; then `ended` is closed as well.
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

/// Calls of one blocking closure of the user's, one at a time and on a thread of its own, so that one that
/// hangs delays no other.
///
/// A call whose caller has stopped waiting goes on, and the next caller waits for its result instead of
/// making another call.
pub(crate) struct BlockingCalls<T> {
    /// The call that no caller waits for at present, and the process in which it was made: a forked child
    /// has copied it from its parent and never gets its result.
    unfinished: Mutex<Option<(u32, oneshot::Receiver<T>)>>,
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum BlockingFailure {
    Panicked,
    NoThread(io::Error),
}

impl<T: Send + 'static> BlockingCalls<T> {
    pub(crate) fn new() -> BlockingCalls<T> {
        BlockingCalls {
            unfinished: Mutex::new(None),
        }
    }

    /// The result of `work`, or of the call that is unfinished.
    pub(crate) async fn call(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingFailure> {
        let unfinished = self.unfinished.lock().take();
        let unfinished = unfinished.filter(|(process, _)| *process == process::id());
        let receiver = match unfinished {
            Some((_, receiver)) => receiver,
            None => start_call(work)?,
        };
        let mut waiting = Waiting {
            calls: self,
            receiver: Some(receiver),
        };
        let result = match waiting.receiver.as_mut() {
            Some(receiver) => receiver.await,
            // Not reached: only `drop` takes it.
            None => return Err(BlockingFailure::Panicked),
        };
        waiting.receiver = None;
        result.map_err(|_| BlockingFailure::Panicked)
    }
}

fn start_call<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, BlockingFailure> {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new().name(SOURCE_THREAD_NAME.to_owned());
    // An error of `send` means that no caller is left.
    let started = thread.spawn(move || drop(sender.send(work())));
    started.map_err(BlockingFailure::NoThread)?;
    Ok(receiver)
}

/// Leaves a call to the next caller if its own has stopped waiting.
struct Waiting<'a, T> {
    calls: &'a BlockingCalls<T>,
    receiver: Option<oneshot::Receiver<T>>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            *self.calls.unfinished.lock() = Some((process::id(), receiver));
        }
    }
}

/// Whether this thread belongs to a tokio runtime, so that blocking on it may panic; on the threads of
/// `spawn_blocking` it would not. Also true if that cannot be determined, since the thread is ending.
#[cfg(feature = "postgres")]
pub(crate) fn may_forbid_blocking() -> bool {
    Handle::try_current().map_or_else(|error| error.is_thread_local_destroyed(), |_| true)
}

/// Starts `task` beside the one that calls this. For use on the thread only.
pub(crate) fn spawn_here(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

    use super::*;

    /// Only a failure takes this long.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A task that never ends, and what tells when it is dropped.
    fn endless() -> (impl Future<Output = ()> + Send, Receiver<()>) {
        let (held, dropped) = channel();
        let task = async move {
            let _held: Sender<()> = held;
            future::pending::<()>().await;
        };
        (task, dropped)
    }

    fn assert_drops(dropped: &Receiver<()>) {
        assert_eq!(
            dropped.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected)
        );
    }

    /// FAULTS.md row 11.
    #[test]
    fn the_thread_ends_with_its_last_handle_and_its_tasks_with_it() {
        let runtime = Runtime::start().unwrap();
        let (task, dropped) = endless();
        runtime.spawn(task);
        drop(runtime);
        assert_drops(&dropped);
    }

    /// FAULTS.md row 11.
    #[test]
    fn a_handle_can_be_dropped_in_asynchronous_code_and_on_the_thread_itself() {
        let runtime = Runtime::start().unwrap();
        let (task, dropped) = endless();
        runtime.spawn(task);
        let outer = Builder::new_current_thread().build().unwrap();
        outer.block_on(async move { drop(runtime) });
        assert_drops(&dropped);

        let runtime = Arc::new(Runtime::start().unwrap());
        let (task, dropped) = endless();
        runtime.spawn(task);
        let itself = runtime.clone();
        runtime.spawn(async move { drop(itself) });
        drop(runtime);
        assert_drops(&dropped);
    }

    #[test]
    fn all_share_one_thread_and_a_new_one_is_started_when_it_is_gone() {
        let name = |runtime: &Runtime| {
            let (sender, receiver) = channel();
            runtime.spawn(async move {
                let thread = thread::current();
                let _ = sender.send((thread.name().map(str::to_owned), thread.id()));
            });
            receiver.recv_timeout(PATIENCE).unwrap()
        };
        let one = Runtime::shared().unwrap();
        let other = Runtime::shared().unwrap();
        assert_eq!(name(&one), name(&other));
        assert_eq!(name(&one).0.as_deref(), Some(THREAD_NAME));
        let first = name(&one).1;
        drop((one, other));
        assert_ne!(name(&Runtime::shared().unwrap()).1, first);
    }

    /// FAULTS.md row 47.
    #[test]
    fn a_call_that_its_caller_has_left_serves_the_next_one() {
        let runtime = Runtime::start().unwrap();
        let calls = Arc::new(BlockingCalls::new());
        let (release, held) = channel::<u32>();
        let (sender, receiver) = channel();
        runtime.spawn(async move {
            let work = move || held.recv_timeout(PATIENCE).unwrap_or_default();
            let left = within(Duration::ZERO, calls.call(work)).await;
            sender.send(left.map(Result::unwrap)).unwrap();
            // The second closure is not called.
            let joined = calls.call(|| 0).await.unwrap();
            sender.send(Some(joined)).unwrap();
            let next = calls.call(|| 8).await.unwrap();
            sender.send(Some(next)).unwrap();
        });
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), None);
        release.send(7).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Some(7));
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Some(8));
    }

    #[test]
    fn blocking_code_does_not_hold_up_the_thread() {
        let runtime = Runtime::start().unwrap();
        let (release, held) = channel::<()>();
        let (sender, receiver) = channel();
        runtime.spawn(async move {
            let calls = BlockingCalls::new();
            let held = calls.call(move || held.recv_timeout(PATIENCE)).await;
            let _ = sender.send(held.ok());
        });
        let (passed, passes) = channel();
        runtime.spawn(async move { passed.send(()).unwrap() });
        passes.recv_timeout(PATIENCE).unwrap();
        release.send(()).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), Some(Ok(())));
    }
}
