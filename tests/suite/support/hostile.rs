//! A server that breaks PostgreSQL's protocol on purpose, for one connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::accept;

/// What the server does with the connection.
#[derive(Clone, Copy, Debug)]
pub enum Attack {
    /// Answers the request for TLS with yes, and adds an error in the clear, as a machine in between would.
    BytesBeforeTls,
    /// Answers the request for TLS with an error, as a server does that cannot start a process.
    ErrorBeforeTls,
    /// Accepts the login, and sends notices without end instead of being ready.
    EndlessNotices,
    /// Offers SCRAM with this number of iterations.
    Iterations(&'static str),
    /// Requests the authentication method of this number.
    Method(u32),
    /// Answers the login with an error of this SQLSTATE and message.
    Error(&'static str, &'static str),
}

pub struct HostileServer {
    port: u16,
    received: JoinHandle<Vec<u8>>,
}

impl HostileServer {
    pub fn start(attack: Attack) -> HostileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = thread::spawn(move || {
            let mut client = accept(&listener);
            let mut received = first_packet(&mut client);
            // The client may disconnect at any time, also by a reset.
            let _ = attack.carry_out(&mut client, &mut received);
            let _ = client.read_to_end(&mut received);
            received
        });
        HostileServer { port, received }
    }

    /// A URL with a host name of RDS that leads to this server.
    pub fn url(&self) -> String {
        let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
        let port = self.port;
        format!("postgres://app@{host}:{port}/app?hostaddr=127.0.0.1")
    }

    /// Everything that the client sent until it disconnected.
    pub fn received(self) -> Vec<u8> {
        self.received.join().unwrap()
    }
}

impl Attack {
    fn carry_out(
        self,
        client: &mut TcpStream,
        received: &mut Vec<u8>,
    ) -> Result<(), std::io::Error> {
        match self {
            Attack::BytesBeforeTls => {
                let error = fields(b'E', "FATAL", "28000", "injected");
                client.write_all(&[b"S", error.as_slice()].concat())?;
                client.shutdown(Shutdown::Write)
            }
            // In the form of the protocol's second version. [report_fork_failure_to_client of postmaster.c]
            Attack::ErrorBeforeTls => {
                client.write_all(b"Ecould not fork new process for connection: no memory\n\0")
            }
            Attack::EndlessNotices => {
                client.write_all(&message(b'R', &0_u32.to_be_bytes()))?;
                loop {
                    client.write_all(&fields(b'N', "NOTICE", "00000", "please wait"))?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Attack::Iterations(iterations) => {
                let offer = [&10_u32.to_be_bytes(), b"SCRAM-SHA-256\0\0".as_slice()];
                client.write_all(&message(b'R', &offer.concat()))?;
                let mut kind = [0];
                client.read_exact(&mut kind)?;
                let answer = first_packet(client);
                let text = String::from_utf8_lossy(&answer);
                let nonce = text.split("r=").nth(1).unwrap_or_default();
                let challenge = format!("r={nonce}x,s=c2FsdA==,i={iterations}");
                received.extend(&answer);
                let challenge = [&11_u32.to_be_bytes(), challenge.as_bytes()].concat();
                client.write_all(&message(b'R', &challenge))
            }
            Attack::Method(method) => client.write_all(&message(b'R', &method.to_be_bytes())),
            Attack::Error(state, text) => client.write_all(&fields(b'E', "FATAL", state, text)),
        }
    }
}

/// A packet without its type byte: its length, and the contents.
fn first_packet(client: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 4];
    client.read_exact(&mut packet).unwrap();
    let length = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
    packet.resize(length.try_into().unwrap(), 0);
    client.read_exact(&mut packet[4..]).unwrap();
    packet
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

/// An error or a notice.
fn fields(kind: u8, severity: &str, state: &str, text: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{state}\0M{text}\0\0");
    message(kind, body.as_bytes())
}
