//! The accessors of a manager and an identity, for applications that pass a connection on or diagnose one.

use std::path::Path;
use std::time::SystemTime;

use diesel_rds_iam::{Endpoint, ErrorKind, IamAuth, PgConnectionManager, RegionSource, Roots};

use crate::support::child::{self, Child};
use crate::support::database::emulator;
use crate::support::{FakeSource, endpoint, keys};

#[test]
fn a_region_names_its_source() {
    const NAME: &str = "a_region_names_its_source";
    if !child::is_running(module_path!(), NAME) {
        Child::new(module_path!(), NAME, Path::new("/dev/null/none"))
            .env("AWS_REGION", "eu-central-1")
            .run();
        return;
    }
    let auth = IamAuth::builder()
        .credentials_provider(keys())
        .build()
        .unwrap();
    let alias = Endpoint::new("db.example.com", 5432, "app").unwrap();
    let set = alias.clone().with_region("us-east-1").unwrap();
    for (endpoint, region, source) in [
        (endpoint(), "eu-west-1", RegionSource::HostName),
        (set, "us-east-1", RegionSource::Set),
        (alias, "eu-central-1", RegionSource::AwsConfiguration),
    ] {
        let found = auth.region(&endpoint).unwrap();
        assert_eq!(found, (region.to_owned(), source), "{endpoint:?}");
    }
    let manager =
        PgConnectionManager::builder("postgres://app@db.example.com/shop?sslmode=require")
            .auth(auth)
            .build()
            .unwrap();
    assert_eq!(manager.endpoint().unwrap().region(), None);
    let (endpoint, token) = manager.token().unwrap();
    assert_eq!(endpoint.region(), Some("eu-central-1"));
    assert!(token.expose_secret().contains("%2Feu-central-1%2F"));
}

#[test]
fn credentials_are_reported_without_secrets_and_fetched_once() {
    let source = FakeSource::default();
    let auth = IamAuth::builder()
        .credentials_fn(source.fetch())
        .build()
        .unwrap();
    let told = auth.credentials(&endpoint()).unwrap();
    assert_eq!(told.access_key_id, "AKIDEXAMPLE");
    assert_eq!(
        (told.source.as_str(), told.expires_at),
        ("a provider", None)
    );
    assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    auth.source(&endpoint()).token().unwrap();
    assert_eq!(source.calls(), 1);
    assert_eq!(auth.aws_clock_ahead(), None);
}

#[test]
fn the_clock_of_aws_is_read_from_its_responses() {
    const NAME: &str = "the_clock_of_aws_is_read_from_its_responses";
    if !child::is_running(module_path!(), NAME) {
        let emulator = emulator();
        emulator.set_server_clock_skew(120);
        Child::new(module_path!(), NAME, Path::new("/dev/null/none"))
            .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
            .env("AWS_ACCESS_KEY_ID", emulator.access_key())
            .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
            .argument("URL", emulator.url("app"))
            .run();
        return;
    }
    let role = "iam_role_arn=arn:aws:iam::123456789012:role/database";
    let url = format!("{}&{role}", child::argument("URL"));
    let manager = PgConnectionManager::new(&url).unwrap();
    let auth = manager.auth().unwrap();
    let told = auth.credentials(manager.endpoint().unwrap()).unwrap();
    assert_eq!(told.source, "an assumed role");
    assert_eq!(told.account_id.as_deref(), Some("123456789012"));
    assert!(told.expires_at.unwrap() > SystemTime::now());
    let ahead = auth.aws_clock_ahead().unwrap();
    // Whole seconds, less the time that the response took.
    assert!((60..=120).contains(&ahead), "{ahead}");
}

#[test]
fn a_connection_can_be_handed_to_another_program() {
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let url = format!("postgres://app@{host}./a%20b?application_name=x&iam_profile=p");
    let manager = PgConnectionManager::new(&url).unwrap();
    let mut parameters: Vec<_> = manager.parameters().collect();
    parameters.sort_unstable();
    let expected = [
        ("application_name", "x"),
        ("dbname", "a b"),
        ("host", host),
        ("port", "5432"),
        ("sslmode", "verify-full"),
        ("user", "app"),
    ];
    assert_eq!(parameters, expected);
    let Some(Roots::Carried(pem)) = manager.roots() else {
        panic!("{:?}", manager.roots());
    };
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 3);

    let unverified = PgConnectionManager::new(&format!("{url}&sslmode=require")).unwrap();
    assert_eq!(unverified.roots(), None);
    let local = PgConnectionManager::new("postgres://app:hunter2@h/db").unwrap();
    assert!(local.parameters().all(|(_, value)| value != "hunter2"));
    assert!(local.auth().is_none());
}

/// DSQL has one database, and libpq would select the one with the name of the user.
#[test]
fn the_database_of_dsql_is_postgres() {
    const DSQL: &str = "host=abcdefghijklmnopqrstuvwxyz.dsql.us-east-1.on.aws user=app";
    const RDS: &str = "host=mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com user=app";
    for (url, database) in [
        (DSQL.to_owned(), Some("postgres")),
        (format!("{DSQL} dbname=other"), Some("other")),
        (RDS.to_owned(), None),
    ] {
        let manager = PgConnectionManager::new(&url).unwrap();
        let mut parameters = manager.parameters();
        let found = parameters.find(|(keyword, _)| *keyword == "dbname");
        assert_eq!(found.map(|(_, name)| name), database, "{url}");
    }
}

/// FAULTS.md row 71. AWS_REGION is the application's region, and the writer may be in another one.
#[test]
fn a_global_database_needs_a_region_of_its_own() {
    const NAME: &str = "a_global_database_needs_a_region_of_its_own";
    const HOST: &str = "mydb.global-c9akciq32rqv.global.rds.amazonaws.com";
    if !child::is_running(module_path!(), NAME) {
        Child::new(module_path!(), NAME, Path::new("/dev/null/none"))
            .env("AWS_REGION", "eu-central-1")
            .run();
        return;
    }
    let auth = IamAuth::builder().credentials_provider(keys());
    let auth = auth.build().unwrap();
    let url = format!("postgres://app@{HOST}/shop");
    let builder = || PgConnectionManager::builder(&url).auth(auth.clone());
    let endpoint = Endpoint::new(HOST, 5432, "app").unwrap();
    for error in [
        builder().build().err().unwrap(),
        auth.region(&endpoint).unwrap_err(),
        auth.source(&endpoint).token().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("iam_region"), "{error}");
    }
    let manager = builder().region("us-east-1").build().unwrap();
    let (endpoint, _) = manager.token().unwrap();
    assert_eq!(endpoint.region(), Some("us-east-1"));
}
