//! Verifies a token for this server at the current time.

use std::time::{Duration, SystemTime};

use crate::credentials::Keyring;
use crate::policy::Policy;
use crate::reason::Reason;
use crate::token::Token;

/// The maximum validity of a token in seconds.
const MAXIMUM_EXPIRES: u64 = 900;

/// How far in the future a token's date may be: AWS's tolerance for signatures.
const FUTURE_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The values that a token must contain.
pub(crate) struct Expectation<'a> {
    pub(crate) host: &'a str,
    /// Other names of the same server.
    pub(crate) other_hosts: &'a [String],
    /// `None`: the token must not contain a port.
    pub(crate) port: Option<u16>,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) action: &'a str,
    /// `None`: the token contains no user, and the action depends on the user.
    pub(crate) token_user: Option<&'a str>,
    /// The user that logs in, for the policy.
    pub(crate) user: &'a str,
    pub(crate) lifetime: Duration,
    pub(crate) now: SystemTime,
}

/// The result of the verification.
pub(crate) struct Judgement {
    /// The token's age; `None` if its date is unreadable or in the future.
    pub(crate) age: Option<Duration>,
    pub(crate) access_key: Option<String>,
    /// The reason, and details about this token.
    pub(crate) refusal: Option<(Reason, String)>,
}

/// Verifies `text` in the order of the real service: its authenticity, then host, port, region and user, then
/// the time, and the policy last.
pub(crate) fn verify(
    text: &str,
    expected: &Expectation<'_>,
    keyring: &Keyring,
    policy: &Policy,
) -> Judgement {
    match Token::parse(text) {
        Ok(token) => Judgement {
            age: expected.now.duration_since(token.issued).ok(),
            refusal: check(&token, expected, keyring, policy).err(),
            access_key: Some(token.access_key),
        },
        Err(what) => Judgement {
            age: None,
            access_key: None,
            refusal: Some((Reason::Malformed, what.to_owned())),
        },
    }
}

fn check(
    token: &Token,
    expected: &Expectation<'_>,
    keyring: &Keyring,
    policy: &Policy,
) -> Result<(), (Reason, String)> {
    let Some(credentials) = keyring.find(&token.access_key) else {
        return refuse(Reason::UnknownAccessKey, "");
    };
    match (&credentials.session_token, &token.session_token) {
        (Some(_), None) => return refuse(Reason::SessionToken, "it is missing"),
        (None, Some(_)) => return refuse(Reason::SessionToken, "these credentials have none"),
        (expected, actual) if expected != actual => {
            return refuse(Reason::SessionToken, "it is a different one");
        }
        _ => {}
    }
    if !token.is_signed_by(&credentials.secret_key) {
        return refuse(Reason::Signature, "");
    }

    let others = expected.other_hosts;
    let pairs = [
        (Reason::Service, token.service.as_str(), expected.service),
        (Reason::Region, token.region.as_str(), expected.region),
        (Reason::Host, token.host.as_str(), expected.host),
        (Reason::Action, token.action.as_str(), expected.action),
    ];
    for (reason, actual, expected) in pairs {
        let is_other_name = reason == Reason::Host && others.iter().any(|other| other == actual);
        if actual != expected && !is_other_name {
            return refuse(reason, format!("it is for {actual:?}, not {expected:?}"));
        }
    }
    if token.port != expected.port {
        let name = |port: Option<u16>| port.map_or("none".to_owned(), |port| port.to_string());
        return refuse(
            Reason::Port,
            format!(
                "it is for {}, not {}",
                name(token.port),
                name(expected.port)
            ),
        );
    }
    if token.user.as_deref() != expected.token_user {
        return refuse(
            Reason::User,
            format!("it is for {:?}, not {:?}", token.user, expected.token_user),
        );
    }

    if token.expires > MAXIMUM_EXPIRES {
        return refuse(
            Reason::LifetimeTooLong,
            format!("it requests {} s", token.expires),
        );
    }
    match expected.now.duration_since(token.issued) {
        Ok(age) => {
            let lifetime = expected.lifetime.min(Duration::from_secs(token.expires));
            if age >= lifetime {
                return refuse(Reason::Expired, format!("it is {} s old", age.as_secs()));
            }
        }
        Err(future) => {
            if future.duration() > FUTURE_TOLERANCE {
                return refuse(
                    Reason::NotYetValid,
                    format!("it is {} s ahead", future.duration().as_secs()),
                );
            }
        }
    }
    if let Some(end) = credentials.expires_at
        && let Ok(past) = expected.now.duration_since(end)
    {
        return refuse(
            Reason::CredentialsExpired,
            format!("they expired {} s ago", past.as_secs()),
        );
    }
    let principals: Vec<&str> = [
        Some(&credentials.access_key),
        credentials.principal.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(String::as_str)
    .collect();
    if !policy.allows(&principals, expected.user) {
        return refuse(
            Reason::NotAuthorized,
            format!("{principals:?} may not log in as {:?}", expected.user),
        );
    }
    Ok(())
}

fn refuse<T>(reason: Reason, detail: impl Into<String>) -> Result<T, (Reason, String)> {
    Err((reason, detail.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::credentials::Credentials;
    use crate::token::parse_timestamp;

    /// Tokens of AWS's own SDKs, each verified by a server of exactly its endpoint.
    fn vectors() -> Vec<Value> {
        serde_json::from_str(include_str!("../tests/data/tokens.json")).unwrap()
    }

    fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
        vector[field].as_str().unwrap()
    }

    fn reason_of(vector: &Value, token: &str, age: u64) -> Option<Reason> {
        let mut credentials =
            Credentials::new(text(vector, "access_key"), text(vector, "secret_key"));
        if let Some(session_token) = vector["session_token"].as_str() {
            credentials = credentials.session_token(session_token);
        }
        let keyring = Keyring::default();
        keyring.add(credentials);
        let is_dsql = text(vector, "service") == "dsql";
        let expected = Expectation {
            host: text(vector, "host"),
            other_hosts: &[],
            port: vector["port"].as_u64().map(|port| port.try_into().unwrap()),
            region: text(vector, "region"),
            service: text(vector, "service"),
            action: vector["action"].as_str().unwrap_or("connect"),
            token_user: (!is_dsql).then(|| text(vector, "user")),
            user: text(vector, "user"),
            lifetime: Duration::from_secs(900),
            now: parse_timestamp(text(vector, "amz_date")).unwrap() + Duration::from_secs(age),
        };
        verify(token, &expected, &keyring, &Policy::default())
            .refusal
            .map(|(reason, _)| reason)
    }

    #[test]
    fn every_vector_is_valid_until_it_expires() {
        let vectors = vectors();
        assert!(vectors.len() >= 10);
        for vector in vectors {
            let token = text(&vector, "token_sorted");
            let expires = vector["expires"].as_u64().unwrap();
            assert_eq!(reason_of(&vector, token, 0), None, "{}", vector["name"]);
            assert_eq!(
                reason_of(&vector, token, expires - 1),
                None,
                "{}",
                vector["name"]
            );
            assert_eq!(
                reason_of(&vector, token, expires),
                Some(Reason::Expired),
                "{}",
                vector["name"]
            );
        }
    }

    #[test]
    fn the_order_of_the_parameters_does_not_matter() {
        for vector in vectors() {
            let (endpoint, query) = text(&vector, "token_sorted").split_once('?').unwrap();
            let mut parameters: Vec<&str> = query.split('&').collect();
            parameters.reverse();
            let token = format!("{endpoint}?{}", parameters.join("&"));
            assert_eq!(reason_of(&vector, &token, 0), None, "{}", vector["name"]);
        }
    }

    #[test]
    fn another_signature_is_refused() {
        for vector in vectors() {
            let signature = text(&vector, "signature");
            let flipped: String = signature.chars().rev().collect();
            let token = text(&vector, "token_sorted");
            for wrong in [flipped, signature.to_uppercase(), signature[1..].to_owned()] {
                let token = token.replace(signature, &wrong);
                assert_eq!(
                    reason_of(&vector, &token, 0),
                    Some(Reason::Signature),
                    "{wrong}"
                );
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_password_makes_it_panic(password: String) {
            for vector in vectors().iter().take(1) {
                proptest::prop_assert_eq!(reason_of(vector, &password, 0), Some(Reason::Malformed));
                let start = "host/?Action=connect&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=";
                let _ = reason_of(vector, &format!("{start}{password}"), 0);
            }
        }
    }
}
