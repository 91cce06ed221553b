//! A connection, said in libpq's variables and in a URL.

use std::process::Command;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// libpq's keywords that a variable exists for. [PQconninfoOptions in fe-connect.c]
const VARIABLES: &[(&str, &str)] = &[
    ("application_name", "PGAPPNAME"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("client_encoding", "PGCLIENTENCODING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("dbname", "PGDATABASE"),
    ("gssencmode", "PGGSSENCMODE"),
    ("gsslib", "PGGSSLIB"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION"),
    ("options", "PGOPTIONS"),
    ("port", "PGPORT"),
    ("require_auth", "PGREQUIREAUTH"),
    ("requirepeer", "PGREQUIREPEER"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslsni", "PGSSLSNI"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("user", "PGUSER"),
];

/// What the caller may well have set for programs in general: it says nothing of where to connect,
/// or as whom.
const PREFERENCES: &[&str] = &[
    "PGAPPNAME",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGOPTIONS",
];

/// Variables without a keyword in a connection of ours, which would win over it.
const OTHERS: &[&str] = &[
    "PGPASSFILE",
    "PGPASSWORD",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSERVICEFILE",
];

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What a program is told of a connection.
pub(super) struct Environment {
    parameters: Vec<(String, String)>,
}

impl Environment {
    pub(super) fn new<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Environment {
        let mut parameters: Vec<(String, String)> = parameters
            .filter(|(_, value)| !value.is_empty())
            .map(|(keyword, value)| (keyword.to_owned(), value.to_owned()))
            .collect();
        // A token needs TLS, which GSS encryption would take the place of.
        if !parameters
            .iter()
            .any(|(keyword, _)| keyword == "gssencmode")
        {
            parameters.push(("gssencmode".to_owned(), "disable".to_owned()));
        }
        Environment { parameters }
    }

    pub(super) fn trust(&mut self, path: &str) {
        self.parameters
            .push(("sslrootcert".to_owned(), path.to_owned()));
    }

    /// Says all of it in `command`'s environment, and takes out what would say otherwise.
    pub(super) fn apply(&self, command: &mut Command) {
        for (keyword, variable) in VARIABLES {
            match self.get(keyword) {
                Some(value) => command.env(variable, value),
                None if PREFERENCES.contains(variable) => command,
                None => command.env_remove(variable),
            };
        }
        for variable in OTHERS {
            command.env_remove(variable);
        }
        command.env("DATABASE_URL", self.url());
    }

    /// A line for libpq's password file that is good for this server and user only, so that a
    /// program that is led elsewhere does not take the token there.
    pub(super) fn passfile(&self, password: &str) -> String {
        let escape = |text: &str| text.replace('\\', r"\\").replace(':', r"\:");
        let part = |keyword| self.get(keyword).map_or("*".to_owned(), escape);
        format!(
            "{}:{}:*:{}:{}\n",
            part("host"),
            part("port"),
            part("user"),
            escape(password)
        )
    }

    /// A URL for libpq, without a password.
    fn url(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
        let part = |keyword| self.get(keyword).map(encode).unwrap_or_default();
        let host = match self.get("host") {
            Some(address) if address.contains(':') => format!("[{address}]"),
            _ => part("host"),
        };
        let query: Vec<String> = self
            .parameters
            .iter()
            .filter(|(keyword, _)| !["dbname", "host", "port", "user"].contains(&keyword.as_str()))
            .map(|(keyword, value)| format!("{keyword}={}", encode(value)))
            .collect();
        format!(
            "postgres://{}@{host}:{}/{}?{}",
            part("user"),
            part("port"),
            part("dbname"),
            query.join("&")
        )
    }

    fn get(&self, keyword: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(name, _)| name == keyword)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_and_the_line_quote_what_has_a_meaning_there() {
        let parameters = [
            ("host", "::1"),
            ("port", "5432"),
            ("user", "a:b@c\\d"),
            ("dbname", "a/b?c"),
            ("sslmode", "verify-full"),
        ];
        let environment = Environment::new(parameters.into_iter());
        assert_eq!(
            environment.url(),
            "postgres://a%3Ab%40c%5Cd@[::1]:5432/a%2Fb%3Fc?sslmode=verify-full&gssencmode=disable"
        );
        assert_eq!(
            environment.passfile("h:5432/?a=b\\"),
            "\\:\\:1:5432:*:a\\:b@c\\\\d:h\\:5432/?a=b\\\\\n"
        );
    }
}
