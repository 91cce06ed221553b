//! The settings of an identity.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use parking_lot::Mutex;

use super::signer::Signer;
use super::source::Shared;
use super::{DEFAULT_REFRESH_TIMEOUT, IamAuth, check_refresh_timeout};
use crate::clock::{Clock, FOREVER};
use crate::credentials::{AssumeRole, BlockingProvider, BoxError, Identity, Source};
use crate::error::Error;
use crate::event::{Events, HandleAuthEvent};
use crate::token::{LONGEST_LIFETIME, SHORTEST_LIFETIME};

/// Builds an [`IamAuth`].
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
    /// Takes credentials from this profile of the AWS configuration files, and ignores variables such as
    /// `AWS_ACCESS_KEY_ID`.
    ///
    /// Default: AWS's default chain of environment, profile, SSO, web identity, container and instance.
    pub fn profile(mut self, name: impl Into<String>) -> IamAuthBuilder {
        self.profile = Some(name.into());
        self
    }

    /// Takes credentials from `provider` instead of AWS's default chain.
    ///
    /// It is called if no credentials are cached, or if those that are expire within a token's lifetime. This
    /// crate caches what it returns.
    pub fn credentials_provider(
        mut self,
        provider: impl ProvideCredentials + 'static,
    ) -> IamAuthBuilder {
        self.provider = Some(SharedCredentialsProvider::new(provider));
        self
    }

    /// Takes credentials from a closure, which may block. It runs on a thread of its own, one call at a time. A
    /// call that outlasts the refresh time-out goes on, and the next refresh waits for its result.
    pub fn credentials_fn(
        self,
        fetch: impl Fn() -> Result<Credentials, BoxError> + Send + Sync + 'static,
    ) -> IamAuthBuilder {
        self.credentials_provider(BlockingProvider::new(Arc::new(fetch)))
    }

    /// Assumes `role`. A second call assumes that role with the credentials of the first.
    pub fn assume_role(mut self, role: AssumeRole) -> IamAuthBuilder {
        self.roles.push(role);
        self
    }

    /// Sets the lifetime of a token, from 5 s to 15 minutes. Default: 15 minutes, the longest that AWS accepts.
    ///
    /// It is signed as `X-Amz-Expires`, in whole seconds. A token is used for this long less a margin of a
    /// fifteenth, at least 2 s. Shorter lifetimes are for tests and demonstrations.
    pub fn token_lifetime(mut self, lifetime: Duration) -> IamAuthBuilder {
        self.token_lifetime = lifetime;
        self
    }

    /// Sets whether a token is refreshed in the background before it expires, at about 80 % of its usable
    /// lifetime, so that no caller waits for the refresh. Default: true.
    pub fn refresh_ahead(mut self, ahead: bool) -> IamAuthBuilder {
        self.refresh_ahead = ahead;
        self
    }

    /// Sets the time limit of a refresh, including the fetch of credentials. Default: 4 s. Keep it below half
    /// of a pool's `connection_timeout`.
    pub fn refresh_timeout(mut self, timeout: Duration) -> IamAuthBuilder {
        self.refresh_timeout = timeout.min(FOREVER);
        self
    }

    /// Sets the clock, for tests. Default: the machine's clocks.
    pub fn clock(mut self, clock: Clock) -> IamAuthBuilder {
        self.clock = clock;
        self
    }

    /// Sets a handler that is called for every event of tokens, logins and connections. Default: none.
    pub fn event_handler(mut self, handler: impl HandleAuthEvent) -> IamAuthBuilder {
        self.handler = Some(Box::new(handler));
        self
    }

    /// Checks the settings. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a lifetime out of range, a timeout of zero, or a profile
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

    pub(super) fn build_valid(self) -> IamAuth {
        let source = match self.provider {
            Some(provider) => Source::Provider(provider),
            None => Source::Chain {
                profile: self.profile,
            },
        };
        let identity = Identity::new(source, self.roles);
        let signer = Signer::new(
            identity,
            self.token_lifetime,
            self.refresh_ahead,
            self.refresh_timeout,
            self.clock.clone(),
        );
        let shared = Shared {
            clock: self.clock,
            events: Events::new(self.handler),
            refresh_timeout: self.refresh_timeout,
            runtime: Mutex::new(None),
        };
        IamAuth::over(signer, shared)
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
