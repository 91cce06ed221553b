//! The kinds, durations and order of the faults, all of them determined by the seed.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use rds_iam_emulator::{
    AwsBehaviour, AwsService, Emulator, Engine, Fault, Language, Node, Reason, Stage,
};

use super::referee::Referee;
use super::{AnyError, USER};

/// A fault that lasts from `begin` to `end`.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    /// A fault of the emulator's own.
    Emulated(Fault),
    /// All connections are closed.
    SessionsDropped,
    /// All connections are reset.
    SessionsReset,
    /// Sessions that are opened now are closed after this long.
    SessionsCut(Duration),
    Stopped,
    FailedOver,
    /// After a failover, new connections still go to the old writer, which is read-only now.
    LedToTheReader,
    /// The application's access key is deleted. Its source of credentials has another one.
    KeyRevoked,
    /// The policy allows no login.
    PolicyRevoked,
    /// The server's clock is this many seconds ahead, or behind.
    ClockSkewed(i64),
    /// The source of credentials fails or is slow.
    Source(AwsBehaviour),
    /// The server's messages are in another language from now on.
    Speaking(Language),
}

impl Mishap {
    /// The reasons for which logins may be refused meanwhile.
    pub fn reasons(&self) -> &'static [Reason] {
        match self {
            Mishap::Emulated(Fault::RefuseNext(_)) => &[Reason::Fault],
            Mishap::Emulated(Fault::Throttle(_)) => &[Reason::Throttled],
            // A token can expire between the beginning of a connect and its verification.
            Mishap::Emulated(Fault::Delay(..)) => &[Reason::Expired, Reason::CredentialsExpired],
            Mishap::PolicyRevoked => &[Reason::NotAuthorized],
            Mishap::ClockSkewed(_) => &[
                Reason::Expired,
                Reason::CredentialsExpired,
                Reason::NotYetValid,
            ],
            _ => &[],
        }
    }

    pub fn begin(&self, emulator: &Emulator, referee: &Referee) -> Result<(), AnyError> {
        match *self {
            Mishap::Emulated(fault) => emulator.fault(fault),
            Mishap::SessionsDropped => emulator.drop_sessions(),
            Mishap::SessionsReset => emulator.reset_sessions(),
            Mishap::SessionsCut(limit) => emulator.set_session_limit(limit),
            Mishap::Stopped => emulator.stop_postgres()?,
            Mishap::FailedOver => emulator.fail_over()?,
            Mishap::LedToTheReader => {
                emulator.fail_over()?;
                emulator.route_to(Node::Reader)?;
                emulator.drop_sessions();
            }
            Mishap::KeyRevoked => {
                if let Some(key) = referee.revoke_latest_key() {
                    emulator.remove_credentials(&key);
                }
            }
            Mishap::PolicyRevoked => {
                emulator.revoke("*", USER);
            }
            Mishap::ClockSkewed(seconds) => emulator.set_server_clock_skew(seconds),
            Mishap::Source(behaviour) => {
                emulator
                    .aws()
                    .set_behaviour(AwsService::Container, behaviour);
            }
            Mishap::Speaking(language) => emulator.set_language(language)?,
        }
        Ok(())
    }

    pub fn end(&self, emulator: &Emulator) -> Result<(), AnyError> {
        match self {
            Mishap::Emulated(fault) => {
                emulator.heal();
                if let Fault::BlackHole(Stage::Data) = fault {
                    // Swallowed data is lost. Resetting the connections makes waiting clients fail now.
                    emulator.reset_sessions();
                }
            }
            Mishap::SessionsCut(_) => emulator.set_session_limit(Duration::ZERO),
            Mishap::Stopped => emulator.start_postgres()?,
            Mishap::LedToTheReader => emulator.route_to(Node::Writer)?,
            Mishap::PolicyRevoked => emulator.allow("*", USER),
            Mishap::ClockSkewed(_) => emulator.set_server_clock_skew(0),
            Mishap::Source(_) => emulator
                .aws()
                .set_behaviour(AwsService::Container, AwsBehaviour::Normal),
            Mishap::SessionsDropped
            | Mishap::SessionsReset
            | Mishap::FailedOver
            | Mishap::KeyRevoked
            | Mishap::Speaking(_) => {}
        }
        Ok(())
    }

    /// Each kind once, with random parameters.
    fn one_of_each(chance: &mut Rng, engine: Engine) -> Vec<Mishap> {
        let mut all = vec![
            Mishap::Emulated(Fault::RefuseNext(chance.u32(1..40))),
            Mishap::Emulated(Fault::OneByteAtATime),
            Mishap::Emulated(Fault::Throttle(a_few(chance))),
            Mishap::SessionsDropped,
            Mishap::SessionsReset,
            Mishap::SessionsCut(span(chance, 100..1500)),
            Mishap::Stopped,
            Mishap::FailedOver,
            Mishap::LedToTheReader,
            Mishap::KeyRevoked,
            Mishap::PolicyRevoked,
            Mishap::ClockSkewed(chance.i64(1..40)),
            Mishap::ClockSkewed(chance.i64(-200..-1)),
        ];
        if engine == Engine::Proxy {
            all.push(Mishap::Emulated(Fault::LimitConnections(a_few(chance))));
        }
        for stage in [Stage::Accept, Stage::Tls, Stage::Login, Stage::Data] {
            all.push(Mishap::Emulated(Fault::BlackHole(stage)));
            all.push(Mishap::Emulated(Fault::Reset(stage)));
            all.push(Mishap::Emulated(Fault::Delay(
                stage,
                span(chance, 20..1500),
            )));
        }
        for behaviour in [
            AwsBehaviour::Failing,
            AwsBehaviour::Throttled,
            AwsBehaviour::Garbled,
            AwsBehaviour::Slow(span(chance, 500..8000)),
        ] {
            all.push(Mishap::Source(behaviour));
        }
        let languages = [
            Language::English,
            Language::German,
            Language::French,
            Language::Japanese,
            Language::Russian,
        ];
        all.extend(chance.choice(languages).map(Mishap::Speaking));
        all
    }

    /// Whether the server accepts connections meanwhile.
    fn leaves_a_server(&self) -> bool {
        !matches!(
            self,
            Mishap::Stopped | Mishap::FailedOver | Mishap::LedToTheReader
        )
    }
}

/// One or two faults at a time.
pub struct Episode {
    pub faults: Vec<Mishap>,
    pub lasts: Duration,
    /// The time until the next one.
    pub pause: Duration,
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:?}", self.faults, self.lasts)
    }
}

/// All kinds of faults, shuffled; and shuffled again after each has occurred.
pub struct Deck {
    chance: Rng,
    engine: Engine,
    left: Vec<Mishap>,
}

impl Deck {
    pub fn new(seed: u64, engine: Engine) -> Deck {
        Deck {
            chance: Rng::with_seed(seed),
            engine,
            left: Vec::new(),
        }
    }

    pub fn draw(&mut self) -> Episode {
        let mut faults = vec![self.next()];
        // Some faults send statements to PostgreSQL, which must run then.
        if self.chance.u8(..) < 80 && faults.iter().all(Mishap::leaves_a_server) {
            faults.extend(Some(self.next()).filter(Mishap::leaves_a_server));
        }
        Episode {
            faults,
            lasts: span(&mut self.chance, 300..5000),
            pause: span(&mut self.chance, 100..4000),
        }
    }

    fn next(&mut self) -> Mishap {
        loop {
            if let Some(mishap) = self.left.pop() {
                return mishap;
            }
            self.left = Mishap::one_of_each(&mut self.chance, self.engine);
            self.chance.shuffle(&mut self.left);
        }
    }
}

/// A limit per second that is lower than the application's rate.
fn a_few(chance: &mut Rng) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(chance.u32(0..4))
}

fn span(chance: &mut Rng, milliseconds: Range<u64>) -> Duration {
    Duration::from_millis(chance.u64(milliseconds))
}
