use super::*;
use crate::clock::Clock;

type TestHandoff = Handoff<u32, &'static str>;

fn now() -> Instant {
    Clock::default().now().monotonic
}

fn starts_dial(handoff: &TestHandoff, now: Instant) -> bool {
    match handoff.begin_visit(now) {
        VisitStart::Wait { starts_dial, .. } => starts_dial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dial_that_outlasts_its_visit_serves_the_next_visit() {
    let (handoff, now) = (TestHandoff::new(), now());
    assert!(starts_dial(&handoff, now));
    let departure = handoff.wait(Duration::ZERO);
    assert!(
        matches!(departure, VisitEnd::Unfinished(None)),
        "{departure:?}"
    );
    assert!(
        !starts_dial(&handoff, now + WINDOW),
        "it is still under way"
    );
    handoff.connected(7, false);
    let departure = handoff.wait(WINDOW);
    assert!(matches!(departure, VisitEnd::Connected(7)), "{departure:?}");
    assert!(starts_dial(&handoff, now));
}

/// FAULTS.md row 39: otherwise workers that overlap would keep a dropped pool for ever.
#[test]
fn all_visits_end_with_their_window() {
    let (handoff, now) = (TestHandoff::new(), now());
    assert!(starts_dial(&handoff, now));
    let later = now + WINDOW / 4;
    match handoff.begin_visit(later) {
        VisitStart::Wait { limit, .. } => assert_eq!(limit, WINDOW - WINDOW / 4),
        other => panic!("{other:?}"),
    }
    let end = now + WINDOW;
    assert!(matches!(handoff.begin_visit(end), VisitStart::Leave));
    handoff.wait(Duration::ZERO);
    assert!(
        matches!(handoff.begin_visit(end), VisitStart::Leave),
        "one is inside"
    );
    handoff.wait(Duration::ZERO);
    assert!(matches!(handoff.begin_visit(end), VisitStart::Wait { .. }));
}

/// FAULTS.md row 40: the guard of a probe was dropped where it had not been granted.
#[test]
fn there_is_one_probe_and_visits_start_no_other_dials() {
    let (handoff, now) = (TestHandoff::new(), now());
    for _ in 0..3 {
        assert!(starts_dial(&handoff, now));
    }
    assert_eq!(handoff.unreachable("down", false), Next::End);
    assert_eq!(handoff.unreachable("down", false), Next::Probe);
    assert_eq!(handoff.unreachable("down", false), Next::End);
    // The first failure is returned at once; the others wait for the probe.
    assert!(matches!(
        handoff.wait(Duration::ZERO),
        VisitEnd::Failed("down")
    ));
    for _ in 0..2 {
        let departure = handoff.wait(Duration::ZERO);
        assert!(matches!(departure, VisitEnd::Unfinished(Some("down"))));
    }
    for _ in 0..10 {
        assert!(!starts_dial(&handoff, now));
        handoff.wait(Duration::ZERO);
        assert_eq!(handoff.unreachable("down", true), Next::Probe);
    }
    handoff.connected(7, true);
    assert!(matches!(handoff.begin_visit(now), VisitStart::Ready(7)));
    assert!(starts_dial(&handoff, now));
    // The server was reached: a failure is the first again.
    assert_eq!(handoff.unreachable("down", false), Next::End);
}

#[test]
fn an_answer_ends_the_probe() {
    let (handoff, now) = (TestHandoff::new(), now());
    for _ in 0..2 {
        assert!(starts_dial(&handoff, now));
    }
    handoff.unreachable("down", false);
    assert_eq!(handoff.unreachable("down", false), Next::Probe);
    handoff.failed("refused", true);
    assert!(matches!(
        handoff.wait(Duration::ZERO),
        VisitEnd::Failed("down")
    ));
    assert!(matches!(
        handoff.wait(Duration::ZERO),
        VisitEnd::Failed("refused")
    ));
    assert!(starts_dial(&handoff, now));
}
