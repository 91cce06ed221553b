//! A cluster of several servers.

use std::time::{Duration, Instant};

use rds_iam_emulator::{AuroraCluster, Emulator, ErrorKind, LoginResult, Reason};

use crate::client::Token;

const LISTED: &str = "SELECT string_agg(server_id || ' ' || (session_id = 'MASTER_SESSION_ID') \
    || ' ' || replica_lag_in_msec, ', ' ORDER BY server_id) FROM aurora_replica_status()";

fn cluster(members: usize) -> AuroraCluster {
    let cluster = Emulator::builder().start_cluster(members).unwrap();
    cluster.create_iam_user("app").unwrap();
    cluster
}

/// Queries `member`, with a token that is signed for `host`.
fn ask(
    cluster: &AuroraCluster,
    member: usize,
    host: &str,
    query: &str,
) -> Result<String, postgres::Error> {
    let member = cluster.member(member).unwrap();
    let mut token = Token::new(member, "app");
    token.authority = format!("{host}:5432");
    let mut client = crate::client::connect(member, "app", &token.sign())?;
    Ok(client.query_one(query, &[])?.get(0))
}

fn ask_member(cluster: &AuroraCluster, member: usize, query: &str) -> String {
    let host = cluster.member(member).unwrap().host().to_owned();
    ask(cluster, member, &host, query).unwrap()
}

#[test]
fn members_have_roles_names_and_the_functions_of_aurora() {
    let cluster = cluster(3);
    for member in 0..3 {
        let id = ask_member(&cluster, member, "SELECT aurora_db_instance_identifier()");
        assert_eq!(id, cluster.id(member));
        let read_only = ask_member(&cluster, member, "SHOW transaction_read_only");
        assert_eq!(read_only == "on", member != 0);
        let listed = ask_member(&cluster, member, LISTED);
        assert_eq!(
            listed,
            "instance-1 true 0, instance-2 false 0, instance-3 false 0"
        );
    }
    // A token for the cluster is accepted by its members, and one for another member is not.
    for host in [cluster.host(), cluster.reader_host()] {
        ask(&cluster, 1, &host, "SELECT ''").unwrap();
    }
    let other = cluster.member(2).unwrap().host().to_owned();
    ask(&cluster, 1, &other, "SELECT ''").unwrap_err();
    let logins = cluster.member(1).unwrap().logins();
    assert_eq!(
        logins.last().unwrap().result(),
        &LoginResult::Refused(Reason::Host)
    );
}

#[test]
fn another_member_becomes_the_writer_and_the_lists_of_the_readers_follow_on_demand() {
    let cluster = cluster(3);
    cluster
        .execute("CREATE TABLE kept AS SELECT 'data' AS text; GRANT SELECT ON kept TO app")
        .unwrap();
    let resolve = cluster.resolve();
    let addresses = |host: &str| resolve(host, 5432).unwrap();
    let address = |member: usize| cluster.member(member).unwrap().addr();
    assert_eq!(addresses(&cluster.host()), [address(0)]);
    assert_eq!(addresses(&cluster.reader_host()), [address(1), address(2)]);

    cluster.member(0).unwrap().stop_postgres().unwrap();
    cluster.promote(2).unwrap();
    assert_eq!(cluster.writer(), 2);
    assert_eq!(addresses(&cluster.host()), [address(0)], "DNS is late");
    cluster.point_dns_at(2);
    assert_eq!(addresses(&cluster.host()), [address(2)]);
    let now = "instance-1 false 0, instance-2 false 0, instance-3 true 0";
    assert_eq!(ask_member(&cluster, 2, LISTED), now);
    assert_ne!(
        ask_member(&cluster, 1, LISTED),
        now,
        "the list of a reader is stale"
    );

    // The former writer returns as a reader, and both replicate all data.
    cluster.demote(0).unwrap();
    cluster.set_lag(1, Duration::from_millis(250));
    cluster.update_lists().unwrap();
    cluster.execute("UPDATE kept SET text = 'new'").unwrap();
    for member in 0..3 {
        assert_eq!(ask_member(&cluster, member, "SELECT text FROM kept"), "new");
        let lags = "instance-1 false 0, instance-2 false 250, instance-3 true 0";
        assert_eq!(ask_member(&cluster, member, LISTED), lags);
    }
    cluster.set_listed(1, false);
    cluster.update_lists().unwrap();
    assert_eq!(
        ask_member(&cluster, 1, LISTED),
        "instance-1 false 0, instance-3 true 0"
    );
    assert_eq!(cluster.demote(2).unwrap_err().kind(), ErrorKind::Setting);
    assert_eq!(cluster.promote(7).unwrap_err().kind(), ErrorKind::Setting);
}

#[test]
fn a_multi_az_cluster_lists_its_members_to_users_with_the_right() {
    let cluster = cluster(2);
    cluster.use_rds_tools().unwrap();
    let query = "SELECT string_agg(endpoint || ':' || port, ' ' ORDER BY endpoint) \
        FROM rds_tools.show_topology('test')";
    let host = cluster.host();
    ask(&cluster, 0, &host, query).unwrap_err();
    cluster
        .execute(
            "GRANT USAGE ON SCHEMA rds_tools TO app; \
             GRANT EXECUTE ON FUNCTION rds_tools.show_topology TO app",
        )
        .unwrap();
    let listed = ask(&cluster, 1, &host, query).unwrap();
    let name = |member: usize| format!("{}:5432", cluster.member(member).unwrap().host());
    assert_eq!(listed, format!("{} {}", name(0), name(1)));
}

#[test]
fn a_cluster_needs_two_members_and_starts_soon() {
    for members in [0, 1, 17] {
        let error = Emulator::builder().start_cluster(members).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setting);
    }
    drop(cluster(2));
    let begun = Instant::now();
    drop(cluster(3));
    println!("three members: {:?}", begun.elapsed());
}
