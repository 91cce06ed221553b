//! One set of credentials, and the tokens that are signed with it for any number of endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::source::{FetchFuture, FetchToken, Fetched, Provenance, Recheck, timed_out};
use crate::cache::{Cache, Lookup, Waiter};
use crate::clock::{Clock, Moment};
use crate::credentials::{CredentialsInfo, HeldCredentials, Identity, origin};
use crate::endpoint::{Endpoint, RegionSource};
use crate::error::{Error, ErrorKind};
use crate::event::{FailureStreak, Recovered};
use crate::runtime::{self, InPoll};
use crate::sign;
use crate::token::{Schedule, Token};

/// After a new token was refused, credentials are fetched again no sooner than this after the last time. The
/// interval doubles each time, since most refusals have another cause.
const SHORTEST_RECHECK_INTERVAL: Duration = Duration::from_secs(60);

const LONGEST_RECHECK_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// What a token is signed with: one set of credentials for all endpoints.
pub(super) struct Signer {
    pub(super) identity: Arc<Identity>,
    credentials: Arc<Cache<HeldCredentials, Error>>,
    pub(super) token_lifetime: Duration,
    refresh_ahead: bool,
    refresh_timeout: Duration,
    clock: Clock,
    /// The streak of fetches that fail while the held credentials are still valid.
    failures: FailureStreak,
    recheck: Mutex<Recheckings>,
    fetching: Arc<Fetching>,
}

/// The thread on which the credentials are being fetched, to identify a provider that blocks it.
#[derive(Default)]
struct Fetching {
    /// The number of the signing thread that fetches; 0 if none has begun.
    thread: AtomicU64,
    /// Whether the provider is running at present.
    in_poll: InPoll,
}

/// When credentials were fetched again because new tokens were refused.
#[derive(Default)]
struct Recheckings {
    last: Option<Moment>,
    /// The number of consecutive times, without a successful login in between.
    consecutive: u32,
}

impl Recheckings {
    fn interval(&self) -> Duration {
        let doublings = self.consecutive.saturating_sub(1).min(u32::BITS - 1);
        SHORTEST_RECHECK_INTERVAL
            .saturating_mul(1 << doublings)
            .min(LONGEST_RECHECK_INTERVAL)
    }
}

impl Signer {
    pub(super) fn new(
        identity: Identity,
        token_lifetime: Duration,
        refresh_ahead: bool,
        refresh_timeout: Duration,
        clock: Clock,
    ) -> Signer {
        Signer {
            identity: Arc::new(identity),
            credentials: Arc::new(Cache::new()),
            // Fractions of a second cannot be signed.
            token_lifetime: Duration::from_secs(token_lifetime.as_secs()),
            refresh_ahead,
            refresh_timeout,
            clock,
            failures: FailureStreak::default(),
            recheck: Mutex::default(),
            fetching: Arc::default(),
        }
    }

    async fn sign(&self, endpoint: &Endpoint, current: Option<&Token>) -> Fetched {
        let (region, _) = self.region(endpoint).await?;
        let (held, failure) = self.credentials(&region).await?;
        let now = self.clock.now();
        let token = self.presign(endpoint, &region, &held, &now)?;
        match (failure, current) {
            // Signed with the earlier credentials, a new token would expire no later than the current one.
            (Some(failure), Some(current)) if token.usable_until() <= current.usable_until() => {
                Err(failure)
            }
            (Some(failure), _) => {
                if self.failures.failed_at(&now) {
                    tracing::warn!(error = %failure, "signing with credentials that expire soon");
                }
                Ok(token)
            }
            (None, _) => Ok(token),
        }
    }

    /// Signs if the credentials are cached and outlast a token, or are in the environment, and the region is known.
    fn sign_at_once(&self, endpoint: &Endpoint) -> Option<Fetched> {
        let region = endpoint.region()?;
        let now = self.clock.now();
        let held = match self.credentials.fresh_at(&now) {
            Some(held) => Ok(held),
            None => self.credentials_at_once(&now)?,
        };
        Some(held.and_then(|held| self.presign(endpoint, region, &held, &now)))
    }

    /// Returns credentials that need no wait.
    fn credentials_at_once(&self, now: &Moment) -> Option<Result<Arc<HeldCredentials>, Error>> {
        let found = self.identity.at_once()?;
        let Lookup::Wait(waiter, Some(refresh)) = self.credentials.look_up(now) else {
            return None;
        };
        let held = found.map(|it| HeldCredentials::new(it, now, self.token_lifetime));
        refresh.complete(held, now);
        waiter.wait(Duration::ZERO)
    }

    fn presign(
        &self,
        endpoint: &Endpoint,
        region: &str,
        held: &HeldCredentials,
        now: &Moment,
    ) -> Fetched {
        let schedule = Schedule::new(self.refresh_ahead);
        let lifetime = self.token_lifetime;
        sign::presign(endpoint, region, &held.credentials, now, lifetime, schedule)
    }

    /// The region to sign for, and where it was found.
    pub(super) async fn region(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(String, RegionSource), Error> {
        match endpoint.region() {
            Some(region) => Ok((region.to_owned(), endpoint.region_source())),
            None => {
                let region = self.configured_region(endpoint).await?;
                Ok((region, RegionSource::AwsConfiguration))
            }
        }
    }

    /// The signing settings of a token for `endpoint` at present.
    pub(super) async fn credentials_info(
        &self,
        endpoint: &Endpoint,
    ) -> Result<CredentialsInfo, Error> {
        let (region, _) = self.region(endpoint).await?;
        let (held, _) = self.credentials(&region).await?;
        Ok(CredentialsInfo::of(&held.credentials))
    }

    /// The region of the AWS configuration, for a host name without one.
    async fn configured_region(&self, endpoint: &Endpoint) -> Result<String, Error> {
        endpoint.may_be_in_configured_region()?;
        // Off AWS the metadata address may never answer, and then no region comes from there.
        let limit = self.refresh_timeout / 2;
        let region = runtime::within(limit, self.identity.region()).await;
        region.flatten().ok_or_else(|| {
            Error::configuration(format!(
                "no region for host {:?}: its name contains none and the aws configuration names \
                 none; set iam_region in the connection string, or AWS_REGION",
                endpoint.host()
            ))
        })
    }

    /// Returns credentials to sign with. If no others are available, these are the held ones, which expire
    /// within a token's lifetime; then with the reason.
    async fn credentials(
        &self,
        region: &str,
    ) -> Result<(Arc<HeldCredentials>, Option<Error>), Error> {
        if let Some(waiter) = self.credentials.in_flight()
            && self.is_held_up()
        {
            self.credentials.give_up(&waiter);
        }
        let failure = match self.credentials.look_up(&self.clock.now()) {
            Lookup::Value(held, _) => return Ok((held, None)),
            Lookup::Failed(error) => error,
            Lookup::Wait(waiter, refresh) => {
                if let Some(refresh) = refresh {
                    // On a task of its own, so that it outlives the token that needs it.
                    let fetch = self.fetch_credentials(region.to_owned());
                    let clock = self.clock.clone();
                    let thread = runtime::thread_number();
                    self.fetching.thread.store(thread, Ordering::Relaxed);
                    runtime::spawn_here(async move {
                        let fetched = fetch.await;
                        refresh.complete(fetched, &clock.now());
                    });
                }
                match waiter.await {
                    Ok(held) => {
                        if let Some(over) = self.failures.succeeded_at(&self.clock.now()) {
                            let Recovered { failures, after } = over;
                            tracing::info!(failures, ?after, "credentials are available again");
                        }
                        return Ok((held, None));
                    }
                    Err(error) => error,
                }
            }
        };
        match self.credentials.peek() {
            Some(held) if held.are_usable_at(&self.clock.now()) => Ok((held, Some(failure))),
            _ => Err(failure),
        }
    }

    /// Whether the fetch in flight is on another thread, which other code than its own provider blocks.
    fn is_held_up(&self) -> bool {
        let thread = self.fetching.thread.load(Ordering::Relaxed);
        thread != 0 && thread != runtime::thread_number() && !self.fetching.in_poll.get()
    }

    /// The error of a fetch that took longer than the time limit.
    fn timed_out(&self) -> Error {
        match self.fetching.in_poll.get() {
            true => Error::new(
                ErrorKind::Internal,
                format!(
                    "the credentials provider has blocked the thread that signs tokens for {:?}; use \
                     credentials_fn for a provider that blocks",
                    self.refresh_timeout
                ),
            ),
            false => self.identity.timed_out(timed_out(self.refresh_timeout)),
        }
    }

    /// The source of the credentials: as configured, and as found.
    fn describe_credentials(&self) -> String {
        let configured = format!("{:?}", self.identity);
        let held = self.credentials.peek();
        match held.and_then(|held| origin(&held.credentials)) {
            Some(found) => format!("{configured} ({found})"),
            None => configured,
        }
    }

    fn fetch_credentials(
        &self,
        region: String,
    ) -> impl Future<Output = Result<HeldCredentials, Error>> + use<> {
        let identity = self.identity.clone();
        let clock = self.clock.clone();
        let token_lifetime = self.token_lifetime;
        let limit = self.refresh_timeout;
        let fetching = self.fetching.clone();
        async move {
            let attempt = || runtime::marked(&fetching.in_poll, identity.fetch(Some(&region)));
            let fetched = runtime::attempt_within(limit, attempt).await;
            let credentials = fetched.ok_or_else(|| identity.timed_out(timed_out(limit)))??;
            let now = clock.now();
            let held = HeldCredentials::new(credentials, &now, token_lifetime);
            if !held.are_usable_at(&now) {
                return Err(Error::new(
                    ErrorKind::CredentialsExpired,
                    "the source of aws credentials returned some that have expired or expire at once; \
                     renew them (for example with `aws sso login`), or correct this machine's clock",
                ));
            }
            Ok(held)
        }
    }

    /// Fetches the credentials anew, after a new token was refused: they may have been revoked or replaced
    /// at their source. Those that are held serve until others are here. `None` if it is too soon.
    fn recheck_credentials(self: &Arc<Self>, endpoint: &Endpoint) -> Option<Recheck> {
        let now = self.clock.now();
        let mut recheck = self.recheck.lock();
        let interval = recheck.interval();
        if recheck.last.is_some_and(|last| now.since(&last) < interval) {
            return None;
        }
        let fetch = self.fetch_anew(endpoint, &now)?;
        *recheck = Recheckings {
            last: Some(now),
            consecutive: recheck.consecutive.saturating_add(1),
        };
        Some(fetch)
    }

    /// A fetch that starts from nothing; `None` if one is in flight.
    fn fetch_anew(self: &Arc<Self>, endpoint: &Endpoint, now: &Moment) -> Option<Recheck> {
        let region = endpoint.region().map(str::to_owned);
        let region = region.or_else(|| self.identity.known_region())?;
        let refresh = self.credentials.refresh_early(now)?;
        // The SDK's providers cache what they have read or assumed.
        self.identity.forget();
        let fetch = self.fetch_credentials(region);
        let clock = self.clock.clone();
        // Unknown before it begins.
        let fetching = self.fetching.clone();
        fetching.thread.store(0, Ordering::Relaxed);
        Some(Box::pin(async move {
            let thread = runtime::thread_number();
            fetching.thread.store(thread, Ordering::Relaxed);
            let fetched = fetch.await;
            if let Err(error) = &fetched {
                tracing::debug!(%error, "credentials could not be fetched again after a refused login");
            }
            refresh.complete(fetched, &clock.now());
        }))
    }

    /// Called when a login succeeds that was refused before.
    fn recovered(&self) {
        self.recheck.lock().consecutive = 0;
    }
}

/// The tokens of one endpoint.
pub(super) struct SignFor {
    signer: Arc<Signer>,
    endpoint: Endpoint,
    /// Whether the last new token was refused.
    was_refused: AtomicBool,
}

impl SignFor {
    pub(super) fn new(signer: Arc<Signer>, endpoint: Endpoint) -> SignFor {
        SignFor {
            signer,
            endpoint,
            was_refused: AtomicBool::new(false),
        }
    }

    /// The fetch of other credentials, if this endpoint's last new token was refused. The other endpoints
    /// need not wait for it.
    fn recheck_under_way(&self) -> Option<Waiter<HeldCredentials, Error>> {
        match self.was_refused.load(Ordering::Relaxed) {
            true => self.signer.credentials.in_flight(),
            false => None,
        }
    }
}

impl FetchToken for SignFor {
    fn fetch(self: Arc<Self>, current: Option<Arc<Token>>) -> FetchFuture {
        Box::pin(async move {
            let limit = self.signer.refresh_timeout;
            if let Some(recheck) = self.recheck_under_way() {
                // The credentials that are held are the ones whose token was refused.
                let _ = runtime::within(limit, recheck).await;
            }
            let sign = self.signer.sign(&self.endpoint, current.as_deref());
            runtime::within(limit, sign)
                .await
                .unwrap_or_else(|| Err(self.signer.timed_out()))
        })
    }

    fn fetch_at_once(&self) -> Option<Fetched> {
        match self.recheck_under_way() {
            Some(_) => None,
            None => self.signer.sign_at_once(&self.endpoint),
        }
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    fn provenance(&self) -> Option<Provenance> {
        let signer = &self.signer;
        let region = self.endpoint.region().map(str::to_owned);
        Some(Provenance {
            region: region.or_else(|| signer.identity.known_region()),
            credentials: signer.describe_credentials(),
            token_lifetime: signer.token_lifetime,
        })
    }

    /// Dates are signed in whole seconds.
    fn would_be_identical(&self, token: &Token, now: &Moment) -> bool {
        token.would_be_signed_again_at(now)
    }

    fn refused(&self) -> Option<Recheck> {
        self.was_refused.store(true, Ordering::Relaxed);
        self.signer.recheck_credentials(&self.endpoint)
    }

    fn fetch_if_replaced(&self) -> Option<Recheck> {
        if !self.signer.identity.files_have_changed() {
            return None;
        }
        let now = self.signer.clock.now();
        let fetch = self.signer.fetch_anew(&self.endpoint, &now)?;
        // So that the next token is signed with the credentials of this fetch.
        self.was_refused.store(true, Ordering::Relaxed);
        Some(fetch)
    }

    fn accepted(&self) {
        // Nearly every login pays for this load only.
        if self.was_refused.load(Ordering::Relaxed) {
            self.was_refused.store(false, Ordering::Relaxed);
            self.signer.recovered();
        }
    }
}
