//! Names with several addresses, connection strings with several hosts, and their common time limit.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel_rds_iam::{
    Backend, ConnectionOpened, Error, ErrorKind, HandleAuthEvent, ManualClock, PgConnectionManager,
    RdsConnectionManager,
};
use parking_lot::Mutex;
use rds_iam_emulator::{Emulator, Fault, Node, Stage};

use crate::support::PATIENCE;
use crate::support::database::{Ask, auth_builder, emulator, manager_builder, shared_emulator};

/// Emulators that accept the same keys.
struct Servers(Vec<Emulator>);

impl Servers {
    fn start() -> Servers {
        Servers(vec![emulator(), emulator()])
    }

    /// A connection string with all of them as hosts, in this order.
    fn url(&self, order: &[usize], parameters: &str) -> String {
        let list = |part: &dyn Fn(&Emulator) -> String| {
            let parts: Vec<String> = order.iter().map(|at| part(&self.0[*at])).collect();
            parts.join(",")
        };
        format!(
            "host={} hostaddr={} port={} user=app dbname=postgres sslmode=require {parameters}",
            list(&|it| it.host().to_owned()),
            list(&|_| "127.0.0.1".to_owned()),
            list(&|it| it.port().to_string()),
        )
    }

    /// The port of the server that a connect with `url` reaches.
    fn log_in<C: Backend>(&self, url: &str) -> Result<u16, Error>
    where
        C::Connection: Ask,
    {
        let auth = auth_builder(&self.0[0]).build()?;
        let manager = RdsConnectionManager::<C>::builder(url).auth(auth).build()?;
        let mut connection = manager.try_connect()?;
        let place = connection.ask("inet_server_port() IS NULL");
        assert_eq!(place, "true", "the emulator dials PostgreSQL's socket");
        // A server that was skipped notices a moment later that the client has disconnected.
        let begun = Instant::now();
        let port = loop {
            let sessions = |it: &&Emulator| it.sessions() > 0;
            let at: Vec<u16> = self.0.iter().filter(sessions).map(Emulator::port).collect();
            if let [port] = at[..] {
                break port;
            }
            assert!(begun.elapsed() < PATIENCE, "{at:?}");
            thread::yield_now();
        };
        drop(connection);
        for emulator in &self.0 {
            emulator.wait_for_sessions(0, PATIENCE).unwrap();
        }
        Ok(port)
    }

    /// The same for every kind of connection, which must all reach the same server.
    fn log_in_by_all(&self, url: &str) -> Result<u16, Error> {
        let port = self.log_in::<diesel::PgConnection>(url);
        #[cfg(feature = "postgres")]
        {
            let other = self.log_in::<diesel_rds_iam::postgres::Client>(url);
            let kind = |result: &Result<u16, Error>| result.as_ref().map_err(Error::kind).copied();
            assert_eq!(kind(&other), kind(&port), "{other:?} {port:?}");
        }
        port
    }
}

/// A port that refuses connections.
fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A manager of any kind for an emulator whose name has these addresses.
fn manager_at<C: Backend>(
    emulator: &Emulator,
    addresses: &[SocketAddr],
) -> RdsConnectionManager<C> {
    let ca = emulator.ca_path().display();
    let (host, port) = (emulator.host(), emulator.port());
    let url = format!("host={host} port={port} user=app dbname=postgres sslrootcert={ca}");
    let addresses = addresses.to_vec();
    RdsConnectionManager::builder(&url)
        .auth(auth_builder(emulator).build().unwrap())
        .resolver(move |_, _| Ok(addresses.clone()))
        .connect_timeout(PATIENCE)
        .build()
        .unwrap()
}

/// Connects with every kind of connection, and returns the error of the last.
fn connect_by_all(emulator: &Emulator, addresses: &[SocketAddr]) -> Result<(), Error> {
    let outcome = manager_at::<diesel::PgConnection>(emulator, addresses).try_connect();
    let outcome = outcome.map(drop);
    #[cfg(feature = "postgres")]
    {
        let other = manager_at::<diesel_rds_iam::postgres::Client>(emulator, addresses);
        let other = other.try_connect().map(drop);
        let kind = |outcome: &Result<(), Error>| outcome.as_ref().err().map(Error::kind);
        assert_eq!(kind(&other), kind(&outcome), "{other:?} {outcome:?}");
        if let Err(error) = &other {
            for address in addresses {
                assert!(error.to_string().contains(&address.to_string()), "{error}");
            }
        }
    }
    outcome
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// FAULTS.md row 50.
#[test]
fn every_address_of_a_name_is_tried() {
    let emulator = emulator();
    let (good, refusing) = (loopback(emulator.port()), loopback(refusing_port()));
    connect_by_all(&emulator, &[refusing, good]).unwrap();

    // Each attempt fails in another way. The error is that of the attempt that got furthest, and names all of them.
    emulator.fault(Fault::Reset(Stage::Tls));
    let error = connect_by_all(&emulator, &[refusing, good]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    emulator.heal();
    let other = Emulator::builder().start().unwrap();
    let untrusted = loopback(other.port());
    for addresses in [[refusing, untrusted], [untrusted, refusing]] {
        let error = connect_by_all(&emulator, &addresses).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        let text = error.to_string();
        for address in addresses {
            assert!(text.contains(&address.port().to_string()), "{text}");
        }
    }
}

/// FAULTS.md row 50.
#[test]
fn a_silent_address_leaves_time_for_the_next_one() {
    let emulator = emulator();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [silent.local_addr().unwrap(), loopback(emulator.port())];
    connect_by_all(&emulator, &addresses).unwrap();
}

#[test]
fn a_refused_login_ends_the_search() {
    let servers = Servers::start();
    servers.0[0].fault(Fault::RefuseNext(u32::MAX));
    let error = servers
        .log_in_by_all(&servers.url(&[0, 1], ""))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
    assert_eq!(servers.0[1].login_count(), 0);
}

/// FAULTS.md row 51.
#[test]
fn of_several_hosts_the_first_that_accepts_the_login_is_used() {
    let servers = Servers::start();
    let read_only = "ALTER ROLE app SET default_transaction_read_only = on";
    servers.0[0].execute(read_only).unwrap();
    let ports: Vec<u16> = servers.0.iter().map(Emulator::port).collect();
    assert_eq!(
        servers.log_in_by_all(&servers.url(&[0, 1], "")).unwrap(),
        ports[0]
    );

    let writers = servers.url(&[0, 1], "target_session_attrs=read-write");
    assert_eq!(servers.log_in_by_all(&writers).unwrap(), ports[1]);
    let readers = servers.url(&[1, 0], "target_session_attrs=read-only");
    assert_eq!(servers.log_in_by_all(&readers).unwrap(), ports[0]);
    let error = servers.log_in_by_all(&servers.url(&[0, 0], "target_session_attrs=read-write"));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ServerUnavailable);

    servers.0[0].stop_postgres().unwrap();
    assert_eq!(
        servers.log_in_by_all(&servers.url(&[0, 1], "")).unwrap(),
        ports[1]
    );
}

#[test]
fn a_standby_is_preferred_if_there_is_one() {
    let servers = Servers::start();
    let ports: Vec<u16> = servers.0.iter().map(Emulator::port).collect();
    let preferred = servers.url(&[0, 1], "target_session_attrs=prefer-standby");
    assert_eq!(servers.log_in_by_all(&preferred).unwrap(), ports[0]);
    let required = servers.url(&[0, 1], "target_session_attrs=standby");
    let error = servers.log_in_by_all(&required).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");

    servers.0[1].fail_over().unwrap();
    servers.0[1].route_to(Node::Reader).unwrap();
    assert_eq!(servers.log_in_by_all(&preferred).unwrap(), ports[1]);
    assert_eq!(servers.log_in_by_all(&required).unwrap(), ports[1]);
    let primary = servers.url(&[1, 0], "target_session_attrs=primary");
    assert_eq!(servers.log_in_by_all(&primary).unwrap(), ports[0]);
}

#[test]
fn load_balance_hosts_reaches_every_host() {
    let servers = Servers::start();
    let url = servers.url(&[0, 1], "load_balance_hosts=random");
    let mut reached = HashSet::new();
    // A uniform choice leaves one out with a probability of 2^-100.
    for _ in 0..100 {
        reached.insert(servers.log_in::<diesel::PgConnection>(&url).unwrap());
        if reached.len() == 2 {
            return;
        }
    }
    panic!("only {reached:?}");
}

#[test]
fn a_resolver_gets_the_dialled_host_and_port() {
    const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let emulator = Emulator::builder().endpoint(HOST, 5432).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let (ca, port) = (emulator.ca_path().display(), emulator.port());
    let url = format!(
        "postgres://app@db.internal.example:6432/postgres?sslrootcert={ca}&iam_host={HOST}&iam_port=5432"
    );
    let builder = || {
        let auth = auth_builder(&emulator).build().unwrap();
        PgConnectionManager::builder(&url).auth(auth)
    };
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let manager = builder().resolver(move |host, asked| {
        counted.fetch_add(1, Ordering::SeqCst);
        assert_eq!((host, asked), ("db.internal.example", 6432));
        Ok(vec![loopback(port)])
    });
    let manager = manager.build().unwrap();
    // The name is resolved at each connect, so that DNS is followed.
    for expected in 1..=2 {
        drop(manager.try_connect().unwrap());
        assert_eq!(calls.load(Ordering::SeqCst), expected);
    }

    let failing = builder().resolver(|_, _| Err(io::Error::other("no such service")));
    let error = failing.build().unwrap().try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Network);
    let text = error.to_string();
    assert!(
        text.contains("db.internal.example") && text.ends_with("no such service"),
        "{text}"
    );

    // An address is not resolved.
    let manager = manager_builder(shared_emulator()).resolver(|_, _| panic!("not asked"));
    let url = format!("{}&hostaddr=127.0.0.1", shared_emulator().url("app"));
    drop(manager);
    let auth = auth_builder(shared_emulator()).build().unwrap();
    let manager = PgConnectionManager::builder(&url).auth(auth);
    let manager = manager
        .resolver(|_, _| panic!("not asked"))
        .build()
        .unwrap();
    drop(manager.try_connect().unwrap());
}

/// How long it took to open each connection.
#[derive(Clone, Default)]
struct Opened(Arc<Mutex<Vec<Duration>>>);

impl HandleAuthEvent for Opened {
    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        self.0.lock().push(event.took);
    }
}

/// FAULTS.md row 64: NTP sets it while the name is resolved.
#[test]
fn a_clock_that_is_set_during_a_connect_takes_none_of_its_time() {
    fn assert_takes_none<C: Backend>(emulator: &Emulator) {
        let (time, port) = (ManualClock::new(), emulator.port());
        let opened = Opened::default();
        let start = time.clock().now().wall;
        let url = emulator.url("app");
        let (url, parameters) = url.split_once("hostaddr=127.0.0.1&").unwrap();
        let url = format!("{url}{parameters}");
        let hour = Duration::from_secs(60 * 60);
        for set_to in [start + hour, start - hour] {
            let auth = auth_builder(emulator).clock(time.clock());
            let auth = auth.event_handler(opened.clone()).build().unwrap();
            let set = time.clone();
            let manager = RdsConnectionManager::<C>::builder(&url)
                .auth(auth)
                .resolver(move |_, _| {
                    set.set_wall(set_to);
                    Ok(vec![loopback(port)])
                });
            drop(manager.build().unwrap().try_connect().unwrap());
            time.set_wall(start);
        }
        // The monotonic clock stands still.
        assert_eq!(*opened.0.lock(), [Duration::ZERO; 2]);
    }
    let emulator = emulator();
    assert_takes_none::<diesel::PgConnection>(&emulator);
    #[cfg(feature = "postgres")]
    assert_takes_none::<diesel_rds_iam::postgres::Client>(&emulator);
}

/// FAULTS.md row 53.
#[test]
fn a_long_connect_timeout_is_obeyed() {
    let emulator = emulator();
    // As a cluster of Aurora Serverless that resumes; the default limit is 9 s.
    emulator.fault(Fault::Delay(Stage::Tls, Duration::from_secs(15)));
    let url = format!("{}&connect_timeout=30", emulator.url("app"));
    let auth = auth_builder(&emulator).build().unwrap();
    let begun = Instant::now();
    let manager = PgConnectionManager::builder(&url)
        .auth(auth)
        .build()
        .unwrap();
    let pool = manager.into_pool().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(15));
    assert!(pool.connection_timeout() > Duration::from_secs(30));
}

#[test]
fn the_limits_of_a_connect_and_of_a_pool_follow_each_other() {
    let emulator = shared_emulator();
    let seconds = Duration::from_secs;
    let pool = |parameters: &str, connection_timeout: Option<Duration>| {
        let url = format!("{}{parameters}", emulator.url("app"));
        let auth = auth_builder(emulator).build().unwrap();
        let manager = PgConnectionManager::builder(&url)
            .auth(auth)
            .build()
            .unwrap();
        let mut pool = manager.pool_builder();
        if let Some(timeout) = connection_timeout {
            pool = pool.connection_timeout(timeout);
        }
        pool.build_unchecked().unwrap().connection_timeout()
    };
    assert_eq!(pool("", None), seconds(10));
    assert_eq!(pool("&connect_timeout=5", None), seconds(10));
    assert_eq!(pool("&connect_timeout=27", None), seconds(30));
    assert_eq!(pool("&connect_timeout=27", Some(seconds(20))), seconds(20));
    assert!(pool("&connect_timeout=0", None) == seconds(10));
}
