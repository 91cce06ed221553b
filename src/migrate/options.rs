//! Options for running migrations, and the progress that is reported.

use std::fmt;
use std::time::Duration;

/// The default key of the advisory lock under which migrations run: the letters `rds_migr` as a number,
/// 8242840071689561970. Each database has advisory locks of its own. [`Options::lock_key`] sets another key.
pub const DEFAULT_LOCK_KEY: i64 = i64::from_be_bytes(*b"rds_migr");

const DEFAULT_LOCK_WAIT: Duration = Duration::from_secs(5 * 60);

/// How migrations are run.
#[must_use]
pub struct Options<'a> {
    pub(super) lock_wait: Duration,
    pub(super) lock_key: i64,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) statement_timeout: Option<Duration>,
    pub(super) on_progress: Box<dyn FnMut(Progress<'_>) + 'a>,
}

impl<'a> Options<'a> {
    /// The defaults.
    pub fn new() -> Options<'a> {
        Options {
            lock_wait: DEFAULT_LOCK_WAIT,
            lock_key: DEFAULT_LOCK_KEY,
            lock_timeout: None,
            statement_timeout: None,
            on_progress: Box::new(|_| ()),
        }
    }

    /// Sets how long to wait for another process that holds the lock on migrations. Default: 5 minutes. With
    /// zero it does not wait.
    pub fn lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }

    /// Sets the key of the advisory lock, for an application with advisory locks of its own. Default:
    /// [`DEFAULT_LOCK_KEY`]. All replicas need the same key.
    pub fn lock_key(mut self, key: i64) -> Self {
        self.lock_key = key;
        self
    }

    /// Sets how long a statement of a migration waits for a lock: PostgreSQL's `lock_timeout`. Default: that of the
    /// connection string, the user or the database, without limit if none of them sets one. Zero means no limit.
    ///
    /// An `ALTER TABLE` that waits for a long transaction blocks all later queries of that table. For a database in
    /// use, set a few seconds and repeat the deployment. There is no default, because the time-out also cancels
    /// `CREATE INDEX CONCURRENTLY`, which leaves an invalid index.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// Sets how long a statement of a migration may take: PostgreSQL's `statement_timeout`. Default: that of the
    /// connection string, the user or the database. Zero means no limit.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// Sets a callback for progress. It runs on the calling thread, while the lock is held. Default: none.
    pub fn on_progress(mut self, handler: impl FnMut(Progress<'_>) + 'a) -> Self {
        self.on_progress = Box::new(handler);
        self
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options::new()
    }
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("lock_wait", &self.lock_wait)
            .field("lock_key", &self.lock_key)
            .field("lock_timeout", &self.lock_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

/// The progress of migrations.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process holds the lock. Reported once.
    Waiting {
        /// The time limit of the wait.
        limit: Duration,
    },
    /// The lock is held, and migrations are pending. Reported once.
    Planned {
        /// The number of steps.
        steps: usize,
    },
    /// A step begins.
    Started {
        /// The step.
        step: &'a Step,
    },
    /// A step is done.
    Finished {
        /// The step.
        step: &'a Step,
        /// How long it took.
        took: Duration,
    },
}

/// One migration, applied or reverted. `Display` shows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// Identifies the migration and decides its order.
    pub version: String,
    /// The name, as diesel shows it.
    pub name: String,
    /// Whether it is applied or reverted.
    pub direction: Direction,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The direction of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It is applied.
    Up,
    /// It is reverted.
    Down,
}

impl Direction {
    /// The past participle for messages.
    pub(super) fn done(self) -> &'static str {
        match self {
            Direction::Up => "applied",
            Direction::Down => "reverted",
        }
    }
}
