//! The thread on which credentials are fetched and tokens signed.
//!
//! The AWS SDK is asynchronous, and this crate's applications are not. So there is one small tokio runtime on one
//! thread, shared by the whole process. No other thread enters it: `block_on` and the drop of a `Runtime` panic
//! inside asynchronous code, where a pool may be built, used and dropped.

use std::cell::Cell;
use std::env;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

const THREAD_NAME: &str = "rds-iam-signer";

/// As large as that of a main thread. The futures of the AWS SDK need more than the 2 MiB of other threads in a build
/// without optimisation. It is reserved, and occupies memory only where it is used. Rust's own variable for it takes
/// precedence.
const STACK_SIZE: usize = 8 << 20;

/// The name of the threads on which blocking code of the user's runs.
const SOURCE_THREAD_NAME: &str = "rds-iam-source";

/// The AWS SDK looks up host names on tokio's blocking threads. They end this long after their last work.
const BLOCKING_THREAD_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// How many blocked threads are replaced at most. Each of them lasts until its task stops blocking.
const MAX_BLOCKED_THREADS: usize = 4;

/// The number of steps in which a time limit is waited for.
const STEPS: u32 = 16;

/// A step that ends this much too late shows that the process was suspended.
const SUSPENDED: Duration = Duration::from_secs(1);

static SHARED: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());

/// The threads that were replaced because a task blocked them, and the process of each.
static BLOCKED: Mutex<Vec<(u32, Weak<ThreadMark>)>> = Mutex::new(Vec::new());

static NEXT_THREAD: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The number of this signing thread; 0 on any other thread.
    static THREAD_NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Lives as long as its signing thread.
struct ThreadMark;

/// A handle to the thread, which ends when the last handle is dropped.
pub(crate) struct Runtime {
    handle: Handle,
    /// The thread exists in the process that started it only: a forked child has to start its own.
    process: u32,
    /// Whether a task blocks the thread, so that it was replaced.
    is_blocked: AtomicBool,
    mark: Weak<ThreadMark>,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Runtime {
    /// Returns the process's thread, and starts it if there is none.
    pub(crate) fn shared() -> Result<Arc<Runtime>, Error> {
        let running = usable(&SHARED.lock());
        if let Some(runtime) = running {
            return Ok(runtime);
        }
        // Without the lock: a process that is forked in this time would inherit it locked, for ever.
        let started = Arc::new(Runtime::start()?);
        let mut shared = SHARED.lock();
        Ok(usable(&shared).unwrap_or_else(|| {
            *shared = Arc::downgrade(&started);
            started
        }))
    }

    /// False if the thread was replaced, and in a child that was forked after it was started.
    pub(crate) fn is_usable(&self) -> bool {
        self.process == process::id() && !self.is_blocked.load(Ordering::Acquire)
    }

    /// Sends an empty task to the thread, as a probe.
    pub(crate) fn probe(&self) -> Probe {
        let (sender, answer) = mpsc::sync_channel(1);
        self.spawn(async move {
            // An error means that the caller no longer waits.
            let _ = sender.send(());
        });
        Probe(answer)
    }

    /// Makes the next use start another thread in place of this one, which did not answer a probe. Its tasks go on
    /// when it is no longer blocked. Returns whether it was replaced: a process replaces a limited number.
    pub(crate) fn replace_blocked(&self) -> bool {
        let mut blocked = BLOCKED.lock();
        if !self.is_usable() {
            return true;
        }
        blocked.retain(|(process, mark)| *process == self.process && mark.strong_count() > 0);
        if blocked.len() >= MAX_BLOCKED_THREADS {
            return false;
        }
        blocked.push((self.process, self.mark.clone()));
        self.is_blocked.store(true, Ordering::Release);
        let threads = blocked.len();
        drop(blocked);
        tracing::warn!(
            threads,
            "a task blocks the thread that signs tokens; another thread takes its place"
        );
        true
    }

    /// Runs `task` on the thread. The task is dropped, wherever it is, when the last handle is.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    fn start() -> Result<Runtime, Error> {
        let no_thread = |error: io::Error| {
            let message = "cannot start the thread that signs tokens; raise the process's limit \
                           of threads or file descriptors";
            Error::with_cause(ErrorKind::Internal, message, error)
        };
        let built = Builder::new_current_thread()
            .enable_all()
            .thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE)
            .thread_name(THREAD_NAME)
            .build();
        let runtime = built.map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let tokio = Tokio(Some(runtime));
        let (running, ended) = oneshot::channel::<()>();
        let mark = Arc::new(ThreadMark);
        let weak_mark = Arc::downgrade(&mark);
        let mut thread = thread::Builder::new().name(THREAD_NAME.to_owned());
        if env::var_os("RUST_MIN_STACK").is_none() {
            thread = thread.stack_size(STACK_SIZE);
        }
        let thread = thread.spawn(move || run(tokio, ended, mark));
        thread.map_err(no_thread)?;
        Ok(Runtime {
            handle,
            process: process::id(),
            is_blocked: AtomicBool::new(false),
            mark: weak_mark,
            _running: running,
        })
    }
}

fn usable(shared: &Weak<Runtime>) -> Option<Arc<Runtime>> {
    shared.upgrade().filter(|runtime| runtime.is_usable())
}

/// A probe of a signing thread.
pub(crate) struct Probe(mpsc::Receiver<()>);

impl Probe {
    pub(crate) fn was_answered(&self) -> bool {
        self.0.try_recv().is_ok()
    }
}

/// Whether this is a signing thread, which must not wait for its own tasks.
pub(crate) fn is_signing_thread() -> bool {
    thread_number() != 0
}

/// The number of this signing thread; 0 on any other thread.
pub(crate) fn thread_number() -> u64 {
    THREAD_NUMBER.try_with(Cell::get).unwrap_or_default()
}

fn run(tokio: Tokio, ended: oneshot::Receiver<()>, _mark: Arc<ThreadMark>) {
    THREAD_NUMBER.set(NEXT_THREAD.fetch_add(1, Ordering::Relaxed));
    if let Some(runtime) = &tokio.0 {
        // An error means that the sender was dropped, which is the signal to end.
        let _ = runtime.block_on(ended);
    }
}

/// tokio's runtime, until it is dropped. Without a thread to be had, that is where it was built, and the runtime's own
/// drop panics inside asynchronous code.
struct Tokio(Option<tokio::runtime::Runtime>);

impl Drop for Tokio {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits without occupying the thread. For use on the thread only.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Awaits `future` for at most `limit`; `None` if it took longer. For use on the thread only.
///
/// The limit is waited for in steps, so that time in which the process was suspended counts as one.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    in_steps(limit, future).await.0
}

/// The same for a fallible task. If the process was suspended during the first attempt and that failed, another one
/// is made: its connections and time limits, or those of the AWS SDK, may have ended in that time.
pub(crate) async fn attempt_within<T, E, F: Future<Output = Result<T, E>>>(
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Option<Result<T, E>> {
    match in_steps(limit, attempt()).await {
        (Some(Ok(done)), _) => Some(Ok(done)),
        (_, true) => within(limit, attempt()).await,
        (outcome, false) => outcome,
    }
}

/// Returns the output, unless the limit was reached first, and whether the process was suspended meanwhile.
async fn in_steps<T>(limit: Duration, future: impl Future<Output = T>) -> (Option<T>, bool) {
    let clock = Clock::default();
    let step = limit / STEPS;
    let mut future = pin!(future);
    let mut was_suspended = false;
    for _ in 0..STEPS {
        let begun = clock.monotonic();
        let output = tokio::time::timeout(step, future.as_mut()).await;
        let took = clock.monotonic().saturating_duration_since(begun);
        was_suspended |= took.saturating_sub(step) >= SUSPENDED;
        if let Ok(output) = output {
            return (Some(output), was_suspended);
        }
    }
    (None, was_suspended)
}

/// Marks a future that runs code of the user's while it is polled, to identify the one that blocks the thread.
pub(crate) async fn marked<T>(in_poll: &InPoll, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        in_poll.0.store(process::id(), Ordering::Relaxed);
        let _left = LeavePoll(in_poll);
        future.as_mut().poll(context)
    })
    .await
}

/// The process in which a future is being polled at present; 0 if it is not.
#[derive(Debug, Default)]
pub(crate) struct InPoll(AtomicU32);

impl InPoll {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed) == process::id()
    }
}

/// Removes the mark also if the poll panics.
struct LeavePoll<'a>(&'a InPoll);

impl Drop for LeavePoll<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

/// Calls of one blocking closure of the user's, one at a time and on a thread of its own, so that a call that hangs
/// delays no other closure.
///
/// A call whose caller has stopped waiting goes on, and the next caller waits for its result instead of
/// making another call.
pub(crate) struct BlockingCalls<T>(Mutex<Option<Call<T>>>);

type CallResult<T> = Arc<Mutex<Option<T>>>;

/// A call whose result was not taken yet.
struct Call<T> {
    /// A forked child has copied the call of its parent and never gets its result.
    process: u32,
    result: CallResult<T>,
    /// Closed when the call has returned or panicked.
    ended: watch::Receiver<()>,
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum BlockingFailure {
    Panicked,
    NoThread(io::Error),
}

impl<T: Send + 'static> BlockingCalls<T> {
    pub(crate) fn new() -> BlockingCalls<T> {
        BlockingCalls(Mutex::new(None))
    }

    /// Returns the result of `work`, or of the call that is unfinished. If several callers wait for one call, because
    /// the thread of the first is blocked, the first to be woken takes its result.
    pub(crate) async fn call(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingFailure> {
        let (result, mut ended, to_start) = self.join_or_prepare();
        if let Some(running) = to_start
            && let Err(error) = start_call(work, result.clone(), running)
        {
            self.forget(&result);
            return Err(BlockingFailure::NoThread(error));
        }
        // An error says that the call has ended.
        while ended.changed().await.is_ok() {}
        let taken = result.lock().take();
        self.forget(&result);
        taken.ok_or(BlockingFailure::Panicked)
    }

    /// Joins the unfinished call, or returns what a new one has to drop at its end. The new one is not started here:
    /// a process that is forked while a thread starts would inherit the lock locked, for ever.
    fn join_or_prepare(
        &self,
    ) -> (
        CallResult<T>,
        watch::Receiver<()>,
        Option<watch::Sender<()>>,
    ) {
        let mut current = self.0.lock();
        if let Some(call) = current.as_ref()
            && call.process == process::id()
        {
            return (call.result.clone(), call.ended.clone(), None);
        }
        let result = CallResult::default();
        let (running, ended) = watch::channel(());
        *current = Some(Call {
            process: process::id(),
            result: result.clone(),
            ended: ended.clone(),
        });
        (result, ended, Some(running))
    }

    fn forget(&self, result: &CallResult<T>) {
        let mut current = self.0.lock();
        let call = current.as_ref();
        if call.is_some_and(|call| Arc::ptr_eq(&call.result, result)) {
            *current = None;
        }
    }
}

fn start_call<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    result: CallResult<T>,
    running: watch::Sender<()>,
) -> io::Result<()> {
    let thread = thread::Builder::new().name(SOURCE_THREAD_NAME.to_owned());
    let started = thread.spawn(move || {
        // Dropped when the result is there, and by a panic.
        let _running = running;
        let returned = work();
        *result.lock() = Some(returned);
    });
    started.map(drop)
}

/// Whether this thread belongs to a tokio runtime, so that blocking on it may panic; on the threads of
/// `spawn_blocking` it would not. Also true if that cannot be determined, since the thread is ending.
#[cfg(feature = "postgres")]
pub(crate) fn may_forbid_blocking() -> bool {
    Handle::try_current().map_or_else(|error| error.is_thread_local_destroyed(), |_| true)
}

/// Starts `task` beside the calling one. For use on the thread only.
pub(crate) fn spawn_here(task: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(task));
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

    use super::*;

    /// The time limit of waits, which only a failure reaches.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A task that never ends, and a flag that shows when it is dropped.
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

    /// FAULTS.md row 46: a forked child has copied the handle, and not the thread.
    #[test]
    fn the_thread_of_another_process_is_not_used() {
        let own = Arc::new(Runtime::start().unwrap());
        assert!(usable(&Arc::downgrade(&own)).is_some());
        let parents = Arc::new(Runtime {
            process: process::id().wrapping_add(1),
            ..Runtime::start().unwrap()
        });
        assert!(usable(&Arc::downgrade(&parents)).is_none());
    }

    /// FAULTS.md row 47.
    #[test]
    fn the_result_of_an_abandoned_call_serves_the_next_caller() {
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
    fn blocking_code_does_not_block_the_signing_thread() {
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
