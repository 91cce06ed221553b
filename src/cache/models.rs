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

#[test]
fn a_cold_start_fetches_once() {
    loom::model(|| {
        let household = Household::empty();
        let other = household.spawn(|household| household.get(good));
        let mine = household.get(good).unwrap();
        let theirs = other.join().unwrap().unwrap();
        assert!(Arc::ptr_eq(&mine, &theirs));
        assert_eq!(household.bakery.visits(), 1, "fetches");
    });
}
