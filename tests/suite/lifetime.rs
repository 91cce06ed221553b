//! Lifetimes under load: connections are retired in time, a few at a time, and no checkout fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_rds_iam::{ConnectionRetired, HandleAuthEvent, RetireReason};
use parking_lot::Mutex;
use r2d2::event::{AcquireEvent, CheckinEvent, HandleEvent};

use crate::support::PATIENCE;
use crate::support::database::{auth_builder, manager_builder, shared_emulator};

const MAX_LIFETIME: Duration = Duration::from_secs(2);
const MAX_SIZE: u32 = 10;

/// A tenth of the pool.
const REPLACING_AT_MOST: i64 = 1;

/// A thread may have to wait between this test's reading of the clock and the pool's.
const BUSY_MACHINE: Duration = Duration::from_secs(1);

/// FAULTS.md row 22.
#[test]
fn lifetimes_are_kept_and_paced_under_load() {
    let observed = Arc::new(Observed::default());
    let auth = auth_builder(shared_emulator()).event_handler(observed.clone());
    let auth = auth.build().unwrap();
    let manager = manager_builder(shared_emulator()).auth(auth).build();
    let pool = manager
        .unwrap()
        .pool_builder()
        .max_size(MAX_SIZE)
        .min_idle(None)
        .max_lifetime(Some(MAX_LIFETIME))
        .connection_timeout(PATIENCE)
        .event_handler(Box::new(Tells(observed.clone())))
        .build()
        .unwrap();
    // From here on, every connection that is opened is a replacement.
    let all: Vec<_> = (0..MAX_SIZE).map(|_| pool.get().unwrap()).collect();
    observed.replacing.store(0, Ordering::SeqCst);
    drop(all);

    let begun = Instant::now();
    thread::scope(|scope| {
        // More than there are connections, so that none is ever idle for long.
        for _ in 0..MAX_SIZE + 4 {
            scope.spawn(|| {
                // Three lifetimes of each connection.
                while observed.retired.lock().len() < 3 * MAX_SIZE as usize {
                    // No checkout fails.
                    let mut connection = pool.get().unwrap();
                    connection.batch_execute("SELECT pg_sleep(0.02)").unwrap();
                    assert!(
                        begun.elapsed() < 2 * PATIENCE,
                        "connections outlive their end"
                    );
                }
            });
        }
    });

    let retired = observed.retired.lock();
    for Retired {
        event,
        replacing_before,
    } in retired.iter()
    {
        assert_eq!(event.reason, RetireReason::Lifetime);
        assert!(event.age >= MAX_LIFETIME * 9 / 10, "{event:?}");
        // A connection that was retired before its maximum had to wait for its turn.
        if event.age < MAX_LIFETIME {
            assert!(
                *replacing_before < REPLACING_AT_MOST,
                "{replacing_before} replacing: {event:?}"
            );
        }
    }
    // One at its maximum is retired at the next check-in.
    for (id, ages) in observed.returns.lock().iter() {
        let (_last, kept) = ages.split_last().unwrap();
        for age in kept {
            assert!(
                *age < MAX_LIFETIME + BUSY_MACHINE,
                "{id} came back at {age:?}"
            );
        }
    }
}

#[derive(Debug, Default)]
struct Observed {
    opened: Mutex<HashMap<u64, Instant>>,
    /// The age of each connection when it was checked in.
    returns: Mutex<HashMap<u64, Vec<Duration>>>,
    retired: Mutex<Vec<Retired>>,
    /// Retired and not replaced yet.
    replacing: AtomicI64,
}

#[derive(Debug)]
struct Retired {
    event: ConnectionRetired,
    replacing_before: i64,
}

#[derive(Debug)]
struct Tells(Arc<Observed>);

impl HandleEvent for Tells {
    fn handle_acquire(&self, event: AcquireEvent) {
        self.0.replacing.fetch_sub(1, Ordering::SeqCst);
        let id = event.connection_id();
        self.0.opened.lock().insert(id, Instant::now());
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        let id = event.connection_id();
        let age = self.0.opened.lock()[&id].elapsed();
        self.0.returns.lock().entry(id).or_default().push(age);
    }
}

impl HandleAuthEvent for Observed {
    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        self.retired.lock().push(Retired {
            event: *event,
            replacing_before: self.replacing.fetch_add(1, Ordering::SeqCst),
        });
    }
}
