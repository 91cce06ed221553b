//! The sources of AWS credentials. The only file that names aws-config.
//!
//! This crate caches the results of the SDK's providers, since the SDK's cache does not serve direct calls.
//! Credentials are cached apart from tokens, so that any number of databases costs one `AssumeRole`.

mod checked;
mod failure;
mod files;
mod info;

use std::env;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use parking_lot::Mutex;

use self::checked::Checked;
use self::files::FileStates;
pub use self::info::CredentialsInfo;
pub(crate) use self::info::origin;
use crate::aws_clock::AwsClock;
use crate::cache::{Expiring, Freshness};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::http_client::LastRequest;
use crate::runtime::{self, BlockingCalls, BlockingFailure};
use crate::sdk_trace::future_without_sdk_trace;
use crate::token;

/// The session name of an assumed role for which none is configured. CloudTrail shows it.
const DEFAULT_SESSION_NAME: &str = "diesel-rds-iam";

/// The minimum interval between requests to a source whose credentials expire within a token's lifetime.
const LEAST_TIME_BETWEEN_FETCHES: Duration = Duration::from_secs(10);

/// The pauses between attempts if the source answers 429, as EKS's and ECS's agents and EC2's metadata service do
/// when many containers start. The SDK tries again by itself after 5xx and after STS's errors of throttling.
const RETRY_PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// A role to assume by STS before tokens are signed.
///
/// ```
/// use diesel_rds_iam::AssumeRole;
///
/// let role = AssumeRole::new("arn:aws:iam::123456789012:role/database")
///     .external_id("partner-42")
///     .session_name("billing");
/// ```
#[derive(Clone)]
pub struct AssumeRole {
    arn: String,
    external_id: Option<String>,
    session_name: Option<String>,
}

impl AssumeRole {
    /// The role with this ARN, which may belong to another account.
    pub fn new(arn: impl Into<String>) -> AssumeRole {
        AssumeRole {
            arn: arn.into(),
            external_id: None,
            session_name: None,
        }
    }

    /// The external id that the role's trust policy asks for. None by default.
    pub fn external_id(mut self, id: impl Into<String>) -> AssumeRole {
        self.external_id = Some(id.into());
        self
    }

    /// The session's name, which CloudTrail shows. `diesel-rds-iam` by default.
    pub fn session_name(mut self, name: impl Into<String>) -> AssumeRole {
        self.session_name = Some(name.into());
        self
    }
}

/// An external id is a secret to some, so it is not shown.
impl fmt::Debug for AssumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AssumeRole").field(&self.arn).finish()
    }
}

/// An identity: a source of credentials, and the roles to assume, each with the credentials of the one before.
pub(crate) struct Identity {
    source: Source,
    roles: Vec<AssumeRole>,
    /// Created at the first fetch, because that reads files.
    provider: Mutex<Option<SharedCredentialsProvider>>,
    region: Mutex<Option<String>>,
    /// The files of the AWS configuration before they were read, if they are the source.
    read: Mutex<Option<FileStates>>,
    clock: AwsClock,
    last_request: LastRequest,
}

pub(crate) enum Source {
    /// AWS's default chain, or the chain of a named profile.
    Chain {
        profile: Option<String>,
    },
    Provider(SharedCredentialsProvider),
}

impl Identity {
    pub(crate) fn new(source: Source, roles: Vec<AssumeRole>) -> Identity {
        Identity {
            source,
            roles,
            provider: Mutex::new(None),
            region: Mutex::new(None),
            read: Mutex::new(None),
            clock: AwsClock::default(),
            last_request: LastRequest::default(),
        }
    }

    /// Fetches from the source. `region` is that of STS if the AWS configuration names no region.
    pub(crate) async fn fetch(&self, region: Option<&str>) -> Result<Credentials, Error> {
        future_without_sdk_trace(self.ask(region)).await
    }

    async fn ask(&self, region: Option<&str>) -> Result<Credentials, Error> {
        self.last_request.forget();
        if let Some(found) = self.at_once() {
            return found;
        }
        // Boxed, since the SDK's futures have more than 100 KB.
        Box::pin(self.ask_provider(region)).await
    }

    async fn ask_provider(&self, region: Option<&str>) -> Result<Credentials, Error> {
        // The guard must be dropped before the await.
        let held = self.provider.lock().clone();
        let provider = match held {
            Some(provider) => provider,
            None => {
                let provider = self.load(region).await?;
                *self.provider.lock() = Some(provider.clone());
                provider
            }
        };
        let mut pauses = RETRY_PAUSES.iter();
        loop {
            let error = match provider.provide_credentials().await {
                Ok(credentials) => return Ok(credentials),
                Err(error) => self.failed(error),
            };
            match pauses.next() {
                Some(pause) if error.is_throttled => {
                    // With jitter, so that processes that started together do not send requests together.
                    runtime::pause(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                }
                _ => return Err(error.error),
            }
        }
    }

    /// The keys in the environment, if they are the source. They come first in AWS's default chain, whose other
    /// sources take time: to load it alone takes a millisecond, and reads files that these keys do not need.
    pub(crate) fn at_once(&self) -> Option<Result<Credentials, Error>> {
        let (Source::Chain { profile: None }, []) = (&self.source, self.roles.as_slice()) else {
            return None;
        };
        let provider = checked(SharedCredentialsProvider::new(
            EnvironmentVariableCredentialsProvider::new(),
        ));
        let mut context = Context::from_waker(Waker::noop());
        match pin!(provider.provide_credentials()).poll(&mut context) {
            Poll::Ready(Err(CredentialsError::CredentialsNotLoaded(_))) | Poll::Pending => None,
            Poll::Ready(found) => Some(found.map_err(|error| self.failed(error).error)),
        }
    }

    /// Makes the next fetch start afresh: files are read again, roles assumed again.
    pub(crate) fn forget(&self) {
        *self.provider.lock() = None;
    }

    /// Whether a file of the AWS configuration has changed since it was read.
    pub(crate) fn files_have_changed(&self) -> bool {
        let read = self.read.lock();
        read.as_ref()
            .is_some_and(|read| *read != FileStates::current())
    }

    /// The region of the AWS configuration: `AWS_REGION`, the profile's, or the instance's.
    pub(crate) async fn region(&self) -> Option<String> {
        let known = self.region.lock().clone();
        if known.is_some() {
            return known;
        }
        let region = self.sts_region(None).region().await;
        let region = region.map(|region| region.to_string());
        self.region.lock().clone_from(&region);
        region
    }

    /// The same, if it has been read already.
    pub(crate) fn known_region(&self) -> Option<String> {
        self.region.lock().clone()
    }

    /// AWS's clock, as of the last response.
    pub(crate) fn aws_clock(&self) -> &AwsClock {
        &self.clock
    }

    fn profile(&self) -> Option<&str> {
        match &self.source {
            Source::Chain { profile } => profile.as_deref(),
            Source::Provider(_) => None,
        }
    }

    async fn load(&self, region: Option<&str>) -> Result<SharedCredentialsProvider, Error> {
        if let (Source::Provider(provider), []) = (&self.source, self.roles.as_slice()) {
            return Ok(checked(provider.clone()));
        }
        if let Source::Chain { .. } = &self.source {
            *self.read.lock() = Some(FileStates::current());
        }
        let config = self.load_config(region).await;
        let no_source = || {
            Error::new(
                ErrorKind::CredentialsNotFound,
                "the aws configuration names no source of credentials; set a profile or a provider",
            )
        };
        let provider = config.credentials_provider().ok_or_else(no_source)?;
        let mut provider = checked(provider);
        for role in &self.roles {
            if config.region().is_none() {
                return Err(Error::configuration(
                    "no region to assume the role in; set AWS_REGION, or iam_region in the \
                     connection string",
                ));
            }
            provider = SharedCredentialsProvider::new(assume(role, provider, &config).await);
        }
        Ok(provider)
    }

    async fn load_config(&self, region: Option<&str>) -> SdkConfig {
        let client = self.clock.http_client(self.last_request.clone());
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(self.sts_region(region))
            .http_client(client.clone());
        match &self.source {
            Source::Chain { profile: None } => {}
            // The default chain would use the environment first, and log in as another identity.
            Source::Chain {
                profile: Some(name),
            } => {
                let config = ProviderConfig::without_region()
                    .with_behavior_version(Some(BehaviorVersion::latest()))
                    .with_region(self.sts_region(region).region().await)
                    .with_http_client(client);
                let provider = ProfileFileCredentialsProvider::builder()
                    .configure(&config)
                    .profile_name(name)
                    .build();
                loader = loader.profile_name(name).credentials_provider(provider);
            }
            Source::Provider(provider) => loader = loader.credentials_provider(provider.clone()),
        }
        loader.load().await
    }

    /// Returns the region of the configuration, or else the endpoint's. The instance's metadata is requested only
    /// if neither is known: off AWS that takes seconds.
    fn sts_region(&self, endpoint: Option<&str>) -> RegionProviderChain {
        let mut profile = ProfileFileRegionProvider::builder();
        if let Some(name) = self.profile() {
            profile = profile.profile_name(name);
        }
        let configured =
            RegionProviderChain::first_try(region_of_environment()).or_else(profile.build());
        match endpoint {
            Some(region) => configured.or_else(Region::new(region.to_owned())),
            None => {
                // Off AWS there is no instance, which is not a failure of the credentials.
                let client = self.clock.http_client(LastRequest::default());
                let config = ProviderConfig::without_region().with_http_client(client);
                let instance = ImdsRegionProvider::builder().configure(&config).build();
                configured.or_else(instance)
            }
        }
    }
}

/// An empty variable counts as unset. The SDK would use it as a region without a name.
fn region_of_environment() -> Option<Region> {
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .filter_map(|variable| env::var(variable).ok())
        .find(|region| !region.trim().is_empty())
        .map(Region::new)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Chain { profile: None } => f.write_str("default chain")?,
            Source::Chain {
                profile: Some(name),
            } => write!(f, "profile {name:?}")?,
            Source::Provider(_) => f.write_str("provider")?,
        }
        for role in &self.roles {
            write!(f, ", role {:?}", role.arn)?;
        }
        Ok(())
    }
}

fn checked(provider: SharedCredentialsProvider) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Checked(provider))
}

async fn assume(
    role: &AssumeRole,
    from: SharedCredentialsProvider,
    config: &SdkConfig,
) -> AssumeRoleProvider {
    let name = role.session_name.as_deref().unwrap_or(DEFAULT_SESSION_NAME);
    let mut builder = AssumeRoleProvider::builder(&role.arn)
        .session_name(name)
        .configure(config);
    if let Some(id) = &role.external_id {
        builder = builder.external_id(id);
    }
    builder.build_from_provider(from).await
}

/// Cached credentials, with the time until which they are good enough, and the time until which they are valid.
pub(crate) struct HeldCredentials {
    pub(crate) credentials: Credentials,
    ends: Option<Ends>,
}

struct Ends {
    /// From here on the source is called before a token is signed.
    ask_from: Moment,
    expires_at: Moment,
}

impl HeldCredentials {
    /// `token_lifetime` is the time for which a token needs them.
    pub(crate) fn new(
        credentials: Credentials,
        now: &Moment,
        token_lifetime: Duration,
    ) -> HeldCredentials {
        let ends = credentials.expiry().map(|expiry: SystemTime| {
            let left = expiry.duration_since(now.wall).unwrap_or_default();
            let enough_for = left
                .saturating_sub(token_lifetime)
                .max(LEAST_TIME_BETWEEN_FETCHES.min(left / 2));
            Ends {
                ask_from: *now + enough_for,
                expires_at: *now + left.saturating_sub(token::margin(token_lifetime)),
            }
        });
        HeldCredentials { credentials, ends }
    }

    pub(crate) fn are_usable_at(&self, now: &Moment) -> bool {
        match &self.ends {
            Some(ends) => !now.has_reached(&ends.expires_at),
            None => true,
        }
    }
}

/// Never stale: a signature waits for better credentials rather than produce a token that expires early.
impl Expiring for HeldCredentials {
    fn freshness_at(&self, now: &Moment) -> Freshness {
        match &self.ends {
            Some(ends) if now.has_reached(&ends.ask_from) => Freshness::Expired,
            _ => Freshness::Fresh,
        }
    }
}

/// The error of a closure of the user's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A closure that blocks, as a provider; it runs on a thread of its own.
pub(crate) struct BlockingProvider {
    fetch: Arc<BlockingFetch>,
    calls: BlockingCalls<provider::Result>,
}

impl BlockingProvider {
    pub(crate) fn new(fetch: Arc<BlockingFetch>) -> BlockingProvider {
        BlockingProvider {
            fetch,
            calls: BlockingCalls::new(),
        }
    }
}

pub(crate) type BlockingFetch = dyn Fn() -> Result<Credentials, BoxError> + Send + Sync;

impl ProvideCredentials for BlockingProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let fetch = self.fetch.clone();
        future::ProvideCredentials::new(async move {
            let work = move || fetch().map_err(CredentialsError::provider_error);
            self.calls.call(work).await.unwrap_or_else(|failure| {
                Err(match failure {
                    BlockingFailure::Panicked => {
                        CredentialsError::unhandled("the closure that fetches credentials panicked")
                    }
                    BlockingFailure::NoThread(error) => CredentialsError::unhandled(error),
                })
            })
        })
    }
}

impl fmt::Debug for BlockingProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlockingProvider")
    }
}
