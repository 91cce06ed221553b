//! `rds-iam token`, as a shell uses it.

use std::process::Command;

use rds_iam_emulator::{Emulator, LoginResult};

use crate::support::{MARKER, Ran, clean, rds_iam, rds_iam_with, run, run_openly, schema, text};

/// A token for an endpoint that is not dialled.
const TOKEN: [&str; 7] = [
    "token",
    "--host",
    "h",
    "--user",
    "u",
    "--region",
    "eu-west-1",
];

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
            .all(|login| *login.result() == LoginResult::Accepted)
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
                .args(TOKEN)
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

/// A home folder with this profile `dev`.
fn home(profile: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let config = format!("[profile dev]\nregion = eu-west-1\n{profile}\n");
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    home
}

/// `rds-iam token` with that profile.
fn token_of(home: &tempfile::TempDir, options: &[&str]) -> Ran {
    let mut command = rds_iam();
    command
        .env("HOME", home.path())
        .env_remove("AWS_CONFIG_FILE")
        .env("AWS_PROFILE", "dev")
        .args(TOKEN)
        .args(options);
    run_openly(&mut command)
}

const KEYS: &str = r#"{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "secret"}"#;

#[test]
fn a_source_that_takes_longer_than_a_pool_waits_is_waited_for() {
    let home = home(&format!(
        "credential_process = sh -c \"sleep 5; echo '{}'\"",
        KEYS.replace('"', "\\\"")
    ));
    let token = text(token_of(&home, &[]));
    assert!(token.contains("AKIDPROCESS"), "{token}");

    let ran = token_of(&home, &["--credentials-timeout", "1s"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("raise iam_credentials_timeout"),
        "{ran:?}"
    );
}

#[test]
fn a_session_of_aws_login_is_used() {
    const SESSION: &str = "arn:aws:iam::123456789012:user/Admin";
    let home = home(&format!("login_session = {SESSION}"));
    let ran = token_of(&home, &[]);
    assert!(
        ran.stderr.contains("run `aws login --profile dev`"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains("feature"), "{ran:?}");

    let cache = home.path().join(".aws/login/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let name = openssl::sha::sha256(SESSION.as_bytes());
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1)
        .and_then(|group| openssl::ec::EcKey::generate(&group))
        .and_then(|key| key.private_key_to_pem())
        .unwrap();
    let session = serde_json::json!({
        "accessToken": {
            "accessKeyId": "ASIALOGIN",
            "secretAccessKey": MARKER,
            "sessionToken": "session",
            "accountId": "123456789012",
            "expiresAt": "2099-01-01T00:00:00Z",
        },
        "tokenType": "aws_sigv4",
        "refreshToken": "refresh",
        "idToken": "id",
        "clientId": "arn:aws:signin:::devtools/same-device",
        "dpopKey": String::from_utf8(key).unwrap(),
    });
    std::fs::write(cache.join(name + ".json"), session.to_string()).unwrap();
    let token = text(token_of(&home, &[]));
    assert!(token.contains("ASIALOGIN"), "{token}");
}

#[test]
fn the_command_that_begins_an_sso_session_is_named_with_the_profile() {
    let home = home(
        "sso_session = work\nsso_account_id = 123456789012\nsso_role_name = dev\n\
         [sso-session work]\nsso_region = eu-west-1\nsso_start_url = https://example.awsapps.com/start",
    );
    let ran = token_of(&home, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("run `aws sso login --profile dev`"),
        "{ran:?}"
    );
}
