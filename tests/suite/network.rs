//! Network failures, and slow servers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel_rds_iam::{Error, ErrorKind, IamAuth, PgConnectionManager};
use rds_iam_emulator::{Emulator, Fault, Stage};

use crate::support::database::{auth_builder, emulator, manager_builder, refused};
use crate::support::{PATIENCE, accept};

/// libpq's shortest limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// libpq counts whole seconds, and the machine may be loaded.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(10);

/// A manager for connects that are to be abandoned soon.
fn manager(emulator: &Emulator, auth: &IamAuth) -> PgConnectionManager {
    manager_with(emulator, auth, CONNECT_TIMEOUT)
}

/// A manager for connects that are to fail by themselves, on a slow machine too.
fn patient_manager(emulator: &Emulator, auth: &IamAuth) -> PgConnectionManager {
    manager_with(emulator, auth, PATIENCE)
}

fn manager_with(emulator: &Emulator, auth: &IamAuth, timeout: Duration) -> PgConnectionManager {
    let builder = manager_builder(emulator).auth(auth.clone());
    builder.connect_timeout(timeout).build().unwrap()
}

/// The same for a server of this test, under the emulator's name.
fn manager_for(listener: &TcpListener, emulator: &Emulator, auth: &IamAuth) -> PgConnectionManager {
    let (host, port) = (emulator.host(), listener.local_addr().unwrap().port());
    let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=app");
    PgConnectionManager::builder(&url)
        .auth(auth.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .unwrap()
}

/// Waits for libpq's request for TLS, and accepts it.
fn agree_on_tls(listener: &TcpListener) -> TcpStream {
    let mut client = accept(listener);
    client.read_exact(&mut [0; 8]).unwrap();
    client.write_all(b"S").unwrap();
    client
}

fn assert_is_the_network(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
}

/// FAULTS.md row 19.
#[test]
fn a_silent_server_times_out_without_delaying_other_connections() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    let patient = patient_manager(&emulator, &auth);
    let mut open = patient.try_connect().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_in_tls = TcpListener::bind("127.0.0.1:0").unwrap();
    emulator.fault(Fault::BlackHole(Stage::Login));

    thread::scope(|scope| {
        let held = scope.spawn(|| agree_on_tls(&silent_in_tls));
        let connects: Vec<_> = [
            manager_for(&silent, &emulator, &auth),
            manager_for(&silent_in_tls, &emulator, &auth),
            manager(&emulator, &auth),
        ]
        .map(|manager| {
            scope.spawn(move || {
                let begun = Instant::now();
                (manager.try_connect().err().unwrap(), begun.elapsed())
            })
        })
        .into();
        open.batch_execute("SELECT 1").unwrap();
        for connect in connects {
            let (error, took) = connect.join().unwrap();
            assert_is_the_network(&error);
            assert!(took < GIVEN_UP_WITHIN, "{error} took {took:?}");
        }
        drop(held.join().unwrap());
    });
    open.batch_execute("SELECT 1").unwrap();

    emulator.heal();
    drop(patient.try_connect().unwrap());
    // One token for each of the three ports, and none because of the failures.
    let stats = auth.stats();
    assert_eq!((stats.tokens_signed, stats.logins_refused), (3, 0));
    assert!(refused(&emulator).is_empty(), "{:?}", refused(&emulator));
}

/// FAULTS.md row 19.
#[test]
fn a_connection_that_breaks_during_login_is_not_a_refused_login() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = patient_manager(&emulator, &auth);
    for stage in [Stage::Accept, Stage::Tls, Stage::Login] {
        emulator.set_faults(&[Fault::Reset(stage)]);
        assert_is_the_network(&manager.try_connect().err().unwrap());
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = manager_for(&listener, &emulator, &auth);
    thread::scope(|scope| {
        scope.spawn(|| drop(agree_on_tls(&listener)));
        assert_is_the_network(&hangs_up.try_connect().err().unwrap());
    });

    emulator.heal();
    drop(manager.try_connect().unwrap());
    let stats = auth.stats();
    assert_eq!((stats.tokens_signed, stats.logins_refused), (2, 0));
}

/// FAULTS.md row 19.
#[test]
fn a_login_in_single_bytes_succeeds() {
    let emulator = emulator();
    emulator.fault(Fault::OneByteAtATime);
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = manager_builder(&emulator).auth(auth).build().unwrap();
    let mut connection = manager.try_connect().unwrap();
    connection.batch_execute("SELECT 1").unwrap();
}

/// FAULTS.md row 20.
#[test]
fn a_login_that_takes_too_long_costs_no_token() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    // The client's time limit ends first, and then the server's.
    emulator.fault(Fault::Delay(Stage::Login, 2 * PATIENCE));
    let begun = Instant::now();
    let hasty = manager(&emulator, &auth);
    assert_is_the_network(&hasty.try_connect().err().unwrap());
    assert!(begun.elapsed() < GIVEN_UP_WITHIN, "{:?}", begun.elapsed());

    emulator.set_authentication_timeout(Duration::from_secs(1));
    let patient = patient_manager(&emulator, &auth);
    let error = patient.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");

    emulator.set_authentication_timeout(PATIENCE);
    emulator.heal();
    drop(patient.try_connect().unwrap());
    let stats = auth.stats();
    assert_eq!((stats.tokens_signed, stats.logins_refused), (1, 0));
    let logins = emulator.logins();
    assert!(
        logins
            .iter()
            .all(|login| login.fingerprint() == logins[0].fingerprint())
    );
}
