//! The start of an emulator, and the removal of its files and processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rds_iam_emulator::Emulator;

use crate::client::{emulator, login};

/// Set for a child process that starts an emulator and waits to be killed.
const CHILD: &str = "RDS_IAM_EMULATOR_TEST_CHILD";

fn folder(emulator: &Emulator) -> PathBuf {
    emulator.ca_path().parent().unwrap().to_owned()
}

/// Whether a process has `folder` in its command line, as PostgreSQL and its supervisor have.
fn is_in_use(folder: &Path) -> bool {
    let folder = folder.to_str().unwrap();
    if let Ok(processes) = std::fs::read_dir("/proc") {
        // A process may end while it is read.
        return processes
            .filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok())
            .any(|arguments| String::from_utf8_lossy(&arguments).contains(folder));
    }
    let output = Command::new("ps")
        .args(["-A", "-ww", "-o", "args="])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains(folder)
}

#[test]
fn nothing_is_left_after_drop() {
    let emulator = emulator();
    let mut client = login(&emulator, "app");
    let folder = folder(&emulator);
    assert!(folder.exists());
    assert!(is_in_use(&folder));
    drop(emulator);
    assert!(!folder.exists());
    assert!(!is_in_use(&folder));
    assert!(client.simple_query("SELECT 1").is_err());
}

#[test]
fn nothing_is_left_after_a_failover_or_while_stopped() {
    let emulator = emulator();
    let folder_of_two = folder(&emulator);
    emulator.fail_over().unwrap();
    drop(emulator);
    assert!(!folder_of_two.exists());
    assert!(!is_in_use(&folder_of_two));

    let stopped = crate::client::emulator();
    let folder_of_stopped = folder(&stopped);
    stopped.stop_postgres().unwrap();
    drop(stopped);
    assert!(!folder_of_stopped.exists());
    assert!(!is_in_use(&folder_of_stopped));
}

#[test]
fn nothing_is_left_after_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let emulator = emulator();
        sender.send(folder(&emulator)).unwrap();
        panic!("as a failing test does");
    })
    .join();
    assert!(panicked.is_err());
    let folder = receiver.recv().unwrap();
    assert!(!folder.exists());
    assert!(!is_in_use(&folder));
}

#[test]
fn nothing_is_left_after_sigkill() {
    if std::env::var_os(CHILD).is_some() {
        let emulator = emulator();
        let _client = login(&emulator, "app");
        println!("folder={}", folder(&emulator).display());
        std::thread::park();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "lifecycle::nothing_is_left_after_sigkill",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .find_map(|line| {
            line.unwrap()
                .split_once("folder=")
                .map(|(_, path)| PathBuf::from(path))
        })
        .expect("the child tells its folder");
    assert!(folder.exists());
    assert!(is_in_use(&folder));
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while folder.exists() || is_in_use(&folder) {
        assert!(Instant::now() < deadline, "{folder:?} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_works_and_is_dropped_inside_an_async_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let folder = runtime.block_on(async {
        let emulator = emulator();
        emulator.execute("SELECT 1").unwrap();
        folder(&emulator)
    });
    assert!(!folder.exists());
    runtime.block_on(async {
        let failed = Emulator::builder()
            .postgres_setting("no_such_setting", "1")
            .start();
        assert!(failed.is_err());
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(Emulator::builder().port(port).start().is_err());
    });
}

#[test]
fn a_port_is_not_shared_with_another_emulator() {
    let emulator = emulator();
    assert!(Emulator::builder().port(emulator.port()).start().is_err());
}

#[test]
fn many_emulators_run_side_by_side() {
    let emulators: Vec<Emulator> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(emulator)).collect();
        starting
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect()
    });
    for emulator in &emulators {
        login(emulator, "app");
        assert_eq!(emulator.login_count(), 1);
    }
}

#[test]
fn errors_say_what_to_do() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Emulator::builder().port(port).start().unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("port {port} of 127.0.0.1 is not available")),
        "{text}"
    );

    let error = Emulator::builder()
        .postgres_setting("no_such_setting", "1")
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");

    let emulator = emulator();
    let error = emulator.create_iam_user("app").unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    let error = emulator.create_iam_user("a\0b").unwrap_err();
    assert!(error.to_string().contains("zero byte"), "{error}");
    let error = Emulator::builder()
        .endpoint("not a host", 1)
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("host name"), "{error}");
}
