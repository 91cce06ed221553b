//! `rds-iam doctor`: a connection that works, and a failure at each step.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;

use rds_iam_emulator::Emulator;
use serde_json::Value;

use crate::support::{MARKER, rds_iam, rds_iam_to, rds_iam_with, run, shared_emulator, text};

/// A database that is never dialled.
const URL: &str = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/shop";

/// Runs the doctor, which must fail at `step`, as text and as JSON. Returns the text.
#[track_caller]
fn fails_at(mut command: Command, step: &str, exit_code: i32) -> String {
    let ran = run(command.arg("doctor"));
    assert_eq!(ran.code, Some(exit_code), "{ran:?}");
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let line = ran.stdout.lines().find(|line| line.starts_with('✗'));
    assert!(line.unwrap().contains(step), "{ran:?}");
    assert!(ran.stdout.contains("\nNext: "), "{ran:?}");
    // No colours.
    assert!(!ran.stdout.contains('\x1b'), "{ran:?}");

    let as_json = run(command.arg("--json"));
    assert_eq!(as_json.code, Some(exit_code), "{as_json:?}");
    let json: Value = serde_json::from_str(&as_json.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["exit_code"], exit_code);
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["step"], step, "{json}");
    let failure = &json["failure"];
    assert_eq!(failure["step"], step);
    for part in ["message", "next"] {
        assert!(!failure[part].as_str().unwrap().is_empty(), "{json}");
    }
    ran.stdout
}

/// The command with keys that no server accepts.
fn with_unknown_keys(url: &str) -> Command {
    let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
    command.env("DATABASE_URL", url);
    command
}

#[test]
fn a_connection_that_works_passes_each_step() {
    let shown = text(run(rds_iam_to(shared_emulator(), "app").arg("doctor")));
    let steps = "string region credentials clock token dns tcp tls login role server";
    let seen: Vec<&str> = shown
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(seen.join(" "), steps, "{shown}");
    assert_eq!(shown.matches('✓').count(), 10, "{shown}");
    for word in [
        "from the host name",
        "from environment variables, without expiry",
        "- clock",
        "RDS IAM Emulator Root CA",
        "\"app\" is a member of rds_iam",
        "PostgreSQL 1",
        "its clock agrees with this machine's",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }

    let json = text(run(
        rds_iam_to(shared_emulator(), "app").args(["doctor", "--json"])
    ));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["steps"].as_array().unwrap().len(), 11);
    assert_eq!(json["steps"][3]["outcome"], "skipped");
    assert_eq!(json["failure"], Value::Null);
}

#[test]
fn a_bad_string() {
    let shown = fails_at(
        with_unknown_keys("postgres://app@h/db?sslmode=prefer"),
        "string",
        10,
    );
    assert!(shown.contains("verify-full"), "{shown}");
    let shown = fails_at(
        with_unknown_keys("postgres://app:hunter2@h/db"),
        "string",
        10,
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("password"), "{shown}");
}

#[test]
fn no_region() {
    let shown = fails_at(
        with_unknown_keys("postgres://app@db.example.com/shop"),
        "region",
        11,
    );
    assert!(shown.contains("iam_region=eu-west-1"), "{shown}");
}

#[test]
fn no_credentials() {
    let mut command = rds_iam();
    command.env("DATABASE_URL", URL);
    let shown = fails_at(command, "credentials", 12);
    assert!(shown.contains("AWS_PROFILE"), "{shown}");
}

#[test]
fn expired_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let credentials = serde_json::json!({
        "Version": 1,
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": MARKER,
        "SessionToken": MARKER,
        "Expiration": "2020-01-01T00:00:00Z",
    });
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, credentials.to_string()).unwrap();
    let profile = format!("[default]\ncredential_process = cat {}\n", file.display());
    std::fs::write(&config, profile).unwrap();
    let mut command = rds_iam();
    command
        .env("DATABASE_URL", URL)
        .env("AWS_CONFIG_FILE", config);
    let shown = fails_at(command, "credentials", 12);
    assert!(shown.contains("aws sso login"), "{shown}");
}

#[test]
fn clocks_that_differ() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let with_role = || {
        let mut command = rds_iam();
        command
            .env("DATABASE_URL", emulator.url("app"))
            .envs(emulator.aws().container_environment());
        command
    };
    // AWS tolerates this difference.
    emulator.set_server_clock_skew(90);
    let shown = text(run(with_role().arg("doctor")));
    let clock = shown.lines().nth(3).unwrap();
    assert!(clock.starts_with("✓ clock"), "{shown}");
    assert!(clock.contains("s ahead of this machine's"), "{shown}");
    assert!(
        shown.contains("from the container's endpoint, expire "),
        "{shown}"
    );

    emulator.set_server_clock_skew(3600);
    let shown = fails_at(with_role(), "clock", 13);
    assert!(shown.contains("timedatectl"), "{shown}");

    // Without a request to AWS its clock is unknown, and the refusal lists it as a possible cause.
    let shown = fails_at(rds_iam_to(&emulator, "app"), "login", 18);
    assert!(shown.contains("or the clocks differ"), "{shown}");
}

#[test]
fn a_token_that_is_too_long() {
    let mut command = with_unknown_keys(URL);
    command.env("AWS_SESSION_TOKEN", MARKER.repeat(3000));
    let shown = fails_at(command, "token", 14);
    assert!(shown.contains("bytes that PostgreSQL takes"), "{shown}");
}

#[test]
fn a_name_without_an_address() {
    let url = "postgres://app@nowhere.invalid/shop?iam_region=eu-west-1&sslmode=require";
    let shown = fails_at(with_unknown_keys(url), "dns", 15);
    assert!(
        shown.contains("nowhere.invalid does not resolve"),
        "{shown}"
    );
}

#[test]
fn a_closed_port() {
    let shown = fails_at(
        with_unknown_keys(&format!("{URL}?hostaddr=127.0.0.1&port=1")),
        "tcp",
        16,
    );
    assert!(
        shown.contains("check that the database is running"),
        "{shown}"
    );
}

/// Presents a certificate that expired long ago, from its own CA.
fn expired() -> &'static Emulator {
    static EXPIRED: LazyLock<Emulator> = LazyLock::new(|| {
        let builder = Emulator::builder().expired_certificate(true);
        builder.start().unwrap()
    });
    &EXPIRED
}

#[test]
fn a_certificate_that_has_expired() {
    let shown = fails_at(rds_iam_to(expired(), "app"), "tls", 17);
    assert!(
        shown.contains("the certificate expired on Jan  1 00:00:00 2000 GMT"),
        "{shown}"
    );
}

#[test]
fn a_certificate_from_another_ca() {
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.env(
        "DATABASE_URL",
        format!(
            "{}&sslrootcert={}",
            shared_emulator().url("app"),
            expired().ca_path().display()
        ),
    );
    let shown = fails_at(command, "tls", 17);
    assert!(
        shown.contains("issued by \"RDS IAM Emulator Regional CA\""),
        "{shown}"
    );
}

#[test]
fn a_certificate_for_another_name() {
    let emulator = shared_emulator();
    let url = emulator.url("app").replace(
        emulator.host(),
        "alias.c9akciq32rqv.eu-west-1.rds.amazonaws.com",
    );
    let mut command = rds_iam_to(emulator, "app");
    command.env("DATABASE_URL", url);
    let shown = fails_at(command, "tls", 17);
    let host = format!("host={} hostaddr=ADDRESS", emulator.host());
    assert!(shown.contains(&host), "{shown}");
}

#[test]
fn a_server_without_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).unwrap();
            client.write_all(b"N").unwrap();
        }
    });
    let shown = fails_at(
        with_unknown_keys(&format!("{URL}?hostaddr=127.0.0.1&port={port}")),
        "tls",
        17,
    );
    assert!(shown.contains("the server does not support TLS"), "{shown}");
}

#[test]
fn a_wrong_key() {
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.env("AWS_SECRET_ACCESS_KEY", MARKER);
    let shown = fails_at(command, "login", 18);
    for word in [
        "PAM authentication failed for user \"app\"",
        "\"Action\": \"rds-db:connect\"",
        "\"arn:aws:rds-db:eu-west-1:ACCOUNT-ID:dbuser:db-RESOURCE-ID/app\"",
        "aws rds describe-db-instances --db-instance-identifier emulator --region eu-west-1",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let policy = &shown[shown.find('{').unwrap()..];
    serde_json::from_str::<Value>(policy).unwrap();
}

#[test]
fn a_user_who_was_not_granted_rds_iam() {
    let emulator = shared_emulator();
    emulator.execute("CREATE ROLE \"No Member\" LOGIN").unwrap();
    for user in ["No Member", "nobody"] {
        let shown = fails_at(rds_iam_to(emulator, user), "role", 19);
        let statements = match user {
            "nobody" => "\nCREATE ROLE nobody WITH LOGIN;\nGRANT rds_iam TO nobody;",
            _ => "\nCREATE ROLE \"No Member\" WITH LOGIN;\nGRANT rds_iam TO \"No Member\";",
        };
        assert!(shown.contains(statements), "{shown}");
        assert!(!shown.contains("retrieved from file"), "{shown}");
    }
}

/// The test cannot move the server's clock, so its user gets a function `now` that is wrong.
#[test]
fn a_server_with_a_wrong_clock() {
    let emulator = shared_emulator();
    emulator
        .execute(
            "CREATE ROLE late LOGIN IN ROLE rds_iam; CREATE SCHEMA late AUTHORIZATION late; \
             CREATE FUNCTION late.now() RETURNS timestamptz LANGUAGE sql \
                 AS $$ SELECT pg_catalog.now() - interval '1 hour' $$; \
             ALTER ROLE late SET search_path = late, pg_catalog",
        )
        .unwrap();
    let shown = fails_at(rds_iam_to(emulator, "late"), "server", 20);
    assert!(shown.contains("s behind this machine's"), "{shown}");
}

#[test]
fn aurora_dsql_has_no_rds_iam() {
    let emulator = Emulator::builder()
        .engine(rds_iam_emulator::Engine::Dsql)
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let shown = text(run(rds_iam_to(&emulator, "app").arg("doctor")));
    assert!(shown.contains("AWS IAM GRANT maps its users"), "{shown}");
    let mut wrong = rds_iam_to(&emulator, "app");
    wrong.env("AWS_SECRET_ACCESS_KEY", MARKER);
    let shown = fails_at(wrong, "login", 18);
    assert!(shown.contains("\"dsql:DbConnect\""), "{shown}");
}
