//! Where credentials were found, in words. AWS's SDK notes it on them.

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;

/// Such as `environment variables` or `profile, assumed role`; `None` where nothing is noted, as with
/// those that an application makes itself.
pub(crate) fn origin(credentials: &Credentials) -> Option<String> {
    let features = credentials.get_property::<Vec<Feature>>()?;
    let mut words: Vec<&str> = features.iter().filter_map(name).collect();
    words.dedup();
    (!words.is_empty()).then(|| words.join(", "))
}

fn name(feature: &Feature) -> Option<&'static str> {
    Some(match feature {
        Feature::CredentialsEnvVars => "environment variables",
        Feature::CredentialsEnvVarsStsWebIdToken
        | Feature::CredentialsProfileStsWebIdToken
        | Feature::CredentialsStsAssumeRoleWebId => "web identity",
        Feature::CredentialsStsAssumeRole => "assumed role",
        Feature::CredentialsProfile
        | Feature::CredentialsProfileSourceProfile
        | Feature::CredentialsProfileNamedProvider => "profile",
        Feature::CredentialsProfileSso | Feature::CredentialsSso => "sso",
        Feature::CredentialsProfileProcess | Feature::CredentialsProcess => "credential process",
        Feature::CredentialsProfileLogin | Feature::CredentialsLogin => "aws login",
        Feature::CredentialsHttp => "container endpoint",
        Feature::CredentialsImds => "instance metadata",
        _ => return None,
    })
}
