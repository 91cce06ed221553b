//! `rds-iam migrate`, as a deployment uses it.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Ran, clean, rds_iam_to, run, schema, shared_emulator, text};

/// A database and a folder of two migrations.
struct Deployment {
    folder: TempDir,
    url: String,
}

impl Deployment {
    fn new(database: &str, user: &str) -> Deployment {
        let emulator = shared_emulator();
        emulator.ensure_database(database, user).unwrap();
        let deployment = Deployment {
            folder: TempDir::new().unwrap(),
            url: format!("{}&dbname={database}", emulator.url(user)),
        };
        deployment.write("1_plants", "CREATE TABLE plants ()", "DROP TABLE plants");
        deployment.write("2_beds", "CREATE TABLE beds ()", "DROP TABLE beds");
        deployment
    }

    fn write(&self, name: &str, up: &str, down: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("up.sql"), up).unwrap();
        fs::write(folder.join("down.sql"), down).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rds_iam_to(shared_emulator(), "app");
        command
            .arg("migrate")
            .args(arguments)
            .env("MIGRATION_DIRECTORY", self.folder.path())
            .env("DATABASE_URL", &self.url);
        command
    }

    /// Runs the command, and removes durations from its output.
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut ran = run(&mut self.command(arguments));
        let shown = ran.stdout.lines().map(|line| {
            let end = line.find(" in ").unwrap_or(line.len());
            line[..end].to_owned() + "\n"
        });
        ran.stdout = shown.collect();
        ran
    }
}

#[test]
fn each_subcommand_does_its_work() {
    let deployment = Deployment::new("all_ways", "app");
    let shown = |arguments: &[&str]| text(deployment.run(arguments));
    let pending = deployment.run(&["pending"]);
    assert_eq!(
        (pending.code, &*pending.stdout),
        (Some(6), "1_plants\n2_beds\n"),
        "{pending:?}"
    );
    assert_eq!(shown(&["list"]), "[ ] 1_plants\n[ ] 2_beds\n");

    let ran = deployment.run(&["run", "--statement-timeout", "1m"]);
    assert_eq!(ran.stdout, "applied 1_plants\napplied 2_beds\n", "{ran:?}");
    // Without a terminal, progress is printed as lines.
    assert_eq!(ran.stderr, "applying 1_plants\napplying 2_beds\n");
    assert_eq!(ran.code, Some(0));

    assert_eq!(shown(&["run"]), "nothing to do\n");
    assert_eq!(shown(&["pending"]), "");
    assert_eq!(shown(&["redo"]), "reverted 2_beds\napplied 2_beds\n");
    assert_eq!(shown(&["revert"]), "reverted 2_beds\n");
    let json: serde_json::Value = serde_json::from_str(&shown(&["list", "--json"])).unwrap();
    schema::check("migrate", &json);
    let migrations = &json["migrations"];
    assert_eq!(migrations[0]["name"], "1_plants");
    humantime::parse_rfc3339(migrations[0]["applied_at"].as_str().unwrap()).unwrap();
    assert_eq!(
        migrations[1],
        json!({"version": "2", "name": "2_beds", "applied_at": null})
    );
    assert_eq!(shown(&["run"]), "applied 2_beds\n");
    assert_eq!(
        shown(&["redo", "--number", "2"]),
        "reverted 2_beds\nreverted 1_plants\napplied 1_plants\napplied 2_beds\n"
    );
    assert_eq!(
        shown(&["revert", "--all"]),
        "reverted 2_beds\nreverted 1_plants\n"
    );
}

#[test]
fn each_failure_has_an_exit_status_and_prints_one_line() {
    let deployment = Deployment::new("failures", "app");
    let fails = |arguments: &[&str], expected, says: &[&str]| {
        let ran = deployment.run(arguments);
        assert_eq!((ran.code, &*ran.stdout), (Some(expected), ""), "{ran:?}");
        let last = ran.stderr.lines().last().unwrap();
        assert!(last.starts_with("rds-iam: "), "{ran:?}");
        assert!(says.iter().all(|text| last.contains(text)), "{ran:?}");
        ran.stderr
    };
    fails(&["run", "--dir", "/nowhere"], 2, &["/nowhere"]);
    fails(&["run", "--url", "host=a,b user=app"], 2, &["host"]);
    let emulator = shared_emulator();
    let nobody = emulator.url("nobody");
    fails(&["run", "--url", &nobody], 3, &["nobody", "rds_iam"]);

    // Another session holds the lock.
    let lock = "SELECT pg_advisory_lock(8242840071689561970), pg_sleep(600)";
    let superuser = emulator
        .superuser_url()
        .replace("dbname=postgres", "dbname=failures");
    let mut holder = clean(Command::new("psql"))
        .args(["--no-psqlrc", "-c", lock, &superuser])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_held = "DO $$ BEGIN ASSERT (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
                   WHERE locktype = 'advisory' AND datname = 'failures') = 1; END $$";
    while emulator.execute(is_held).is_err() {
        assert!(holder.try_wait().unwrap().is_none());
    }
    let said = fails(&["run", "--lock-wait", "0s"], 5, &["lock_wait"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = fails(&["run", "--lock-wait", "10ms"], 5, &["lock_wait"]);
    let waiting = "another process holds the lock; waiting for up to 10ms";
    assert_eq!(said.lines().next(), Some(waiting));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let end =
        "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = 'failures'";
    emulator.execute(end).unwrap();

    deployment.write("1_plants", "SELECT 1 / 0", "");
    fails(&["run"], 4, &["1_plants", "division by zero"]);
}

/// A folder's name may come from an archive or a merge request.
#[test]
fn names_of_folders_cannot_write_on_the_terminal() {
    let deployment = Deployment::new("hostile_names", "app");
    let name = "3_\x1b[2K\u{9b}evil";
    deployment.write(name, "SELECT 1", "SELECT 1");
    let shown = "3_\\u{1b}[2K\\u{9b}evil";
    for arguments in [&["list"][..], &["pending"], &["run"], &["redo"]] {
        let ran = deployment.run(arguments);
        assert!(ran.stdout.contains(shown), "{ran:?}");
        let said = ran.stdout + &ran.stderr;
        assert!(!said.contains(['\x1b', '\u{9b}']), "{said:?}");
    }
    let json = text(deployment.run(&["list", "--json"]));
    assert!(!json.contains(['\x1b', '\u{9b}']), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["migrations"][2]["name"], name);
    deployment.write("4_\x1b[2K", "SELECT 1 / 0", "");
    let failed = deployment.run(&["run"]);
    assert_eq!(failed.code, Some(4), "{failed:?}");
    assert!(!failed.stderr.contains('\x1b'), "{failed:?}");
}

/// A server that accepts the connection and is silent.
#[test]
fn connect_timeout_limits_the_connect() {
    let deployment = Deployment::new("limits", "app");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let url = format!("postgres://app@{host}/app?hostaddr=127.0.0.1&port={port}");
    let start = Instant::now();
    let ran = deployment.run(&["run", "--url", &url, "--connect-timeout", "2s"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("timeout expired"), "{ran:?}");
    // The default is 9 s.
    let limited = start.elapsed();
    assert!(limited < Duration::from_secs(9), "{limited:?}");
    // More than the default, which would otherwise end it.
    let start = Instant::now();
    let ran = deployment.run(&["run", "--url", &(url + "&connect_timeout=11")]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(start.elapsed() > Duration::from_secs(10), "{ran:?}");
}

#[test]
fn a_password_in_the_url_replaces_iam() {
    let emulator = shared_emulator();
    emulator.create_password_user("local", "hunter2").unwrap();
    let mut deployment = Deployment::new("local", "local");
    deployment.url = deployment.url.replacen('@', ":hunter2@", 1);
    let ran = deployment.run(&["run"]);
    assert_eq!(ran.stdout, "applied 1_plants\napplied 2_beds\n", "{ran:?}");
    deployment.url = deployment.url.replace("hunter2", "hunter3");
    let refused = deployment.run(&["list"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    for said in [ran.stdout, ran.stderr, refused.stderr] {
        assert!(!said.contains("hunter"), "{said}");
    }
}

/// `script` provides the terminal.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_gets_a_progress_bar() {
    let deployment = Deployment::new("terminal", "app");
    // Long enough for the bar to appear, which is redrawn five times a second.
    deployment.write("1_plants", "SELECT pg_sleep(0.6)", "");
    let run = deployment.command(&["run"]);
    let line = format!("{} migrate run", env!("CARGO_BIN_EXE_rds-iam"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.env("TERM", "xterm").stdin(Stdio::null());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let output = script.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for text in [
        "applied 1_plants in ",
        "applied 2_beds in ",
        "1/2 applying 2_beds",
    ] {
        assert!(shown.contains(text), "{shown}");
    }
}
