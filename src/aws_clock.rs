//! AWS's clock, from the `Date` header of the responses with credentials. AWS rejects a signature if this machine's
//! clock differs too much, and the rejection does not name the reason.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::http_client::{Client, LastRequest};

/// How many seconds AWS's clock was ahead of this machine's in the last response.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsClock {
    seconds_ahead: Arc<Mutex<Option<i64>>>,
}

impl AwsClock {
    pub(crate) fn seconds_ahead(&self) -> Option<i64> {
        *self.seconds_ahead.lock()
    }

    /// Returns the HTTP client for the SDK. Its responses set this clock, and its requests `last_request`.
    pub(crate) fn http_client(&self, last_request: LastRequest) -> SharedHttpClient {
        let inner = SharedHttpClient::new(Client::from_env(last_request));
        let clock = self.clone();
        SharedHttpClient::new(Watched { inner, clock })
    }

    fn look_at(&self, response: &HttpResponse) {
        let Some(date) = response.headers().get("date").and_then(parse) else {
            return;
        };
        let now = Clock::default().now().wall;
        *self.seconds_ahead.lock() = Some(seconds_between(now, date));
    }
}

fn parse(date: &str) -> Option<SystemTime> {
    let date = aws_smithy_types::DateTime::from_str(date, Format::HttpDate).ok()?;
    SystemTime::try_from(date).ok()
}

/// Rounded towards zero: the header has whole seconds only.
fn seconds_between(earlier: SystemTime, later: SystemTime) -> i64 {
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match later.duration_since(earlier) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

/// Passes every request on, and reads the date of the responses.
struct Watched<T> {
    inner: T,
    clock: AwsClock,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl HttpClient for Watched<SharedHttpClient> {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        let clock = self.clock.clone();
        SharedHttpConnector::new(Watched { inner, clock })
    }
}

impl HttpConnector for Watched<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.inner.call(request);
        let clock = self.clock.clone();
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            clock.look_at(&response);
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_date_header_is_read_and_compared() {
        let date = parse("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date, expected);
        assert_eq!(parse("yesterday"), None);
        let later = expected + Duration::from_millis(90_500);
        assert_eq!(seconds_between(expected, later), 90);
        assert_eq!(seconds_between(later, expected), -90);
    }
}
