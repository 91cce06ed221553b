//! Issues passwords for endpoints.

mod builder;
mod login_limiter;
mod password;
mod signer;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::builder::IamAuthBuilder;
pub(crate) use self::login_limiter::LoginLimiter;
pub(crate) use self::password::Kind as PasswordKind;
pub use self::password::{Password, PasswordBuilder, RotatingPassword};
use self::signer::{SignFor, Signer};
use self::source::Shared;
pub use self::source::TokenSource;
pub(crate) use self::source::{IssuedPassword, Provenance};
use crate::clock::Clock;
use crate::credentials::CredentialsInfo;
use crate::endpoint::{Endpoint, RegionSource};
use crate::error::Error;
use crate::event::{Events, Stats};

/// The default time limit of a refresh, including the fetch of credentials. Below half of a pool's 10 s, so
/// that a connect has time for a second attempt.
const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(4);

/// An identity that signs tokens, with its cached credentials and tokens.
///
/// Cheap to clone; clones share credentials and tokens. Give one to every manager that logs in with this
/// identity: a thousand databases need one fetch of credentials.
///
/// Nothing is fetched before the first password is needed, nor while none is.
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
    sources: Mutex<Sources>,
}

/// The sources by endpoint. When the map has doubled, those that no manager or caller holds are dropped, so that an
/// application with ever new endpoints does not grow.
struct Sources {
    by_endpoint: HashMap<Endpoint, TokenSource>,
    purge_at: usize,
}

impl Sources {
    const FEWEST: usize = 64;

    fn new() -> Sources {
        Sources {
            by_endpoint: HashMap::new(),
            purge_at: Sources::FEWEST,
        }
    }

    fn insert(&mut self, endpoint: &Endpoint, source: &TokenSource) {
        if self.by_endpoint.len() >= self.purge_at {
            self.by_endpoint.retain(|_, source| source.is_held());
            self.by_endpoint.shrink_to(self.purge_at);
            self.purge_at = Sources::FEWEST.max(2 * self.by_endpoint.len());
        }
        self.by_endpoint.insert(endpoint.clone(), source.clone());
    }
}

impl IamAuth {
    /// An identity with AWS's default chain of credentials and the defaults of [`IamAuthBuilder`].
    pub fn new() -> IamAuth {
        IamAuthBuilder::default().build_valid()
    }

    /// Returns a builder for other credentials, other limits, or an event handler.
    pub fn builder() -> IamAuthBuilder {
        IamAuthBuilder::default()
    }

    /// Returns the source of tokens for `endpoint`. All callers with the same endpoint share one cache, for as
    /// long as one of them keeps its source.
    pub fn source(&self, endpoint: &Endpoint) -> TokenSource {
        let mut sources = self.0.sources.lock();
        if let Some(source) = sources.by_endpoint.get(endpoint) {
            return source.clone();
        }
        let fetch = SignFor::new(self.0.signer.clone(), endpoint.clone());
        let source = TokenSource::new(Arc::new(fetch), self.0.shared.clone());
        sources.insert(endpoint, &source);
        source
    }

    /// Returns the region that tokens for `endpoint` are signed for, and where it was found. Waits for the AWS
    /// configuration if the endpoint has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) without a region.
    pub fn region(&self, endpoint: &Endpoint) -> Result<(String, RegionSource), Error> {
        let (signer, endpoint) = (self.0.signer.clone(), endpoint.clone());
        self.0
            .shared
            .wait_for(async move { signer.region(&endpoint).await })
    }

    /// Describes the credentials that a token for `endpoint` is signed with at present. They are fetched if
    /// none are cached.
    ///
    /// ```no_run
    /// # use diesel_rds_iam::{Endpoint, IamAuth};
    /// let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    /// let credentials = IamAuth::new().credentials(&Endpoint::new(host, 5432, "app")?)?;
    /// println!("{}, from {}", credentials.access_key_id, credentials.source);
    /// # Ok::<(), diesel_rds_iam::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`TokenSource::token`].
    pub fn credentials(&self, endpoint: &Endpoint) -> Result<CredentialsInfo, Error> {
        let (signer, endpoint) = (self.0.signer.clone(), endpoint.clone());
        self.0
            .shared
            .wait_for(async move { signer.credentials_info(&endpoint).await })
    }

    /// Returns how many seconds AWS's clock is ahead of this machine's, negative if it is behind, from the
    /// `Date` header of the last response with credentials. `None` without such a response: long-lived keys
    /// are not fetched, and a caller's own provider is not inspected.
    ///
    /// AWS rejects signatures whose date differs from its own by more than five minutes.
    pub fn aws_clock_ahead(&self) -> Option<i64> {
        self.0.signer.identity.aws_clock().seconds_ahead()
    }

    /// Returns the event counters, over all endpoints.
    pub fn stats(&self) -> Stats {
        self.0.shared.events.stats()
    }

    fn over(signer: Signer, shared: Shared) -> IamAuth {
        IamAuth(Arc::new(Inner {
            signer: Arc::new(signer),
            shared: Arc::new(shared),
            sources: Mutex::new(Sources::new()),
        }))
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

fn check_refresh_timeout(timeout: Duration) -> Result<(), Error> {
    if timeout.is_zero() {
        return Err(Error::configuration(
            "refresh_timeout is zero, so no fetch could ever succeed; set a second or more",
        ));
    }
    Ok(())
}
