//! The handoff in every order in which its threads can run. No limit is reached in a model.

use std::sync::Arc;

use loom::thread;

use super::*;
use crate::clock::Clock;

type TestHandoff = Arc<Handoff<u32, &'static str>>;

fn now() -> Instant {
    Clock::default().now().monotonic
}

/// One worker that dials on another thread, and one that delivers its result before it waits, at the same
/// time. Returns what both leave with.
fn two_visits(
    now: Instant,
    deliver: fn(&Handoff<u32, &'static str>),
) -> (TestHandoff, [Departure<u32, &'static str>; 2]) {
    let handoff: TestHandoff = Arc::new(Handoff::new());
    let Arrival::Wait { limit, .. } = handoff.arrive_at(now) else {
        panic!("it must wait");
    };
    let dial = handoff.clone();
    let dial = thread::spawn(move || deliver(&dial));
    let other = handoff.clone();
    let other = thread::spawn(move || match other.arrive_at(now) {
        Arrival::Ready(connection) => Departure::Connected(connection),
        Arrival::Wait { limit, starts_dial } => {
            if starts_dial {
                deliver(&other);
            }
            other.wait(limit)
        }
        Arrival::Leave => panic!("no window ends"),
    });
    let first = handoff.wait(limit);
    dial.join().unwrap();
    (handoff, [first, other.join().unwrap()])
}

#[test]
fn every_worker_gets_a_connection() {
    let now = now();
    loom::model(move || {
        let (_, departures) = two_visits(now, |handoff| handoff.connected(7, false));
        for departure in departures {
            assert!(
                matches!(departure, Departure::Connected(7)),
                "{departure:?}"
            );
        }
    });
}

#[test]
fn every_worker_gets_a_failure() {
    let now = now();
    loom::model(move || {
        let (_, departures) = two_visits(now, |handoff| handoff.failed("refused", false));
        for departure in departures {
            assert!(
                matches!(departure, Departure::Failed("refused")),
                "{departure:?}"
            );
        }
    });
}

/// Of two dials that find the server unreachable, one becomes the probe.
#[test]
fn there_is_one_probe() {
    loom::model(|| {
        let handoff: TestHandoff = Arc::new(Handoff::new());
        let now = now();
        for _ in 0..2 {
            let arrival = handoff.arrive_at(now);
            assert!(matches!(
                arrival,
                Arrival::Wait {
                    starts_dial: true,
                    ..
                }
            ));
        }
        let other = handoff.clone();
        let other = thread::spawn(move || other.unreachable("down", false));
        let mut nexts = [handoff.unreachable("down", false), other.join().unwrap()];
        nexts.sort_by_key(|next| *next == Next::Probe);
        assert_eq!(nexts, [Next::End, Next::Probe]);
        // The first failure is returned to one worker, the probe's connection to the other.
        let visitor = handoff.clone();
        let visitor = thread::spawn(move || visitor.wait(WINDOW));
        handoff.connected(7, true);
        let both = [handoff.wait(WINDOW), visitor.join().unwrap()];
        let is_connected = |it: &&Departure<_, _>| matches!(it, Departure::Connected(7));
        assert_eq!(both.iter().filter(is_connected).count(), 1, "{both:?}");
        assert!(
            both.iter()
                .any(|it| matches!(it, Departure::Failed("down")))
        );
    });
}
