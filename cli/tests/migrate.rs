//! `rds-iam migrate`, as a deployment would use it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on panics"
)]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use rds_iam_emulator::Emulator;
use tempfile::TempDir;

static EMULATOR: LazyLock<Emulator> = LazyLock::new(|| {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.create_password_user("local", "hunter2").unwrap();
    emulator
});

/// A database and a folder of two migrations.
struct Deployment {
    folder: TempDir,
    url: String,
}

impl Deployment {
    fn new(database: &str, user: &str) -> Deployment {
        EMULATOR.create_database(database, user).unwrap();
        let deployment = Deployment {
            folder: TempDir::new().unwrap(),
            url: format!("{}&dbname={database}", EMULATOR.url(user)),
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

    /// `rds-iam migrate` with these arguments and nothing of AWS in its environment but keys.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rds-iam"));
        for (name, _) in std::env::vars() {
            if name.starts_with("AWS_") || name.starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .arg("migrate")
            .args(arguments)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_ACCESS_KEY_ID", EMULATOR.access_key())
            .env("AWS_SECRET_ACCESS_KEY", EMULATOR.secret_key())
            .env("MIGRATION_DIRECTORY", self.folder.path())
            .env("DATABASE_URL", &self.url)
            .stdin(Stdio::null());
        command
    }

    /// Exit status, standard output with times left out, and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let shown = String::from_utf8(stdout).unwrap();
        let shown = shown.lines().map(|line| {
            let end = line.find(" in ").unwrap_or(line.len());
            line[..end].to_owned() + "\n"
        });
        let said = String::from_utf8(stderr).unwrap();
        (status.code().unwrap(), shown.collect(), said)
    }
}

#[test]
fn a_deployment_goes_all_its_ways() {
    let deployment = Deployment::new("all_ways", "app");
    let stdout = |arguments: &[&str], expected_status| {
        let (status, stdout, stderr) = deployment.run(arguments);
        assert_eq!(status, expected_status, "{arguments:?}: {stderr}");
        stdout
    };
    assert_eq!(stdout(&["pending"], 6), "1_plants\n2_beds\n");
    assert_eq!(stdout(&["list"], 0), "[ ] 1_plants\n[ ] 2_beds\n");

    let (status, shown, said) = deployment.run(&["run", "--statement-timeout", "1m"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!(shown, "applied 1_plants\napplied 2_beds\n");
    // There is no terminal, so it says what it does in lines.
    assert_eq!(said, "applying 1_plants\napplying 2_beds\n");

    assert_eq!(stdout(&["run"], 0), "nothing to do\n");
    assert_eq!(stdout(&["pending"], 0), "");
    assert_eq!(stdout(&["redo"], 0), "reverted 2_beds\napplied 2_beds\n");
    assert_eq!(stdout(&["revert"], 0), "reverted 2_beds\n");
    let json: serde_json::Value = serde_json::from_str(&stdout(&["list", "--json"], 0)).unwrap();
    assert_eq!(json[0]["name"], "1_plants");
    humantime::parse_rfc3339(json[0]["applied_at"].as_str().unwrap()).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({"version": "2", "name": "2_beds", "applied_at": null})
    );
    assert_eq!(stdout(&["run"], 0), "applied 2_beds\n");
    assert_eq!(
        stdout(&["redo", "--number", "2"], 0),
        "reverted 2_beds\nreverted 1_plants\napplied 1_plants\napplied 2_beds\n"
    );
    assert_eq!(
        stdout(&["revert", "--all"], 0),
        "reverted 2_beds\nreverted 1_plants\n"
    );
}

#[test]
fn each_failure_has_its_status_and_one_line() {
    let deployment = Deployment::new("failures", "app");
    let fails = |arguments: &[&str], expected, says: &[&str]| {
        let (status, shown, said) = deployment.run(arguments);
        assert_eq!(status, expected, "{arguments:?}: {said}");
        assert_eq!(shown, "");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("rds-iam: "), "{said}");
        for text in says {
            assert!(last.contains(text), "{said}");
        }
        said
    };
    fails(&["run", "--dir", "/nowhere"], 2, &["/nowhere"]);
    fails(&["run", "--url", "host=a,b user=app"], 2, &["host"]);
    let nobody = EMULATOR.url("nobody");
    fails(&["run", "--url", &nobody], 3, &["nobody", "rds_iam"]);

    // Somebody else is at it.
    let lock = "SELECT pg_advisory_lock(8242840071689561970), pg_sleep(600)";
    let superuser = EMULATOR
        .superuser_url()
        .replace("dbname=postgres", "dbname=failures");
    let mut holder = Command::new("psql")
        .args(["--no-psqlrc", "-c", lock, &superuser])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_held = "DO $$ BEGIN ASSERT (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
                   WHERE locktype = 'advisory' AND datname = 'failures') = 1; END $$";
    while EMULATOR.execute(is_held).is_err() {
        assert!(holder.try_wait().unwrap().is_none());
    }
    let said = fails(&["run", "--lock-wait", "0s"], 5, &["lock_wait"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = fails(&["run", "--lock-wait", "10ms"], 5, &["lock_wait"]);
    let waiting = "another process has the lock; waiting for 10ms at the most";
    assert_eq!(said.lines().next(), Some(waiting));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let end =
        "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = 'failures'";
    EMULATOR.execute(end).unwrap();

    deployment.write("1_plants", "SELECT 1 / 0", "");
    fails(&["run"], 4, &["1_plants", "division by zero"]);
}

#[test]
fn a_local_database_has_a_password() {
    let mut deployment = Deployment::new("local", "local");
    deployment.url = deployment.url.replacen('@', ":hunter2@", 1);
    let (status, shown, said) = deployment.run(&["run"]);
    assert_eq!((status, &*shown), (0, "applied 1_plants\napplied 2_beds\n"));
    deployment.url = deployment.url.replace("hunter2", "hunter3");
    let (status, shown, refused) = deployment.run(&["list"]);
    assert_eq!(status, 3);
    for text in [said, shown, refused] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

/// `script` gives it a terminal.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_is_shown_a_bar() {
    let deployment = Deployment::new("terminal", "app");
    // Long enough for the bar to be drawn, which it is five times a second.
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
