//! SigV4: credentials and an endpoint become a token. Pure; the only file that names SigV4.
//!
//! Differences from `aws-sdk-rds`: the user's name is percent-encoded before it is signed, a token has an expiry,
//! which is never later than that of its credentials, no region is assumed, and no type here can print a secret.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::endpoint::{Endpoint, Engine};
use crate::error::{Error, ErrorKind};
use crate::sdk_trace::without_sdk_trace;
use crate::token::{Schedule, Token};

/// The unreserved characters of RFC 3986 are not encoded; all others are.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A token has none, and aws-sigv4 requires one.
const SCHEME: &str = "https://";

/// Signs a token for `endpoint` in `region` that AWS accepts for `lifetime` from `now`, or until `credentials` expire
/// if that is sooner.
///
/// The form is that of the user guide, "Connecting to your DB instance using IAM authentication": a presigned `GET`
/// without its scheme.
pub(crate) fn presign(
    endpoint: &Endpoint,
    region: &str,
    credentials: &Credentials,
    now: &Moment,
    lifetime: Duration,
    schedule: Schedule,
) -> Result<Token, Error> {
    let issued = now.whole_second();
    let authority = authority(endpoint);
    let url = format!("{SCHEME}{authority}/?{}", action(endpoint));
    let unsigned = url.trim_start_matches(SCHEME);

    refuse_if_too_long(unsigned, region, credentials)?;

    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(lifetime);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service(endpoint.engine()))
        .time(issued.wall)
        .settings(settings)
        .build()
        .map_err(cannot_sign)?
        .into();
    // The header is given because aws-sigv4 would leave out a port of 443.
    let request = SignableRequest::new(
        "GET",
        &url,
        std::iter::once(("host", authority.as_str())),
        SignableBody::empty(),
    )
    .map_err(cannot_sign)?;

    let signed = without_sdk_trace(|| sign(request, &params));
    let (instructions, _signature) = signed.map_err(cannot_sign)?.into_parts();

    let mut secret = Zeroizing::new(String::with_capacity(
        unsigned.len() + 512 + session_length(credentials),
    ));
    secret.push_str(unsigned);
    for (name, value) in instructions.params() {
        secret.extend(["&", name, "="]);
        secret.extend(utf8_percent_encode(value, UNRESERVED));
    }

    let token = Token::new(secret, issued, lifetime, credentials.expiry(), schedule);
    if !token.is_usable_at(now) {
        return Err(Error::new(
            ErrorKind::CredentialsExpired,
            "the aws credentials have expired, or expire too soon for a usable token; renew \
             them (for example with `aws sso login`), or correct this machine's clock",
        ));
    }
    Ok(token)
}

fn authority(endpoint: &Endpoint) -> String {
    match endpoint.engine() {
        Engine::Rds => format!("{}:{}", endpoint.host(), endpoint.port()),
        Engine::Dsql => endpoint.host().to_owned(),
    }
}

fn action(endpoint: &Endpoint) -> String {
    match (endpoint.engine(), endpoint.user()) {
        (Engine::Rds, user) => {
            let user = utf8_percent_encode(user, UNRESERVED);
            format!("Action=connect&DBUser={user}")
        }
        (Engine::Dsql, "admin") => "Action=DbConnectAdmin".to_owned(),
        (Engine::Dsql, _) => "Action=DbConnect".to_owned(),
    }
}

fn service(engine: Engine) -> &'static str {
    match engine {
        Engine::Rds => "rds-db",
        Engine::Dsql => "dsql",
    }
}

/// The longest result of percent-encoding the session token.
fn session_length(credentials: &Credentials) -> usize {
    credentials
        .session_token()
        .map_or(0, |token| 3 * token.len())
}

/// aws-sigv4 panics on a URL that is longer than the crate http takes, 65,534 bytes. Its token would be
/// longer than the 65,530 that PostgreSQL takes as a password.
fn refuse_if_too_long(
    unsigned: &str,
    region: &str,
    credentials: &Credentials,
) -> Result<(), Error> {
    const LONGEST_URL: usize = 65_534;
    /// The scheme, and the fixed parts of the signature's parameters.
    const FIXED: usize = 195;
    let session = credentials.session_token().unwrap_or_default();
    let encoded: usize = utf8_percent_encode(session, UNRESERVED).map(str::len).sum();
    let key = credentials.access_key_id();
    if unsigned.len() + encoded + key.len() + region.len() + FIXED <= LONGEST_URL {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "a token would be longer than the 65,530 bytes that PostgreSQL takes: the session token of \
         the aws credentials has {} bytes; use credentials with a shorter one, such as those of a \
         role with fewer session tags",
        session.len()
    )))
}

fn cannot_sign(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    let message = "cannot sign a token; check the host, the user and the region";
    Error::with_cause(ErrorKind::Configuration, message, cause)
}

#[cfg(test)]
mod tests;
