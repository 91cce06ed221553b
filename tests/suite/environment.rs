//! libpq's environment variables and files, each test in a process of its own.

use diesel_rds_iam::{Error, ErrorKind, Password, PgConnectionManager, SslMode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::support::child::{self, Child};
use crate::support::database::{emulator, shared_emulator};

/// The environment with which a child logs in.
fn child(test: &str, home: &TempDir) -> Child {
    let emulator = shared_emulator();
    Child::new(module_path!(), test, home.path())
        .argument("URL", emulator.url("app"))
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
}

fn is_child(test: &str) -> bool {
    child::is_running(module_path!(), test)
}

/// In a child: logs in with IAM.
fn log_in() -> Result<(), Error> {
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    manager.try_connect().map(drop)
}

fn nothing_at_home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// FAULTS.md row 28.
#[test]
fn no_libpq_environment_variable_overrides_a_setting() {
    const TEST: &str = "no_libpq_environment_variable_overrides_a_setting";
    if is_child(TEST) {
        log_in().unwrap();
        let bob = PgConnectionManager::builder(&child::argument("BOB"))
            .password(Password::fixed("bob's"))
            .build()
            .unwrap();
        bob.try_connect().unwrap();
        return;
    }
    let home = nothing_at_home();
    // An existing file that is neither a certificate nor a key.
    let garbage = home.path().join("garbage");
    std::fs::write(&garbage, "garbage").unwrap();
    let garbage = garbage.to_str().unwrap();
    let variables = [
        ("PGHOST", "nonsense.invalid"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGUSER", "nonsense"),
        ("PGDATABASE", "nonsense"),
        ("PGPASSWORD", "nonsense"),
        ("PGPASSFILE", garbage),
        ("PGSSLMODE", "disable"),
        ("PGREQUIRESSL", "0"),
        ("PGSSLROOTCERT", garbage),
        ("PGSSLCERT", garbage),
        ("PGSSLKEY", garbage),
        ("PGSSLCRL", garbage),
        ("PGSSLCRLDIR", garbage),
        ("PGSSLMAXPROTOCOLVERSION", "TLSv1"),
        ("PGSSLMINPROTOCOLVERSION", "nonsense"),
        ("PGCHANNELBINDING", "nonsense"),
        ("PGGSSENCMODE", "require"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGOPTIONS", "-c nonsense=1"),
        ("PGREQUIREAUTH", "none"),
        ("PGSSLCERTMODE", "require"),
        ("PGSSLNEGOTIATION", "nonsense"),
        ("PGLOADBALANCEHOSTS", "nonsense"),
        ("PGMAXPROTOCOLVERSION", "nonsense"),
        ("PGMINPROTOCOLVERSION", "nonsense"),
        ("PGCONNECT_TIMEOUT", "nonsense"),
        ("PGCLIENTENCODING", "nonsense"),
    ];
    let emulator = emulator();
    emulator.create_password_user("bob", "bob's").unwrap();
    let child = || child(TEST, &home).argument("BOB", emulator.url("bob"));
    for (name, value) in variables {
        child().env(name, value).run();
    }
    variables
        .into_iter()
        .fold(child(), |child, (name, value)| child.env(name, value))
        .run();
}

/// FAULTS.md row 28.
#[test]
fn a_variable_that_cannot_be_overridden_is_named() {
    const TEST: &str = "a_variable_that_cannot_be_overridden_is_named";
    if is_child(TEST) {
        let error = log_in().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let variable = child::argument("VARIABLE");
        assert!(error.to_string().contains(&variable), "{error}");
        return;
    }
    let home = nothing_at_home();
    for variable in ["PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO"] {
        child(TEST, &home)
            .env(variable, "nonsense")
            .argument("VARIABLE", variable)
            .run();
    }
}

/// FAULTS.md row 28.
#[test]
fn an_unreadable_home_directory_is_not_read() {
    const TEST: &str = "an_unreadable_home_directory_is_not_read";
    if is_child(TEST) {
        log_in().unwrap();
        return;
    }
    // A symbolic link to itself. Root would pass the permissions of a folder.
    let home = nothing_at_home();
    let circle = home.path().join("circle");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    child(TEST, &home).env("HOME", &circle).run();
}

/// FAULTS.md row 28: a list of revoked certificates and a client's certificate in the places where libpq looks.
#[test]
fn files_in_the_home_directory_are_not_read() {
    const TEST: &str = "files_in_the_home_directory_are_not_read";
    if is_child(TEST) {
        log_in().unwrap();
        return;
    }
    let list = revocation_list();
    for (name, contents) in [
        ("root.crl", list.as_str()),
        ("postgresql.crt", "garbage"),
        ("root.crt", "garbage"),
    ] {
        let home = nothing_at_home();
        let folder = home.path().join(".postgresql");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(name), contents).unwrap();
        child(TEST, &home).run();
    }
    let home = nothing_at_home();
    let file = home.path().join("list");
    std::fs::write(&file, list).unwrap();
    child(TEST, &home).env("PGSSLCRL", &file).run();
}

/// A list of another CA's. With any list, OpenSSL requires one of the server's CA.
fn revocation_list() -> String {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::CrlSign];
    let ca = Issuer::new(ca, KeyPair::generate().unwrap());
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&ca).unwrap().pem().unwrap()
}

/// FAULTS.md row 9: `require` verifies nothing, and no root certificate of the environment changes that.
#[test]
fn require_reads_no_root_certificates() {
    const TEST: &str = "require_reads_no_root_certificates";
    if is_child(TEST) {
        let url = child::argument("URL");
        let (url, _sslrootcert) = url.split_once("&sslmode").unwrap();
        let manager = PgConnectionManager::builder(url)
            .sslmode(SslMode::Require)
            .build()
            .unwrap();
        manager.try_connect().unwrap();
        return;
    }
    let stranger = emulator();
    let home = nothing_at_home();
    let folder = home.path().join(".postgresql");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(stranger.ca_path(), folder.join("root.crt")).unwrap();
    child(TEST, &home).run();
    child(TEST, &nothing_at_home())
        .env("PGSSLROOTCERT", stranger.ca_path())
        .run();
}
