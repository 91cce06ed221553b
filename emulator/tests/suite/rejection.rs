//! Connections that the server rejects before a token is sent, and faults before TLS.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use native_tls::TlsConnector;
use postgres::Client;
use postgres_native_tls::MakeTlsConnector;
use rds_iam_emulator::{Emulator, Engine, Fault, Rejection, Stage};

use crate::client::{Token, config, connect, emulator, login, refusal, say, tls};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

#[test]
fn the_next_connections_are_rejected_and_then_accepted() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    for (rejection, sqlstate, message) in [
        (
            Rejection::TooManyConnections,
            "53300",
            "sorry, too many clients already",
        ),
        (
            Rejection::Resuming,
            "28000",
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"app\", database \"postgres\", \
             SSL encryption",
        ),
    ] {
        emulator.fault(Fault::RejectNext(rejection, 2));
        for _ in 0..2 {
            let expected = (sqlstate.to_owned(), message.to_owned());
            assert_eq!(refusal(connect(&emulator, "app", &token)), expected);
        }
        let logins = emulator.login_count();
        connect(&emulator, "app", &token).unwrap();
        // No token was sent to a server that rejected the connection.
        assert_eq!((logins, emulator.login_count()), (logins, logins + 1));
    }
    assert_eq!(emulator.login_count(), 2);
}

#[test]
fn rejections_follow_each_other_and_end_when_healed() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    let delay = Duration::from_millis(200);
    emulator.set_faults(&[
        Fault::Delay(Stage::Accept, delay),
        Fault::RejectNext(Rejection::Resuming, 1),
        Fault::RejectNext(Rejection::TooManyConnections, 9),
    ]);
    let start = Instant::now();
    assert_eq!(refusal(connect(&emulator, "app", &token)).0, "28000");
    assert!(start.elapsed() >= delay, "a resume takes time");
    assert_eq!(refusal(connect(&emulator, "app", &token)).0, "53300");
    emulator.heal();
    connect(&emulator, "app", &token).unwrap();
}

#[test]
fn dsql_has_limits_of_connections_and_requires_a_server_name() {
    let emulator = Emulator::builder().engine(Engine::Dsql).start().unwrap();
    emulator.execute("CREATE ROLE admin LOGIN").unwrap();
    let token = Token::of_dsql(&emulator, "DbConnectAdmin").sign();
    for (rejection, sqlstate, message) in [
        (
            Rejection::RateExceeded,
            "53400",
            "Unable to accept connection, rate exceeded.",
        ),
        (
            Rejection::TooManyConnections,
            "53300",
            "Unable to accept connection, too many open connections.",
        ),
    ] {
        emulator.fault(Fault::RejectNext(rejection, 1));
        let expected = (sqlstate.to_owned(), message.to_owned());
        assert_eq!(refusal(connect(&emulator, "admin", &token)), expected);
        connect(&emulator, "admin", &token).unwrap();
    }
    let (_, message) = refusal(without_server_name(&emulator, "admin", &token));
    assert_eq!(message, "unable to accept connection, sni was not received");
}

#[test]
fn rds_accepts_a_client_that_names_no_server() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    without_server_name(&emulator, "app", &token).unwrap();
}

fn without_server_name(
    emulator: &Emulator,
    user: &str,
    token: &str,
) -> Result<Client, postgres::Error> {
    let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let connector = TlsConnector::builder()
        .add_root_certificate(ca)
        .use_sni(false)
        .build()
        .unwrap();
    config(emulator, user, token).connect(MakeTlsConnector::new(connector))
}

#[test]
fn a_server_that_cannot_fork_says_so_before_tls() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    emulator.fault(Fault::RejectNext(Rejection::CannotFork, 2));
    let mut tcp = dial(&emulator);
    // The server sends the error without a request.
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "Ecould not fork new process for connection: Cannot allocate memory\n\0"
    );
    let error = connect(&emulator, "app", &token).err().unwrap();
    assert!(error.as_db_error().is_none(), "{error}");
    assert_eq!(emulator.login_count(), 0);
    connect(&emulator, "app", &token).unwrap();
}

#[test]
fn an_error_and_other_bytes_come_before_tls() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    for (fault, first) in [(Fault::ErrorBeforeTls, b'E'), (Fault::BytesBeforeTls, b'S')] {
        emulator.set_faults(&[fault]);
        let mut tcp = dial(&emulator);
        tcp.write_all(&SSL_REQUEST).unwrap();
        let mut answer = [0; 64];
        let mut length = 0;
        while length < 64 {
            length += tcp.read(&mut answer[length..]).unwrap();
        }
        assert_eq!(answer[0], first, "{fault:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("PAM authentication failed"), "{text}");
        drop(tcp);

        let error = connect(&emulator, "app", &token).err().unwrap();
        assert!(error.as_db_error().is_none(), "{fault:?}: {error}");
        assert_eq!(emulator.login_count(), 0, "a token was sent: {fault:?}");
    }
    emulator.heal();
    login(&emulator, "app");
}

#[test]
fn one_of_two_addresses_is_reset() {
    if let Err(cause) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        say(format_args!("skipped: this machine has no ::1: {cause}"));
        return;
    }
    let emulator = emulator();
    let [ipv4, ipv6] = emulator.addrs() else {
        panic!("not two addresses: {:?}", emulator.addrs());
    };
    assert_eq!(ipv4, &emulator.addr());
    assert_eq!(ipv6.ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
    assert_eq!(ipv4.port(), ipv6.port());
    let token = Token::new(&emulator, "app").sign();
    let dialled = |ip: IpAddr| {
        let mut dialled = postgres::Config::new();
        dialled
            .host(emulator.host())
            .hostaddr(ip)
            .port(emulator.port())
            .user("app")
            .password(&token)
            .dbname("postgres")
            .ssl_mode(postgres::config::SslMode::Require);
        dialled.connect(tls(&emulator)).map(drop)
    };
    for (down, up) in [(ipv4.ip(), ipv6.ip()), (ipv6.ip(), ipv4.ip())] {
        dialled(down).unwrap();
        emulator.set_faults(&[Fault::ResetAddress(down)]);
        assert!(dialled(down).unwrap_err().as_db_error().is_none());
        dialled(up).unwrap();
        emulator.heal();
    }
    // Both are closed and opened together.
    emulator.stop_postgres().unwrap();
    for address in [ipv4, ipv6] {
        let error = TcpStream::connect(address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    emulator.start_postgres().unwrap();
    dialled(ipv6.ip()).unwrap();
}

fn dial(emulator: &Emulator) -> TcpStream {
    let tcp = TcpStream::connect(emulator.addr()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    tcp
}
