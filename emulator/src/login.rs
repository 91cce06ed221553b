//! The recorded logins.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::monotonic;
use crate::reason::Reason;

/// The number of logins that are kept. Older ones are removed, so that an emulator that runs for days does not
/// grow.
const KEPT: usize = 100_000;

/// One login: its user, the token and the result. It never contains the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Login {
    pub(crate) user: String,
    pub(crate) fingerprint: String,
    pub(crate) token_age: Option<Duration>,
    pub(crate) access_key: Option<String>,
    pub(crate) result: LoginResult,
    pub(crate) detail: String,
    pub(crate) at: SystemTime,
}

/// The result of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoginResult {
    /// The token was valid; the session was opened.
    Accepted,
    /// The login was refused.
    Refused(Reason),
    /// The user is not a member of `rds_iam`. PostgreSQL asked for the password, and only it has the result.
    Password,
}

impl Login {
    /// The database user in the start-up packet.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The first eight hexadecimal digits of the token's SHA-256; empty if none was sent.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The token's age by the server's clock; `None` without a token, or if its date is unreadable or in the
    /// future.
    pub fn token_age(&self) -> Option<Duration> {
        self.token_age
    }

    /// The access key in the token.
    pub fn access_key(&self) -> Option<&str> {
        self.access_key.as_deref()
    }

    /// The result.
    pub fn result(&self) -> &LoginResult {
        &self.result
    }

    /// Details of a refusal, such as the host that the token was signed for. May be empty.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The time of the result, by the server's clock.
    pub fn at(&self) -> SystemTime {
        self.at
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {:?}", self.user)?;
        if !self.fingerprint.is_empty() {
            write!(f, ", token {}", self.fingerprint)?;
        }
        if let Some(age) = self.token_age {
            write!(f, ", {} s old", age.as_secs())?;
        }
        match self.result {
            LoginResult::Accepted => f.write_str(": accepted"),
            LoginResult::Password => f.write_str(": left to PostgreSQL"),
            LoginResult::Refused(reason) => {
                write!(f, ": refused, {reason}")?;
                if self.detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {}", self.detail)
                }
            }
        }
    }
}

/// All logins so far, and those that wait for more.
#[derive(Default)]
pub(crate) struct LoginLog {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    count: usize,
    latest: VecDeque<Login>,
    watchers: Vec<Sender<Login>>,
}

impl LoginLog {
    pub(crate) fn add(&self, login: Login) {
        tracing::debug!(target: "rds_iam_emulator", "{login}");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .watchers
            .retain(|watcher| watcher.send(login.clone()).is_ok());
        state.count += 1;
        if state.latest.len() == KEPT {
            state.latest.pop_front();
        }
        state.latest.push_back(login);
        self.more.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<Login> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.latest.iter().cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count
    }

    pub(crate) fn watch(&self) -> Receiver<Login> {
        let (sender, receiver) = channel();
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .watchers
            .push(sender);
        receiver
    }

    /// Waits until there have been `count` logins; `None` if that takes longer than `limit`.
    pub(crate) fn wait(&self, count: usize, limit: Duration) -> Option<Vec<Login>> {
        let deadline = monotonic() + limit;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.count < count {
            let left = deadline.checked_duration_since(monotonic())?;
            state = self
                .more
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Some(state.latest.iter().cloned().collect())
    }
}
