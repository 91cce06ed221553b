//! The server's certificate, looked at before a token is sent anywhere.
//!
//! The handshake is let through whatever the certificate is, so that there is something to be shown;
//! then it is judged as `sslmode` asks. Nothing is sent inside.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use diesel_rds_iam::Roots;
use openssl::nid::Nid;
use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslRef, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509StoreBuilder, X509StoreBuilderRef};
use openssl::x509::{X509, X509NameRef, X509VerifyResult};

use super::Patient;
use super::step::{Outcome, Trouble};

/// How long the server may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What a client of PostgreSQL says before TLS. [SSLRequest in the manual's message formats]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What OpenSSL calls a certificate for another name. [x509_vfy.h]
const HOSTNAME_MISMATCH: [i32; 2] = [62, 64];

/// What OpenSSL calls one that has ended.
const HAS_EXPIRED: i32 = 10;

pub(super) fn shake_hands(patient: &Patient, stream: TcpStream) -> Outcome<()> {
    ask(&stream)?;
    let ssl = prepare(patient).map_err(|error| {
        Trouble::new(
            format!("this machine's OpenSSL takes no such settings: {error}"),
            "correct sslrootcert and host",
        )
    })?;
    let stream = ssl.connect(Persistent(stream)).map_err(|error| {
        let cause = match error {
            HandshakeError::SetupFailure(error) => error.to_string(),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => {
                stream.error().to_string()
            }
        };
        Trouble::new(
            format!("the TLS handshake failed: {cause}"),
            "see that nothing but the database, such as a proxy of the network's, answers there",
        )
    })?;
    let ssl = stream.ssl();
    let verdict = ssl.verify_result();
    if verifies(patient) && verdict != X509VerifyResult::OK {
        return Err(distrusted(patient, ssl, verdict));
    }
    Ok(((), describe(patient, ssl).into()))
}

/// Asks for TLS, and fails if the server has none.
fn ask(mut stream: &TcpStream) -> Result<(), Trouble> {
    let mut answer = [0];
    let answered = stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .and_then(|()| stream.write_all(&SSL_REQUEST))
        .and_then(|()| stream.read_exact(&mut answer));
    match (answered, answer) {
        (Ok(()), [b'S']) => Ok(()),
        (Ok(()), [b'N']) => Err(Trouble::new(
            "the server has no TLS, and a token is sent through nothing else",
            "dial the database itself; RDS always has TLS",
        )),
        (Ok(()), _) => Err(Trouble::new(
            "what answers there is no PostgreSQL",
            "correct host and port",
        )),
        (Err(error), _) => Err(Trouble::new(
            format!(
                "the server gave no answer to the request for TLS: {}",
                told(&error)
            ),
            "see that it is PostgreSQL that listens there, and not too busy",
        )),
    }
}

/// A stream that goes on where a signal broke in. A socket with a limit is interrupted even by the
/// program's being stopped and continued [signal(7)], and OpenSSL takes that for the end.
struct Persistent<S>(S);

impl<S: Read> Read for Persistent<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        persist(|| self.0.read(buffer))
    }
}

impl<S: Write> Write for Persistent<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        persist(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        persist(|| self.0.flush())
    }
}

fn persist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("none within {} s", LIMIT.as_secs())
        }
        _ => error.to_string(),
    }
}

fn prepare(patient: &Patient) -> Result<Ssl, openssl::error::ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_verify(SslVerifyMode::NONE);
    let mut store = X509StoreBuilder::new()?;
    match patient.manager.roots() {
        Some(Roots::Carried(pem)) => add(&mut store, pem.as_bytes())?,
        // It was read, and seen to hold certificates, when the string was.
        Some(Roots::File(path)) => add(&mut store, &std::fs::read(path).unwrap_or_default())?,
        Some(Roots::System) => store.set_default_paths()?,
        _ => {}
    }
    context.set_cert_store(store.build());
    let mut ssl = Ssl::new(&context.build())?;
    let host = patient.parameter("host");
    match host.parse::<IpAddr>() {
        Ok(address) if names_the_host(patient) => ssl.param_mut().set_ip(address)?,
        Ok(_) => {}
        Err(_) => {
            ssl.set_hostname(host)?;
            if names_the_host(patient) {
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
fn verifies(patient: &Patient) -> bool {
    patient.manager.roots().is_some()
}

fn names_the_host(patient: &Patient) -> bool {
    patient.parameter("sslmode") == "verify-full"
}

fn describe(patient: &Patient, ssl: &SslRef) -> String {
    let version = ssl.version_str();
    let names = names(ssl);
    if !verifies(patient) {
        return format!("{version}, for {names}, not verified, as sslmode says");
    }
    let chain: Vec<String> = ssl
        .verified_chain()
        .into_iter()
        .flatten()
        .map(|certificate| common_name(certificate.subject_name()))
        .collect();
    let root = chain.last().map_or("unknown", String::as_str);
    let length = chain.len();
    format!("{version}, for {names}, a chain of {length}, vouched for by the root {root:?}")
}

fn distrusted(patient: &Patient, ssl: &SslRef, verdict: X509VerifyResult) -> Trouble {
    let why = verdict.error_string();
    let certificate = ssl.peer_certificate();
    let code = verdict.as_raw();
    if HOSTNAME_MISMATCH.contains(&code) {
        let host = patient.parameter("host");
        return Trouble::new(
            format!(
                "the certificate is for {}, and not for {host} ({why})",
                names(ssl)
            ),
            "set host to the database's own name, and hostaddr to the address to dial if that is \
             another one",
        )
        .paste(format!("host={} hostaddr=ADDRESS", first_name(ssl)));
    }
    if code == HAS_EXPIRED {
        let end = certificate.map(|certificate| certificate.not_after().to_string());
        return Trouble::new(
            format!("the certificate ended {} ({why})", end.unwrap_or_default()),
            "have the server's certificate renewed, or set this machine's clock if that is wrong",
        );
    }
    let issuer = certificate
        .map(|certificate| common_name(certificate.issuer_name()))
        .unwrap_or_default();
    Trouble::new(
        format!("no root that is trusted here vouches for the certificate, which {issuer:?} issued ({why})"),
        "name the file with the server's root in sslrootcert, if it is the right server",
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
        .unwrap_or_else(|| "without a name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupted every other time.
    struct Restless {
        is_interrupted: bool,
        written: Vec<u8>,
    }

    impl Restless {
        fn go_on(&mut self) -> io::Result<()> {
            self.is_interrupted = !self.is_interrupted;
            match self.is_interrupted {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => Ok(()),
            }
        }
    }

    impl Read for Restless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.go_on()?;
            buffer[0] = b'r';
            Ok(1)
        }
    }

    impl Write for Restless {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.go_on()?;
            self.written.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.go_on()
        }
    }

    #[test]
    fn a_signal_breaks_nothing_off() {
        let mut stream = Persistent(Restless {
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
    fn what_fails_otherwise_fails() {
        let failed = persist(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
