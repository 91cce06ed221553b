//! The log of an application that uses the crate `log` and has no subscriber of `tracing`.

use std::net::TcpListener;
use std::path::Path;

use diesel_rds_iam::PgConnectionManager;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support::child::{self, Child};
use crate::support::database::{auth_builder, emulator, manager};
use crate::support::written::Written;

/// The output of `env_logger` in an application, with a level of its own.
#[test]
fn an_application_with_env_logger_sees_what_an_operator_needs() {
    const TEST: &str = "an_application_with_env_logger_sees_what_an_operator_needs";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let log = Written::default();
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .target(env_logger::Target::Pipe(Box::new(log.clone())))
        .init();
    let emulator = emulator();
    let manager = manager(&emulator);
    let pool = manager.pool_builder().max_size(1).build().unwrap();
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("INFO") && lines[0].contains("pool built"),
        "{lines:#?}"
    );
    assert!(lines[0].contains(emulator.host()), "{lines:#?}");

    emulator.stop_postgres().unwrap();
    for _ in 0..3 {
        manager.try_connect().err().unwrap();
    }
    emulator.start_postgres().unwrap();
    manager.try_connect().unwrap();
    drop(pool);
    let lines = log.lines();
    let (failed, works) = (
        count(&lines, "connections cannot be opened"),
        count(&lines, "can be opened again"),
    );
    assert_eq!((failed, works), (1, 1), "{lines:#?}");
    assert_eq!(count(&lines, "WARN"), 1, "{lines:#?}");
    let (_, token) = manager.token().unwrap();
    for secret in [emulator.secret_key(), token.expose_secret()] {
        assert_eq!(count(&lines, secret), 0);
    }
}

/// A trace of a connect with two candidates, of which the first does not exist, and of one that is refused.
#[test]
fn a_connect_is_a_span_with_its_candidates_and_its_outcome() {
    let emulator = emulator();
    let (host, port) = (emulator.host(), emulator.port());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let closed = closed.unwrap().port();
    let url = emulator.url("app");
    let (_, options) = url.split_once('?').unwrap();
    let options = options.replace("hostaddr=127.0.0.1", "hostaddr=127.0.0.1,127.0.0.1");
    let url = format!("postgres://app@{host}:{closed},{host}:{port}/postgres?{options}");
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = PgConnectionManager::builder(&url).auth(auth);
    let manager = manager.build().unwrap();
    let log = Written::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        manager.try_connect().unwrap();
        emulator.execute("REVOKE rds_iam FROM app").unwrap();
        manager.try_connect().err().unwrap();
    });
    let lines = log.lines();
    let closes: Vec<_> = lines
        .iter()
        .filter(|line| line.contains(": close "))
        .collect();
    let expected = [
        format!(":login{{host=\"{host}\" address=127.0.0.1:{closed} outcome=Network}}:"),
        format!(":login{{host=\"{host}\" address=127.0.0.1:{port} outcome=\"connected\"}}:"),
        format!(" connect{{host=\"{host}\" user=\"app\" login=\"iam\" outcome=\"connected\"}}:"),
        format!(":login{{host=\"{host}\" address=127.0.0.1:{closed} outcome=Network}}:"),
        format!(":login{{host=\"{host}\" address=127.0.0.1:{port} outcome=LoginRefused}}:"),
        format!(" connect{{host=\"{host}\" user=\"app\" login=\"iam\" outcome=LoginRefused}}:"),
    ];
    assert_eq!(closes.len(), expected.len(), "{lines:#?}");
    for (line, part) in closes.iter().zip(&expected) {
        let (span, _) = line.split_once(" diesel_rds_iam::").unwrap();
        assert!(span.ends_with(part.as_str()), "{part} in {span}");
    }
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}
