//! The figures of the emulator: `cargo bench -p rds-iam-emulator`.
//!
//! Each line is one figure, its baseline and its target. With `-- --check` a missed target is a failure. With `--
//! --quick` there are fewer rounds, and figures that take minutes are left out. With `-- --json` each line is an
//! object. The figures are meaningful only on an idle machine.
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
use serde_json::json;

use client::{Token, config, login, query_one, tls};

fn main() {
    // Test runners ask every target for its tests. This one has none.
    if !is_asked_for("--bench") {
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
    if !is_asked_for("--quick") {
        memory(&mut report, &emulator);
    }
    report.end();
}

fn is_asked_for(option: &str) -> bool {
    std::env::args().any(|argument| argument == option)
}

/// The number of rounds.
fn rounds() -> usize {
    if is_asked_for("--quick") { 3 } else { 5 }
}

/// The names of the figures that missed their target.
#[derive(Default)]
struct Report {
    missed: Vec<&'static str>,
}

struct Figure {
    name: &'static str,
    what: &'static str,
    ours: f64,
    /// The baseline, if it is not a figure of its own.
    baseline: Option<f64>,
    unit: &'static str,
    mark: &'static str,
    reached: bool,
}

impl Report {
    fn add(&mut self, figure: &Figure) {
        let Figure {
            name,
            what,
            ours,
            baseline,
            unit,
            mark,
            reached,
        } = *figure;
        let ratio = baseline.map(|baseline| ours / baseline);
        if is_asked_for("--json") {
            let line = json!({
                "name": name, "ours": ours, "baseline": baseline, "ratio": ratio, "unit": unit,
                "what": what, "target": mark, "met": reached,
            });
            println!("{line}");
        } else {
            let beside = |value: Option<f64>, places| {
                value.map_or(String::new(), |value| format!("{value:.places$}"))
            };
            let missed = if reached { "" } else { "  MISSED" };
            println!(
                "{what:<50} {ours:>8.1} {unit:<8} {:>8} {:>6}   {mark}{missed}",
                beside(baseline, 1),
                beside(ratio, 2),
            );
        }
        if !reached {
            self.missed.push(name);
        }
    }

    fn end(self) {
        if is_asked_for("--check") && !self.missed.is_empty() {
            panic!("missed: {}", self.missed.join(", "));
        }
    }
}

/// From `start` to the answer to the first query, with an existing template.
fn start(report: &mut Report) {
    drop(Emulator::builder().start().unwrap());
    let mut spans: Vec<f64> = (0..rounds())
        .map(|_| {
            let start = Instant::now();
            let emulator = Emulator::builder().start().unwrap();
            emulator.create_iam_user("app").unwrap();
            query_one(&mut login(&emulator, "app"), "SELECT 'x'");
            milliseconds(start.elapsed())
        })
        .collect();
    let ours = median(&mut spans);
    report.add(&Figure {
        name: "emulator_start",
        what: "start to the first query",
        ours,
        baseline: None,
        unit: "ms",
        mark: "< 1000",
        reached: ours < 1_000.0,
    });
}

/// New connections per second, compared with PostgreSQL alone, and the processor time of the emulator.
fn logins(report: &mut Report, emulator: &Emulator) {
    let direct = emulator.superuser_url();
    let through = machine::unverified(emulator);
    let token = Token::new(emulator, "app").sign();
    let encrypted = machine::PostgresqlWithTls::start();
    let (mut alone, mut own_tls, mut with) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu = Duration::ZERO;
    let mut count = 0;
    // In turns, so that other load on the machine affects all alike.
    for _ in 0..rounds() {
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
    if !own_tls.is_empty() {
        let own_tls = median(&mut own_tls);
        report.add(&Figure {
            name: "emulator_logins",
            what: "new connections, beside PostgreSQL's own TLS",
            ours: with,
            baseline: Some(own_tls),
            unit: "/s",
            // The emulator has no influence on the cost of TLS in a client.
            mark: "≥ 0.9 ×",
            reached: with >= own_tls * 0.9,
        });
    }
    report.add(&Figure {
        name: "emulator_logins_socket",
        what: "new connections, beside a Unix socket without TLS",
        ours: with,
        baseline: Some(alone),
        unit: "/s",
        mark: "≥ 0.9 ×",
        reached: with >= alone * 0.9,
    });
    let each = milliseconds(cpu) / count as f64;
    report.add(&Figure {
        name: "emulator_login_cpu",
        what: "own processor time of a login",
        ours: each,
        baseline: None,
        unit: "ms",
        mark: "≤ 1",
        reached: each <= 1.0,
    });
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
    report.add(&Figure {
        name: "emulator_refusals",
        what: "refusals, 4 clients",
        ours: rate,
        baseline: None,
        unit: "/s",
        mark: "≥ 500",
        reached: rate >= 500.0,
    });
}

fn sessions(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let (right, tls) = (config(emulator, "app", &token), tls(emulator));
    let mut sessions: Vec<Client> = (0..1_000)
        .map(|_| right.connect(tls.clone()).unwrap())
        .collect();
    for session in &mut sessions {
        query_one(session, "SELECT 'x'");
    }
    let open = emulator.sessions();
    report.add(&Figure {
        name: "emulator_sessions",
        what: "sessions at once",
        ours: open as f64,
        baseline: None,
        unit: "sessions",
        mark: "1000",
        reached: open == 1_000,
    });
    drop(sessions);
    emulator
        .wait_for_sessions(0, Duration::from_secs(60))
        .unwrap();
}

/// 200 MB out of the database: through the emulator, and from a PostgreSQL with TLS of its own.
fn copy(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let Some(postgresql) = machine::PostgresqlWithTls::start() else {
        println!("COPY of 200 MB: not measured, PostgreSQL cannot be had with TLS of its own");
        return;
    };
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        direct.push(milliseconds(machine::copy(&postgresql.url(), "")));
        through.push(milliseconds(machine::copy(
            &machine::unverified(emulator),
            &token,
        )));
    }
    let (direct, through) = (median(&mut direct), median(&mut through));
    report.add(&Figure {
        name: "emulator_copy",
        what: "COPY of 200 MB, beside PostgreSQL's own TLS",
        ours: through,
        baseline: Some(direct),
        unit: "ms",
        mark: "≤ 1.1 ×",
        reached: through <= direct * 1.1,
    });
}

fn memory(report: &mut Report, emulator: &Emulator) {
    let token = Token::new(emulator, "app").sign();
    let right = config(emulator, "app", &token);
    let wrong = config(emulator, "app", "no token");
    let tls = tls(emulator);
    let rounds = |count: usize| {
        for number in 0..count {
            // One in ten gets its session. The others would only wait for PostgreSQL.
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
    let grown = after.saturating_sub(before) as f64 / 1024.0 / 1024.0;
    report.add(&Figure {
        name: "emulator_memory",
        what: "memory grown over 10,000 logins, which are written down",
        ours: grown,
        baseline: None,
        unit: "MiB",
        mark: "< 5",
        reached: grown < 5.0,
    });
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
