//! One password that is kept fresh: the cache, the thread that refreshes it, and what to do when the
//! server refuses it. It serves IAM tokens and any other secret with an end.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use super::backoff::Backoff;
use super::signer::timed_out;
use crate::cache::{Abandoned, Answer, Cache, Flight, Freshness, Perishable};
use crate::clock::{Clock, Moment};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, RefreshFailed, StaleServed, TokenSigned};
use crate::runtime::{self, Runtime};
use crate::token::Token;

/// After a refusal a token is dropped before its time no more often than this, however many threads
/// want it, so that a server that refuses everything costs one signature a second.
const LEAST_TIME_BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(1);

/// Beyond the refresh timeout, which bounds the work itself, this is for handing it over and back. A
/// machine that stood still for a moment must not pass for a thread that is stuck.
const GRACE: Duration = Duration::from_secs(2);

pub(crate) type Fetched = Result<Token, Error>;

pub(crate) type FetchFuture = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// Where a password comes from.
pub(crate) trait FetchToken: Send + Sync + 'static {
    /// Gets one that is better than `current`. Called on the signing thread; bounds itself in time.
    fn fetch(self: Arc<Self>, current: Option<Arc<Token>>) -> FetchFuture;

    /// Gets one where nothing has to be waited for, on any thread.
    fn fetch_at_once(&self) -> Option<Fetched> {
        None
    }

    /// Whom it is for, where that is known.
    fn endpoint(&self) -> Option<&Endpoint>;

    /// What it is made of, for whoever has to find out why it was refused.
    fn provenance(&self) -> Option<Provenance>;

    /// Whether a fetch at `now` would bring `token` again.
    fn would_repeat(&self, token: &Token, now: &Moment) -> bool;

    /// The server refused one that was just fetched: do not trust what it was made of.
    fn distrust(&self);
}

/// What a token is signed with.
#[derive(Debug)]
pub(crate) struct Provenance {
    /// `None` before the first token, where it comes from the AWS configuration.
    pub(crate) region: Option<String>,
    /// Where the credentials come from, as configured and, after the first token, as found.
    pub(crate) credentials: String,
    pub(crate) token_lifetime: Duration,
}

/// What the sources of one identity share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) refresh_timeout: Duration,
    /// Taken at the first need; the thread ends with the last who holds it.
    pub(crate) runtime: Mutex<Option<Arc<Runtime>>>,
}

impl Shared {
    /// Runs `work` on the signing thread, and waits for it.
    pub(super) fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let limit = self.refresh_timeout;
        self.runtime()?.spawn(async move {
            let done = runtime::within(limit, work).await;
            // Whoever waited may have given up.
            let _ = sender.send(done.unwrap_or_else(|| Err(timed_out(limit))));
        });
        let limit = limit + GRACE;
        receiver
            .recv_timeout(limit)
            .map_err(|_| thread_is_stuck(limit))?
    }

    fn runtime(&self) -> Result<Arc<Runtime>, Error> {
        let mut held = self.runtime.lock();
        if let Some(runtime) = held.as_ref()
            && runtime.belongs_to_this_process()
        {
            return Ok(runtime.clone());
        }
        let runtime = Runtime::shared()?;
        *held = Some(runtime.clone());
        Ok(runtime)
    }
}

/// The tokens of one endpoint: the current one from a cache, the next one when it is due.
///
/// Cheap to clone; clones share the cache. Made by [`IamAuth::source`](crate::IamAuth::source).
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

struct Inner {
    cache: Arc<Cache<Token, Error>>,
    fetch: Arc<dyn FetchToken>,
    shared: Arc<Shared>,
    /// When a refusal last made us drop a token before its time.
    replaced: Mutex<Option<Moment>>,
    /// By what is dialled: another database of the same server may be one that the user may not use.
    backoffs: Mutex<HashMap<String, Weak<Backoff>>>,
}

/// A token to log in with.
#[derive(Clone)]
pub(crate) struct Offer {
    pub(crate) token: Arc<Token>,
    /// It was there already, rather than fetched for this login or to replace one that was refused.
    /// Only then is a refusal worth a second attempt.
    pub(crate) is_cached: bool,
}

impl TokenSource {
    pub(crate) fn new(fetch: Arc<dyn FetchToken>, shared: Arc<Shared>) -> TokenSource {
        TokenSource(Arc::new(Inner {
            cache: Arc::new(Cache::new()),
            fetch,
            shared,
            replaced: Mutex::new(None),
            backoffs: Mutex::default(),
        }))
    }

    /// A token that is good for a login now.
    ///
    /// This is a read lock and two clocks while there is a fresh one. One that is due for refresh is
    /// still returned at once, and replaced in the background. Without one that is still good, all
    /// callers wait for the same fetch, at most for the refresh timeout.
    ///
    /// # Errors
    ///
    /// Those of the credentials, [`ErrorKind::Configuration`] without a region, and
    /// [`ErrorKind::Internal`]. A failure is remembered for a second.
    #[inline]
    pub fn token(&self) -> Result<Arc<Token>, Error> {
        self.offer().map(|offer| offer.token)
    }

    #[inline]
    pub(crate) fn offer(&self) -> Result<Offer, Error> {
        let now = self.0.shared.clock.now();
        match self.0.cache.fresh_at(&now) {
            Some(token) => Ok(Offer::cached(token)),
            None => self.offer_slowly(&now),
        }
    }

    #[cold]
    fn offer_slowly(&self, now: &Moment) -> Result<Offer, Error> {
        match self.0.cache.look_up(now) {
            Answer::Value(token, flight) => {
                if let Some(flight) = flight {
                    self.launch(flight, *now);
                }
                if token.freshness_at(now) != Freshness::Fresh {
                    self.0.shared.events.stale_served(&StaleServed {
                        token: &token,
                        token_age: token.age_at(now),
                        endpoint: self.0.fetch.endpoint(),
                    });
                }
                Ok(Offer::cached(token))
            }
            Answer::Wait(landing, flight) => {
                if let Some(flight) = flight {
                    match self.0.fetch.fetch_at_once() {
                        Some(fetched) => self.ground().land(flight, fetched, now),
                        None => self.launch(flight, *now),
                    }
                }
                let limit = self.0.shared.refresh_timeout + GRACE;
                let token = landing
                    .wait(limit)
                    .ok_or_else(|| thread_is_stuck(limit))??;
                Ok(Offer {
                    token,
                    is_cached: false,
                })
            }
            Answer::Failed(error) => Err(error),
        }
    }

    /// What to log in with after the server refused `refused`; `None` if another attempt would be
    /// no better.
    ///
    /// Drops exactly the token that was refused. Where another thread has replaced it already, that
    /// replacement is taken.
    pub(crate) fn replace(&self, refused: &Offer) -> Result<Option<Offer>, Error> {
        let now = self.0.shared.clock.now();
        if !refused.is_cached {
            if self.may_replace(&now) {
                self.0.cache.discard(&refused.token);
            }
            self.0.fetch.distrust();
            return Ok(None);
        }
        let is_current = self
            .0
            .cache
            .peek()
            .is_some_and(|current| Arc::ptr_eq(&current, &refused.token));
        if is_current {
            if self.0.fetch.would_repeat(&refused.token, &now) || !self.may_replace(&now) {
                return Ok(None);
            }
            self.0.cache.discard(&refused.token);
        }
        let replacement = Offer {
            is_cached: false,
            ..self.offer()?
        };
        // The same text again would be refused again.
        let differs = replacement.token.expose_secret() != refused.token.expose_secret();
        Ok(differs.then_some(replacement))
    }

    /// What all who log in to `target` with this source share for when they are refused.
    pub(crate) fn backoff(&self, target: &str) -> Arc<Backoff> {
        let mut backoffs = self.0.backoffs.lock();
        if let Some(backoff) = backoffs.get(target).and_then(Weak::upgrade) {
            return backoff;
        }
        backoffs.retain(|_, backoff| backoff.strong_count() > 0);
        let backoff = Arc::default();
        backoffs.insert(target.to_owned(), Arc::downgrade(&backoff));
        backoff
    }

    pub(crate) fn provenance(&self) -> Option<Provenance> {
        self.0.fetch.provenance()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
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

    /// Has `flight` made by the signing thread.
    fn launch(&self, flight: Flight<Token, Error>, started: Moment) {
        let runtime = match self.0.shared.runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                flight.land(Err(error), &started);
                return;
            }
        };
        let ground = self.ground();
        runtime.spawn(async move {
            let fetched = ground.fetch.clone().fetch(ground.cache.peek()).await;
            ground.land(flight, fetched, &started);
        });
    }

    fn ground(&self) -> Ground {
        Ground {
            cache: self.0.cache.clone(),
            fetch: self.0.fetch.clone(),
            clock: self.0.shared.clock.clone(),
            events: self.0.shared.events.clone(),
        }
    }
}

/// What a flight lands on. It does not hold the signing thread: a task there that did would keep it,
/// and itself, for ever.
struct Ground {
    cache: Arc<Cache<Token, Error>>,
    fetch: Arc<dyn FetchToken>,
    clock: Clock,
    events: Events,
}

impl Ground {
    fn land(&self, flight: Flight<Token, Error>, fetched: Fetched, started: &Moment) {
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
        let landed = flight.land(fetched, &now);
        match failure {
            Some(error) => {
                let stale = self.cache.peek().filter(|token| token.is_usable_at(&now));
                let event = RefreshFailed {
                    error: &error,
                    stale: stale.as_deref(),
                    endpoint,
                };
                self.events.refresh_failed(&event, landed.setbacks == 0);
            }
            None if landed.setbacks > 0 => self.events.refresh_works(endpoint, landed.setbacks),
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

impl Offer {
    #[inline]
    fn cached(token: Arc<Token>) -> Offer {
        Offer {
            token,
            is_cached: true,
        }
    }
}

impl From<Abandoned> for Error {
    fn from(_: Abandoned) -> Error {
        Error::new(
            ErrorKind::Internal,
            "getting a token was broken off: the source of credentials panicked, or the last user \
             of this identity was dropped meanwhile",
        )
    }
}

fn thread_is_stuck(limit: Duration) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!(
            "the thread that signs tokens did not answer within {limit:?}; a credentials provider \
             must not block it, use credentials_fn for one that blocks"
        ),
    )
}
