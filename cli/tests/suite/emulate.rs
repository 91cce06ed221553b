//! `rds-iam emulate`, with the other commands as its clients.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{PATIENCE, clean, rds_iam, run, schema, shared_emulator, skip, text};

/// A running `rds-iam emulate --port 0`.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    /// The variables that it prints.
    environment: HashMap<String, String>,
    /// What it says to put into `/etc/hosts`.
    hosts: String,
}

impl Running {
    fn spawn(arguments: &[&str]) -> Running {
        let mut child = rds_iam()
            .args(["emulate", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Running {
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            environment: HashMap::new(),
            hosts: String::new(),
        }
    }

    /// With `--json`. Returns the document as well.
    fn start_with_json(arguments: &[&str]) -> (Running, Value) {
        let mut running = Running::spawn(&[&["--json"], arguments].concat());
        let json = serde_json::from_str(&running.line()).unwrap();
        schema::check("emulate", &json);
        let environment = [
            ("DATABASE_URL", &json["url"]),
            ("AWS_REGION", &json["region"]),
        ];
        running.environment = environment
            .map(|(name, value)| (name.to_owned(), value.as_str().unwrap().to_owned()))
            .into();
        (running, json)
    }

    fn start(arguments: &[&str]) -> Running {
        let mut running = Running::spawn(arguments);
        while running.environment.len() < 4 {
            let line = running.line();
            if let Some(pair) = line.strip_prefix("export ") {
                let (name, value) = pair.trim_end().split_once('=').unwrap();
                let value = value.trim_matches('\'').to_owned();
                running.environment.insert(name.to_owned(), value);
            } else if line.starts_with("# 127.") {
                running.hosts += line.trim_start_matches("# ");
            } else {
                assert!(line.starts_with(['#', 'u']), "{line:?}");
            }
        }
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// A command with the printed variables in its environment.
    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = rds_iam();
        command.args(arguments).envs(&self.environment);
        command
    }

    /// The folder of its files.
    fn folder(&self) -> &Path {
        let (_, path) = self.environment["DATABASE_URL"]
            .split_once("sslrootcert=")
            .unwrap();
        Path::new(path).parent().unwrap()
    }

    fn end(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(
            !self.folder().exists(),
            "{:?} is still there",
            self.folder()
        );
    }
}

/// Ends the process if an assertion fails.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn emulate_prints_settings_and_logins_and_leaves_nothing_behind() {
    let mut running = Running::start(&["--watch", "--user", "shop owner", "--database", "shop"]);
    assert!(running.folder().exists());
    let query = "select current_user || ' of ' || current_database()";
    let psql = ["exec", "--", "psql", "--no-psqlrc", "-Atc", query];
    assert_eq!(
        text(run(&mut running.client(&psql))),
        "shop owner of shop\n"
    );
    let line = running.line();
    assert!(line.ends_with(" s old: accepted\n"), "{line}");
    assert!(line.contains("user \"shop owner\", token "), "{line}");

    let mut wrong = running.client(&psql);
    let ran = run(wrong.env("AWS_SECRET_ACCESS_KEY", "wrong"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let line = running.line();
    assert!(line.contains(": refused, the signature is wrong"), "{line}");
    running.end(Signal::INT);
}

#[test]
fn token_lifetime_sets_the_accepted_age() {
    let running = Running::start(&["--token-lifetime", "1s"]);
    let script = "sleep 2; psql --no-psqlrc -Atc 'select 1'";
    let ran = run(&mut running.client(&["exec", "--", "sh", "-c", script]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("PAM authentication failed"), "{ran:?}");
    running.end(Signal::TERM);
}

#[test]
fn a_shell_can_evaluate_the_output() {
    let script = r#"
        eval "$("$RDS_IAM" emulate --port 0 --shell &)"
        "$RDS_IAM" doctor; status=$?
        kill "$RDS_IAM_EMULATOR_PID"
        exit $status
    "#;
    let mut shell = clean(Command::new("sh"));
    shell
        .args(["-c", script])
        .env("RDS_IAM", env!("CARGO_BIN_EXE_rds-iam"));
    let shown = text(run(&mut shell));
    assert_eq!(shown.lines().count(), 12, "{shown}");
}

#[test]
fn json_has_what_each_kind_of_client_needs() {
    let arguments = ["--user", "shop owner", "--database", "shop"];
    let (running, json) = Running::start_with_json(&arguments);
    let field = |pointer: &str| json.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let keys = [
        ("AWS_ACCESS_KEY_ID", field("/access_key_id")),
        ("AWS_SECRET_ACCESS_KEY", field("/secret_access_key")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    let of_profile = format!(
        "[profile reader]\nsource_profile = keys\n\
         role_arn = arn:aws:iam::123456789012:role/reader\n[profile keys]\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n",
        keys[0].1, keys[1].1
    );
    std::fs::write(&profile, of_profile).unwrap();
    let role = [
        ("AWS_CONFIG_FILE", profile.to_str().unwrap().to_owned()),
        ("AWS_PROFILE", "reader".to_owned()),
        ("AWS_ENDPOINT_URL_STS", field("/aws/sts_url")),
    ];
    let container = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            field("/aws/container_credentials_url"),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN",
            field("/aws/container_authorization_token"),
        ),
    ];
    let instance = [
        ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
        (
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            field("/aws/metadata_url"),
        ),
    ];
    let query = "select current_user || ' of ' || current_database()";
    let psql = ["exec", "--", "psql", "--no-psqlrc", "-Atc", query];
    for environment in [
        keys.to_vec(),
        role.to_vec(),
        container.to_vec(),
        instance.to_vec(),
    ] {
        let mut client = running.client(&psql);
        client.envs(environment.iter().map(|(name, value)| (name, value)));
        let ran = text(run(&mut client));
        assert_eq!(ran, "shop owner of shop\n", "{environment:?}");
    }
    running.end(Signal::TERM);
}

/// The first example in this language in the emulator's README.
fn example(language: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../emulator/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, example) = readme.split_once(&format!("```{language}\n")).unwrap();
    example.split_once("```").unwrap().0.to_owned()
}

/// A program with `rds-iam` on its PATH.
fn with_rds_iam(program: impl AsRef<OsStr>) -> Command {
    let tested = Path::new(env!("CARGO_BIN_EXE_rds-iam")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let folders = std::iter::once(tested.to_owned()).chain(std::env::split_paths(&path));
    let mut command = clean(Command::new(program));
    command.env("PATH", std::env::join_paths(folders).unwrap());
    command
}

#[test]
fn the_shell_example_of_the_emulators_readme_works() {
    let mut shell = with_rds_iam("sh");
    shell
        .args(["-ec", &example("sh")])
        .env("PSQLRC", "/dev/null");
    assert_eq!(text(run(&mut shell)), "CREATE TABLE\n");
}

/// The example's fixture uses `--json`.
#[test]
fn the_pytest_example_of_the_emulators_readme_passes() {
    let python = std::env::var_os("RDS_IAM_EMULATOR_PYTHON").unwrap_or_else(|| "python3".into());
    let check = Command::new(&python)
        .args(["-c", "import boto3, psycopg, pytest"])
        .output();
    if !check.is_ok_and(|output| output.status.success()) {
        skip("no Python with boto3, psycopg and pytest; set RDS_IAM_EMULATOR_PYTHON to one");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test_login.py"), example("python")).unwrap();
    let mut pytest = with_rds_iam(python);
    pytest
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(folder.path());
    let shown = text(run(&mut pytest));
    assert!(shown.contains("2 passed"), "{shown}");
}

#[test]
fn upstream_uses_another_postgresql_and_leaves_it_running() {
    let behind = shared_emulator();
    let url = behind.superuser_url();
    let running = Running::start(&["--upstream", &url, "--user", "in_front"]);
    let query = "select session_user, current_database()";
    let psql = ["exec", "--", "psql", "--no-psqlrc", "-Atc", query];
    assert_eq!(text(run(&mut running.client(&psql))), "in_front|in_front\n");
    running.end(Signal::TERM);
    behind.execute("SELECT").unwrap();
}

#[test]
fn a_cluster_fails_over_on_a_signal() {
    if let Err(error) = TcpListener::bind("127.0.0.2:0") {
        return skip(&format!("the second member has no address: {error}"));
    }
    let mut running = Running::start(&["--members", "2"]);
    for name in ["DATABASE_URL", "READER_URL"] {
        let url = &running.environment[name];
        assert!(
            url.starts_with("postgres://app@mycluster.cluster-"),
            "{url}"
        );
    }
    kill_process(Pid::from_child(&running.child), Signal::USR1).unwrap();
    let mut line = String::new();
    while !line.contains("the writer is instance-2") {
        line = running.line();
        assert!(!line.is_empty(), "it has ended");
    }
    running.end(Signal::TERM);
    for number in ["1", "17"] {
        let ran = run(rds_iam().args(["emulate", "--members", number]));
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
}

/// With a hosts file of its own, in a mount namespace.
#[cfg(target_os = "linux")]
#[test]
fn doctor_shows_the_members_of_a_cluster_and_where_its_name_leads() {
    let cluster = Running::start(&["--members", "2"]);
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, &cluster.hosts).unwrap();
    let in_namespace = |attributes: &str, script: &str| {
        let mut command = clean(Command::new("unshare"));
        let script = format!("mount --bind \"$1\" /etc/hosts && {script}");
        // root needs no other user, who could not read the emulator's files.
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command
            .arg(&hosts)
            .arg(env!("CARGO_BIN_EXE_rds-iam"))
            .envs(&cluster.environment);
        let url = &cluster.environment["DATABASE_URL"];
        let url = format!("{url}&target_session_attrs={attributes}");
        run(command.env("DATABASE_URL", url))
    };
    let trial = in_namespace("any", "true");
    if trial.code != Some(0) {
        return skip(&format!("no mount namespace: {}", trial.stderr.trim_end()));
    }
    let doctor = |attributes| text(in_namespace(attributes, "exec \"$2\" doctor"));
    let shown = doctor("read-write");
    let members = "instance-1 (writer), instance-2 (reader); the name leads to instance-1.";
    assert!(shown.contains(members), "{shown}");
    let shown = doctor("any");
    assert!(
        shown.contains("skipped: members are dialled only with"),
        "{shown}"
    );
}

#[test]
fn a_program_that_cannot_be_started_is_one_line() {
    let taken = shared_emulator().port().to_string();
    let before = Instant::now();
    for arguments in [
        &[
            "--port",
            taken.as_str(),
            "--upstream",
            "postgres://a:hunter2@127.0.0.1:1/",
        ][..],
        &[
            "--upstream",
            "postgres://a:hunter2@127.0.0.1:1/?sslmode=require",
        ],
        &[
            "--port",
            "0",
            "--upstream",
            "postgres://a:hunter2@127.0.0.1:1/",
        ],
    ] {
        let ran = run(rds_iam().arg("emulate").args(arguments));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
    assert!(before.elapsed() < PATIENCE);
}
