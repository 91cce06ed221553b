//! `rds-iam exec`, with PostgreSQL's own programs.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rds_iam_emulator::LoginResult;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{MARKER, rds_iam_to, rds_iam_with, run, run_openly, shared_emulator, text};

/// `rds-iam exec --`, to the shared emulator.
fn exec(program: &[&str]) -> Command {
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.args(["exec", "--"]).args(program);
    command
}

#[test]
fn psql_logs_in() {
    let query = "select 1, current_user, current_database()";
    let psql = ["psql", "--no-psqlrc", "-Atc", query];
    assert_eq!(text(run(&mut exec(&psql))), "1|app|app\n");
}

#[test]
fn the_program_gets_a_url_without_a_password() {
    let script = "psql --no-psqlrc \"$DATABASE_URL\" -Atc 'select 2'; echo \"$DATABASE_URL\"";
    let shown = text(run(&mut exec(&["sh", "-c", script])));
    let (answer, url) = shown.split_once('\n').unwrap();
    assert_eq!(answer, "2");
    assert!(url.starts_with("postgres://app@"), "{url}");
    assert!(url.contains("sslmode=verify-full"), "{url}");
}

/// SQLAlchemy refuses `postgres://`, and libpq the library's parameters.
#[test]
fn the_program_gets_the_url_as_it_was_given_without_the_librarys_parameters() {
    let url = shared_emulator()
        .url("app")
        .replace("postgres://", "postgresql://");
    let given = format!("{url}&iam_region=eu-west-1&application_name=a%20b&iam=on");
    let mut command = exec(&[
        "sh",
        "-c",
        "echo \"$DATABASE_URL\"; psql --no-psqlrc \"$DATABASE_URL\" -Atc 'show application_name'",
    ]);
    command.env("DATABASE_URL", given);
    let shown = text(run(&mut command));
    assert_eq!(shown, format!("{url}&application_name=a%20b\na b\n"));
}

/// An option overrides the connection string, for the program too.
#[test]
fn the_program_gets_the_roots_of_the_option() {
    let ca = shared_emulator().ca_path();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.pem");
    std::fs::copy(ca, &copy).unwrap();
    let mut command = rds_iam_to(shared_emulator(), "app");
    command.args(["exec", "--sslrootcert"]).arg(&copy).args([
        "--",
        "sh",
        "-c",
        "echo \"$DATABASE_URL $PGSSLROOTCERT\"; psql --no-psqlrc \"$DATABASE_URL\" -Atc 'select 4'",
    ]);
    let shown = text(run(&mut command));
    assert!(!shown.contains("sslrootcert="), "{shown}");
    assert!(
        shown.ends_with(&format!(" {}\n4\n", copy.display())),
        "{shown}"
    );
}

#[test]
fn pg_dump_opens_several_connections_at_once() {
    let emulator = shared_emulator();
    emulator
        .execute(
            "CREATE SCHEMA dumped AUTHORIZATION app; \
             CREATE TABLE dumped.a AS SELECT generate_series(1, 100) AS n; \
             CREATE TABLE dumped.b AS SELECT generate_series(1, 100) AS n; \
             ALTER TABLE dumped.a OWNER TO app; ALTER TABLE dumped.b OWNER TO app",
        )
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("dump");
    let url = emulator.url_of("app", "postgres");
    let mut dump = exec(&["pg_dump", "--schema", "dumped", "-j", "2", "-Fd", "-f"]);
    let before = accepted("app");
    text(run(dump.arg(&target).env("DATABASE_URL", url)));
    assert!(target.join("toc.dat").exists());
    assert!(accepted("app") >= before + 3);
}

fn accepted(user: &str) -> usize {
    let logins = shared_emulator().logins();
    logins
        .iter()
        .filter(|login| login.user() == user && *login.result() == LoginResult::Accepted)
        .count()
}

#[test]
fn variables_that_would_override_the_connection_are_removed() {
    let mut command = exec(&["psql", "--no-psqlrc", "-Atc", "select current_database()"]);
    for (variable, value) in [
        ("PGPASSWORD", "wrong"),
        ("PGPASSFILE", "/nonexistent"),
        ("PGHOST", "192.0.2.1"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGUSER", "nobody"),
        ("PGDATABASE", "nothing"),
        ("PGSSLMODE", "disable"),
        ("PGSSLROOTCERT", "/nonexistent"),
        ("PGSERVICE", "nonsense"),
        ("PGCHANNELBINDING", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGGSSENCMODE", "require"),
    ] {
        command.env(variable, value);
    }
    assert_eq!(text(run(&mut command)), "app\n");
}

#[test]
fn the_token_is_in_a_file_for_this_server_and_in_no_environment_or_argument() {
    let script = "cat \"$PGPASSFILE\"; tr '\\0' '\\n' </proc/self/environ; \
                  tr '\\0' '\\n' </proc/$$/environ; tr '\\0' '\\n' </proc/$$/cmdline";
    let shown = text(run_openly(&mut exec(&["sh", "-c", script])));
    let (line, others) = shown.split_once('\n').unwrap();
    let (_, signature) = line.split_once("X-Amz-Signature=").unwrap();
    assert!(signature.len() >= 64, "{line}");
    let host = shared_emulator().host();
    let port = shared_emulator().port();
    assert!(line.starts_with(&format!("{host}:{port}:*:app:")), "{line}");
    assert!(others.contains("PGPASSFILE="), "{others}");
    assert!(!others.contains(&signature[..64]), "{others}");
    assert!(!others.contains("PGPASSWORD"), "{others}");
}

#[test]
fn a_program_that_connects_to_another_server_does_not_send_the_token() {
    let emulator = shared_emulator();
    let elsewhere = format!("host=localhost port={} sslmode=require", emulator.port());
    let ran = run(&mut exec(&[
        "psql",
        "--no-psqlrc",
        "-w",
        "-c",
        "select 1",
        &elsewhere,
    ]));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("no password supplied"), "{ran:?}");
}

#[test]
fn password_in_environment_sets_pgpassword() {
    let mut command = rds_iam_to(shared_emulator(), "app");
    let script = "psql --no-psqlrc -Atc 'select 3'; echo ${#PGPASSWORD} ${PGPASSFILE-none}";
    command.args([
        "exec",
        "--password-in-environment",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let shown = text(run(&mut command));
    let (answer, rest) = shown.split_once('\n').unwrap();
    assert_eq!(answer, "3");
    let (length, file) = rest.trim_end().split_once(' ').unwrap();
    assert!(length.parse::<usize>().unwrap() > 300, "{rest}");
    assert_eq!(file, "none");
}

/// Nothing is dialled: the emulator's certificate does not chain to the built-in roots.
#[test]
fn the_program_inherits_the_roots_of_the_region() {
    let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    command.args(["exec", "--host", host, "--user", "app", "--dbname", "shop"]);
    let script = "echo $PGHOST $PGPORT $PGUSER $PGDATABASE $PGSSLMODE; \
                  grep -c BEGIN \"$PGSSLROOTCERT\"; sh -c 'grep -c BEGIN \"$PGSSLROOTCERT\"'";
    let shown = text(run(command.args(["--", "sh", "-c", script])));
    assert_eq!(shown, format!("{host} 5432 app shop verify-full\n3\n3\n"));
}

/// libpq takes a line of the password file for each host, and would find none for these.
#[test]
fn several_hosts_are_rejected() {
    let mut command = rds_iam_with("AKIDEXAMPLE", MARKER);
    let host = |name| format!("{name}.c9akciq32rqv.eu-west-1.rds.amazonaws.com");
    let url = format!("postgres://app@{},{}/app", host("a"), host("b"));
    let ran = run(command.args(["exec", "--url", &url, "--", "true"]));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("names several hosts"), "{ran:?}");
}

#[test]
fn the_exit_status_is_the_programs() {
    let status = |program: &[&str]| run(&mut exec(program)).code;
    assert_eq!(status(&["true"]), Some(0));
    assert_eq!(status(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(status(&["no-such-program-here"]), Some(127));
    assert_eq!(status(&["/etc/passwd"]), Some(126));
    let ran = run(&mut exec(&["no-such-program-here"]));
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    let mut without_keys = exec(&["true"]);
    without_keys.env_remove("AWS_ACCESS_KEY_ID");
    assert_eq!(run(&mut without_keys).code, Some(1));
}

#[test]
fn signals_reach_the_program() {
    for (signal, script) in [
        (
            Signal::TERM,
            "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done",
        ),
        // Not SIGINT: a shell makes its background jobs ignore it, and this test may run in one.
        (Signal::USR1, "echo ready; exec sleep 60"),
    ] {
        let mut child = exec(&["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        if signal == Signal::TERM {
            assert_eq!(status.code(), Some(42));
        } else {
            assert_eq!(status.signal(), Some(signal.as_raw()));
        }
    }
}
