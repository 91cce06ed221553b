//! Prints the events of the pool as they happen.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use diesel_rds_iam::{
    ConnectionOpened, ConnectionRetired, HandleAuthEvent, LoginRefused, RefreshFailed, Token,
    TokenSigned,
};
use sha2::{Digest, Sha256};

pub struct Timeline {
    begun: Instant,
    token_lifetime: Duration,
    is_running: AtomicBool,
    newest: Mutex<Option<Newest>>,
    opened: AtomicU64,
    retired: AtomicU64,
    queries: AtomicU64,
    errors: AtomicU64,
}

#[derive(Clone)]
struct Newest {
    fingerprint: String,
    issued_at: SystemTime,
}

impl Timeline {
    pub fn start(token_lifetime: Duration) -> Timeline {
        Timeline {
            begun: Instant::now(),
            token_lifetime,
            is_running: AtomicBool::new(true),
            newest: Mutex::new(None),
            opened: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    /// Prints a line a second until the end, and then stops all threads.
    pub fn show_for(&self, time: Duration) {
        let mut before = self.queries();
        while self.begun.elapsed() < time {
            thread::sleep(Duration::from_secs(1));
            let queries = self.queries();
            self.show(queries - before);
            before = queries;
        }
        self.is_running.store(false, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Counts queries and errors.
    pub fn count<E: ToString>(&self, queries: u64, result: Result<(), E>) {
        self.queries.fetch_add(queries, Ordering::Relaxed);
        if let Err(error) = result {
            self.errors.fetch_add(1, Ordering::Relaxed);
            self.note(&format!("ERROR {}", error.to_string()));
        }
    }

    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The age of the newest token, and the time at which AWS would stop accepting it.
    pub fn newest_token(&self) -> Option<(Duration, SystemTime)> {
        let newest = self.newest()?;
        let age = newest.issued_at.elapsed().unwrap_or_default();
        Some((age, newest.issued_at + self.token_lifetime))
    }

    pub fn note(&self, text: &str) {
        println!("{} {text}", self.stamp());
    }

    fn show(&self, queries: u64) {
        let token = self.newest().map_or_else(String::new, |newest| {
            let age = newest.issued_at.elapsed().unwrap_or_default();
            let left = self.token_lifetime.saturating_sub(age);
            format!(
                "{}, {:2} s old, {:2} s left",
                newest.fingerprint,
                age.as_secs(),
                left.as_secs()
            )
        });
        println!(
            "{}   token {token} | connections opened {:3}, retired {:3} | {queries:5} queries/s | \
             {} errors",
            self.stamp(),
            self.opened.load(Ordering::Relaxed),
            self.retired.load(Ordering::Relaxed),
            self.errors(),
        );
    }

    fn newest(&self) -> Option<Newest> {
        self.newest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn stamp(&self) -> String {
        let seconds = self.begun.elapsed().as_secs();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }
}

impl HandleAuthEvent for Timeline {
    fn handle_token_signed(&self, event: &TokenSigned<'_>) {
        let newest = Newest {
            fingerprint: fingerprint(event.token),
            issued_at: event.token.issued_at(),
        };
        self.note(&format!(
            "token {} signed in {:.1?}",
            newest.fingerprint, event.took
        ));
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
    }

    fn handle_refresh_failed(&self, event: &RefreshFailed<'_>) {
        self.count(0, Err(event.error));
    }

    fn handle_login_refused(&self, event: &LoginRefused<'_>) {
        self.count(0, Err(event.error));
    }

    fn handle_connection_opened(&self, _: &ConnectionOpened<'_>) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn handle_connection_retired(&self, _: &ConnectionRetired) {
        self.retired.fetch_add(1, Ordering::Relaxed);
    }
}

/// The token's id in the emulator's log, from which the token cannot be derived.
fn fingerprint(token: &Token) -> String {
    let digest = Sha256::digest(token.expose_secret());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
