//! Events of tokens and connections, and their counters.
//!
//! Events carry ids, ages and kinds, and never a secret. Each is logged at DEBUG. Above that the log has only
//! what an operator needs: that something stopped working, and that it works again.

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

/// A handler of the events of tokens and connections. Every method does nothing by default.
///
/// The methods are called on the thread of the event, which may be the thread that signs tokens for the whole
/// process. They must not block. A panic in one is caught and logged.
pub trait HandleAuthEvent: Send + Sync + 'static {
    /// A token was signed, or another rotating password fetched.
    fn handle_token_signed(&self, event: &TokenSigned<'_>) {
        let _ = event;
    }

    /// A refresh failed.
    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        let _ = event;
    }

    /// A token was used whose refresh is due or has failed.
    fn handle_stale_served(&self, event: &StaleServed<'_>) {
        let _ = event;
    }

    /// The server refused a login.
    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        let _ = event;
    }

    /// A login with a cached token was refused, and is retried with a new one.
    fn handle_login_retried(&self, event: &LoginRetried<'_>) {
        let _ = event;
    }

    /// A connection was opened.
    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        let _ = event;
    }

    /// A connection could not be opened.
    fn handle_connect_failed(&self, event: &ConnectFailed<'_>) {
        let _ = event;
    }

    /// A working pooled connection was retired.
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
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
    /// The duration, including a fetch of credentials if one was due.
    pub took: Duration,
}

/// See [`HandleAuthEvent::handle_refresh_failed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RefreshFailed<'a> {
    /// The reason.
    pub error: &'a Error,
    /// The token that remains in use, if it is still valid.
    pub stale: Option<&'a Token>,
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_stale_served`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StaleServed<'a> {
    /// The token, which is still valid.
    pub token: &'a Token,
    /// Its age.
    pub token_age: Duration,
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_login_refused`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRefused<'a> {
    /// The token that was sent as the password, if any.
    pub token: Option<&'a Token>,
    /// Its age.
    pub token_age: Duration,
    /// The error, with the server's message.
    pub error: &'a Error,
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_login_retried`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRetried<'a> {
    /// The token of the second attempt.
    pub token: &'a Token,
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_connection_opened`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionOpened<'a> {
    /// The token that was sent as the password, if any.
    pub token: Option<&'a Token>,
    /// The duration, including the token and a second attempt.
    pub took: Duration,
    /// The endpoint; `None` for a password that is not an IAM token. With a [cluster](crate::ManagerBuilder::cluster)
    /// that is the dialled member's, or that of the cluster's name.
    pub endpoint: Option<&'a Endpoint>,
    /// The identifier of the cluster's member that the connection leads to, if it is known.
    pub member: Option<&'a str>,
}

/// See [`HandleAuthEvent::handle_connect_failed`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectFailed<'a> {
    /// The error. Its kind distinguishes a refusal from a network failure.
    pub error: &'a Error,
    /// The duration.
    pub took: Duration,
    /// Whether the login was rate-limited and the server not contacted. The error is then the last refusal.
    pub was_rate_limited: bool,
    /// The endpoint; `None` for a password that is not an IAM token.
    pub endpoint: Option<&'a Endpoint>,
}

/// See [`HandleAuthEvent::handle_connection_retired`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionRetired {
    /// The connection's id, as in r2d2's events.
    pub id: u64,
    /// Its age.
    pub age: Duration,
    /// The reason.
    pub reason: RetireReason,
}

/// Why a pooled connection was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetireReason {
    /// Its lifetime ended.
    Lifetime,
    /// It was opened before a [`retire_all`](crate::retire_all).
    RetireAll,
    /// Its server no longer accepts writes, and the pool is a
    /// [writer's](crate::ManagerBuilder::writer).
    ReadOnly,
}
