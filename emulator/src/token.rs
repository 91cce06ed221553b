//! Parses a token.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::SystemTime;

use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::sigv4;

/// The content of a token, unverified.
pub(crate) struct Token {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) action: String,
    pub(crate) user: Option<String>,
    pub(crate) access_key: String,
    /// `YYYYMMDD` of the credential's scope.
    pub(crate) scope_date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) timestamp: String,
    pub(crate) issued: SystemTime,
    /// In seconds.
    pub(crate) expires: u64,
    pub(crate) session_token: Option<String>,
    pub(crate) signature: String,
    authority: String,
    signed: Vec<(String, String)>,
}

impl Token {
    /// Parses `HOST[:PORT]/?Action=…&X-Amz-…`. The error names the mistake and contains no part of the token.
    pub(crate) fn parse(text: &str) -> Result<Token, &'static str> {
        let (authority, rest) = text.split_once('/').ok_or("there is no path in it")?;
        let query = rest.strip_prefix('?').ok_or("its path is not /")?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (
                host,
                Some(decimal(port).ok_or("its port is not a number from 1 to 65535")?),
            ),
            None => (authority, None),
        };
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let mut parameters: HashMap<&str, &str> = HashMap::new();
        for (name, value) in &pairs {
            if parameters.insert(name, value).is_some() {
                return Err("a parameter is repeated");
            }
        }
        let find = |name: &str, missing: &'static str| {
            parameters
                .get(name)
                .map(|value| (*value).to_owned())
                .ok_or(missing)
        };

        if find("X-Amz-Algorithm", "X-Amz-Algorithm is missing")? != sigv4::ALGORITHM {
            return Err("X-Amz-Algorithm is not AWS4-HMAC-SHA256");
        }
        if find("X-Amz-SignedHeaders", "X-Amz-SignedHeaders is missing")? != "host" {
            return Err("X-Amz-SignedHeaders is not host");
        }
        let credential = find("X-Amz-Credential", "X-Amz-Credential is missing")?;
        // Split from the right, although an access key contains no slash: the parts of the scope contain none.
        let mut scope = credential.rsplitn(5, '/');
        let mut part = || scope.next().ok_or("X-Amz-Credential is not KEY/SCOPE");
        if part()? != "aws4_request" {
            return Err("X-Amz-Credential does not end in aws4_request");
        }
        let (service, region, scope_date, access_key) = (part()?, part()?, part()?, part()?);
        let timestamp = find("X-Amz-Date", "X-Amz-Date is missing")?;
        let issued = parse_timestamp(&timestamp).ok_or("X-Amz-Date is not a date")?;
        if timestamp.get(..8) != Some(scope_date) {
            return Err("X-Amz-Date is not of the day in X-Amz-Credential");
        }

        Ok(Token {
            host: host.to_owned(),
            port,
            action: find("Action", "Action is missing")?,
            user: parameters.get("DBUser").map(|user| (*user).to_owned()),
            access_key: access_key.to_owned(),
            scope_date: scope_date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            issued,
            expires: decimal(&find("X-Amz-Expires", "X-Amz-Expires is missing")?)
                .ok_or("X-Amz-Expires is not a number of seconds")?,
            session_token: parameters
                .get("X-Amz-Security-Token")
                .map(|token| (*token).to_owned()),
            signature: find("X-Amz-Signature", "X-Amz-Signature is missing")?,
            timestamp,
            authority: authority.to_owned(),
            signed: pairs
                .into_iter()
                .filter(|(name, _)| name != "X-Amz-Signature")
                .collect(),
        })
    }

    /// Whether the holder of `secret_key` signed the token.
    pub(crate) fn is_signed_by(&self, secret_key: &str) -> bool {
        let request = sigv4::canonical_request(
            "GET",
            "/",
            &self.signed,
            &[("host".to_owned(), self.authority.clone())],
            &sigv4::hash(b""),
        );
        let scope = sigv4::Scope {
            date: &self.scope_date,
            region: &self.region,
            service: &self.service,
        };
        let string_to_sign = sigv4::string_to_sign(&self.timestamp, scope, &request);
        sigv4::verify(secret_key, scope, &string_to_sign, &self.signature)
    }
}

/// The first eight digits of the SHA-256 of a token. They distinguish tokens, and cannot be used to log in.
pub(crate) fn fingerprint(token: &[u8]) -> String {
    sigv4::hash(token).chars().take(8).collect()
}

/// Parses a positive decimal number without sign or leading zero. `str::parse` accepts both.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok())?
}

/// Reads `YYYYMMDDTHHMMSSZ`.
pub(crate) fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = PrimitiveDateTime::parse(text, format).ok()?;
    Some(date.assume_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_neither_sign_nor_leading_zero() {
        assert_eq!(decimal("900"), Some(900_u64));
        assert_eq!(decimal("5432"), Some(5432_u16));
        for text in [
            "", "0", "+900", "-900", "0900", " 900", "900 ", "9e2", "900.0",
        ] {
            assert_eq!(decimal::<u64>(text), None, "{text:?}");
        }
        assert_eq!(decimal::<u16>("65536"), None);
    }
}
