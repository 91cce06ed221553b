//! Opens the connections of a pool on threads of their own; see [`handoff`](super::handoff) for why.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use scheduled_thread_pool::ScheduledThreadPool;

use super::connect::Connected;
use super::handoff::{Handoff, Next, VisitEnd, VisitStart};
use super::{Inner, Pooled};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::lifetime;

const THREAD_NAME: &str = "rds-iam-dial";

/// The pause between two attempts of the probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// A connection that has waited for less than this is not tested. It saves a round trip at an application's start.
const AS_NEW: Duration = Duration::from_secs(1);

/// A connection that a worker has yet to take.
pub(crate) struct Opened<T> {
    connected: Connected<T>,
    /// The generation of the pool in which its login began.
    generation: u64,
    /// The time from which it has waited.
    since: Instant,
}

impl<T> Opened<T> {
    /// A connection that has just been opened.
    pub(crate) fn new(connected: Connected<T>, generation: u64, clock: &Clock) -> Opened<T> {
        Opened {
            connected,
            generation,
            since: clock.monotonic(),
        }
    }
}

/// The dialer of one pool.
pub(crate) struct Dialer<C: Backend> {
    pub(crate) handoff: Handoff<Opened<C::Connection>, Error>,
    /// The pool's own workers; none if they are shared with other pools. Those dial themselves: threads of
    /// our own would be as many as there are pools.
    workers: Option<Workers>,
}

/// The threads of r2d2's that visit.
pub(crate) struct Workers {
    threads: Weak<ScheduledThreadPool>,
    count: usize,
    /// While the server is unreachable, all workers but one are reserved, each until its sender is dropped.
    /// The pool's attempts then queue up for the last worker, and one of them is inside nearly all the time,
    /// rather than all of them together every few seconds.
    reserved: Mutex<Vec<mpsc::Sender<()>>>,
}

impl Workers {
    pub(crate) fn new(threads: &Arc<ScheduledThreadPool>, count: usize) -> Workers {
        Workers {
            threads: Arc::downgrade(threads),
            count,
            reserved: Mutex::default(),
        }
    }

    fn reserve(&self) {
        let Some(threads) = self.threads.upgrade() else {
            return;
        };
        let mut reserved = self.reserved.lock();
        for _ in 1..self.count {
            let (release, released) = mpsc::channel();
            reserved.push(release);
            threads.execute(move || {
                // An error means that the sender was dropped, which is the signal to end.
                let _ = released.recv();
            });
        }
    }

    fn release(&self) {
        self.reserved.lock().clear();
    }
}

impl<C: Backend> Dialer<C> {
    pub(crate) fn new(workers: Option<Workers>) -> Dialer<C> {
        Dialer {
            handoff: Handoff::new(),
            workers,
        }
    }
}

impl<C: Backend> Pooled<C> {
    /// Gets a connection for r2d2's worker that calls this.
    pub(super) fn visit(self: &Arc<Self>, inner: &Arc<Inner<C>>) -> Result<C::Connection, Error> {
        if self.dialer.workers.is_none() {
            return self.dial_here(inner);
        }
        let handoff = &self.dialer.handoff;
        loop {
            let opened = match handoff.begin_visit(inner.clock.monotonic()) {
                VisitStart::Ready(mut opened) => match inner.still_works(&mut opened) {
                    true => opened,
                    false => continue,
                },
                VisitStart::Wait { limit, starts_dial } => {
                    if starts_dial {
                        Dial::start(inner, self);
                    }
                    match handoff.wait(limit) {
                        VisitEnd::Connected(opened) => opened,
                        VisitEnd::Failed(error) | VisitEnd::Unfinished(Some(error)) => {
                            return Err(error);
                        }
                        VisitEnd::Unfinished(None) => return Err(unfinished()),
                    }
                }
                VisitStart::Leave => return Err(unfinished()),
            };
            if self.is_current(&opened) {
                return Ok(self.take(opened));
            }
        }
    }

    /// Opens a connection on the worker itself.
    fn dial_here(&self, inner: &Inner<C>) -> Result<C::Connection, Error> {
        while let Some(mut opened) = self.dialer.handoff.take_ready() {
            if self.is_current(&opened) && inner.still_works(&mut opened) {
                return Ok(self.take(opened));
            }
        }
        loop {
            let generation = self.lifetimes.generation();
            let connected = inner.open(self.connect_timeout, &self.balance)?;
            let opened = Opened::new(connected, generation, &inner.clock);
            if self.is_current(&opened) {
                return Ok(self.take(opened));
            }
        }
    }

    /// False if all connections were retired since the login began. Its server may then be the wrong one.
    fn is_current(&self, opened: &Opened<C::Connection>) -> bool {
        opened.generation == self.lifetimes.generation()
    }

    fn take(&self, opened: Opened<C::Connection>) -> C::Connection {
        self.is_silent.store(false, Ordering::Relaxed);
        let Connected { connection, held } = opened.connected;
        lifetime::begin_connect(opened.generation, held);
        connection
    }
}

impl<C: Backend> Inner<C> {
    /// Tests a connection that has waited for a worker, unless it is new.
    fn still_works(&self, opened: &mut Opened<C::Connection>) -> bool {
        let waited = self
            .clock
            .monotonic()
            .saturating_duration_since(opened.since);
        waited < AS_NEW || self.ping(&mut opened.connected.connection).is_ok()
    }
}

/// A thread that opens one connection. As the probe, it repeats the attempt until one is open.
struct Dial<C: Backend> {
    inner: Arc<Inner<C>>,
    /// Gone as soon as the pool is dropped.
    pooled: Weak<Pooled<C>>,
    is_probe: bool,
    has_delivered: bool,
}

impl<C: Backend> Dial<C> {
    fn start(inner: &Arc<Inner<C>>, pooled: &Arc<Pooled<C>>) {
        let dial = Dial {
            inner: inner.clone(),
            pooled: Arc::downgrade(pooled),
            is_probe: false,
            has_delivered: false,
        };
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
        // If it cannot be started, `spawn` drops the dial, which delivers a failure.
        let _ = thread.spawn(move || dial.run());
    }

    fn run(mut self) {
        while let Some(pooled) = self.pooled.upgrade() {
            let generation = pooled.lifetimes.generation();
            let (limit, balance) = (pooled.connect_timeout, pooled.balance.clone());
            drop(pooled);
            let result = self.inner.open(limit, &balance);
            let Some(pooled) = self.pooled.upgrade() else {
                return;
            };
            if self.deliver(&pooled, generation, result) == Next::End {
                return;
            }
            drop(pooled);
            thread::sleep(PROBE_INTERVAL);
        }
    }

    fn deliver(
        &mut self,
        pooled: &Pooled<C>,
        generation: u64,
        result: Result<Connected<C::Connection>, Error>,
    ) -> Next {
        let handoff = &pooled.dialer.handoff;
        match result {
            Err(error) if is_unreachable(&error) => {
                if handoff.unreachable(error, self.is_probe) == Next::Probe {
                    if !self.is_probe {
                        self.is_probe = true;
                        pooled.reserve_workers();
                    }
                    return Next::Probe;
                }
            }
            Err(error) => handoff.failed(error, self.is_probe),
            Ok(connected) => handoff.connected(
                Opened::new(connected, generation, &self.inner.clock),
                self.is_probe,
            ),
        }
        self.has_delivered = true;
        Next::End
    }
}

impl<C: Backend> Drop for Dial<C> {
    /// Visits must not wait for a dial that has ended.
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.upgrade() else {
            return;
        };
        if !self.has_delivered {
            let error = Error::new(
                ErrorKind::Internal,
                "a connection could not be opened, because no thread could be started for it or its \
                 thread panicked; raise the process's limit of threads",
            );
            pooled.dialer.handoff.failed(error, self.is_probe);
        }
        if self.is_probe {
            pooled.release_workers();
        }
    }
}

impl<C: Backend> Pooled<C> {
    fn reserve_workers(&self) {
        if let Some(workers) = &self.dialer.workers {
            workers.reserve();
        }
    }

    fn release_workers(&self) {
        if let Some(workers) = &self.dialer.workers {
            workers.release();
        }
    }
}

/// Whether there is no server, or one that accepts no logins at present. Another dial would repeat every other
/// failure.
fn is_unreachable(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Network | ErrorKind::ServerUnavailable
    )
}

/// r2d2 shows this to a `get` that times out meanwhile. It is no failure, and none is reported.
fn unfinished() -> Error {
    lifetime::note_no_failure();
    Error::new(
        ErrorKind::Network,
        "the connection is still being opened; raise connection_timeout if the server takes this long",
    )
}
