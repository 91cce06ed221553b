use super::*;

const SECOND: Duration = Duration::from_secs(1);
const DOMAIN: &str = "c9akciq32rqv.eu-west-1.rds.amazonaws.com";

#[expect(
    clippy::disallowed_methods,
    reason = "an instant to count from; nothing waits for it"
)]
fn some_instant() -> Instant {
    Instant::now()
}

fn cluster(role: ClusterRole) -> Cluster {
    limited(role, None)
}

fn limited(role: ClusterRole, max_lag: Option<Duration>) -> Cluster {
    Cluster::new(
        ClusterHost::of(&format!("mycluster.cluster-{DOMAIN}")).unwrap(),
        role,
        max_lag,
    )
}

const READERS: ClusterRole = ClusterRole::Readers { or_writer: true };

/// The lines of a list with the writer first, and the lags of the others in milliseconds.
fn list(writer: &str, readers: &[(&str, u32)]) -> Vec<String> {
    let others = readers
        .iter()
        .map(|(id, lag)| format!("{id}\treader\tother\t{lag}"));
    std::iter::once(format!("{writer}\twriter\tself\t0"))
        .chain(others)
        .collect()
}

fn member(id: &str) -> Place {
    Place::Member(id.into())
}

/// The order, as ids; `-` is the name, and `!` marks the second pass.
fn order(cluster: &Cluster, balance: &Arc<Balance>, now: Instant) -> String {
    let show = |candidate: Candidate| {
        let id = match &candidate.place {
            Place::Name => "-",
            Place::Member(id) => id,
        };
        format!("{id}{}", if candidate.pass == 1 { "!" } else { "" })
    };
    let candidates = cluster.candidates(balance, now).into_iter();
    candidates.map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn writes_go_to_the_last_writer_then_the_name_then_the_others() {
    let (cluster, balance, now) = (cluster(ClusterRole::Writer), Arc::default(), some_instant());
    assert_eq!(order(&cluster, &balance, now), "-");
    let own = cluster.learn(&Place::Name, &list("a", &[("b", 9), ("c", 9)]));
    assert_eq!(own.as_deref(), Some("a"));
    assert_eq!(order(&cluster, &balance, now), "a - b c");

    // The member where a login that requires writes succeeds is the writer, whatever a list reports.
    cluster.succeeded(&member("b"));
    assert_eq!(order(&cluster, &balance, now), "b - a c");
    cluster.learn(&member("b"), &list("a", &[("b", 9), ("c", 9)]));
    assert_eq!(order(&cluster, &balance, now), "b - a c");
    let members = cluster.members();
    let writer = members.iter().find(|member| member.is_writer).unwrap();
    assert_eq!((&*writer.id, &*writer.host), ("b", &*format!("b.{DOMAIN}")));
}

#[test]
fn a_place_that_failed_comes_last_for_longer_each_time() {
    let (cluster, balance, now) = (cluster(ClusterRole::Writer), Arc::default(), some_instant());
    cluster.learn(&Place::Name, &list("a", &[("b", 0)]));
    cluster.failed_at(&member("a"), ErrorKind::Network, now);
    assert_eq!(order(&cluster, &balance, now), "- b a");
    assert_eq!(order(&cluster, &balance, now + 5 * SECOND), "a - b");
    cluster.failed_at(&member("a"), ErrorKind::Network, now);
    assert_eq!(order(&cluster, &balance, now + 9 * SECOND), "- b a");
    assert_eq!(order(&cluster, &balance, now + 10 * SECOND), "a - b");
    for _ in 0..100 {
        cluster.failed_at(&member("a"), ErrorKind::Network, now);
    }
    assert_eq!(order(&cluster, &balance, now + 299 * SECOND), "- b a");
    assert_eq!(order(&cluster, &balance, now + 300 * SECOND), "a - b");
    cluster.succeeded(&member("a"));
    assert_eq!(order(&cluster, &balance, now), "a - b");
    // A reader that takes no writes may be the next writer.
    cluster.failed_at(&member("b"), ErrorKind::ServerUnavailable, now);
    cluster.failed_at(&Place::Name, ErrorKind::Network, now);
    assert_eq!(order(&cluster, &balance, now), "a b -");
}

/// One connect is enough to meet a silent server.
#[test]
fn a_place_at_which_a_login_hangs_comes_last_for_others() {
    let (cluster, balance, now) = (cluster(ClusterRole::Writer), Arc::default(), some_instant());
    cluster.learn(&Place::Name, &list("a", &[("b", 0)]));
    let a = member("a");
    let under_way = cluster.begin_at(&a, now);
    assert_eq!(order(&cluster, &balance, now), "a - b");
    assert_eq!(order(&cluster, &balance, now + SECOND), "- b a");
    drop(under_way);
    assert_eq!(order(&cluster, &balance, now + SECOND), "a - b");
}

#[test]
fn reads_go_to_the_reader_with_the_fewest_connections_and_then_the_least_lag() {
    let (cluster, balance, now) = (cluster(READERS), Arc::default(), some_instant());
    assert_eq!(order(&cluster, &balance, now), "- -!");
    cluster.learn(&Place::Name, &list("a", &[("b", 20), ("c", 10)]));
    assert_eq!(order(&cluster, &balance, now), "c b - a! -!");
    let held = balance.hold(&"c".into());
    assert_eq!(order(&cluster, &balance, now), "b c - a! -!");
    // The first candidate counts at once: five connects at the same time do not choose the same one.
    let begun: Vec<_> = (0..5).map(|_| cluster.candidates(&balance, now)).collect();
    assert_eq!(balance.lock().of("b"), 3);
    assert_eq!(balance.lock().of("c"), 3);
    drop((held, begun));
    assert_eq!(balance.lock().of("b"), 0);
    assert_eq!(balance.lock().of("c"), 0);

    let strict = self::cluster(ClusterRole::Readers { or_writer: false });
    strict.learn(&Place::Name, &list("a", &[("b", 20)]));
    assert_eq!(order(&strict, &balance, now), "b -");
}

#[test]
fn a_reader_that_is_too_far_behind_is_left_out_and_the_name_with_it() {
    let balance = Arc::default();
    let cluster = limited(READERS, Some(SECOND));
    let now = some_instant();
    assert_eq!(order(&cluster, &balance, now), "- -!");
    cluster.learn(&Place::Name, &list("a", &[("b", 1001), ("c", 1000)]));
    assert_eq!(order(&cluster, &balance, now), "c a!");
    assert_eq!(
        cluster.excessive_lag("b"),
        Some(Duration::from_millis(1001))
    );
    assert_eq!(cluster.excessive_lag("c"), None);
}

#[test]
fn the_members_are_read_every_half_minute_and_every_second_in_trouble() {
    let (cluster, now) = (cluster(ClusterRole::Writer), some_instant());
    assert_eq!(cluster.take_due_read(now), Some(Source::Unknown));
    cluster.set_source(Source::Aurora);
    cluster.learn(&Place::Name, &list("a", &[]));
    assert_eq!(cluster.take_due_read(now + 29 * SECOND), None);
    assert_eq!(
        cluster.take_due_read(now + 30 * SECOND),
        Some(Source::Aurora)
    );
    let now = now + 30 * SECOND;
    cluster.failed_at(&member("a"), ErrorKind::Network, now);
    assert_eq!(cluster.take_due_read(now + SECOND / 2), None);
    assert_eq!(cluster.take_due_read(now + SECOND), Some(Source::Aurora));
    // An unreadable list is not read again.
    cluster.set_source(Source::None);
    assert_eq!(cluster.take_due_read(now + 100 * SECOND), None);
    assert!(cluster.members().is_empty());
}

#[test]
fn a_server_cannot_name_servers_outside_its_cluster() {
    let (cluster, balance, now) = (cluster(ClusterRole::Writer), Arc::default(), some_instant());
    let lines = [
        "",
        "a",
        "a\twriter",
        "a b\treader\tother\t0",
        "evil.example.com\treader\tother\t0",
        "d.other9akciq3.eu-west-1.rds.amazonaws.com\treader\tother\t0",
        "../x\treader\tother\t0",
        "e\treader\tother\tsoon",
        "ÉCOLE\treader\tother\t0",
    ];
    let lines = lines.map(str::to_owned);
    assert_eq!(cluster.learn(&Place::Name, &lines), None);
    assert_eq!(order(&cluster, &balance, now), "-");

    let mut lines = vec![
        "Instance-1\twriter\tself\t1.5e3".to_owned(),
        format!("two.{DOMAIN}\tunknown\tother\t-1"),
    ];
    lines.extend((0..1000).map(|at| format!("i{at}\treader\tother\t0")));
    cluster.learn(&Place::Name, &lines);
    let members = cluster.members();
    assert_eq!(members.len(), query::MOST_MEMBERS);
    assert_eq!(&*members[0].id, "instance-1");
    assert_eq!(members[0].lag, Duration::from_millis(1500));
    assert_eq!((&*members[1].id, members[1].lag), ("two", Duration::ZERO));
}

#[test]
fn another_writer_is_logged_once_and_by_the_pools_of_writers_only() {
    let count_at = |role| {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let cluster = cluster(role);
            cluster.learn(&Place::Name, &list("a", &[("b", 0)]));
            cluster.succeeded(&member("b"));
            cluster.learn(&member("b"), &list("b", &[("a", 0)]));
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        text.matches("the cluster has another writer").count()
    };
    assert_eq!(count_at(ClusterRole::Writer), 1);
    assert_eq!(count_at(READERS), 0);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
