//! The source of one password: its cache, its refresh, and its replacement after a refusal. It serves IAM
//! tokens and any other secret with an expiry.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::login_limiter::LoginLimiter;
use crate::cache::{Abandoned, Cache, Expiring, Freshness, Lookup, Refresh, Waiter};
use crate::clock::{Clock, Moment};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, RefreshFailed, StaleServed, TokenSigned};
use crate::runtime::{self, Runtime};
use crate::token::Token;

/// The shortest interval between two replacements of refused tokens, over all threads. A server that refuses
/// everything therefore costs one signature a second.
const LEAST_TIME_BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(1);

/// Added to the refresh time-out, which limits the work itself, for handing it to the thread and back.
const GRACE: Duration = Duration::from_secs(2);

/// A signing thread that runs no task for so long is blocked. Time in which the process is suspended does not
/// count.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);

/// The number of steps of a wait, so that time in which the process is suspended counts as one.
const STEPS: u32 = 16;

pub(crate) type Fetched = Result<Token, Error>;

pub(crate) type FetchFuture = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// Fetches a password.
pub(crate) trait FetchToken: Send + Sync + 'static {
    /// Fetches a password that is better than `current`. Called on the signing thread; has its own time limit.
    fn fetch(self: Arc<Self>, current: Option<Arc<Token>>) -> FetchFuture;

    /// Makes a password at once, on any thread, if no wait is needed.
    fn fetch_at_once(&self) -> Option<Fetched> {
        None
    }

    /// The endpoint, if the password is for one.
    fn endpoint(&self) -> Option<&Endpoint>;

    /// The origin of the password, for messages about a refusal.
    fn provenance(&self) -> Option<Provenance>;

    /// Whether a fetch at `now` would return `token` again.
    fn would_be_identical(&self, token: &Token, now: &Moment) -> bool;

    /// Reports that the server refused a password that was just fetched. Returns work for the signing thread that
    /// checks whether its credentials are still valid, if that is due.
    fn refused(&self) -> Option<Recheck> {
        None
    }

    /// The same, before a second attempt: only if what it was made of has been replaced at its source since.
    fn fetch_if_replaced(&self) -> Option<Recheck> {
        None
    }

    /// Reports that the server accepted a password.
    fn accepted(&self) {}
}

pub(crate) type Recheck = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The signing settings of a token, for messages.
#[derive(Debug)]
pub(crate) struct Provenance {
    /// `None` before the first token, if the region comes from the AWS configuration.
    pub(crate) region: Option<String>,
    /// The source of the credentials, as configured and, after the first token, as found.
    pub(crate) credentials: String,
    pub(crate) token_lifetime: Duration,
}

/// Shared by the sources of one identity.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) refresh_timeout: Duration,
    /// Started at the first use. The thread ends with the last handle.
    pub(crate) runtime: Mutex<Option<Arc<Runtime>>>,
}

impl Shared {
    /// Runs `work` on the signing thread, and waits for it.
    pub(super) fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if runtime::is_signing_thread() {
            return Err(waits_for_itself());
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let limit = self.refresh_timeout;
        let runtime = self.runtime()?;
        runtime.spawn(async move {
            let done = runtime::within(limit, work).await;
            // The caller may have timed out.
            let _ = sender.send(done.unwrap_or_else(|| Err(timed_out(limit))));
        });
        let limit = limit + GRACE;
        let mut left = limit;
        while !left.is_zero() {
            let step = left.min(BLOCKED_AFTER);
            let probe = runtime.probe();
            for _ in 0..STEPS {
                match receiver.recv_timeout(step / STEPS) {
                    Ok(done) => return done,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(Abandoned.into()),
                }
            }
            left -= step;
            if !probe.was_answered() && runtime.replace_blocked() {
                // The work stays on the thread that is blocked; the next call finds another one.
                return Err(thread_is_blocked(BLOCKED_AFTER));
            }
        }
        Err(timed_out(limit))
    }

    fn runtime(&self) -> Result<Arc<Runtime>, Error> {
        let held = self.runtime.lock().clone();
        if let Some(runtime) = held
            && runtime.is_usable()
        {
            return Ok(runtime);
        }
        let runtime = Runtime::shared()?;
        // A blocked thread ends by itself when the last handle to it is dropped.
        let replaced = self.runtime.lock().replace(runtime.clone());
        drop(replaced);
        Ok(runtime)
    }
}

/// The source of tokens for one endpoint, with their cache.
///
/// Cheap to clone; clones share the cache. Created by [`IamAuth::source`](crate::IamAuth::source).
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

struct Inner {
    cache: Arc<Cache<Token, Error>>,
    fetch: Arc<dyn FetchToken>,
    shared: Arc<Shared>,
    /// When a refused token was last replaced.
    replaced: Mutex<Option<Moment>>,
    /// The id of the last token that was refused when it was new. It may be in the cache for a second more,
    /// and a second refusal of it is no reason for another attempt.
    last_refused: AtomicU64,
    /// By the settings of the login: with other ones, the server may decide otherwise.
    limiters: Mutex<HashMap<String, Weak<LoginLimiter>>>,
}

/// A token for one login.
#[derive(Clone)]
pub(crate) struct IssuedPassword {
    pub(crate) token: Arc<Token>,
    /// Whether it was cached, rather than fetched for this login or as a replacement. Only then is a refusal
    /// worth a second attempt.
    pub(crate) is_cached: bool,
}

impl TokenSource {
    pub(crate) fn new(fetch: Arc<dyn FetchToken>, shared: Arc<Shared>) -> TokenSource {
        TokenSource(Arc::new(Inner {
            cache: Arc::new(Cache::new()),
            fetch,
            shared,
            replaced: Mutex::new(None),
            last_refused: AtomicU64::new(0),
            limiters: Mutex::default(),
        }))
    }

    /// Returns a token that is valid for a login now.
    ///
    /// A fresh token costs a read lock and two clock reads. A stale one is returned at once and refreshed in
    /// the background. If there is none, or it has expired, all callers wait for the same fetch, for the
    /// refresh time-out at most.
    ///
    /// # Errors
    ///
    /// Those of the credentials, [`ErrorKind::Configuration`] without a region, and
    /// [`ErrorKind::Internal`]. A failure is remembered for a second.
    #[inline]
    pub fn token(&self) -> Result<Arc<Token>, Error> {
        self.issue_within(Duration::MAX).map(|issued| issued.token)
    }

    /// A token, for which the caller waits for at most `limit`. A fetch that takes longer goes on for the
    /// next caller.
    #[inline]
    pub(crate) fn issue_within(&self, limit: Duration) -> Result<IssuedPassword, Error> {
        let now = self.0.shared.clock.now();
        match self.0.cache.fresh_at(&now) {
            Some(token) if !self.is_known_to_be_refused(&token) => {
                Ok(IssuedPassword::cached(token))
            }
            _ => self.issue_slowly(&now, limit),
        }
    }

    #[cold]
    fn issue_slowly(&self, now: &Moment, limit: Duration) -> Result<IssuedPassword, Error> {
        if let Some(token) = self.0.cache.peek()
            && self.is_known_to_be_refused(&token)
            && self.may_replace(now)
        {
            self.0.cache.discard(&token);
        }
        match self.0.cache.look_up(now) {
            Lookup::Value(token, refresh) => {
                if let Some(refresh) = refresh {
                    self.spawn_refresh(refresh, *now);
                }
                if token.freshness_at(now) != Freshness::Fresh {
                    self.0.shared.events.stale_served(&StaleServed {
                        token: &token,
                        token_age: token.age_at(now),
                        endpoint: self.0.fetch.endpoint(),
                    });
                }
                Ok(IssuedPassword::cached(token))
            }
            Lookup::Wait(waiter, refresh) => {
                if let Some(refresh) = refresh {
                    match self.0.fetch.fetch_at_once() {
                        Some(fetched) => self.context().complete(refresh, fetched, now),
                        None => self.spawn_refresh(refresh, *now),
                    }
                }
                let token = self.wait(&waiter, limit)?;
                Ok(IssuedPassword {
                    token,
                    is_cached: false,
                })
            }
            Lookup::Failed(error) => Err(error),
        }
    }

    /// Waits for a refresh. If the thread that runs it is blocked, another refresh is started on another
    /// thread.
    fn wait(&self, waiter: &Waiter<Token, Error>, limit: Duration) -> Result<Arc<Token>, Error> {
        if let Some(result) = waiter.wait(Duration::ZERO) {
            return result;
        }
        if runtime::is_signing_thread() {
            return Err(waits_for_itself());
        }
        let longest = self.0.shared.refresh_timeout + GRACE;
        let mut left = limit.min(longest);
        let mut restarted = None;
        while !left.is_zero() {
            let runtime = self.0.shared.runtime()?;
            let probe = runtime.probe();
            let step = left.min(BLOCKED_AFTER);
            left -= step;
            let waiter = restarted.as_ref().unwrap_or(waiter);
            if let Some(result) = waiter.wait(step) {
                return result;
            }
            if step == BLOCKED_AFTER && !probe.was_answered() {
                if !runtime.replace_blocked() {
                    return Err(thread_is_blocked(step));
                }
                self.0.cache.give_up(waiter);
                match self.restart() {
                    Ok(other) => restarted = Some(other),
                    Err(result) => return result,
                }
            }
        }
        if limit < longest {
            return Err(out_of_time(limit));
        }
        Err(timed_out(longest))
    }

    /// Starts the refresh that was given up once more, unless another caller has. Returns a waiter for it, or
    /// the result that there is by now.
    fn restart(&self) -> Result<Waiter<Token, Error>, Result<Arc<Token>, Error>> {
        let now = self.0.shared.clock.now();
        let (waiter, refresh) = match self.0.cache.look_up(&now) {
            Lookup::Value(token, refresh) => {
                if let Some(refresh) = refresh {
                    self.spawn_refresh(refresh, now);
                }
                return Err(Ok(token));
            }
            Lookup::Failed(error) => return Err(Err(error)),
            Lookup::Wait(waiter, refresh) => (waiter, refresh),
        };
        if let Some(refresh) = refresh {
            self.spawn_refresh(refresh, now);
        }
        Ok(waiter)
    }

    /// Returns a token for a second attempt after the server refused `refused`, or `None` if another attempt
    /// would not be better.
    ///
    /// Removes exactly the refused token from the cache. If another thread has replaced it already, returns
    /// that replacement.
    pub(crate) fn replace(
        &self,
        refused: &IssuedPassword,
        limit: Duration,
    ) -> Result<Option<IssuedPassword>, Error> {
        let now = self.0.shared.clock.now();
        // The source can change as often as it likes, but each change is found once.
        let fetch = self.0.fetch.fetch_if_replaced();
        // Without a thread, the new token would be signed as before.
        let is_replaced_at_source = fetch.is_some_and(|fetch| self.spawn(fetch));
        let is_new = !refused.is_cached || self.is_known_to_be_refused(&refused.token);
        if is_new && !is_replaced_at_source {
            let id = refused.token.id();
            self.0.last_refused.store(id, Ordering::Relaxed);
            if self.may_replace(&now) {
                self.0.cache.discard(&refused.token);
            }
            if let Some(recheck) = self.0.fetch.refused() {
                // Without a thread there is no check, and the next refusal requests another.
                self.spawn(recheck);
            }
            return Ok(None);
        }
        let is_current = self
            .0
            .cache
            .peek()
            .is_some_and(|current| Arc::ptr_eq(&current, &refused.token));
        if is_current {
            let is_futile = !is_replaced_at_source
                && (self.0.fetch.would_be_identical(&refused.token, &now)
                    || !self.may_replace(&now));
            if is_futile {
                return Ok(None);
            }
            self.0.cache.discard(&refused.token);
        }
        let replacement = IssuedPassword {
            is_cached: false,
            ..self.issue_within(limit)?
        };
        // The same token would be refused again.
        let differs = replacement.token.expose_secret() != refused.token.expose_secret();
        Ok(differs.then_some(replacement))
    }

    /// Runs `work` on the signing thread. Returns false if there is no thread.
    fn spawn(&self, work: Recheck) -> bool {
        let runtime = self.0.shared.runtime();
        runtime.map(|runtime| runtime.spawn(work)).is_ok()
    }

    /// The limiter of all logins with this source and these settings.
    pub(crate) fn limiter(&self, settings: &str) -> Arc<LoginLimiter> {
        let mut limiters = self.0.limiters.lock();
        if let Some(limiter) = limiters.get(settings).and_then(Weak::upgrade) {
            return limiter;
        }
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        let limiter = Arc::default();
        limiters.insert(settings.to_owned(), Arc::downgrade(&limiter));
        limiter
    }

    /// Whether anything except the identity's own map has this source.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The server accepted a token of this source.
    pub(crate) fn accepted(&self) {
        self.0.fetch.accepted();
    }

    pub(crate) fn provenance(&self) -> Option<Provenance> {
        self.0.fetch.provenance()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    #[inline]
    fn is_known_to_be_refused(&self, token: &Token) -> bool {
        self.0.last_refused.load(Ordering::Relaxed) == token.id()
    }

    fn may_replace(&self, now: &Moment) -> bool {
        let mut replaced = self.0.replaced.lock();
        let is_too_soon =
            replaced.is_some_and(|last| now.since(&last) < LEAST_TIME_BETWEEN_REPLACEMENTS);
        if !is_too_soon {
            *replaced = Some(*now);
        }
        !is_too_soon
    }

    /// Makes the signing thread run `refresh`.
    fn spawn_refresh(&self, refresh: Refresh<Token, Error>, started: Moment) {
        let runtime = match self.0.shared.runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                refresh.complete(Err(error), &started);
                return;
            }
        };
        let context = self.context();
        runtime.spawn(async move {
            let fetched = context.fetch.clone().fetch(context.cache.peek()).await;
            context.complete(refresh, fetched, &started);
        });
    }

    fn context(&self) -> RefreshContext {
        RefreshContext {
            cache: self.0.cache.clone(),
            fetch: self.0.fetch.clone(),
            clock: self.0.shared.clock.clone(),
            events: self.0.shared.events.clone(),
        }
    }
}

/// What a refresh needs. It does not hold the signing thread: a task on that thread would otherwise keep the
/// thread, and itself, alive.
struct RefreshContext {
    cache: Arc<Cache<Token, Error>>,
    fetch: Arc<dyn FetchToken>,
    clock: Clock,
    events: Events,
}

impl RefreshContext {
    fn complete(&self, refresh: Refresh<Token, Error>, fetched: Fetched, started: &Moment) {
        let now = self.clock.now();
        let endpoint = self.fetch.endpoint();
        let failure = match &fetched {
            Ok(token) => {
                self.events.token_signed(&TokenSigned {
                    token,
                    endpoint,
                    took: now.since(started),
                });
                None
            }
            Err(error) => Some(error.clone()),
        };
        let completed = refresh.complete(fetched, &now);
        if completed.was_given_up {
            return;
        }
        match failure {
            Some(error) => {
                let stale = self.cache.peek().filter(|token| token.is_usable_at(&now));
                let event = RefreshFailed {
                    error: &error,
                    stale: stale.as_deref(),
                    endpoint,
                };
                self.events
                    .refresh_failed(&event, completed.consecutive_failures == 0);
            }
            None if completed.consecutive_failures > 0 => self
                .events
                .refresh_works(endpoint, completed.consecutive_failures),
            None => {}
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("endpoint", &self.0.fetch.endpoint())
            .field("token", &self.0.cache.peek())
            .finish_non_exhaustive()
    }
}

impl IssuedPassword {
    #[inline]
    fn cached(token: Arc<Token>) -> IssuedPassword {
        IssuedPassword {
            token,
            is_cached: true,
        }
    }
}

impl From<Abandoned> for Error {
    fn from(_: Abandoned) -> Error {
        Error::new(
            ErrorKind::Internal,
            "the request for a token was cancelled: the source of credentials panicked, or the last user \
             of this identity was dropped meanwhile",
        )
    }
}

fn out_of_time(limit: Duration) -> Error {
    Error::new(
        ErrorKind::CredentialsTimeout,
        format!(
            "no token was available within the {limit:?} that were left to connect; its fetch goes on for \
             the next connection; raise connect_timeout, or use a faster source of credentials"
        ),
    )
}

fn thread_is_blocked(time: Duration) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!(
            "the thread that signs tokens has run no task for {time:?}; use credentials_fn for a credentials \
             provider that blocks, and do not block in an event handler"
        ),
    )
}

fn waits_for_itself() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a token was requested on the thread that signs tokens, which would wait for itself; use \
         credentials_fn for a credentials provider that needs one, and request none in an event handler",
    )
}

pub(super) fn timed_out(limit: Duration) -> Error {
    Error::new(
        ErrorKind::CredentialsTimeout,
        format!(
            "the source of aws credentials did not answer within {limit:?}; check that it can be \
             reached, or raise iam_credentials_timeout"
        ),
    )
}
