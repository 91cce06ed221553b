//! How much the emulator takes, in figures: `cargo bench -p rds-iam-emulator`.
//!
//! Each line is one figure and, after it, what it should be. With `-- --check` a figure that misses
//! its mark is a failure. They mean something only on a machine that does nothing else.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark may fail by panicking, and measures time itself"
)]

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/suite/client.rs"]
mod client;
#[path = "machine/mod.rs"]
mod machine;

use std::time::{Duration, Instant};

use postgres::Client;
use rds_iam_emulator::Emulator;

use client::{Token, config, login, query_one, tls};

fn main() {
    // Test runners ask every target for its tests: this one has none.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut report = Report::default();
    start(&mut report);
    let emulator = Emulator::builder().start().unwrap();
    emulator
        .execute("CREATE ROLE app LOGIN; GRANT rds_iam TO app")
        .unwrap();
    logins(&mut report, &emulator);
    refusals(&mut report, &emulator);
    sessions(&mut report, &emulator);
    copy(&mut report, &emulator);
    memory(&mut report, &emulator);
    report.end();
}

/// The figures, and which of them missed their mark.
#[derive(Default)]
struct Report {
    missed: Vec<&'static str>,
}

impl Report {
    fn line(&mut self, name: &'static str, figure: String, mark: &str, reached: bool) {
        let verdict = if reached { "" } else { "  MISSED" };
        println!("{name:<44} {figure:>16}   {mark}{verdict}");
        if !reached {
            self.missed.push(name);
        }
    }

    fn end(self) {
        if std::env::args().any(|argument| argument == "--check") && !self.missed.is_empty() {
            panic!("missed: {}", self.missed.join(", "));
        }
    }
}

/// From `start` to the first query's answer, once the template is there.
fn start(report: &mut Report) {
    drop(Emulator::builder().start().unwrap());
    let mut spans: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let emulator = Emulator::builder().start().unwrap();
            emulator.create_iam_user("app").unwrap();
            query_one(&mut login(&emulator, "app"), "SELECT 'x'");
            start.elapsed()
        })
        .collect();
    spans.sort();
    let reached = spans[2] < Duration::from_secs(1);
    report.line(
        "start to first query, median of 5",
        milliseconds(spans[2]),
        "under 1 s",
        reached,
    );
}

/// New connections per second, beside those of PostgreSQL alone, and the emulator's own CPU.
fn logins(report: &mut Report, emulator: &Emulator) {
    let direct = emulator.superuser_url();
    let through = machine::unverified(emulator);
    let token = Token::new(emulator, "app").sign();
    let encrypted = machine::PostgresqlWithTls::start();
    let (mut alone, mut own_tls, mut with) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu = Duration::ZERO;
    let mut count = 0;
    // In turns, so that a busy minute of the machine hits all.
    for _ in 0..5 {
        alone.push(machine::pgbench(&direct, ""));
        if let Some(encrypted) = &encrypted {
            own_tls.push(machine::pgbench(&encrypted.url(), ""));
        }
        let before = (machine::own_cpu(), emulator.login_count());
        with.push(machine::pgbench(&through, &token));
        cpu += machine::own_cpu() - before.0;
        count += emulator.login_count() - before.1;
    }
    let (alone, with) = (median(&mut alone), median(&mut with));
    let rate = |rate: f64, of: f64| format!("{rate:.0} /s, {:.0} %", rate / of * 100.0);
    report.line(
        "new connections, PostgreSQL alone",
        rate(alone, alone),
        "Unix socket",
        true,
    );
    if !own_tls.is_empty() {
        let own_tls = median(&mut own_tls);
        report.line(
            "new connections, PostgreSQL with TLS",
            rate(own_tls, alone),
            "TCP",
            true,
        );
        report.line(
            "new connections, emulator, of those with TLS",
            rate(with, own_tls),
            "at least 90 %: what TLS costs a client is not the emulator's doing",
            with >= own_tls * 0.9,
        );
    }
    report.line(
        "new connections, emulator, of all",
        rate(with, alone),
        "at least 90 %",
        with >= alone * 0.9,
    );
    let each = cpu / u32::try_from(count).unwrap();
    let reached = each <= Duration::from_millis(1);
    report.line(
        "own CPU of one login",
        microseconds(each),
        "at most 1 ms",
        reached,
    );
}

fn refusals(report: &mut Report, emulator: &Emulator) {
    let wrong = config(emulator, "app", "no token");
    let tls = tls(emulator);
    let before = emulator.login_count();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert!(wrong.connect(tls.clone()).is_err());
                }
            });
        }
    });
    assert_eq!(emulator.login_count() - before, 2_000);
    let rate = 2_000.0 / start.elapsed().as_secs_f64();
    report.line(
        "refusals, 4 clients",
        format!("{rate:.0} /s"),
        "at least 500 /s",
        rate >= 500.0,
    );
}

fn sessions(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let (right, tls) = (config(emulator, "app", &token), tls(emulator));
    let before = machine::resident_memory();
    let mut sessions: Vec<Client> = (0..1_000)
        .map(|_| right.connect(tls.clone()).unwrap())
        .collect();
    for session in &mut sessions {
        query_one(session, "SELECT 'x'");
    }
    let open = emulator.sessions();
    let grown = machine::resident_memory().saturating_sub(before) / 1024 / 1024;
    report.line(
        "sessions at once",
        format!("{open}, {grown} MiB"),
        "1000; with the clients' own memory",
        open == 1_000,
    );
    drop(sessions);
    emulator
        .wait_for_sessions(0, Duration::from_secs(60))
        .unwrap();
}

/// 200 MB out of the database: through the emulator, and from a PostgreSQL that does TLS itself.
fn copy(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let Some(postgresql) = machine::PostgresqlWithTls::start() else {
        println!("COPY of 200 MB: not measured, PostgreSQL cannot be had with TLS of its own");
        return;
    };
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        direct.push(machine::copy(&postgresql.url(), ""));
        through.push(machine::copy(&machine::unverified(emulator), &token));
    }
    direct.sort();
    through.sort();
    let (direct, through) = (direct[2], through[2]);
    report.line(
        "COPY of 200 MB, PostgreSQL's own TLS",
        milliseconds(direct),
        "",
        true,
    );
    report.line(
        "COPY of 200 MB, through the emulator",
        milliseconds(through),
        "as fast, within a tenth",
        through.as_secs_f64() <= direct.as_secs_f64() * 1.1,
    );
}

fn memory(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let right = config(emulator, "app", &token);
    let wrong = config(emulator, "app", "no token");
    let tls = tls(emulator);
    let rounds = |count: usize| {
        for number in 0..count {
            // One in ten gets its session: the others would only wait for PostgreSQL.
            let config = if number % 10 == 0 { &right } else { &wrong };
            drop(config.connect(tls.clone()));
        }
        emulator
            .wait_for_sessions(0, Duration::from_secs(60))
            .unwrap();
        machine::resident_memory()
    };
    let before = rounds(2_000);
    let after = rounds(10_000);
    let grown = after.saturating_sub(before) / 1024;
    report.line(
        "memory grown over 10,000 logins",
        format!("{grown} KiB"),
        "under 5 MiB, which is what it writes down of them",
        grown < 5 * 1024,
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn milliseconds(span: Duration) -> String {
    format!("{:.0} ms", span.as_secs_f64() * 1e3)
}

fn microseconds(span: Duration) -> String {
    format!("{:.0} us", span.as_secs_f64() * 1e6)
}
