//! Whether callers notice that connections and tokens are replaced under load.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_rds_iam::PgPool;
use diesel_rds_iam::r2d2::{ManageConnection, Pool};

use crate::Bench;
use crate::chart::{Band, Chart, Series};
use crate::database::{Database, emulator};
use crate::figure::{Figure, rounded};
use crate::measure::{median, quantile, rounds, wait_until};

const THREADS: usize = 16;
const SIZE: u32 = 10;

/// The behaviour of a caller: how long it holds a connection, and then needs none.
const HOLD: Duration = Duration::from_millis(2);
const THINK: Duration = Duration::from_millis(12);

/// The lifetime of connections. The scale is 1 to 84: their retirements are spread over a second, which stands
/// for 84 s of 14 minutes.
const MAX_LIFETIME: Duration = Duration::from_secs(10);

/// With this lifetime, tokens are replaced as often as connections.
const TOKEN_LIFETIME: Duration = Duration::from_secs(15);

/// How much earlier than the others the pool is due that replaces all connections at once. Two cores cannot
/// open ten connections at once without an effect on all pools, including those that never rotate, so nothing
/// else is replaced meanwhile.
const AHEAD: Duration = Duration::from_secs(5);

/// One `get`: when it began, and how long it took, in seconds.
#[derive(Clone, Copy)]
struct Get {
    at: f64,
    took: f64,
}

/// The `get`s of the callers of four pools in one round.
struct Round {
    rotating: Vec<Get>,
    lasting: Vec<Get>,
    null: Vec<Get>,
    ending_at_once: Vec<Get>,
}

pub(crate) fn run(bench: &Bench) {
    let emulator = emulator();
    let database = Database::of(&emulator);
    let rotations = bench.pick(1, 2);
    let rounds = rounds(3, || one_round(&database, rotations));
    let tail = |gets: fn(&Round) -> &Vec<Get>, counts: fn(&Get) -> bool| -> Vec<f64> {
        let tail_of = |round| {
            let counted = gets(round).iter().filter(|get| counts(get));
            let mut times: Vec<f64> = counted.map(|get| get.took * 1e3).collect();
            quantile(&mut times, 0.999)
        };
        rounds.kept.iter().map(tail_of).collect()
    };
    let apart = |get: &Get| !is_while_all_end_at_once(get.at);
    let rotating = tail(|round| &round.rotating, apart);
    let lasting = tail(|round| &round.lasting, apart);
    let null = tail(|round| &round.null, apart);
    let rotating_throughout = tail(|round| &round.rotating, |_| true);
    let ending_at_once = tail(|round| &round.ending_at_once, |_| true);
    let ratio = |ours: &[f64], theirs: &[f64]| {
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        rounded(median(ratios))
    };
    let to_first = ratio(&rotating, &lasting);
    let to_second = ratio(&rotating_throughout, &ending_at_once);

    let what = "99.9 % of `get()` take at most this, beside a pool that never rotates";
    let figure = Figure::new("rotation_stall", what, "ms", median(rotating.clone()))
        .against(median(lasting.clone()))
        .with("ratio", to_first)
        .with("null", ratio(&null, &lasting))
        .rounds(rounds.dropped, rounds.disturbed)
        .ratio_at_most(1.3);
    bench.results.add(figure);
    let what = "the same beside a pool whose connections all end at the maximum";
    let ours = median(rotating_throughout);
    let figure = Figure::new("rotation_stall_at_once", what, "ms", ours)
        .against(median(ending_at_once))
        .with("ratio", to_second)
        .target("< 1 ×", to_second < 1.0);
    bench.results.add(figure);

    // The least disturbed round.
    let round = rounds.kept.first().unwrap();
    draw(round, &bench.output("docs/rotation.svg"));
}

/// Whether the last pool's connections are all replaced at this moment of the round.
fn is_while_all_end_at_once(at: f64) -> bool {
    let since_an_end = (at + AHEAD.as_secs_f64()) % MAX_LIFETIME.as_secs_f64();
    let until_the_next = MAX_LIFETIME.as_secs_f64() - since_an_end;
    since_an_end < 1.0 || until_the_next < 0.5
}

/// The time after this many rotations of the pools that rotate.
fn one_round(database: &Database, rotations: u32) -> Round {
    let never = || lasting(database);
    let (lasting, null) = (never(), never());
    // Created last, so that all of their lifetimes begin with the round.
    let at_once = filled(
        stock_builder()
            .build(Ageing::ahead(database.stock()))
            .unwrap(),
    );
    let rotating = filled(rotating(database));

    let span = MAX_LIFETIME * rotations + MAX_LIFETIME / 2;
    let barrier = Barrier::new(4 * THREADS);
    thread::scope(|scope| {
        let users = [
            spawn_users(scope, &rotating, &barrier, span),
            spawn_users(scope, &lasting, &barrier, span),
            spawn_users(scope, &null, &barrier, span),
            spawn_users(scope, &at_once, &barrier, span),
        ];
        let [rotating, lasting, null, ending_at_once] = users.map(|users| {
            let gets = users.into_iter().flat_map(|user| user.join().unwrap());
            gets.collect()
        });
        Round {
            rotating,
            lasting,
            null,
            ending_at_once,
        }
    })
}

/// A pool of this crate, with the r2d2 settings of the others except for the lifetime.
fn rotating(database: &Database) -> PgPool {
    let manager = database.manager(database.auth_living(TOKEN_LIFETIME));
    let builder = manager.pool_builder().max_size(SIZE).min_idle(None);
    let builder = builder.max_lifetime(Some(MAX_LIFETIME)).idle_timeout(None);
    builder.build().unwrap()
}

fn lasting(database: &Database) -> Pool<ConnectionManager<PgConnection>> {
    filled(stock_builder().build(database.stock()).unwrap())
}

fn stock_builder<M: ManageConnection>() -> diesel_rds_iam::r2d2::Builder<M> {
    Pool::builder()
        .max_size(SIZE)
        .max_lifetime(None)
        .idle_timeout(None)
        .connection_timeout(Duration::from_secs(10))
}

fn filled<M: ManageConnection>(pool: Pool<M>) -> Pool<M> {
    wait_until("a full pool", || pool.state().idle_connections == SIZE);
    pool
}

type Users<'a> = Vec<thread::ScopedJoinHandle<'a, Vec<Get>>>;

fn spawn_users<'scope, 'env, M: ManageConnection>(
    scope: &'scope thread::Scope<'scope, 'env>,
    pool: &'env Pool<M>,
    barrier: &'env Barrier,
    span: Duration,
) -> Users<'scope> {
    let user = move |number: usize| {
        barrier.wait();
        let start = Instant::now();
        // So that callers do not run in step.
        thread::sleep(THINK * u32::try_from(number).unwrap() / THREADS as u32);
        let mut gets = Vec::with_capacity(4_000);
        while start.elapsed() < span {
            let asked = Instant::now();
            let connection = pool.get().unwrap();
            gets.push(Get {
                at: (asked - start).as_secs_f64(),
                took: asked.elapsed().as_secs_f64(),
            });
            thread::sleep(HOLD);
            drop(connection);
            thread::sleep(THINK);
        }
        gets
    };
    (0..THREADS)
        .map(|number| scope.spawn(move || user(number)))
        .collect()
}

/// Retires each connection at its first check-in after a deadline that is the same for all.
#[derive(Debug)]
struct Ageing {
    manager: ConnectionManager<PgConnection>,
    created: Instant,
}

struct Aged {
    connection: PgConnection,
    ends: Instant,
}

impl Ageing {
    /// The first connections count as older than they are.
    fn ahead(manager: ConnectionManager<PgConnection>) -> Ageing {
        Ageing {
            manager,
            created: Instant::now(),
        }
    }
}

impl ManageConnection for Ageing {
    type Connection = Aged;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<Aged, Self::Error> {
        let connection = self.manager.connect()?;
        let is_first = self.created.elapsed() < AHEAD / 2;
        let life = MAX_LIFETIME - if is_first { AHEAD } else { Duration::ZERO };
        Ok(Aged {
            connection,
            ends: Instant::now() + life,
        })
    }

    fn is_valid(&self, aged: &mut Aged) -> Result<(), Self::Error> {
        self.manager.is_valid(&mut aged.connection)
    }

    fn has_broken(&self, aged: &mut Aged) -> bool {
        Instant::now() >= aged.ends || self.manager.has_broken(&mut aged.connection)
    }
}

/// The slowest `get` in each twentieth of a second, from before the first rotation until after it, by the age
/// of each pool's connections.
fn draw(round: &Round, path: &Path) {
    const BIN: f64 = 0.05;
    let begin = MAX_LIFETIME.as_secs_f64() * 0.9 - 1.0;
    let end = MAX_LIFETIME.as_secs_f64() + 1.5;
    let bins = ((end - begin) / BIN).round() as usize;
    let slowest = |gets: &[Get], ahead: Duration| -> Vec<(f64, f64)> {
        let mut bins = vec![0.0_f64; bins];
        for get in gets {
            let age = get.at + ahead.as_secs_f64();
            if age < begin {
                continue;
            }
            if let Some(bin) = bins.get_mut(((age - begin) / BIN) as usize) {
                *bin = bin.max(get.took * 1e3);
            }
        }
        let at = |bin: usize| begin + (bin as f64 + 0.5) * BIN;
        bins.iter()
            .enumerate()
            .map(|(bin, took)| (at(bin), *took))
            .collect()
    };
    let chart = Chart {
        title: "How long a checkout takes while a pool's connections are replaced",
        horizontal: "seconds since a pool's connections were opened; they live for 10 s",
        vertical: "slowest get() in 50 ms, milliseconds",
        series: vec![
            Series {
                label: "all connections end at the maximum",
                colour: "#c2410c",
                points: slowest(&round.ending_at_once, AHEAD),
            },
            Series {
                label: "never rotates",
                colour: "#737373",
                points: slowest(&round.lasting, Duration::ZERO),
            },
            Series {
                label: "diesel-rds-iam",
                colour: "#1d4ed8",
                points: slowest(&round.rotating, Duration::ZERO),
            },
        ],
        band: Band {
            label: "diesel-rds-iam: one by one",
            from: MAX_LIFETIME.as_secs_f64() * 0.9,
            to: MAX_LIFETIME.as_secs_f64(),
        },
    };
    chart.draw(path);
}
