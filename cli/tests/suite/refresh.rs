//! `rds-iam exec` for programs that outlive a token, with real clients.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rds_iam_emulator::{Emulator, LoginResult};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, rds_iam_to, run, skip};

/// Short enough to see rotations, and long enough for a loaded machine to log in with what it read.
const SHORT: &str = "8s";

/// An emulator with the user `app`, whose tokens have this lifetime.
fn emulator(lifetime: &str) -> Emulator {
    let lifetime = humantime::parse_duration(lifetime).unwrap();
    let emulator = Emulator::builder()
        .token_lifetime(lifetime)
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

/// A program under `rds-iam exec`, with a mark that its refresher inherits.
struct Service {
    child: Child,
    mark: String,
}

impl Service {
    fn start(emulator: &Emulator, lifetime: &str, options: &[&str], program: &[&str]) -> Service {
        Service::start_with(rds_iam_to(emulator, "app"), lifetime, options, program)
    }

    fn start_with(
        mut command: Command,
        lifetime: &str,
        options: &[&str],
        program: &[&str],
    ) -> Service {
        let mark = format!("mark-{:x}", fastrand());
        let child = command
            .args(["exec", "--token-lifetime", lifetime])
            .args(options)
            .arg("--")
            .args(program)
            .env("RDS_IAM_TEST_MARK", &mark)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Service { child, mark }
    }

    /// The first line of standard output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        line
    }

    fn kill(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// The refresher of this program.
    fn refresher(&self) -> Option<u32> {
        let is_refresher = |process: &PathBuf| {
            let read = |name| std::fs::read(process.join(name)).unwrap_or_default();
            contains(&read("cmdline"), b"--is-detached")
                && contains(&read("environ"), self.mark.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap();
        let mut paths = processes.map(|entry| entry.unwrap().path());
        let found = paths.find(is_refresher)?;
        found.file_name()?.to_str()?.parse().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A number that differs between the tests of this process.
fn fastrand() -> u128 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

#[track_caller]
fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < PATIENCE * 2, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The tokens that logins used so far. None was refused.
#[track_caller]
fn tokens(emulator: &Emulator) -> BTreeSet<String> {
    let logins = emulator.logins();
    let refused = logins
        .iter()
        .find(|it| *it.result() != LoginResult::Accepted);
    assert!(refused.is_none(), "{refused:?}");
    logins
        .iter()
        .map(|login| login.fingerprint().to_owned())
        .collect()
}

/// Waits until the program has logged in with `count` tokens, the first among them.
#[track_caller]
fn outlives(emulator: &Emulator, service: &mut Service, count: usize) {
    wait_for("rotations", || {
        if let Some(status) = service.child.try_wait().unwrap() {
            let mut said = String::new();
            service
                .child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut said)
                .unwrap();
            panic!("the program ended with {status}: {said}");
        }
        tokens(emulator).len() >= count
    });
}

#[test]
fn psql_and_pgbench_log_in_through_three_rotations() {
    let emulator = emulator(SHORT);
    emulator.create_database("bench", "app").unwrap();
    let script = "pgbench --initialize --quiet && \
                  while psql --no-psqlrc -Atc 'select 1' && \
                        pgbench --connect --select-only --client=4 --transactions=5; do :; done";
    for options in [&[][..], &["--temporary-file"]] {
        let before = tokens(&emulator).len();
        let mut command = rds_iam_to(&emulator, "app");
        command.env("DATABASE_URL", emulator.url_of("app", "bench"));
        let mut service = Service::start_with(command, SHORT, options, &["sh", "-c", script]);
        // A full pipe would stop the program.
        let mut output = service.child.stdout.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        outlives(&emulator, &mut service, before + 4);
    }
}

/// The credentials of a container, which expire sooner than the program ends.
#[test]
fn credentials_that_expire_are_replaced() {
    let emulator = emulator(SHORT);
    emulator
        .aws()
        .set_credential_lifetime(Duration::from_secs(20));
    let mut command = rds_iam_to(&emulator, "app");
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .envs(emulator.aws().container_environment());
    let script = "while psql --no-psqlrc -Atc 'select 1' >/dev/null; do sleep 0.1; done";
    let mut service = Service::start_with(command, SHORT, &[], &["sh", "-c", script]);
    wait_for("several credentials", || {
        tokens(&emulator);
        let keys: BTreeSet<_> = emulator
            .logins()
            .iter()
            .filter_map(|login| login.access_key().map(str::to_owned))
            .collect();
        keys.len() >= 3
    });
    assert!(service.child.try_wait().unwrap().is_none());
}

#[test]
fn once_does_not_refresh() {
    let emulator = emulator("15m");
    let script = "echo \"$PGPASSFILE\"; wc -l <\"$PGPASSFILE\"; exec sleep 600";
    let mut service = Service::start(&emulator, "5s", &["--once"], &["sh", "-c", script]);
    assert!(service.line().starts_with("/proc/self/fd/"));
    assert_eq!(service.refresher(), None);
}

#[test]
fn the_refresher_is_a_process_of_its_own_and_has_no_secret() {
    let emulator = emulator("15m");
    let script = "echo \"$$\"; cat \"$PGPASSFILE\" >&2; exec sleep 600";
    let mut service = Service::start(&emulator, "15m", &[], &["sh", "-c", script]);
    // The program has the pid of `rds-iam`.
    assert_eq!(service.line().trim(), service.child.id().to_string());
    let mut passfile = BufReader::new(service.child.stderr.take().unwrap());
    let mut line = String::new();
    passfile.read_line(&mut line).unwrap();
    let (_, signature) = line.trim_end().split_once("X-Amz-Signature=").unwrap();
    wait_for("the refresher", || service.refresher().is_some());
    let refresher = service.refresher().unwrap();
    let read = |name: &str| std::fs::read(format!("/proc/{refresher}/{name}")).unwrap();
    for name in ["cmdline", "environ"] {
        assert!(
            !contains(&read(name), &signature.as_bytes()[..64]),
            "{name}"
        );
    }
    // It is no child of the program, and is in another session.
    let program = service.child.id();
    let [_, session_of_program] = parent_and_session(program);
    let [parent, session] = parent_and_session(refresher);
    assert_ne!(parent, program.to_string());
    assert_ne!(session, session_of_program);
}

/// Otherwise a source that waits for its user would work at the start, and time out at each refresh.
#[test]
fn the_refresher_has_the_options_of_exec() {
    let emulator = emulator("15m");
    let ca = emulator.ca_path().to_str().unwrap();
    let options = [
        "--credentials-timeout",
        "90s",
        "--region",
        "eu-west-1",
        "--sslrootcert",
        ca,
    ];
    let program = ["sleep", "600"];
    let service = Service::start(&emulator, "15m", &options, &program);
    wait_for("the refresher", || service.refresher().is_some());
    let refresher = service.refresher().unwrap();
    let arguments = std::fs::read_to_string(format!("/proc/{refresher}/cmdline")).unwrap();
    let arguments: Vec<&str> = arguments.split('\0').collect();
    for option in [
        "--credentials-timeout=1m 30s",
        "--region=eu-west-1",
        "--token-lifetime=15m",
        &format!("--sslrootcert={ca}"),
    ] {
        assert!(arguments.contains(&option), "{option}: {arguments:?}");
    }
}

/// The parent and the session of a process, from `/proc`. Either is 0 where it is outside the
/// namespace of this process.
fn parent_and_session(process: u32) -> [String; 2] {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [fields[1].to_owned(), fields[3].to_owned()]
}

#[test]
fn the_refresher_ends_with_the_last_process_that_inherited_the_file() {
    let emulator = emulator("15m");
    let script = "sleep 600 >/dev/null 2>&1 & echo $!; exec sleep 601";
    let mut service = Service::start(&emulator, "15m", &[], &["sh", "-c", script]);
    let child: i32 = service.line().trim().parse().unwrap();
    wait_for("the refresher", || service.refresher().is_some());
    // The SIGTERM of a service manager, which all processes get, does not end the refresher before the program.
    let refresher = Pid::from_raw(service.refresher().unwrap().try_into().unwrap()).unwrap();
    wait_for("the signal handlers", || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", refresher.as_raw_nonzero()));
        let status = status.unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0
    });
    kill_process(refresher, Signal::TERM).unwrap();
    service.kill();
    // The child of the program has the file.
    std::thread::sleep(Duration::from_millis(300));
    assert!(service.refresher().is_some());
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    wait_for("the refresher's end", || service.refresher().is_none());
}

#[test]
fn the_folder_goes_with_the_program() {
    let emulator = emulator("15m");
    let temporary = tempfile::tempdir().unwrap();
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    // With `--once` and with the password in the environment, there is still a file of roots.
    for options in [&[][..], &["--once"], &["--password-in-environment"]] {
        let mut command = rds_iam_to(&emulator, "app");
        command.env("TMPDIR", temporary.path());
        let options: Vec<&str> = [
            options,
            &["--temporary-file", "--host", host, "--user", "app"],
        ]
        .concat();
        let script = "echo \"$PGSSLROOTCERT:$PGPASSFILE\"; exec sleep 600";
        let mut service = Service::start_with(command, "15m", &options, &["sh", "-c", script]);
        let line = service.line();
        let (roots, passfile) = line.trim().split_once(':').unwrap();
        for file in [roots, passfile]
            .into_iter()
            .filter(|file| !file.is_empty())
        {
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(Path::new(file)), 0o600);
            assert_eq!(mode(Path::new(file).parent().unwrap()), 0o700);
        }
        let is_empty = || temporary.path().read_dir().unwrap().next().is_none();
        assert!(!is_empty());
        service.kill();
        wait_for("the folder's removal", is_empty);
    }
    // Also if the program cannot be run.
    let mut command = rds_iam_to(&emulator, "app");
    command.env("TMPDIR", temporary.path());
    command.args(["exec", "--temporary-file", "--", "no-such-program-here"]);
    assert_eq!(run(&mut command).code, Some(127));
    wait_for("the folder's removal", || {
        temporary.path().read_dir().unwrap().next().is_none()
    });
}

/// As sudo and daemons do.
#[test]
fn the_folder_stays_for_a_program_that_closes_what_it_inherits() {
    let emulator = emulator("15m");
    let script = "for fd in /proc/$BASHPID/fd/*; do \
                  fd=${fd##*/}; [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done; \
                  ls /proc/$BASHPID/fd | wc -w; echo \"$PGPASSFILE\"; exec sleep 600";
    let program = ["bash", "-c", script];
    let mut service = Service::start(&emulator, "15m", &["--temporary-file"], &program);
    let mut output = BufReader::new(service.child.stdout.take().unwrap());
    let mut passfile = String::new();
    while !passfile.starts_with('/') {
        passfile.clear();
        assert_ne!(output.read_line(&mut passfile).unwrap(), 0);
    }
    let passfile = Path::new(passfile.trim_end());
    wait_for("the refresher", || service.refresher().is_some());
    // Without the wait for the program, the file would be removed by now.
    std::thread::sleep(Duration::from_millis(500));
    assert!(passfile.exists());
    service.kill();
    wait_for("the folder's removal", || {
        !passfile.parent().unwrap().exists()
    });
}

#[test]
fn a_refresh_that_fails_is_reported_once_and_retried() {
    let emulator = emulator(SHORT);
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials.json");
    let contents = serde_json::json!({
        "Version": 1,
        "AccessKeyId": emulator.access_key(),
        "SecretAccessKey": emulator.secret_key(),
    });
    std::fs::write(&credentials, contents.to_string()).unwrap();
    let config = folder.path().join("config");
    let profile = format!(
        "[default]\ncredential_process = cat {}\n",
        credentials.display()
    );
    std::fs::write(&config, profile).unwrap();
    let mut command = rds_iam_to(&emulator, "app");
    command
        .env("AWS_CONFIG_FILE", &config)
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    let script = format!(
        "mv {0} {0}.away; echo ready; \
         while sleep 0.2; do test -e {0} && psql --no-psqlrc -Atc 'select 1'; done",
        credentials.display()
    );
    let mut service = Service::start_with(command, SHORT, &[], &["sh", "-c", &script]);
    assert_eq!(service.line(), "ready\n");
    let mut said = BufReader::new(service.child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("rds-iam: cannot refresh the token of the program, which expires at 20"),
        "{line}"
    );
    std::fs::rename(folder.path().join("credentials.json.away"), &credentials).unwrap();
    // Until the next refresh psql may have an expired token.
    loop {
        line.clear();
        said.read_line(&mut line).unwrap();
        assert!(!line.contains("cannot refresh"), "{line}");
        if line.starts_with("rds-iam: refreshed the token of the program after ") {
            break;
        }
    }
    let accepted = || {
        let logins = emulator.logins();
        logins
            .iter()
            .any(|login| *login.result() == LoginResult::Accepted)
    };
    wait_for("a login with the new token", accepted);
}

/// Opens connections through a pool that keeps none for longer than a second.
const PYTHON: &str = r#"
import os, sys, time
from psycopg_pool import ConnectionPool
pool = ConnectionPool("", min_size=2, max_size=4, max_lifetime=1, timeout=20)
print("ready", flush=True)
while True:
    with pool.connection() as connection:
        connection.execute("select 1")
    time.sleep(0.05)
"#;

#[test]
fn psycopg_pool_outlives_four_tokens() {
    let Some(python) = std::env::var_os("RDS_IAM_EMULATOR_PYTHON") else {
        skip("RDS_IAM_EMULATOR_PYTHON names no Python with psycopg_pool");
        return;
    };
    let emulator = emulator("15s");
    let program = [python.to_str().unwrap(), "-c", PYTHON];
    let mut service = Service::start(&emulator, "15s", &[], &program);
    assert_eq!(service.line(), "ready\n");
    outlives(&emulator, &mut service, 5);
}

/// The host name of the emulator has no address, so the lookup is replaced.
const NODE: &str = r#"
require('dns').lookup = (host, options, done) =>
    options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)
const { Client } = require('pg')
const ca = require('fs').readFileSync(process.env.PGSSLROOTCERT)
async function main() {
    for (;;) {
        const client = new Client({ ssl: { ca } })
        await client.connect()
        await client.query('select 1')
        await client.end()
        await new Promise(resolve => setTimeout(resolve, 100))
    }
}
main().catch(error => { console.error(error); process.exit(1) })
"#;

#[test]
fn node_postgres_outlives_four_tokens() {
    let Some(modules) = std::env::var_os("RDS_IAM_EMULATOR_NODE_MODULES") else {
        skip("RDS_IAM_EMULATOR_NODE_MODULES names no folder with the package pg");
        return;
    };
    let emulator = emulator("15s");
    let mut command = rds_iam_to(&emulator, "app");
    command.env("NODE_PATH", modules);
    let mut service = Service::start_with(command, "15s", &[], &["node", "-e", NODE]);
    outlives(&emulator, &mut service, 5);
}
