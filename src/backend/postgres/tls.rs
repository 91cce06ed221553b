//! TLS for a connection string, by native-tls.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::{Certificate, TlsConnector};
use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};

use super::deadline_stream::{DeadlineStream, LoginDeadline, Stream};
use crate::backend::classify;
use crate::clock::Clock;
use crate::endpoint::{ConnectionString, SslMode};
use crate::error::{Error, ErrorKind};
use crate::roots::Roots;

/// The time limit of a cancel request.
const CANCEL_LIMIT: Duration = Duration::from_secs(9);

/// TLS with the roots and the `sslmode` of a manager, for cancelling queries.
///
/// A cancel request uses a connection of its own.
/// [`CancelToken::cancel_query`](postgres::CancelToken::cancel_query) therefore takes a TLS implementation.
/// Connections of this crate need this one, from
/// [`RdsConnectionManager::tls`](crate::RdsConnectionManager::tls): any other would begin with TLS, and the
/// server expects a request for it first.
#[derive(Clone)]
pub struct PostgresTls {
    mode: SslMode,
    /// `None` without TLS.
    connector: Option<TlsConnector>,
    watch: Arc<LoginDeadline>,
    deadline: Option<Instant>,
}

impl PostgresTls {
    pub(super) fn new(
        target: &ConnectionString,
        roots: Option<&Roots>,
    ) -> Result<PostgresTls, Error> {
        let mode = target.sslmode()?.unwrap_or(match roots {
            // libpq's defaults.
            Some(Roots::System) => SslMode::VerifyFull,
            _ => SslMode::Prefer,
        });
        let connector = match mode {
            SslMode::Disable => None,
            SslMode::Allow => {
                return Err(Error::configuration(
                    "sslmode=allow is not supported by the crate postgres: set sslmode to prefer, \
                     or to verify-full",
                ));
            }
            SslMode::VerifyCa if roots.is_none() => {
                return Err(Error::configuration(
                    "sslmode=verify-ca would trust every public certificate for every name: name \
                     a file in sslrootcert, or set sslmode to verify-full",
                ));
            }
            _ => Some(connector(mode, roots)?),
        };
        Ok(PostgresTls {
            mode,
            connector,
            watch: Arc::default(),
            deadline: None,
        })
    }

    /// For one login with a deadline.
    pub(super) fn until(&self, deadline: Instant) -> PostgresTls {
        PostgresTls {
            watch: Arc::default(),
            deadline: Some(deadline),
            ..self.clone()
        }
    }

    pub(super) fn watch(&self) -> Arc<LoginDeadline> {
        self.watch.clone()
    }
}

impl fmt::Debug for PostgresTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTls")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// As in libpq, the certificate is verified if that is requested or roots are given, and its name only with
/// `verify-full`.
fn connector(mode: SslMode, roots: Option<&Roots>) -> Result<TlsConnector, Error> {
    let failed = |cause| {
        let message = "TLS cannot be set up with these roots; check sslrootcert";
        Error::with_cause(ErrorKind::Configuration, message, cause)
    };
    let mut builder = TlsConnector::builder();
    if let Some(certificates) = roots.map(Roots::certificates).transpose()?.flatten() {
        builder.disable_built_in_roots(true);
        for der in certificates {
            builder.add_root_certificate(Certificate::from_der(&der).map_err(failed)?);
        }
    }
    builder
        .danger_accept_invalid_certs(roots.is_none() && !mode.verifies())
        .danger_accept_invalid_hostnames(mode != SslMode::VerifyFull)
        .build()
        .map_err(failed)
}

impl MakeTlsConnect<Socket> for PostgresTls {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Error> {
        let in_time = || Clock::default().now().monotonic + CANCEL_LIMIT;
        Ok(Handshake {
            deadline: self.deadline.unwrap_or_else(in_time),
            host: host.to_owned(),
            tls: self.clone(),
        })
    }
}

/// TLS before its negotiation with a server of this name.
#[derive(Debug)]
pub struct Handshake {
    host: String,
    deadline: Instant,
    tls: PostgresTls,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(self.negotiate(socket))
    }
}

impl Handshake {
    async fn negotiate(self, socket: Socket) -> Result<Stream, Error> {
        let watch = self.tls.watch;
        let mut line = DeadlineStream::new(socket, watch.clone(), self.deadline);
        let Some(connector) = self.tls.connector else {
            return Ok(Stream::Plain(line));
        };
        let answer = line
            .ask_for_tls()
            .await
            .map_err(|cause| classify::NETWORK.error(cause))?;
        match answer {
            b'S' => {
                let handshake = postgres_native_tls::TlsConnector::new(connector, &self.host);
                let stream = handshake.connect(line).await.map_err(|cause| {
                    // Any other error of TLS.
                    let classification = if watch.is_broken() {
                        classify::NETWORK
                    } else {
                        classify::TLS
                    };
                    classification.error(cause)
                })?;
                Ok(Stream::Encrypted(Box::new(stream)))
            }
            b'N' if self.tls.mode == SslMode::Prefer => Ok(Stream::Plain(line)),
            b'N' => Err(classify::TLS.error("the server does not support TLS")),
            // It cannot start a process for the connection. Its text is not read, since anyone could send it.
            b'E' => Err(classify::UNAVAILABLE.error("the server sent an error before TLS")),
            _ => Err(classify::NETWORK
                .error("the program on this port does not speak PostgreSQL's protocol")),
        }
    }
}
