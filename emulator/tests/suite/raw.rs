//! A client that sends any bytes as its start-up packet.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use native_tls::{TlsConnector, TlsStream};
use rds_iam_emulator::Emulator;

/// The start-up packet may have set another encoding.
const WHO: &[u8] = b"SELECT encode(convert_to(session_user::text, 'UTF8'), 'hex'), \
    encode(convert_to(current_user::text, 'UTF8'), 'hex')\0";

/// A socket whose reads go on after a signal. One with a time limit is interrupted even by SIGCONT, and a TLS handshake
/// does not go on after that. [signal(7)]
#[derive(Debug)]
pub(crate) struct Socket(TcpStream);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Opens connections to an emulator. Reused, since OpenSSL reads the system's roots for each connector.
pub(crate) struct Dialer<'a> {
    emulator: &'a Emulator,
    connector: TlsConnector,
}

impl Dialer<'_> {
    pub(crate) fn new(emulator: &Emulator) -> Dialer<'_> {
        let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
        let connector = TlsConnector::builder()
            .add_root_certificate(ca)
            .build()
            .unwrap();
        Dialer {
            emulator,
            connector,
        }
    }

    /// A connection after the TLS handshake.
    pub(crate) fn encrypted(&self) -> TlsStream<Socket> {
        let mut tcp = TcpStream::connect(self.emulator.addr()).unwrap();
        // Otherwise each small packet would wait for an acknowledgement (Nagle's algorithm).
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        tcp.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
            .unwrap();
        tcp.read_exact(&mut [0]).unwrap();
        let host = self.emulator.host();
        self.connector.connect(host, Socket(tcp)).unwrap()
    }
}

/// Logs in by this start-up packet, without its length, and with this password. Returns the session's
/// `session_user` and `current_user`; `None` if no session was opened.
pub(crate) fn log_in(
    mut stream: impl Read + Write,
    startup: &[u8],
    password: Option<&str>,
) -> Option<[String; 2]> {
    let result = try_log_in(&mut stream, startup, password);
    // A server may disconnect at any time.
    result.unwrap_or_else(|error| {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "no answer");
        None
    })
}

fn try_log_in(
    stream: &mut (impl Read + Write),
    startup: &[u8],
    password: Option<&str>,
) -> io::Result<Option<[String; 2]>> {
    send(stream, &[], startup)?;
    loop {
        match (receive(stream)?, password) {
            ((b'R', code), _) if code == [0; 4] => {}
            ((b'R', code), Some(password)) if code == [0, 0, 0, 3] => {
                send(stream, b"p", &[password.as_bytes(), b"\0"].concat())?;
            }
            ((b'R' | b'E', _), _) => return Ok(None),
            ((b'Z', _), _) => break,
            _ => {}
        }
    }
    send(stream, b"Q", WHO)?;
    loop {
        match receive(stream)? {
            (b'D', row) => return Ok(Some(columns(&row))),
            (b'E', error) => panic!("no user: {}", String::from_utf8_lossy(&error)),
            _ => {}
        }
    }
}

fn columns(row: &[u8]) -> [String; 2] {
    // After the number of columns, each value follows its length.
    let mut rest = &row[2..];
    [(); 2].map(|()| {
        let (length, after) = rest.split_first_chunk::<4>().unwrap();
        let (value, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        String::from_utf8(hex::decode(value).unwrap()).unwrap()
    })
}

fn send(stream: &mut impl Write, kind: &[u8], body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    stream.write_all(&[kind, &length, body].concat())
}

fn receive(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let [kind, length @ ..] = header;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}
