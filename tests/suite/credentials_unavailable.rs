//! Sources of credentials that cannot be reached, throttle their callers, fail, or lack a file.
//!
//! Sources are selected by environment variables, so each test runs in a process of its own.

use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use diesel_rds_iam::{Error, ErrorKind, PgConnectionManager};
use rds_iam_emulator::{AwsBehaviour, AwsService, Emulator};

use crate::support::PATIENCE;
use crate::support::child::{self, Child};
use crate::support::database::emulator;

fn is_child(test: &str) -> bool {
    child::is_running(module_path!(), test)
}

fn child(test: &str, emulator: &Emulator) -> Child {
    Child::new(module_path!(), test, Path::new("/dev/null/none"))
        .argument("URL", emulator.url("app"))
}

/// In a child: the login fails because there are no credentials.
fn fail_to_log_in(limit: Duration) -> Error {
    let manager = PgConnectionManager::builder(&child::argument("URL"))
        .credentials_timeout(limit)
        .connect_timeout(PATIENCE)
        .build()
        .unwrap();
    manager.try_connect().err().unwrap()
}

/// In a child: the login fails with an error of this kind that contains the text which the parent passes.
fn fails_with(kind: ErrorKind, limit: Duration) {
    let error = fail_to_log_in(limit);
    assert_eq!(error.kind(), kind, "{error}");
    let (text, expected) = (error.to_string(), child::argument("EXPECTED"));
    assert!(text.contains(&expected), "{expected:?} is not in {text}");
}

/// An address of this machine on which no program listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn address(emulator: &Emulator) -> String {
    let url = emulator.aws().sts_url();
    url.trim_start_matches("http://").to_owned()
}

/// A role that the connection string has assumed by STS at `endpoint`.
fn with_role(child: Child, emulator: &Emulator, endpoint: &str) -> Child {
    let role = "arn:aws:iam::123456789012:role/database";
    child
        .argument(
            "URL",
            format!("{}&iam_role_arn={role}", emulator.url("app")),
        )
        .env("AWS_ENDPOINT_URL_STS", endpoint)
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        // The SDK's own attempts take seconds.
        .env("AWS_MAX_ATTEMPTS", "1")
}

/// FAULTS.md row 61.
#[test]
fn a_container_that_is_throttled_at_its_start_logs_in() {
    const TEST: &str = "a_container_that_is_throttled_at_its_start_logs_in";
    if is_child(TEST) {
        let manager = PgConnectionManager::builder(&child::argument("URL"))
            .credentials_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .build()
            .unwrap();
        manager.try_connect().unwrap();
        return;
    }
    let emulator = emulator();
    let aws = emulator.aws();
    aws.set_behaviour(AwsService::Container, AwsBehaviour::Throttled);
    thread::scope(|scope| {
        let started = scope.spawn(|| {
            child(TEST, &emulator)
                .envs(aws.container_environment())
                .run();
        });
        while aws.requests(AwsService::Container) < 2 && !started.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        aws.set_behaviour(AwsService::Container, AwsBehaviour::Normal);
    });
    assert_eq!(emulator.login_count(), 1);
}

/// FAULTS.md row 61.
#[test]
fn a_source_that_throttles_or_fails_is_unavailable() {
    const TEST: &str = "a_source_that_throttles_or_fails_is_unavailable";
    if is_child(TEST) {
        return fails_with(ErrorKind::CredentialsUnavailable, PATIENCE);
    }
    let emulator = emulator();
    let aws = emulator.aws();
    let address = address(&emulator);
    for (behaviour, expected) in [
        (AwsBehaviour::Throttled, format!("{address} answered 429")),
        (AwsBehaviour::Failing, format!("{address} answered 500")),
    ] {
        aws.set_behaviour(AwsService::Container, behaviour);
        child(TEST, &emulator)
            .envs(aws.container_environment())
            .argument("EXPECTED", expected)
            .run();
    }
    aws.set_behaviour(AwsService::Sts, AwsBehaviour::Throttled);
    with_role(child(TEST, &emulator), &emulator, &aws.sts_url())
        .argument("EXPECTED", format!("{address} throttles its callers"))
        .run();
    assert_eq!(emulator.login_count(), 0);
}

/// The limit ends during the attempts, and the reason is known. FAULTS.md row 61.
#[test]
fn a_limit_that_ends_between_two_attempts_names_the_status() {
    const TEST: &str = "a_limit_that_ends_between_two_attempts_names_the_status";
    if is_child(TEST) {
        return fails_with(ErrorKind::CredentialsUnavailable, Duration::from_secs(1));
    }
    let emulator = emulator();
    let aws = emulator.aws();
    aws.set_behaviour(AwsService::Container, AwsBehaviour::Throttled);
    child(TEST, &emulator)
        .envs(aws.container_environment())
        .argument("EXPECTED", format!("{} answered 429", address(&emulator)))
        .run();
}

/// FAULTS.md row 62.
#[test]
fn a_source_that_cannot_be_reached_is_unavailable() {
    const TEST: &str = "a_source_that_cannot_be_reached_is_unavailable";
    if is_child(TEST) {
        return fails_with(ErrorKind::CredentialsUnavailable, PATIENCE);
    }
    let emulator = emulator();
    let nowhere = nowhere();
    child(TEST, &emulator)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{nowhere}/credentials"),
        )
        .argument("EXPECTED", format!("the last request was to {nowhere}"))
        .run();
    // A name that no resolver looks up: it has an empty label.
    let child = child(TEST, &emulator);
    with_role(child, &emulator, "http://sts..example")
        .argument("EXPECTED", "the last request was to sts..example:80")
        .run();
    assert_eq!(emulator.login_count(), 0);
}

/// FAULTS.md row 63.
#[test]
fn a_missing_token_file_is_named_with_its_variable() {
    const TEST: &str = "a_missing_token_file_is_named_with_its_variable";
    if is_child(TEST) {
        return fails_with(ErrorKind::CredentialsNotFound, PATIENCE);
    }
    let emulator = emulator();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    let expected = |variable| format!("the file {file:?} of {variable} cannot be read");
    let variable = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    child(TEST, &emulator)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            emulator.aws().container_credentials_url(),
        )
        .env(variable, &file)
        .argument("EXPECTED", expected(variable))
        .run();
    let variable = "AWS_WEB_IDENTITY_TOKEN_FILE";
    child(TEST, &emulator)
        .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
        .env(variable, &file)
        .argument("EXPECTED", expected(variable))
        .run();
}

/// FAULTS.md row 63.
#[test]
fn without_a_profile_none_is_to_be_corrected() {
    const TEST: &str = "without_a_profile_none_is_to_be_corrected";
    if is_child(TEST) {
        return fails_with(ErrorKind::Configuration, PATIENCE);
    }
    let emulator = emulator();
    child(TEST, &emulator)
        // Without TLS, the SDK permits loopback and link-local addresses only.
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/")
        .argument("EXPECTED", "correct the AWS_* variables")
        .run();
}
