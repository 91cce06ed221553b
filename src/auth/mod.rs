//! A password for this endpoint, now.

mod password;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use parking_lot::Mutex;

pub(crate) use self::password::Kind as PasswordKind;
pub use self::password::{Password, PasswordBuilder, RotatingPassword};
pub(crate) use self::source::Offer;
pub use self::source::TokenSource;
use self::source::{FetchFuture, FetchToken, Fetched, Shared};
use crate::cache::{Answer, Cache};
use crate::clock::{Clock, Moment};
use crate::credentials::{
    AssumeRole, BlockingProvider, BoxError, HeldCredentials, Identity, Source,
};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind};
use crate::event::{Events, HandleAuthEvent, Stats};
use crate::runtime;
use crate::sign;
use crate::token::{LONGEST_LIFETIME, SHORTEST_LIFETIME, Schedule, Token};

/// How long a token may take by default, with everything that has to be asked for it. Below half of
/// a pool's 10 s, so that a connect has time for a second attempt.
const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(4);

/// After a new token was refused, credentials are fetched anew no more often than this.
const LEAST_TIME_BETWEEN_DISTRUST: Duration = Duration::from_secs(30);

/// An identity that signs tokens, and the tokens that it has signed.
///
/// Cheap to clone; clones share credentials and tokens. Give one to as many managers as there are
/// databases that the identity logs in to: a thousand of them cost one fetch of credentials.
///
/// Nothing is fetched before the first password is asked for, and nothing while none is.
///
/// ```
/// use diesel_rds_iam::IamAuth;
///
/// let auth = IamAuth::builder().profile("production").build()?;
/// # Ok::<(), diesel_rds_iam::Error>(())
/// ```
#[derive(Clone)]
pub struct IamAuth(Arc<Inner>);

struct Inner {
    signer: Arc<Signer>,
    shared: Arc<Shared>,
    sources: Mutex<HashMap<Endpoint, TokenSource>>,
}

impl IamAuth {
    /// AWS's default chain of credentials, and the defaults of [`IamAuthBuilder`].
    pub fn new() -> IamAuth {
        IamAuthBuilder::default().build_valid()
    }

    /// Other credentials, other limits, a handler of events.
    pub fn builder() -> IamAuthBuilder {
        IamAuthBuilder::default()
    }

    /// The passwords of `endpoint`. All callers that name the same endpoint share one cache.
    pub fn source(&self, endpoint: &Endpoint) -> TokenSource {
        let mut sources = self.0.sources.lock();
        if let Some(source) = sources.get(endpoint) {
            return source.clone();
        }
        let fetch = SignFor {
            signer: self.0.signer.clone(),
            endpoint: endpoint.clone(),
        };
        let source = TokenSource::new(Arc::new(fetch), self.0.shared.clone());
        sources.insert(endpoint.clone(), source.clone());
        source
    }

    /// How often what happened so far, over all endpoints.
    pub fn stats(&self) -> Stats {
        self.0.shared.events.stats()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.shared.clock
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.shared.events
    }
}

impl Default for IamAuth {
    fn default() -> IamAuth {
        IamAuth::new()
    }
}

impl fmt::Debug for IamAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamAuth")
            .field("identity", &self.0.signer.identity)
            .field("token_lifetime", &self.0.signer.token_lifetime)
            .finish_non_exhaustive()
    }
}

/// Settings of an [`IamAuth`].
#[must_use]
pub struct IamAuthBuilder {
    profile: Option<String>,
    provider: Option<SharedCredentialsProvider>,
    roles: Vec<AssumeRole>,
    token_lifetime: Duration,
    refresh_ahead: bool,
    refresh_timeout: Duration,
    clock: Clock,
    handler: Option<Box<dyn HandleAuthEvent>>,
}

impl IamAuthBuilder {
    /// Takes credentials from this profile of AWS's configuration files, whatever `AWS_ACCESS_KEY_ID`
    /// and its like say.
    ///
    /// By default the default chain decides: environment, profile, SSO, web identity, container,
    /// instance.
    pub fn profile(mut self, name: impl Into<String>) -> IamAuthBuilder {
        self.profile = Some(name.into());
        self
    }

    /// Takes credentials from `provider` instead of AWS's default chain.
    ///
    /// It is asked when credentials are missing or have less than a token's life left; caching is
    /// done here.
    pub fn credentials_provider(
        mut self,
        provider: impl ProvideCredentials + 'static,
    ) -> IamAuthBuilder {
        self.provider = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Takes credentials from a closure that may block; it runs on a thread of its own.
    pub fn credentials_fn(
        self,
        fetch: impl Fn() -> Result<Credentials, BoxError> + Send + Sync + 'static,
    ) -> IamAuthBuilder {
        self.credentials_provider(BlockingProvider(Arc::new(fetch)))
    }

    /// Assumes `role` with the credentials so far. Called again, the second role is assumed with the
    /// credentials of the first.
    pub fn assume_role(mut self, role: AssumeRole) -> IamAuthBuilder {
        self.roles.push(role);
        self
    }

    /// How long AWS accepts a token: 15 minutes by default and at the most, 5 s at the least.
    ///
    /// It is signed as `X-Amz-Expires`, in whole seconds. A token is used for this long less a
    /// margin of a fifteenth, at least 2 s. Shorter lives are for tests and demonstrations.
    pub fn token_lifetime(mut self, lifetime: Duration) -> IamAuthBuilder {
        self.token_lifetime = lifetime;
        self
    }

    /// Whether a token is replaced in the background before it ends, at about 80 % of its usable
    /// life, so that nobody waits for it. True by default.
    pub fn refresh_ahead(mut self, ahead: bool) -> IamAuthBuilder {
        self.refresh_ahead = ahead;
        self
    }

    /// How long getting a token may take, fetching credentials included. 4 s by default; keep it
    /// below half of a pool's `connection_timeout`.
    pub fn refresh_timeout(mut self, timeout: Duration) -> IamAuthBuilder {
        self.refresh_timeout = timeout;
        self
    }

    /// Where to read the time. The machine's clocks by default; for tests.
    pub fn clock(mut self, clock: Clock) -> IamAuthBuilder {
        self.clock = clock;
        self
    }

    /// Is told of every token, login and connection. None by default.
    pub fn event_handler(mut self, handler: impl HandleAuthEvent) -> IamAuthBuilder {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Checks the settings. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] for a lifetime out of range, a timeout of zero, or a profile
    /// together with a provider.
    pub fn build(self) -> Result<IamAuth, Error> {
        if !(SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&self.token_lifetime) {
            return Err(Error::configuration(format!(
                "token_lifetime is {:?}; set it from 5s to 900s, which is what aws accepts",
                self.token_lifetime
            )));
        }
        check_refresh_timeout(self.refresh_timeout)?;
        if self.profile.is_some() && self.provider.is_some() {
            return Err(Error::configuration(
                "both a profile and a credentials provider are set; keep one of them",
            ));
        }
        Ok(self.build_valid())
    }

    fn build_valid(self) -> IamAuth {
        let source = match self.provider {
            Some(provider) => Source::Provider(provider),
            None => Source::Chain {
                profile: self.profile,
            },
        };
        let shared = Arc::new(Shared {
            clock: self.clock.clone(),
            events: Events::new(self.handler),
            refresh_timeout: self.refresh_timeout,
            runtime: Mutex::new(None),
        });
        let signer = Arc::new(Signer {
            identity: Arc::new(Identity::new(source, self.roles)),
            credentials: Arc::new(Cache::new()),
            // Parts of a second cannot be signed.
            token_lifetime: Duration::from_secs(self.token_lifetime.as_secs()),
            refresh_ahead: self.refresh_ahead,
            refresh_timeout: self.refresh_timeout,
            clock: self.clock,
            distrusted: Mutex::new(None),
        });
        IamAuth(Arc::new(Inner {
            signer,
            shared,
            sources: Mutex::new(HashMap::new()),
        }))
    }
}

impl Default for IamAuthBuilder {
    fn default() -> IamAuthBuilder {
        IamAuthBuilder {
            profile: None,
            provider: None,
            roles: Vec::new(),
            token_lifetime: LONGEST_LIFETIME,
            refresh_ahead: true,
            refresh_timeout: DEFAULT_REFRESH_TIMEOUT,
            clock: Clock::default(),
            handler: None,
        }
    }
}

impl fmt::Debug for IamAuthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamAuthBuilder")
            .field("profile", &self.profile)
            .field("roles", &self.roles)
            .field("token_lifetime", &self.token_lifetime)
            .field("refresh_ahead", &self.refresh_ahead)
            .field("refresh_timeout", &self.refresh_timeout)
            .finish_non_exhaustive()
    }
}

/// What a token is signed with: one set of credentials for all endpoints.
struct Signer {
    identity: Arc<Identity>,
    credentials: Arc<Cache<HeldCredentials, Error>>,
    token_lifetime: Duration,
    refresh_ahead: bool,
    refresh_timeout: Duration,
    clock: Clock,
    /// When credentials were last thrown away because a token was refused.
    distrusted: Mutex<Option<Moment>>,
}

impl Signer {
    async fn sign(&self, endpoint: &Endpoint, current: Option<&Token>) -> Fetched {
        let region = match endpoint.region() {
            Some(region) => region.to_owned(),
            None => self.configured_region(endpoint).await?,
        };
        let (held, failure) = self.credentials(&region).await?;
        let schedule = match self.refresh_ahead {
            true => Schedule::ahead(),
            false => Schedule::AT_THE_END,
        };
        let now = self.clock.now();
        let lifetime = self.token_lifetime;
        let token = sign::presign(
            endpoint,
            &region,
            &held.credentials,
            &now,
            lifetime,
            schedule,
        )?;
        match (failure, current) {
            // Signed with the credentials of before, it ends no later than the one there is.
            (Some(failure), Some(current)) if token.usable_until() <= current.usable_until() => {
                Err(failure)
            }
            _ => Ok(token),
        }
    }

    /// The region of the AWS configuration, for a host whose name carries none.
    async fn configured_region(&self, endpoint: &Endpoint) -> Result<String, Error> {
        // Off AWS the metadata address may never answer, and then there is no region there.
        let limit = self.refresh_timeout / 2;
        let region = runtime::within(limit, self.identity.region()).await;
        region.flatten().ok_or_else(|| {
            Error::configuration(format!(
                "no region for host {:?}: its name carries none and the aws configuration names \
                 none; set iam_region in the connection string, or AWS_REGION",
                endpoint.host()
            ))
        })
    }

    /// Credentials to sign with. Those of before, which end within a token's life, where no others
    /// can be had; then with the reason why.
    async fn credentials(
        &self,
        region: &str,
    ) -> Result<(Arc<HeldCredentials>, Option<Error>), Error> {
        let failure = match self.credentials.look_up(&self.clock.now()) {
            Answer::Value(held, _) => return Ok((held, None)),
            Answer::Failed(error) => error,
            Answer::Wait(landing, flight) => {
                if let Some(flight) = flight {
                    // On a task of its own, so that it outlives the token that it was begun for.
                    let fetch = self.fetch_credentials(region.to_owned());
                    let clock = self.clock.clone();
                    runtime::spawn_here(async move {
                        let fetched = fetch.await;
                        flight.land(fetched, &clock.now());
                    });
                }
                match landing.await {
                    Ok(held) => return Ok((held, None)),
                    Err(error) => error,
                }
            }
        };
        match self.credentials.peek() {
            Some(held) if held.are_usable_at(&self.clock.now()) => {
                tracing::warn!(error = %failure, "signing with credentials that end soon");
                Ok((held, Some(failure)))
            }
            _ => Err(failure),
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
        async move {
            let fetched = runtime::within(limit, identity.fetch(Some(&region))).await;
            let credentials = fetched.ok_or_else(|| timed_out(limit))??;
            let now = clock.now();
            let held = HeldCredentials::new(credentials, &now, token_lifetime);
            if !held.are_usable_at(&now) {
                return Err(Error::new(
                    ErrorKind::CredentialsExpired,
                    "the source of aws credentials gave some that have expired or end at once; \
                     renew them (for example with `aws sso login`), or correct this machine's clock",
                ));
            }
            Ok(held)
        }
    }

    /// A new token was refused: the credentials may have been revoked or replaced at their source.
    fn distrust(&self) {
        let now = self.clock.now();
        let mut distrusted = self.distrusted.lock();
        let is_too_soon =
            distrusted.is_some_and(|last| now.since(&last) < LEAST_TIME_BETWEEN_DISTRUST);
        if is_too_soon {
            return;
        }
        *distrusted = Some(now);
        if let Some(held) = self.credentials.peek() {
            self.credentials.discard(&held);
            self.identity.forget();
        }
    }
}

struct SignFor {
    signer: Arc<Signer>,
    endpoint: Endpoint,
}

impl FetchToken for SignFor {
    fn fetch(self: Arc<Self>, current: Option<Arc<Token>>) -> FetchFuture {
        Box::pin(async move {
            let limit = self.signer.refresh_timeout;
            let sign = self.signer.sign(&self.endpoint, current.as_deref());
            runtime::within(limit, sign)
                .await
                .unwrap_or_else(|| Err(timed_out(limit)))
        })
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Dates are signed in whole seconds.
    fn would_repeat(&self, token: &Token, now: &Moment) -> bool {
        token.would_be_signed_again_at(now)
    }

    fn distrust(&self) {
        self.signer.distrust();
    }
}

fn check_refresh_timeout(timeout: Duration) -> Result<(), Error> {
    if timeout.is_zero() {
        return Err(Error::configuration(
            "refresh_timeout is zero, so nothing could ever be fetched; set a second or more",
        ));
    }
    Ok(())
}

fn timed_out(limit: Duration) -> Error {
    Error::new(
        ErrorKind::CredentialsTimeout,
        format!(
            "the source of aws credentials did not answer within {limit:?}; check that it can be \
             reached, or raise refresh_timeout"
        ),
    )
}
