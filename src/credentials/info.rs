//! The public description of credentials.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;

/// The AWS credentials that sign tokens. No secret is part of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CredentialsInfo {
    /// Their source, such as `environment variables`, or `a profile, then an assumed role`; `a provider` if the
    /// source has no name.
    pub source: String,
    /// The id of their access key, which is no secret.
    pub access_key_id: String,
    /// The account that they belong to, where their source said so.
    pub account_id: Option<String>,
    /// Their expiry; `None` for long-lived keys.
    pub expires_at: Option<SystemTime>,
}

impl CredentialsInfo {
    pub(crate) fn of(credentials: &Credentials) -> CredentialsInfo {
        CredentialsInfo {
            source: origin(credentials).unwrap_or_else(|| "a provider".to_owned()),
            access_key_id: credentials.access_key_id().to_owned(),
            account_id: credentials.account_id().map(|id| id.as_str().to_owned()),
            expires_at: credentials.expiry(),
        }
    }
}

/// The sources that the SDK records for credentials, in order. `None` without a record, as for credentials that an
/// application makes itself.
pub(crate) fn origin(credentials: &Credentials) -> Option<String> {
    use AwsCredentialFeature as Feature;
    let features = credentials.get_property::<Vec<Feature>>()?;
    let mut names: Vec<&str> = features
        .iter()
        .filter_map(|feature| match feature {
            Feature::CredentialsEnvVars => Some("environment variables"),
            Feature::CredentialsProfile
            | Feature::CredentialsProfileSourceProfile
            | Feature::CredentialsProfileNamedProvider => Some("a profile"),
            Feature::CredentialsStsAssumeRole => Some("an assumed role"),
            Feature::CredentialsEnvVarsStsWebIdToken
            | Feature::CredentialsProfileStsWebIdToken
            | Feature::CredentialsStsAssumeRoleWebId => Some("a web identity"),
            Feature::CredentialsSso | Feature::CredentialsProfileSso => Some("IAM Identity Center"),
            Feature::CredentialsProcess | Feature::CredentialsProfileProcess => Some("a process"),
            Feature::CredentialsHttp => Some("the container's endpoint"),
            Feature::CredentialsImds => Some("the instance's metadata"),
            Feature::CredentialsLogin | Feature::CredentialsProfileLogin => Some("aws login"),
            _ => None,
        })
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join(", then "))
}
