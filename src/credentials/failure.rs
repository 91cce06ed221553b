//! Why a source of credentials failed: its error by kind, with the setting to change.

use std::env;
use std::error::Error as StdError;
use std::fs::File;
use std::io;

use aws_credential_types::provider::error::CredentialsError;

use super::checked::HasWhiteSpace;
use super::{Identity, Source};
use crate::error::{Error, ErrorKind};
use crate::http_client::{Outcome, UnsupportedProxy};

/// How the SDK says that a `credential_process` failed, and what precedes its standard error.
const PROCESS_FAILED: &str = "external process exited with code";
const STANDARD_ERROR: &str = "Stderr: ";

/// How much of the standard error of a `credential_process` an error repeats.
const MAX_STANDARD_ERROR: usize = 200;

/// A failed attempt.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the source answered 429, so that another attempt may succeed within seconds.
    pub(super) is_throttled: bool,
}

impl Failure {
    fn lasting(error: Error) -> Failure {
        Failure {
            error,
            is_throttled: false,
        }
    }
}

impl Identity {
    /// The error of a fetch that took longer than the limit. `error` is the one that names no address.
    pub(crate) fn timed_out(&self, error: Error) -> Error {
        let Some(request) = self.last_request.get() else {
            return error;
        };
        let address = &request.address;
        match request.outcome {
            Outcome::NoConnection => unreachable(address, error),
            Outcome::Unavailable(status) => overloaded(address, Some(status), error),
            Outcome::NoResponse | Outcome::Other => error.with_note(&asked(address)),
        }
    }

    pub(super) fn failed(&self, error: CredentialsError) -> Failure {
        if let Some(part) = cause_of::<HasWhiteSpace>(&error) {
            return Failure::lasting(Error::configuration(part.to_string()));
        }
        if let Some(proxy) = cause_of::<UnsupportedProxy>(&error) {
            let error = Error::configuration(proxy.to_string());
            return Failure::lasting(match self.last_request.get() {
                Some(request) => error.with_note(&asked(&request.address)),
                None => error,
            });
        }
        let error = cut_standard_error(error);
        let request = self.last_request.get();
        let is_not_loaded = matches!(error, CredentialsError::CredentialsNotLoaded(_));
        // Off AWS the instance's metadata cannot be reached, and that only ends the search.
        let Some(request) = request.filter(|_| !is_not_loaded) else {
            return Failure::lasting(self.classify(error));
        };
        let address = &request.address;
        match request.outcome {
            Outcome::Unavailable(status) => Failure {
                error: overloaded(address, Some(status), error),
                is_throttled: status == 429,
            },
            Outcome::Other if is_throttled(&error) => {
                Failure::lasting(overloaded(address, None, error))
            }
            Outcome::NoConnection => Failure::lasting(unreachable(address, error)),
            Outcome::NoResponse => {
                Failure::lasting(did_not_answer(error).with_note(&asked(address)))
            }
            Outcome::Other => Failure::lasting(self.classify(error).with_note(&asked(address))),
        }
    }

    fn classify(&self, error: CredentialsError) -> Error {
        if let Some(command) = self.login_command(&error) {
            let message = format!(
                "the session of this profile has expired or was never started; run `{command}`"
            );
            return Error::with_cause(ErrorKind::CredentialsExpired, message, error);
        }
        if let Some(message) = self.unreadable_file(&error) {
            return Error::with_cause(ErrorKind::CredentialsNotFound, message, error);
        }
        let profile = self.profile_name();
        let (kind, message) = match &error {
            CredentialsError::CredentialsNotLoaded(_) if self.profile().is_some() => {
                let message = format!(
                    "no aws credentials found in the profile {:?}; correct its name, or add it \
                     to the aws configuration files",
                    self.profile().unwrap_or_default()
                );
                return Error::with_cause(ErrorKind::CredentialsNotFound, message, error);
            }
            CredentialsError::CredentialsNotLoaded(_) => (
                ErrorKind::CredentialsNotFound,
                "no aws credentials found; set a profile, AWS_* variables or an instance role",
            ),
            CredentialsError::ProviderTimedOut(_) => return did_not_answer(error),
            CredentialsError::InvalidConfiguration(_) if profile.is_some() => (
                ErrorKind::Configuration,
                "the aws configuration is not valid; correct the profile",
            ),
            CredentialsError::InvalidConfiguration(_) => (
                ErrorKind::Configuration,
                "the aws configuration is not valid; correct the AWS_* variables",
            ),
            _ if self.roles.is_empty() => (
                ErrorKind::CredentialsRefused,
                "the source of aws credentials failed or refused",
            ),
            _ => (
                ErrorKind::CredentialsRefused,
                "assuming the role failed; check its trust policy and external id, and the \
                 credentials that assume it",
            ),
        };
        Error::with_cause(kind, message, error)
    }

    /// The profile that is named, by a setting or by the environment.
    fn profile_name(&self) -> Option<String> {
        let profile = self.profile().map(str::to_owned);
        profile.or_else(|| env::var("AWS_PROFILE").ok().filter(|it| !it.is_empty()))
    }

    /// The command that begins a new session, if the profile's is over.
    fn login_command(&self, error: &CredentialsError) -> Option<String> {
        let text = text_of(error);
        let command = match () {
            // The texts of aws-config, and the folders of the sessions.
            () if text.contains("Login token") || text.contains("/login/cache") => "aws login",
            () if text.contains("SSO token") || text.contains("/sso/cache") => "aws sso login",
            () => return None,
        };
        let profile = self.profile_name();
        let profile = profile.as_deref().unwrap_or("default");
        Some(format!("{command} --profile {profile}"))
    }

    /// Names the file of the environment that cannot be read, if that is the reason. The SDK's error has the
    /// system's text alone.
    fn unreadable_file(&self, error: &CredentialsError) -> Option<String> {
        if !matches!(self.source, Source::Chain { profile: None }) {
            return None;
        }
        let failed = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>())?;
        // In the order of the default chain.
        let variables = [
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ];
        variables.into_iter().find_map(|variable| {
            let file = env::var_os(variable).filter(|file| !file.is_empty())?;
            let unreadable = File::open(&file).err()?;
            (unreadable.kind() == failed.kind()).then(|| {
                format!(
                    "the file {file:?} of {variable} cannot be read; mount it, or unset the variable"
                )
            })
        })
    }
}

/// Keeps the first line of the standard error of a `credential_process`. A shell with `set -x` prints keys there.
fn cut_standard_error(error: CredentialsError) -> CredentialsError {
    let text = causes(&error)
        .map(|cause| cause.to_string())
        .find(|text| text.contains(PROCESS_FAILED));
    let Some((before, output)) = text
        .as_deref()
        .and_then(|text| text.split_once(STANDARD_ERROR))
    else {
        return error;
    };
    let line = output.trim_start().lines().next().unwrap_or_default();
    let first: String = line.chars().take(MAX_STANDARD_ERROR).collect();
    let rest = if first.len() < line.len() { "…" } else { "" };
    CredentialsError::provider_error(format!("{before}{STANDARD_ERROR}{first}{rest}"))
}

fn asked(address: &str) -> String {
    format!("the last request was to {address}")
}

fn unreachable(address: &str, error: impl StdError + Send + Sync + 'static) -> Error {
    let message = "the source of aws credentials cannot be reached; check its address, dns, routes and firewalls";
    Error::with_cause(ErrorKind::CredentialsUnavailable, message, error).with_note(&asked(address))
}

/// Without `status`, the body of the response has a code of throttling.
fn overloaded(
    address: &str,
    status: Option<u16>,
    error: impl StdError + Send + Sync + 'static,
) -> Error {
    let message = "the source of aws credentials is overloaded or failing; start fewer processes at once, or raise \
                   iam_credentials_timeout";
    let note = match status {
        Some(status) => format!("{address} answered {status}"),
        None => format!("{address} throttles its callers"),
    };
    Error::with_cause(ErrorKind::CredentialsUnavailable, message, error).with_note(&note)
}

fn did_not_answer(error: CredentialsError) -> Error {
    Error::with_cause(
        ErrorKind::CredentialsTimeout,
        "the source of aws credentials did not answer in time; check that it can be reached, or \
         raise iam_credentials_timeout",
        error,
    )
}

/// Whether the error has a code by which AWS throttles its callers, with the status 400.
fn is_throttled(error: &CredentialsError) -> bool {
    let text = text_of(error);
    let codes = [
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
    ];
    codes.into_iter().any(|code| text.contains(code))
}

/// The texts of an error and its causes.
fn text_of(error: &CredentialsError) -> String {
    causes(error).map(|error| format!("{error}; ")).collect()
}

fn cause_of<T: StdError + 'static>(error: &CredentialsError) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a CredentialsError) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let first: &'a (dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        error.source()
    })
}
