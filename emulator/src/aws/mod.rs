//! The endpoints of AWS from which clients fetch credentials.

mod authorization;
mod http;
mod metadata;
mod request;
mod sts;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::clock::Clock;
use crate::credentials::{Credentials, Keyring};
use crate::error::Error;
use crate::server::Millis;
use crate::sigv4;

/// The number of calls that are kept.
const KEPT_CALLS: usize = 10_000;

/// The role whose credentials the container endpoint and the metadata service return.
const INSTANCE_ROLE: &str = "emulator-instance";

/// The account that owns all roles and users.
const ACCOUNT: &str = "123456789012";

/// One of AWS's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AwsService {
    /// The Security Token Service: `AssumeRole`, `AssumeRoleWithWebIdentity`, `GetCallerIdentity`.
    Sts,
    /// The credentials endpoint of containers on ECS and EKS.
    Container,
    /// The metadata service of EC2, version 2.
    Metadata,
}

/// How an endpoint responds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AwsBehaviour {
    /// Correctly and without delay.
    #[default]
    Normal,
    /// Correctly, after this delay.
    Slow(Duration),
    /// With an internal error (500).
    Failing,
    /// With the error by which AWS throttles its callers.
    Throttled,
    /// With the correct body, reversed.
    Garbled,
}

/// One call of an endpoint. It never contains a secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsCall {
    /// The endpoint.
    pub service: AwsService,
    /// The action of STS, or the path.
    pub action: String,
    /// The parameters of STS, such as `RoleArn` and `ExternalId`, without tokens.
    pub parameters: HashMap<String, String>,
    /// The HTTP status of the response.
    pub status: u16,
}

/// AWS's endpoints on loopback, over HTTP. The emulator accepts the credentials that they return until these
/// expire.
pub struct AwsEndpoints {
    address: SocketAddr,
    state: Arc<State>,
}

/// The state that the endpoints share.
pub(crate) struct State {
    clock: Arc<Clock>,
    keyring: Arc<Keyring>,
    region: String,
    behaviours: Mutex<HashMap<AwsService, AwsBehaviour>>,
    calls: Mutex<Calls>,
    /// The lifetime of credentials. Zero means what the caller requests, or the service's default.
    lifetime: Millis,
    /// The external id that each role's trust policy requires, by role ARN. If empty, every role can be
    /// assumed.
    roles: Mutex<HashMap<String, Option<String>>>,
    issued: AtomicU64,
    /// Makes the secrets of two emulators differ.
    seed: String,
}

#[derive(Default)]
struct Calls {
    count: HashMap<AwsService, usize>,
    latest: VecDeque<AwsCall>,
}

impl AwsEndpoints {
    /// Listens on a free port. Must be called inside the runtime.
    pub(crate) fn start(
        clock: Arc<Clock>,
        keyring: Arc<Keyring>,
        region: String,
    ) -> Result<AwsEndpoints, Error> {
        let since_epoch = clock.now().duration_since(SystemTime::UNIX_EPOCH);
        let seed = format!("{}/{since_epoch:?}", std::process::id());
        let state = Arc::new(State {
            clock,
            keyring,
            region,
            behaviours: Mutex::default(),
            calls: Mutex::default(),
            lifetime: Millis::new(Duration::ZERO),
            roles: Mutex::default(),
            issued: AtomicU64::new(0),
            seed: sigv4::hash(seed.as_bytes()),
        });
        let address = http::listen(Arc::clone(&state))?;
        Ok(AwsEndpoints { address, state })
    }

    /// The URL of STS, for `AWS_ENDPOINT_URL_STS` or a profile's `endpoint_url`.
    pub fn sts_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL for `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn container_credentials_url(&self) -> String {
        format!("http://{}{}", self.address, metadata::CONTAINER_PATH)
    }

    /// The authorization token that the container endpoint requires, for `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub fn container_authorization_token(&self) -> String {
        self.state.container_authorization_token()
    }

    /// The environment variables of a program that fetches the credentials of a container, for
    /// [`Command::envs`](std::process::Command::envs).
    pub fn container_environment(&self) -> [(&'static str, String); 2] {
        [
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                self.container_credentials_url(),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                self.container_authorization_token(),
            ),
        ]
    }

    /// The URL of the metadata service, for `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn metadata_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the lifetime of credentials that are issued from now on. Default: what the caller requests, or else
    /// an hour. Truncated to whole seconds, the resolution in which AWS returns their expiry.
    pub fn set_credential_lifetime(&self, lifetime: Duration) {
        self.state.lifetime.set(lifetime);
    }

    /// Sets how an endpoint responds from now on. Default: [`AwsBehaviour::Normal`].
    pub fn set_behaviour(&self, service: AwsService, behaviour: AwsBehaviour) {
        lock(&self.state.behaviours).insert(service, behaviour);
    }

    /// Allows a role to be assumed, and rejects all roles that were not allowed this way. Its trust policy
    /// requires `external_id`. Default: every role can be assumed.
    pub fn trust_role(&self, role_arn: impl Into<String>, external_id: Option<&str>) {
        lock(&self.state.roles).insert(role_arn.into(), external_id.map(str::to_owned));
    }

    /// The number of requests that an endpoint has received, whatever the response.
    pub fn requests(&self, service: AwsService) -> usize {
        let calls = lock(&self.state.calls);
        calls.count.get(&service).copied().unwrap_or(0)
    }

    /// The requests so far, oldest first. The latest 10,000 are kept.
    pub fn calls(&self) -> Vec<AwsCall> {
        lock(&self.state.calls).latest.iter().cloned().collect()
    }
}

impl fmt::Debug for AwsEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsEndpoints")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl State {
    fn behaviour(&self, service: AwsService) -> AwsBehaviour {
        lock(&self.behaviours)
            .get(&service)
            .copied()
            .unwrap_or_default()
    }

    fn record(&self, call: AwsCall) {
        let mut calls = lock(&self.calls);
        *calls.count.entry(call.service).or_default() += 1;
        if calls.latest.len() == KEPT_CALLS {
            calls.latest.pop_front();
        }
        calls.latest.push_back(call);
    }

    /// Issues temporary credentials of `principal`, which are accepted until they expire.
    fn issue(&self, principal: &str, asked: Option<Duration>) -> Issued {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let secret =
            |purpose: &str| sigv4::hash(format!("{}/{number}/{purpose}", self.seed).as_bytes());
        let id: String = secret("id").to_uppercase().chars().take(16).collect();
        let set = self.lifetime.get();
        let lifetime = if set.is_zero() {
            asked.unwrap_or(Duration::from_secs(3_600))
        } else {
            set
        };
        let end = OffsetDateTime::from(self.clock.now() + lifetime);
        let end = end.replace_nanosecond(0).unwrap_or(end);
        // As long as a real one, and with characters that must be encoded in a URL.
        let session_token = format!(
            "IQoJb3JpZ2luX2VjE//{}+/{}==",
            secret("a").repeat(4),
            secret("b")
        );
        let credentials = Credentials::new(
            format!("ASIA{id}"),
            format!("{}/+", secret("key").get(..38).unwrap_or_default()),
        )
        .session_token(session_token.as_str())
        .expires_at(end.into())
        .principal(principal);
        self.keyring.add(credentials.clone());
        Issued {
            credentials,
            session_token,
            expiration: timestamp(end.into()),
        }
    }

    fn container_authorization_token(&self) -> String {
        sigv4::hash(format!("{}/container", self.seed).as_bytes())
    }

    fn metadata_token(&self) -> String {
        sigv4::hash(format!("{}/metadata", self.seed).as_bytes())
    }

    /// A value without a meaning that differs in each response.
    fn request_id(&self) -> String {
        let count = lock(&self.calls).count.values().sum::<usize>();
        format!("00000000-0000-4000-8000-{count:012}")
    }
}

/// Credentials as an endpoint returns them.
struct Issued {
    credentials: Credentials,
    session_token: String,
    expiration: String,
}

/// The response to a request.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    /// The lifetime in seconds of a token of the metadata service.
    token_ttl: Option<u32>,
}

impl Reply {
    fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply {
            status,
            content_type: "text/plain",
            body: body.into(),
            token_ttl: None,
        }
    }
}

/// `2025-01-01T00:00:00Z`.
fn timestamp(date: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from(date)
        .format(format)
        .unwrap_or_default()
}

/// `Wed, 01 Jan 2025 00:00:00 GMT`.
fn http_date(date: SystemTime) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    OffsetDateTime::from(date)
        .format(format)
        .unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
