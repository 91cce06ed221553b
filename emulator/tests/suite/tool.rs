//! Real clients through the emulator.

use std::process::{Command, Output, Stdio};

use rds_iam_emulator::{Emulator, LoginResult};

use crate::client::{Token, emulator, say};

/// A program of PostgreSQL's, with the token in PGPASSWORD, as a user would set it. libpq's variables of this machine
/// are removed.
fn libpq_program(emulator: &Emulator, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    let output = command
        .args(arguments)
        .env("PGPASSWORD", Token::new(emulator, "app").sign())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} could not be run: {error}"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn accepted(emulator: &Emulator) -> usize {
    let logins = emulator.logins();
    assert!(
        logins
            .iter()
            .all(|login| *login.result() == LoginResult::Accepted),
        "{logins:?}"
    );
    logins.len()
}

#[test]
fn psql_logs_in_and_sees_tls() {
    let emulator = emulator();
    let url = emulator.url("app");
    let statement = "SELECT current_user || ' ' || current_database()";
    let output = libpq_program(&emulator, "psql", &[&url, "--no-psqlrc", "-Atc", statement]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "app app");
    let output = libpq_program(
        &emulator,
        "psql",
        &[&url, "--no-psqlrc", "-c", "\\conninfo"],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("TLS"), "{text}");
    assert_eq!(accepted(&emulator), 2);
}

#[test]
fn psql_prints_the_reason_of_a_refusal() {
    let emulator = emulator();
    let output = Command::new("psql")
        .args([&emulator.url("app"), "--no-psqlrc", "-c", "SELECT 1"])
        .env("PGPASSWORD", "no token")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("FATAL:  PAM authentication failed for user \"app\""),
        "{text}"
    );
}

#[test]
fn pgbench_opens_a_connection_for_each_transaction() {
    let emulator = emulator();
    let url = emulator.url("app");
    libpq_program(&emulator, "pgbench", &["--initialize", "--quiet", &url]);
    let arguments = [
        "--connect",
        "--select-only",
        "--client=4",
        "--transactions=10",
        &url,
    ];
    let output = libpq_program(&emulator, "pgbench", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("number of transactions actually processed: 40/40"),
        "{text}"
    );
    assert!(accepted(&emulator) >= 41);
}

#[test]
fn pg_dump_dumps_a_table() {
    let emulator = emulator();
    let url = emulator.url("app");
    let statement =
        "CREATE TABLE goods AS SELECT generate_series(1, 20000) AS id, repeat('x', 100) AS name";
    libpq_program(&emulator, "psql", &[&url, "--no-psqlrc", "-qc", statement]);
    let output = libpq_program(&emulator, "pg_dump", &[&url]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("COPY public.goods (id, name)"));
    assert!(text.contains(&format!("20000\t{}", "x".repeat(100))));
    assert!(text.contains("-- PostgreSQL database dump complete"));
}

/// Signs with boto3 and logs in with psycopg.
const PYTHON: &str = r#"
import os, sys
try:
    import boto3, psycopg
except ImportError as error:
    print("skip:", error)
    sys.exit(0)
host, port, user = os.environ["DB_HOST"], int(os.environ["DB_PORT"]), os.environ["DB_USER"]
token = boto3.client("rds").generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)
def connect(password):
    return psycopg.connect(
        host=host, hostaddr="127.0.0.1", port=port, user=user, password=password,
        dbname="postgres", sslmode="verify-full", sslrootcert=os.environ["DB_CA"],
    )
with connect(token) as connection:
    print("user:", connection.execute("SELECT session_user::text").fetchone()[0])
place = token.index("X-Amz-Signature=") + len("X-Amz-Signature=") + 5
changed = token[:place] + ("0" if token[place] != "0" else "1") + token[place + 1:]
try:
    connect(changed)
    print("accepted")
except psycopg.OperationalError as error:
    print("refused:", error)
print("identity:", boto3.client("sts").get_caller_identity()["Arn"])
role = boto3.client("sts").assume_role(
    RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="python",
)["Credentials"]
session = boto3.Session(role["AccessKeyId"], role["SecretAccessKey"], role["SessionToken"])
with connect(session.client("rds").generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user)):
    print("role: in")
"#;

#[test]
fn a_token_of_boto3_is_accepted_by_way_of_psycopg_and_a_changed_one_refused() {
    let emulator = emulator();
    let user = "app user+1";
    emulator.create_iam_user(user).unwrap();
    let python = std::env::var("RDS_IAM_EMULATOR_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .args(["-c", PYTHON])
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
        .env("AWS_DEFAULT_REGION", emulator.region())
        .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("DB_HOST", emulator.host())
        .env("DB_PORT", emulator.port().to_string())
        .env("DB_USER", user)
        .env("DB_CA", emulator.ca_path())
        .output();
    let Ok(output) = output else {
        say(format_args!(
            "skipped: {python} cannot be run; set RDS_IAM_EMULATOR_PYTHON to one with boto3 and psycopg"
        ));
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(reason) = text.strip_prefix("skip:") {
        say(format_args!(
            "skipped: {python} has not what it needs:{reason}"
        ));
        return;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("user: {user}\n")), "{text}{errors}");
    assert!(text.contains("refused:"), "{text}{errors}");
    assert!(text.contains("PAM authentication failed"), "{text}{errors}");
    assert!(
        text.contains("identity: arn:aws:iam::123456789012:user/emulator"),
        "{text}{errors}"
    );
    assert!(text.contains("role: in"), "{text}{errors}");
}
