//! The TLS handshake and the server's certificate, before a token is sent.
//!
//! The handshake accepts every certificate, so that the report can describe it. `certificate` then
//! verifies it as `sslmode` requires. No data is sent inside the connection.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslVerifyMode, SslVersion};

use super::step::{Problem, StepResult};
use super::{Context, certificate};

/// PostgreSQL's SSLRequest. [PostgreSQL manual, message formats]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub(super) fn shake_hands(context: &Context, stream: TcpStream) -> StepResult<()> {
    ask(&stream, context.limit)?;
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
    Ok(((), certificate::verify(context, stream.ssl())?.into()))
}

/// Requests TLS, and fails if the server does not support it.
fn ask(mut stream: &TcpStream, limit: Duration) -> Result<(), Problem> {
    let mut answer = [0];
    let answered = stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
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
                describe_error(&error, limit)
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

fn describe_error(error: &io::Error, limit: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", limit.as_secs())
        }
        _ => error.to_string(),
    }
}

fn prepare(context: &Context) -> Result<Ssl, openssl::error::ErrorStack> {
    let mut tls_context = SslContext::builder(SslMethod::tls_client())?;
    tls_context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    tls_context.set_verify(SslVerifyMode::NONE);
    tls_context.set_cert_store(certificate::store(context)?.build());
    let mut ssl = Ssl::new(&tls_context.build())?;
    let host = context.endpoint.host();
    if host.parse::<IpAddr>().is_err() {
        ssl.set_hostname(host)?;
    }
    Ok(ssl)
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
