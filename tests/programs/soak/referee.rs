//! Checks that each refused login is due to a fault that was on, and that there are no more of them than the library
//! promises.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rds_iam_emulator::{Login, LoginResult, Reason};

use super::AnyError;

/// How long after a fault a login that it delayed may be decided: the application abandons a connect after 9 s.
const AFTERMATH: Duration = Duration::from_secs(10);

/// The number of refused connects without a pause between them: six, and as many as the pool has threads, which may
/// be under way by then, and the first of the pool.
const AT_ONCE: f64 = 6.0 + 3.0 + 1.0;

/// The shortest interval between the others.
const LEAST_PAUSE: Duration = Duration::from_secs(3);

/// The second is with a new token.
const LOGINS_PER_CONNECT: f64 = 2.0;

#[derive(Clone, Default)]
pub struct Referee(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The reasons that a fault explains and, once it is over, until when.
    permitted: Vec<(Reason, Option<Instant>)>,
    revoked_keys: HashSet<String>,
    latest_key: Option<String>,
    /// Of each token.
    fingerprints: HashSet<String>,
    /// The start of the present streak of refusals, and its length.
    streak: Option<(Instant, u32)>,
    totals: Totals,
    foul: Option<String>,
}

/// What the server saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub logins: u64,
    pub refused: u64,
    /// The number of different tokens.
    pub tokens: u64,
    /// The longest streak of refused logins.
    longest_streak: u32,
}

impl Referee {
    /// Checks logins as they happen, until the emulator is dropped.
    pub fn watch(logins: Receiver<Login>) -> Referee {
        let referee = Referee::default();
        let watching = referee.clone();
        thread::spawn(move || logins.iter().for_each(|login| watching.record(&login)));
        referee
    }

    /// Expects refusals for these reasons from now on.
    pub fn permit(&self, reasons: &[Reason]) {
        let open = reasons.iter().map(|reason| (*reason, None));
        self.0.lock().permitted.extend(open);
    }

    /// All faults are over.
    pub fn forbid_soon(&self) {
        let until = Instant::now() + AFTERMATH;
        for (_, end) in &mut self.0.lock().permitted {
            end.get_or_insert(until);
        }
    }

    /// The access key of the latest login, whose tokens may be refused from now on.
    pub fn revoke_latest_key(&self) -> Option<String> {
        let mut state = self.0.lock();
        let key = state.latest_key.clone()?;
        state.revoked_keys.insert(key.clone());
        Some(key)
    }

    pub fn check(&self) -> Result<(), AnyError> {
        match &self.0.lock().foul {
            Some(foul) => Err(foul.as_str().into()),
            None => Ok(()),
        }
    }

    pub fn totals(&self) -> Result<Totals, AnyError> {
        self.check()?;
        Ok(self.0.lock().totals)
    }

    fn record(&self, login: &Login) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.totals.logins += 1;
        if state.fingerprints.insert(login.fingerprint().to_owned()) {
            state.totals.tokens += 1;
        }
        let reason = match login.result() {
            LoginResult::Refused(reason) => *reason,
            _ => {
                state.latest_key = login.access_key().map(str::to_owned);
                state.streak = None;
                return;
            }
        };
        state.totals.refused += 1;
        state.count_refusal(now);
        state
            .permitted
            .retain(|(_, end)| end.is_none_or(|end| now < end));
        let is_permitted = state.permitted.iter().any(|(known, _)| *known == reason);
        let is_revoked = reason == Reason::UnknownAccessKey
            && login
                .access_key()
                .is_some_and(|key| state.revoked_keys.contains(key));
        if !is_permitted && !is_revoked {
            state
                .foul
                .get_or_insert_with(|| format!("refused without a fault: {login}"));
        }
    }
}

impl State {
    fn count_refusal(&mut self, now: Instant) {
        let (since, count) = self.streak.get_or_insert((now, 0));
        *count += 1;
        let (time, count) = (now - *since, *count);
        self.totals.longest_streak = self.totals.longest_streak.max(count);
        let connects = AT_ONCE + time.div_duration_f64(LEAST_PAUSE);
        if f64::from(count) > LOGINS_PER_CONNECT * connects {
            self.foul
                .get_or_insert_with(|| format!("{count} consecutive logins refused in {time:.1?}"));
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "logins={} refused={} longest_streak={} tokens_seen={}",
            self.logins, self.refused, self.longest_streak, self.tokens
        )
    }
}
