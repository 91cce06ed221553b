//! Clusters of several servers, whose members are dialled by their own names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel_rds_iam::{
    Backend, ConnectionOpened, ErrorKind, HandleAuthEvent, IamAuth, ManagerBuilder, ManualClock,
    RdsConnectionManager,
};
use parking_lot::Mutex;
use rds_iam_emulator::{AuroraCluster, Emulator, Fault, Stage};

use crate::support::database::{Ask, credentials_of};
use crate::support::written::Written;
use crate::support::{FakeSource, PATIENCE, SECOND};

const WRITER: usize = 0;

/// A name under which members can be reported.
const ID: &str = "pg_catalog.aurora_db_instance_identifier()";

fn cluster(members: usize) -> AuroraCluster {
    let cluster = Emulator::builder().start_cluster(members).unwrap();
    cluster.create_iam_user("app").unwrap();
    cluster
        .execute("CREATE SEQUENCE written; GRANT USAGE ON SEQUENCE written TO app")
        .unwrap();
    cluster
}

/// The manager under test, with its events.
#[derive(Clone, Default)]
struct Observed {
    source: FakeSource,
    time: ManualClock,
    members: Arc<Mutex<Vec<Option<String>>>>,
}

impl Observed {
    /// Makes the next read of the members due.
    fn half_a_minute_passes(&self) {
        self.time.advance(Duration::from_secs(31));
    }

    fn last_member(&self) -> Option<String> {
        self.members.lock().last().cloned().flatten()
    }
}

impl HandleAuthEvent for Observed {
    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        self.members.lock().push(event.member.map(str::to_owned));
    }
}

fn builder<C: Backend>(
    cluster: &AuroraCluster,
    host: &str,
    observed: &Observed,
) -> ManagerBuilder<C> {
    let good = credentials_of(cluster.member(WRITER).unwrap());
    observed.source.answer(move || Ok(good.clone()));
    let auth = IamAuth::builder()
        .credentials_fn(observed.source.fetch())
        .clock(observed.time.clock())
        .event_handler(observed.clone())
        .build()
        .unwrap();
    RdsConnectionManager::builder(&cluster.url(host, "app"))
        .auth(auth)
        .resolver(cluster.resolve())
}

fn writer<C: Backend>(cluster: &AuroraCluster, observed: &Observed) -> RdsConnectionManager<C> {
    let builder = builder(cluster, &cluster.host(), observed);
    builder.writer().build().unwrap()
}

fn reader<C: Backend>(cluster: &AuroraCluster, observed: &Observed) -> RdsConnectionManager<C> {
    let builder = builder(cluster, &cluster.reader_host(), observed);
    builder.readers().build().unwrap()
}

fn member_of<C: Backend<Connection: Ask>>(manager: &RdsConnectionManager<C>) -> String {
    manager.try_connect().unwrap().ask(ID)
}

fn write<C: Backend<Connection: Ask>>(pool: &r2d2::Pool<RdsConnectionManager<C>>) -> String {
    let mut connection = pool.get().unwrap();
    connection.ask("nextval('written')");
    connection.ask(ID)
}

/// The number of sessions at each member.
fn sessions(cluster: &AuroraCluster) -> Vec<usize> {
    let members = 0..cluster.members();
    let sessions = |member| cluster.member(member).unwrap().sessions();
    members.map(sessions).collect()
}

/// FAULTS.md row 81.
#[test]
fn writes_go_on_at_the_new_writer_while_dns_leads_to_the_dead_one() {
    assert_writes_go_on::<PgConnection>();
}

/// FAULTS.md row 81.
#[cfg(feature = "postgres")]
#[test]
fn writes_of_the_crate_postgres_go_on_at_the_new_writer() {
    assert_writes_go_on::<diesel_rds_iam::postgres::Client>();
}

fn assert_writes_go_on<C: Backend<Connection: Ask>>() {
    let cluster = cluster(3);
    let observed = Observed::default();
    let manager = writer::<C>(&cluster, &observed);
    let pool = manager.pool_builder().max_size(3).build().unwrap();
    assert_eq!(write(&pool), "instance-1");

    // The former writer refuses connections.
    cluster.member(WRITER).unwrap().stop_postgres().unwrap();
    cluster.promote(1).unwrap();
    assert_eq!(write(&pool), "instance-2");
    assert_eq!(observed.last_member().as_deref(), Some("instance-2"));

    // The former writer returns as a reader, and the next writer becomes a reader under open sessions, which the
    // checkout test detects.
    cluster.demote(WRITER).unwrap();
    cluster.update_lists().unwrap();
    observed.half_a_minute_passes();
    cluster.promote(2).unwrap();
    cluster.demote(1).unwrap();
    assert_eq!(write(&pool), "instance-3");

    // Each member has a token of its own, and none required a request to AWS.
    assert_eq!(observed.source.calls(), 1);
    let members: BTreeMap<_, _> = manager
        .cluster_members()
        .into_iter()
        .map(|member| (member.id.to_string(), member.is_writer))
        .collect();
    let expected = [
        ("instance-1", false),
        ("instance-2", false),
        ("instance-3", true),
    ];
    assert_eq!(members, expected.map(|(id, is)| (id.to_owned(), is)).into());
}

/// FAULTS.md row 82.
#[test]
fn a_silent_writer_costs_one_connect_a_share_of_its_time() {
    let cluster = cluster(3);
    let observed = Observed::default();
    let manager = writer::<PgConnection>(&cluster, &observed);
    assert_eq!(member_of(&manager), "instance-1");
    cluster
        .member(WRITER)
        .unwrap()
        .fault(Fault::BlackHole(Stage::Accept));
    cluster.promote(1).unwrap();

    // The cluster's name leads to the same address, which is not dialled twice.
    let begun = Instant::now();
    assert_eq!(member_of(&manager), "instance-2");
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    let asked = cluster.names_asked();
    assert!(asked.contains(&cluster.host()), "{asked:?}");
    // The new writer is recorded, and dialled first.
    let begun = Instant::now();
    assert_eq!(member_of(&manager), "instance-2");
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
}

/// FAULTS.md row 83.
#[test]
fn readers_get_equal_shares_and_one_that_is_added_gets_its_own() {
    assert_equal_shares::<PgConnection>();
}

/// FAULTS.md row 83.
#[cfg(feature = "postgres")]
#[test]
fn readers_of_the_crate_postgres_get_equal_shares() {
    assert_equal_shares::<diesel_rds_iam::postgres::Client>();
}

fn assert_equal_shares<C: Backend>() {
    let cluster = cluster(4);
    cluster.set_listed(3, false);
    cluster.update_lists().unwrap();
    let observed = Observed::default();
    let manager = reader::<C>(&cluster, &observed);
    let pool = manager.pool_builder().max_size(6).min_idle(Some(6)).build();
    let pool = pool.unwrap();
    wait_for(|| sessions(&cluster) == [0, 3, 3, 0], || sessions(&cluster));

    cluster.set_listed(3, true);
    cluster.update_lists().unwrap();
    observed.half_a_minute_passes();
    // Connections end one by one, as with lifetimes.
    for _ in 0..6 {
        let connection = pool.get().unwrap();
        diesel_rds_iam::retire_all(&pool).unwrap();
        drop(connection);
        wait_for(|| pool.state().connections == 6, || sessions(&cluster));
    }
    wait_for(|| sessions(&cluster) == [0, 2, 2, 2], || sessions(&cluster));
    assert_eq!(
        manager.stats().connections_to_members,
        manager.stats().connections_opened
    );
}

/// FAULTS.md row 84.
#[test]
fn a_lost_reader_is_left_out_and_the_writer_serves_if_there_is_no_reader() {
    let cluster = cluster(3);
    let observed = Observed::default();
    let manager = reader::<PgConnection>(&cluster, &observed);
    assert_ne!(member_of(&manager), "instance-1");
    cluster.member(1).unwrap().stop_postgres().unwrap();
    for _ in 0..4 {
        assert_eq!(member_of(&manager), "instance-3");
    }
    let asked = cluster.names_asked();
    let lost = asked.iter().filter(|name| name.starts_with("instance-2"));
    assert!(lost.count() <= 2, "{asked:?}");

    cluster.member(2).unwrap().stop_postgres().unwrap();
    assert_eq!(member_of(&manager), "instance-1");
    let url = cluster.url(&cluster.reader_host(), "app") + "&target_session_attrs=read-only";
    let good = credentials_of(cluster.member(WRITER).unwrap());
    let auth = IamAuth::builder().credentials_provider(good).build();
    let strict = RdsConnectionManager::<PgConnection>::builder(&url)
        .auth(auth.unwrap())
        .resolver(cluster.resolve())
        .build();
    let error = strict.unwrap().try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
}

/// FAULTS.md row 85.
#[test]
fn a_reader_that_is_too_far_behind_gets_no_connection() {
    let cluster = cluster(3);
    cluster.set_lag(1, Duration::from_secs(20));
    cluster.update_lists().unwrap();
    let observed = Observed::default();
    let builder = builder::<PgConnection>(&cluster, &cluster.reader_host(), &observed);
    let manager = builder.readers().max_lag(SECOND).build().unwrap();
    for _ in 0..6 {
        assert_eq!(member_of(&manager), "instance-3");
    }
    // The lag that the new connection itself reads takes effect at once.
    cluster.set_lag(2, Duration::from_secs(20));
    cluster.update_lists().unwrap();
    observed.half_a_minute_passes();
    assert_eq!(member_of(&manager), "instance-1");
}

/// FAULTS.md row 86.
#[test]
fn members_that_cannot_be_read_are_requested_once_and_the_name_is_followed() {
    let cluster = cluster(2);
    let revoke = "REVOKE EXECUTE ON FUNCTION pg_catalog.aurora_replica_status() FROM PUBLIC";
    cluster.execute(revoke).unwrap();
    let observed = Observed::default();
    let manager = writer::<PgConnection>(&cluster, &observed);
    let log = Written::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..3 {
            assert_eq!(member_of(&manager), "instance-1");
            observed.half_a_minute_passes();
        }
    });
    let said = log.text();
    assert_eq!(
        said.matches("follow its DNS name alone").count(),
        1,
        "{said}"
    );
    assert!(said.contains("no right to call the function"), "{said}");
    assert!(manager.cluster_members().is_empty());
    assert_eq!(
        cluster.names_asked(),
        [cluster.host(), cluster.host(), cluster.host()]
    );
}

/// FAULTS.md row 87.
#[test]
fn a_multi_az_cluster_is_read_by_rds_tools() {
    let cluster = cluster(3);
    cluster.use_rds_tools().unwrap();
    cluster
        .execute(
            "GRANT USAGE ON SCHEMA rds_tools TO app; \
             GRANT EXECUTE ON FUNCTION rds_tools.show_topology TO app",
        )
        .unwrap();
    let observed = Observed::default();
    let manager = writer::<PgConnection>(&cluster, &observed);
    drop(manager.try_connect().unwrap());
    assert_eq!(manager.cluster_members().len(), 3);
    cluster.member(WRITER).unwrap().stop_postgres().unwrap();
    cluster.promote(2).unwrap();
    manager.try_connect().unwrap().ask("nextval('written')");
    assert_eq!(observed.last_member().as_deref(), Some("instance-3"));
}

#[test]
fn members_are_not_dialled_where_that_is_turned_off() {
    let cluster = cluster(2);
    let observed = Observed::default();
    let by_name = builder::<PgConnection>(&cluster, &cluster.host(), &observed);
    let manager = by_name.writer().cluster(false).build().unwrap();
    assert_eq!(member_of(&manager), "instance-1");
    cluster.promote(1).unwrap();
    cluster.demote(WRITER).unwrap();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    cluster.point_dns_at(1);
    assert_eq!(member_of(&manager), "instance-2");
    assert!(manager.cluster_members().is_empty());
}

fn wait_for<T: std::fmt::Debug>(mut reached: impl FnMut() -> bool, state: impl Fn() -> T) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", state());
        thread::sleep(Duration::from_millis(20));
    }
}
