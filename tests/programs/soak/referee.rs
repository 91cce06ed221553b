//! Whether each refusal of a login is the doing of a fault that was on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rds_iam_emulator::{Login, Reason, Verdict};

use super::AnyError;

/// A login that a fault has held up may be judged so long after it: the application gives up a
/// connect after 9 s.
const AFTERMATH: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
pub struct Referee(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Reasons that a fault accounts for, and until when, once it is over.
    permitted: Vec<(Reason, Option<Instant>)>,
    revoked_keys: HashSet<String>,
    latest_key: Option<String>,
    logins: usize,
    refused: usize,
    foul: Option<String>,
}

impl Referee {
    /// Judges logins as they happen, until the emulator is gone.
    pub fn watch(logins: Receiver<Login>) -> Referee {
        let referee = Referee::default();
        let watching = referee.clone();
        thread::spawn(move || logins.iter().for_each(|login| watching.judge(&login)));
        referee
    }

    /// From now on there are refusals for these reasons.
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
            Some(login) => Err(format!("refused without a fault: {login}").into()),
            None => Ok(()),
        }
    }

    /// How many logins there were, and how many of them were refused.
    pub fn verdict(&self) -> Result<(usize, usize), AnyError> {
        self.check()?;
        let state = self.0.lock();
        Ok((state.logins, state.refused))
    }

    fn judge(&self, login: &Login) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.logins += 1;
        let reason = match login.verdict() {
            Verdict::Refused(reason) => *reason,
            _ => {
                state.latest_key = login.access_key().map(str::to_owned);
                return;
            }
        };
        state.refused += 1;
        state
            .permitted
            .retain(|(_, end)| end.is_none_or(|end| now < end));
        let is_permitted = state.permitted.iter().any(|(known, _)| *known == reason);
        let is_revoked = reason == Reason::UnknownAccessKey
            && login
                .access_key()
                .is_some_and(|key| state.revoked_keys.contains(key));
        if !is_permitted && !is_revoked {
            state.foul.get_or_insert_with(|| login.to_string());
        }
    }
}
