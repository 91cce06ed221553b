//! The first packets, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::TlsConnector;
use postgres::config::SslNegotiation;
use postgres::error::SqlState;
use rds_iam_emulator::{Emulator, packet};

use crate::client::{Token, config, emulator, login, tls};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn dial(emulator: &Emulator) -> TcpStream {
    let tcp = TcpStream::connect(emulator.addr()).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    tcp
}

fn startup(user: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in [("user", user), ("database", "postgres")]
        .iter()
        .chain(extra)
    {
        body.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [length.as_slice(), &body].concat()
}

fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn gss_encryption_is_declined_and_tls_remains_possible() {
    let emulator = emulator();
    let mut tcp = dial(&emulator);
    tcp.write_all(&GSSENC_REQUEST).unwrap();
    let mut answer = [0];
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    tcp.write_all(&SSL_REQUEST).unwrap();
    tcp.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let connector = TlsConnector::builder()
        .add_root_certificate(ca)
        .build()
        .unwrap();
    let mut stream = connector.connect(emulator.host(), tcp).unwrap();
    stream.write_all(&startup("app", &[])).unwrap();
    let mut request = [0; 9];
    stream.read_exact(&mut request).unwrap();
    assert_eq!(request, packet::password_request());
}

#[test]
fn direct_tls_requires_its_alpn_protocol() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let connector = |alpn: &[&str]| {
        let connector = TlsConnector::builder()
            .add_root_certificate(ca.clone())
            .request_alpns(alpn)
            .build()
            .unwrap();
        postgres_native_tls::MakeTlsConnector::new(connector)
    };
    let mut config = config(&emulator, "app", &token);
    config.ssl_negotiation(SslNegotiation::Direct);
    let mut client = config.connect(connector(&["postgresql"])).unwrap();
    client.simple_query("SELECT 1").unwrap();
    assert!(config.connect(connector(&[])).is_err());
}

#[test]
fn a_start_up_packet_has_the_maximum_length_of_postgresql() {
    let emulator = emulator();
    let fits = "x".repeat(9_900);
    let mut tcp = dial(&emulator);
    tcp.write_all(&startup("app", &[("application_name", &fits)]))
        .unwrap();
    let answer = read_all(&tcp);
    assert!(String::from_utf8_lossy(&answer).contains("pg_hba.conf rejects connection"));

    let too_long = "x".repeat(10_000);
    let mut tcp = dial(&emulator);
    tcp.write_all(&startup("app", &[("application_name", &too_long)]))
        .unwrap();
    let end = tcp.read(&mut [0; 1]);
    assert!(
        matches!(&end, Ok(0))
            || end
                .as_ref()
                .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "the server was to hang up: {end:?}"
    );
}

#[test]
fn a_long_application_name_and_options_reach_postgresql() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    let mut client = config(&emulator, "app", &token)
        .options("-c search_path=elsewhere")
        .application_name("reporting")
        .connect(tls(&emulator))
        .unwrap();
    let row = client
        .query_one(
            "SELECT current_setting('search_path'), current_setting('application_name')",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "elsewhere");
    assert_eq!(row.get::<_, &str>(1), "reporting");
}

#[test]
fn an_unknown_protocol_gets_the_answer_of_postgresql() {
    let emulator = emulator();
    for (packet, answer) in [
        (
            vec![0, 0, 0, 8, 0, 2, 0, 0],
            "unsupported frontend protocol 2.0",
        ),
        (
            vec![0, 0, 0, 9, 0, 3, 0, 0, 0],
            "no PostgreSQL user name specified",
        ),
        (
            vec![0, 0, 0, 10, 0, 3, 0, 0, b'u', b's'],
            "invalid startup packet layout",
        ),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), ""),
        (vec![0, 0, 0, 4], ""),
    ] {
        let mut tcp = dial(&emulator);
        tcp.write_all(&packet).unwrap();
        let mut said = Vec::new();
        // The server may disconnect while it has unread bytes of the client. Then the connection is reset.
        let _ = tcp.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(answer), "{said}");
        assert_eq!(said.is_empty(), answer.is_empty(), "{said}");
    }
    login(&emulator, "app");
}

#[test]
fn a_cancel_request_ends_the_statement_of_another_connection() {
    let emulator = emulator();
    let mut client = login(&emulator, "app");
    let cancel = client.cancel_token();
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let running = scope.spawn(move || {
            sender.send(()).unwrap();
            client.simple_query("SELECT pg_sleep(60)").map(drop)
        });
        started.recv().unwrap();
        // A cancel request that arrives before its statement has no effect, so it is repeated until one succeeds.
        while !running.is_finished() {
            cancel.cancel_query(tls(&emulator)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let error = running.join().unwrap().unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    });
}

#[test]
fn no_password_message_of_the_wrong_kind_is_accepted() {
    let emulator = emulator();
    for (message, answer) in [
        (
            b"Q\0\0\0\x0eSELECT 1\0".to_vec(),
            "expected password response",
        ),
        (
            b"p\0\0\0\x05\0".to_vec(),
            "empty password returned by client",
        ),
        (b"p\0\0\0\x08ab\0c".to_vec(), "invalid password packet size"),
    ] {
        let mut tcp = dial(&emulator);
        tcp.write_all(&SSL_REQUEST).unwrap();
        tcp.read_exact(&mut [0]).unwrap();
        let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
        let connector = TlsConnector::builder()
            .add_root_certificate(ca)
            .build()
            .unwrap();
        let mut stream = connector.connect(emulator.host(), tcp).unwrap();
        stream.write_all(&startup("app", &[])).unwrap();
        stream.read_exact(&mut [0; 9]).unwrap();
        stream.write_all(&message).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(answer), "{said:?}");
    }
}
