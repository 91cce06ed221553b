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
) -> (TestHandoff, [VisitEnd<u32, &'static str>; 2]) {
    let handoff: TestHandoff = Arc::new(Handoff::new());
    let VisitStart::Wait { limit, .. } = handoff.begin_visit(now) else {
        panic!("it must wait");
    };
    let dial = handoff.clone();
    let dial = thread::spawn(move || deliver(&dial));
    let other = handoff.clone();
    let other = thread::spawn(move || match other.begin_visit(now) {
        VisitStart::Ready(connection) => VisitEnd::Connected(connection),
        VisitStart::Wait { limit, starts_dial } => {
            if starts_dial {
                deliver(&other);
            }
            other.wait(limit)
        }
        VisitStart::Leave => panic!("no window ends"),
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
            assert!(matches!(departure, VisitEnd::Connected(7)), "{departure:?}");
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
                matches!(departure, VisitEnd::Failed("refused")),
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
            let arrival = handoff.begin_visit(now);
            assert!(matches!(
                arrival,
                VisitStart::Wait {
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
        // The first failure is returned to one worker, and the probe's connection to the other.
        let visitor = handoff.clone();
        let visitor = thread::spawn(move || visitor.wait(WINDOW));
        handoff.connected(7, true);
        let both = [handoff.wait(WINDOW), visitor.join().unwrap()];
        let is_connected = |it: &&VisitEnd<_, _>| matches!(it, VisitEnd::Connected(7));
        assert_eq!(both.iter().filter(is_connected).count(), 1, "{both:?}");
        assert!(both.iter().any(|it| matches!(it, VisitEnd::Failed("down"))));
    });
}
