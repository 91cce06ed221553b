//! From the promotion of another writer of an Aurora cluster to the first committed write of a busy pool, while the
//! cluster's DNS name leads to the former writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, ConnectionError, PgConnection};
use diesel_rds_iam::Endpoint;
use diesel_rds_iam::r2d2::{ManageConnection, NopErrorHandler, Pool};
use parking_lot::Mutex;
use rds_iam_emulator::{AuroraCluster, Fault, Stage};

use crate::Bench;
use crate::chart::{Band, Chart, Series};
use crate::cluster;
use crate::figure::{Figure, rounded};
use crate::measure::wait_until;
use crate::silence;

const USERS: u32 = 4;
const THINK: Duration = Duration::from_millis(20);

/// How long the database itself takes to notice that its writer is silent. By then the pools have noticed, too.
const DETECTION: Duration = Duration::from_secs(25);

/// What the chart shows before the promotion, and after the last pool writes again.
const BESIDES: Duration = Duration::from_secs(5);

/// One way in which a writer is lost.
struct Loss {
    name: &'static str,
    writer: &'static str,
    /// In seconds.
    target: f64,
    /// Where the chart is drawn, if one is.
    chart: Option<&'static str>,
}

pub(crate) fn dead(bench: &Bench) {
    let loss = Loss {
        name: "failover_write_dead",
        writer: "that refuses connections",
        target: 1.5,
        chart: Some("docs/failover_write.svg"),
    };
    run(bench, &loss, |cluster| {
        cluster.member(0).unwrap().stop_postgres().is_ok()
    });
}

pub(crate) fn read_only(bench: &Bench) {
    let loss = Loss {
        name: "failover_write_read_only",
        writer: "that has become read-only and keeps its sessions",
        target: 1.5,
        chart: None,
    };
    run(bench, &loss, |cluster| {
        let writer = cluster.member(0).unwrap();
        let statements = [
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        ];
        statements.iter().all(|it| writer.execute(it).is_ok())
    });
}

pub(crate) fn silent(bench: &Bench) {
    let loss = Loss {
        name: "failover_write_silent",
        writer: "whose network is cut",
        target: 5.0,
        chart: None,
    };
    run(bench, &loss, |cluster| {
        let writer = cluster.member(0).unwrap();
        writer.fault(Fault::BlackHole(Stage::Accept));
        let is_cut = silence::cut(writer.port());
        thread::sleep(DETECTION);
        is_cut
    });
}

fn run(bench: &Bench, loss: &Loss, fail: impl Fn(&AuroraCluster) -> bool) {
    let behind = Duration::from_secs(bench.pick(10, 30));
    let cluster = cluster::start(3);
    cluster
        .execute("CREATE SEQUENCE written; GRANT USAGE ON SEQUENCE written TO app")
        .unwrap();
    let builder = || cluster::builder(&cluster, &cluster.host()).writer();
    let ours = Writers::start(builder().build().unwrap().into_pool().unwrap());
    let by_name = builder().cluster(false).build().unwrap();
    let by_name = Writers::start(by_name.into_pool().unwrap());
    let stock = Pool::builder().error_handler(Box::new(NopErrorHandler));
    let stock = Writers::start(stock.build(Stock::new(&cluster)).unwrap());
    let all = [&ours, &by_name, &stock];
    wait_until("all pools to write", || {
        all.iter().all(|it| it.has_written())
    });
    thread::sleep(BESIDES);
    if !fail(&cluster) {
        let name = loss.name;
        println!("{name}: not measured, this machine does not allow this loss");
        return;
    }
    cluster.promote(1).unwrap();
    let promoted = Instant::now();
    let given_up = behind + Duration::from_secs(45);
    while promoted.elapsed() < given_up && !all.iter().all(|it| it.since(promoted).is_some()) {
        if promoted.elapsed() >= behind {
            cluster.point_dns_at(1);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let took = |writers: &Writers| writers.since(promoted).unwrap_or(given_up).as_secs_f64();
    let what = format!(
        "from the promotion to the first committed write of a busy pool, after a writer {}, with DNS {} s \
         behind, beside stock diesel and r2d2; given up after {} s",
        loss.writer,
        behind.as_secs(),
        given_up.as_secs(),
    );
    let figure = Figure::new(loss.name, &what, "s", took(&ours)).against(took(&stock));
    let figure = figure.with("writer() by the DNS name alone, s", rounded(took(&by_name)));
    let label = format!("≤ {} s", loss.target);
    let is_met = took(&ours) <= loss.target;
    bench.results.add(figure.target(&label, is_met));
    if let Some(path) = loss.chart {
        thread::sleep(BESIDES);
        chart(all, promoted, behind).draw(&bench.output(path));
    }
}

/// The writes that each pool has committed.
fn chart(all: [&Writers; 3], promoted: Instant, behind: Duration) -> Chart {
    let names = [
        ("diesel-rds-iam, writer()", "#1d4ed8"),
        ("writer() with cluster(false)", "#737373"),
        ("stock diesel and r2d2", "#c2410c"),
    ];
    let series = names.into_iter().zip(all);
    let series = series.map(|((label, colour), writers)| Series {
        label,
        colour,
        points: writers.committed_since(promoted - BESIDES, promoted),
    });
    Chart {
        title: "Writes through a failover",
        horizontal: "seconds since the promotion of the new writer; the former one refuses connections",
        vertical: "writes committed",
        series: series.collect(),
        band: Band {
            label: "DNS leads to the former writer",
            from: 0.0,
            to: behind.as_secs_f64(),
        },
    }
}

type Resolve = dyn Fn(&str, u16) -> std::io::Result<Vec<std::net::SocketAddr>> + Send + Sync;

/// diesel's manager with a token as its fixed password. libpq would ask the system's DNS, which does not know the
/// cluster.
struct Stock {
    conninfo: String,
    host: String,
    resolve: Box<Resolve>,
}

impl Stock {
    fn new(cluster: &AuroraCluster) -> Stock {
        let (host, port) = (cluster.host(), cluster.signed_port());
        let endpoint = Endpoint::new(&host, port, "app").unwrap();
        let token = cluster::auth(cluster).source(&endpoint).token().unwrap();
        let roots = cluster.member(0).unwrap().ca_path().display().to_string();
        Stock {
            conninfo: format!(
                "host={host} user=app dbname=postgres sslmode=verify-full sslrootcert='{roots}' password='{}'",
                token.expose_secret()
            ),
            host,
            resolve: Box::new(cluster.resolve()),
        }
    }
}

impl ManageConnection for Stock {
    type Connection = PgConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<PgConnection, diesel::r2d2::Error> {
        let address = (self.resolve)(&self.host, 5432)
            .map_err(|error| ConnectionError::BadConnection(error.to_string()))?[0];
        let (ip, port) = (address.ip(), address.port());
        let conninfo = format!("{} hostaddr={ip} port={port}", self.conninfo);
        Ok(PgConnection::establish(&conninfo)?)
    }

    fn is_valid(&self, connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        Ok(diesel::r2d2::R2D2Connection::ping(connection)?)
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        diesel::r2d2::R2D2Connection::is_broken(connection)
    }
}

/// Threads that write through a pool. They are not waited for: those of a pool without time limits end with the
/// process.
struct Writers {
    /// When each write was committed, in order.
    written: Arc<Mutex<Vec<Instant>>>,
    ends: Arc<AtomicBool>,
}

impl Writers {
    fn start<M: ManageConnection<Connection = PgConnection>>(pool: Pool<M>) -> Writers {
        let writers = Writers {
            written: Arc::default(),
            ends: Arc::default(),
        };
        for _ in 0..USERS {
            let (pool, written, ends) =
                (pool.clone(), writers.written.clone(), writers.ends.clone());
            thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let write = |connection: &mut PgConnection| {
                        connection.batch_execute("SELECT nextval('written')")
                    };
                    if pool.get().is_ok_and(|mut it| write(&mut it).is_ok()) {
                        let mut written = written.lock();
                        written.push(Instant::now());
                    }
                    thread::sleep(THINK);
                }
            });
        }
        writers
    }

    fn has_written(&self) -> bool {
        self.written.lock().len() > 100
    }

    /// From `promoted` to the first write after it.
    fn since(&self, promoted: Instant) -> Option<Duration> {
        let written = self.written.lock();
        let first = written.iter().find(|at| **at > promoted)?;
        Some(*first - promoted)
    }

    /// How many writes were committed from `begin` on, at each quarter of a second until now, in seconds since
    /// `origin`.
    fn committed_since(&self, begin: Instant, origin: Instant) -> Vec<(f64, f64)> {
        const STEP: Duration = Duration::from_millis(250);
        let written = self.written.lock();
        let earlier = written.partition_point(|at| *at < begin);
        let steps = begin.elapsed().div_duration_f64(STEP) as u32;
        let points = (0..=steps).map(|step| {
            let end = begin + STEP * step;
            let until = written.partition_point(|at| *at < end);
            let seconds = (STEP * step).as_secs_f64() - (origin - begin).as_secs_f64();
            (seconds, (until - earlier) as f64)
        });
        points.collect()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
