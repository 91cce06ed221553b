//! What it costs to know the members of an Aurora cluster, and how a pool's connections are shared among readers.

use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{IamAuth, ManagerBuilder, PgConnectionManager};
use rds_iam_emulator::{AuroraCluster, Emulator};

use crate::Bench;
use crate::connect::compare_connects;
use crate::figure::Figure;
use crate::measure::wait_until;

/// Compared with the same by the cluster's DNS name alone. Members are read every 30 s, so at most one of the
/// connections of a round reads them.
pub(crate) fn connect(bench: &Bench) {
    let cluster = start(2);
    let builder = || builder(&cluster, &cluster.host()).writer();
    let ours = builder().build().unwrap();
    let by_name = builder().cluster(false).build().unwrap();
    let measured = compare_connects(
        bench,
        || drop(ours.try_connect().unwrap()),
        || drop(by_name.try_connect().unwrap()),
    );
    let what = "a new connection with writer(), with the members known, beside cluster(false)";
    let figure = Figure::compared("cluster_connect", what, "ms", &measured);
    bench.results.add(figure.ratio_at_most(1.03));
}

/// Starts with two of three readers, so that one lifetime has to bring the third its share.
pub(crate) fn balance(bench: &Bench) {
    const SIZE: u32 = 12;
    const MAX_LIFETIME: Duration = Duration::from_secs(40);

    let cluster = start(4);
    cluster.set_listed(3, false);
    cluster.update_lists().unwrap();
    let manager = builder(&cluster, &cluster.reader_host()).readers();
    let pool = manager.build().unwrap().pool_builder().max_size(SIZE);
    let pool = pool.min_idle(Some(SIZE)).max_lifetime(Some(MAX_LIFETIME));
    let pool = pool.build().unwrap();
    let sessions = |member| cluster.member(member).unwrap().sessions();
    wait_until("two readers to have all connections", || {
        sessions(1) + sessions(2) == SIZE as usize
    });
    cluster.set_listed(3, true);
    cluster.update_lists().unwrap();
    let added = Instant::now();
    // A connection ends when it is used after its lifetime, so all are.
    while added.elapsed() < MAX_LIFETIME {
        let all: Vec<_> = (0..SIZE).map(|_| pool.get()).collect();
        drop(all);
        thread::sleep(Duration::from_millis(10));
    }
    wait_until("all connections to be replaced", || {
        pool.state().connections == SIZE
    });
    let most = (1..4).map(sessions).max().unwrap();
    let above = most as f64 - f64::from(SIZE) / 3.0;
    let what = format!(
        "connections of the busiest of three readers above its share of a pool of {SIZE}, one lifetime after \
         the third was added"
    );
    let figure = Figure::new("cluster_balance", &what, "connections", above);
    bench.results.add(figure.target("≤ 1", above <= 1.0));
}

/// A cluster with a user `app`.
pub(crate) fn start(members: usize) -> AuroraCluster {
    let cluster = Emulator::builder().start_cluster(members).unwrap();
    cluster.create_iam_user("app").unwrap();
    cluster
}

pub(crate) fn builder(cluster: &AuroraCluster, host: &str) -> ManagerBuilder<PgConnection> {
    PgConnectionManager::builder(&cluster.url(host, "app"))
        .auth(auth(cluster))
        .resolver(cluster.resolve())
}

pub(crate) fn auth(cluster: &AuroraCluster) -> IamAuth {
    let member = cluster.member(0).unwrap();
    let keys = Credentials::new(
        member.access_key(),
        member.secret_key(),
        None,
        None,
        "bench",
    );
    IamAuth::builder()
        .credentials_provider(keys)
        .build()
        .unwrap()
}
