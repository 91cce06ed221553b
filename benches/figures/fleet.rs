//! Simulates a day of many instances that start in the same second: how many new connections per second their
//! database receives.

use std::thread;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::figure::Figure;
use crate::lifetimes::{self, Lifetimes};

const INSTANCES: usize = 1_000;
const SIZE: u32 = 10;
/// This crate's `min_idle`.
const KEPT_IDLE: u32 = 2;

const DAY: u64 = 24 * 3600;
const MAX_LIFETIME: Duration = Duration::from_secs(14 * 60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// From the retirement of a connection until its replacement is open.
const REPLACED_WITHIN: Duration = Duration::from_millis(50);

/// The first minute is that of the start itself.
const START: u64 = 60;

/// AWS's advised limit.
const ADVISED: f64 = 200.0;

pub(crate) fn run(bench: &Bench) {
    let ours = day(busy);
    let unspread = day(|instance, opened| reaped(SIZE, MAX_LIFETIME, instance, opened));
    let idle = day(|instance, opened| {
        let limit = lifetimes::idle_timeout(IDLE_TIMEOUT);
        reaped(KEPT_IDLE, limit, instance, opened);
    });
    let idle_unspread = day(|instance, opened| reaped(KEPT_IDLE, IDLE_TIMEOUT, instance, opened));
    let peak = |opened: &[u32]| f64::from(*opened[START as usize..].iter().max().unwrap());
    let total = |opened: &[u32]| opened.iter().map(|count| u64::from(*count)).sum::<u64>();
    let baseline = peak(&unspread);
    let what = "the most connections opened in a second by 1,000 busy pools of 10 in a day";
    let figure = Figure::new("fleet", what, "connections/s", peak(&ours))
        .against(baseline)
        .with("opened in all", total(&ours))
        .with("opened in all by the baseline", total(&unspread));
    let met = peak(&ours) < ADVISED && figure.number("ratio") <= 0.05;
    bench.results.add(figure.target("< 200, ≤ 0.05 ×", met));
    let what = "the same with idle pools of two connections, beside one idle timeout for all";
    let figure = Figure::new("fleet_idle", what, "connections/s", peak(&idle))
        .against(peak(&idle_unspread))
        .with("in the first hour", peak(&idle[..3600]))
        .with(
            "in the first hour of the baseline",
            peak(&idle_unspread[..3600]),
        )
        .with("opened in all", total(&idle))
        .with("opened in all by the baseline", total(&idle_unspread));
    // A pool's limit lasts, so pools whose limits have a common multiple meet again hours later.
    let met = peak(&idle) < 400.0;
    bench.results.add(figure.target("< 400", met));
}

/// The connections that all instances open, by second.
fn day(instance: impl Fn(&mut fastrand::Rng, &mut [u32]) + Sync) -> Vec<u32> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let part = |worker: usize| {
        let mut random = fastrand::Rng::new();
        let mut opened = vec![0; DAY as usize + 3600];
        for _ in (worker..INSTANCES).step_by(workers) {
            instance(&mut random, &mut opened);
        }
        opened
    };
    thread::scope(|scope| {
        let part = &part;
        let parts: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || part(worker)))
            .collect();
        let parts = parts.into_iter().map(|part| part.join().unwrap());
        parts
            .reduce(|one, other| {
                one.iter()
                    .zip(other)
                    .map(|(one, other)| one + other)
                    .collect()
            })
            .unwrap()
    })
}

/// A pool of this crate: each connection is checked in once a second, and the library decides whether it is
/// retired.
fn busy(random: &mut fastrand::Rng, opened: &mut [u32]) {
    let origin = some_instant();
    let start = Duration::from_secs_f64(random.f64());
    let lifetimes = Lifetimes::new(Some(MAX_LIFETIME), SIZE, Duration::from_secs(10));
    let mut open = |id: u64, at: Duration| {
        lifetimes.opened_at(id, lifetimes.generation(), origin + at);
        opened[at.as_secs() as usize] += 1;
    };
    let mut next_id = 0;
    let mut connections: Vec<(u64, Duration)> = Vec::new();
    for _ in 0..SIZE {
        open(next_id, start);
        connections.push((next_id, start));
        next_id += 1;
    }
    let phases: Vec<_> = connections
        .iter()
        .map(|_| Duration::from_secs_f64(random.f64()))
        .collect();
    for second in 1..DAY {
        for ((id, born), phase) in connections.iter_mut().zip(&phases) {
            let now = Duration::from_secs(second) + *phase;
            // No connection is retired in the first half of its lifetime, and each decision takes time.
            if now < *born + MAX_LIFETIME / 2
                || lifetimes.checked_in_at(*id, origin + now).is_none()
            {
                continue;
            }
            lifetimes.closed(*id);
            (*id, *born) = (next_id, now + REPLACED_WITHIN);
            open(*id, *born);
            next_id += 1;
        }
    }
}

/// A pool that relies on r2d2, whose reaper runs every 30 s and drops all connections that are too old, or idle for
/// too long, at once.
fn reaped(size: u32, limit: Duration, random: &mut fastrand::Rng, opened: &mut [u32]) {
    const REAPER: Duration = Duration::from_secs(30);
    let start = Duration::from_secs_f64(random.f64());
    let mut born = start;
    opened[0] += size;
    let mut now = start;
    while now < Duration::from_secs(DAY) {
        now += REAPER;
        if now - born >= limit {
            born = now + REPLACED_WITHIN;
            opened[born.as_secs() as usize] += size;
        }
    }
}

/// The start of the simulated time; nothing waits for it.
fn some_instant() -> Instant {
    Instant::now()
}
