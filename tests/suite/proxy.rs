//! AWS's endpoints behind an HTTP proxy, and with TLS.
//!
//! The proxy is set by environment variables, so each test runs in a process of its own.

use std::net::SocketAddr;
use std::path::Path;

use diesel_rds_iam::PgConnectionManager;
use rds_iam_emulator::Emulator;

use crate::support::child::{self, Child};
use crate::support::database::{emulator, refused};
use crate::support::proxy::{RecordingProxy, with_tls};

/// A name that does not resolve, so that only a proxy can reach it.
const STS: &str = "sts.internal.example";

fn log_in() {
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    manager.try_connect().unwrap();
}

fn child(test: &str, url: &str, proxy: &RecordingProxy) -> Child {
    Child::new(module_path!(), test, Path::new("/dev/null/none"))
        .argument("URL", url)
        .env("ALL_PROXY", &proxy.url)
        .env("HTTP_PROXY", &proxy.url)
        .env("HTTPS_PROXY", &proxy.url)
}

fn aws_address(emulator: &Emulator) -> SocketAddr {
    let url = emulator.aws().sts_url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    address.parse().unwrap()
}

/// FAULTS.md row 60.
#[test]
fn credentials_of_a_container_are_not_requested_through_a_proxy() {
    const TEST: &str = "credentials_of_a_container_are_not_requested_through_a_proxy";
    if child::is_running(module_path!(), TEST) {
        return log_in();
    }
    let emulator = emulator();
    let nowhere = aws_address(&emulator);
    let proxy = RecordingProxy::start(nowhere, nowhere);
    child(TEST, &emulator.url("app"), &proxy)
        .envs(emulator.aws().container_environment())
        .run();
    assert_eq!(proxy.requests(), Vec::<String>::new());
    assert_eq!(refused(&emulator).len(), 0);
}

/// FAULTS.md row 60.
#[test]
fn sts_is_reached_through_a_proxy_with_and_without_tls() {
    const TEST: &str = "sts_is_reached_through_a_proxy_with_and_without_tls";
    if child::is_running(module_path!(), TEST) {
        return log_in();
    }
    let emulator = emulator();
    let sts = aws_address(&emulator);
    let (tls, certificate) = with_tls(STS, sts);
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certificate).unwrap();
    let role = "arn:aws:iam::123456789012:role/database";
    let url = format!("{}&iam_role_arn={role}", emulator.url("app"));
    for (scheme, expected) in [
        ("http", format!("POST http://{STS}/ HTTP/1.1")),
        ("https", format!("CONNECT {STS}:443 HTTP/1.1")),
    ] {
        let proxy = RecordingProxy::start(sts, tls);
        child(TEST, &url, &proxy)
            .env("AWS_ENDPOINT_URL_STS", format!("{scheme}://{STS}"))
            .env("AWS_ACCESS_KEY_ID", emulator.access_key())
            .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
            .env("SSL_CERT_FILE", roots.path())
            .run();
        assert_eq!(proxy.requests(), [expected]);
    }
    assert_eq!(refused(&emulator).len(), 0);
}

/// The server's certificate is verified.
#[test]
fn sts_with_an_unknown_certificate_is_rejected() {
    const TEST: &str = "sts_with_an_unknown_certificate_is_rejected";
    if child::is_running(module_path!(), TEST) {
        let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
        let error = manager.try_connect().err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
        return;
    }
    let emulator = emulator();
    let (tls, _) = with_tls("localhost", aws_address(&emulator));
    let role = "arn:aws:iam::123456789012:role/database";
    let url = format!("{}&iam_role_arn={role}", emulator.url("app"));
    Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
        .argument("URL", url)
        .env(
            "AWS_ENDPOINT_URL_STS",
            format!("https://localhost:{}", tls.port()),
        )
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        .run();
    assert_eq!(emulator.login_count(), 0);
}
