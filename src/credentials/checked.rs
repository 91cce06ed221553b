//! Rejects credentials that were copied with white space, which AWS and the server would refuse without a reason.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

use super::origin;

/// A provider, with a check of what it returns.
#[derive(Debug)]
pub(super) struct Checked(pub(super) SharedCredentialsProvider);

impl ProvideCredentials for Checked {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.0.provide_credentials().await?;
            match HasWhiteSpace::of(&credentials) {
                Some(error) => Err(CredentialsError::invalid_configuration(error)),
                None => Ok(credentials),
            }
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt()
    }
}

/// Names the part that has white space, and never its value.
#[derive(Debug)]
pub(super) struct HasWhiteSpace(String);

impl HasWhiteSpace {
    fn of(credentials: &Credentials) -> Option<HasWhiteSpace> {
        let parts = [
            (
                Some(credentials.access_key_id()),
                "AWS_ACCESS_KEY_ID",
                "access key id",
            ),
            (
                Some(credentials.secret_access_key()),
                "AWS_SECRET_ACCESS_KEY",
                "secret access key",
            ),
            (
                credentials.session_token(),
                "AWS_SESSION_TOKEN",
                "session token",
            ),
        ];
        let has_white_space =
            |part: Option<&str>| part.is_some_and(|part| part.contains(char::is_whitespace));
        let (_, variable, name) = parts
            .into_iter()
            .find(|(part, ..)| has_white_space(*part))?;
        let features = credentials.get_property::<Vec<AwsCredentialFeature>>();
        let is_of_environment = features
            .is_some_and(|features| features.contains(&AwsCredentialFeature::CredentialsEnvVars));
        Some(HasWhiteSpace(match is_of_environment {
            true => variable.to_owned(),
            false => match origin(credentials) {
                Some(origin) => format!("the {name} ({origin})"),
                None => format!("the {name}"),
            },
        }))
    }
}

impl fmt::Display for HasWhiteSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} contains white space; remove it where it is set",
            self.0
        )
    }
}

impl StdError for HasWhiteSpace {}
