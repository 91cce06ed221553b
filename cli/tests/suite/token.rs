//! `rds-iam token`, as a shell uses it.

use std::process::Command;

use rds_iam_emulator::{Emulator, Verdict};

use crate::support::{MARKER, clean, rds_iam_with, run, run_openly, schema, text};

#[test]
fn standard_output_contains_only_the_token() {
    let ran = run_openly(
        rds_iam_with("AKIDEXAMPLE", MARKER)
            .args(["token", "--host", "h", "--port", "5432", "--user", "u"])
            .args(["--region", "eu-west-1"]),
    );
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let token = text(ran);
    assert_eq!(token.lines().count(), 1);
    assert!(
        token.starts_with("h:5432/?Action=connect&DBUser=u&"),
        "{token}"
    );
    assert!(!token.contains(MARKER));
}

#[test]
fn psql_logs_in_with_the_token() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let url = emulator.url("app");
    let port = emulator.port().to_string();
    let parts = ["--host", emulator.host(), "--port", &port, "--user", "app"];
    for arguments in [&["--url", url.as_str()][..], &parts] {
        let token = text(run_openly(
            rds_iam_with(emulator.access_key(), emulator.secret_key())
                .arg("token")
                .args(arguments),
        ));
        let mut psql = clean(Command::new("psql"));
        psql.args(["--no-psqlrc", "-Atc", "SELECT current_user", &url])
            .env("PGPASSWORD", token.trim_end());
        assert_eq!(text(run(&mut psql)), "app\n");
    }
    let logins = emulator.logins();
    assert_eq!(logins.len(), 2);
    assert!(
        logins
            .iter()
            .all(|login| *login.verdict() == Verdict::Accepted)
    );
}

/// The region comes from the host name first, and else from the AWS configuration.
#[test]
fn json_has_the_dates_and_the_endpoint_of_the_token() {
    for (host, variable) in [
        ("mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com", "us-east-1"),
        ("db.example.com", "eu-west-1"),
    ] {
        let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
        command
            .args(["token", "--json", "--user", "app", "--host", host])
            .env("AWS_REGION", variable);
        let json: serde_json::Value =
            serde_json::from_str(&text(run_openly(&mut command))).unwrap();
        schema::check("token", &json);
        assert_eq!(json["host"], host);
        assert_eq!(
            (&json["user"], &json["region"]),
            (&"app".into(), &"eu-west-1".into())
        );
        let token = json["token"].as_str().unwrap();
        assert!(token.contains("%2Feu-west-1%2Frds-db%2F"), "{token}");
        let date = |name: &str| humantime::parse_rfc3339(json[name].as_str().unwrap()).unwrap();
        let lifetime = date("expires").duration_since(date("issued")).unwrap();
        assert_eq!(lifetime.as_secs(), 900);
    }
}

/// The library has no root certificates for these.
#[test]
fn a_token_needs_no_root_certificates() {
    for (host, region) in [
        (
            "mydb.c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
        ),
        (
            "mydb.c9akciq32rqv.rds.us-iso-east-1.c2s.ic.gov",
            "us-iso-east-1",
        ),
    ] {
        let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
        command.args(["token", "--user", "app", "--host", host]);
        let token = text(run_openly(&mut command));
        assert!(
            token.contains(&format!("%2F{region}%2Frds-db%2F")),
            "{token}"
        );
    }
}

#[test]
fn the_token_lifetime_can_be_shortened() {
    let token = |arguments: &[&str]| {
        run_openly(
            rds_iam_with("AKIDEXAMPLE", MARKER)
                .args([
                    "token",
                    "--host",
                    "h",
                    "--user",
                    "u",
                    "--region",
                    "eu-west-1",
                ])
                .args(arguments),
        )
    };
    let short = text(token(&["--token-lifetime", "15s"]));
    assert!(short.contains("&X-Amz-Expires=15&"), "{short}");
    let json: serde_json::Value =
        serde_json::from_str(&text(token(&["--token-lifetime", "15s", "--json"]))).unwrap();
    let date = |name: &str| humantime::parse_rfc3339(json[name].as_str().unwrap()).unwrap();
    let lifetime = date("expires").duration_since(date("issued")).unwrap();
    assert_eq!(lifetime.as_secs(), 15);
    for wrong in ["1h", "1s"] {
        let ran = token(&["--token-lifetime", wrong]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("set it from 5s to 900s"), "{ran:?}");
    }
}

#[test]
fn an_error_is_one_line_that_names_the_setting() {
    for (arguments, word) in [
        (&["--host", "db.example.com", "--user", "app"][..], "region"),
        (&["--url", "postgres://app:hunter2@h/db"], "iam"),
        (&["--url", "postgres://app@h/db?sslmode=prefer"], "sslmode"),
    ] {
        let ran = run(rds_iam_with("AKIDEXAMPLE", MARKER)
            .arg("token")
            .args(arguments));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stdout.is_empty());
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
}
