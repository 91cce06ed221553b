//! Records everything that a process prints: every log line of every crate at every level, the events of diesel's
//! instrumentation, panics, events, and the process's own arguments and environment.
//!
//! Loggers and instrumentation belong to the whole process, so this is for [`Child`](super::child::Child)ren.

use std::fmt::{Debug, Write};
use std::sync::Arc;

use diesel::connection::{InstrumentationEvent, set_default_instrumentation};
use diesel_rds_iam::{
    ConnectFailed, ConnectionOpened, ConnectionRetired, HandleAuthEvent, LoginRefused,
    LoginRetried, RefreshFailed, StaleServed, TokenSigned,
};
use parking_lot::Mutex;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The recorded texts.
#[derive(Clone, Default)]
pub struct Eavesdropper(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    texts: Vec<String>,
    /// Every token of the process, which none of the texts may contain.
    tokens: Vec<String>,
}

impl Eavesdropper {
    /// Starts recording.
    pub fn start() -> Eavesdropper {
        let heard = Eavesdropper::default();
        let subscriber = tracing_subscriber::registry().with(heard.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        tracing_log::LogTracer::init().unwrap();
        log::set_max_level(log::LevelFilter::Trace);

        let ears = heard.clone();
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            ears.hear("panic", panic);
            print(panic);
        }));

        INSTRUMENTATION.lock().replace(heard.clone());
        set_default_instrumentation(|| Some(Box::new(on_diesel_event))).unwrap();
        heard
    }

    /// Records a value that a program might print.
    pub fn hear(&self, what: &str, thing: impl Debug) {
        self.0.lock().texts.push(format!("{what}: {thing:?}"));
    }

    /// Records an error: its text, its `Debug` output and those of its causes.
    pub fn hear_error(&self, error: &(dyn std::error::Error + 'static)) {
        let mut text = format!("error: {error} {error:?} {error:#?}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, " {error} {error:?}");
            cause = error.source();
        }
        self.0.lock().texts.push(text);
    }

    /// Records the process's environment and arguments, as other processes of the machine can read them.
    pub fn look_around(&self) {
        for file in ["/proc/self/environ", "/proc/self/cmdline"] {
            let text = std::fs::read(file).unwrap();
            self.hear(file, String::from_utf8_lossy(&text));
        }
    }

    pub fn texts(&self) -> Vec<String> {
        self.0.lock().texts.clone()
    }

    pub fn tokens(&self) -> Vec<String> {
        self.0.lock().tokens.clone()
    }
}

static INSTRUMENTATION: Mutex<Option<Eavesdropper>> = Mutex::new(None);

fn on_diesel_event(event: InstrumentationEvent<'_>) {
    let heard = INSTRUMENTATION.lock().clone().unwrap();
    if matches!(event, InstrumentationEvent::StartEstablishConnection { .. }) {
        // A connect is under way with a token, so there is a secret to find.
        heard.look_around();
    }
    heard.hear("diesel", event);
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Eavesdropper {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = format!("{} {}:", metadata.level(), metadata.target());
        event.record(&mut Fields(&mut text));
        self.0.lock().texts.push(text);
    }

    fn on_new_span(
        &self,
        span: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        let mut text = format!("span {}:", span.metadata().name());
        span.record(&mut Fields(&mut text));
        self.0.lock().texts.push(text);
    }

    fn on_record(
        &self,
        _: &tracing::span::Id,
        values: &tracing::span::Record<'_>,
        _: Context<'_, S>,
    ) {
        let mut text = "span:".to_owned();
        values.record(&mut Fields(&mut text));
        self.0.lock().texts.push(text);
    }
}

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl HandleAuthEvent for Eavesdropper {
    fn handle_token_signed(&self, event: &TokenSigned<'_>) {
        let token = event.token.expose_secret().to_owned();
        self.0.lock().tokens.push(token);
        self.hear("event", event);
    }

    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        self.hear("event", event);
    }

    fn handle_stale_served(&self, event: &StaleServed<'_>) {
        self.hear("event", event);
    }

    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        self.hear("event", event);
    }

    fn handle_login_retried(&self, event: &LoginRetried<'_>) {
        self.hear("event", event);
    }

    fn handle_connection_opened(&self, event: &ConnectionOpened<'_>) {
        self.hear("event", event);
    }

    fn handle_connect_failed(&self, event: &ConnectFailed<'_>) {
        self.hear("event", event);
    }

    fn handle_connection_retired(&self, event: &ConnectionRetired) {
        self.hear("event", event);
    }
}
