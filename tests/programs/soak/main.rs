//! A pool at full load for minutes, while everything goes wrong that the emulator can let go wrong:
//! `script/soak MINUTES [SEED]`.
//!
//! This process has the emulator and chooses the faults, by a seed that it prints. The application
//! is a process of its own, so that its memory, threads and descriptors are nobody else's, and gets
//! its credentials as a container does. Tokens live for 15 s, credentials for 60 s, connections for
//! 4 s.
//!
//! What must hold at the end: every write that was acknowledged is there, none twice, and none that
//! was not asked for; no login was refused but for a fault that was on, and none was tried again too
//! often; after every few faults the application came to work without errors by itself; what the
//! library has counted is what its log says, and no more than the server saw; and it has not grown.

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

/// Before the first fault, and the least time without errors that counts as working again.
const CALM: Duration = Duration::from_secs(5);

/// In which there is a write, if the application works.
const BEAT: Duration = Duration::from_secs(1);

/// For how long there are faults before the application must have recovered from them.
const ROUND: Duration = Duration::from_secs(25);

/// A connect that was swallowed takes 9 s; credentials that were revoked are noticed every 30 s at
/// the most, and replaced; who was refused again and again is let try within 4 s.
const RECOVERY: Duration = Duration::from_secs(45);

/// What comes and goes by itself. The memory file of a login and a connection to the source of
/// credentials are descriptors; the signer keeps threads for a while for sources that block; and
/// allocators give or take, where a kilobyte that is lost in each transaction is twenty times as much
/// in ten minutes.
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
    // A proxy has a fault of its own.
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
        // Without a key, so that a write that was made twice is there twice.
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

    /// Rounds of faults for `time`; at the end the summary, or what did not hold.
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
        let totals = self.referee.verdict()?;
        counts.compare(&totals)?;
        Ok(format!(
            "faults={} {totals} credentials={} {counts} {writes} slowest_recovery={:.1}s {growth}",
            self.faults,
            self.emulator.aws().requests(AwsService::Container),
            self.slowest_recovery.as_secs_f64(),
        ))
    }

    /// One or two things go wrong for a while.
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

    /// Nothing goes wrong, until the application has worked for a while without an error or a pause.
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

    /// Lets time pass, and looks whether all is well meanwhile; tells so every 10 s.
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

    /// How much the application has grown since it was warm: after a fifth of the time, and at least
    /// one round, in which all of its code has run and all of its memory been touched.
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
