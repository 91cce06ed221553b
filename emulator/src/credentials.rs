//! The credentials whose signatures the emulator accepts.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

/// AWS credentials that the emulator accepts signatures of.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use rds_iam_emulator::Credentials;
///
/// let temporary = Credentials::new("ASIAEXAMPLE", "secret")
///     .session_token("FwoGZXIvYXdzE")
///     .expires_at(SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800));
/// assert_eq!(temporary.access_key(), "ASIAEXAMPLE");
/// assert!(!format!("{temporary:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) principal: Option<String>,
}

impl Credentials {
    /// Long-term credentials, as those of an IAM user: without session token and expiry.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Credentials {
        Credentials {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: None,
            expires_at: None,
            principal: None,
        }
    }

    /// Makes them temporary: each token must contain exactly this session token. Default: none, and a token
    /// that contains one is refused.
    #[must_use]
    pub fn session_token(mut self, session_token: impl Into<String>) -> Credentials {
        self.session_token = Some(session_token.into());
        self
    }

    /// Sets their expiry by the server's clock. From then on every token that they signed is refused, whatever
    /// its age. Default: never.
    #[must_use]
    pub fn expires_at(mut self, expires_at: SystemTime) -> Credentials {
        self.expires_at = Some(expires_at);
        self
    }

    /// Sets the ARN of the user or role that they belong to, which a policy can name instead of the access key.
    /// Default: none.
    #[must_use]
    pub fn principal(mut self, arn: impl Into<String>) -> Credentials {
        self.principal = Some(arn.into());
        self
    }

    /// The access key id, which is not secret.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key", &self.access_key)
            .field("temporary", &self.session_token.is_some())
            .field("expires_at", &self.expires_at)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

/// All accepted credentials, by access key.
#[derive(Debug, Default)]
pub(crate) struct Keyring(RwLock<HashMap<String, Credentials>>);

impl Keyring {
    pub(crate) fn add(&self, credentials: Credentials) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(credentials.access_key.clone(), credentials);
    }

    pub(crate) fn remove(&self, access_key: &str) -> bool {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(access_key)
            .is_some()
    }

    pub(crate) fn find(&self, access_key: &str) -> Option<Credentials> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(access_key)
            .cloned()
    }
}
