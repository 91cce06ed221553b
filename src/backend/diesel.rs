//! diesel's `PgConnection`, over libpq. The only file that writes a connection string.
//!
//! The password is never in that string: diesel shows it to every instrumentation. libpq reads it
//! from a file instead, a memory file where there is one, made for one login and gone after it.

use std::fmt::Write;
use std::time::Duration;

use diesel::r2d2::R2D2Connection;
use diesel::{Connection, ConnectionError, PgConnection};
use zeroize::Zeroizing;

use super::{exit, libpq, sealed};
use crate::endpoint::{ConnectionString, Login};
use crate::error::{Error, ErrorKind};
use crate::private_file::PrivateFile;
use crate::roots::Roots;

/// libpq counts the seconds of its timeout from two.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(2);

/// A path that no file can have. libpq goes on without what it would have read there; with none it
/// would look into the user's home, and stop where it may not look.
const NO_FILE: &str = "/dev/null/none";

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

/// PostgreSQL hangs up without a word on a longer one.
const LONGEST_PASSWORD: usize = 65_530;

/// What would be shown to every instrumentation, and can be had without the connection string.
const SECRETS: &[&str] = &[
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
    "sslpassword",
];

/// A libpq connection string but for the password, and the file of roots that it names.
#[derive(Debug)]
pub struct Connector {
    conninfo: String,
    /// The user's, if it is to be shorter than ours.
    connect_timeout: Option<Duration>,
    _roots: Option<PrivateFile>,
}

#[expect(private_interfaces, reason = "as at the trait")]
impl sealed::Backend for PgConnection {
    type Error = diesel::r2d2::Error;
    type Connector = Connector;

    fn prepare(target: &ConnectionString, roots: Option<&Roots>) -> Result<Connector, Error> {
        // libpq would initialize OpenSSL with an exit handler that frees what a pool's threads may
        // be using when `main` returns: such programs crashed. Who comes first decides, so we do.
        // Where we are not the first, `exit` waits for connects at least.
        openssl::init();

        refuse_secrets(target)?;
        let mut conninfo = Conninfo::default();
        for (keyword, value) in target.parameters() {
            conninfo.push(keyword, value);
        }
        if let Some(mode) = target.sslmode()? {
            conninfo.push("sslmode", mode.as_str());
        }
        let mut roots_file = None;
        match roots {
            Some(Roots::Carried(pem)) => {
                let file = PrivateFile::new(pem.as_bytes()).map_err(cannot_hand_over)?;
                conninfo.push("sslrootcert", file.path());
                roots_file = Some(file);
            }
            Some(Roots::File(path)) => conninfo.push("sslrootcert", path),
            Some(Roots::System) => conninfo.push("sslrootcert", "system"),
            // With `require` libpq verifies the certificate after all if it finds roots, of whatever
            // origin. That was not asked for.
            None if target.login().is_guarded() => conninfo.push("sslrootcert", NO_FILE),
            None => {}
        }
        if target.login().is_guarded() {
            for (keyword, value) in GUARDS {
                if target.get(keyword).is_none() {
                    conninfo.push(keyword, value);
                }
            }
            for (variable, keyword, value) in NEWER_GUARDS {
                let is_set = std::env::var_os(variable).is_some();
                if is_set && target.get(keyword).is_none() && libpq_knows(keyword) {
                    conninfo.push(keyword, value);
                }
            }
            // Or PGDATABASE would say which.
            if let (None, Some(user)) = (target.database(), target.get("user")) {
                conninfo.push("dbname", user);
            }
        }
        if let Login::Password(password) = target.login()
            && password.expose().len() > LONGEST_FOR_ANY_LIBPQ
            && target.get(KEYWORD_OF_LIBPQ_14.0).is_none()
        {
            conninfo.push(KEYWORD_OF_LIBPQ_14.0, KEYWORD_OF_LIBPQ_14.1);
        }
        Ok(Connector {
            conninfo: conninfo.0,
            connect_timeout: target.connect_timeout()?,
            _roots: roots_file,
        })
    }

    fn establish(
        connector: &Connector,
        password: Option<&str>,
        timeout: Duration,
    ) -> Result<PgConnection, Error> {
        let mut conninfo = Conninfo(connector.conninfo.clone());
        let timeout = connector
            .connect_timeout
            .map_or(timeout, |wanted| wanted.min(timeout));
        let timeout = timeout.max(SHORTEST_TIMEOUT).as_secs();
        conninfo.push("connect_timeout", &timeout.to_string());
        let passfile = match password {
            Some(password) => {
                Some(PrivateFile::new(passfile(password)?.as_bytes()).map_err(cannot_hand_over)?)
            }
            None => None,
        };
        if let Some(file) = &passfile {
            conninfo.push("passfile", file.path());
            // Or PGPASSWORD would be used instead.
            conninfo.push("password", "");
        }
        let _under_way = exit::Connect::begin()?;
        <PgConnection as Connection>::establish(&conninfo.0).map_err(|error| match error {
            ConnectionError::BadConnection(text) => libpq::judge(&text),
            error => Error::with_cause(
                ErrorKind::Configuration,
                "libpq does not accept the connection's settings; correct the connection string",
                error,
            ),
        })
    }

    fn ping(&mut self) -> Result<(), diesel::r2d2::Error> {
        Ok(R2D2Connection::ping(self)?)
    }

    fn is_broken(&mut self) -> bool {
        R2D2Connection::is_broken(self)
    }
}

impl From<Error> for diesel::r2d2::Error {
    fn from(error: Error) -> diesel::r2d2::Error {
        ConnectionError::BadConnection(error.to_string()).into()
    }
}

/// libpq's keyword/value form, in which nothing in a value can be mistaken for something else.
#[derive(Default)]
struct Conninfo(String);

impl Conninfo {
    fn push(&mut self, keyword: &str, value: &str) {
        let value = value.replace('\\', r"\\").replace('\'', r"\'");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{keyword}='{value}' ");
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

/// One line that holds for every host, port, database and user.
fn passfile(password: &str) -> Result<Zeroizing<String>, Error> {
    if password.len() > LONGEST_PASSWORD {
        return Err(Error::configuration(format!(
            "the password has {} bytes, and PostgreSQL takes {LONGEST_PASSWORD} at the most; a \
             shorter session token or password is needed",
            password.len()
        )));
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err(Error::configuration(
            "the password holds a line break or a zero byte, which libpq cannot read from a file; \
             change it",
        ));
    }
    let mut line = Zeroizing::new(String::with_capacity(2 * password.len() + 16));
    line.push_str("*:*:*:*:");
    for char in password.chars() {
        if matches!(char, ':' | '\\') {
            line.push('\\');
        }
        line.push(char);
    }
    line.push('\n');
    Ok(line)
}

fn cannot_hand_over(cause: std::io::Error) -> Error {
    Error::with_cause(
        ErrorKind::Internal,
        "cannot make a file for libpq to read; raise the limit of open files, or set TMPDIR to a \
         folder that can be written",
        cause,
    )
}
