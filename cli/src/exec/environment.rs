//! A connection as libpq's environment variables and as a URL.

use std::process::Command;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// libpq's keywords that have an environment variable. [PQconninfoOptions in fe-connect.c]
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

/// Variables of the caller that stay, because they select neither the server nor the user.
const PREFERENCES: &[&str] = &[
    "PGAPPNAME",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGOPTIONS",
];

/// Variables that would override the connection and have no keyword in it.
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

/// The connection that a program is given.
pub(super) struct Environment {
    parameters: Vec<(String, String)>,
}

impl Environment {
    pub(super) fn new<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Environment {
        let mut parameters: Vec<(String, String)> = parameters
            .filter(|(_, value)| !value.is_empty())
            .map(|(keyword, value)| (keyword.to_owned(), value.to_owned()))
            .collect();
        // A token needs TLS, and libpq prefers GSS encryption to it.
        if !parameters
            .iter()
            .any(|(keyword, _)| keyword == "gssencmode")
        {
            parameters.push(("gssencmode".to_owned(), "disable".to_owned()));
        }
        Environment { parameters }
    }

    pub(super) fn set_roots(&mut self, path: &str) {
        self.parameters
            .push(("sslrootcert".to_owned(), path.to_owned()));
    }

    /// Sets the connection in `command`'s environment, and removes variables that would override it.
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

    /// A line of libpq's password file. It matches this host, port and user only, so that a program
    /// never sends the token to another server.
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

    /// The connection as a URL for libpq, without a password.
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
            "postgresql://{}@{host}:{}/{}?{}",
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
    fn the_url_and_the_password_file_line_escape_special_characters() {
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
            "postgresql://a%3Ab%40c%5Cd@[::1]:5432/a%2Fb%3Fc?sslmode=verify-full&gssencmode=disable"
        );
        assert_eq!(
            environment.passfile("h:5432/?a=b\\"),
            "\\:\\:1:5432:*:a\\:b@c\\\\d:h\\:5432/?a=b\\\\\n"
        );
    }
}
