//! The cache in every order in which its threads can run.
//!
//! A model body runs once for each order. Times are given, and the same in each run: nothing here
//! may depend on anything but that order.

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::*;
use crate::clock::Clock;

/// Nothing is timed out in a model.
const FOREVER: Duration = Duration::MAX;

type TestCache = Arc<Cache<Loaf, Error>>;

/// How fresh it is does not change by itself here.
#[derive(Debug, PartialEq)]
struct Loaf {
    number: usize,
    freshness: Freshness,
}

impl Loaf {
    fn fresh(number: usize) -> Loaf {
        Loaf {
            number,
            freshness: Freshness::Fresh,
        }
    }
}

impl Perishable for Loaf {
    fn freshness_at(&self, _: &Moment) -> Freshness {
        self.freshness
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Error {
    Refused(usize),
    Abandoned,
}

impl From<Abandoned> for Error {
    fn from(_: Abandoned) -> Error {
        Error::Abandoned
    }
}

/// Where the loaves come from: counts the fetches, and fails when there are two at a time.
#[derive(Default)]
struct Bakery {
    visits: AtomicUsize,
    inside: AtomicUsize,
}

impl Bakery {
    /// Comes back with the number of the visit.
    fn visit(&self) -> usize {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        let number = self.visits.fetch_add(1, Ordering::SeqCst);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        number
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Household {
    cache: TestCache,
    bakery: Arc<Bakery>,
    now: Moment,
}

impl Household {
    fn empty() -> Household {
        Household {
            cache: Arc::new(Cache::new()),
            bakery: Arc::default(),
            now: Clock::default().now(),
        }
    }

    /// One with an old loaf, whose number is far from those of the bakery.
    fn with_old_loaf() -> Household {
        let household = Household::empty();
        let old = Loaf {
            number: 100,
            freshness: Freshness::Aging,
        };
        *household.cache.value.write() = Some(Arc::new(old));
        household
    }

    /// Asks, fetches when told to, waits when told to.
    fn get(&self, result: fn(usize) -> Result<Loaf, Error>) -> Result<Arc<Loaf>, Error> {
        let fetch = |flight: Option<Flight<Loaf, Error>>| {
            if let Some(flight) = flight {
                flight.land(result(self.bakery.visit()), &self.now);
            }
        };
        match self.cache.look_up(&self.now) {
            Answer::Value(loaf, flight) => {
                fetch(flight);
                Ok(loaf)
            }
            Answer::Wait(landing, flight) => {
                fetch(flight);
                landing.wait(FOREVER).unwrap()
            }
            Answer::Failed(error) => Err(error),
        }
    }

    fn spawn<T: 'static>(
        &self,
        body: impl FnOnce(Household) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let household = self.clone();
        thread::spawn(move || body(household))
    }
}

fn good(number: usize) -> Result<Loaf, Error> {
    Ok(Loaf::fresh(number))
}

fn bad(number: usize) -> Result<Loaf, Error> {
    Err(Error::Refused(number))
}

/// For a model with too many orders to try them all: those in which up to three times a thread that
/// could have gone on has to let another go first. Mistakes need one or two.
fn large_model(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}

#[test]
fn a_cold_start_fetches_once() {
    loom::model(|| {
        let household = Household::empty();
        let other = household.spawn(|household| household.get(good));
        let mine = household.get(good).unwrap();
        let theirs = other.join().unwrap().unwrap();
        assert_eq!(household.bakery.visits(), 1, "fetches");
        assert!(Arc::ptr_eq(&mine, &theirs));
    });
}

#[test]
fn a_cold_start_of_three_fetches_once() {
    large_model(|| {
        let household = Household::empty();
        let others = [(); 2].map(|()| household.spawn(|household| household.get(good)));
        let mine = household.get(good).unwrap();
        let theirs = others.map(|other| other.join().unwrap().unwrap());
        assert_eq!(household.bakery.visits(), 1, "fetches");
        assert!(theirs.iter().all(|loaf| Arc::ptr_eq(&mine, loaf)));
    });
}

#[test]
fn an_aging_value_is_used_without_waiting_and_fetched_once() {
    fn get(household: Household) {
        match household.cache.look_up(&household.now) {
            Answer::Value(_, Some(flight)) => {
                flight.land(good(household.bakery.visit()), &household.now);
            }
            Answer::Value(_, None) => {}
            Answer::Wait(..) | Answer::Failed(_) => panic!("there is a value to use"),
        }
    }

    large_model(|| {
        let household = Household::with_old_loaf();
        let others = [(); 2].map(|()| household.spawn(get));
        get(household.clone());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(household.bakery.visits(), 1, "fetches");
        assert_eq!(*household.cache.peek().unwrap(), Loaf::fresh(0));
    });
}

#[test]
fn a_failed_refresh_keeps_the_old_value() {
    loom::model(|| {
        let household = Household::with_old_loaf();
        let other = household.spawn(|household| household.get(bad));
        let mine = household.get(bad).unwrap();
        assert_eq!(mine.number, 100);
        assert!(Arc::ptr_eq(&mine, &other.join().unwrap().unwrap()));
        assert!(Arc::ptr_eq(&mine, &household.cache.peek().unwrap()));
        assert_eq!(household.bakery.visits(), 1, "fetches");
    });
}

#[test]
fn a_failure_is_shared() {
    large_model(|| {
        let household = Household::empty();
        let others = [(); 2].map(|()| household.spawn(|household| household.get(bad)));
        assert_eq!(household.get(bad), Err(Error::Refused(0)));
        for other in others {
            assert_eq!(other.join().unwrap(), Err(Error::Refused(0)));
        }
        assert_eq!(household.bakery.visits(), 1, "fetches");
    });
}

#[test]
fn there_are_never_two_flights_at_once() {
    // Each discards what it got and asks again, so that flights follow one another closely.
    fn get_twice(household: Household) {
        let first = household.get(good).unwrap();
        household.cache.discard(&first);
        let second = household.get(good).unwrap();
        assert!(second.number >= first.number, "an older one came back");
    }

    large_model(|| {
        let household = Household::empty();
        let other = household.spawn(get_twice);
        get_twice(household.clone());
        other.join().unwrap();
        let visits = household.bakery.visits();
        assert!((1..=3).contains(&visits), "{visits} fetches");
    });
}

#[test]
fn a_flight_that_is_dropped_leaves_the_cache_usable() {
    fn get_with_a_panic(household: Household) -> Error {
        match household.cache.look_up(&household.now) {
            Answer::Wait(landing, flight) => {
                drop(flight);
                landing.wait(FOREVER).unwrap().unwrap_err()
            }
            Answer::Failed(error) => error,
            Answer::Value(..) => panic!("there is no value"),
        }
    }

    loom::model(|| {
        let mut household = Household::empty();
        let other = household.spawn(get_with_a_panic);
        assert_eq!(get_with_a_panic(household.clone()), Error::Abandoned);
        assert_eq!(other.join().unwrap(), Error::Abandoned);

        household.now = household.now + FAILURE_REMEMBERED;
        assert_eq!(*household.get(good).unwrap(), Loaf::fresh(0));
    });
}

#[test]
fn a_discard_never_hits_the_value_that_lands_meanwhile() {
    loom::model(|| {
        let household = Household::with_old_loaf();
        let Answer::Value(old, Some(flight)) = household.cache.look_up(&household.now) else {
            panic!("a refresh is due");
        };
        let other = household.spawn(move |household| household.cache.discard(&old));
        flight.land(good(0), &household.now);
        other.join().unwrap();
        assert_eq!(*household.cache.peek().unwrap(), Loaf::fresh(0));
    });
}

#[test]
fn a_waiter_is_told_of_its_own_flight_and_not_of_the_next() {
    loom::model(|| {
        let household = Household::empty();
        let Answer::Wait(landing, Some(flight)) = household.cache.look_up(&household.now) else {
            panic!("there is nothing to use");
        };
        let other = household.spawn(move |_| landing.wait(FOREVER).unwrap());
        flight.land(bad(0), &household.now);
        let later = Household {
            now: household.now + FAILURE_REMEMBERED,
            ..household
        };
        assert_eq!(*later.get(good).unwrap(), Loaf::fresh(0));
        assert_eq!(other.join().unwrap(), Err(Error::Refused(0)));
    });
}

#[test]
fn a_task_that_waits_is_woken() {
    loom::model(|| {
        let household = Household::empty();
        let Answer::Wait(landing, Some(flight)) = household.cache.look_up(&household.now) else {
            panic!("there is nothing to use");
        };
        let other = household.spawn(move |household| flight.land(good(0), &household.now));
        assert_eq!(*block_on(landing).unwrap(), Loaf::fresh(0));
        other.join().unwrap();
    });
}

#[test]
fn whoever_has_waited_finds_the_flight_over() {
    for result in [good, bad] {
        loom::model(move || {
            let household = Household::empty();
            let Answer::Wait(landing, Some(flight)) = household.cache.look_up(&household.now)
            else {
                panic!("there is nothing to use");
            };
            let other = household.spawn(move |household| {
                let told = landing.wait(FOREVER).unwrap();
                match household.cache.look_up(&household.now) {
                    Answer::Value(loaf, None) => assert_eq!(Ok(loaf), told),
                    Answer::Failed(error) => assert_eq!(Err(error), told),
                    Answer::Value(_, Some(_)) | Answer::Wait(..) => panic!("another flight"),
                }
            });
            flight.land(result(0), &household.now);
            other.join().unwrap();
        });
    }
}
