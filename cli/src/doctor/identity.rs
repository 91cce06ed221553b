//! The identity: region, credentials, clock and token.

use std::time::SystemTime;

use diesel_rds_iam::{Clock, CredentialsInfo, Endpoint, Error, ErrorKind, RegionSource};
use humantime::format_rfc3339_seconds;

use super::Context;
use super::causes::{Advice, Cause, classify};
use super::step::{Observation, Problem, Step, StepResult};

/// The difference between clocks that AWS tolerates.
pub(super) const CLOCK_TOLERANCE_SECONDS: i64 = 300;

pub(super) fn region(context: &Context) -> StepResult<Endpoint> {
    let (region, source) = context.auth.region(&context.endpoint).map_err(|error| {
        Problem::new(error, "set the region of the database in one of these ways").paste(
            "rds-iam doctor --region eu-west-1 …\n\
             postgres://…?iam_region=eu-west-1\n\
             export AWS_REGION=eu-west-1",
        )
    })?;
    let endpoint = context
        .endpoint
        .clone()
        .with_region(&region)
        .map_err(|error| Problem::new(error, "correct the region in the AWS configuration"))?;
    let source = match source {
        RegionSource::HostName => "from the host name",
        RegionSource::Set => "as set",
        RegionSource::AwsConfiguration => "from the AWS configuration",
        _ => "from another source",
    };
    Ok((endpoint, format!("{region}, {source}").into()))
}

pub(super) fn credentials(context: &Context) -> StepResult<CredentialsInfo> {
    let credentials = context
        .auth
        .credentials(&context.endpoint)
        .map_err(no_credentials)?;
    let end = match credentials.expires_at {
        Some(end) => format!("expire {}, {}", format_rfc3339_seconds(end), time_left(end)),
        None => "without expiry".to_owned(),
    };
    let observation = format!(
        "{} from {}, {end}",
        credentials.access_key_id, credentials.source
    );
    Ok((credentials, observation.into()))
}

fn no_credentials(error: Error) -> Problem {
    if let Some(Cause {
        step: Step::Credentials,
        advice: Advice::Text(next),
        ..
    }) = classify(&error.to_string())
    {
        return Problem::new(error, *next);
    }
    let next = match error.kind() {
        ErrorKind::CredentialsNotFound => {
            "set --profile or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        }
        ErrorKind::CredentialsExpired => "renew the credentials, for example with `aws sso login`",
        ErrorKind::CredentialsUnavailable => {
            "check DNS, routes and firewalls to the address in the error, or try again later if it is overloaded"
        }
        ErrorKind::CredentialsTimeout => {
            "check that this machine can reach the source of the credentials"
        }
        _ => "run `aws sts get-caller-identity`, and correct the error that it prints",
    };
    Problem::new(error, next)
}

pub(super) fn clock(context: &Context) -> StepResult<()> {
    let Some(ahead) = context.auth.aws_clock_ahead() else {
        let observation = "skipped: these credentials were obtained without a request to AWS, so its clock \
                     is unknown";
        return Ok(((), Observation::Skipped(observation.to_owned())));
    };
    let observation = compare("AWS's clock", ahead);
    if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
        return Err(Problem::new(
            format!("{observation}; AWS refuses signatures that differ by more than five minutes"),
            "set this machine's clock and synchronise it",
        )
        .paste("sudo timedatectl set-ntp true"));
    }
    Ok(((), observation.into()))
}

/// Describes how far the clock named `whose` is ahead of this machine's, in seconds.
pub(super) fn compare(whose: &str, seconds: i64) -> String {
    match seconds {
        0 => format!("{whose} agrees with this machine's"),
        1.. => format!("{whose} is {seconds} s ahead of this machine's"),
        _ => format!("{whose} is {} s behind this machine's", seconds.abs()),
    }
}

pub(super) fn token(context: &Context) -> StepResult<()> {
    let (_, token) = context
        .manager
        .token()
        .map_err(|error| Problem::new(error, "use other credentials, or correct the endpoint"))?;
    let length = token.expose_secret().len();
    let now = Clock::default().now().wall;
    let age = now.duration_since(token.issued_at()).unwrap_or_default();
    let end = token
        .expires_at()
        .map_or("without expiry".to_owned(), |end| {
            format!(
                "expires {}, {}",
                format_rfc3339_seconds(end),
                time_left(end)
            )
        });
    let observation = format!("signed {} s ago, {length} bytes, {end}", age.as_secs(),);
    Ok(((), observation.into()))
}

fn time_left(end: SystemTime) -> String {
    let left = end
        .duration_since(Clock::default().now().wall)
        .unwrap_or_default();
    let whole = std::time::Duration::from_secs(left.as_secs());
    format!("{} left", humantime::format_duration(whole))
}
