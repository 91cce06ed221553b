//! The cache in every order in which its threads can run.
//!
//! A model body runs once for each order. Times are arguments and the same in each run, because a run may depend on
//! the order only.

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::*;
use crate::clock::Clock;

/// No time limit is reached in a model.
const FOREVER: Duration = Duration::MAX;

type TestCache = Arc<Cache<Value, Error>>;

/// The freshness does not change by itself here.
#[derive(Debug, PartialEq)]
struct Value {
    number: usize,
    freshness: Freshness,
}

impl Value {
    fn fresh(number: usize) -> Value {
        Value {
            number,
            freshness: Freshness::Fresh,
        }
    }
}

impl Expiring for Value {
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

/// The source of the values. It counts the fetches, and fails if two run at a time.
#[derive(Default)]
struct CountingSource {
    fetches: AtomicUsize,
    inside: AtomicUsize,
}

impl CountingSource {
    /// Returns the number of the fetch.
    fn fetch(&self) -> usize {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
        let number = self.fetches.fetch_add(1, Ordering::SeqCst);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        number
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Callers {
    cache: TestCache,
    source: Arc<CountingSource>,
    now: Moment,
}

impl Callers {
    fn empty() -> Callers {
        Callers {
            cache: Arc::new(Cache::new()),
            source: Arc::default(),
            now: Clock::default().now(),
        }
    }

    /// A cache with an old value, whose number differs from those of the source.
    fn with_stale_value() -> Callers {
        let callers = Callers::empty();
        let old = Value {
            number: 100,
            freshness: Freshness::Stale,
        };
        *callers.cache.value.write() = Some(Arc::new(old));
        callers
    }

    /// Looks a value up, and then fetches or waits as the lookup requires.
    fn get(&self, result: fn(usize) -> Result<Value, Error>) -> Result<Arc<Value>, Error> {
        let fetch = |refresh: Option<Refresh<Value, Error>>| {
            if let Some(refresh) = refresh {
                refresh.complete(result(self.source.fetch()), &self.now);
            }
        };
        match self.cache.look_up(&self.now) {
            Lookup::Value(value, refresh) => {
                fetch(refresh);
                Ok(value)
            }
            Lookup::Wait(waiter, refresh) => {
                fetch(refresh);
                waiter.wait(FOREVER).unwrap()
            }
            Lookup::Failed(error) => Err(error),
        }
    }

    fn spawn<T: 'static>(
        &self,
        body: impl FnOnce(Callers) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let callers = self.clone();
        thread::spawn(move || body(callers))
    }
}

fn good(number: usize) -> Result<Value, Error> {
    Ok(Value::fresh(number))
}

fn bad(number: usize) -> Result<Value, Error> {
    Err(Error::Refused(number))
}

/// For a model with too many orders to run all of them: those in which a thread is preempted up to three times. Most
/// bugs need one or two preemptions.
fn large_model(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}

#[test]
fn a_cold_start_fetches_once() {
    loom::model(|| {
        let callers = Callers::empty();
        let other = callers.spawn(|callers| callers.get(good));
        let mine = callers.get(good).unwrap();
        let theirs = other.join().unwrap().unwrap();
        assert_eq!(callers.source.fetches(), 1, "fetches");
        assert!(Arc::ptr_eq(&mine, &theirs));
    });
}

#[test]
fn a_cold_start_of_three_fetches_once() {
    large_model(|| {
        let callers = Callers::empty();
        let others = [(); 2].map(|()| callers.spawn(|callers| callers.get(good)));
        let mine = callers.get(good).unwrap();
        let theirs = others.map(|other| other.join().unwrap().unwrap());
        assert_eq!(callers.source.fetches(), 1, "fetches");
        assert!(theirs.iter().all(|value| Arc::ptr_eq(&mine, value)));
    });
}

#[test]
fn a_stale_value_is_used_without_waiting_and_refreshed_once() {
    fn get(callers: Callers) {
        match callers.cache.look_up(&callers.now) {
            Lookup::Value(_, Some(refresh)) => {
                refresh.complete(good(callers.source.fetch()), &callers.now);
            }
            Lookup::Value(_, None) => {}
            Lookup::Wait(..) | Lookup::Failed(_) => panic!("there is a value to use"),
        }
    }

    large_model(|| {
        let callers = Callers::with_stale_value();
        let others = [(); 2].map(|()| callers.spawn(get));
        get(callers.clone());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(callers.source.fetches(), 1, "fetches");
        assert_eq!(*callers.cache.peek().unwrap(), Value::fresh(0));
    });
}

#[test]
fn a_failed_refresh_keeps_the_old_value() {
    loom::model(|| {
        let callers = Callers::with_stale_value();
        let other = callers.spawn(|callers| callers.get(bad));
        let mine = callers.get(bad).unwrap();
        assert_eq!(mine.number, 100);
        assert!(Arc::ptr_eq(&mine, &other.join().unwrap().unwrap()));
        assert!(Arc::ptr_eq(&mine, &callers.cache.peek().unwrap()));
        assert_eq!(callers.source.fetches(), 1, "fetches");
    });
}

#[test]
fn a_failure_is_shared() {
    large_model(|| {
        let callers = Callers::empty();
        let others = [(); 2].map(|()| callers.spawn(|callers| callers.get(bad)));
        assert_eq!(callers.get(bad), Err(Error::Refused(0)));
        for other in others {
            assert_eq!(other.join().unwrap(), Err(Error::Refused(0)));
        }
        assert_eq!(callers.source.fetches(), 1, "fetches");
    });
}

#[test]
fn there_is_one_refresh_at_a_time() {
    // Each thread discards its value and looks another up, so that refreshes follow one another closely.
    fn get_twice(callers: Callers) {
        let first = callers.get(good).unwrap();
        callers.cache.discard(&first);
        let second = callers.get(good).unwrap();
        assert!(second.number >= first.number, "an older one came back");
    }

    large_model(|| {
        let callers = Callers::empty();
        let other = callers.spawn(get_twice);
        get_twice(callers.clone());
        other.join().unwrap();
        let fetches = callers.source.fetches();
        assert!((1..=3).contains(&fetches), "{fetches} fetches");
    });
}

#[test]
fn a_dropped_refresh_leaves_the_cache_usable() {
    fn get_with_a_panic(callers: Callers) -> Error {
        match callers.cache.look_up(&callers.now) {
            Lookup::Wait(waiter, refresh) => {
                drop(refresh);
                waiter.wait(FOREVER).unwrap().unwrap_err()
            }
            Lookup::Failed(error) => error,
            Lookup::Value(..) => panic!("there is no value"),
        }
    }

    loom::model(|| {
        let mut callers = Callers::empty();
        let other = callers.spawn(get_with_a_panic);
        assert_eq!(get_with_a_panic(callers.clone()), Error::Abandoned);
        assert_eq!(other.join().unwrap(), Error::Abandoned);

        callers.now = callers.now + FAILURE_REMEMBERED;
        assert_eq!(*callers.get(good).unwrap(), Value::fresh(0));
    });
}

#[test]
fn a_discard_never_hits_the_value_that_a_refresh_stores_meanwhile() {
    loom::model(|| {
        let callers = Callers::with_stale_value();
        let Lookup::Value(old, Some(refresh)) = callers.cache.look_up(&callers.now) else {
            panic!("a refresh is due");
        };
        let other = callers.spawn(move |callers| callers.cache.discard(&old));
        refresh.complete(good(0), &callers.now);
        other.join().unwrap();
        assert_eq!(*callers.cache.peek().unwrap(), Value::fresh(0));
    });
}

#[test]
fn a_waiter_gets_the_result_of_its_own_refresh_and_not_of_the_next() {
    loom::model(|| {
        let callers = Callers::empty();
        let Lookup::Wait(waiter, Some(refresh)) = callers.cache.look_up(&callers.now) else {
            panic!("there is nothing to use");
        };
        let other = callers.spawn(move |_| waiter.wait(FOREVER).unwrap());
        refresh.complete(bad(0), &callers.now);
        let later = Callers {
            now: callers.now + FAILURE_REMEMBERED,
            ..callers
        };
        assert_eq!(*later.get(good).unwrap(), Value::fresh(0));
        assert_eq!(other.join().unwrap(), Err(Error::Refused(0)));
    });
}

#[test]
fn a_waiting_task_is_woken() {
    loom::model(|| {
        let callers = Callers::empty();
        let Lookup::Wait(waiter, Some(refresh)) = callers.cache.look_up(&callers.now) else {
            panic!("there is nothing to use");
        };
        let other = callers.spawn(move |callers| refresh.complete(good(0), &callers.now));
        assert_eq!(*block_on(waiter).unwrap(), Value::fresh(0));
        other.join().unwrap();
    });
}

#[test]
fn a_caller_that_has_waited_finds_the_refresh_completed() {
    for result in [good, bad] {
        loom::model(move || {
            let callers = Callers::empty();
            let Lookup::Wait(waiter, Some(refresh)) = callers.cache.look_up(&callers.now) else {
                panic!("there is nothing to use");
            };
            let other = callers.spawn(move |callers| {
                let told = waiter.wait(FOREVER).unwrap();
                match callers.cache.look_up(&callers.now) {
                    Lookup::Value(value, None) => assert_eq!(Ok(value), told),
                    Lookup::Failed(error) => assert_eq!(Err(error), told),
                    Lookup::Value(_, Some(_)) | Lookup::Wait(..) => panic!("another refresh"),
                }
            });
            refresh.complete(result(0), &callers.now);
            other.join().unwrap();
        });
    }
}
