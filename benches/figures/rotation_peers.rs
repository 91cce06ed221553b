//! Pools through expiring tokens and lost sessions: this crate's, and what applications use instead.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::r2d2::{ManageConnection, NopErrorHandler, Pool};
use rds_iam_emulator::{Emulator, LoginResult};
use serde_json::{Value, json};

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::{Figure, rounded};
use crate::panels::{self, Panel};
use crate::peers::{self, Peer};

/// Probes with these names use a pool for a number of seconds.
pub(crate) const OURS: &str = "rotation_peers_ours";
pub(crate) const PASSWORD: &str = "rotation_peers_password";

const USERS: usize = 8;
const SIZE: u32 = 10;
const THINK: Duration = Duration::from_millis(10);
const TOKEN_LIFETIME: Duration = Duration::from_secs(15);
const DROP_INTERVAL: Duration = Duration::from_secs(5);

/// What a pool's users saw, and what its server refused.
struct Outcome {
    refused: usize,
    results: Value,
}

impl Outcome {
    fn number(&self, key: &str) -> f64 {
        self.results[key].as_f64().unwrap()
    }

    /// The slowest checkout that began in each second, in milliseconds.
    fn slowest(&self) -> Vec<f64> {
        let seconds = self.results["slowest"].as_array().unwrap();
        seconds.iter().map(|took| took.as_f64().unwrap()).collect()
    }

    fn slowest_of_all(&self) -> f64 {
        self.slowest().into_iter().fold(0.0, f64::max) / 1e3
    }
}

pub(crate) fn run(bench: &Bench) {
    let seconds = bench.pick(20, 60);
    let emulator = emulator();
    let database = Database::of(&emulator);
    let ours = measure(&emulator, child(OURS, seconds, &database));
    let failed = ours.number("failed");
    let slowest = ours.slowest_of_all();
    let what = format!(
        "failed checkouts of 8 threads in {seconds} s, with tokens of 15 s and all sessions dropped every 5 s"
    );
    let figure = described(
        Figure::new("rotation_peers", &what, "checkouts", failed),
        &ours,
    );
    let met = failed == 0.0 && ours.refused == 0 && slowest <= 1.0;
    bench
        .results
        .add(figure.target("0, none refused, slowest ≤ 1 s", met));

    let mut lines = vec![("diesel-rds-iam", ours)];
    let arguments = [
        seconds.to_string(),
        USERS.to_string(),
        SIZE.to_string(),
        TOKEN_LIFETIME.as_secs().to_string(),
    ];
    let command = |peer: Option<Peer>| {
        let Some(peer) = peer else {
            let source = database.auth().source(&database.endpoint());
            let mut child = child(PASSWORD, seconds, &database);
            child.env("PGPASSWORD", source.token().unwrap().expose_secret());
            return Some(child);
        };
        let mut command = peer.command(bench)?;
        command.args(&arguments);
        command.envs(peers::address(&database));
        command.envs(peers::credentials(&database));
        Some(command)
    };
    let others = [
        ("diesel", "diesel with PGPASSWORD set once", None),
        (
            "psycopg",
            "psycopg_pool with a token of boto3 for each connection",
            Some(Peer::Python("rotation.py")),
        ),
        (
            "node",
            "node-postgres with @aws-sdk/rds-signer",
            Some(Peer::Node("rotation.mjs")),
        ),
        (
            "sqlx",
            "sqlx with a task that sets the password anew",
            Some(Peer::Rust("rotation")),
        ),
    ];
    for (name, what, peer) in others {
        let Some(command) = command(peer) else {
            continue;
        };
        let outcome = measure(&emulator, command);
        let name = format!("rotation_peers_{name}");
        let what_of = format!("the same, beside {what}");
        let figure = Figure::new(&name, &what_of, "checkouts", failed)
            .with("baseline", outcome.number("failed"));
        bench.results.add(described(figure, &outcome));
        lines.push((what, outcome));
    }
    draw(bench, &lines);
}

/// Adds what belongs to the failed checkouts of the pool that was measured.
fn described(figure: Figure, outcome: &Outcome) -> Figure {
    figure
        .with("refused logins", outcome.refused)
        .with("slowest checkout, s", rounded(outcome.slowest_of_all()))
        .with("failed queries", outcome.number("failed queries"))
        .with("checkouts", outcome.number("checkouts"))
}

fn child(name: &str, seconds: u64, database: &Database) -> Command {
    crate::callgrind::child(name, seconds, Some(database))
}

/// Runs a program, and drops its sessions again and again meanwhile.
fn measure(emulator: &Emulator, mut command: Command) -> Outcome {
    emulator.set_token_lifetime(TOKEN_LIFETIME);
    let refused = || {
        let is_refused = |result: &LoginResult| matches!(result, LoginResult::Refused(_));
        let logins = emulator.logins();
        logins
            .iter()
            .filter(|login| is_refused(login.result()))
            .count()
    };
    let before = refused();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut next = Instant::now() + DROP_INTERVAL;
    while is_running(&mut child) {
        if Instant::now() >= next {
            emulator.drop_sessions();
            next += DROP_INTERVAL;
        }
        thread::sleep(THINK);
    }
    let results = peers::results(&child.wait_with_output().unwrap());
    Outcome {
        refused: refused() - before,
        results,
    }
}

fn is_running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

/// The task of a child: uses a pool, and prints what its users saw.
pub(crate) fn probe(name: &str, seconds: u64, database: &Database) {
    match name {
        OURS => {
            let manager = database.manager(database.auth_living(TOKEN_LIFETIME));
            let builder = manager.pool_builder().max_size(SIZE);
            use_pool(&builder.build().unwrap(), seconds);
        }
        _ => {
            let manager = diesel::r2d2::ConnectionManager::new(database.conninfo());
            let builder = Pool::builder().max_size(SIZE);
            let builder = builder.error_handler(Box::new(NopErrorHandler));
            use_pool(&builder.build(manager).unwrap(), seconds);
        }
    }
}

#[derive(Default)]
struct Seen {
    checkouts: u32,
    failed: u32,
    failed_queries: u32,
    slowest: Vec<f64>,
}

fn use_pool<M: ManageConnection<Connection = PgConnection>>(pool: &Pool<M>, seconds: u64) {
    let span = Duration::from_secs(seconds);
    let start = Instant::now();
    let user = || {
        let mut seen = Seen {
            slowest: vec![0.0; seconds as usize + 1],
            ..Seen::default()
        };
        while start.elapsed() < span {
            let asked = Instant::now();
            let connection = pool.get();
            let slowest = &mut seen.slowest[(asked - start).as_secs() as usize];
            *slowest = slowest.max(asked.elapsed().as_secs_f64() * 1e3);
            seen.checkouts += 1;
            match connection {
                Ok(mut connection) => {
                    let query = connection.batch_execute("SELECT 1");
                    seen.failed_queries += u32::from(query.is_err());
                }
                Err(_) => seen.failed += 1,
            }
            thread::sleep(THINK);
        }
        seen
    };
    let all: Vec<Seen> = thread::scope(|scope| {
        let users: Vec<_> = (0..USERS).map(|_| scope.spawn(user)).collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    let sum = |count: fn(&Seen) -> u32| all.iter().map(count).sum::<u32>();
    let slowest = |second: usize| {
        all.iter()
            .map(|seen| seen.slowest[second])
            .fold(0.0, f64::max)
    };
    let slowest: Vec<f64> = (0..=seconds as usize).map(slowest).collect();
    println!(
        "{}",
        json!({
            "checkouts": sum(|seen| seen.checkouts),
            "failed": sum(|seen| seen.failed),
            "failed queries": sum(|seen| seen.failed_queries),
            "slowest": slowest,
        })
    );
}

/// A panel for each pool: its slowest checkout in each second.
fn draw(bench: &Bench, lines: &[(&'static str, Outcome)]) {
    let panels: Vec<Panel> = lines
        .iter()
        .map(|(label, outcome)| Panel {
            label: (*label).to_owned(),
            note: format!(
                "{} failed, {} logins refused, slowest {} s",
                outcome.number("failed"),
                outcome.refused,
                rounded(outcome.slowest_of_all())
            ),
            milliseconds: outcome.slowest(),
            has_failures: outcome.number("failed") > 0.0,
        })
        .collect();
    panels::draw(
        &bench.output("docs/rotation_peers.svg"),
        "The slowest checkout in each second",
        "8 threads; tokens live for 15 s; the server drops all sessions every 5 s. A gap: all threads still wait.",
        &panels,
    );
}
