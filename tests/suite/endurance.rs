//! Much of the same, and what it leaves behind. Each in a process of its own, whose memory, threads
//! and file descriptors are nobody else's.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use diesel_rds_iam::{IamAuth, ManualClock, PgConnectionManager};

use crate::support::child::{self, Child};
use crate::support::database::shared_emulator;
use crate::support::{FakeSource, endpoint};

/// In KiB; what an allocator may keep to itself. A token has about 1 KiB.
const MEMORY_MAY_GROW_BY: u64 = 2048;

fn child(test: &str) -> Child {
    Child::new(module_path!(), test, Path::new("/dev/null/none"))
}

/// FAULTS.md row 29.
#[test]
fn ten_thousand_refreshes_leave_nothing_behind() {
    const TEST: &str = "ten_thousand_refreshes_leave_nothing_behind";
    if !child::is_running(module_path!(), TEST) {
        return child(TEST).run();
    }
    let time = ManualClock::new();
    let (credentials, clock) = (FakeSource::default(), time.clock());
    // They end with the token, so that both are fetched each time.
    credentials.answer(move || {
        let end = clock.now().wall + Duration::from_secs(15 * 60);
        Ok(Credentials::new(
            "AKIDEXAMPLE",
            "secret",
            None,
            Some(end),
            "test",
        ))
    });
    let auth = IamAuth::builder()
        .credentials_fn(credentials.fetch())
        .clock(time.clock());
    let auth = auth.build().unwrap();
    let source = auth.source(&endpoint());
    let refresh = || {
        source.token().unwrap();
        time.advance(Duration::from_secs(16 * 60));
    };
    (0..1_000).for_each(|_| refresh());
    let before = Footprint::of_this_process();
    (0..10_000).for_each(|_| refresh());
    before.assert_has_not_grown();
    assert_eq!(auth.stats().tokens_signed, 11_000);
    assert!(credentials.calls() >= 11_000);
}

/// FAULTS.md row 29.
#[test]
fn many_connects_leave_nothing_behind() {
    const TEST: &str = "many_connects_leave_nothing_behind";
    /// 10,000 of them take minutes.
    const CONNECTS: &str = "RDS_IAM_CONNECTS";
    if !child::is_running(module_path!(), TEST) {
        let emulator = shared_emulator();
        return child(TEST)
            .argument("URL", emulator.url("app"))
            .argument("ACCESS_KEY", emulator.access_key())
            .argument("SECRET_KEY", emulator.secret_key())
            .run();
    }
    let connects = env::var(CONNECTS).map_or(150, |count| count.parse().unwrap());
    let (key, secret) = (child::argument("ACCESS_KEY"), child::argument("SECRET_KEY"));
    let auth = IamAuth::builder()
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .build()
        .unwrap();
    let manager = PgConnectionManager::builder(&child::argument("URL")).auth(auth);
    let manager = manager.build().unwrap();
    let connect = || drop(manager.try_connect().unwrap());
    (0..30).for_each(|_| connect());
    let before = Footprint::of_this_process();
    (0..connects).for_each(|_| connect());
    before.assert_has_not_grown();
    assert_eq!(manager.stats().connections_opened, 30 + connects);
}

/// What a process has of what runs out.
#[derive(Debug)]
struct Footprint {
    memory: u64,
    threads: usize,
    descriptors: usize,
}

impl Footprint {
    fn of_this_process() -> Footprint {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let memory = status.lines().find_map(|line| {
            let size = line.strip_prefix("VmRSS:")?;
            size.trim().strip_suffix(" kB")?.parse().ok()
        });
        Footprint {
            memory: memory.unwrap(),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }

    fn assert_has_not_grown(&self) {
        let now = Footprint::of_this_process();
        println!("{self:?} before, {now:?} now");
        assert!(
            now.memory < self.memory + MEMORY_MAY_GROW_BY,
            "{now:?}, {self:?}"
        );
        // One that runs the user's code may just have ended, or not yet.
        assert!(now.threads <= self.threads + 1, "{now:?}, {self:?}");
        assert!(now.descriptors <= self.descriptors, "{now:?}, {self:?}");
    }
}
