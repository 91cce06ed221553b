//! A pool at full load for minutes, under all faults that the emulator can produce: `script/soak MINUTES [SEED]`.
//!
//! This process has the emulator and chooses the faults, by a seed that it prints. The application is a process of
//! its own, so that its memory, threads and descriptors can be measured, and gets its credentials as a container
//! does. Tokens live for 15 s, credentials for 60 s, connections for 4 s.
//!
//! Expectations at the end: every acknowledged write is in the database, none twice, and no other write is. Each
//! refused login is due to a fault that was on, and refused logins were not retried too often. After every few faults
//! the application recovered without help. The library's counters agree with its log, and do not exceed what the
//! server saw. The process has not grown.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a program of its own reads the time as any application does"
)]

mod application;
mod counts;
mod fault;
#[path = "../../suite/support/footprint.rs"]
mod footprint;
mod ledger;
mod referee;
mod subject;

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rds_iam_emulator::{AwsService, Emulator, Engine};

use fault::Deck;
use footprint::Footprint;
use referee::Referee;
use subject::Subject;

type AnyError = Box<dyn Error + Send + Sync>;

const TOKEN_LIFETIME: Duration = Duration::from_secs(15);
const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(60);

/// The user that the application logs in as.
const USER: &str = "app";

/// The time before the first fault, and the shortest time without errors that counts as recovery.
const CALM: Duration = Duration::from_secs(5);

/// The interval in which a working application writes at least once.
const BEAT: Duration = Duration::from_secs(1);

/// The duration of faults before the application has to recover.
const ROUND: Duration = Duration::from_secs(25);

/// A connect whose packets were swallowed takes 9 s. Revoked credentials are noticed within 30 s and replaced. The
/// rate limit admits a login within 4 s.
const RECOVERY: Duration = Duration::from_secs(45);

/// The growth that is no leak. The memory file of a login and a connection to the source of credentials are
/// descriptors. The signer keeps threads for a while for sources that block. Allocators vary, but a leak of a
/// kilobyte in each transaction is twenty times as much in ten minutes.
const COMES_AND_GOES: Footprint = Footprint {
    kibibytes: 2 * 1024,
    threads: 2,
    descriptors: 4,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    let outcome = match first.as_deref() {
        Some(subject::ARGUMENT) => application::run(),
        minutes => start(minutes, arguments.next().as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(minutes: Option<&str>, seed: Option<&str>) -> Result<(), AnyError> {
    let usage = "usage: soak MINUTES [SEED]";
    let minutes: f64 = minutes.and_then(|text| text.parse().ok()).ok_or(usage)?;
    let seed: u64 = match seed {
        Some(text) => text.parse().map_err(|_| usage)?,
        None => u64::from(fastrand::u32(..)),
    };
    let time = Duration::try_from_secs_f64(minutes * 60.0)?;
    // RDS Proxy has a fault of its own.
    let engine = match seed % 3 {
        0 => Engine::Proxy,
        _ => Engine::Rds,
    };
    println!("soak: seed={seed} minutes={minutes} engine={engine:?}");
    let summary = Soak::begin(seed, engine)?.run(time)?;
    println!("soak: ok seed={seed} minutes={minutes} {summary}");
    Ok(())
}

/// A soak under way.
struct Soak {
    begun: Instant,
    deck: Deck,
    subject: Subject,
    referee: Referee,
    footprints: Vec<(Instant, Footprint)>,
    slowest_recovery: Duration,
    faults: usize,
    emulator: Emulator,
}

impl Soak {
    fn begin(seed: u64, engine: Engine) -> Result<Soak, AnyError> {
        let emulator = Emulator::builder()
            .engine(engine)
            .token_lifetime(TOKEN_LIFETIME)
            .start()?;
        emulator.create_iam_user(USER)?;
        // Without a primary key, so that a write that was repeated is there twice.
        emulator.execute(&format!(
            "CREATE TABLE writes (id bigint NOT NULL); GRANT ALL ON writes TO {USER}"
        ))?;
        emulator.allow("*", USER);
        emulator.aws().set_credential_lifetime(CREDENTIAL_LIFETIME);
        Ok(Soak {
            begun: Instant::now(),
            deck: Deck::new(seed, engine),
            subject: Subject::start(&emulator, seed)?,
            referee: Referee::watch(emulator.watch()),
            footprints: Vec::new(),
            slowest_recovery: Duration::ZERO,
            faults: 0,
            emulator,
        })
    }

    /// Runs rounds of faults for `time`. Returns the summary, or the violated expectation.
    fn run(mut self, time: Duration) -> Result<String, AnyError> {
        self.recover()?;
        while self.begun.elapsed() < time {
            let round = Instant::now();
            while round.elapsed() < ROUND {
                self.suffer()?;
            }
            self.recover()?;
        }
        let growth = self.growth(time)?;
        let counts = self.subject.stop()?;
        let writes = self.subject.ledger()?.compare(&self.emulator)?;
        let totals = self.referee.totals()?;
        counts.compare(&totals)?;
        Ok(format!(
            "faults={} {totals} credentials={} {counts} {writes} slowest_recovery={:.1}s {growth}",
            self.faults,
            self.emulator.aws().requests(AwsService::Container),
            self.slowest_recovery.as_secs_f64(),
        ))
    }

    /// Produces one or two faults for a while.
    fn suffer(&mut self) -> Result<(), AnyError> {
        let episode = self.deck.draw();
        println!("{} {episode}", self.stamp());
        self.faults += episode.faults.len();
        for fault in &episode.faults {
            self.referee.permit(fault.reasons());
            fault.begin(&self.emulator, &self.referee)?;
        }
        self.wait(episode.lasts)?;
        for fault in &episode.faults {
            fault.end(&self.emulator)?;
        }
        self.referee.forbid_soon();
        self.wait(episode.pause)
    }

    /// Waits without faults until the application has worked for a while without an error or a pause.
    fn recover(&mut self) -> Result<(), AnyError> {
        let healed = Instant::now();
        let mut working_since = healed;
        let mut last = self.subject.progress();
        while working_since.elapsed() < CALM {
            self.wait(BEAT)?;
            let now = self.subject.progress();
            if now.errors() > last.errors() || now.written == last.written {
                working_since = Instant::now();
            }
            last = now;
            if healed.elapsed() > RECOVERY + CALM {
                return Err(format!(
                    "{RECOVERY:?} after the last fault there are still errors, or nothing is \
                     written: {now}"
                )
                .into());
            }
        }
        self.slowest_recovery = self.slowest_recovery.max(working_since - healed);
        let footprint = self.subject.footprint()?;
        println!("{} recovered; {last} {footprint}", self.stamp());
        self.footprints.push((Instant::now(), footprint));
        Ok(())
    }

    /// Waits while it checks the expectations, and prints the progress every 10 s.
    fn wait(&mut self, time: Duration) -> Result<(), AnyError> {
        let until = Instant::now() + time;
        loop {
            self.subject.check()?;
            self.referee.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.subject.is_due_for_a_line() {
                println!("{} {}", self.stamp(), self.subject.progress());
            }
            thread::sleep(left.min(Duration::from_millis(250)));
        }
    }

    /// The application's growth since it was warm: after a fifth of the time, and at least one round, in which all of
    /// its code has run and all of its memory has been touched.
    fn growth(&self, time: Duration) -> Result<String, AnyError> {
        let warm = self.begun + time / 5;
        let round = self.footprints.iter().skip(1);
        let before = round.clone().find(|(at, _)| *at >= warm);
        match (before, self.footprints.last()) {
            (Some((then, before)), Some((now, after))) if then < now => {
                after.growth_since(before, &COMES_AND_GOES)
            }
            _ => Ok("growth=unknown(too_short)".to_owned()),
        }
    }

    fn stamp(&self) -> String {
        format!("{:6.1} s", self.begun.elapsed().as_secs_f64())
    }
}
