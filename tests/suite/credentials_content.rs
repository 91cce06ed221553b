//! What stands in variables, files and the output of programs: white space, output that must not be logged, and
//! a file that is replaced.
//!
//! Each source is a matter of environment variables, so each test goes on in a process of its own.

use std::fs;
use std::path::Path;

use diesel_rds_iam::{Error, ErrorKind, PgConnectionManager};
use rds_iam_emulator::Credentials;

use crate::support::PATIENCE;
use crate::support::child::{self, Child};
use crate::support::database::{emulator, refused};
use crate::support::written::Written;

const KEY: &str = "AKIAMARKER0000000001";

fn is_child(test: &str) -> bool {
    child::is_running(module_path!(), test)
}

fn child(test: &str) -> Child {
    let url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app";
    Child::new(module_path!(), test, Path::new("/dev/null/none")).argument("URL", url)
}

/// In a child: there is no token, for want of credentials.
fn fail_to_sign() -> Error {
    let manager = PgConnectionManager::builder(&child::argument("URL"))
        .credentials_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
        .build()
        .unwrap();
    manager.try_connect().err().unwrap()
}

#[test]
fn white_space_in_a_variable_is_named_without_the_value() {
    const TEST: &str = "white_space_in_a_variable_is_named_without_the_value";
    if is_child(TEST) {
        let error = fail_to_sign();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
        let expected = child::argument("EXPECTED");
        assert!(
            text.starts_with(&format!("{expected} contains white space")),
            "{text}"
        );
        assert!(!text.contains("MARKER"), "{text}");
        return;
    }
    let role = "&iam_role_arn=arn:aws:iam::123456789012:role/database";
    for (key, secret, token, expected) in [
        (" AKIAMARKER", "MARKER", "MARKER", "AWS_ACCESS_KEY_ID"),
        ("AKIAMARKER", "MARKER\n", "MARKER", "AWS_SECRET_ACCESS_KEY"),
        (
            "AKIAMARKER",
            "MARKER",
            "MARKER\r\nMARKER",
            "AWS_SESSION_TOKEN",
        ),
    ] {
        for parameters in ["?", role] {
            let url =
                "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app?sslmode=require";
            child(TEST)
                .argument(
                    "URL",
                    format!("{url}{}", parameters.trim_start_matches('?')),
                )
                .argument("EXPECTED", expected)
                .env("AWS_ACCESS_KEY_ID", key)
                .env("AWS_SECRET_ACCESS_KEY", secret)
                .env("AWS_SESSION_TOKEN", token)
                // Nothing is asked there.
                .env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
                .run();
        }
    }
}

#[test]
fn white_space_in_the_output_of_a_process_is_named_without_the_value() {
    const TEST: &str = "white_space_in_the_output_of_a_process_is_named_without_the_value";
    if is_child(TEST) {
        let text = fail_to_sign().to_string();
        let expected = "the secret access key (a process, then a profile) contains white space";
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("MARKER"), "{text}");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (config, output) = (home.path().join("config"), home.path().join("output"));
    let json = format!(r#"{{"Version": 1, "AccessKeyId": "{KEY}", "SecretAccessKey": "MARKER "}}"#);
    fs::write(&output, json).unwrap();
    fs::write(
        &config,
        format!("[default]\ncredential_process = cat {}\n", output.display()),
    )
    .unwrap();
    child(TEST).env("AWS_CONFIG_FILE", &config).run();
}

/// A shell with `set -x` prints each command there, with its values.
#[test]
fn of_a_processs_standard_error_the_first_line_is_repeated() {
    const TEST: &str = "of_a_processs_standard_error_the_first_line_is_repeated";
    if is_child(TEST) {
        let log = Written::default();
        let written = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(move || written.clone())
            .init();
        let error = fail_to_sign();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{text}");
        let first = format!("the vault is sealed \\u{{1b}}{}…", "x".repeat(179));
        assert!(text.ends_with(&first), "{text}");
        let log = log.text();
        assert!(log.contains("the vault is sealed"), "{log}");
        for secret in ["MARKER", &"x".repeat(180)] {
            assert!(
                !text.contains(secret) && !log.contains(secret),
                "{text}\n{log}"
            );
        }
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (config, script) = (home.path().join("config"), home.path().join("script"));
    let program = format!(
        "printf 'the vault is sealed \\033%s\\n' {} >&2\necho '+ key=MARKER' >&2\nexit 1\n",
        "x".repeat(500)
    );
    fs::write(&script, program).unwrap();
    for profile in ["default", "profile vault"] {
        let process = format!(
            "[{profile}]\ncredential_process = /bin/sh {}\n",
            script.display()
        );
        fs::write(&config, process).unwrap();
        let name = profile.trim_start_matches("profile ");
        child(TEST)
            .env("AWS_CONFIG_FILE", &config)
            .env("AWS_PROFILE", name)
            .run();
    }
}

/// The second replacement comes sooner than credentials are fetched anew for any other reason. FAULTS.md row 73.
#[test]
fn a_credentials_file_that_was_replaced_costs_one_refused_login() {
    const TEST: &str = "a_credentials_file_that_was_replaced_costs_one_refused_login";
    if is_child(TEST) {
        let file = child::argument("FILE");
        let write = |key: &str, secret: &str| {
            let profile =
                format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
            // As tools do it, in one step.
            let new = format!("{file}.new");
            fs::write(&new, profile).unwrap();
            fs::rename(&new, &file).unwrap();
        };
        let emulator = emulator();
        write(emulator.access_key(), emulator.secret_key());
        let manager = PgConnectionManager::new(&emulator.url("app")).unwrap();
        manager.try_connect().unwrap();
        let mut held = emulator.access_key().to_owned();
        for (rotations, key) in ["AKIAREPLACED00000001", "AKIAREPLACED00000002"]
            .into_iter()
            .enumerate()
        {
            emulator.add_credentials(Credentials::new(key, "another"));
            write(key, "another");
            // The earlier keys still work, so nothing is read again.
            manager.try_connect().unwrap();
            assert_eq!(refused(&emulator).len(), rotations);
            assert!(emulator.remove_credentials(&held));
            manager.try_connect().unwrap();
            assert_eq!(refused(&emulator).len(), rotations + 1);
            held = key.to_owned();
        }
        assert_eq!(
            emulator.logins().last().unwrap().access_key(),
            Some(held.as_str())
        );
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("credentials");
    child(TEST)
        .argument("FILE", file.to_str().unwrap())
        .env("AWS_SHARED_CREDENTIALS_FILE", &file)
        .run();
}
