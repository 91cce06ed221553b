//! Verifies the signature of a request to STS.

use std::time::Duration;

use crate::aws::State;
use crate::aws::request::{Refused, Request};
use crate::credentials::Credentials;
use crate::sigv4;
use crate::token::parse_timestamp;

/// The maximum difference between a request's date and the server's.
const TOLERANCE: Duration = Duration::from_secs(15 * 60);

/// Returns the credentials that signed `request`.
pub(super) fn signer(state: &State, request: &Request) -> Result<Credentials, Refused> {
    let missing = Refused::new(
        403,
        "MissingAuthenticationToken",
        "Request is missing Authentication Token",
    );
    let header = request
        .header("authorization")
        .strip_prefix(sigv4::ALGORITHM)
        .ok_or(missing)?;
    let incomplete = || {
        Refused::new(
            400,
            "IncompleteSignature",
            "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature'",
        )
    };
    let field = |name: &str| {
        header
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .ok_or_else(incomplete)
    };
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let [access_key, date, region, service, _] = credential.as_slice() else {
        return Err(incomplete());
    };
    let invalid = || {
        Refused::new(
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
    };
    let credentials = state.keyring.find(access_key).ok_or_else(invalid)?;
    let session_token = request.header("x-amz-security-token");
    if credentials.session_token.as_deref().unwrap_or_default() != session_token {
        return Err(invalid());
    }
    let now = state.clock.now();
    if credentials.expires_at.is_some_and(|end| end <= now) {
        return Err(Refused::new(
            403,
            "ExpiredToken",
            "The security token included in the request is expired",
        ));
    }

    let signed_headers = field("SignedHeaders")?;
    let headers: Vec<(String, String)> = signed_headers
        .split(';')
        .map(|name| (name.to_owned(), one_space(request.header(name))))
        .collect();
    let query: Vec<(String, String)> = form_urlencoded::parse(request.query.as_bytes())
        .into_owned()
        .collect();
    let canonical = sigv4::canonical_request(
        &request.method,
        &request.path,
        &query,
        &headers,
        &sigv4::hash(&request.body),
    );
    let scope = sigv4::Scope {
        date,
        region,
        service,
    };
    let timestamp = request.header("x-amz-date");
    let string_to_sign = sigv4::string_to_sign(timestamp, scope, &canonical);
    let right = *service == "sts"
        && sigv4::verify(
            &credentials.secret_key,
            scope,
            &string_to_sign,
            field("Signature")?,
        );
    if !right {
        return Err(Refused::new(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        ));
    }
    let signed_at = parse_timestamp(timestamp).ok_or_else(incomplete)?;
    let distance = now
        .duration_since(signed_at)
        .unwrap_or_else(|ahead| ahead.duration());
    if distance > TOLERANCE {
        return Err(Refused::new(
            403,
            "SignatureDoesNotMatch",
            "Signature expired or not yet current",
        ));
    }
    Ok(credentials)
}

/// The value of a header as it is signed: with each run of spaces replaced by one.
fn one_space(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
