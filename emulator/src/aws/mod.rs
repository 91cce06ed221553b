//! AWS's own endpoints beside the database, for clients that fetch their credentials.

mod authorization;
mod http;
mod metadata;
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

/// How many calls are remembered.
const KEPT_CALLS: usize = 10_000;

/// The role that the container and the metadata service hand out credentials of.
const INSTANCE_ROLE: &str = "emulator-instance";

/// The account that everything belongs to.
const ACCOUNT: &str = "123456789012";

/// Which of AWS's endpoints.
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

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AwsBehaviour {
    /// Rightly and at once.
    #[default]
    Normal,
    /// Rightly, so much later.
    Slow(Duration),
    /// With an error of its own (500).
    Failing,
    /// With the error that asks for fewer calls.
    Throttled,
    /// With the right answer, backwards.
    Garbled,
}

/// One call of an endpoint. It never holds a secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsCall {
    /// Which endpoint was called.
    pub service: AwsService,
    /// The action of STS, or the path.
    pub action: String,
    /// The parameters of STS, such as `RoleArn` and `ExternalId`, without tokens.
    pub parameters: HashMap<String, String>,
    /// The HTTP status that was answered.
    pub status: u16,
}

/// AWS's endpoints on loopback, over HTTP. Whatever credentials they hand out, the emulator accepts
/// until they expire.
pub struct AwsEndpoints {
    address: SocketAddr,
    state: Arc<State>,
}

/// What the endpoints share.
pub(crate) struct State {
    clock: Arc<Clock>,
    keyring: Arc<Keyring>,
    region: String,
    behaviours: Mutex<HashMap<AwsService, AwsBehaviour>>,
    calls: Mutex<Calls>,
    /// Zero: what the caller asks for, or the service's default.
    lifetime: Millis,
    /// Role ARN to the external id that its trust policy asks for; empty: every role may be assumed.
    roles: Mutex<HashMap<String, Option<String>>>,
    issued: AtomicU64,
    /// Makes the secrets of two emulators different.
    seed: String,
}

#[derive(Default)]
struct Calls {
    count: HashMap<AwsService, usize>,
    latest: VecDeque<AwsCall>,
}

impl AwsEndpoints {
    /// Starts to listen on a free port; must be called inside the runtime.
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

    /// The URL of STS, for `AWS_ENDPOINT_URL_STS` or an `endpoint_url`.
    pub fn sts_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL for `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn container_credentials_url(&self) -> String {
        format!("http://{}{}", self.address, metadata::CONTAINER_PATH)
    }

    /// What the container endpoint expects: for `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub fn container_authorization_token(&self) -> String {
        self.state.container_authorization_token()
    }

    /// What a program's environment says where it is to have the credentials of a container: for
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

    /// How long credentials that are handed out from now on live. Default: as long as the caller
    /// asks for, else an hour. Cut to whole seconds, since that is how AWS tells their end.
    pub fn set_credential_lifetime(&self, lifetime: Duration) {
        self.state.lifetime.set(lifetime);
    }

    /// How an endpoint answers from now on. Default: [`AwsBehaviour::Normal`].
    pub fn set_behaviour(&self, service: AwsService, behaviour: AwsBehaviour) {
        lock(&self.state.behaviours).insert(service, behaviour);
    }

    /// Lets a role be assumed, and only those that were named so; `external_id` is what its trust
    /// policy asks for. Default: every role may be assumed.
    pub fn trust_role(&self, role_arn: impl Into<String>, external_id: Option<&str>) {
        lock(&self.state.roles).insert(role_arn.into(), external_id.map(str::to_owned));
    }

    /// How many requests an endpoint has had, whatever it answered.
    pub fn requests(&self, service: AwsService) -> usize {
        let calls = lock(&self.state.calls);
        calls.count.get(&service).copied().unwrap_or(0)
    }

    /// The requests so far, the oldest first; the latest 10,000 if there were more.
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

    /// Makes temporary credentials of `principal`, which are accepted from now until their end.
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
        // Characters that must be encoded in a URL are in it, as in real ones, and its length is theirs.
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

    /// Says nothing to anybody, but differs from request to request.
    fn request_id(&self) -> String {
        let count = lock(&self.calls).count.values().sum::<usize>();
        format!("00000000-0000-4000-8000-{count:012}")
    }
}

/// Credentials as they are handed out.
struct Issued {
    credentials: Credentials,
    session_token: String,
    expiration: String,
}

/// What is answered.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    /// How many seconds a token of the metadata service lives.
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
