//! A signing thread that is blocked, waits for itself, or is suspended together with its process.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use aws_credential_types::provider::{self, ProvideCredentials, error::CredentialsError, future};
use diesel_rds_iam::{ErrorKind, IamAuth, ManualClock, TokenSource};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::support::child::{self, Child};
use crate::support::{MINUTE, PATIENCE, SECOND, endpoint, keys, keys_until};

/// Announces its first poll, and blocks there until the sender of `held` is dropped.
#[derive(Debug)]
struct Blocks {
    calls: Arc<AtomicUsize>,
    begun: Sender<()>,
    held: Mutex<Receiver<()>>,
}

impl ProvideCredentials for Blocks {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.begun.send(()).unwrap();
        let _ = self.held.lock().recv();
        future::ProvideCredentials::ready(Ok(keys()))
    }
}

/// FAULTS.md row 48.
#[test]
fn a_provider_that_blocks_the_thread_delays_no_other_identity() {
    const TEST: &str = "a_provider_that_blocks_the_thread_delays_no_other_identity";
    // All identities of a process share the thread.
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let calls = Arc::<AtomicUsize>::default();
    let (begun, begins) = channel();
    let (release, held) = channel();
    let blocking = IamAuth::builder()
        .credentials_provider(Blocks {
            calls: calls.clone(),
            begun,
            held: Mutex::new(held),
        })
        .build()
        .unwrap();
    let first = blocking.source(&endpoint());
    let waiting = thread::spawn(move || first.token());
    begins.recv_timeout(PATIENCE).unwrap();

    for _ in 0..3 {
        let other = IamAuth::builder().credentials_provider(keys());
        other.build().unwrap().source(&endpoint()).token().unwrap();
    }

    // The provider that blocks is named by its own error, and is not called again.
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(
        error.to_string().contains("provider has blocked"),
        "{error}"
    );
    assert!(error.to_string().contains("credentials_fn"), "{error}");
    drop(release);
    let source = blocking.source(&endpoint());
    wait_for_token(&source, |token| token.is_some());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Requests a token of the identity that it is the provider of.
#[derive(Debug, Default)]
struct AsksItself(Arc<OnceLock<TokenSource>>);

impl ProvideCredentials for AsksItself {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let answer: provider::Result = match self.0.get().unwrap().token() {
            Ok(_) => Ok(keys()),
            Err(error) => Err(CredentialsError::provider_error(error)),
        };
        future::ProvideCredentials::ready(answer)
    }
}

/// FAULTS.md row 48.
#[test]
fn a_provider_that_requests_its_own_token_gets_an_error_at_once() {
    let provider = AsksItself::default();
    let own = provider.0.clone();
    let auth = IamAuth::builder()
        .credentials_provider(provider)
        .refresh_timeout(PATIENCE)
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    own.set(source.clone()).unwrap();
    let begun = Instant::now();
    let error = source.token().unwrap_err();
    let causes = format!("{error} {:?}", std::error::Error::source(&error));
    assert!(causes.contains("would wait for itself"), "{causes}");
    assert!(begun.elapsed() < PATIENCE, "it waited for its limit");
}

/// What a suspended child prints when its source is called.
const FETCHING: &str = "the source is called";

/// FAULTS.md row 49.
#[test]
fn time_in_which_the_process_is_suspended_does_not_count() {
    const TEST: &str = "time_in_which_the_process_is_suspended_does_not_count";
    if child::is_running(module_path!(), TEST) {
        return be_suspended();
    }
    let mut child = Child::new(module_path!(), TEST, Path::new("/dev/null/none")).spawn();
    let pid = Pid::from_child(&child);
    let mut input = child.stdin.take().unwrap();
    let mut passed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        passed |= line.contains("1 passed");
        if !line.contains(FETCHING) {
            println!("{line}");
            continue;
        }
        kill_process(pid, Signal::STOP).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        // Longer than the refresh time-out and what is added to it.
        thread::sleep(4 * SECOND);
        kill_process(pid, Signal::CONT).unwrap();
        input.write_all(b"go on\n").unwrap();
    }
    assert!(child.wait().unwrap().success() && passed);
}

/// Fetches for the first time, and then in the background. Its source waits for a line of the parent.
fn be_suspended() {
    let time = ManualClock::new();
    let expiry = time.clock().now().wall + 20 * MINUTE;
    let fetch = move || {
        println!("{FETCHING}");
        io::stdin().read_line(&mut String::new())?;
        Ok(keys_until(expiry))
    };
    let auth = IamAuth::builder()
        .credentials_fn(fetch)
        .refresh_timeout(SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    let source = auth.source(&endpoint());
    let first = source.token().unwrap().id();
    time.advance(13 * MINUTE);
    wait_for_token(&source, |token| token.is_some_and(|id| id != first));
    assert_eq!(auth.stats().refreshes_failed, 0);
}

fn wait_for_token(source: &TokenSource, expected: impl Fn(Option<u64>) -> bool) {
    let begun = Instant::now();
    while !expected(source.token().ok().map(|token| token.id())) {
        assert!(begun.elapsed() < PATIENCE, "it did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}
