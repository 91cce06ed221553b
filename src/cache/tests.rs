//! The cache's results, with a manual clock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Wake;
use std::thread;

use super::*;
use crate::clock::ManualClock;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The time limit of waits, which only a failure reaches.
const LONG: Duration = Duration::from_secs(20);

type TestCache = Arc<Cache<TestValue, Error>>;
type TestRefresh = Refresh<TestValue, Error>;

/// Fresh for eleven minutes, expired after twenty.
#[derive(Debug, PartialEq)]
struct TestValue {
    number: u32,
    bought: Moment,
}

impl Expiring for TestValue {
    fn freshness_at(&self, now: &Moment) -> Freshness {
        if now.has_reached(&(self.bought + 20 * MINUTE)) {
            Freshness::Expired
        } else if now.has_reached(&(self.bought + 11 * MINUTE)) {
            Freshness::Stale
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

/// A cache, and the clock that decides the age of its value.
struct Fixture {
    cache: TestCache,
    time: ManualClock,
}

impl Fixture {
    fn empty() -> Fixture {
        Fixture {
            cache: Arc::new(Cache::new()),
            time: ManualClock::new(),
        }
    }

    /// Value 1, issued now.
    fn with_value() -> Fixture {
        let fixture = Fixture::empty();
        fixture.deliver(fixture.must_fetch(), 1);
        fixture
    }

    fn now(&self) -> Moment {
        self.time.clock().now()
    }

    fn ask(&self) -> Lookup<TestValue, Error> {
        self.cache.look_up(&self.now())
    }

    fn deliver(&self, refresh: TestRefresh, number: u32) -> Completed {
        let bought = self.now();
        refresh.complete(Ok(TestValue { number, bought }), &bought)
    }

    fn refuse(&self, refresh: TestRefresh, reason: u32) -> Completed {
        refresh.complete(Err(Error::Refused(reason)), &self.now())
    }

    /// Looks up as the first caller that finds no usable value.
    #[track_caller]
    fn must_fetch(&self) -> TestRefresh {
        match self.ask() {
            Lookup::Wait(_, Some(refresh)) => refresh,
            other => panic!("{other:?}"),
        }
    }

    /// Looks up as a caller that finds no usable value while another one fetches.
    #[track_caller]
    fn must_wait(&self) -> Waiter<TestValue, Error> {
        match self.ask() {
            Lookup::Wait(waiter, None) => waiter,
            other => panic!("{other:?}"),
        }
    }

    /// Looks up as a caller that gets a value and a refresh to start.
    #[track_caller]
    fn must_refresh(&self, number: u32) -> TestRefresh {
        match self.ask() {
            Lookup::Value(value, Some(refresh)) if value.number == number => refresh,
            other => panic!("{other:?}"),
        }
    }
}

/// A short form, so that a test can state the expected result in one line.
impl fmt::Debug for Lookup<TestValue, Error> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refresh = |refresh: &Option<TestRefresh>| refresh.as_ref().map_or("", |_| " and fetch");
        match self {
            Lookup::Value(value, it) => write!(f, "number {}{}", value.number, refresh(it)),
            Lookup::Wait(_, it) => write!(f, "wait{}", refresh(it)),
            Lookup::Failed(error) => write!(f, "{error:?}"),
        }
    }
}

#[track_caller]
fn assert_answer(fixture: &Fixture, expected: &str) {
    assert_eq!(format!("{:?}", fixture.ask()), expected);
}

#[test]
fn a_value_is_fresh_then_stale_then_expired() {
    let fixture = Fixture::with_value();
    fixture.time.advance(11 * MINUTE - SECOND);
    assert_eq!(fixture.cache.fresh_at(&fixture.now()).unwrap().number, 1);
    assert_answer(&fixture, "number 1");

    fixture.time.advance(SECOND);
    assert_eq!(fixture.cache.fresh_at(&fixture.now()), None);
    let refresh = fixture.must_refresh(1);
    assert_answer(&fixture, "number 1");

    fixture.time.advance(9 * MINUTE);
    assert_eq!(fixture.cache.peek().unwrap().number, 1);
    let waiting = fixture.must_wait();
    fixture.deliver(refresh, 2);
    assert_eq!(waiting.wait(LONG).unwrap().unwrap().number, 2);
    assert_answer(&fixture, "number 2");
}

#[test]
fn a_failure_is_remembered_for_a_second() {
    let fixture = Fixture::empty();
    fixture.refuse(fixture.must_fetch(), 1);
    assert_answer(&fixture, "Refused(1)");
    fixture.time.advance(SECOND - Duration::from_millis(1));
    assert_answer(&fixture, "Refused(1)");
    fixture.time.advance(Duration::from_millis(1));
    fixture.deliver(fixture.must_fetch(), 1);
    assert_answer(&fixture, "number 1");
}

#[test]
fn a_wall_clock_that_steps_back_does_not_prolong_a_failure() {
    let fixture = Fixture::empty();
    fixture.refuse(fixture.must_fetch(), 1);
    fixture.time.set_wall(fixture.now().wall - 60 * MINUTE);
    assert_answer(&fixture, "Refused(1)");
    fixture.time.advance(SECOND);
    assert_answer(&fixture, "wait and fetch");
}

#[test]
fn a_failed_refresh_leaves_the_old_value_and_retries_back_off() {
    let fixture = Fixture::with_value();
    fixture.time.advance(11 * MINUTE);
    for (before, seconds) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let completed = fixture.refuse(fixture.must_refresh(1), 0);
        assert_eq!(completed.consecutive_failures as usize, before);
        // Jitter removes half of a pause at most.
        let pause = seconds * SECOND;
        fixture.time.advance(pause / 2 - Duration::from_millis(1));
        assert_answer(&fixture, "number 1");
        fixture.time.advance(pause / 2 + Duration::from_millis(1));
    }
    assert_answer(&fixture, "number 1 and fetch");
}

#[test]
fn an_expired_value_is_refreshed_every_second_despite_back_off() {
    let fixture = Fixture::with_value();
    fixture.time.advance(11 * MINUTE);
    for _ in 0..8 {
        fixture.refuse(fixture.must_refresh(1), 1);
        fixture.time.advance(MINUTE);
    }
    fixture.time.advance(MINUTE - SECOND / 2);
    fixture.refuse(fixture.must_refresh(1), 2);
    fixture.time.advance(SECOND / 2);
    assert_answer(&fixture, "Refused(2)");
    fixture.time.advance(SECOND / 2);
    fixture.refuse(fixture.must_fetch(), 3);
    fixture.time.advance(SECOND);
    assert_answer(&fixture, "wait and fetch");
}

fn completed_after(consecutive_failures: u32) -> Completed {
    Completed {
        consecutive_failures,
        was_given_up: false,
    }
}

/// FAULTS.md row 48.
#[test]
fn a_refresh_that_was_given_up_changes_nothing() {
    let fixture = Fixture::empty();
    let (refresh, waiting) = (fixture.must_fetch(), fixture.must_wait());
    fixture.cache.give_up(&waiting);
    let other = fixture.must_fetch();
    assert!(fixture.refuse(refresh, 1).was_given_up);
    assert_eq!(waiting.wait(LONG).unwrap(), Err(Error::Refused(1)));
    // Neither the other refresh nor the recorded failures are affected.
    fixture.cache.give_up(&waiting);
    fixture.must_wait();
    assert_eq!(fixture.deliver(other, 2), completed_after(0));
    assert_answer(&fixture, "number 2");
}

#[test]
fn a_success_resets_the_back_off() {
    let fixture = Fixture::with_value();
    fixture.time.advance(11 * MINUTE);
    for before in 0..5 {
        let completed = fixture.refuse(fixture.must_refresh(1), 1);
        assert_eq!(completed, completed_after(before));
        fixture.time.advance(16 * SECOND);
    }
    let completed = fixture.deliver(fixture.must_refresh(1), 2);
    assert_eq!(completed, completed_after(5));

    fixture.time.advance(11 * MINUTE);
    let completed = fixture.refuse(fixture.must_refresh(2), 1);
    assert_eq!(completed, completed_after(0));
    fixture.time.advance(SECOND);
    assert_answer(&fixture, "number 2 and fetch");
}

#[test]
fn a_value_that_is_stale_when_fetched_is_used_and_not_refreshed_at_once() {
    let fixture = Fixture::empty();
    let refresh = fixture.must_fetch();
    let bought = fixture.now() - 12 * MINUTE;
    refresh.complete(Ok(TestValue { number: 1, bought }), &fixture.now());
    assert_answer(&fixture, "number 1");
    fixture.time.advance(SECOND);
    assert_answer(&fixture, "number 1 and fetch");
}

#[test]
fn discard_removes_exactly_the_given_value() {
    let fixture = Fixture::with_value();
    let first = fixture.cache.peek().unwrap();
    assert!(fixture.cache.discard(&first));
    assert!(!fixture.cache.discard(&first));

    fixture.deliver(fixture.must_fetch(), 1);
    assert_eq!(fixture.cache.peek().unwrap(), first, "equal, but another");
    assert!(!fixture.cache.discard(&first));
    assert_answer(&fixture, "number 1");
}

#[test]
fn callers_wait_for_a_refresh_after_the_value_was_discarded() {
    let fixture = Fixture::with_value();
    fixture.time.advance(11 * MINUTE);
    let refresh = fixture.must_refresh(1);
    assert!(fixture.cache.discard(&fixture.cache.peek().unwrap()));
    let waiting = fixture.must_wait();
    fixture.deliver(refresh, 2);
    assert_eq!(waiting.wait(LONG).unwrap().unwrap().number, 2);
}

#[test]
fn a_refresh_in_flight_takes_precedence_over_a_remembered_failure() {
    let fixture = Fixture::with_value();
    fixture.time.advance(20 * MINUTE - SECOND);
    fixture.refuse(fixture.must_refresh(1), 1);
    fixture.time.advance(SECOND);
    let _flight = fixture.must_fetch();
    // With a clock that was read a moment earlier, the failure is less than a second old.
    let earlier = fixture.now() - SECOND / 10;
    fixture.cache.discard(&fixture.cache.peek().unwrap());
    let answer = fixture.cache.look_up(&earlier);
    assert_eq!(format!("{answer:?}"), "wait");
}

#[test]
fn a_waiter_gets_the_result_of_its_own_refresh() {
    let fixture = Fixture::empty();
    let refresh = fixture.must_fetch();
    let late = fixture.must_wait();
    fixture.refuse(refresh, 1);
    fixture.time.advance(SECOND);
    fixture.deliver(fixture.must_fetch(), 1);
    assert_eq!(late.wait(LONG).unwrap(), Err(Error::Refused(1)));
}

#[test]
fn waiting_is_limited() {
    let fixture = Fixture::empty();
    let _flight = fixture.must_fetch();
    let waiter = fixture.must_wait();
    assert_eq!(waiter.wait(Duration::from_millis(10)), None);
}

#[test]
fn a_dropped_refresh_fails_for_all_and_the_cache_stays_usable() {
    let fixture = Fixture::empty();
    let refresh = fixture.must_fetch();
    let waiting = fixture.must_wait();
    let fetch = move || {
        let _flight = refresh;
        panic!("the provider does");
    };
    catch_unwind(AssertUnwindSafe(fetch)).unwrap_err();

    assert_eq!(waiting.wait(LONG).unwrap(), Err(Error::Abandoned));
    assert_answer(&fixture, "Abandoned");
    fixture.time.advance(SECOND);
    fixture.deliver(fixture.must_fetch(), 1);
    assert_answer(&fixture, "number 1");
}

/// Counts its wake-ups.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn tasks_can_wait() {
    let fixture = Fixture::empty();
    let refresh = fixture.must_fetch();
    let wakers_counted = [
        Arc::<CountingWaker>::default(),
        Arc::default(),
        Arc::default(),
    ];
    let wakers = wakers_counted
        .each_ref()
        .map(|counter| Waker::from(counter.clone()));
    let [mut old, mut new, mut other] = wakers.each_ref().map(Context::from_waker);

    let mut moved = pin!(fixture.must_wait());
    let mut still = pin!(fixture.must_wait());
    assert!(moved.as_mut().poll(&mut old).is_pending());
    assert!(still.as_mut().poll(&mut other).is_pending());
    assert!(moved.as_mut().poll(&mut new).is_pending());
    fixture.deliver(refresh, 1);

    let woken = wakers_counted.map(|counter| counter.0.load(Ordering::SeqCst));
    assert_eq!(woken, [0, 1, 1], "the last waker of each, once");
    for waiter in [moved, still] {
        let Poll::Ready(result) = waiter.poll(&mut new) else {
            panic!("not ready");
        };
        assert_eq!(result.unwrap().number, 1);
    }
}

/// 64 threads look up in an empty cache, and one fetches. Returns their results.
fn stampede(complete: impl FnOnce(&Fixture, TestRefresh)) -> Vec<Result<Arc<TestValue>, Error>> {
    const THREADS: usize = 64;
    let fixture = Fixture::empty();
    let (asked, all_asked) = mpsc::channel();
    let (refreshes, refresh) = mpsc::channel();

    thread::scope(|scope| {
        let ask = || {
            let (waiter, refresh) = match fixture.ask() {
                Lookup::Wait(waiter, refresh) => (waiter, refresh),
                other => panic!("{other:?}"),
            };
            refresh
                .into_iter()
                .for_each(|it| refreshes.send(it).unwrap());
            asked.send(()).unwrap();
            waiter.wait(LONG).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        // With a limit, so that a thread that has panicked does not keep the others waiting.
        for _ in 0..THREADS {
            all_asked.recv_timeout(LONG).unwrap();
        }
        complete(&fixture, refresh.try_recv().unwrap());
        assert!(refresh.try_recv().is_err(), "a second refresh");
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
}

#[test]
fn sixty_four_threads_share_one_fetch_on_a_cold_cache() {
    let values = stampede(|fixture, refresh| {
        fixture.deliver(refresh, 1);
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
fn sixty_four_threads_share_one_slow_failure() {
    let failures = stampede(|fixture, refresh| {
        fixture.time.advance(5 * SECOND);
        fixture.refuse(refresh, 1);
    });
    assert_eq!(failures, vec![Err(Error::Refused(1)); 64]);
}

#[test]
fn a_refresh_can_move_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    fn is_send_sync<T: Send + Sync + 'static>() {}
    is_send::<TestRefresh>();
    is_send::<Waiter<TestValue, Error>>();
    is_send_sync::<TestCache>();
}
