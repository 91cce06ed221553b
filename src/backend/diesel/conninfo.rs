//! libpq's keyword/value form of a connection string, and what is said in it where the user says
//! nothing.

use std::env;
use std::fmt::Write;

use diesel::{Connection, ConnectionError, PgConnection};

use super::libpq;
use crate::endpoint::{ConnectionString, Login};
use crate::error::Error;

/// A path that no file can have. libpq goes on without what it would have read there; with none it
/// would look into the user's home, and stop where it may not look.
pub(super) const NO_FILE: &str = "/dev/null/none";

/// What to say to libpq in a login that is ours, where the user says nothing. A value that is given
/// wins over its variable; these are the defaults that libpq has without one.
const GUARDS: &[(&str, &str)] = &[
    ("channel_binding", "prefer"),
    // diesel reads nothing else.
    ("client_encoding", "UTF8"),
    // The token needs TLS, which GSS encryption would take the place of.
    ("gssencmode", "disable"),
    ("hostaddr", ""),
    ("options", ""),
    ("sslcert", NO_FILE),
    ("sslcrl", ""),
    ("sslcrldir", ""),
    ("sslkey", ""),
    KEYWORD_OF_LIBPQ_14,
    ("ssl_max_protocol_version", ""),
    ("ssl_min_protocol_version", "TLSv1.2"),
    ("target_session_attrs", "any"),
];

/// The same for variables that came with libpq 16 to 18. Older ones know neither these nor the
/// keywords, so that it takes a look before they are given; at the variable first, since diesel's
/// instrumentation is told of the other look.
const NEWER_GUARDS: &[(&str, &str, &str)] = &[
    ("PGLOADBALANCEHOSTS", "load_balance_hosts", "disable"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version", "3.0"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version", "3.0"),
    // An empty one allows no method at all.
    (
        "PGREQUIREAUTH",
        "require_auth",
        "password,md5,scram-sha-256,none",
    ),
    ("PGSSLCERTMODE", "sslcertmode", "allow"),
    ("PGSSLNEGOTIATION", "sslnegotiation", "postgres"),
];

/// Before version 14 libpq cut the lines of its password file at 320 bytes, so it would send a piece
/// of the token. Such a libpq does not know this keyword, says so, and sends nothing.
const KEYWORD_OF_LIBPQ_14: (&str, &str) = ("sslsni", "1");

/// A password of this length and its line of the file fit into those 320 bytes, even if each of its
/// characters is escaped.
const LONGEST_FOR_ANY_LIBPQ: usize = 150;

/// What would be shown to every instrumentation, and can be had without the connection string.
const SECRETS: &[&str] = &[
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
    "sslpassword",
];

/// A connection string that is being written. In this form nothing in a value can be mistaken for
/// something else.
#[derive(Clone, Debug)]
pub(super) struct Conninfo(String);

impl Conninfo {
    /// All that `target` says, but for the password and the roots, and what has to be said besides.
    pub(super) fn new(target: &ConnectionString) -> Result<Conninfo, Error> {
        refuse_secrets(target)?;
        let mut conninfo = Conninfo(String::new());
        for (keyword, value) in target.parameters() {
            conninfo.push(keyword, value);
        }
        if let Some(mode) = target.sslmode()? {
            conninfo.push("sslmode", mode.as_str());
        }
        if target.login().is_guarded() {
            conninfo.guard(target);
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

    /// Keeps variables and files of the user's from deciding what he did not configure.
    fn guard(&mut self, target: &ConnectionString) {
        for (keyword, value) in GUARDS {
            if target.get(keyword).is_none() {
                self.push(keyword, value);
            }
        }
        for (variable, keyword, value) in NEWER_GUARDS {
            let is_set = env::var_os(variable).is_some();
            if is_set && target.get(keyword).is_none() && libpq_knows(keyword) {
                self.push(keyword, value);
            }
        }
        // Or PGDATABASE would say which.
        if let (None, Some(user)) = (target.get("dbname"), target.get("user")) {
            self.push("dbname", user);
        }
    }
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

/// Whether libpq knows `keyword`. Nothing is dialled: it refuses a keyword that it does not know, or
/// else the empty value or the port, which is none.
fn libpq_knows(keyword: &str) -> bool {
    match <PgConnection as Connection>::establish(&format!("{keyword}='' port='none'")) {
        Err(ConnectionError::BadConnection(text)) => !libpq::is_unknown_keyword(&text),
        _ => false,
    }
}
