//! AWS's endpoints behind an HTTP proxy, and with TLS.
//!
//! The proxy is set by environment variables, so each test runs in a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use diesel_rds_iam::{Endpoint, IamAuth, PgConnectionManager};
use rds_iam_emulator::Emulator;

use crate::support::child::{self, Child};
use crate::support::database::{emulator, refused};
use crate::support::proxy::{RecordingProxy, respond, with_tls};

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

/// FAULTS.md row 60: the addresses of EKS Pod Identity, in a network of the test's own.
#[test]
fn link_local_addresses_are_not_requested_through_a_proxy() {
    const TEST: &str = "link_local_addresses_are_not_requested_through_a_proxy";
    const PROXY: &str = "127.0.0.1:3128";
    if child::is_running(module_path!(), TEST) {
        let nowhere = "127.0.0.1:1".parse().unwrap();
        let proxy = RecordingProxy::start_at(PROXY, nowhere, nowhere);
        let agent = TcpListener::bind(child::argument("AGENT")).unwrap();
        let credentials = serde_json::json!({
            "AccessKeyId": "AKIDEXAMPLE",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": "2100-01-01T00:00:00Z",
        });
        respond(agent, credentials.to_string());
        let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
        let endpoint = Endpoint::new(host, 5432, "app").unwrap();
        IamAuth::new().source(&endpoint).token().unwrap();
        assert_eq!(proxy.requests(), Vec::<String>::new());
        return;
    }
    for host in ["169.254.170.23", "[fd00:ec2::23]"] {
        let child = Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
            .argument("AGENT", format!("{host}:80"))
            .env("ALL_PROXY", format!("http://{PROXY}"))
            .env("HTTP_PROXY", format!("http://{PROXY}"))
            .env(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{host}/v1/credentials"),
            );
        match child.in_network_namespace(&["169.254.170.23/32", "fd00:ec2::23/128"]) {
            Ok(child) => child.run(),
            Err(reason) => println!("skipped for {host}: no network namespace: {reason}"),
        }
    }
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

/// In a child: there is no token, for the reason that the parent hands over.
fn fail_to_log_in() {
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    let error = manager.try_connect().err().unwrap();
    let shown = format!("{error:?}");
    let expected = child::argument("EXPECTED");
    assert!(
        shown.starts_with(&expected),
        "{expected:?} does not begin {shown}"
    );
}

fn with_keys(child: Child) -> Child {
    child
        .env("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY00000000")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        // The SDK's own attempts take seconds.
        .env("AWS_MAX_ATTEMPTS", "1")
}

const ROLE: &str = "arn:aws:iam::123456789012:role/database";

/// A connection string whose role has to be assumed first. Nothing is dialled.
fn url_with_role() -> String {
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    format!("postgres://app@{host}/app?iam_role_arn={ROLE}")
}

#[test]
fn a_socks_proxy_is_rejected_by_name() {
    const TEST: &str = "a_socks_proxy_is_rejected_by_name";
    if child::is_running(module_path!(), TEST) {
        return fail_to_log_in();
    }
    for scheme in ["socks5", "socks5h", "socks4"] {
        let child = Child::new(module_path!(), TEST, Path::new("/dev/null/none"));
        with_keys(child)
            .argument("URL", url_with_role())
            .argument(
                "EXPECTED",
                "Configuration(\"the proxy of the environment is a SOCKS proxy",
            )
            .env("ALL_PROXY", format!("{scheme}://127.0.0.1:1"))
            .run();
    }
}

#[test]
fn a_host_of_no_proxy_is_requested_directly() {
    const TEST: &str = "a_host_of_no_proxy_is_requested_directly";
    if child::is_running(module_path!(), TEST) {
        return fail_to_log_in();
    }
    let nowhere = "127.0.0.1:1".parse().unwrap();
    for (no_proxy, is_direct) in [
        (STS, true),
        (".internal.example", true),
        ("other.example, *", true),
        ("other.example", false),
    ] {
        let proxy = RecordingProxy::start(nowhere, nowhere);
        // Directly, the name cannot be resolved; and the proxy opens a tunnel that ends at once.
        with_keys(child(TEST, &url_with_role(), &proxy))
            .argument("EXPECTED", "CredentialsUnavailable(")
            .env("AWS_ENDPOINT_URL_STS", format!("https://{STS}"))
            .env("NO_PROXY", no_proxy)
            .run();
        assert_eq!(proxy.requests().is_empty(), is_direct, "{no_proxy}");
    }
}

/// The endpoints that the SDK chooses by itself, for a role of the connection string, a role of a profile and a web
/// identity.
#[test]
fn sts_endpoints_are_regional_and_follow_the_environment() {
    const TEST: &str = "sts_endpoints_are_regional_and_follow_the_environment";
    if child::is_running(module_path!(), TEST) {
        return fail_to_log_in();
    }
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let home = tempfile::tempdir().unwrap();
    let (config, token) = (home.path().join("config"), home.path().join("token"));
    let profile = format!(
        "[profile database]\nrole_arn = {ROLE}\nsource_profile = keys\n\
         [profile keys]\naws_access_key_id = AKIAOFNOBODY00000000\naws_secret_access_key = secret\n"
    );
    std::fs::write(&config, profile).unwrap();
    std::fs::write(&token, "header.claims.signature").unwrap();
    let bare = url_with_role();
    let bare = bare.split('?').next().unwrap();
    let (fips, dual) = ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT");
    let mut wrong = Vec::new();
    for (variables, expected) in [
        (vec![], "sts.eu-west-1.amazonaws.com:443"),
        // Of older SDKs; this one has no global endpoint.
        (
            vec![
                ("AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
                ("AWS_REGION", "us-east-1"),
            ],
            "sts.us-east-1.amazonaws.com:443",
        ),
        (
            vec![(fips, "true"), ("AWS_REGION", "us-west-2")],
            "sts-fips.us-west-2.amazonaws.com:443",
        ),
        (vec![(dual, "true")], "sts.eu-west-1.api.aws:443"),
        (
            vec![(fips, "true"), (dual, "true"), ("AWS_REGION", "us-west-2")],
            "sts-fips.us-west-2.api.aws:443",
        ),
        (
            vec![("AWS_ENDPOINT_URL_STS", "https://sts.internal.example")],
            "sts.internal.example:443",
        ),
        (
            vec![("AWS_ENDPOINT_URL", "https://aws.internal.example")],
            "aws.internal.example:443",
        ),
    ] {
        for source in ["role", "profile", "AWS_PROFILE", "web identity"] {
            let proxy = RecordingProxy::start(nowhere, nowhere);
            let named = format!("{bare}?iam_profile=database");
            let url = match source {
                "role" => url_with_role(),
                "profile" => named,
                _ => bare.to_owned(),
            };
            let mut child = child(TEST, &url, &proxy)
                .argument("EXPECTED", "Credentials")
                .env("AWS_REGION", "eu-west-1")
                .env("AWS_CONFIG_FILE", &config)
                .env("AWS_MAX_ATTEMPTS", "1");
            child = match source {
                "role" => with_keys(child),
                "AWS_PROFILE" => child.env("AWS_PROFILE", "database"),
                "web identity" => child
                    .env("AWS_ROLE_ARN", ROLE)
                    .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
                _ => child,
            };
            for (name, value) in &variables {
                child = child.env(name, value);
            }
            child.run();
            let requests = proxy.requests();
            if requests.first() != Some(&format!("CONNECT {expected} HTTP/1.1")) {
                wrong.push(format!("{source} {variables:?}: {requests:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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
