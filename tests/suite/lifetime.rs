//! Lives under load: kept, paced, and noticed by nobody.

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
const AWAY_AT_MOST: i64 = 1;

/// Between the clock that this test reads and the one that the pool has read, a thread may have to
/// wait for its turn.
const BUSY_MACHINE: Duration = Duration::from_secs(1);

/// FAULTS.md row 22.
#[test]
fn lifetimes_are_kept_and_paced_under_load() {
    let lives = Arc::new(Lives::default());
    let auth = auth_builder(shared_emulator()).event_handler(lives.clone());
    let auth = auth.build().unwrap();
    let manager = manager_builder(shared_emulator()).auth(auth).build();
    let pool = manager
        .unwrap()
        .pool_builder()
        .max_size(MAX_SIZE)
        .min_idle(None)
        .max_lifetime(Some(MAX_LIFETIME))
        .connection_timeout(PATIENCE)
        .event_handler(Box::new(Tells(lives.clone())))
        .build()
        .unwrap();
    // From here on, whatever is opened is a replacement.
    let all: Vec<_> = (0..MAX_SIZE).map(|_| pool.get().unwrap()).collect();
    lives.away.store(0, Ordering::SeqCst);
    drop(all);

    let begun = Instant::now();
    thread::scope(|scope| {
        // More than there are connections, so that none is ever idle for long.
        for _ in 0..MAX_SIZE + 4 {
            scope.spawn(|| {
                // Three lives of each.
                while lives.retired.lock().len() < 3 * MAX_SIZE as usize {
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

    let retired = lives.retired.lock();
    for Retired { event, away_before } in retired.iter() {
        assert_eq!(event.reason, RetireReason::Lifetime);
        assert!(event.age >= MAX_LIFETIME * 9 / 10, "{event:?}");
        // Before its maximum, it had to wait for its turn.
        if event.age < MAX_LIFETIME {
            assert!(*away_before < AWAY_AT_MOST, "{away_before} away: {event:?}");
        }
    }
    // At its maximum, the next return to the pool is the last.
    for (id, ages) in lives.returns.lock().iter() {
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
struct Lives {
    opened: Mutex<HashMap<u64, Instant>>,
    /// How old each connection was when it was returned to the pool.
    returns: Mutex<HashMap<u64, Vec<Duration>>>,
    retired: Mutex<Vec<Retired>>,
    /// Retired and not replaced yet.
    away: AtomicI64,
}

#[derive(Debug)]
struct Retired {
    event: ConnectionRetired,
    away_before: i64,
}

#[derive(Debug)]
struct Tells(Arc<Lives>);

impl HandleEvent for Tells {
    fn handle_acquire(&self, event: AcquireEvent) {
        self.0.away.fetch_sub(1, Ordering::SeqCst);
        let id = event.connection_id();
        self.0.opened.lock().insert(id, Instant::now());
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        let id = event.connection_id();
        let age = self.0.opened.lock()[&id].elapsed();
        self.0.returns.lock().entry(id).or_default().push(age);
    }
}

impl HandleAuthEvent for Lives {
    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        self.retired.lock().push(Retired {
            event: *event,
            away_before: self.away.fetch_add(1, Ordering::SeqCst),
        });
    }
}
