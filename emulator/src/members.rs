//! An Aurora cluster of several servers.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::builder::{Builder, Member};
use crate::certificates::Authority;
use crate::emulator::Emulator;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};

/// The part of RDS's host names that identifies an account.
const ACCOUNT: &str = "c9akciq32rqv";

/// The port of every member, which tokens are signed for, unless the builder has another.
const PORT: u16 = 5432;

/// Functions of Aurora PostgreSQL. They answer from files, since each server has an answer of its own.
/// [Aurora's user guide, aurora_replica_status and aurora_db_instance_identifier]
const AURORA_FUNCTIONS: &str = "\
CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT pg_catalog.pg_read_file('aurora_instance')
$$;
CREATE FUNCTION pg_catalog.aurora_replica_status(
    OUT server_id text, OUT session_id text, OUT replica_lag_in_msec real,
    OUT last_update_timestamp timestamptz) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT pg_catalog.split_part(line, ' ', 1), pg_catalog.split_part(line, ' ', 2),
        pg_catalog.split_part(line, ' ', 3)::real, pg_catalog.now()
    FROM pg_catalog.regexp_split_to_table(pg_catalog.pg_read_file('aurora_members'), '\\n') AS line
    WHERE line <> ''
$$;
";

/// The functions of an RDS Multi-AZ DB cluster instead. [RDS's user guide; AWS's drivers]
const RDS_TOOLS: &str = "\
DROP FUNCTION pg_catalog.aurora_replica_status();
DROP FUNCTION pg_catalog.aurora_db_instance_identifier();
CREATE SCHEMA rds_tools;
CREATE FUNCTION rds_tools.show_topology(driver text DEFAULT '',
    OUT id text, OUT endpoint text, OUT port int) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT 'db-' || pg_catalog.md5(line), pg_catalog.split_part(line, ' ', 4), 5432
    FROM pg_catalog.regexp_split_to_table(pg_catalog.pg_read_file('aurora_members'), '\\n') AS line
    WHERE line <> ''
$$;
REVOKE EXECUTE ON FUNCTION rds_tools.show_topology FROM PUBLIC;
";

/// The session id that marks the writer in `aurora_replica_status()`.
const MASTER_SESSION_ID: &str = "MASTER_SESSION_ID";

/// An Aurora cluster: a writer and readers, each a PostgreSQL server with a name and an address of its own.
///
/// Created by [`Builder::start_cluster`]. Members are numbered from 0, and member 0 is the writer at first. Tokens
/// must be signed for the member's own host name, or for one of the two names of the cluster, and for port 5432
/// or [`Builder::port`]. Each member listens on a port of its own on loopback, so a client needs
/// [`resolve`](AuroraCluster::resolve).
///
/// After [`promote`](AuroraCluster::promote), the cluster's DNS name leads to the former writer until
/// [`point_dns_at`](AuroraCluster::point_dns_at), and the other readers report the former writer until
/// [`update_lists`](AuroraCluster::update_lists), as in Aurora for some seconds.
pub struct AuroraCluster {
    region: String,
    port: u16,
    state: Arc<Mutex<State>>,
    members: Vec<Emulator>,
}

#[derive(Debug)]
struct State {
    writer: usize,
    lags: Vec<Duration>,
    /// Members that have been taken out of the lists, and out of the reader's DNS name.
    removed: HashSet<usize>,
    /// Where the cluster's name leads.
    dns: usize,
    addresses: Vec<SocketAddr>,
    names_asked: Vec<String>,
}

impl Builder {
    /// Starts an Aurora cluster with this many members instead of one server. The endpoint and the certificate's
    /// names are those of the cluster and its members. A fixed [`port`](Builder::port) is used on 127.0.0.1,
    /// 127.0.0.2 and so on, which Linux has; otherwise each member has a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As [`start`](Builder::start); [`ErrorKind::Setting`] for fewer than two members or more than 16, and for
    /// an engine other than [`Engine::Rds`] or an upstream.
    pub fn start_cluster(self, members: usize) -> Result<AuroraCluster, Error> {
        self.check()?;
        if !(2..=16).contains(&members) || self.engine != Engine::Rds || self.upstream.is_some() {
            return Err(Error::new(
                ErrorKind::Setting,
                "a cluster has 2 to 16 members, the engine Rds, and no upstream",
            ));
        }
        AuroraCluster::start(self, members)
    }
}

impl AuroraCluster {
    fn start(builder: Builder, number: usize) -> Result<AuroraCluster, Error> {
        let authority = Arc::new(Authority::generate(builder.engine)?);
        let region = builder.region.clone();
        let port = if builder.port == 0 {
            PORT
        } else {
            builder.port
        };
        let has_port = builder.port != 0;
        let other_hosts = vec![name(&region, false), name(&region, true)];
        let start = |at: usize, primary| {
            let last = if has_port { at + 1 } else { 1 };
            let address = Ipv4Addr::new(127, 0, 0, u8::try_from(last).unwrap_or(1));
            let mut builder = builder
                .clone()
                .endpoint(member_name(&region, at), port)
                // A standby confirms a commit no sooner than it is in the log that is sent.
                .postgres_setting("synchronous_commit", "on")
                .postgres_setting("wal_keep_size", "1GB");
            builder.member = Some(Member {
                authority: Arc::clone(&authority),
                other_hosts: other_hosts.clone(),
                primary,
                address: IpAddr::V4(address),
            });
            builder.start()
        };
        let writer = start(0, None)?;
        writer.execute(AURORA_FUNCTIONS)?;
        let primary = writer.postgres()?.writer();
        let readers: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = (1..number)
                .map(|at| {
                    let (start, primary) = (&start, primary.clone());
                    scope.spawn(move || start(at, Some(primary)))
                })
                .collect();
            let ended = starting.into_iter().map(|thread| thread.join());
            ended
                .map(|it| it.unwrap_or_else(|_| Err(panicked())))
                .collect()
        });
        let mut members = vec![writer];
        for reader in readers {
            members.push(reader?);
        }
        let cluster = AuroraCluster {
            region,
            port,
            state: Arc::new(Mutex::new(State {
                writer: 0,
                lags: vec![Duration::ZERO; number],
                removed: HashSet::new(),
                dns: 0,
                addresses: members.iter().map(Emulator::addr).collect(),
                names_asked: Vec::new(),
            })),
            members,
        };
        cluster.update_lists()?;
        cluster.wait_for_readers()?;
        Ok(cluster)
    }

    /// The host name of the cluster's endpoint, which leads to the writer.
    pub fn host(&self) -> String {
        name(&self.region, false)
    }

    /// The host name of the reader endpoint.
    pub fn reader_host(&self) -> String {
        name(&self.region, true)
    }

    /// The port that tokens must be signed for: 5432, or that of the builder.
    pub fn signed_port(&self) -> u16 {
        self.port
    }

    /// The identifier of a member, such as `instance-1` for member 0.
    pub fn id(&self, member: usize) -> String {
        id(member)
    }

    /// The number of members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// One member, for its faults, logins and sessions. `None` if there is no such member.
    pub fn member(&self, member: usize) -> Option<&Emulator> {
        self.members.get(member)
    }

    /// The member that is the writer.
    pub fn writer(&self) -> usize {
        self.state().writer
    }

    /// A URL without a password for `user` and the database `postgres` at `host`, one of the cluster's names, with
    /// `sslmode=verify-full`.
    pub fn url(&self, host: &str, user: &str) -> String {
        let url = self.first().url(user);
        let (_, parameters) = url.split_once("&sslmode").unwrap_or_default();
        format!(
            "postgres://{user}@{host}:{}/postgres?sslmode{parameters}",
            self.port
        )
    }

    /// Resolves a name of the cluster as its DNS does. Addresses have the port at which the member listens.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] for any other name.
    pub fn resolve(
        &self,
    ) -> impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static {
        let (state, region) = (Arc::clone(&self.state), self.region.clone());
        move |host: &str, _: u16| {
            let mut state = lock(&state);
            state.names_asked.push(host.to_owned());
            let number = state.addresses.len();
            let found: Vec<usize> = if host == name(&region, false) {
                vec![state.dns]
            } else if host == name(&region, true) {
                let is_reader = |at: &usize| *at != state.writer && !state.removed.contains(at);
                let readers: Vec<usize> = (0..number).filter(is_reader).collect();
                // Aurora's reader endpoint leads to the writer if there is no reader.
                if readers.is_empty() {
                    vec![state.writer]
                } else {
                    readers
                }
            } else {
                let is_named = |at: &usize| member_name(&region, *at) == host;
                (0..number).filter(is_named).collect()
            };
            let addresses = found
                .iter()
                .filter_map(|at| state.addresses.get(*at).copied());
            let addresses: Vec<_> = addresses.collect();
            match addresses.is_empty() {
                true => Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "no such name in the cluster",
                )),
                false => Ok(addresses),
            }
        }
    }

    /// The names that have been resolved so far, in their order.
    pub fn names_asked(&self) -> Vec<String> {
        self.state().names_asked.clone()
    }

    /// Lets the cluster's name lead to `member`.
    pub fn point_dns_at(&self, member: usize) {
        self.state().dns = member;
    }

    /// Creates a database user who logs in with a token, and waits until all readers know it.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects the name.
    pub fn create_iam_user(&self, name: &str) -> Result<(), Error> {
        self.at(self.writer())?.create_iam_user(name)?;
        self.wait_for_readers()
    }

    /// Runs statements, separated by semicolons, as the superuser at the writer, and waits until all readers have
    /// replayed them.
    ///
    /// # Errors
    ///
    /// If PostgreSQL rejects a statement, or a member does not run.
    pub fn execute(&self, statements: &str) -> Result<(), Error> {
        self.at(self.writer())?.execute(statements)?;
        self.wait_for_readers()
    }

    /// Makes `member` the writer. The former writer is not touched: if it is to be a reader,
    /// [`demote`](AuroraCluster::demote) it. The other members replicate from the new writer.
    ///
    /// # Errors
    ///
    /// If `member` does not run, or is the writer already.
    pub fn promote(&self, member: usize) -> Result<(), Error> {
        let heir = self.at(member)?;
        let promoted = "SELECT CASE WHEN pg_promote() THEN 'yes' ELSE 'no' END";
        if heir.query(promoted)? != "yes" {
            return Err(Error::new(
                ErrorKind::Postgres,
                "a reader was not promoted in time",
            ));
        }
        let former = {
            let mut state = self.state();
            std::mem::replace(&mut state.writer, member)
        };
        let primary = heir.postgres()?.writer();
        for (at, other) in self.members.iter().enumerate() {
            if at != member && at != former {
                other.postgres()?.follow(&primary)?;
                // One that does not run reads its configuration when it starts.
                let _ = other.execute("SELECT pg_reload_conf()");
            }
        }
        self.write_list(member)
    }

    /// Makes a former writer a reader: its server stops, takes its data from the writer, and starts. Its sessions
    /// end.
    ///
    /// # Errors
    ///
    /// If it is the writer, or a server does not stop or start.
    pub fn demote(&self, member: usize) -> Result<(), Error> {
        let writer = self.writer();
        if member == writer {
            return Err(Error::new(
                ErrorKind::Setting,
                "this member is the writer: promote another one first",
            ));
        }
        let former = self.at(member)?;
        former.stop_postgres()?;
        let primary = self.at(writer)?.postgres()?.writer();
        former.postgres()?.start_over_as_standby(&primary)?;
        self.write_list(member)?;
        former.start_postgres()?;
        self.wait_for(member)
    }

    /// Sets the lag that the lists report for a member from the next [`update_lists`](AuroraCluster::update_lists)
    /// on.
    pub fn set_lag(&self, member: usize, lag: Duration) {
        if let Some(entry) = self.state().lags.get_mut(member) {
            *entry = lag;
        }
    }

    /// Takes a member out of the lists and out of the reader's DNS name, or adds it again. The lists change with
    /// the next [`update_lists`](AuroraCluster::update_lists).
    pub fn set_listed(&self, member: usize, is_listed: bool) {
        let mut state = self.state();
        if is_listed {
            state.removed.remove(&member);
        } else {
            state.removed.insert(member);
        }
    }

    /// Lets all members report the present state of the cluster.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn update_lists(&self) -> Result<(), Error> {
        (0..self.members.len()).try_for_each(|member| self.write_list(member))
    }

    /// Replaces Aurora's functions by those of an RDS Multi-AZ DB cluster, in the schema `rds_tools`. A user needs
    /// USAGE on it and EXECUTE.
    ///
    /// # Errors
    ///
    /// If the writer does not run.
    pub fn use_rds_tools(&self) -> Result<(), Error> {
        self.execute(RDS_TOOLS)
    }

    fn write_list(&self, member: usize) -> Result<(), Error> {
        let list: String = {
            let state = self.state();
            let listed = (0..state.lags.len()).filter(|at| !state.removed.contains(at));
            let line = |at: usize| {
                let session = match at == state.writer {
                    true => MASTER_SESSION_ID.to_owned(),
                    false => format!("session-{at}"),
                };
                let lag = state.lags.get(at).map_or(0, Duration::as_millis);
                format!(
                    "{} {session} {lag} {}\n",
                    id(at),
                    member_name(&self.region, at)
                )
            };
            listed.map(line).collect()
        };
        let cluster = self.at(member)?.postgres()?;
        cluster.write_file("aurora_instance", &id(member))?;
        cluster.write_file("aurora_members", &list)
    }

    fn wait_for_readers(&self) -> Result<(), Error> {
        let (writer, number) = (self.writer(), self.members.len());
        (0..number)
            .filter(|member| *member != writer)
            .try_for_each(|member| self.wait_for(member))
    }

    /// Waits until a reader has replayed what the writer has written.
    fn wait_for(&self, reader: usize) -> Result<(), Error> {
        let written = self
            .at(self.writer())?
            .query("SELECT pg_current_wal_insert_lsn()::text")?;
        self.at(reader)?.execute(&format!(
            "DO $$ DECLARE started timestamptz := clock_timestamp(); BEGIN \
             WHILE pg_is_in_recovery() AND pg_last_wal_replay_lsn() < '{written}' LOOP \
                 IF clock_timestamp() > started + interval '60 s' THEN \
                     RAISE 'a reader has not caught up within a minute'; \
                 END IF; \
                 PERFORM pg_sleep(0.005); \
             END LOOP; END $$"
        ))
    }

    fn at(&self, member: usize) -> Result<&Emulator, Error> {
        let message = || format!("the cluster has no member {member}");
        let found = self.members.get(member);
        found.ok_or_else(|| Error::new(ErrorKind::Setting, message()))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a cluster has two members at least"
    )]
    fn first(&self) -> &Emulator {
        &self.members[0]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for AuroraCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(member: usize) -> String {
    format!("instance-{}", member + 1)
}

fn member_name(region: &str, member: usize) -> String {
    format!("{}.{ACCOUNT}.{region}.rds.amazonaws.com", id(member))
}

fn name(region: &str, is_reader: bool) -> String {
    let kind = if is_reader { "cluster-ro" } else { "cluster" };
    format!("mycluster.{kind}-{ACCOUNT}.{region}.rds.amazonaws.com")
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::Postgres,
        "the start of a member panicked; its message tells where",
    )
}
