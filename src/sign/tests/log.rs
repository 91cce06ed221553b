//! The log lines of signing.

use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// aws-sigv4 logs the canonical request, which includes the session token.
#[test]
fn no_session_token_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let mut case = Case::new("logged", HOST, 5432, "app");
    case.session_token = Some(SESSION_TOKEN.to_owned());
    tracing::subscriber::with_default(subscriber, || {
        // If another test reaches the same line first at this moment, tracing may cache it as disabled. So this
        // repeats until the line that has to be suppressed is seen.
        let is_heard = (0..10_000).any(|_| {
            tracing::callsite::rebuild_interest_cache();
            sign_aloud(&case);
            thread::yield_now();
            log.take().contains(&encode(SESSION_TOKEN))
        });
        assert!(is_heard, "aws-sigv4 is silent by itself now");
        case.sign();
    });
    let log = log.take();
    for secret in [
        SESSION_TOKEN,
        &encode(SESSION_TOKEN),
        &case.secret_key,
        "X-Amz-",
    ] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// Without the suppression.
fn sign_aloud(case: &Case) {
    let session = case.session_token.clone();
    let identity =
        Credentials::new(&case.access_key, &case.secret_key, session, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(case.expires));
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&case.region)
        .name(case.service())
        .time(date(&case.amz_date))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let url = format!("https://{HOST}/");
    let no_headers = std::iter::empty();
    let request = SignableRequest::new("GET", url, no_headers, SignableBody::empty()).unwrap();
    aws_sigv4::http_request::sign(request, &params).unwrap();
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}
