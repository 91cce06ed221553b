//! What the cache answers, by a clock that is moved by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Wake;
use std::thread;

use super::*;
use crate::clock::ManualClock;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// No test waits as long as this, unless it fails.
const LONG: Duration = Duration::from_secs(20);

type TestCache = Arc<Cache<Milk, Error>>;
type TestFlight = Flight<Milk, Error>;

/// Fresh for eleven minutes, dead after twenty.
#[derive(Debug, PartialEq)]
struct Milk {
    bottle: u32,
    bought: Moment,
}

impl Perishable for Milk {
    fn freshness_at(&self, now: &Moment) -> Freshness {
        if now.has_reached(&(self.bought + 20 * MINUTE)) {
            Freshness::Dead
        } else if now.has_reached(&(self.bought + 11 * MINUTE)) {
            Freshness::Aging
        } else {
            Freshness::Fresh
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Error {
    Refused(u32),
    Abandoned,
}

impl From<Abandoned> for Error {
    fn from(_: Abandoned) -> Error {
        Error::Abandoned
    }
}

/// A cache, and the clock that its age is judged by.
struct Kitchen {
    cache: TestCache,
    time: ManualClock,
}

impl Kitchen {
    fn empty() -> Kitchen {
        Kitchen {
            cache: Arc::new(Cache::new()),
            time: ManualClock::new(),
        }
    }

    /// Bottle 1, bought now.
    fn stocked() -> Kitchen {
        let kitchen = Kitchen::empty();
        kitchen.deliver(kitchen.must_fetch(), 1);
        kitchen
    }

    fn now(&self) -> Moment {
        self.time.clock().now()
    }

    fn ask(&self) -> Answer<Milk, Error> {
        self.cache.look_up(&self.now())
    }

    fn deliver(&self, flight: TestFlight, bottle: u32) -> Landed {
        let bought = self.now();
        flight.land(Ok(Milk { bottle, bought }), &bought)
    }

    fn refuse(&self, flight: TestFlight, reason: u32) -> Landed {
        flight.land(Err(Error::Refused(reason)), &self.now())
    }

    /// Asks as the first that finds nothing to use.
    #[track_caller]
    fn must_fetch(&self) -> TestFlight {
        match self.ask() {
            Answer::Wait(_, Some(flight)) => flight,
            other => panic!("{other:?}"),
        }
    }

    /// Asks as one that finds nothing to use while another fetches.
    #[track_caller]
    fn must_wait(&self) -> Landing<Milk, Error> {
        match self.ask() {
            Answer::Wait(landing, None) => landing,
            other => panic!("{other:?}"),
        }
    }

    /// Asks as one that gets a value and has a refresh to see to.
    #[track_caller]
    fn must_refresh(&self, bottle: u32) -> TestFlight {
        match self.ask() {
            Answer::Value(value, Some(flight)) if value.bottle == bottle => flight,
            other => panic!("{other:?}"),
        }
    }
}

/// In short, so that a test can say what it expects in one line.
impl fmt::Debug for Answer<Milk, Error> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flight = |flight: &Option<TestFlight>| flight.as_ref().map_or("", |_| " and fetch");
        match self {
            Answer::Value(value, it) => write!(f, "bottle {}{}", value.bottle, flight(it)),
            Answer::Wait(_, it) => write!(f, "wait{}", flight(it)),
            Answer::Failed(error) => write!(f, "{error:?}"),
        }
    }
}

#[track_caller]
fn assert_answer(kitchen: &Kitchen, expected: &str) {
    assert_eq!(format!("{:?}", kitchen.ask()), expected);
}

#[test]
fn a_value_is_fresh_then_aging_then_dead() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(11 * MINUTE - SECOND);
    assert_eq!(kitchen.cache.fresh_at(&kitchen.now()).unwrap().bottle, 1);
    assert_answer(&kitchen, "bottle 1");

    kitchen.time.advance(SECOND);
    assert_eq!(kitchen.cache.fresh_at(&kitchen.now()), None);
    let flight = kitchen.must_refresh(1);
    assert_answer(&kitchen, "bottle 1");

    kitchen.time.advance(9 * MINUTE);
    assert_eq!(kitchen.cache.peek().unwrap().bottle, 1);
    let waiting = kitchen.must_wait();
    kitchen.deliver(flight, 2);
    assert_eq!(waiting.wait(LONG).unwrap().unwrap().bottle, 2);
    assert_answer(&kitchen, "bottle 2");
}

#[test]
fn a_failure_is_remembered_for_a_second() {
    let kitchen = Kitchen::empty();
    kitchen.refuse(kitchen.must_fetch(), 1);
    assert_answer(&kitchen, "Refused(1)");
    kitchen.time.advance(SECOND - Duration::from_millis(1));
    assert_answer(&kitchen, "Refused(1)");
    kitchen.time.advance(Duration::from_millis(1));
    kitchen.deliver(kitchen.must_fetch(), 1);
    assert_answer(&kitchen, "bottle 1");
}

#[test]
fn a_wall_clock_that_steps_back_does_not_prolong_a_failure() {
    let kitchen = Kitchen::empty();
    kitchen.refuse(kitchen.must_fetch(), 1);
    kitchen.time.set_wall(kitchen.now().wall - 60 * MINUTE);
    assert_answer(&kitchen, "Refused(1)");
    kitchen.time.advance(SECOND);
    assert_answer(&kitchen, "wait and fetch");
}

#[test]
fn a_failed_refresh_leaves_the_old_value_and_the_next_ones_come_ever_later() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(11 * MINUTE);
    for (before, seconds) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let landed = kitchen.refuse(kitchen.must_refresh(1), 0);
        assert_eq!(landed.setbacks as usize, before);
        // Jitter takes away half of a pause at the most.
        let pause = seconds * SECOND;
        kitchen.time.advance(pause / 2 - Duration::from_millis(1));
        assert_answer(&kitchen, "bottle 1");
        kitchen.time.advance(pause / 2 + Duration::from_millis(1));
    }
    assert_answer(&kitchen, "bottle 1 and fetch");
}

#[test]
fn once_dead_a_value_is_worth_a_try_each_second_whatever_the_pause() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(11 * MINUTE);
    for _ in 0..8 {
        kitchen.refuse(kitchen.must_refresh(1), 1);
        kitchen.time.advance(MINUTE);
    }
    kitchen.time.advance(MINUTE - SECOND / 2);
    kitchen.refuse(kitchen.must_refresh(1), 2);
    kitchen.time.advance(SECOND / 2);
    assert_answer(&kitchen, "Refused(2)");
    kitchen.time.advance(SECOND / 2);
    kitchen.refuse(kitchen.must_fetch(), 3);
    kitchen.time.advance(SECOND);
    assert_answer(&kitchen, "wait and fetch");
}

#[test]
fn a_success_makes_up_for_all_failures() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(11 * MINUTE);
    for before in 0..5 {
        let landed = kitchen.refuse(kitchen.must_refresh(1), 1);
        assert_eq!(landed, Landed { setbacks: before });
        kitchen.time.advance(16 * SECOND);
    }
    let landed = kitchen.deliver(kitchen.must_refresh(1), 2);
    assert_eq!(landed, Landed { setbacks: 5 });

    kitchen.time.advance(11 * MINUTE);
    let landed = kitchen.refuse(kitchen.must_refresh(2), 1);
    assert_eq!(landed, Landed { setbacks: 0 });
    kitchen.time.advance(SECOND);
    assert_answer(&kitchen, "bottle 2 and fetch");
}

#[test]
fn a_value_that_arrives_aging_is_used_and_not_fetched_again_at_once() {
    let kitchen = Kitchen::empty();
    let flight = kitchen.must_fetch();
    let bought = kitchen.now() - 12 * MINUTE;
    flight.land(Ok(Milk { bottle: 1, bought }), &kitchen.now());
    assert_answer(&kitchen, "bottle 1");
    kitchen.time.advance(SECOND);
    assert_answer(&kitchen, "bottle 1 and fetch");
}

#[test]
fn only_the_very_value_is_discarded() {
    let kitchen = Kitchen::stocked();
    let first = kitchen.cache.peek().unwrap();
    assert!(kitchen.cache.discard(&first));
    assert!(!kitchen.cache.discard(&first));

    kitchen.deliver(kitchen.must_fetch(), 1);
    assert_eq!(kitchen.cache.peek().unwrap(), first, "equal, but another");
    assert!(!kitchen.cache.discard(&first));
    assert_answer(&kitchen, "bottle 1");
}

#[test]
fn a_refresh_is_waited_for_when_the_value_was_discarded_meanwhile() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(11 * MINUTE);
    let flight = kitchen.must_refresh(1);
    assert!(kitchen.cache.discard(&kitchen.cache.peek().unwrap()));
    let waiting = kitchen.must_wait();
    kitchen.deliver(flight, 2);
    assert_eq!(waiting.wait(LONG).unwrap().unwrap().bottle, 2);
}

#[test]
fn a_flight_under_way_is_shared_even_while_a_failure_is_remembered() {
    let kitchen = Kitchen::stocked();
    kitchen.time.advance(20 * MINUTE - SECOND);
    kitchen.refuse(kitchen.must_refresh(1), 1);
    kitchen.time.advance(SECOND);
    let _flight = kitchen.must_fetch();
    // By a clock that was read a moment earlier, the failure is not a second old yet.
    let earlier = kitchen.now() - SECOND / 10;
    kitchen.cache.discard(&kitchen.cache.peek().unwrap());
    let answer = kitchen.cache.look_up(&earlier);
    assert_eq!(format!("{answer:?}"), "wait");
}

#[test]
fn a_landing_is_that_of_one_flight() {
    let kitchen = Kitchen::empty();
    let flight = kitchen.must_fetch();
    let late = kitchen.must_wait();
    kitchen.refuse(flight, 1);
    kitchen.time.advance(SECOND);
    kitchen.deliver(kitchen.must_fetch(), 1);
    assert_eq!(late.wait(LONG).unwrap(), Err(Error::Refused(1)));
}

#[test]
fn waiting_has_an_end_though_the_flight_has_none() {
    let kitchen = Kitchen::empty();
    let _flight = kitchen.must_fetch();
    let landing = kitchen.must_wait();
    assert_eq!(landing.wait(Duration::from_millis(10)), None);
}

#[test]
fn a_flight_that_is_dropped_is_a_failure_for_all_and_not_the_end() {
    let kitchen = Kitchen::empty();
    let flight = kitchen.must_fetch();
    let waiting = kitchen.must_wait();
    let fetch = move || {
        let _flight = flight;
        panic!("the provider does");
    };
    catch_unwind(AssertUnwindSafe(fetch)).unwrap_err();

    assert_eq!(waiting.wait(LONG).unwrap(), Err(Error::Abandoned));
    assert_answer(&kitchen, "Abandoned");
    kitchen.time.advance(SECOND);
    kitchen.deliver(kitchen.must_fetch(), 1);
    assert_answer(&kitchen, "bottle 1");
}

/// Counts how often it woke whom it stands for.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn tasks_can_wait_as_well() {
    let kitchen = Kitchen::empty();
    let flight = kitchen.must_fetch();
    let alarms = [Arc::<Alarm>::default(), Arc::default(), Arc::default()];
    let wakers = alarms.each_ref().map(|alarm| Waker::from(alarm.clone()));
    let [mut old, mut new, mut other] = wakers.each_ref().map(Context::from_waker);

    let mut moved = pin!(kitchen.must_wait());
    let mut still = pin!(kitchen.must_wait());
    assert!(moved.as_mut().poll(&mut old).is_pending());
    assert!(still.as_mut().poll(&mut other).is_pending());
    assert!(moved.as_mut().poll(&mut new).is_pending());
    kitchen.deliver(flight, 1);

    let woken = alarms.map(|alarm| alarm.0.load(Ordering::SeqCst));
    assert_eq!(woken, [0, 1, 1], "the last waker of each, once");
    for landing in [moved, still] {
        let Poll::Ready(result) = landing.poll(&mut new) else {
            panic!("not ready");
        };
        assert_eq!(result.unwrap().bottle, 1);
    }
}

/// 64 threads ask an empty cache; one fetches; what do they get?
fn stampede(land: impl FnOnce(&Kitchen, TestFlight)) -> Vec<Result<Arc<Milk>, Error>> {
    const THREADS: usize = 64;
    let kitchen = Kitchen::empty();
    let all_have_asked = Barrier::new(THREADS + 1);
    let (flights, take_off) = mpsc::channel();

    thread::scope(|scope| {
        let ask = || {
            let (landing, flight) = match kitchen.ask() {
                Answer::Wait(landing, flight) => (landing, flight),
                other => panic!("{other:?}"),
            };
            flight.into_iter().for_each(|it| flights.send(it).unwrap());
            all_have_asked.wait();
            landing.wait(LONG).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        all_have_asked.wait();
        land(&kitchen, take_off.try_recv().unwrap());
        assert!(take_off.try_recv().is_err(), "a second flight");
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn sixty_four_threads_meet_a_cold_cache() {
    let values = stampede(|kitchen, flight| {
        kitchen.deliver(flight, 1);
    });
    let first = values[0].clone().unwrap();
    assert!(
        values
            .iter()
            .flatten()
            .all(|value| Arc::ptr_eq(value, &first))
    );
    assert_eq!(values.iter().flatten().count(), 64);
}

#[test]
fn sixty_four_threads_meet_a_cold_cache_and_a_slow_failure() {
    let failures = stampede(|kitchen, flight| {
        kitchen.time.advance(5 * SECOND);
        kitchen.refuse(flight, 1);
    });
    assert_eq!(failures, vec![Err(Error::Refused(1)); 64]);
}

#[test]
fn a_flight_can_go_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    fn is_send_sync<T: Send + Sync + 'static>() {}
    is_send::<TestFlight>();
    is_send::<Landing<Milk, Error>>();
    is_send_sync::<TestCache>();
}
