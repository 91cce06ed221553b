//! Concurrent first callers, and sources that are slow or broken.

use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use diesel_rds_iam::{
    Endpoint, ErrorKind, HandleAuthEvent, IamAuth, IamAuthBuilder, ManualClock, TokenSigned,
};
use parking_lot::Mutex;

use crate::support::{FakeSource, PATIENCE, endpoint, keys};

/// FAULTS.md row 8.
#[test]
fn sixty_four_threads_make_one_call_on_a_cold_cache() {
    let credentials = FakeSource::default();
    let auth = auth_builder(&credentials).build().unwrap();
    let barrier = Barrier::new(65);
    credentials.hold();
    let ids: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    auth.source(&endpoint()).token().unwrap().id()
                })
            })
            .collect();
        barrier.wait();
        credentials.wait_for_caller();
        credentials.release();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(credentials.calls(), 1);
    assert_eq!(auth.stats().tokens_signed, 1);
}

/// The threads that signed.
#[derive(Clone, Default)]
struct Signers(Arc<Mutex<Vec<ThreadId>>>);

impl HandleAuthEvent for Signers {
    fn handle_token_signed(&self, _: &TokenSigned<'_>) {
        self.0.lock().push(thread::current().id());
    }
}

/// With cached credentials the caller signs, and does not wait for the signing thread.
#[test]
fn a_caller_signs_the_first_token_if_credentials_are_cached() {
    let signers = Signers::default();
    let auth = auth_builder(&FakeSource::default())
        .event_handler(signers.clone())
        .build()
        .unwrap();
    auth.source(&endpoint()).token().unwrap();
    let another = endpoint().with_region("us-east-1").unwrap();
    auth.source(&another).token().unwrap();
    let here = thread::current().id();
    let by_caller: Vec<bool> = signers.0.lock().iter().map(|id| *id == here).collect();
    assert_eq!(by_caller, [false, true]);
}

/// FAULTS.md row 8.
#[test]
fn one_failure_is_returned_to_all_waiting_callers() {
    let credentials = FakeSource::default();
    credentials.answer(|| Err("the source is down".into()));
    credentials.hold();
    // The failure is cached for a second of this clock, which stands still.
    let time = ManualClock::new();
    let auth = auth_builder(&credentials)
        .clock(time.clock())
        .build()
        .unwrap();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| auth.source(&endpoint()).token().unwrap_err().kind()))
            .collect();
        credentials.wait_for_caller();
        credentials.release();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), ErrorKind::CredentialsRefused);
        }
    });
    assert_eq!(credentials.calls(), 1);
    // The callers are woken first.
    let begun = Instant::now();
    while auth.stats().refreshes_failed == 0 && begun.elapsed() < PATIENCE {
        thread::yield_now();
    }
    assert_eq!(auth.stats().refreshes_failed, 1);
}

/// FAULTS.md row 10.
#[test]
fn a_source_that_hangs_times_out_and_is_called_again_later() {
    let credentials = FakeSource::default();
    credentials.hold();
    let auth = auth_builder(&credentials)
        .refresh_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    let error = source.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsTimeout);
    assert!(
        error.to_string().contains("iam_credentials_timeout"),
        "{error}"
    );

    credentials.release();
    let patience = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        match source.token() {
            Ok(_) => break,
            // Cached for a second, as every failure is.
            Err(error) => assert_eq!(error.kind(), ErrorKind::CredentialsTimeout),
        }
        assert!(std::time::Instant::now() < patience, "never recovered");
        thread::yield_now();
    }
}

/// FAULTS.md row 2, for the source of credentials.
#[test]
fn a_source_that_panics_returns_an_error_and_is_called_again() {
    let credentials = FakeSource::default();
    credentials.answer(|| panic!("the source panics, as this test wants it to"));
    let time = ManualClock::new();
    let auth = auth_builder(&credentials)
        .clock(time.clock())
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    let error = source.token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsRefused);

    credentials.answer(|| Ok(keys()));
    time.advance(Duration::from_secs(1));
    assert!(source.token().is_ok());
}

#[test]
fn a_thousand_endpoints_cost_one_fetch_of_credentials() {
    let credentials = FakeSource::default();
    let auth = auth_builder(&credentials).build().unwrap();
    for port in 1..=1000 {
        let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
        let endpoint = Endpoint::new(host, port, "app").unwrap();
        auth.source(&endpoint).token().unwrap();
    }
    assert_eq!(auth.stats().tokens_signed, 1000);
    assert_eq!(credentials.calls(), 1);
}

fn auth_builder(credentials: &FakeSource) -> IamAuthBuilder {
    IamAuth::builder().credentials_fn(credentials.fetch())
}
