//! The examples, as a reader would run them.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rds_iam_emulator::{Emulator, Engine, LoginResult, Node};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::child::forget_aws_and_postgresql;
use crate::support::database::{emulator, emulator_with, refused};
use crate::support::{PATIENCE, example};

/// An example, with a database and keys in its environment and no other AWS settings.
fn command(name: &str, emulator: &Emulator) -> Command {
    let mut command = Command::new(example(name));
    forget_aws_and_postgresql(&mut command);
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        .env("DATABASE_URL", emulator.url("app"));
    command
}

/// Its exit status and its output.
fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn run_well(command: &mut Command) -> String {
    let (is_well, text) = run(command);
    assert!(is_well, "{text}");
    text
}

#[test]
fn the_quickstart_rotates_and_loses_nothing() {
    let shown = run_well(Command::new(example("quickstart")).arg("50"));
    let last = shown.lines().last().unwrap();
    assert!(figure(last, "rotations") >= 3, "{last}");
    assert!(
        figure(last, "logins") > 0 && figure(last, "queries") > 0,
        "{last}"
    );
    assert_eq!(
        (figure(last, "refused"), figure(last, "errors")),
        (0, 0),
        "{last}"
    );
}

/// The number in `name=number`.
fn figure(line: &str, name: &str) -> u64 {
    let pair = line
        .split(' ')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    pair.unwrap().parse().unwrap()
}

/// FAULTS.md row 18.
#[test]
fn the_batch_job_outlasts_its_tokens() {
    let emulator = emulator_with(Duration::from_secs(5));
    let shown = run_well(command("batch_job", &emulator).args(["8", "1", "5"]));
    let last = shown.lines().last().unwrap();
    assert_eq!(figure(last, "batches"), 8, "{shown}");
    assert!(figure(last, "tokens") >= 2, "{shown}");
    assert!(refused(&emulator).is_empty());
    assert_eq!(emulator.login_count(), 9, "one to read, and one for each");
}

#[test]
fn the_same_binary_logs_in_with_a_password_or_a_token() {
    let emulator = emulator();
    emulator.create_password_user("bob", "secret").unwrap();
    let shown = run_well(&mut command("local_and_cloud", &emulator));
    assert_eq!(shown, "logged in as app with a token\n");
    let local = emulator.url("bob").replace("bob@", "bob:secret@");
    let shown = run_well(
        command("local_and_cloud", &emulator)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env("DATABASE_URL", local),
    );
    assert_eq!(shown, "logged in as bob with a password\n");
    let logins = emulator.logins();
    let of_bob = logins.iter().filter(|login| login.user() == "bob");
    assert!(of_bob.clone().count() > 0);
    assert!(
        of_bob
            .into_iter()
            .all(|login| *login.result() == LoginResult::Password)
    );
}

#[cfg(feature = "postgres")]
#[test]
fn the_crate_postgres_logs_in_too() {
    let emulator = emulator();
    let shown = run_well(&mut command("postgres_client", &emulator));
    assert_eq!(
        shown,
        "logged in as app\n1: water the tomatoes\n2: open the roof\n"
    );
}

#[test]
fn a_manager_over_two_databases_logs_in_with_a_token_or_opens_a_file() {
    let emulator = emulator();
    let shown = run_well(&mut command("own_manager", &emulator));
    assert_eq!(
        shown,
        "PostgreSQL, statements end after 5s: open the roof, water the tomatoes\n"
    );
    assert!(refused(&emulator).is_empty());
    let logins = emulator.login_count();
    assert!(logins > 0);
    let sqlite = command("own_manager", &emulator)
        .env("DATABASE_URL", "sqlite::memory:")
        .output()
        .unwrap();
    assert!(sqlite.status.success(), "{sqlite:?}");
    let shown = String::from_utf8(sqlite.stdout).unwrap();
    assert_eq!(shown, "SQLite: open the roof, water the tomatoes\n");
    assert_eq!(emulator.login_count(), logins);
}

/// Conflicts at the commit, as DSQL reports them: a deferred trigger raises one for each of the first attempts.
#[test]
fn a_transaction_on_dsql_is_repeated_after_conflicts_only() {
    let emulator = Emulator::builder().engine(Engine::Dsql).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let conflicts = |raised: &str| {
        let statements = format!(
            "DROP TABLE IF EXISTS counters; DROP SEQUENCE IF EXISTS attempts;
             GRANT CREATE ON SCHEMA public TO app;
             CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL);
             GRANT ALL ON counters TO app;
             CREATE SEQUENCE attempts;
             CREATE OR REPLACE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 CASE nextval('attempts') {raised} ELSE END CASE;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER conflict AFTER UPDATE ON counters
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION conflict();"
        );
        emulator.execute(&statements).unwrap();
    };
    let run = || run(&mut command("dsql_retry", &emulator));

    conflicts(
        "WHEN 1 THEN RAISE 'change conflicts with another transaction, please retry: (OC000)'
             USING ERRCODE = 'OC000';
         WHEN 2 THEN RAISE 'schema has been updated by another transaction, please retry: (OC001)'
             USING ERRCODE = 'OC001';
         WHEN 3 THEN RAISE 'change conflicts with another transaction, please retry: (OC000)'
             USING ERRCODE = '40001';",
    );
    assert_eq!(run(), (true, "visit 1 in 4 attempts\n".to_owned()));
    assert_eq!(run(), (true, "visit 2 in 1 attempts\n".to_owned()));

    conflicts("WHEN 1 THEN RAISE 'the account is closed';");
    let (is_well, shown) = run();
    assert!(
        !is_well && shown.contains("the account is closed"),
        "{shown}"
    );
    // The sequence advanced once, so the failed run made one attempt.
    assert_eq!(run(), (true, "visit 1 in 1 attempts\n".to_owned()));

    let page = include_str!("../../src/guide/aurora_dsql.md");
    let example = include_str!("../../examples/dsql_retry.rs");
    let (_, functions) = example.split_once("\n/// Runs `work`").unwrap();
    assert!(page.contains(functions), "the guide has other functions");
}

#[test]
fn the_read_write_split_writes_to_a_writer_only() {
    let emulator = emulator();
    let split = || {
        let mut command = command("read_write_split", &emulator);
        command.env("READER_URL", emulator.url("app"));
        run(&mut command)
    };
    let (is_well, shown) = split();
    assert!(is_well && shown.contains("2 orders written"), "{shown}");

    // The writer's name leads to the old writer, as for a client whose DNS is out of date.
    emulator.fail_over().unwrap();
    emulator.route_to(Node::Reader).unwrap();
    let (is_well, shown) = split();
    assert!(
        !is_well && shown.contains("session is read-only"),
        "{shown}"
    );
    assert!(!shown.contains("written"), "{shown}");

    emulator.route_to(Node::Writer).unwrap();
    let (is_well, shown) = split();
    assert!(is_well && shown.contains("2 orders written"), "{shown}");
}

/// A service that is killed when the test ends.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running service, and the address at which it listens.
struct Web {
    service: Service,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Web {
    fn start(emulator: &Emulator) -> Web {
        let service = command("web", emulator)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn();
        let mut service = Service(service.unwrap());
        let mut lines = BufReader::new(service.0.stdout.take().unwrap()).lines();
        let listening = lines.next().unwrap().unwrap();
        let address = listening.strip_prefix("listening on ").unwrap().to_owned();
        Web {
            service,
            lines,
            address,
        }
    }

    /// Sends a request, whose answer can be read from the stream.
    fn send(&self, request: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The server's response to one request: the status and the body.
    fn ask(&self, request: &str, body: &str) -> (u32, String) {
        let mut answer = String::new();
        let mut stream = self.send(request, body);
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn list(&self) -> (u32, String) {
        self.ask("GET /notes", "")
    }

    /// Waits until `/ready` answers with this status.
    fn wait_until_ready_is(&self, status: u32) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (is, body) = self.ask("GET /ready", "");
            if is == status {
                return serde_json::from_str(&body).unwrap();
            }
            assert!(Instant::now() < deadline, "{is} {body}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_web_service_serves_and_stops() {
    let emulator = emulator();
    let mut web = Web::start(&emulator);
    let (status, added) = web.ask("POST /notes", r#"{"text": "water the tomatoes"}"#);
    assert_eq!(status, 201, "{added}");
    let listed = r#"[{"id":1,"text":"water the tomatoes"}]"#.to_owned();
    assert_eq!(web.list(), (200, listed));

    kill_process(Pid::from_child(&web.service.0), Signal::TERM).unwrap();
    assert_eq!(web.lines.next().unwrap().unwrap(), "stopped");
    assert!(web.service.0.wait().unwrap().success());
    emulator.wait_for_sessions(0, PATIENCE).unwrap();
}

#[test]
fn the_web_service_is_ready_while_it_has_connections() {
    let emulator = emulator();
    let web = Web::start(&emulator);
    assert_eq!(web.list().0, 200);
    let health = web.wait_until_ready_is(200);
    assert!(health["connections"].as_u64() >= Some(1), "{health}");
    assert!(health["connections_opened"].as_u64() >= Some(1), "{health}");
    assert_eq!(health["last_failure"], Value::Null, "{health}");

    // A request gets a closed session, and waits for another one.
    emulator.stop_postgres().unwrap();
    let _waiting = web.send("GET /notes", "");
    let health = web.wait_until_ready_is(503);
    assert_eq!(health["connections"], 0, "{health}");
    assert!(health["connects_failed"].as_u64() >= Some(1), "{health}");
    assert!(health["last_failure"].is_string(), "{health}");

    emulator.start_postgres().unwrap();
    let health = web.wait_until_ready_is(200);
    assert_eq!(health["last_failure"], Value::Null, "{health}");
    assert_eq!(web.list(), (200, "[]".to_owned()));
}

/// `script/soak`, for as long as it takes to see that it works. It reports no violation before its first fault.
#[test]
fn a_soak_without_faults_counts_its_writes() {
    let shown = run_well(Command::new(example("soak")).args(["0", "1"]));
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("soak: ok seed=1 "), "{last}");
    assert!(!last.contains("writes=0 "), "{last}");
}
