//! The cost of a token: a cached one, a new one, and one that many threads wait for at once.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{Endpoint, IamAuth, ManualClock, Token, TokenSource};
use parking_lot::RwLock;
use stats_alloc::Region;

use crate::figure::{Figure, rounded};
use crate::measure::{compare, rounds, seconds};
use crate::{Bench, callgrind, measure};

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
const LIFETIME: Duration = Duration::from_secs(900);

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::new(HOST, 5432, "app").unwrap()
}

/// The access key of AWS's documentation, and its secret.
pub(crate) const KEYS: [&str; 2] = [
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
];

fn credentials() -> Credentials {
    let [access_key, secret_key] = KEYS;
    Credentials::new(access_key, secret_key, None, None, "bench")
}

/// A source whose token is in the cache.
pub(crate) fn source() -> TokenSource {
    let auth = IamAuth::builder().credentials_provider(credentials());
    let source = auth.build().unwrap().source(&endpoint());
    source.token().unwrap();
    source
}

/// `token()` with a fresh token in the cache, compared with the least work for such a call.
pub(crate) fn hit(bench: &Bench) {
    let source = source();
    let bare = Bare(RwLock::new(source.token().unwrap()));
    // A few at a time, so that other load on the machine affects both alike.
    let calls = 100_000;

    let region = Region::new(crate::ALLOCATOR);
    for _ in 0..1_000 {
        drop(black_box(source.token()));
    }
    let allocations = region.change().allocations;

    for threads in [1, 2] {
        let measured = compare(
            bench.pick(51, 201),
            || nanoseconds_each(threads, calls, || drop(black_box(source.token()))),
            || nanoseconds_each(threads, calls, || drop(black_box(bare.token()))),
        );
        let name = match threads {
            1 => "token_hit",
            _ => "token_hit_2_threads",
        };
        let figure = Figure::compared(name, "`token()` with a fresh token", "ns", &measured);
        let met = measured.ratio <= 1.1 && allocations == 0;
        bench.results.add(
            figure
                .with("allocations", allocations)
                .target("≤ 1.1 ×, no allocation", met),
        );
    }
}

/// The least work: a read lock, an `Arc` and both clocks.
struct Bare(RwLock<Arc<Token>>);

impl Bare {
    #[inline]
    fn token(&self) -> Arc<Token> {
        black_box((SystemTime::now(), Instant::now()));
        self.0.read().clone()
    }
}

/// The duration of a call that `threads` make at the same time.
fn nanoseconds_each(threads: usize, calls: u32, call: impl Fn() + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let one = || {
        barrier.wait();
        seconds(|| {
            for _ in 0..calls {
                call();
            }
        })
    };
    let spent: f64 = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        let first = one();
        first
            + others
                .into_iter()
                .map(|other| other.join().unwrap())
                .sum::<f64>()
    });
    spent / threads as f64 / f64::from(calls) * 1e9
}

/// A new token each time, with credentials in the cache.
pub(crate) struct Signer {
    time: ManualClock,
    source: TokenSource,
}

impl Signer {
    pub(crate) fn new() -> Signer {
        let time = ManualClock::new();
        let auth = IamAuth::builder()
            .credentials_provider(credentials())
            .clock(time.clock());
        let source = auth.build().unwrap().source(&endpoint());
        source.token().unwrap();
        Signer { time, source }
    }

    pub(crate) fn sign(&self) {
        self.time.advance(LIFETIME);
        drop(black_box(self.source.token().unwrap()));
    }
}

/// The least code for signing with aws-sigv4 for RDS: the URL, and the parameters that make it a token.
pub(crate) fn sign_bare(
    endpoint: &Endpoint,
    credentials: Credentials,
    time: SystemTime,
) -> (String, SigningInstructions) {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(endpoint.region().unwrap())
        .name("rds-db")
        .time(time)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let (host, port, user) = (endpoint.host(), endpoint.port(), endpoint.user());
    let url = format!("https://{host}:{port}/?Action=connect&DBUser={user}");
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::empty());
    let (instructions, _) = sign(request.unwrap(), &params).unwrap().into_parts();
    (url, instructions)
}

/// [`sign_bare`] repeatedly for the same endpoint.
pub(crate) fn sign_bare_again(endpoint: &Endpoint) {
    drop(black_box(sign_bare(
        endpoint,
        credentials(),
        SystemTime::now(),
    )));
}

/// Probes with these names run only the measured code, in a process of their own.
pub(crate) const SIGN: &str = "sign";
pub(crate) const SIGN_BARE: &str = "sign_bare";

/// A new token, compared with aws-sigv4 alone.
pub(crate) fn signing(bench: &Bench) {
    let signer = Signer::new();
    let endpoint = endpoint();
    let times = 5_000;
    let each = |work: &dyn Fn()| {
        let spent = seconds(|| {
            for _ in 0..times {
                work();
            }
        });
        spent / f64::from(times) * 1e6
    };
    let measured = compare(
        bench.pick(15, 51),
        || each(&|| signer.sign()),
        || each(&|| sign_bare_again(&endpoint)),
    );
    let what = "a new token, with credentials at hand";
    let mut figure = Figure::compared("token_sign", what, "µs", &measured);
    if bench.has_valgrind("instructions of token_sign") {
        let ours = callgrind::instructions(SIGN, 500, None, None);
        let baseline = callgrind::instructions(SIGN_BARE, 500, None, None);
        figure = figure.with("instructions", rounded(ours / baseline));
    }
    bench.results.add(figure.ratio_at_most(1.2));
}

/// 64 threads that find no token, while fetching credentials takes 200 ms.
pub(crate) fn cold_storm(bench: &Bench) {
    const THREADS: usize = 64;
    let mut calls = 0;
    let mut storm = |threads: usize| {
        let fetched = Arc::new(AtomicU64::new(0));
        let count = fetched.clone();
        let auth = IamAuth::builder().credentials_fn(move || {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(200));
            Ok(credentials())
        });
        let source = auth.build().unwrap().source(&endpoint());
        let barrier = Barrier::new(threads);
        let slowest = thread::scope(|scope| {
            let wait = || {
                barrier.wait();
                seconds(|| drop(source.token().unwrap()))
            };
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(wait)).collect();
            all.into_iter()
                .map(|one| one.join().unwrap())
                .fold(0.0, f64::max)
        });
        calls = calls.max(fetched.load(Ordering::Relaxed));
        slowest * 1e3
    };
    let rounds = rounds(bench.pick(5, 11), || (storm(1), storm(THREADS), storm(1)));
    let each = |value: fn(&(f64, f64, f64)) -> f64| measure::median(rounds.kept.iter().map(value));
    let ratio = each(|(before, storm, after)| 2.0 * storm / (before + after));
    let figure = Figure::new(
        "cold_storm",
        "until the last of 64 threads has the first token",
        "ms",
        each(|(_, storm, _)| *storm),
    )
    .against(each(|(before, _, after)| (before + after) / 2.0))
    .with("null", rounded(each(|(before, _, after)| after / before)))
    .with("provider calls", calls)
    .rounds(rounds.dropped, rounds.disturbed)
    .target("1 provider call, ≤ 1.2 ×", calls == 1 && ratio <= 1.2);
    bench.results.add(figure);
}
