//! The application: threads that write through a pool and record the outcome of each write.

use std::collections::HashSet;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Double};
use diesel_rds_iam::{
    HandleAuthEvent, IamAuth, LoginRefused, PgConnectionManager, PgPool, retire_all,
};
use parking_lot::{Mutex, RwLock};

use super::counts::{Counts, Log};
use super::footprint::Footprint;
use super::ledger::{Outcome, Page};
use super::subject::{FOLDER, Line, MEASURE, Progress, SEED, URL};
use super::{AnyError, TOKEN_LIFETIME};

const CONNECTIONS: u32 = 10;
const MAX_LIFETIME: Duration = Duration::from_secs(4);

/// Threads with short transactions: more than there are connections, so that every one is in use.
const SHORT: u64 = 10;

/// Threads with transactions of ten writes and some seconds.
const LONG: u64 = 4;

/// The average number of those between two calls of `retire_all`.
const REPLACED_AFTER: u32 = 25;

/// How long it may take until all connections are there and idle.
const REST: Duration = Duration::from_secs(40);

struct Application {
    pool: PgPool,
    folder: PathBuf,
    is_running: AtomicBool,
    /// Locked for writing while no transaction may begin.
    rest: RwLock<()>,
    written: AtomicU64,
    gets_failed: AtomicU64,
    transactions_failed: AtomicU64,
}

/// Executes the commands on standard input until it is closed.
pub fn run() -> Result<(), AnyError> {
    let log = Log::listen()?;
    let refusals = Arc::new(Refusals::default());
    let auth = IamAuth::builder()
        .token_lifetime(TOKEN_LIFETIME)
        .event_handler(Arc::clone(&refusals))
        .build()?;
    let manager = PgConnectionManager::builder(&env::var(URL)?)
        .auth(auth.clone())
        .writer()
        .build()?;
    let pool = manager
        .pool_builder()
        .max_size(CONNECTIONS)
        .min_idle(None)
        .max_lifetime(Some(MAX_LIFETIME))
        .build()?;
    let seed: u64 = env::var(SEED)?.parse()?;
    let application = Application {
        pool,
        folder: env::var_os(FOLDER).ok_or("no folder")?.into(),
        is_running: AtomicBool::new(true),
        rest: RwLock::default(),
        written: AtomicU64::new(0),
        gets_failed: AtomicU64::new(0),
        transactions_failed: AtomicU64::new(0),
    };
    thread::scope(|scope| -> Result<(), AnyError> {
        let application = &application;
        let workers: Vec<_> = (0..SHORT + LONG)
            .map(|number| scope.spawn(move || application.work(number, seed)))
            .collect();
        scope.spawn(|| application.tell());
        let obeyed = application.obey();
        application.is_running.store(false, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| "a thread panicked")??;
        }
        obeyed
    })?;
    drop(application);
    log.compare(&auth)?;
    Line::Counts(Counts::new(auth.stats(), *refusals.in_doubt.lock())).say();
    Ok(())
}

impl Application {
    fn obey(&self) -> Result<(), AnyError> {
        for line in std::io::stdin().lock().lines() {
            if line? == MEASURE {
                Line::Footprint(self.measure()?).say();
            }
        }
        Ok(())
    }

    /// Prints the progress at intervals.
    fn tell(&self) {
        while self.is_running.load(Ordering::Relaxed) {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let progress = Progress {
                written: read(&self.written),
                gets_failed: read(&self.gets_failed),
                transactions_failed: read(&self.transactions_failed),
            };
            Line::Progress(progress).say();
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The memory, threads and descriptors in use while all connections are open and idle.
    fn measure(&self) -> Result<Footprint, AnyError> {
        let _rest = self.rest.write();
        let begun = Instant::now();
        while self.pool.state().idle_connections < CONNECTIONS {
            if begun.elapsed() > REST {
                return Err(format!("at rest the pool has {:?}", self.pool.state()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Footprint::own()
    }

    fn work(&self, number: u64, seed: u64) -> Result<(), AnyError> {
        let mut chance = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let mut page = Page::create(&self.folder, number)?;
        let first = i64::try_from(number << 40)?;
        let mut next = first;
        while self.is_running.load(Ordering::Relaxed) {
            let _busy = self.rest.read();
            let (count, seconds) = match number < SHORT {
                true => (1, 0.01),
                false => (10, 0.1 + 3.0 * chance.f64()),
            };
            let ids: Vec<i64> = (next..next + count).collect();
            next += count;
            let outcome = self.write(&ids, seconds);
            page.note(outcome, &ids)?;
            match outcome {
                Outcome::Written => {
                    self.written.fetch_add(ids.len() as u64, Ordering::Relaxed);
                }
                // As an application does that retries.
                _ => thread::sleep(Duration::from_millis(20)),
            }
            if number >= SHORT && chance.u32(..REPLACED_AFTER) == 0 {
                retire_all(&self.pool)?;
            }
        }
        page.close()?;
        Ok(())
    }

    /// Writes `ids` in one transaction that takes this many seconds.
    fn write(&self, ids: &[i64], seconds: f64) -> Outcome {
        let Ok(mut connection) = self.pool.get() else {
            self.gets_failed.fetch_add(1, Ordering::Relaxed);
            return Outcome::NotWritten;
        };
        let connection = &mut *connection;
        let pause = seconds / ids.len() as f64;
        let inserted = AnsiTransactionManager::begin_transaction(connection).and_then(|()| {
            ids.iter().try_for_each(|id| {
                sql_query("INSERT INTO writes SELECT $1 FROM pg_sleep($2)")
                    .bind::<BigInt, _>(id)
                    .bind::<Double, _>(pause)
                    .execute(connection)
                    .map(drop)
            })
        });
        let outcome = match inserted {
            Ok(()) => match AnsiTransactionManager::commit_transaction(connection) {
                Ok(()) => return Outcome::Written,
                Err(_) => Outcome::Unknown,
            },
            Err(_) => {
                // If the rollback fails too, the connection is broken, and the pool drops it.
                let _ = AnsiTransactionManager::rollback_transaction(connection);
                Outcome::NotWritten
            }
        };
        self.transactions_failed.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

/// Prints each distinct message of a refusal once.
#[derive(Default)]
struct Refusals {
    said: Mutex<HashSet<String>>,
    in_doubt: Mutex<u64>,
}

impl HandleAuthEvent for Refusals {
    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        let text = event.error.to_string();
        if text.contains("message that is not recognised") {
            *self.in_doubt.lock() += 1;
        }
        if self.said.lock().insert(text.clone()) {
            println!("{text}");
        }
    }
}
