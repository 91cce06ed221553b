//! Shared parts of the tests: sources of credentials that a test can block, and a record of events.

pub mod child;
pub mod database;
pub mod eavesdropper;
pub mod footprint;
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod packets;
pub mod proxy;
pub mod written;

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use diesel_rds_iam::{
    BoxError, Endpoint, HandleAuthEvent, RefreshFailed, StaleServed, TokenSigned,
};
use parking_lot::{Condvar, Mutex};

/// The time limit of waits for events that must happen. Only a failure reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// The names of this process's threads, cut to 15 characters by the kernel.
#[cfg(target_os = "linux")]
pub fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may have ended meanwhile.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks
        .filter_map(name)
        .map(|name| name.trim_end().to_owned())
        .collect()
}

pub fn endpoint() -> Endpoint {
    Endpoint::new("mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com", 5432, "app").unwrap()
}

/// A source of credentials that counts its calls, and that a test can block and give an answer to return.
#[derive(Clone, Default)]
pub struct FakeSource(Arc<FakeSourceInner>);

#[derive(Default)]
struct FakeSourceInner {
    calls: AtomicUsize,
    answer: Mutex<Answer>,
    /// std's locks, since a process that forks while a thread waits in one of parking_lot's may not start threads.
    state: std::sync::Mutex<Held>,
    changed: std::sync::Condvar,
}

type Answer = Option<Arc<dyn Fn() -> Result<Credentials, BoxError> + Send + Sync>>;

#[derive(Default)]
struct Held {
    is_held: bool,
    waiting: usize,
}

impl FakeSource {
    /// Sets the closure whose result is returned from now on; long-lived keys by default.
    pub fn answer(
        &self,
        answer: impl Fn() -> Result<Credentials, BoxError> + Send + Sync + 'static,
    ) {
        *self.0.answer.lock() = Some(Arc::new(answer));
    }

    /// Blocks callers from now on.
    pub fn hold(&self) {
        self.state().is_held = true;
    }

    /// Releases all blocked callers.
    pub fn release(&self) {
        self.state().is_held = false;
        self.0.changed.notify_all();
    }

    /// Waits until a caller is blocked here.
    pub fn wait_for_caller(&self) {
        let is_unused = |state: &mut Held| state.waiting == 0;
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.state(), PATIENCE, is_unused)
            .unwrap();
        assert!(
            !waited.1.timed_out(),
            "no caller asked the source of credentials"
        );
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.state.lock().unwrap()
    }

    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The closure for `credentials_fn`.
    pub fn fetch(&self) -> impl Fn() -> Result<Credentials, BoxError> + Send + Sync + 'static {
        let source = self.clone();
        move || source.ask()
    }

    fn ask(&self) -> Result<Credentials, BoxError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state();
        state.waiting += 1;
        self.0.changed.notify_all();
        // A test that fails before it releases them must not leave its threads blocked here.
        let limit = 2 * PATIENCE;
        let waited = self
            .0
            .changed
            .wait_timeout_while(state, limit, |state| state.is_held);
        waited.unwrap().0.waiting -= 1;
        let answer = self.0.answer.lock().clone();
        match answer {
            Some(answer) => answer(),
            None => Ok(keys()),
        }
    }
}

/// Sets a flag when it is dropped, also by a panic. The threads of a test run until its flag is set; a
/// failed assertion between them would otherwise leave `thread::scope` waiting for ever.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Accepts the next client of `listener`. Fails if none connects, so that a test whose client never dials ends.
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                client.set_nonblocking(false).unwrap();
                return client;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < PATIENCE, "no client came");
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Long-lived keys.
pub fn keys() -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")
}

/// Keys that expire.
pub fn keys_until(expiry: SystemTime) -> Credentials {
    Credentials::new("AKIDEXAMPLE", "secret", None, Some(expiry), "test")
}

/// Counts the events of tokens, and lets a test wait for them.
#[derive(Clone, Default)]
pub struct Recorder(Arc<RecorderInner>);

#[derive(Default)]
struct RecorderInner {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub signed: usize,
    pub failed: usize,
    pub failed_with_stale: usize,
    pub stale_served: usize,
}

impl Recorder {
    pub fn counts(&self) -> Counts {
        *self.0.counts.lock()
    }

    /// Waits until `reached` holds.
    pub fn wait_until(&self, reached: impl Fn(&Counts) -> bool) -> Counts {
        let mut counts = self.0.counts.lock();
        let timed_out = self
            .0
            .changed
            .wait_while_for(&mut counts, |counts| !reached(counts), PATIENCE)
            .timed_out();
        assert!(!timed_out, "waited in vain; so far {:?}", *counts);
        *counts
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.counts.lock());
        self.0.changed.notify_all();
    }
}

impl HandleAuthEvent for Recorder {
    fn handle_token_signed(&self, _: &TokenSigned<'_>) {
        self.count(|counts| counts.signed += 1);
    }

    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        self.count(|counts| {
            counts.failed += 1;
            counts.failed_with_stale += usize::from(event.stale.is_some());
        });
    }

    fn handle_stale_served(&self, event: &StaleServed<'_>) {
        assert!(event.token_age > Duration::ZERO && event.endpoint.is_some());
        self.count(|counts| counts.stale_served += 1);
    }
}

/// The program of an example. Cargo builds examples along with the tests, into a folder beside theirs.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: cargo test builds it unless told which tests to build; run cargo build \
         --examples",
        program.display()
    );
    program
}
