//! A process that has no file descriptor left.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::client::emulator;

/// Set for the child process.
const CHILD: &str = "RDS_IAM_EMULATOR_TEST_DESCRIPTORS";

/// The descriptors of the child, of which it uses about thirty.
const LIMIT: u64 = 100;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A failed `accept` is retried, on PostgreSQL's port and on that of AWS's endpoints.
#[test]
fn a_process_without_descriptors_serves_again_when_it_has_some() {
    if std::env::var_os(CHILD).is_some() {
        be_the_emulator();
    }
    let mut child = Emulating::start();
    let (aws, postgres) = (child.address("aws="), child.address("postgres="));
    // Each takes one descriptor there.
    let held: Vec<_> = (0..LIMIT).map(|_| dial(postgres)).collect();
    child.wait_for("accepting a connection failed");
    let mut client = dial(aws);
    child.wait_for("accepting a connection to AWS's endpoints failed");
    drop(held);

    let request = "GET /latest/meta-data HTTP/1.1\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");

    let mut client = dial(postgres);
    client.write_all(&SSL_REQUEST).unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
}

fn dial(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    tcp
}

/// Runs an emulator until standard input ends.
fn be_the_emulator() -> ! {
    tracing::subscriber::set_global_default(PrintEvents).unwrap();
    let emulator = emulator();
    // So that silent clients keep their descriptors.
    emulator.set_authentication_timeout(Duration::from_secs(3_600));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(LIMIT),
            ..getrlimit(Resource::Nofile)
        },
    )
    .unwrap();
    println!("aws={}", emulator.aws().sts_url().replace("http://", ""));
    println!("postgres={}", emulator.addr());
    let _ = std::io::stdin().read(&mut [0]);
    drop(emulator);
    std::process::exit(0);
}

/// Prints the events of the emulator on standard output.
struct PrintEvents;

impl Subscriber for PrintEvents {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "rds_iam_emulator"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut PrintMessage);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct PrintMessage;

impl Visit for PrintMessage {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = writeln!(std::io::stdout(), "event={value:?}");
        }
    }
}

/// The child process.
struct Emulating {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Emulating {
    fn start() -> Emulating {
        let test = "descriptors::a_process_without_descriptors_serves_again_when_it_has_some";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Emulating { child, output }
    }

    /// Reads lines until one contains `text`, and returns what follows it.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the child ended before {text:?}"
            );
            if let Some((_, rest)) = line.split_once(text) {
                return rest.trim().to_owned();
            }
        }
    }

    fn address(&mut self, name: &str) -> SocketAddr {
        self.wait_for(name).parse().unwrap()
    }
}

impl Drop for Emulating {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
