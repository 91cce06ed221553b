//! Servers that are trusted before a token is sent, and servers that are not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use diesel::PgConnection;
use diesel_rds_iam::{
    Backend, Error, ErrorKind, IamAuth, ManagerBuilder, PgConnectionManager, RdsConnectionManager,
    SslMode,
};
use rds_iam_emulator::Emulator;

use crate::support::child::{self, Child};
use crate::support::database::{auth_builder, emulator, shared_emulator};
use crate::support::eavesdropper::Eavesdropper;
use crate::support::{accept, keys};

/// A connection string for `emulator` without TLS parameters.
fn builder<C: Backend>(emulator: &Emulator) -> ManagerBuilder<C> {
    let url = emulator.url("app");
    let (url, _tls) = url.split_once("&sslmode").unwrap();
    let auth = auth_builder(emulator).build().unwrap();
    RdsConnectionManager::builder(url).auth(auth)
}

fn ca(emulator: &Emulator) -> &str {
    emulator.ca_path().to_str().unwrap()
}

fn log_in<C: Backend>(builder: ManagerBuilder<C>) -> Result<(), Error> {
    builder.build().unwrap().try_connect().map(drop)
}

/// The error of `builder` for an untrusted server, before a token is sent to `emulator`.
fn error_of<C: Backend>(builder: ManagerBuilder<C>, emulator: &Emulator) -> String {
    let logins = emulator.login_count();
    let error = log_in(builder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert_eq!(emulator.login_count(), logins, "a token was sent");
    error.to_string()
}

/// FAULTS.md row 9.
#[test]
fn a_certificate_from_an_unknown_ca_is_rejected() {
    fn assert_is<C: Backend>(emulator: &Emulator) {
        let stranger = shared_emulator();
        for builder in [
            builder::<C>(emulator).sslrootcert(ca(stranger)),
            builder(emulator)
                .sslrootcert(ca(stranger))
                .sslmode(SslMode::VerifyCa),
            // With root certificates, libpq's `require` means `verify-ca`.
            builder(emulator)
                .sslrootcert(ca(stranger))
                .sslmode(SslMode::Require),
            // The built-in roots are RDS's, and not the emulator's.
            builder(emulator),
            builder(emulator).sslmode(SslMode::VerifyCa),
        ] {
            // OpenSSL's message after that depends on the two CAs.
            let error = error_of(builder, emulator);
            assert!(error.contains("sslrootcert"), "{error}");
        }
        log_in(builder::<C>(emulator).sslmode(SslMode::Require)).unwrap();
    }
    let emulator = emulator();
    assert_is::<PgConnection>(&emulator);
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>(&emulator);
}

/// FAULTS.md row 9.
#[test]
fn a_certificate_for_another_host_is_rejected() {
    let emulator = Emulator::builder()
        .certificate_names(["other.example"])
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let builder = || builder::<PgConnection>(&emulator).sslrootcert(ca(&emulator));
    let error = error_of(builder(), &emulator);
    assert!(error.contains("other.example"), "{error}");
    log_in(builder().sslmode(SslMode::VerifyCa)).unwrap();
    #[cfg(feature = "postgres")]
    {
        let builder = || {
            self::builder::<diesel_rds_iam::postgres::Client>(&emulator).sslrootcert(ca(&emulator))
        };
        let error = error_of(builder(), &emulator);
        assert!(error.contains("check the host name"), "{error}");
        log_in(builder().sslmode(SslMode::VerifyCa)).unwrap();
    }
}

/// FAULTS.md row 9.
#[test]
fn an_expired_certificate_is_rejected() {
    let emulator = Emulator::builder()
        .expired_certificate(true)
        .start()
        .unwrap();
    let by_diesel = builder::<PgConnection>(&emulator).sslrootcert(ca(&emulator));
    let error = error_of(by_diesel, &emulator);
    // OpenSSL's message, and whether libpq passes it on, depend on the versions.
    assert!(error.contains("certificate"), "{error}");
    #[cfg(feature = "postgres")]
    {
        let by_postgres = builder::<diesel_rds_iam::postgres::Client>(&emulator);
        let error = error_of(by_postgres.sslrootcert(ca(&emulator)), &emulator);
        assert!(error.contains("certificate has expired"), "{error}");
    }
}

/// FAULTS.md row 9.
#[test]
fn an_unusable_root_certificate_file_is_rejected_before_dialling() {
    let emulator = shared_emulator();
    let folder = tempfile::tempdir().unwrap();
    let cut_short = emulator.ca_pem().replace("MI", "");
    for (name, contents) in [
        ("missing", None),
        ("empty", Some("")),
        ("no PEM", Some("certificate")),
        ("cut short", Some(cut_short.as_str())),
    ] {
        let path = folder.path().join(name);
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            let builder = builder::<PgConnection>(emulator).sslmode(mode);
            let error = builder.sslrootcert(path.to_str().unwrap()).build();
            let error = error.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{name}");
            assert!(error.to_string().contains("sslrootcert"), "{name}: {error}");
        }
    }
}

/// FAULTS.md row 55: parameters of other libraries, and a password instead of IAM.
#[test]
fn only_sslmode_weakens_the_verification_of_the_server() {
    fn assert_is<C: Backend>(emulator: &Emulator) {
        let url = emulator.url("app");
        let (url, _tls) = url.split_once("&sslmode").unwrap();
        for parameters in [
            "ssl=true",
            "requiressl=1",
            "requiressl=0",
            "sslmode=verify-full&ssl=true",
            "sslmode=verify-ca&requiressl=1",
        ] {
            let auth = auth_builder(emulator).build().unwrap();
            let iam = RdsConnectionManager::<C>::builder(&format!("{url}&{parameters}")).auth(auth);
            error_of(iam, emulator);
            let with_password = url.replacen("app@", "app:S3cr3t@", 1);
            let with_password = format!("{with_password}&{parameters}");
            error_of(RdsConnectionManager::<C>::builder(&with_password), emulator);
        }
        let with_password = url.replacen("app@", "app:S3cr3t@", 1);
        error_of(RdsConnectionManager::<C>::builder(&with_password), emulator);
    }
    // Its CA is not among RDS's.
    let emulator = emulator();
    assert_is::<PgConnection>(&emulator);
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>(&emulator);
}

/// FAULTS.md row 55.
#[test]
fn a_pool_that_does_not_verify_its_server_logs_one_warning() {
    const TEST: &str = "a_pool_that_does_not_verify_its_server_logs_one_warning";
    if child::is_running(module_path!(), TEST) {
        let heard = Eavesdropper::start();
        let emulator = emulator();
        let warnings = |manager: PgConnectionManager| {
            let before = heard.texts().len();
            drop(manager.into_pool().unwrap());
            let texts = heard.texts();
            let is_warning = |text: &&String| {
                text.starts_with("WARN") && text.contains("sslmode=require does not verify")
            };
            texts[before..].iter().filter(is_warning).count()
        };
        let require = || builder(&emulator).sslmode(SslMode::Require);
        assert_eq!(warnings(require().build().unwrap()), 1);
        let with_roots = require().sslrootcert(ca(&emulator));
        assert_eq!(warnings(with_roots.build().unwrap()), 0);
        let default = builder(&emulator).sslrootcert(ca(&emulator));
        assert_eq!(warnings(default.build().unwrap()), 0);
        return;
    }
    let home = tempfile::tempdir().unwrap();
    Child::new(module_path!(), TEST, home.path()).run();
}

/// A server without TLS that records what it receives.
struct PlainServer {
    port: u16,
    received: thread::JoinHandle<Vec<u8>>,
}

/// libpq's SSLRequest: its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl PlainServer {
    fn start() -> PlainServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = thread::spawn(move || {
            let mut client = accept(&listener);
            let mut request = [0; SSL_REQUEST.len()];
            client.read_exact(&mut request).unwrap();
            client.write_all(b"N").unwrap();
            let mut received = request.to_vec();
            // Until the client disconnects, also by a reset.
            let _ = client.read_to_end(&mut received);
            received
        });
        PlainServer { port, received }
    }

    fn url(&self) -> String {
        let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
        let port = self.port;
        format!("postgres://app@{host}:{port}/app?hostaddr=127.0.0.1")
    }

    fn builder<C: Backend>(&self) -> ManagerBuilder<C> {
        let auth = IamAuth::builder().credentials_provider(keys()).build();
        RdsConnectionManager::builder(&self.url()).auth(auth.unwrap())
    }

    /// Everything that arrived before the client disconnected.
    fn received(self) -> Vec<u8> {
        self.received.join().unwrap()
    }
}

/// FAULTS.md row 4.
#[test]
fn a_server_without_tls_is_sent_nothing() {
    fn assert_is<C: Backend>(mode: SslMode) {
        let server = PlainServer::start();
        let error = log_in(server.builder::<C>().sslmode(mode)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert_eq!(server.received(), SSL_REQUEST, "{mode:?}");
    }
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        assert_is::<PgConnection>(mode);
        #[cfg(feature = "postgres")]
        assert_is::<diesel_rds_iam::postgres::Client>(mode);
    }
}

/// FAULTS.md row 4.
#[test]
fn an_sslmode_that_could_send_the_token_unencrypted_is_rejected() {
    let emulator = shared_emulator();
    for (mode, name) in [
        (SslMode::Disable, "disable"),
        (SslMode::Allow, "allow"),
        (SslMode::Prefer, "prefer"),
    ] {
        let auth = auth_builder(emulator).build().unwrap();
        let url = emulator.url("app").replace("verify-full", name);
        for builder in [
            builder(emulator).sslmode(mode),
            PgConnectionManager::builder(&url).auth(auth),
        ] {
            let error = builder.build().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

/// FAULTS.md row 4.
#[test]
fn pgsslmode_cannot_make_a_token_be_sent_unencrypted() {
    const TEST: &str = "pgsslmode_cannot_make_a_token_be_sent_unencrypted";
    if child::is_running(module_path!(), TEST) {
        let server = PlainServer::start();
        let error = log_in(server.builder::<PgConnection>()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert_eq!(server.received(), SSL_REQUEST);
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for mode in ["disable", "allow", "prefer", "nonsense"] {
        Child::new(module_path!(), TEST, home.path())
            .env("PGSSLMODE", mode)
            .run();
    }
}
