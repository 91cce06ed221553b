//! Suppresses the AWS SDK's TRACE output. aws-sigv4 logs what it signs, including the session token, and the
//! SDK's clients log their settings, including a role's external id. aws-config logs the errors of sources at WARN and
//! DEBUG, with the whole standard error of a `credential_process`; this crate's own errors have its first line.

use tracing::dispatcher::{self, Dispatch};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// Runs `work` without TRACE output.
pub(crate) fn without_sdk_trace<T>(work: impl FnOnce() -> T) -> T {
    if logs_no_trace() {
        return work();
    }
    dispatcher::with_default(&Dispatch::new(WithoutTrace::over_current()), work)
}

/// Runs a future without TRACE output.
pub(crate) async fn future_without_sdk_trace<T>(work: impl Future<Output = T>) -> T {
    if logs_no_trace() {
        return work.await;
    }
    work.with_subscriber(WithoutTrace::over_current()).await
}

/// Whether there is no TRACE output anyway. Without a subscriber, tracing may write to `log`, and never does so
/// again once a subscriber was set, even for a moment on one thread. So none is set while `log` does not accept
/// TRACE either.
fn logs_no_trace() -> bool {
    !dispatcher::has_been_set() && log::max_level() < log::LevelFilter::Trace
}

/// A subscriber that passes on everything but TRACE.
struct WithoutTrace(Dispatch);

impl WithoutTrace {
    fn over_current() -> WithoutTrace {
        WithoutTrace(dispatcher::get_default(Dispatch::clone))
    }
}

fn is_secret(metadata: &Metadata<'_>) -> bool {
    let has_error = || {
        let fields = metadata.fields();
        fields.field("error").is_some() || fields.field("context").is_some()
    };
    *metadata.level() == Level::TRACE || metadata.target().starts_with("aws_") && has_error()
}

impl Subscriber for WithoutTrace {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_secret(metadata) {
            return Interest::never();
        }
        self.0.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !is_secret(metadata) && self.0.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.0.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.0.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        if !is_secret(event.metadata()) {
            self.0.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        self.0.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.0.exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.0.clone_span(span)
    }

    fn try_close(&self, span: Id) -> bool {
        self.0.try_close(span)
    }

    fn current_span(&self) -> tracing_core::span::Current {
        self.0.current_span()
    }
}
