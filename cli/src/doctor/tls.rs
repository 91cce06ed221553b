//! The TLS handshake and the server's certificate, before a token is sent.
//!
//! The handshake accepts every certificate, so that the report can describe it. The certificate is
//! then verified as `sslmode` requires. No data is sent inside the connection.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use diesel_rds_iam::Roots;
use openssl::nid::Nid;
use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509StoreBuilder, X509StoreBuilderRef};
use openssl::x509::{X509, X509NameRef, X509VerifyResult};

use super::Context;
use super::step::{Problem, StepResult};

/// The time limit for an answer of the server.
const LIMIT: Duration = Duration::from_secs(5);

/// PostgreSQL's SSLRequest. [PostgreSQL manual, message formats]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// OpenSSL's codes for a certificate with another name or address. [x509_vfy.h]
const HOSTNAME_MISMATCH: [i32; 2] = [62, 64];

/// OpenSSL's code for an expired certificate. [x509_vfy.h]
const HAS_EXPIRED: i32 = 10;

pub(super) fn shake_hands(context: &Context, stream: TcpStream) -> StepResult<()> {
    ask(&stream)?;
    let ssl = prepare(context).map_err(|error| {
        Problem::new(
            format!("OpenSSL does not accept the settings: {error}"),
            "correct sslrootcert and host",
        )
    })?;
    let stream = ssl.connect(RetryInterrupted(stream)).map_err(|error| {
        let cause = match error {
            HandshakeError::SetupFailure(error) => error.to_string(),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => {
                stream.error().to_string()
            }
        };
        Problem::new(
            format!("the TLS handshake failed: {cause}"),
            "check that the database itself answers there, and not a proxy of the network",
        )
    })?;
    let ssl = stream.ssl();
    let result = ssl.verify_result();
    if verifies_chain(context) && result != X509VerifyResult::OK {
        return Err(untrusted(context, ssl, result));
    }
    Ok(((), describe(context, ssl).into()))
}

/// Requests TLS, and fails if the server does not support it.
fn ask(mut stream: &TcpStream) -> Result<(), Problem> {
    let mut answer = [0];
    let answered = stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .and_then(|()| stream.write_all(&SSL_REQUEST))
        .and_then(|()| stream.read_exact(&mut answer));
    match (answered, answer) {
        (Ok(()), [b'S']) => Ok(()),
        (Ok(()), [b'N']) => Err(Problem::new(
            "the server does not support TLS, which a token requires",
            "connect to the database itself; RDS always supports TLS",
        )),
        (Ok(()), _) => Err(Problem::new(
            "the server does not speak PostgreSQL's protocol",
            "correct host and port",
        )),
        (Err(error), _) => Err(Problem::new(
            format!(
                "the server did not answer the request for TLS: {}",
                describe_error(&error)
            ),
            "check that PostgreSQL listens there, and that it is not overloaded",
        )),
    }
}

/// A stream that retries interrupted calls. Stopping and continuing the program interrupts a socket
/// with a time limit [signal(7)], and OpenSSL treats the interruption as a failure.
struct RetryInterrupted<S>(S);

impl<S: Read> Read for RetryInterrupted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| self.0.read(buffer))
    }
}

impl<S: Write> Write for RetryInterrupted<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        retry_interrupted(|| self.0.flush())
    }
}

fn retry_interrupted<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn describe_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", LIMIT.as_secs())
        }
        _ => error.to_string(),
    }
}

fn prepare(context: &Context) -> Result<Ssl, openssl::error::ErrorStack> {
    let mut tls_context = SslContext::builder(SslMethod::tls_client())?;
    tls_context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    tls_context.set_verify(SslVerifyMode::NONE);
    let mut store = X509StoreBuilder::new()?;
    match context.manager.roots() {
        Some(Roots::Carried(pem)) => add(&mut store, pem.as_bytes())?,
        // The library read this file and found certificates when it parsed the string.
        Some(Roots::File(path)) => add(&mut store, &std::fs::read(path).unwrap_or_default())?,
        Some(Roots::System) => store.set_default_paths()?,
        _ => {}
    }
    tls_context.set_cert_store(store.build());
    let mut ssl = Ssl::new(&tls_context.build())?;
    let host = context.parameter("host");
    match host.parse::<IpAddr>() {
        Ok(address) if verifies_name(context) => ssl.param_mut().set_ip(address)?,
        Ok(_) => {}
        Err(_) => {
            ssl.set_hostname(host)?;
            if verifies_name(context) {
                ssl.param_mut().set_host(host)?;
            }
        }
    }
    Ok(ssl)
}

fn add(store: &mut X509StoreBuilderRef, pem: &[u8]) -> Result<(), openssl::error::ErrorStack> {
    X509::stack_from_pem(pem)?
        .into_iter()
        .try_for_each(|root| store.add_cert(root))
}

/// Without roots nothing is verified, as with `sslmode=require`.
fn verifies_chain(context: &Context) -> bool {
    context.manager.roots().is_some()
}

fn verifies_name(context: &Context) -> bool {
    context.parameter("sslmode") == "verify-full"
}

fn describe(context: &Context, ssl: &SslRef) -> String {
    let version = ssl.version_str();
    let names = names(ssl);
    if !verifies_chain(context) {
        return format!("{version}, for {names}, not verified because of sslmode");
    }
    let chain: Vec<String> = ssl
        .verified_chain()
        .into_iter()
        .flatten()
        .map(|certificate| common_name(certificate.subject_name()))
        .collect();
    let root = chain.last().map_or("unknown", String::as_str);
    let length = chain.len();
    format!("{version}, for {names}, a chain of {length}, issued by the root {root:?}")
}

fn untrusted(context: &Context, ssl: &SslRef, result: X509VerifyResult) -> Problem {
    let why = result.error_string();
    let certificate = ssl.peer_certificate();
    let code = result.as_raw();
    if HOSTNAME_MISMATCH.contains(&code) {
        let host = context.parameter("host");
        return Problem::new(
            format!(
                "the certificate is for {}, not for {host} ({why})",
                names(ssl)
            ),
            "set host to the database's own name, and hostaddr to the address to dial",
        )
        .paste(format!("host={} hostaddr=ADDRESS", first_name(ssl)));
    }
    if code == HAS_EXPIRED {
        let end = certificate.map(|certificate| certificate.not_after().to_string());
        return Problem::new(
            format!(
                "the certificate expired on {} ({why})",
                end.unwrap_or_default()
            ),
            "renew the server's certificate, or correct this machine's clock",
        );
    }
    let issuer = certificate
        .map(|certificate| common_name(certificate.issuer_name()))
        .unwrap_or_default();
    Problem::new(
        format!("the certificate, issued by {issuer:?}, does not chain to a trusted root ({why})"),
        "check that this is the right server, and set sslrootcert to a file with its root",
    )
    .paste("https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem")
}

fn names(ssl: &SslRef) -> String {
    let all = all_names(ssl);
    match all.as_slice() {
        [] => "no name".to_owned(),
        names => names.join(", "),
    }
}

fn first_name(ssl: &SslRef) -> String {
    let mut all = all_names(ssl);
    if all.is_empty() {
        return "NAME".to_owned();
    }
    all.swap_remove(0)
}

fn all_names(ssl: &SslRef) -> Vec<String> {
    let certificate = ssl.peer_certificate();
    certificate
        .and_then(|certificate| certificate.subject_alt_names())
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.dnsname()?.to_owned()))
        .collect()
}

fn common_name(name: &X509NameRef) -> String {
    name.entries_by_nid(Nid::COMMONNAME)
        .next()
        .and_then(|entry| entry.data().to_string().ok())
        .unwrap_or_else(|| "unnamed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every other call is interrupted.
    struct Interrupted {
        is_interrupted: bool,
        written: Vec<u8>,
    }

    impl Interrupted {
        fn check(&mut self) -> io::Result<()> {
            self.is_interrupted = !self.is_interrupted;
            match self.is_interrupted {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => Ok(()),
            }
        }
    }

    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.check()?;
            buffer[0] = b'r';
            Ok(1)
        }
    }

    impl Write for Interrupted {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.check()?;
            self.written.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.check()
        }
    }

    #[test]
    fn an_interrupted_call_is_retried() {
        let mut stream = RetryInterrupted(Interrupted {
            is_interrupted: false,
            written: Vec::new(),
        });
        let mut buffer = [0; 2];
        assert_eq!(stream.read(&mut buffer).unwrap(), 1);
        assert_eq!(stream.write(b"w").unwrap(), 1);
        stream.flush().unwrap();
        assert_eq!((buffer, stream.0.written), ([b'r', 0], vec![b'w']));
    }

    #[test]
    fn other_errors_are_returned() {
        let result = retry_interrupted(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
