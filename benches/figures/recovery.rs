//! How soon a pool serves again after its server was unreachable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::r2d2::{ManageConnection, NopErrorHandler, Pool};
use parking_lot::Mutex;
use rds_iam_emulator::Emulator;

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::{Figure, rounded};
use crate::measure::{median, wait_until};

/// Threads that use each pool.
const THREADS: usize = 8;
const THINK: Duration = Duration::from_millis(20);

pub(crate) fn run(bench: &Bench) {
    // Pauses reach their maximum within about 10 s, so a longer outage makes little difference. The server
    // returns at a random point in such a pause, so there is more than one round.
    let downs: &[f64] = bench.pick(&[11.0], &[28.0, 29.0, 30.0, 31.0, 32.0]);
    let emulator = emulator();
    let database = Database::of(&emulator);
    let rounds: Vec<(f64, f64)> = downs
        .iter()
        .map(|down| one_round(&emulator, &database, Duration::from_secs_f64(*down)))
        .collect();
    let ours = || rounds.iter().map(|round| round.0);
    let stock = || rounds.iter().map(|round| round.1);
    let what = bench.pick(
        "from the server's start to the first query, after 11 s down",
        "from the server's start to the first query, after about 30 s down",
    );
    let figure = Figure::new("recovery", what, "s", median(ours()))
        .against(median(stock()))
        .with("longest", rounded(ours().fold(0.0, f64::max)))
        .with(
            "longest of the baseline",
            rounded(stock().fold(0.0, f64::max)),
        )
        .with("rounds", downs.len());
    let met = figure.number("ours") <= 2.0;
    bench.results.add(figure.target("≤ 2 s", met));
}

fn one_round(emulator: &Emulator, database: &Database, down: Duration) -> (f64, f64) {
    let ours = database.manager(database.auth()).pool_builder();
    let ours = ours
        .error_handler(Box::new(NopErrorHandler))
        .build()
        .unwrap();
    let stock = Pool::builder().error_handler(Box::new(NopErrorHandler));
    let stock = stock.build(database.stock()).unwrap();

    let (ours_served, stock_served) = (Served::default(), Served::default());
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| use_pool(&ours, &ours_served, &ends));
            scope.spawn(|| use_pool(&stock, &stock_served, &ends));
        }
        wait_until("both pools to serve", || {
            ours_served.first_since_asked().is_some() && stock_served.first_since_asked().is_some()
        });
        emulator.stop_postgres().unwrap();
        thread::sleep(down);
        let start = Instant::now();
        ours_served.ask();
        stock_served.ask();
        emulator.start_postgres().unwrap();
        let since = |served: &Served| {
            wait_until("a pool to serve again", || {
                served.first_since_asked().is_some()
            });
            (served.first_since_asked().unwrap() - start).as_secs_f64()
        };
        let spans = (since(&ours_served), since(&stock_served));
        ends.store(true, Ordering::Relaxed);
        spans
    })
}

/// The time at which a pool first served a query.
#[derive(Default)]
struct Served(Mutex<Option<Instant>>);

impl Served {
    fn ask(&self) {
        *self.0.lock() = None;
    }

    fn first_since_asked(&self) -> Option<Instant> {
        *self.0.lock()
    }

    fn now(&self) {
        self.0.lock().get_or_insert_with(Instant::now);
    }
}

fn use_pool<M: ManageConnection<Connection = PgConnection>>(
    pool: &Pool<M>,
    served: &Served,
    ends: &AtomicBool,
) {
    while !ends.load(Ordering::Relaxed) {
        let connection = pool.get();
        if connection.is_ok_and(|mut connection| connection.batch_execute("SELECT 1").is_ok()) {
            served.now();
        }
        thread::sleep(THINK);
    }
}
