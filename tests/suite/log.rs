//! The log of an application that has the crate `log` and no subscriber of `tracing`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::child::{self, Child};
use crate::support::database::{emulator, manager};

/// What an application sees that logs by `env_logger`, with its own level.
#[test]
fn an_application_with_env_logger_sees_what_an_operator_needs() {
    const TEST: &str = "an_application_with_env_logger_sees_what_an_operator_needs";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let log = Written::default();
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .target(env_logger::Target::Pipe(Box::new(log.clone())))
        .init();
    let emulator = emulator();
    let manager = manager(&emulator);
    let pool = manager.pool_builder().max_size(1).build().unwrap();
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].contains("INFO") && lines[0].contains("pool built"),
        "{lines:#?}"
    );
    assert!(lines[0].contains(emulator.host()), "{lines:#?}");

    emulator.stop_postgres().unwrap();
    for _ in 0..3 {
        manager.try_connect().err().unwrap();
    }
    emulator.start_postgres().unwrap();
    manager.try_connect().unwrap();
    drop(pool);
    let lines = log.lines();
    let (failed, works) = (
        count(&lines, "connections cannot be opened"),
        count(&lines, "can be opened again"),
    );
    assert_eq!((failed, works), (1, 1), "{lines:#?}");
    assert_eq!(count(&lines, "WARN"), 1, "{lines:#?}");
    let (_, token) = manager.token().unwrap();
    for secret in [emulator.secret_key(), token.expose_secret()] {
        assert_eq!(count(&lines, secret), 0);
    }
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Written {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
