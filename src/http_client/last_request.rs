//! The last request to a source of credentials, and its result. The SDK's errors contain neither the address nor, in
//! a form that a program can read, the status.

use std::error::Error;
use std::sync::Arc;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use parking_lot::Mutex;

/// The last request of one client. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastRequest(Arc<Mutex<Option<Request>>>);

/// A request that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Host and port, without user, password, path and query.
    pub(crate) address: String,
    pub(crate) outcome: Outcome,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No response yet, or none within the limit.
    NoResponse,
    /// No connection, or a broken one.
    NoConnection,
    /// 429 or 5xx: the source is overloaded or failing.
    Unavailable(u16),
    /// Anything else, refusals included.
    Other,
}

impl LastRequest {
    pub(crate) fn get(&self) -> Option<Request> {
        self.0.lock().clone()
    }

    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }

    pub(super) fn begin(&self, address: &str) {
        let was_unavailable = |last: Request| matches!(last.outcome, Outcome::Unavailable(_));
        // Until the source responds, this is the reason for which there are no credentials.
        if !self.get().is_some_and(was_unavailable) {
            self.set(address, Outcome::NoResponse);
        }
    }

    pub(super) fn end(&self, address: &str, result: &Result<HttpResponse, ConnectorError>) {
        self.set(address, outcome(result));
    }

    fn set(&self, address: &str, outcome: Outcome) {
        *self.0.lock() = Some(Request {
            address: address.to_owned(),
            outcome,
        });
    }
}

fn outcome(result: &Result<HttpResponse, ConnectorError>) -> Outcome {
    match result {
        Ok(response) => match response.status().as_u16() {
            status @ (429 | 500..) => Outcome::Unavailable(status),
            _ => Outcome::Other,
        },
        Err(error) if error.is_timeout() => Outcome::NoResponse,
        // A certificate that was rejected does not become valid by itself.
        Err(error) if is_certificate_rejected(error) => Outcome::Other,
        Err(error) if error.is_io() => Outcome::NoConnection,
        Err(_) => Outcome::Other,
    }
}

/// Whether the handshake failed because of the server's certificate, and not because the connection broke. native-tls
/// tells only by its text, in which OpenSSL and the Security framework name the certificate.
fn is_certificate_rejected(error: &ConnectorError) -> bool {
    error
        .source()
        .filter(|cause| cause.is::<native_tls::Error>())
        .is_some_and(|cause| cause.to_string().contains("certificate"))
}
