//! A password for this endpoint, now.

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

/// How long a token may take by default, with everything that has to be asked for it. Below half of
/// a pool's 10 s, so that a connect has time for a second attempt.
const DEFAULT_REFRESH_TIMEOUT: Duration = Duration::from_secs(4);

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
    sources: Mutex<Sources>,
}

/// The sources by what they sign for. Those that no manager or caller holds are dropped when the map has
/// doubled, so that an application with ever new endpoints does not grow.
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
    /// AWS's default chain of credentials, and the defaults of [`IamAuthBuilder`].
    pub fn new() -> IamAuth {
        IamAuthBuilder::default().build_valid()
    }

    /// Other credentials, other limits, a handler of events.
    pub fn builder() -> IamAuthBuilder {
        IamAuthBuilder::default()
    }

    /// The passwords of `endpoint`. All callers that name the same endpoint share one cache, for as long as
    /// one of them keeps its source.
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

    /// The region that tokens for `endpoint` are signed for, and where it was found. Waits for the
    /// AWS configuration where the endpoint names none.
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

    /// Which credentials a token for `endpoint` is signed with at present. They are fetched if none
    /// are held.
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

    /// By how many seconds AWS's clock is ahead of this machine's, or behind if negative, by the
    /// `Date` of the last answer that credentials came in. `None` where there was no such answer:
    /// long-lived keys are not fetched, and a provider of the caller's is not looked into.
    ///
    /// AWS refuses what was signed more than five minutes away from its own time.
    pub fn aws_clock_ahead(&self) -> Option<i64> {
        self.0.signer.identity.aws_clock().seconds_ahead()
    }

    /// How often what happened so far, over all endpoints.
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
            "refresh_timeout is zero, so nothing could ever be fetched; set a second or more",
        ));
    }
    Ok(())
}
