//! Connection strings of other programs and languages: recognised before any other rule, so that the error
//! says what the string is and not which rule it breaks.
//!
//! No error quotes a value. A parameter is named only if the string has no password, since a part of a
//! password may stand in the place of a name.

use super::keyword::is_keyword_of_libpq;
use crate::error::Error;

/// Parameters of other drivers, of Prisma and of AWS's own libraries, in lower case, with their equivalents.
const PARAMETERS: &[(&[&str], &str)] = &[
    (
        &["schema", "currentschema", "search_path"],
        "set options=-csearch_path=NAME (in a URL, options=-csearch_path%3DNAME)",
    ),
    (
        &["statement_timeout"],
        "set options=-cstatement_timeout=MILLISECONDS (in a URL, write %3D for the second `=`)",
    ),
    (
        &["ssl", "tls", "sslaccept", "ssl_mode", "usessl"],
        "set sslmode (default with IAM: verify-full), and sslrootcert for other root certificates",
    ),
    (
        &["region", "iamregion", "aws_region"],
        "set iam_region, or leave it out if the host name has the region",
    ),
    (&["profile", "awsprofile", "aws_profile"], "set iam_profile"),
    (&["iamhost"], "set iam_host"),
    (&["iamdefaultport"], "set iam_port"),
    (
        &["tokendurationsecs", "iamexpiration"],
        "leave it out, or set token_lifetime of the builder of IamAuth",
    ),
    (
        &["wrapperplugins", "wrapperdialect", "pgbouncer"],
        "leave it out: this crate needs no such setting",
    ),
    (
        &["connection_limit", "pool_size", "max_connections"],
        "set max_size of the pool",
    ),
    (
        &["pool_timeout", "pool_timeout_ms"],
        "set connection_timeout of the pool",
    ),
    (
        &["logintimeout", "connecttimeout", "timeout"],
        "set connect_timeout, in seconds",
    ),
    (&["applicationname"], "set application_name"),
    (&["username", "user id", "uid"], "set user"),
    (&["database", "db"], "set dbname"),
    (&["server", "hostname"], "set host"),
];

/// Keys that ADO.NET's strings begin with, in lower case.
const ADO_KEYS: &[&str] = &[
    "host",
    "server",
    "data source",
    "port",
    "database",
    "username",
    "user id",
    "user",
    "uid",
    "password",
    "pwd",
    "ssl mode",
    "sslmode",
];

/// Returns `input` without the white space and the byte order mark at its ends, or the error that says what
/// kind of string it is.
pub(super) fn accept(input: &str) -> Result<&str, Error> {
    let input = trim(input);
    if is_url(input) {
        return Ok(input);
    }
    if input.starts_with(['"', '\'', '`', '\u{2018}', '\u{201c}']) {
        return refuse(
            "the connection string is in quotes: remove them; docker's --env-file and systemd's \
             Environment= keep quotes that a shell removes",
        );
    }
    if let Some((name, value)) = input.split_once('=')
        && is_url(value.trim_start_matches(['"', '\'', ' ']))
        && !name.contains("://")
        && !is_keyword_of_libpq(name.trim())
    {
        return refuse(
            "the connection string begins with the name of a variable and a `=`: remove both",
        );
    }
    if let Some((scheme, rest)) = input.split_once(':')
        && let Some(error) = of_scheme(scheme, rest)
    {
        return Err(error);
    }
    if is_ado(input) {
        return refuse(
            "the connection string separates its parameters by `;`, as ADO.NET does: write a URL such \
             as postgres://USER@HOST:PORT/DATABASE, or separate the parameters by spaces",
        );
    }
    Ok(input)
}

/// libpq skips white space around pairs and not around a URL, where it would become a part of the last
/// parameter. A space at the end of pairs may be escaped, so pairs are left to the parser.
fn trim(input: &str) -> &str {
    let is_mark = |c: char| c == '\u{feff}';
    let start = input.trim_start_matches(|c: char| c.is_whitespace() || is_mark(c));
    if is_url(start) {
        start.trim_end_matches(|c: char| c.is_whitespace() || is_mark(c))
    } else {
        start
    }
}

fn is_url(text: &str) -> bool {
    ["postgresql://", "postgres://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// The error for a string that begins with `scheme` and a colon, unless these are pairs.
fn of_scheme(scheme: &str, rest: &str) -> Option<Error> {
    let scheme = scheme.to_ascii_lowercase();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+.-_".contains(c);
    if scheme.is_empty() || !scheme.chars().all(is_name) {
        return None;
    }
    let message = match scheme.as_str() {
        "jdbc" => {
            "the connection string is JDBC's: write a URL such as postgres://USER@HOST:PORT/DATABASE, \
             with user before the `@` instead of in a parameter"
        }
        "postgres" | "postgresql" if rest.starts_with("//") => {
            "the connection string's scheme has capital letters: write postgres:// in lower case"
        }
        "postgres" | "postgresql" => {
            "the connection string has no `//` behind its scheme: begin it with postgres://"
        }
        _ if scheme.starts_with("postgres+") || scheme.starts_with("postgresql+") => {
            "the connection string's scheme names a driver of another language, as SQLAlchemy's does: \
             remove the `+` and the driver, so that it begins with postgresql://"
        }
        _ if rest.starts_with("//") => {
            "the connection string is a URL of another scheme than postgres:// and postgresql://: begin \
             it with one of these"
        }
        _ => return None,
    };
    Some(Error::configuration(message))
}

/// Whether `input` consists of `Key=value;Key=value`. libpq's values may contain a `;`, so the parts before
/// and after the first one must both begin with a key of ADO.NET's and its only `=`.
fn is_ado(input: &str) -> bool {
    let begins_with_key = |part: &str| {
        part.split_once('=').is_some_and(|(key, value)| {
            let key = key.trim().to_ascii_lowercase();
            ADO_KEYS.contains(&key.as_str()) && !value.contains(['=', ' '])
        })
    };
    let mut parts = input.split(';');
    let first = parts.next().is_some_and(begins_with_key);
    first && parts.next().is_some_and(begins_with_key)
}

/// The error for a parameter that libpq does not support, in a string without a password.
pub(super) fn unknown_parameter(name: &str) -> Error {
    let lower = name.to_ascii_lowercase();
    let known = PARAMETERS
        .iter()
        .find(|(names, _)| names.contains(&lower.as_str()));
    if let Some((_, equivalent)) = known {
        return Error::configuration(format!(
            "the connection string has {name}, which is a parameter of other libraries: {equivalent}"
        ));
    }
    if is_keyword_of_libpq(&lower) {
        return Error::configuration(format!(
            "the connection string has {name}, which libpq writes in lower case: write {lower}"
        ));
    }
    // Passwords have digits and signs more often than parameters do.
    if !name.chars().all(|c| c.is_ascii_alphabetic() || c == '_') {
        return Error::configuration(
            "the connection string has a parameter that libpq does not support: correct it or leave it out \
             (in a URL, write %26 for an `&` and %3F for a `?` in a value)",
        );
    }
    Error::configuration(format!(
        "the connection string has {name}, which is no parameter of libpq: correct it or leave it out"
    ))
}

fn refuse<T>(message: &'static str) -> Result<T, Error> {
    Err(Error::configuration(message))
}
