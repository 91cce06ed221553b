//! The refresh of the token in a password file, and the report of its failures.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use diesel_rds_iam::{
    Clock, Error, HandleAuthEvent, Moment, PgConnectionManager, RefreshFailed, Token, TokenSigned,
};
use humantime::format_rfc3339_seconds;

use super::environment::Environment;
use super::passfile::Passfile;
use crate::escape::escaped;
use crate::target::{Target, TokenLifetime};

/// How often to check whether the library has a new token, while a refresh is under way.
const RECHECK: Duration = Duration::from_millis(250);

/// The pauses after a failure, of which each is twice as long as the last.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The monotonic clock stands still while a machine sleeps, so both clocks are read this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// How long the previous token stays in the file beside the new one, at the most.
const LONGEST_OVERLAP: Duration = Duration::from_secs(30);

/// Refreshes the token of one program.
pub(super) struct Refresher {
    manager: PgConnectionManager,
    environment: Environment,
    passfile: Passfile,
    log: Arc<Log>,
    clock: Clock,
}

impl Refresher {
    pub(super) fn new(
        target: &Target,
        lifetime: TokenLifetime,
        passfile: Passfile,
        expires_at: SystemTime,
    ) -> Result<Refresher, Error> {
        let log = Arc::new(Log(Mutex::new(State {
            expires_at,
            failures: 0,
        })));
        let handler = log.clone();
        let lifetime = lifetime.get();
        let manager = target
            .builder()
            .tune_auth(|auth| auth.token_lifetime(lifetime).event_handler(handler))
            .build()?;
        Ok(Refresher {
            environment: Environment::new(manager.parameters()),
            manager,
            passfile,
            log,
            clock: Clock::default(),
        })
    }

    /// Refreshes the token when it is due. The library decides when that is, and retries a refresh
    /// that failed while the old token is accepted.
    pub(super) fn run(&mut self, refresh_at: SystemTime) {
        let mut current = None;
        let mut pause = SHORTEST_PAUSE;
        let mut next = self.after(refresh_at, Duration::ZERO);
        loop {
            self.sleep_until(&next);
            let now = self.clock.now();
            next = match self.manager.token() {
                Ok((_, token)) if current != Some(token.id()) => match self.write(&token) {
                    Ok(()) => {
                        pause = SHORTEST_PAUSE;
                        current = Some(token.id());
                        let due = token.refresh_due_at().unwrap_or(now.wall);
                        self.after(due, RECHECK)
                    }
                    Err(cause) => {
                        say(&format!(
                            "cannot write the new token for the program: {cause}"
                        ));
                        now + longer(&mut pause)
                    }
                },
                // The library refreshes it in the background.
                Ok(_) => now + RECHECK,
                // The log has it.
                Err(_) => now + longer(&mut pause),
            };
        }
    }

    fn write(&mut self, token: &Token) -> io::Result<()> {
        let now = self.clock.now().wall;
        let expiry = self.log.lock().expires_at;
        let left = expiry.duration_since(now).unwrap_or_default();
        let line = self.environment.passfile(token.expose_secret());
        self.passfile
            .replace(&line, (left / 3).min(LONGEST_OVERLAP))?;
        self.log.lock().expires_at = token.expires_at().unwrap_or(now);
        Ok(())
    }

    /// The moment of `date`, and at least `least` from now.
    fn after(&self, date: SystemTime, least: Duration) -> Moment {
        let now = self.clock.now();
        now + date.duration_since(now.wall).unwrap_or_default().max(least)
    }

    fn sleep_until(&self, end: &Moment) {
        loop {
            let now = self.clock.now();
            if now.has_reached(end) {
                return;
            }
            let left = end.monotonic.saturating_duration_since(now.monotonic);
            thread::sleep(left.min(LONGEST_SLEEP));
        }
    }
}

/// Returns the pause, and doubles it.
fn longer(pause: &mut Duration) -> Duration {
    std::mem::replace(pause, (*pause * 2).min(LONGEST_PAUSE))
}

/// Reports failures of the refresh on standard error, once for consecutive ones.
struct Log(Mutex<State>);

struct State {
    /// When the token in the password file expires.
    expires_at: SystemTime,
    /// Consecutive failures.
    failures: u32,
}

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandleAuthEvent for Log {
    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        let mut state = self.lock();
        state.failures += 1;
        if state.failures == 1 {
            say(&format!(
                "cannot refresh the token of the program, which expires at {}: {}",
                format_rfc3339_seconds(state.expires_at),
                event.error
            ));
        }
    }

    fn handle_token_signed(&self, _event: &TokenSigned<'_>) {
        let mut state = self.lock();
        if state.failures > 0 {
            say(&format!(
                "refreshed the token of the program after {} failures",
                state.failures
            ));
        }
        state.failures = 0;
    }
}

/// Prints a line on the program's standard error, which may be closed.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "rds-iam: {}", escaped(line));
}
