//! The library's counters, compared with its log and with the server.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use diesel_rds_iam::{IamAuth, Stats};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::AnyError;
use super::referee::Totals;

/// How long a connect may go on after its pool was dropped.
const LAST_CONNECT: Duration = Duration::from_secs(20);

/// The library's [`Stats`] at the end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Counts {
    pub tokens: u64,
    pub refreshes_failed: u64,
    pub refused: u64,
    /// Those of them whose message the library did not recognise, so that they may have another cause.
    pub in_doubt: u64,
    pub retried: u64,
    pub opened: u64,
    pub connects_failed: u64,
    pub rate_limited: u64,
    pub retired: u64,
}

impl Counts {
    pub fn new(stats: Stats, in_doubt: u64) -> Counts {
        Counts {
            tokens: stats.tokens_signed,
            refreshes_failed: stats.refreshes_failed,
            refused: stats.logins_refused,
            in_doubt,
            retried: stats.logins_retried,
            opened: stats.connections_opened,
            connects_failed: stats.connects_failed,
            rate_limited: stats.connects_rate_limited,
            retired: stats.connections_retired,
        }
    }

    /// Fails if the counters contradict the server.
    pub fn compare(&self, server: &Totals) -> Result<(), AnyError> {
        let fits = self.refused - self.in_doubt <= server.refused
            && self.opened <= server.logins - server.refused
            && self.tokens >= server.tokens
            && self.retried <= self.refused
            && self.rate_limited <= self.connects_failed;
        match fits {
            true => Ok(()),
            false => Err(format!("the library counts {self}, and the server {server}").into()),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "tokens_signed={} refreshes_failed={} seen_as_refused={} in_doubt={} retried={} \
             opened={} connects_failed={} rate_limited={} retired={}",
            self.tokens,
            self.refreshes_failed,
            self.refused,
            self.in_doubt,
            self.retried,
            self.opened,
            self.connects_failed,
            self.rate_limited,
            self.retired,
        )
    }
}

/// The number of times that each line is in the library's log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<HashMap<String, u64>>>);

impl Log {
    /// Subscribes to the log of the whole process.
    pub fn listen() -> Result<Log, AnyError> {
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::set_global_default(subscriber)?;
        Ok(log)
    }

    /// Fails if the log reports an event more or less often than `auth` has counted it.
    pub fn compare(&self, auth: &IamAuth) -> Result<(), AnyError> {
        let begun = Instant::now();
        loop {
            let stats = auth.stats();
            match self.differs(&stats) {
                // An event may be under way: it is logged before it is counted.
                Some(_) if begun.elapsed() < LAST_CONNECT => {
                    thread::sleep(Duration::from_millis(100));
                }
                Some(what) => {
                    let log = self.0.lock();
                    return Err(
                        format!("{what}: the log has {log:?}, counted are {stats:?}").into(),
                    );
                }
                None => return Ok(()),
            }
        }
    }

    fn differs(&self, stats: &Stats) -> Option<&'static str> {
        let log = self.0.lock();
        let lines = |text: &str| log.get(text).copied().unwrap_or_default();
        let counted = [
            ("token signed", "", stats.tokens_signed),
            (
                "token refresh failed",
                "token refresh failed again",
                stats.refreshes_failed,
            ),
            ("stale token served", "", stats.stale_served),
            ("login refused", "", stats.logins_refused),
            ("login retried with a new token", "", stats.logins_retried),
            ("connection opened", "", stats.connections_opened),
            (
                "connections cannot be opened",
                "connect failed",
                stats.connects_failed,
            ),
            ("connection retired", "", stats.connections_retired),
        ];
        let differs = counted
            .iter()
            .find(|(line, or, count)| lines(line) + lines(or) != *count)
            .map(|(line, ..)| *line);
        // Each streak of failures has a first line and, except for the last, a line for the recovery.
        let rows = [
            (
                "connections cannot be opened",
                "connections can be opened again",
            ),
            ("token refresh failed", "token refresh works again"),
        ];
        let is_open = |(begin, end): &(&str, &str)| lines(begin) - lines(end) > 1;
        differs.or_else(|| {
            rows.iter()
                .find(|row| is_open(row))
                .map(|(begin, _)| *begin)
        })
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target().starts_with("diesel_rds_iam") {
            event.record(&mut Message(&self.0));
        }
    }
}

struct Message<'a>(&'a Mutex<HashMap<String, u64>>);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0.lock().entry(format!("{value:?}")).or_default() += 1;
        }
    }
}
