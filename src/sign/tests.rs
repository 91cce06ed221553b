//! Tokens compared with those of other signers, step by step, and with the rules of the user guide.

mod log;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::*;
use crate::clock::ManualClock;

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
const DSQL_HOST: &str = "peccy.dsql.us-east-1.on.aws";
const SESSION_TOKEN: &str = "IQoJb3JpZ2luX2Vj//+++/marker/+=token==";

/// A token to sign and, in a vector, the result of another signer.
#[derive(Deserialize)]
struct Case {
    name: String,
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    region: String,
    host: String,
    port: Option<u16>,
    user: String,
    amz_date: String,
    expires: u64,
    signature: Option<String>,
    token_sorted: Option<String>,
}

impl Case {
    /// A vector of this crate's own, without another signer's result.
    fn new(name: &str, host: &str, port: u16, user: &str) -> Case {
        Case {
            name: name.to_owned(),
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            region: "eu-west-1".to_owned(),
            host: host.to_owned(),
            port: Some(port),
            user: user.to_owned(),
            amz_date: "20250101T000000Z".to_owned(),
            expires: 900,
            signature: None,
            token_sorted: None,
        }
    }

    fn sign(&self) -> Parsed {
        let endpoint = Endpoint::new(&self.host, self.port.unwrap_or(5432), &self.user).unwrap();
        let session = self.session_token.clone();
        let credentials =
            Credentials::new(&self.access_key, &self.secret_key, session, None, "test");
        let lifetime = Duration::from_secs(self.expires);
        let now = at(date(&self.amz_date));
        let schedule = Schedule::new(false);
        let token = presign(
            &endpoint,
            &self.region,
            &credentials,
            &now,
            lifetime,
            schedule,
        );
        Parsed::from(token.unwrap().expose_secret())
    }

    fn service(&self) -> &str {
        if self.host.contains("dsql") {
            "dsql"
        } else {
            "rds-db"
        }
    }
}

/// A parsed token, by rules that are written here once more and share no code with the signer.
#[derive(Debug, PartialEq)]
struct Parsed {
    authority: String,
    parameters: BTreeMap<String, String>,
}

impl Parsed {
    fn from(token: &str) -> Parsed {
        let (authority, query) = token.split_once("/?").unwrap();
        let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let mut parameters = BTreeMap::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap();
            let former = parameters.insert(decode(name), decode(value));
            assert_eq!(former, None, "{name} is there twice");
        }
        Parsed {
            authority: authority.to_owned(),
            parameters,
        }
    }

    fn get(&self, name: &str) -> &str {
        &self.parameters[name]
    }

    /// The signed part: everything except the signature, in the order of the encoded names.
    fn canonical_request(&self) -> String {
        let mut pairs: Vec<_> = self
            .parameters
            .iter()
            .filter(|(name, _)| *name != "X-Amz-Signature")
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        pairs.sort();
        let query = pairs.join("&");
        let empty_body = hex(&Sha256::digest(b""));
        let host = &self.authority;
        format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{empty_body}")
    }

    fn string_to_sign(&self) -> String {
        let scope = self.get("X-Amz-Credential").split_once('/').unwrap().1;
        let request = hex(&Sha256::digest(self.canonical_request()));
        let date = self.get("X-Amz-Date");
        format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request}")
    }
}

/// FAULTS.md row 13.
#[test]
fn other_signers_produce_the_same_token() {
    let vectors = vectors();
    assert!(vectors.len() >= 10);
    for case in vectors {
        let token = case.sign();
        let expected = Parsed::from(case.token_sorted.as_ref().unwrap());
        assert_eq!(token, expected, "{}", case.name);
        let signature = case.signature.as_deref().unwrap();
        assert_eq!(token.get("X-Amz-Signature"), signature, "{}", case.name);
    }
}

/// FAULTS.md row 13: `UPDATE_GOLDEN=1` regenerates the files.
#[test]
fn each_signing_step_matches_the_published_example() {
    for case in vectors().into_iter().chain(our_own()) {
        let token = case.sign();
        compare(&case.name, "canonical-request", &token.canonical_request());
        compare(&case.name, "string-to-sign", &token.string_to_sign());
        // The signature covers exactly this.
        let key = [
            &case.amz_date[..8],
            &case.region,
            case.service(),
            "aws4_request",
        ]
        .iter()
        .fold(
            format!("AWS4{}", case.secret_key).into_bytes(),
            |key, part| hmac(&key, part),
        );
        let signature = hex(&hmac(&key, &token.string_to_sign()));
        assert_eq!(token.get("X-Amz-Signature"), signature, "{}", case.name);
    }
}

#[test]
fn a_token_contains_what_was_requested() {
    for case in our_own() {
        let token = case.sign();
        assert_eq!(token.get("X-Amz-Expires"), case.expires.to_string());
        assert_eq!(token.get("X-Amz-Date"), case.amz_date);
        assert_eq!(token.get("X-Amz-SignedHeaders"), "host");
        let session = token.parameters.get("X-Amz-Security-Token");
        assert_eq!(session, case.session_token.as_ref());
        let scope = format!("/20250101/{}/{}/aws4_request", case.region, case.service());
        assert_eq!(
            token.get("X-Amz-Credential"),
            case.access_key.clone() + &scope
        );
        if case.service() == "dsql" {
            let is_admin = case.user == "admin";
            let action = if is_admin {
                "DbConnectAdmin"
            } else {
                "DbConnect"
            };
            assert_eq!(token.get("Action"), action);
            assert_eq!(token.authority, DSQL_HOST);
            assert!(!token.parameters.contains_key("DBUser"));
        } else {
            assert_eq!(token.get("Action"), "connect");
            assert_eq!(token.get("DBUser"), case.user);
            assert_eq!(token.authority, format!("{HOST}:{}", case.port.unwrap()));
        }
    }
}

#[test]
fn a_token_expires_with_its_credentials() {
    let now = at(date("20250101T000000Z"));
    let end = now.wall + Duration::from_secs(180);
    let token = sign_until(Some(end), &now).unwrap();
    assert_eq!(token.expires_at(), Some(end));
    assert_eq!(
        token.usable_until(),
        Some(now.wall + Duration::from_secs(120))
    );
    let token = sign_until(Some(now.wall + Duration::from_secs(3600)), &now).unwrap();
    assert_eq!(
        token.expires_at(),
        Some(now.wall + Duration::from_secs(900))
    );
}

#[test]
fn credentials_that_are_expired_or_nearly_so_are_not_used() {
    let now = at(date("20250101T000000Z"));
    for end in [
        now.wall - Duration::from_secs(1),
        now.wall,
        now.wall + Duration::from_secs(60),
    ] {
        let error = sign_until(Some(end), &now).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CredentialsExpired);
    }
    assert!(sign_until(Some(now.wall + Duration::from_secs(61)), &now).is_ok());
}

/// FAULTS.md row 26.
#[test]
fn a_session_token_of_any_length_is_signed_or_refused() {
    let endpoint = Endpoint::new(HOST, 5432, "app").unwrap();
    let now = ManualClock::new().clock().now();
    let sign_with = |length: usize| {
        let session = "a".repeat(length);
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some(session), None, "test");
        let lifetime = Duration::from_secs(900);
        let schedule = Schedule::new(false);
        presign(
            &endpoint,
            "eu-west-1",
            &credentials,
            &now,
            lifetime,
            schedule,
        )
    };
    // Every length around the limits of PostgreSQL and aws-sigv4, and one far beyond.
    let mut longest = 0;
    for length in (65_140..65_260).chain([200_000]) {
        match sign_with(length) {
            Ok(token) => longest = token.expose_secret().len(),
            Err(error) => assert!(error.to_string().contains("65,530"), "{error}"),
        }
    }
    assert!((65_530..65_650).contains(&longest), "{longest}");
}

#[test]
fn the_signing_date_is_truncated_to_the_second() {
    let now = at(date("20250101T000000Z") + Duration::from_millis(999));
    let token = sign_until(None, &now).unwrap();
    assert_eq!(token.issued_at(), date("20250101T000000Z"));
    let parsed = Parsed::from(token.expose_secret());
    assert_eq!(parsed.get("X-Amz-Date"), "20250101T000000Z");
}

fn vectors() -> Vec<Case> {
    serde_json::from_str(&fs::read_to_string(data().join("tokens.json")).unwrap()).unwrap()
}

/// Cases that the vectors do not have.
fn our_own() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "mixed-case-host",
            "MyDB.C9akciq32rqv.EU-West-1.rds.amazonaws.com",
            5432,
            "app",
        ),
        Case::new("host-with-dot-at-end", &format!("{HOST}."), 5432, "app"),
        Case::new("port-443", HOST, 443, "app"),
        Case::new("port-80", HOST, 80, "app"),
        Case::new("user-with-plus-slash-star-tilde", HOST, 5432, "a+b/c*d~e"),
        Case::new("user-with-percent-sequence", HOST, 5432, "a%20b"),
        Case::new("user-in-mixed-case", HOST, 5432, "MixedCase"),
        Case::new("user-in-unicode", HOST, 5432, "jürgen.名前-🦀"),
    ];
    let mut session = Case::new("session-token-in-base64", HOST, 5432, "app");
    session.session_token = Some(SESSION_TOKEN.to_owned());
    let mut shortest = Case::new("five-seconds", HOST, 5432, "app");
    shortest.expires = 5;
    cases.extend([session, shortest]);
    for user in ["admin", "Admin", "app"] {
        let mut dsql = Case::new(&format!("dsql-as-{user}"), DSQL_HOST, 5432, user);
        dsql.region = "us-east-1".to_owned();
        cases.push(dsql);
    }
    cases
}

fn sign_until(end: Option<SystemTime>, now: &Moment) -> Result<Token, Error> {
    let endpoint = Endpoint::new(HOST, 5432, "app").unwrap();
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, end, "test");
    let lifetime = Duration::from_secs(900);
    let schedule = Schedule::new(false);
    presign(
        &endpoint,
        "eu-west-1",
        &credentials,
        now,
        lifetime,
        schedule,
    )
}

fn at(wall: SystemTime) -> Moment {
    let time = ManualClock::new();
    time.set_wall(wall);
    time.clock().now()
}

fn date(amz_date: &str) -> SystemTime {
    let part = |range: std::ops::Range<usize>| &amz_date[range];
    let (year, month, day) = (part(0..4), part(4..6), part(6..8));
    let (hour, minute, second) = (part(9..11), part(11..13), part(13..15));
    let date = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let date = DateTime::from_str(&date, Format::DateTime).unwrap();
    date.try_into().unwrap()
}

fn compare(name: &str, step: &str, text: &str) {
    let path = data().join("sigv4").join(format!("{name}.{step}"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path);
    assert_eq!(golden.unwrap_or_default(), text, "{}", path.display());
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join("data")
}

/// The unreserved characters of RFC 3986 are not encoded, as in SigV4.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => write!(encoded, "%{byte:02X}").unwrap(),
        }
    }
    encoded
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
