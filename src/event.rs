//! What happens, told to whoever wants to know, and counted.
//!
//! Events carry ids, ages and kinds, and never a secret.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        (**self).handle_login_refused(event);
    }

    fn handle_login_retried(&self, event: &LoginRetried<'_>) {
        (**self).handle_login_retried(event);
    }

    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        (**self).handle_connection_opened(event);
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
}

/// See [`HandleAuthEvent::handle_login_retried`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LoginRetried<'a> {
    /// The token of the second attempt.
    pub token: &'a Token,
}

/// See [`HandleAuthEvent::handle_connection_opened`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionOpened<'a> {
    /// What was sent as the password, if anything was.
    pub token: Option<&'a Token>,
    /// How long it took, with the token and a second attempt where one was made.
    pub took: Duration,
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

/// How often each thing happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens signed, or other rotating passwords fetched.
    pub tokens_signed: u64,
    /// Attempts to get a token that failed.
    pub refreshes_failed: u64,
    /// Logins that the server refused, first and second attempts alike.
    pub logins_refused: u64,
    /// Second attempts with a new token.
    pub logins_retried: u64,
    /// Connections logged in.
    pub connections_opened: u64,
    /// Pooled connections given up though they worked; see [`RetireReason`].
    pub connections_retired: u64,
}

/// Where events go: the counters, the log, and the user's handler.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    handler: Option<Box<dyn HandleAuthEvent>>,
    tokens_signed: AtomicU64,
    refreshes_failed: AtomicU64,
    logins_refused: AtomicU64,
    logins_retried: AtomicU64,
    connections_opened: AtomicU64,
    connections_retired: AtomicU64,
}

impl Events {
    pub(crate) fn new(handler: Option<Box<dyn HandleAuthEvent>>) -> Events {
        Events(Arc::new(Inner {
            handler,
            ..Inner::default()
        }))
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            tokens_signed: count(&self.0.tokens_signed),
            refreshes_failed: count(&self.0.refreshes_failed),
            logins_refused: count(&self.0.logins_refused),
            logins_retried: count(&self.0.logins_retried),
            connections_opened: count(&self.0.connections_opened),
            connections_retired: count(&self.0.connections_retired),
        }
    }

    pub(crate) fn token_signed(&self, event: &TokenSigned<'_>) {
        tracing::debug!(
            token = event.token.id(),
            host = event.endpoint.map(Endpoint::host),
            user = event.endpoint.map(Endpoint::user),
            took = ?event.took,
            "token signed"
        );
        count(&self.0.tokens_signed);
        self.tell(|handler| handler.handle_token_signed(event));
    }

    /// `first` of a row of failures: only that one is worth a line in a production log.
    pub(crate) fn refresh_failed(&self, event: &RefreshFailed<'_>, first: bool) {
        let stale = event.stale.map(Token::id);
        if first {
            tracing::warn!(error = %event.error, stale, "token refresh failed");
        } else {
            tracing::debug!(error = %event.error, stale, "token refresh failed again");
        }
        count(&self.0.refreshes_failed);
        self.tell(|handler| handler.handle_refresh_failed(event));
    }

    pub(crate) fn login_refused(&self, event: &LoginRefused<'_>) {
        tracing::warn!(
            token = event.token.map(Token::id),
            token_age = ?event.token_age,
            error = %event.error,
            "login refused"
        );
        count(&self.0.logins_refused);
        self.tell(|handler| handler.handle_login_refused(event));
    }

    pub(crate) fn login_retried(&self, event: &LoginRetried<'_>) {
        tracing::debug!(token = event.token.id(), "login retried with a new token");
        count(&self.0.logins_retried);
        self.tell(|handler| handler.handle_login_retried(event));
    }

    pub(crate) fn connection_opened(&self, event: &ConnectionOpened<'_>) {
        tracing::debug!(token = event.token.map(Token::id), took = ?event.took, "connection opened");
        count(&self.0.connections_opened);
        self.tell(|handler| handler.handle_connection_opened(event));
    }

    pub(crate) fn connection_retired(&self, event: &ConnectionRetired) {
        tracing::debug!(
            id = event.id,
            age = ?event.age,
            reason = ?event.reason,
            "connection retired"
        );
        count(&self.0.connections_retired);
        self.tell(|handler| handler.handle_connection_retired(event));
    }

    fn tell(&self, call: impl FnOnce(&dyn HandleAuthEvent)) {
        let Some(handler) = self.0.handler.as_deref() else {
            return;
        };
        // The handler is the user's: its panic must not lose a slot of the pool or the signing thread.
        if panic::catch_unwind(AssertUnwindSafe(|| call(handler))).is_err() {
            tracing::error!("the event handler panicked");
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
