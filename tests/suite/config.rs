//! Named connections from an application's settings.

use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_rds_iam::config::{ConnectionSettings, Connections, Limit};
use diesel_rds_iam::{ErrorKind, PgConnectionManager};

use crate::support::child::{self, Child};
use crate::support::database::emulator;

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";

fn read(settings: &str) -> Connections {
    toml::from_str(settings).unwrap()
}

fn managers(settings: &str) -> Result<usize, diesel_rds_iam::Error> {
    let managers = read(settings).managers::<PgConnection>()?;
    Ok(managers.len())
}

#[test]
fn every_key_is_read() {
    let settings = format!(
        r#"
        [connections.default]
        url = "postgres://app@{HOST}/app"
        sslmode = "verify-ca"
        connect_timeout = "5s"

        [connections.default.iam]
        region = "eu-west-2"
        profile = "production"
        role_arn = "arn:aws:iam::123456789012:role/database"
        external_id = "x"
        session_name = "web"
        host = "real.example.com"
        port = 6543
        token_lifetime = "10m"
        refresh_ahead = false
        refresh_timeout = "2s 500ms"

        [connections.default.pool]
        max_size = 20
        min_idle = 3
        test_on_check_out = false
        max_lifetime = "14m"
        idle_timeout = "never"
        connection_timeout = "8s"
        "#
    );
    let settings = read(&settings);
    let default = &settings.connections["default"];
    assert_eq!(default.pool.idle_timeout, Some(Limit::Never));

    let managers = settings.managers::<PgConnection>().unwrap();
    let manager = &managers["default"];
    let endpoint = manager.endpoint().unwrap();
    assert_eq!(endpoint.host(), "real.example.com");
    assert_eq!(
        (endpoint.port(), endpoint.region()),
        (6543, Some("eu-west-2"))
    );
    let builder = format!("{:?}", default.builder::<PgConnection>());
    assert!(builder.contains("connect_timeout: 5s"), "{builder}");

    let pool = default.pool.apply(manager.pool_builder());
    let pool = pool.build_unchecked().unwrap();
    assert_eq!((pool.max_size(), pool.min_idle()), (20, Some(3)));
    assert!(!pool.test_on_check_out());
    assert_eq!(pool.idle_timeout(), None);
    assert_eq!(pool.max_lifetime().unwrap().as_secs(), 14 * 60);
    assert_eq!(pool.connection_timeout().as_secs(), 8);
}

#[test]
fn omitted_settings_have_the_defaults() {
    let url = format!("host={HOST} user=app");
    let read = read(&format!("[connections.main]\nurl = \"{url}\""));
    let shown = |settings: &ConnectionSettings| {
        let manager = settings.manager::<PgConnection>().unwrap();
        let builder = settings.pool.apply(manager.pool_builder());
        format!("{:?} {builder:?}", settings.builder::<PgConnection>())
    };
    let made = ConnectionSettings::new(&url);
    assert_eq!(shown(&read.connections["main"]), shown(&made));
    let manager = PgConnectionManager::new(&url).unwrap();
    let plain = format!(
        "{:?} {:?}",
        PgConnectionManager::builder(&url),
        manager.pool_builder()
    );
    assert_eq!(shown(&made), plain);
}

#[test]
fn every_identity_setting_is_applied() {
    // Each of these values is out of range for the builder of identities.
    for setting in ["token_lifetime = \"16m\"", "refresh_timeout = \"0s\""] {
        let (name, _) = setting.split_once(' ').unwrap();
        let settings =
            format!("[connections.main]\nurl = \"host={HOST} user=app\"\niam = {{ {setting} }}");
        let error = managers(&settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains("\"main\""), "{error}");
    }
}

#[test]
fn an_unknown_key_is_rejected_by_name() {
    for (settings, key) in [
        ("[conections.main]\nurl = \"\"", "conections"),
        (
            "[connections.main]\nurl = \"\"\nssl_mode = \"require\"",
            "ssl_mode",
        ),
        (
            "[connections.main]\nurl = \"\"\niam = { regoin = \"x\" }",
            "regoin",
        ),
        (
            "[connections.main]\nurl = \"\"\npool = { max_sise = 1 }",
            "max_sise",
        ),
        ("[connections.main]\n", "url"),
        (
            "[connections.main]\nurl = \"\"\npool = { max_lifetime = \"14 moons\" }",
            "moons",
        ),
        (
            "[connections.main]\nurl = \"\"\nsslmode = \"strict\"",
            "verify-full",
        ),
    ] {
        let error = toml::from_str::<Connections>(settings).unwrap_err();
        assert!(error.message().contains(key), "{error}");
    }
}

#[test]
fn a_password_and_iam_together_are_rejected() {
    let settings = format!(
        "[connections.main]\nurl = \"host={HOST} user=app\"\npassword = \"hunter2\"\niam = {{}}"
    );
    let error = managers(&settings).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let shown = format!("{error} {:?}", read(&settings));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn one_connection_uses_iam_and_the_next_a_password() {
    const TEST: &str = "one_connection_uses_iam_and_the_next_a_password";
    if child::is_running(module_path!(), TEST) {
        let pools = read(&child::argument("SETTINGS")).pools::<PgConnection>();
        let pools = pools.unwrap();
        for (name, user) in [("main", "app"), ("reports", "bob")] {
            let query = diesel::select(diesel::dsl::sql::<Text>("current_user::text"));
            let current: String = query.get_result(&mut *pools[name].get().unwrap()).unwrap();
            assert_eq!(current, user);
            assert_eq!(pools[name].max_size(), 2);
        }
        return;
    }
    let emulator = emulator();
    emulator.create_password_user("bob", "bob's").unwrap();
    let settings = format!(
        r#"
        [connections.main]
        url = "{}"
        iam = {{ token_lifetime = "10m" }}
        pool = {{ max_size = 2 }}

        [connections.reports]
        url = "{}"
        password = "bob's"
        pool = {{ max_size = 2 }}
        "#,
        emulator.url("app"),
        emulator.url("bob"),
    );
    Child::new(module_path!(), TEST, Path::new("/dev/null/none"))
        .argument("SETTINGS", settings)
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        .run();
}

/// Files in two formats and the environment, read by the crate `config`.
#[test]
fn the_crate_config_reads_them_from_files_and_the_environment() {
    use ::config::{Config, Environment, File, FileFormat};

    let base = r#"
        [connections.default]
        url = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app"
        pool = { max_size = 20, max_lifetime = "13m" }
    "#;
    let local = "
connections:
  reports:
    url: postgres://reports@localhost/app
    sslmode: disable
";
    let variables = [
        ("APP__CONNECTIONS__DEFAULT__POOL__MAX_SIZE", "5"),
        (
            "APP__CONNECTIONS__DEFAULT__POOL__TEST_ON_CHECK_OUT",
            "false",
        ),
        ("APP__CONNECTIONS__REPORTS__PASSWORD", "12345"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::with_prefix("APP")
        .separator("__")
        .try_parsing(true)
        .source(Some(variables.into()));
    let settings = Config::builder()
        .add_source(File::from_str(base, FileFormat::Toml))
        .add_source(File::from_str(local, FileFormat::Yaml))
        .add_source(environment)
        .build()
        .unwrap();
    let connections: Connections = settings.try_deserialize().unwrap();

    let pool = &connections.connections["default"].pool;
    assert_eq!(
        (pool.max_size, pool.test_on_check_out),
        (Some(5), Some(false))
    );
    let managers = connections.managers::<PgConnection>().unwrap();
    assert!(managers["default"].endpoint().is_some());
    assert!(managers["reports"].endpoint().is_none());
}

fn url_with_iam(settings: &str) -> String {
    format!(
        "[connections.main]\nurl = \"host={HOST} user=app\"\niam = {{ role_arn = \"arn:aws:iam::123456789012:role/database\", {settings} }}"
    )
}

/// A number or a table in place of a password, and a text in place of a table. serde's errors would repeat the
/// values.
#[test]
fn nothing_of_a_secret_is_in_an_error_or_in_debug() {
    let table = "[connections.a]\nurl = \"postgres://app@localhost/app\"\nsslmode = \"disable\"\n";
    for password in ["47.11", "[4711]", "{ secret = 4711 }"] {
        let settings = format!("{table}password = {password}");
        let error = managers(&settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains("password") && text.contains("quotes"),
            "{text}"
        );
        assert!(!text.contains("47"), "{text}");
    }
    assert_eq!(managers(&format!("{table}password = 4711")).unwrap(), 1);
    let error = managers("[connections.a]\nurl = 47.11").unwrap_err();
    assert!(!error.to_string().contains("47"), "{error}");
    let error = serde_json::from_str::<Connections>(
        r#"{"connections": {"a": {"url": "postgres://a@h/d", "password": [4711]}}}"#,
    );
    error.unwrap().managers::<PgConnection>().unwrap_err();

    for (settings, name) in [
        (format!("{table}iam = \"hunter2\""), "iam"),
        (format!("{table}iam = 4711"), "iam"),
        (
            format!("{table}iam = {{ external_id = 47.11 }}"),
            "external_id",
        ),
        (
            format!("{table}iam = {{ external_id = [4711] }}"),
            "external_id",
        ),
        (format!("{table}pool = \"hunter2\""), "pool"),
        (format!("{table}pool = [4711]"), "pool"),
        (
            "connections = \"postgres://app:hunter2@localhost/app\"".to_owned(),
            "connections",
        ),
        ("connections = [\"hunter2\"]".to_owned(), "connections"),
        ("connections = 4711".to_owned(), "connections"),
        ("[connections]\na = 4711.5".to_owned(), "url"),
        ("[connections]\na = [\"hunter2\"]".to_owned(), "url"),
    ] {
        let error = managers(&settings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(text.contains(name), "{text}");
        assert!(!text.contains("47") && !text.contains("hunter2"), "{text}");
    }
    let connections: Connections = serde_json::from_str("\"hunter2\"").unwrap();
    let error = connections.pools::<PgConnection>().unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    // An account's number, as external ids often are, is its text.
    let settings = url_with_iam("external_id = 123456789012");
    assert_eq!(managers(&settings).unwrap(), 1);

    let text = "[connections]\na = \"postgres://app:hunter2@localhost/app?sslmode=disable\"";
    assert_eq!(managers(text).unwrap(), 1);
    let settings = format!("{table}iam = {{ role_arn = \"arn\", external_id = \"partner-42\" }}");
    let shown = format!("{:?}", read(&settings));
    assert!(
        shown.contains("role_arn") && !shown.contains("partner-42"),
        "{shown}"
    );
}
