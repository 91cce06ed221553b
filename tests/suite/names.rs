//! The names that are dialled, signed for, and compared with the certificate.

use std::time::Duration;

use diesel_rds_iam::{Backend, ErrorKind, IamAuth, PgConnectionManager, RdsConnectionManager};
use rds_iam_emulator::{Emulator, Engine};

use crate::support::child::{self, Child};
use crate::support::database::{auth_builder, refused};
use crate::support::keys;

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";

fn start(builder: rds_iam_emulator::Builder) -> Emulator {
    let emulator = builder.start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

/// With every kind of connection, all of which must have the same result.
fn log_in(emulator: &Emulator, url: &str) -> Result<(), diesel_rds_iam::Error> {
    let outcome = log_in_by::<diesel::PgConnection>(emulator, url);
    #[cfg(feature = "postgres")]
    {
        let other = log_in_by::<diesel_rds_iam::postgres::Client>(emulator, url);
        let kind = |outcome: &Result<(), diesel_rds_iam::Error>| {
            outcome.as_ref().err().map(diesel_rds_iam::Error::kind)
        };
        assert_eq!(kind(&other), kind(&outcome), "{other:?} and {outcome:?}");
    }
    outcome
}

fn log_in_by<C: Backend>(emulator: &Emulator, url: &str) -> Result<(), diesel_rds_iam::Error> {
    let ca = emulator.ca_path().display();
    let url = format!("{url}&sslrootcert={ca}");
    let auth = auth_builder(emulator).build().unwrap();
    let manager = RdsConnectionManager::<C>::builder(&url)
        .auth(auth)
        .build()?;
    manager.try_connect().map(drop)
}

#[test]
fn an_alias_is_dialled_and_verified_and_the_real_name_signed_for() {
    let emulator = start(Emulator::builder().endpoint(HOST, 5432));
    let port = emulator.port();
    let iam = format!("iam_host={HOST}&iam_port=5432");
    // The certificate contains both names.
    for alias in ["localhost", "127.0.0.1"] {
        log_in(
            &emulator,
            &format!("postgres://app@{alias}:{port}/postgres?{iam}"),
        )
        .unwrap();
    }
    let url = format!("postgres://app@localhost:{port}/postgres?iam_region=eu-west-1");
    let error = log_in(&emulator, &url).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::LoginRefused,
        "signed for the alias"
    );
}

/// FAULTS.md row 52.
#[test]
fn verify_full_compares_the_signing_host_and_not_the_alias() {
    let emulator = start(
        Emulator::builder()
            .endpoint(HOST, 5432)
            .certificate_names([HOST]),
    );
    let port = emulator.port();
    let iam = format!("iam_host={HOST}&iam_port=5432");
    // The certificate has no other name than the database's own.
    for alias in ["localhost", "127.0.0.1"] {
        let alias = format!("postgres://app@{alias}:{port}/postgres?{iam}");
        log_in(&emulator, &alias).unwrap();
    }
    let real = format!("postgres://app@{HOST}:{port}/postgres?hostaddr=127.0.0.1&iam_port=5432");
    log_in(&emulator, &real).unwrap();
    // Without iam_host the alias has to be in the certificate.
    let alias = format!("postgres://app@localhost:{port}/postgres?iam_region=eu-west-1");
    let error = log_in(&emulator, &alias).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}

#[test]
fn through_a_tunnel_the_real_port_is_signed() {
    let emulator = start(Emulator::builder().endpoint(HOST, 5432));
    let port = emulator.port();
    assert_ne!(port, 5432);
    let url = format!("postgres://app@{HOST}:{port}/postgres?hostaddr=127.0.0.1");
    log_in(&emulator, &format!("{url}&iam_port=5432")).unwrap();
    assert_eq!(refused(&emulator).len(), 0);
    let error = log_in(&emulator, &url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
}

#[test]
fn case_and_a_trailing_dot_do_not_change_a_host_name() {
    let emulator = start(Emulator::builder());
    let (host, port) = (emulator.host().to_uppercase(), emulator.port());
    let url = format!("postgres://app@{host}.:{port}/postgres?hostaddr=127.0.0.1");
    log_in(&emulator, &url).unwrap();
}

#[test]
fn a_token_for_a_proxy_is_signed_for_the_proxys_name() {
    let emulator = start(Emulator::builder().engine(Engine::Proxy));
    let (host, port) = (emulator.host(), emulator.port());
    assert!(host.contains(".proxy-"), "{host}");
    let url = format!("postgres://app@{host}:{port}/postgres?hostaddr=127.0.0.1");
    log_in(&emulator, &url).unwrap();
}

#[test]
fn dsql_takes_its_own_kind_of_token() {
    let emulator = start(Emulator::builder().engine(Engine::Dsql));
    emulator.create_iam_user("admin").unwrap();
    let (host, port) = (emulator.host(), emulator.port());
    for user in ["app", "admin"] {
        let url = format!("postgres://{user}@{host}:{port}/postgres?hostaddr=127.0.0.1");
        log_in(&emulator, &url).unwrap();
    }
    assert_eq!(refused(&emulator).len(), 0);
}

/// FAULTS.md row 52: Aurora DSQL requires a server name in the TLS handshake, and an address is none.
#[test]
fn the_server_name_of_the_handshake_is_the_signing_host() {
    let emulator = start(Emulator::builder().engine(Engine::Dsql));
    let (host, port) = (emulator.host(), emulator.port());
    let url = format!("postgres://app@127.0.0.1:{port}/postgres?iam_host={host}");
    log_in(&emulator, &url).unwrap();
}

#[test]
fn a_dsql_pool_retires_connections_before_dsql_closes_them() {
    let url = "host=abcdefghijklmnopqrstuvwxyz.dsql.us-east-1.on.aws user=admin";
    let auth = IamAuth::builder().credentials_fn(|| Err("not in this test".into()));
    let manager = PgConnectionManager::builder(url).auth(auth.build().unwrap());
    let manager = manager.build().unwrap();
    let hour = Duration::from_secs(60 * 60);
    for wanted in [None, Some(2 * hour)] {
        let builder = manager.pool_builder().max_lifetime(wanted);
        let pool = builder.build_unchecked().unwrap();
        assert!(pool.max_lifetime().unwrap() < hour);
    }
}

/// The region and the service that a token for `url` is signed for.
fn scope(url: &str) -> Result<String, diesel_rds_iam::Error> {
    // The test reads only the endpoint, which the manager has computed itself.
    let manager = PgConnectionManager::builder(url).build()?;
    let endpoint = manager.endpoint().unwrap().clone();
    let auth = IamAuth::builder().credentials_provider(keys()).build()?;
    let token = auth.source(&endpoint).token()?;
    let scope = token.expose_secret().split("%2F").skip(2).take(2);
    Ok(scope.collect::<Vec<_>>().join(" "))
}

/// FAULTS.md row 25.
#[test]
fn a_region_is_configured_or_read_from_the_host_and_never_guessed() {
    const TEST: &str = "a_region_is_configured_or_read_from_the_host_and_never_guessed";
    if child::is_running(module_path!(), TEST) {
        let expected = child::argument("EXPECTED");
        match scope(&child::argument("URL")) {
            Ok(scope) => assert_eq!(scope, expected),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
                assert!(error.to_string().contains(&expected), "{error}");
            }
        }
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let child = |url: &str, expected: &str| {
        Child::new(module_path!(), TEST, home.path())
            .argument("URL", url)
            .argument("EXPECTED", expected)
    };
    let alias = "host=db.example.com user=app";
    for (url, expected) in [
        (alias.to_owned(), "iam_region"),
        ("host=10.0.0.1 user=app".to_owned(), "iam_region"),
        ("host=localhost port=6543 user=app".to_owned(), "iam_region"),
        (format!("{alias} iam_region=sa-east-1"), "sa-east-1 rds-db"),
        (format!("{alias} iam_host={HOST}"), "eu-west-1 rds-db"),
        (format!("host={HOST} user=app"), "eu-west-1 rds-db"),
        (format!("host={HOST}.evil.example user=app"), "iam_region"),
        (
            format!("host={HOST} user=app iam_region=eu-west-2"),
            "iam_region is eu-west-2",
        ),
        (
            "host=p.proxy-c9akciq32rqv.us-east-2.rds.amazonaws.com user=app".to_owned(),
            "us-east-2 rds-db",
        ),
        (
            "host=abcdefghijklmnopqrstuvwxyz.dsql.us-east-1.on.aws user=admin".to_owned(),
            "us-east-1 dsql",
        ),
        // China's root certificates are not included, so the manager returns this error before it signs.
        (
            "host=mydb.c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn user=app".to_owned(),
            "sslrootcert",
        ),
        (
            "host=mydb.c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn user=app sslmode=require"
                .to_owned(),
            "cn-north-1 rds-db",
        ),
    ] {
        child(&url, expected).run();
    }
    // The AWS configuration is read only if the name contains no region.
    child(alias, "ap-south-1 rds-db")
        .env("AWS_REGION", "ap-south-1")
        .run();
    child(&format!("host={HOST} user=app"), "eu-west-1 rds-db")
        .env("AWS_REGION", "ap-south-1")
        .run();
    let config = home.path().join("config");
    std::fs::write(&config, "[default]\nregion = eu-north-1\n").unwrap();
    child(alias, "eu-north-1 rds-db")
        .env("AWS_CONFIG_FILE", &config)
        .run();
    // A variable that is empty counts as unset.
    child(alias, "eu-north-1 rds-db")
        .env("AWS_REGION", "")
        .env("AWS_CONFIG_FILE", &config)
        .run();
    child(alias, "sa-east-1 rds-db")
        .env("AWS_REGION", "")
        .env("AWS_DEFAULT_REGION", "sa-east-1")
        .env("AWS_CONFIG_FILE", &config)
        .run();
    child(alias, "iam_region").env("AWS_REGION", "").run();
}
