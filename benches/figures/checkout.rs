//! The cost that the manager and the pool's lifetimes add to a checkout.

use std::time::Duration;

use diesel_rds_iam::r2d2::{ManageConnection, Pool};

use crate::database::{Database, emulator};
use crate::figure::Figure;
use crate::{Bench, callgrind};

/// Probes: a pool of this crate or a stock one, with the checkout test, which is the default of both, or
/// without.
pub(crate) const PROBES: [&str; 4] = [
    "checkout_ours",
    "checkout_stock",
    "checkout_ours_untested",
    "checkout_stock_untested",
];

/// Part of the name of the function in which callgrind counts.
const COUNTED: &str = "check_out_and_in";

pub(crate) fn run(bench: &Bench) {
    if !bench.has_valgrind("checkout") {
        return;
    }
    let emulator = emulator();
    let database = Database::of(&emulator);
    let count = |probe| callgrind::instructions(probe, 1_000, Some(COUNTED), Some(&database));
    let [ours, stock, ours_untested, stock_untested] = PROBES.map(count);
    let null = count(PROBES[1]) / stock;
    let what = "a get, has_broken and return, with the round trip that tries the connection";
    let figure = Figure::new("checkout", what, "instructions", ours)
        .against(stock)
        .with("null", crate::figure::rounded(null));
    bench.results.add(figure.ratio_at_most(1.03));
    let what = "the same without the round trip";
    let figure = Figure::new("checkout_untested", what, "instructions", ours_untested);
    bench.results.add(
        figure
            .against(stock_untested)
            .with("more", (ours_untested - stock_untested).round()),
    );
}

/// Runs as a child, under callgrind.
pub(crate) fn probe(name: &str, times: u64, database: &Database) {
    let test = !name.ends_with("untested");
    if name.starts_with("checkout_ours") {
        let pool = database.manager(database.auth()).pool_builder();
        repeat(times, &pool.test_on_check_out(test).build().unwrap());
    } else {
        // With the same r2d2 settings as the other pool.
        let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        let pool = Pool::builder()
            .test_on_check_out(test)
            .max_size(10)
            .min_idle(Some(2))
            .max_lifetime(minutes(14))
            .idle_timeout(minutes(10));
        repeat(times, &pool.build(database.stock()).unwrap());
    }
}

fn repeat<M: ManageConnection>(times: u64, pool: &Pool<M>) {
    // Opens the connections and warms the caches.
    drop(pool.get().unwrap());
    for _ in 0..times {
        check_out_and_in(pool);
    }
}

#[inline(never)]
fn check_out_and_in<M: ManageConnection>(pool: &Pool<M>) {
    drop(pool.get().unwrap());
}
