//! How migrations are run, and what is told of them meanwhile.

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

    /// For how long another process may keep the lock on migrations. 5 minutes by default; zero is not
    /// to wait.
    pub fn lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }

    /// The key of the advisory lock, for an application that has locks of its own.
    /// [`DEFAULT_LOCK_KEY`] by default. All replicas need the same.
    pub fn lock_key(mut self, key: i64) -> Self {
        self.lock_key = key;
        self
    }

    /// For how long a statement of a migration may wait for a table that others use: PostgreSQL's
    /// `lock_timeout`. By default as the connection string, the user or the database has it, which is
    /// for ever unless set there; zero is for ever, whatever is set there.
    ///
    /// An `ALTER TABLE` that waits behind a long transaction keeps everyone else waiting behind itself,
    /// so a few seconds are good for a database in use, if whoever deploys tries again. It is not set by
    /// itself because it also ends `CREATE INDEX CONCURRENTLY` midway, which leaves an invalid index.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// How long a statement of a migration may take: PostgreSQL's `statement_timeout`. By default as
    /// the connection string, the user or the database has it; zero is for ever, whatever is set there.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// Is told what happens, on the calling thread and while the lock is held. By default nobody is.
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

/// What happens while migrations run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Another process has the lock. Told once.
    Waiting {
        /// For how long it is waited for at the most.
        limit: Duration,
    },
    /// There is something to do, and the lock for it. Told once.
    Planned {
        /// How many steps there are.
        steps: usize,
    },
    /// A step begins.
    Started {
        /// Which.
        step: &'a Step,
    },
    /// A step has been done.
    Finished {
        /// Which.
        step: &'a Step,
        /// How long it took.
        took: Duration,
    },
}

/// One migration, applied or reverted. Shows itself as its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// What migrations are told apart and ordered by.
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

/// Which way a migration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It is applied.
    Up,
    /// It is reverted.
    Down,
}

impl Direction {
    /// What has been done to a migration.
    pub(super) fn done(self) -> &'static str {
        match self {
            Direction::Up => "applied",
            Direction::Down => "reverted",
        }
    }
}
