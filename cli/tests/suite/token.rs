//! `rds-iam token`, as a shell would use it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test that cannot go on panics"
)]

use std::process::{Command, Output};

use rds_iam_emulator::{Emulator, Verdict};

/// The command with keys and nothing else of AWS in its environment.
fn rds_iam(key: &str, secret: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds-iam"));
    for (name, _) in std::env::vars() {
        if name.starts_with("AWS_") || name.starts_with("PG") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_ACCESS_KEY_ID", key)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    command
}

fn text(output: &Output) -> &str {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn the_token_alone_is_on_standard_output() {
    let output = rds_iam("AKIDEXAMPLE", "secret")
        .args(["token", "--host", "h", "--port", "5432", "--user", "u"])
        .args(["--region", "eu-west-1"])
        .output()
        .unwrap();
    let token = text(&output);
    assert_eq!(token.lines().count(), 1);
    assert!(
        token.starts_with("h:5432/?Action=connect&DBUser=u&"),
        "{token}"
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn psql_gets_in_with_it() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let url = emulator.url("app");
    for arguments in [
        vec!["--url", &url],
        vec![
            "--host",
            emulator.host(),
            "--port",
            &emulator.port().to_string(),
            "--user",
            "app",
        ],
    ] {
        let output = rds_iam(emulator.access_key(), emulator.secret_key())
            .arg("token")
            .args(arguments)
            .output()
            .unwrap();
        let psql = Command::new("psql")
            .args([
                "--no-psqlrc",
                "--tuples-only",
                "--no-align",
                "-c",
                "SELECT current_user",
                &url,
            ])
            .env("PGPASSWORD", text(&output).trim_end())
            .output()
            .unwrap();
        assert_eq!(text(&psql), "app\n");
    }
    let logins = emulator.logins();
    assert_eq!(logins.len(), 2);
    assert!(
        logins
            .iter()
            .all(|login| *login.verdict() == Verdict::Accepted)
    );
}

#[test]
fn json_says_what_it_is_for_and_until_when() {
    let output = rds_iam("AKIDEXAMPLE", "secret")
        .args(["token", "--json", "--user", "app"])
        .args(["--host", "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(text(&output)).unwrap();
    assert_eq!(
        json["host"],
        "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com"
    );
    assert_eq!(
        (&json["user"], &json["region"]),
        (&"app".into(), &"eu-west-1".into())
    );
    let date = |name: &str| humantime::parse_rfc3339(json[name].as_str().unwrap()).unwrap();
    let lifetime = date("expires").duration_since(date("issued")).unwrap();
    assert_eq!(lifetime.as_secs(), 900);
}

#[test]
fn an_error_is_one_line_and_names_the_setting() {
    let output = rds_iam("AKIDEXAMPLE", "secret")
        .args(["token", "--host", "db.example.com", "--user", "app"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("region"), "{error}");
}
