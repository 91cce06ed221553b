//! Who we are to AWS: region, credentials, clock and token.

use std::time::SystemTime;

use diesel_rds_iam::{Clock, CredentialsInfo, Endpoint, Error, ErrorKind, RegionSource};
use humantime::format_rfc3339_seconds;

use super::Patient;
use super::step::{Found, Outcome, Trouble};

/// How far apart AWS lets clocks be.
pub(super) const CLOCK_TOLERANCE_SECONDS: i64 = 300;

pub(super) fn region(patient: &Patient) -> Outcome<Endpoint> {
    let (region, source) = patient.auth.region(&patient.endpoint).map_err(|error| {
        Trouble::new(
            error,
            "name the region that the database is in, one way or the other",
        )
        .paste(
            "rds-iam doctor --region eu-west-1 …\n\
             postgres://…?iam_region=eu-west-1\n\
             export AWS_REGION=eu-west-1",
        )
    })?;
    let endpoint = patient
        .endpoint
        .clone()
        .with_region(&region)
        .map_err(|error| Trouble::new(error, "correct the region of the AWS configuration"))?;
    let source = match source {
        RegionSource::HostName => "from the host name",
        RegionSource::Set => "as it was set",
        RegionSource::AwsConfiguration => "from the AWS configuration",
        _ => "from elsewhere",
    };
    Ok((endpoint, format!("{region}, {source}").into()))
}

pub(super) fn credentials(patient: &Patient) -> Outcome<CredentialsInfo> {
    let credentials = patient
        .auth
        .credentials(&patient.endpoint)
        .map_err(no_credentials)?;
    let end = match credentials.expires_at {
        Some(end) => format!("until {}, {}", format_rfc3339_seconds(end), time_left(end)),
        None => "without an end".to_owned(),
    };
    let found = format!(
        "{} from {}, {end}",
        credentials.access_key_id, credentials.source
    );
    Ok((credentials, found.into()))
}

fn no_credentials(error: Error) -> Trouble {
    let next = match error.kind() {
        ErrorKind::CredentialsNotFound => {
            "name a profile with --profile or AWS_PROFILE, or set the variables of a key"
        }
        ErrorKind::CredentialsExpired => "renew them, for example with `aws sso login`",
        ErrorKind::CredentialsTimeout => "see that their source can be reached from here",
        _ => "ask AWS who you are, with `aws sts get-caller-identity`, and mend what that says",
    };
    Trouble::new(error, next)
}

pub(super) fn clock(patient: &Patient) -> Outcome<()> {
    let Some(ahead) = patient.auth.aws_clock_ahead() else {
        let found = "not seen: these credentials are had without asking AWS";
        return Ok(((), Found::NotSeen(found.to_owned())));
    };
    let found = compare("AWS's clock", ahead);
    if ahead.abs() > CLOCK_TOLERANCE_SECONDS {
        return Err(Trouble::new(
            format!("{found}, and AWS refuses what is signed more than five minutes away"),
            "set this machine's clock, and have it kept right",
        )
        .paste("sudo timedatectl set-ntp true"));
    }
    Ok(((), found.into()))
}

/// `seconds` is how far that clock is ahead of this machine's.
pub(super) fn compare(whose: &str, seconds: i64) -> String {
    match seconds {
        0 => format!("{whose} and this machine's agree"),
        1.. => format!("{whose} is {seconds} s ahead of this machine's"),
        _ => format!("{whose} is {} s behind this machine's", seconds.abs()),
    }
}

pub(super) fn token(patient: &Patient) -> Outcome<()> {
    let (_, token) = patient.manager.token().map_err(|error| {
        Trouble::new(
            error,
            "use other credentials, or correct the endpoint, as it says",
        )
    })?;
    let length = token.expose_secret().len();
    let now = Clock::default().now().wall;
    let age = now.duration_since(token.issued_at()).unwrap_or_default();
    let end = token
        .expires_at()
        .map_or("without an end".to_owned(), |end| {
            format!("until {}, {}", format_rfc3339_seconds(end), time_left(end))
        });
    let found = format!("signed {} s ago, {length} bytes, {end}", age.as_secs(),);
    Ok(((), found.into()))
}

fn time_left(end: SystemTime) -> String {
    let left = end
        .duration_since(Clock::default().now().wall)
        .unwrap_or_default();
    let whole = std::time::Duration::from_secs(left.as_secs());
    format!("{} left", humantime::format_duration(whole))
}
