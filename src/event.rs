//! What happens, told to whoever wants to know, and counted.
//!
//! Events carry ids, ages and kinds, and never a secret. The log has at DEBUG what happens to each
//! token and connection, and above that only what an application's operator has to know: when
//! something ceases to work, and when it works again.

mod failure_streak;
#[cfg(feature = "metrics")]
mod metrics;
mod sink;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::failure_streak::{FailureStreak, Recovered};
pub(crate) use self::sink::Events;
pub use self::sink::Stats;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::token::Token;

/// Is told what happens to tokens and connections. Every method does nothing by default.
///
/// The methods are called on the thread on which the event happens, which may be the one that
/// signs tokens for the whole process: they must not block. A panic in one is caught and logged.
pub trait HandleAuthEvent: Send + Sync + 'static {
    /// A token was signed, or another rotating password fetched.
    fn handle_token_signed(&self, event: &TokenSigned<'_>) {
        let _ = event;
    }

    /// A token could not be had.
    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        let _ = event;
    }

    /// A token was handed out whose replacement is due and has not come yet, or could not be had.
    fn handle_stale_served(&self, event: &StaleServed<'_>) {
        let _ = event;
    }

    /// The server refused a login.
    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        let _ = event;
    }

    /// A login was refused with a cached token and is tried again with a new one.
    fn handle_login_retried(&self, event: &LoginRetried<'_>) {
        let _ = event;
    }

    /// A connection was logged in.
    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        let _ = event;
    }

    /// A connection could not be opened, for whatever reason.
    fn handle_connect_failed(&self, event: &ConnectFailed<'_>) {
        let _ = event;
    }

    /// A pooled connection was given up, though it worked.
    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        let _ = event;
    }
}

impl<H: HandleAuthEvent> HandleAuthEvent for Arc<H> {
    fn handle_token_signed(&self, event: &TokenSigned<'_>) {
        (**self).handle_token_signed(event);
    }

    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        (**self).handle_refresh_failed(event);
    }

    fn handle_stale_served(&self, event: &StaleServed<'_>) {
        (**self).handle_stale_served(event);
    }

    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        (**self).handle_login_refused(event);
    }

    fn handle_login_retried(&self, event: &LoginRetried<'_>) {
        (**self).handle_login_retried(event);
    }

    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        (**self).handle_connection_opened(event);
    }

    fn handle_connect_failed(&self, event: &ConnectFailed<'_>) {
        (**self).handle_connect_failed(event);
    }

    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        (**self).handle_connection_retired(event);
    }
}

/// See [`HandleAuthEvent::handle_token_signed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TokenSigned<'a> {
    /// The token, for its id and its dates.
    pub token: &'a Token,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
    /// How long it took, with the fetch of the credentials where one was due.
    pub took: Duration,
}

/// See [`HandleAuthEvent::handle_refresh_failed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RefreshFailed<'a> {
    /// Why.
    pub error: &'a Error,
    /// The token that goes on being used, if there is one that is still good.
    pub stale: Option<&'a Token>,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_stale_served`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StaleServed<'a> {
    /// The token, which is good for a while yet.
    pub token: &'a Token,
    /// How long before it was issued.
    pub token_age: Duration,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_login_refused`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRefused<'a> {
    /// What was sent as the password, if anything was.
    pub token: Option<&'a Token>,
    /// How long before it was issued.
    pub token_age: Duration,
    /// What the server said.
    pub error: &'a Error,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_login_retried`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRetried<'a> {
    /// The token of the second attempt.
    pub token: &'a Token,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_connection_opened`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionOpened<'a> {
    /// What was sent as the password, if anything was.
    pub token: Option<&'a Token>,
    /// How long it took, with the token and a second attempt where one was made.
    pub took: Duration,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_connect_failed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectFailed<'a> {
    /// Why. Its kind tells a refusal from a network that is down.
    pub error: &'a Error,
    /// How long it took.
    pub took: Duration,
    /// The server was not asked, since it has refused so many logins lately. The error is that of the
    /// last.
    pub was_rate_limited: bool,
    /// Whom it is for; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_connection_retired`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionRetired {
    /// The connection's id as r2d2's events give it.
    pub id: u64,
    /// How long it was open.
    pub age: Duration,
    /// Why.
    pub reason: RetireReason,
}

/// Why a pooled connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetireReason {
    /// It had come to the end of its lifetime.
    Lifetime,
    /// It was opened before a [`retire_all`](crate::retire_all).
    RetireAll,
    /// Its server took no writes any more, and the pool is a
    /// [writer's](crate::ManagerBuilder::writer).
    ReadOnly,
}
