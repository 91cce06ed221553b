//! AWS Signature Version 4, implemented from its specification, to compute the expected signature.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// All characters but the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The scope from which a signing key is derived besides the secret: `20250101/eu-west-1/rds-db`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// `YYYYMMDD`.
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

/// The canonical form of a request.
pub(crate) fn canonical_request(
    method: &str,
    path: &str,
    query: &[(String, String)],
    headers: &[(String, String)],
    payload_hash: &str,
) -> String {
    let mut encoded: Vec<(String, String)> = query
        .iter()
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    encoded.sort();
    let query: Vec<String> = encoded
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    format!(
        "{method}\n{path}\n{}\n{headers}\n{}\n{payload_hash}",
        query.join("&"),
        names.join(";"),
    )
}

/// The string to sign: the date, the scope and the hash of the canonical request.
pub(crate) fn string_to_sign(timestamp: &str, scope: Scope<'_>, canonical_request: &str) -> String {
    format!(
        "{ALGORITHM}\n{timestamp}\n{}/{}/{}/aws4_request\n{}",
        scope.date,
        scope.region,
        scope.service,
        hash(canonical_request.as_bytes()),
    )
}

/// Whether `signature`, in hexadecimal, is that of `string_to_sign`. Compares in constant time.
pub(crate) fn verify(
    secret_key: &str,
    scope: Scope<'_>,
    string_to_sign: &str,
    signature: &str,
) -> bool {
    let lower_case = !signature.bytes().any(|byte| byte.is_ascii_uppercase());
    match hex::decode(signature) {
        Ok(signature) => {
            lower_case
                && mac(&signing_key(secret_key, scope), string_to_sign.as_bytes())
                    .verify_slice(&signature)
                    .is_ok()
        }
        Err(_) => false,
    }
}

/// The SHA-256 of `bytes` in hexadecimal.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn signing_key(secret_key: &str, scope: Scope<'_>) -> Vec<u8> {
    let secret = format!("AWS4{secret_key}");
    [scope.date, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| {
            mac(&key, part.as_bytes()).finalize().into_bytes().to_vec()
        })
}

fn mac(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(message);
    mac
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
