//! Sends events to the log, the counters, the facade `metrics` and the user's handler.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "metrics")]
use super::metrics;
use super::{
    ConnectFailed, ConnectionOpened, ConnectionRetired, HandleAuthEvent, LoginRefused,
    LoginRetried, Recovered, RefreshFailed, StaleServed, TokenSigned,
};
use crate::endpoint::Endpoint;
use crate::token::Token;

/// Counters of events since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tokens signed, or other rotating passwords fetched.
    pub tokens_signed: u64,
    /// Failed refreshes.
    pub refreshes_failed: u64,
    /// Tokens used although their refresh was due.
    pub stale_served: u64,
    /// Logins that the server refused, including second attempts.
    pub logins_refused: u64,
    /// Second attempts with a new token.
    pub logins_retried: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Those of them that lead to a known member of a [cluster](crate::ManagerBuilder::cluster).
    pub connections_to_members: u64,
    /// Connections that could not be opened.
    pub connects_failed: u64,
    /// Those of them that were rate-limited, so that the server was not contacted.
    pub connects_rate_limited: u64,
    /// Working pooled connections that were retired; see
    /// [`RetireReason`](crate::RetireReason).
    pub connections_retired: u64,
}

/// The sink of all events of an identity.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Inner>);

#[derive(Default)]
struct Inner {
    handler: Option<Box<dyn HandleAuthEvent>>,
    tokens_signed: AtomicU64,
    refreshes_failed: AtomicU64,
    stale_served: AtomicU64,
    logins_refused: AtomicU64,
    logins_retried: AtomicU64,
    connections_opened: AtomicU64,
    connections_to_members: AtomicU64,
    connects_failed: AtomicU64,
    connects_rate_limited: AtomicU64,
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
            stale_served: count(&self.0.stale_served),
            logins_refused: count(&self.0.logins_refused),
            logins_retried: count(&self.0.logins_retried),
            connections_opened: count(&self.0.connections_opened),
            connections_to_members: count(&self.0.connections_to_members),
            connects_failed: count(&self.0.connects_failed),
            connects_rate_limited: count(&self.0.connects_rate_limited),
            connections_retired: count(&self.0.connections_retired),
        }
    }

    pub(crate) fn token_signed(&self, event: &TokenSigned<'_>) {
        let (token, took) = (event.token.id(), event.took);
        let (host, user) = names(event.endpoint);
        tracing::debug!(token, host, user, ?took, "token signed");
        count(&self.0.tokens_signed);
        #[cfg(feature = "metrics")]
        metrics::token_signed(event);
        self.tell(|handler| handler.handle_token_signed(event));
    }

    /// `first` is true for the first of consecutive failures, which is the one that is logged at WARN.
    pub(crate) fn refresh_failed(&self, event: &RefreshFailed<'_>, first: bool) {
        let (error, stale) = (event.error, event.stale.map(Token::id));
        let (host, user) = names(event.endpoint);
        if first {
            tracing::warn!(%error, host, user, stale, "token refresh failed");
        } else {
            tracing::debug!(%error, host, user, stale, "token refresh failed again");
        }
        count(&self.0.refreshes_failed);
        #[cfg(feature = "metrics")]
        metrics::refresh_failed(event);
        self.tell(|handler| handler.handle_refresh_failed(event));
    }

    /// Logs the recovery after consecutive failures.
    pub(crate) fn refresh_works(&self, endpoint: Option<&Endpoint>, failures: u32) {
        let (host, user) = names(endpoint);
        tracing::info!(host, user, failures, "token refresh works again");
    }

    pub(crate) fn stale_served(&self, event: &StaleServed<'_>) {
        let (token, token_age) = (event.token.id(), event.token_age);
        let (host, user) = names(event.endpoint);
        tracing::debug!(token, ?token_age, host, user, "stale token served");
        count(&self.0.stale_served);
        #[cfg(feature = "metrics")]
        metrics::stale_served();
        self.tell(|handler| handler.handle_stale_served(event));
    }

    pub(crate) fn login_refused(&self, event: &LoginRefused<'_>) {
        let (token, token_age) = (event.token.map(Token::id), event.token_age);
        let (host, user) = names(event.endpoint);
        let error = event.error;
        tracing::debug!(token, ?token_age, host, user, %error, "login refused");
        count(&self.0.logins_refused);
        #[cfg(feature = "metrics")]
        metrics::login_refused();
        self.tell(|handler| handler.handle_login_refused(event));
    }

    pub(crate) fn login_retried(&self, event: &LoginRetried<'_>) {
        let token = event.token.id();
        let (host, user) = names(event.endpoint);
        tracing::debug!(token, host, user, "login retried with a new token");
        count(&self.0.logins_retried);
        #[cfg(feature = "metrics")]
        metrics::login_retried();
        self.tell(|handler| handler.handle_login_retried(event));
    }

    /// `over` has the consecutive failures that this ends, if they were logged.
    pub(crate) fn connection_opened(&self, event: &ConnectionOpened<'_>, over: Option<Recovered>) {
        let (token, took) = (event.token.map(Token::id), event.took);
        let (host, user) = names(event.endpoint);
        if let Some(Recovered { failures, after }) = over {
            tracing::info!(
                host,
                user,
                failures,
                ?after,
                "connections can be opened again"
            );
        }
        let member = event.member;
        tracing::debug!(token, host, user, member, ?took, "connection opened");
        count(&self.0.connections_opened);
        if member.is_some() {
            count(&self.0.connections_to_members);
        }
        #[cfg(feature = "metrics")]
        metrics::connection_opened(event);
        self.tell(|handler| handler.handle_connection_opened(event));
    }

    /// `is_news` is true for the first of consecutive failures.
    pub(crate) fn connect_failed(&self, event: &ConnectFailed<'_>, is_news: bool) {
        let (error, took) = (event.error, event.took);
        let (host, user) = names(event.endpoint);
        if is_news {
            tracing::warn!(%error, host, user, "connections cannot be opened");
        } else {
            tracing::debug!(%error, host, user, ?took, "connect failed");
        }
        count(&self.0.connects_failed);
        if event.was_rate_limited {
            count(&self.0.connects_rate_limited);
        }
        #[cfg(feature = "metrics")]
        metrics::connect_failed(event);
        self.tell(|handler| handler.handle_connect_failed(event));
    }

    pub(crate) fn connection_retired(&self, event: &ConnectionRetired) {
        tracing::debug!(
            id = event.id,
            age = ?event.age,
            reason = ?event.reason,
            "connection retired"
        );
        count(&self.0.connections_retired);
        #[cfg(feature = "metrics")]
        metrics::connection_retired(event);
        self.tell(|handler| handler.handle_connection_retired(event));
    }

    fn tell(&self, call: impl FnOnce(&dyn HandleAuthEvent)) {
        let Some(handler) = self.0.handler.as_deref() else {
            return;
        };
        // A panic of the user's handler must neither lose a slot of the pool nor end the signing thread.
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

/// Host and user, for the log.
fn names(endpoint: Option<&Endpoint>) -> (Option<&str>, Option<&str>) {
    endpoint.map(|it| (it.host(), it.user())).unzip()
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
