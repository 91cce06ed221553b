//! A client: tokens signed by AWS's own signer, connections by the `postgres` crate.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use postgres::Client;
use postgres_native_tls::MakeTlsConnector;
use rds_iam_emulator::Emulator;

/// The parts of a token. Valid for an emulator at first, and then changed by a test.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) authority: String,
    /// The query before the parameters of the signature.
    pub(crate) query: String,
    pub(crate) issued: SystemTime,
    pub(crate) expires: Duration,
}

impl Token {
    pub(crate) fn new(emulator: &Emulator, user: &str) -> Token {
        Token {
            access_key: emulator.access_key().to_owned(),
            secret_key: emulator.secret_key().to_owned(),
            session_token: None,
            region: emulator.region().to_owned(),
            service: "rds-db".to_owned(),
            authority: format!("{}:{}", emulator.host(), emulator.signed_port()),
            query: format!("Action=connect&DBUser={}", encode(user)),
            issued: SystemTime::now(),
            expires: Duration::from_secs(900),
        }
    }

    /// A token of Aurora DSQL for `action`, which names neither a user nor a port.
    pub(crate) fn of_dsql(emulator: &Emulator, action: &str) -> Token {
        Token {
            service: "dsql".to_owned(),
            authority: emulator.host().to_owned(),
            query: format!("Action={action}"),
            ..Token::new(emulator, "")
        }
    }

    /// Signs with AWS's signer.
    pub(crate) fn sign(&self) -> String {
        let identity = Credentials::from_keys(
            &self.access_key,
            &self.secret_key,
            self.session_token.clone(),
        )
        .into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(self.expires);
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(self.issued)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let url = format!("https://{}/?{}", self.authority, self.query);
        let request =
            SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(b""))
                .unwrap();
        let (instructions, _) = sign(request, &parameters).unwrap().into_parts();
        let (_, added) = instructions.into_parts();
        added.iter().fold(
            url.trim_start_matches("https://").to_owned(),
            |token, (name, value)| format!("{token}&{name}={}", encode(value)),
        )
    }
}

/// Percent-encodes as RFC 3986 has it.
pub(crate) fn encode(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// An emulator with one IAM user, `app`.
pub(crate) fn emulator() -> Emulator {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

/// Logs in over TLS, verified in full.
pub(crate) fn connect(
    emulator: &Emulator,
    user: &str,
    password: &str,
) -> Result<Client, postgres::Error> {
    config(emulator, user, password).connect(tls(emulator))
}

/// The same with a valid token.
pub(crate) fn login(emulator: &Emulator, user: &str) -> Client {
    connect(emulator, user, &Token::new(emulator, user).sign()).unwrap()
}

pub(crate) fn config(emulator: &Emulator, user: &str, password: &str) -> postgres::Config {
    let mut config = postgres::Config::new();
    config
        .host(emulator.host())
        .hostaddr(emulator.addr().ip())
        .port(emulator.port())
        .user(user)
        .password(password)
        .dbname("postgres")
        .ssl_mode(postgres::config::SslMode::Require);
    config
}

pub(crate) fn tls(emulator: &Emulator) -> MakeTlsConnector {
    let ca = native_tls::Certificate::from_pem(emulator.ca_pem().as_bytes()).unwrap();
    let connector = native_tls::TlsConnector::builder()
        .disable_built_in_roots(true)
        .add_root_certificate(ca)
        .build()
        .unwrap();
    MakeTlsConnector::new(connector)
}

/// The server's error: SQLSTATE and message.
pub(crate) fn refusal(result: Result<Client, postgres::Error>) -> (String, String) {
    let error = result.err().expect("the login was to be refused");
    let error = error
        .as_db_error()
        .unwrap_or_else(|| panic!("not the server's answer: {error}"));
    assert_eq!(error.severity(), "FATAL");
    (error.code().code().to_owned(), error.message().to_owned())
}

pub(crate) fn query_one(client: &mut Client, statement: &str) -> String {
    client.query_one(statement, &[]).unwrap().get(0)
}

/// Logs in as `app` repeatedly until a login is refused, because the active fault depends on the rate of logins.
/// Returns the server's error.
pub(crate) fn until_refused(emulator: &Emulator, token: &str) -> (String, String) {
    let start = std::time::Instant::now();
    loop {
        let result = connect(emulator, "app", token);
        if result.is_err() {
            return refusal(result);
        }
        assert!(start.elapsed() < Duration::from_secs(60), "never refused");
    }
}

/// Prints why a test is skipped. `println!` would be captured, since the test passes.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}
