//! Measures how pools replace their connections under load: `cargo bench --bench lifetimes`.
//!
//! It takes two minutes. The rate of connects is meaningful only on an idle machine.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark may fail by panicking, and measures time itself"
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::{ConnectionRetired, HandleAuthEvent, IamAuth, PgConnectionManager, PgPool};
use parking_lot::Mutex;
use r2d2::event::{AcquireEvent, HandleEvent, ReleaseEvent};
use rds_iam_emulator::Emulator;

const MAX_SIZE: u32 = 10;
const THREADS_PER_POOL: usize = 14;

fn main() {
    // Test runners ask every target for its tests. This one has none.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let emulator = Emulator::builder()
        .postgres_setting("max_connections", "200")
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    for (pools, seconds) in [(1, 3), (1, 14), (10, 14)] {
        measure(&emulator, pools, Duration::from_secs(seconds));
    }
}

/// Keeps this many pools under load for three lifetimes.
fn measure(emulator: &Emulator, pools: usize, max_lifetime: Duration) {
    let (key, secret) = (emulator.access_key(), emulator.secret_key());
    let credentials = Credentials::new(key, secret, None, None, "bench");
    let process = Arc::new(Process::default());
    let auth = IamAuth::builder()
        .credentials_provider(credentials)
        .event_handler(process.clone())
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth);
    let manager = manager.build().unwrap();
    let all: Vec<(PgPool, Arc<Replaced>)> = (0..pools)
        .map(|_| {
            let replaced = Arc::new(Replaced::default());
            let observer = Observer {
                process: process.clone(),
                replaced: replaced.clone(),
            };
            let builder = manager.pool_builder().max_size(MAX_SIZE).min_idle(None);
            let builder = builder.max_lifetime(Some(max_lifetime));
            (
                builder.event_handler(Box::new(observer)).build().unwrap(),
                replaced,
            )
        })
        .collect();
    // From here on, every new connection is a replacement.
    for (pool, _) in &all {
        let held: Vec<_> = (0..MAX_SIZE).map(|_| pool.get().unwrap()).collect();
        drop(held);
    }
    process.opened.lock().clear();
    process.retired.lock().clear();
    for (_, replaced) in &all {
        *replaced.0.lock() = (0, 0);
    }

    let end = Instant::now() + 3 * max_lifetime;
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (pool, _) in &all {
            for _ in 0..THREADS_PER_POOL {
                scope.spawn(|| {
                    while Instant::now() < end {
                        match pool.get() {
                            Ok(mut one) => one.batch_execute("SELECT pg_sleep(0.02)").unwrap(),
                            Err(_) => {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        }
    });

    let mut ages = process.retired.lock().clone();
    ages.sort();
    let age = |at: usize| ages.get(at).copied().unwrap_or_default().as_secs_f64();
    let forced = ages.iter().filter(|age| **age >= max_lifetime).count();
    let most_replaced = all
        .iter()
        .map(|(_, replaced)| replaced.0.lock().1)
        .max()
        .unwrap();
    println!("pools {pools}, each of {MAX_SIZE}; maximum {max_lifetime:?}");
    println!("  retired                        {}", ages.len());
    println!("  checkouts that failed          {}", failed.into_inner());
    println!(
        "  ages at retirement             {:.2} s, {:.2} s, {:.2} s (min, median, max)",
        age(0),
        age(ages.len() / 2),
        age(ages.len().saturating_sub(1)),
    );
    println!("  retired at the maximum itself  {forced}");
    println!("  most replaced at once, of one pool {most_replaced}");
    println!(
        "  most connects in one second    {}",
        peak(&process.opened.lock())
    );
}

/// The largest number of `times` within one second.
fn peak(times: &[Instant]) -> usize {
    let mut recent = VecDeque::new();
    let mut most = 0;
    for time in times {
        recent.push_back(*time);
        while *time - recent[0] > Duration::from_secs(1) {
            recent.pop_front();
        }
        most = most.max(recent.len());
    }
    most
}

/// The results of all pools.
#[derive(Debug, Default)]
struct Process {
    opened: Mutex<Vec<Instant>>,
    retired: Mutex<Vec<Duration>>,
}

/// How many connections of a pool are being replaced, and the maximum so far.
#[derive(Debug, Default)]
struct Replaced(Mutex<(usize, usize)>);

#[derive(Debug)]
struct Observer {
    process: Arc<Process>,
    replaced: Arc<Replaced>,
}

impl HandleEvent for Observer {
    fn handle_acquire(&self, _: AcquireEvent) {
        self.process.opened.lock().push(Instant::now());
        let mut replaced = self.replaced.0.lock();
        replaced.0 = replaced.0.saturating_sub(1);
    }

    fn handle_release(&self, _: ReleaseEvent) {
        let mut replaced = self.replaced.0.lock();
        replaced.0 += 1;
        replaced.1 = replaced.1.max(replaced.0);
    }
}

impl HandleAuthEvent for Process {
    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        self.retired.lock().push(event.age);
    }
}
