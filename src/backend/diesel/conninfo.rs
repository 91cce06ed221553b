//! Writes libpq's keyword/value connection strings, with the values that are set where the user sets none.

use std::env;
use std::fmt::Write;
use std::sync::OnceLock;

use diesel::{Connection, ConnectionError, PgConnection};

use super::libpq;
use crate::endpoint::{ConnectionString, Login};
use crate::error::Error;

/// A path at which no file can exist. libpq continues without the file. Without a path it would search the
/// user's home folder, and fail if it may not read that.
pub(super) const NO_FILE: &str = "/dev/null/none";

/// The values in a login that this crate controls, where the user sets none. They override environment
/// variables, and equal the defaults that libpq has without them.
const GUARDS: &[(&str, &str)] = &[
    ("channel_binding", "prefer"),
    // diesel supports no other encoding.
    ("client_encoding", "UTF8"),
    // The token requires TLS, which GSS encryption would replace.
    ("gssencmode", "disable"),
    ("hostaddr", ""),
    ("options", ""),
    ("sslcert", NO_FILE),
    ("sslcrl", NO_FILE),
    ("sslcrldir", ""),
    ("sslkey", ""),
    KEYWORD_OF_LIBPQ_14,
    ("ssl_max_protocol_version", ""),
    ("ssl_min_protocol_version", "TLSv1.2"),
    ("target_session_attrs", "any"),
];

/// The same for the variables of libpq 16 to 18. Earlier versions have neither these variables nor their keywords, so
/// support is checked before a keyword is used. The variable is checked first, since diesel's instrumentation sees
/// the other check.
const NEWER_GUARDS: &[(&str, &str, &str)] = &[
    ("PGLOADBALANCEHOSTS", "load_balance_hosts", "disable"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version", "3.0"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version", "3.0"),
    // An empty value would allow no method.
    (
        "PGREQUIREAUTH",
        REQUIRE_AUTH,
        "password,md5,scram-sha-256,none",
    ),
    ("PGSSLCERTMODE", "sslcertmode", "allow"),
    ("PGSSLNEGOTIATION", "sslnegotiation", "postgres"),
];

/// The methods by which libpq may log in, since version 16.
const REQUIRE_AUTH: &str = "require_auth";

/// A keyword that libpq before version 14 does not have. Such a libpq truncates lines of its password file at 320
/// bytes, and would send a part of the token. With this keyword it returns an error and sends nothing.
const KEYWORD_OF_LIBPQ_14: (&str, &str) = ("sslsni", "1");

/// The maximum length of a password whose line fits into those 320 bytes even if every character is escaped.
const LONGEST_FOR_ANY_LIBPQ: usize = 150;

/// Secrets that every instrumentation would see, and that can be set outside the connection string.
const SECRETS: &[&str] = &[
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
    "sslpassword",
];

/// Writes a connection string. In this form no value can be mistaken for another keyword.
#[derive(Clone, Debug)]
pub(super) struct Conninfo(String);

impl Conninfo {
    /// Writes the settings of `target`, without the password and the roots, and the values that must be set in
    /// addition.
    pub(super) fn new(target: &ConnectionString) -> Result<Conninfo, Error> {
        refuse_secrets(target)?;
        let mut conninfo = Conninfo(String::new());
        for (keyword, value) in target.parameters() {
            if !is_systems_keepalive(keyword, value) {
                conninfo.push(keyword, value);
            }
        }
        if let Some(host) = target.verified_host()? {
            conninfo.push("host", &host);
        }
        if let Some(mode) = target.sslmode()? {
            conninfo.push("sslmode", mode.as_str());
        }
        for (keyword, value) in target.tcp_defaults() {
            conninfo.push(keyword, value);
        }
        if target.login().is_guarded() {
            conninfo.guard(target, libpq_supports);
        }
        if let Login::Password(password) = target.login()
            && password.expose().len() > LONGEST_FOR_ANY_LIBPQ
            && target.get(KEYWORD_OF_LIBPQ_14.0).is_none()
        {
            conninfo.push(KEYWORD_OF_LIBPQ_14.0, KEYWORD_OF_LIBPQ_14.1);
        }
        Ok(conninfo)
    }

    pub(super) fn push(&mut self, keyword: &str, value: &str) {
        let value = value.replace('\\', r"\\").replace('\'', r"\'");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{keyword}='{value}' ");
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Keeps the user's environment variables and files from affecting what was not configured. `supports` tells
    /// whether libpq has a keyword.
    fn guard(&mut self, target: &ConnectionString, supports: impl Fn(&str) -> bool) {
        for (keyword, value) in GUARDS {
            if target.get(keyword).is_none() {
                self.push(keyword, value);
            }
        }
        for (variable, keyword, value) in NEWER_GUARDS {
            let is_set = env::var_os(variable).is_some();
            if is_set && target.get(keyword).is_none() && supports(keyword) {
                self.push(keyword, value);
            }
        }
        // A server that requests anything but a cleartext password does not check tokens, so it gets none.
        if matches!(target.login(), Login::Iam)
            && target.get(REQUIRE_AUTH).is_none()
            && supports(REQUIRE_AUTH)
        {
            self.push(REQUIRE_AUTH, "password");
        }
        // Otherwise PGDATABASE would decide.
        if let (None, Some(user)) = (target.get("dbname"), target.get("user")) {
            self.push("dbname", user);
        }
    }
}

/// Whether this is a setting of keepalives that libpq's manual calls the system's default, 0. libpq passes it to
/// the system, which rejects it.
fn is_systems_keepalive(keyword: &str, value: &str) -> bool {
    keyword.starts_with("keepalives_") && value.trim().parse() == Ok(0)
}

fn refuse_secrets(target: &ConnectionString) -> Result<(), Error> {
    match SECRETS.iter().find(|keyword| target.get(keyword).is_some()) {
        Some(keyword) => Err(Error::configuration(format!(
            "{keyword} cannot be in the connection string, which diesel shows to every \
             instrumentation; leave it out, and use a client key without a passphrase or the \
             password itself"
        ))),
        None => Ok(()),
    }
}

/// Whether libpq has `keyword`. The answer for the keyword of every login is remembered.
fn libpq_supports(keyword: &str) -> bool {
    static SUPPORTS_REQUIRE_AUTH: OnceLock<bool> = OnceLock::new();
    match keyword {
        REQUIRE_AUTH => *SUPPORTS_REQUIRE_AUTH.get_or_init(|| ask_libpq(keyword)),
        _ => ask_libpq(keyword),
    }
}

/// Whether libpq has `keyword`. Nothing is dialled: libpq reports an unknown keyword, or else the invalid port.
fn ask_libpq(keyword: &str) -> bool {
    match <PgConnection as Connection>::establish(&format!("{keyword}='' port='none'")) {
        Err(ConnectionError::BadConnection(text)) => !libpq::is_unknown_keyword(&text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";

    fn guarded(parameters: &str, supports: bool) -> String {
        let target = ConnectionString::parse(&format!("host={HOST} user=app {parameters}"));
        let mut conninfo = Conninfo(String::new());
        conninfo.guard(&target.unwrap(), |_| supports);
        conninfo.0
    }

    /// FAULTS.md row 66: of libpq before 16, the keyword would be an error.
    #[test]
    fn a_server_may_ask_for_nothing_but_a_cleartext_token() {
        let guard = "require_auth='password'";
        assert!(guarded("", true).contains(guard));
        assert!(!guarded("", false).contains("require_auth"));
        // A setting of the user's is in the string already.
        assert!(!guarded("require_auth=none", true).contains("require_auth"));
        assert!(!guarded("password=p", true).contains(guard));
    }
}
