//! A thousand databases: one identity for all, and a pool for each.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, thread};

use diesel::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::aws_credential_types::provider::{ProvideCredentials, future};
use diesel_rds_iam::r2d2::{ManageConnection, NopErrorHandler, Pool};
use diesel_rds_iam::scheduled_thread_pool::ScheduledThreadPool;
use diesel_rds_iam::{Clock, Endpoint, IamAuth, ManualClock, PgConnectionManager};
use stats_alloc::Region;

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::{Figure, rounded};
use crate::measure::{process, wait_until};
use crate::token;

const DATABASES: usize = 1_000;
const ROTATIONS: usize = 3;

/// So that all rotations happen within one lifetime of the credentials.
const CREDENTIALS_LIVE: Duration = Duration::from_secs(3600);

/// The usable lifetime of a token.
const ROTATION: Duration = Duration::from_secs(14 * 60);

const WORKERS: usize = 16;

pub(crate) fn run(bench: &Bench) {
    one_identity(bench);
    let emulator = emulator();
    let database = Database::of(&emulator);
    shared_workers(bench, &database);
    black_hole(bench, &database);
}

fn endpoint(number: usize) -> Endpoint {
    let host = format!("db{number:04}.c9akciq32rqv.eu-west-1.rds.amazonaws.com");
    Endpoint::new(&host, 5432, "app").unwrap()
}

/// What the process uses after all rotations in addition to before.
struct Cost {
    threads: usize,
    provider_calls: u64,
    bytes_each: f64,
}

fn cost<T>(source: &Source, work: impl FnOnce(Source) -> T) -> Cost {
    // Threads of earlier measurements end within a short time.
    let is_signer = |name: &String| name == "rds-iam-signer";
    wait_until("earlier threads to end", || {
        !process::threads().iter().any(is_signer)
    });
    let threads = process::threads().len();
    let region = Region::new(crate::ALLOCATOR);
    let held = work(source.clone());
    let change = region.change();
    let bytes = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    let cost = Cost {
        threads: process::threads().len() - threads,
        provider_calls: source.calls.load(Ordering::Relaxed),
        bytes_each: bytes / DATABASES as f64,
    };
    drop(held);
    cost
}

fn one_identity(bench: &Bench) {
    let time = ManualClock::new();
    let ours = cost(&Source::new(time.clock()), |source| {
        let auth = IamAuth::builder()
            .credentials_provider(source)
            .clock(time.clock());
        let auth = auth.build().unwrap();
        let sources: Vec<_> = (0..DATABASES)
            .map(|number| auth.source(&endpoint(number)))
            .collect();
        for source in &sources {
            drop(source.token().unwrap());
        }
        for _ in 0..ROTATIONS {
            time.advance(ROTATION);
            for source in &sources {
                drop(source.token().unwrap());
            }
        }
        assert_eq!(
            auth.stats().tokens_signed as usize,
            DATABASES * (ROTATIONS + 1)
        );
        (auth, sources)
    });
    let time = ManualClock::new();
    let each_its_own = cost(&Source::new(time.clock()), |source| {
        let signers: Vec<_> = (0..DATABASES)
            .map(|number| SignerOfItsOwn::new(source.clone(), &endpoint(number)))
            .collect();
        for signer in &signers {
            signer.sign();
        }
        for _ in 0..ROTATIONS {
            time.advance(ROTATION);
            for signer in &signers {
                signer.sign();
            }
        }
        signers
    });

    let what = "signing threads for 1,000 endpoints over three rotations";
    let figure = Figure::new("thousand_databases", what, "threads", ours.threads as f64)
        .against(each_its_own.threads as f64)
        .with("provider calls", ours.provider_calls)
        .with(
            "provider calls of the baseline",
            each_its_own.provider_calls,
        )
        .target(
            "1 thread, 1 provider call",
            ours.threads == 1 && ours.provider_calls == 1,
        );
    bench.results.add(figure);
    let what = "memory of an endpoint, its token included";
    let figure = Figure::new("thousand_databases_memory", what, "bytes", ours.bytes_each)
        .against(each_its_own.bytes_each)
        .target("≤ 4,096", ours.bytes_each <= 4096.0);
    bench.results.add(figure);
}

/// Credentials that are valid for an hour from each call; counts the calls.
#[derive(Clone)]
struct Source {
    clock: Clock,
    calls: Arc<AtomicU64>,
}

impl Source {
    fn new(clock: Clock) -> Source {
        Source {
            clock,
            calls: Arc::default(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let end = self.clock.now().wall + CREDENTIALS_LIVE;
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let credentials =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, None, Some(end), "bench");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

/// The code of an application whose pools each manage their own tokens: a runtime for the requests to AWS,
/// credentials that are cached until they expire, and aws-sigv4.
struct SignerOfItsOwn {
    runtime: tokio::runtime::Runtime,
    source: Source,
    endpoint: Endpoint,
    held: Mutex<(Option<Credentials>, String)>,
}

impl SignerOfItsOwn {
    fn new(source: Source, endpoint: &Endpoint) -> SignerOfItsOwn {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        SignerOfItsOwn {
            runtime: runtime.unwrap(),
            source,
            endpoint: endpoint.clone(),
            held: Mutex::default(),
        }
    }

    fn sign(&self) {
        let now = self.source.clock.now().wall;
        let mut held = self.held.lock().unwrap();
        let is_good = |credentials: &Credentials| credentials.expiry().is_none_or(|end| now < end);
        let credentials = match held.0.take().filter(is_good) {
            Some(credentials) => credentials,
            None => self
                .runtime
                .block_on(self.source.provide_credentials())
                .unwrap(),
        };
        held.1 = presign(&self.endpoint, &credentials, now);
        held.0 = Some(credentials);
    }
}

fn presign(endpoint: &Endpoint, credentials: &Credentials, now: SystemTime) -> String {
    let (mut url, instructions) = token::sign_bare(endpoint, credentials.clone(), now);
    for (name, value) in instructions.params() {
        url.push_str(&format!("&{name}={value}"));
    }
    url.split_off("https://".len())
}

/// A pool for each, on the same few threads.
fn shared_workers(bench: &Bench, database: &Database) {
    let named = |name: &str| {
        let names = process::threads();
        names
            .iter()
            .filter(|thread| thread.starts_with(name))
            .count()
    };
    let stock: Vec<Pool<ConnectionManager<PgConnection>>> = (0..DATABASES)
        .map(|_| {
            let builder = Pool::builder().min_idle(Some(0));
            builder.build_unchecked(database.stock())
        })
        .collect();
    // A thread gets its name only once it runs.
    thread::sleep(Duration::from_millis(500));
    let own_workers = named("r2d2-worker");
    drop(stock);
    wait_until("the stock pools' threads to end", || {
        named("r2d2-worker") == 0
    });

    let auth = database.auth();
    let workers = Arc::new(
        ScheduledThreadPool::builder()
            .num_threads(WORKERS)
            .thread_name_pattern("shared-{}")
            .build(),
    );
    let pools: Vec<_> = (0..DATABASES)
        .map(|_| pool(database.manager(auth.clone()), &workers, 1))
        .collect();
    // The pools must be seen to work; more than one session each would only cost time.
    let served = bench.pick(100, DATABASES);
    for pool in pools.iter().take(served) {
        drop(pool.get().unwrap());
    }
    let shared = named("shared-") + named("r2d2-worker");
    let what = "worker threads of 1,000 pools";
    let figure = Figure::new("thousand_pools", what, "threads", shared as f64)
        .against(own_workers as f64)
        .with("pools that served", served)
        .target("≤ 16", shared <= 16);
    bench.results.add(figure);
}

fn pool(
    manager: PgConnectionManager,
    workers: &Arc<ScheduledThreadPool>,
    size: u32,
) -> diesel_rds_iam::PgPool {
    let builder = manager.pool_builder().thread_pool(workers.clone());
    let builder = builder.max_size(size).min_idle(Some(0)).max_lifetime(None);
    let builder = builder.error_handler(Box::new(NopErrorHandler));
    builder.build_unchecked().unwrap()
}

/// How long others wait for a connection while a pool on the same threads needs more connections than there are
/// threads, from a server that accepts and never responds.
fn black_hole(bench: &Bench, database: &Database) {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(10);
    let span = Duration::from_secs(bench.pick(6, 20));
    let wanted = 4 + WORKERS as u32;

    let auth = database.auth();
    let workers = Arc::new(ScheduledThreadPool::new(WORKERS));
    let hole = BlackHole::open();
    let silent = PgConnectionManager::builder(&hole.conninfo())
        .auth(auth.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .unwrap();
    let builder = silent.pool_builder().thread_pool(workers.clone());
    let builder = builder.max_size(wanted).min_idle(None);
    let builder = builder.error_handler(Box::new(NopErrorHandler));
    let _silent = builder.build_unchecked().unwrap();
    let manager = database.manager(auth);
    let ours = slowest_first_get(span, LONGEST, || pool(manager.clone(), &workers, 1));

    let workers = Arc::new(ScheduledThreadPool::new(WORKERS));
    let hole = BlackHole::open();
    let silent = ConnectionManager::<PgConnection>::new(hole.conninfo());
    let _silent = Pool::builder()
        .max_size(wanted)
        .thread_pool(workers.clone())
        .error_handler(Box::new(NopErrorHandler))
        .build_unchecked(silent);
    let stock = slowest_first_get(LONGEST, LONGEST, || {
        Pool::builder()
            .max_size(1)
            .min_idle(Some(0))
            .thread_pool(workers.clone())
            .build_unchecked(database.stock())
    });

    let alone = {
        let workers = Arc::new(ScheduledThreadPool::new(WORKERS));
        slowest_first_get(Duration::from_secs(1), LONGEST, || {
            pool(manager.clone(), &workers, 1)
        })
    };
    let what = "the longest wait for a first connection beside a black-holed pool on the same \
                threads, whose connect_timeout is 2 s";
    let figure = Figure::new("thousand_pools_black_hole", what, "s", ours)
        .against(stock)
        .with("without a black hole", rounded(alone))
        .target(
            "≤ connect_timeout, within 0.1 s",
            ours <= CONNECT_TIMEOUT.as_secs_f64() + 0.1,
        );
    bench.results.add(figure);
}

/// For `span`: the longest duration of the first `get` of a new pool in seconds, or `longest`.
fn slowest_first_get<M: ManageConnection>(
    span: Duration,
    longest: Duration,
    new_pool: impl Fn() -> Pool<M>,
) -> f64 {
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < span {
        let pool = new_pool();
        let asked = Instant::now();
        let connection = pool.get_timeout(longest);
        slowest = slowest.max(asked.elapsed());
        drop(connection);
        thread::sleep(Duration::from_millis(50));
    }
    slowest.as_secs_f64()
}

/// A server that accepts connections and never responds, until it is dropped.
struct BlackHole(TcpListener);

impl BlackHole {
    fn open() -> BlackHole {
        // Connections that are not accepted are completed by the kernel anyway.
        BlackHole(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn conninfo(&self) -> String {
        format!(
            "host=silent.c9akciq32rqv.eu-west-1.rds.amazonaws.com hostaddr=127.0.0.1 port={} \
             user=app sslmode=verify-full",
            self.0.local_addr().unwrap().port()
        )
    }
}
