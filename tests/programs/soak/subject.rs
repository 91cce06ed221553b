//! The tested application, seen from outside: a process of its own that reads commands on its standard input and
//! reports on its standard output.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rds_iam_emulator::Emulator;
use tempfile::TempDir;

use super::counts::Counts;
use super::footprint::Footprint;
use super::ledger::Ledger;
use super::{AnyError, USER};

/// What makes this program the application.
pub const ARGUMENT: &str = "--application";

pub const URL: &str = "DATABASE_URL";
pub const FOLDER: &str = "SOAK_FOLDER";
pub const SEED: &str = "SOAK_SEED";

/// Requests its footprint.
pub const MEASURE: &str = "measure";

/// How long it may take to become idle or to end: longer than any of its transactions.
const PATIENCE: Duration = Duration::from_secs(60);

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Its counters so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Connects that failed.
    pub gets_failed: u64,
    /// Transactions that failed.
    pub transactions_failed: u64,
}

/// A line of its output.
pub enum Line {
    Progress(Progress),
    Footprint(Footprint),
    /// Its last report.
    Counts(Counts),
}

pub struct Subject {
    process: Child,
    stdin: Option<ChildStdin>,
    progress: Arc<Mutex<Progress>>,
    footprints: Receiver<Footprint>,
    counts: Receiver<Counts>,
    folder: TempDir,
    last_line: Instant,
}

impl Subject {
    pub fn start(emulator: &Emulator, seed: u64) -> Result<Subject, AnyError> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AWS_") || text.starts_with("PG") {
                command.env_remove(&name);
            }
        }
        let mut process = command
            .arg(ARGUMENT)
            .env("HOME", "/dev/null/none")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(emulator.aws().container_environment())
            .env(URL, emulator.url_of(USER, "postgres"))
            .env(FOLDER, folder.path())
            .env(SEED, seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        let (footprints_in, footprints) = channel();
        let (counts_in, counts) = channel();
        let heard = Arc::clone(&progress);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                hear(&line, &heard, &footprints_in, &counts_in);
            }
        });
        Ok(Subject {
            process,
            stdin,
            progress,
            footprints,
            counts,
            folder,
            last_line: Instant::now(),
        })
    }

    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Whether the progress is to be printed, at most every 10 s.
    pub fn is_due_for_a_line(&mut self) -> bool {
        let is_due = self.last_line.elapsed() >= BETWEEN_LINES;
        if is_due {
            self.last_line = Instant::now();
        }
        is_due
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<(), AnyError> {
        match self.process.try_wait()? {
            Some(status) => Err(format!("the application has ended: {status}").into()),
            None => Ok(()),
        }
    }

    /// Its footprint with all of its connections open and idle.
    pub fn footprint(&mut self) -> Result<Footprint, AnyError> {
        let stdin = self
            .stdin
            .as_mut()
            .ok_or("the application has been stopped")?;
        writeln!(stdin, "{MEASURE}")?;
        let footprint = self.footprints.recv_timeout(PATIENCE);
        footprint
            .map_err(|_| format!("the application did not come to rest in {PATIENCE:?}").into())
    }

    /// Ends it, and returns its last report.
    pub fn stop(&mut self) -> Result<Counts, AnyError> {
        self.stdin = None;
        let counts = self.counts.recv_timeout(PATIENCE);
        let counts = counts.map_err(|_| format!("the application did not end in {PATIENCE:?}"))?;
        let status = self.process.wait()?;
        match status.success() {
            true => Ok(counts),
            false => Err(format!("the application ended with {status}").into()),
        }
    }

    /// Its record of its writes, after it has ended.
    pub fn ledger(&self) -> Result<Ledger, AnyError> {
        Ledger::read(self.folder.path())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It has ended, or its state is irrelevant.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hear(
    line: &str,
    progress: &Mutex<Progress>,
    footprints: &Sender<Footprint>,
    counts: &Sender<Counts>,
) {
    // The receiver may be gone.
    match Line::parse(line) {
        Some(Line::Progress(heard)) => *progress.lock() = heard,
        Some(Line::Footprint(heard)) => drop(footprints.send(heard)),
        Some(Line::Counts(heard)) => drop(counts.send(heard)),
        None => println!("the application says: {line}"),
    }
}

impl Progress {
    pub fn errors(&self) -> u64 {
        self.gets_failed + self.transactions_failed
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "writes={} gets_failed={} transactions_failed={}",
            self.written, self.gets_failed, self.transactions_failed
        )
    }
}

impl Line {
    fn parse(line: &str) -> Option<Line> {
        let (kind, rest) = line.split_once(' ')?;
        if kind == "counts" {
            return serde_json::from_str(rest).ok().map(Line::Counts);
        }
        let numbers: Vec<u64> = rest
            .split(' ')
            .map(|number| number.parse().ok())
            .collect::<Option<_>>()?;
        match (kind, numbers.as_slice()) {
            ("progress", &[written, gets_failed, transactions_failed]) => {
                Some(Line::Progress(Progress {
                    written,
                    gets_failed,
                    transactions_failed,
                }))
            }
            ("footprint", &[kibibytes, threads, descriptors]) => Some(Line::Footprint(Footprint {
                kibibytes,
                threads,
                descriptors,
            })),
            _ => None,
        }
    }

    /// Prints a line, in the application.
    pub fn say(&self) {
        match self {
            Line::Progress(progress) => println!(
                "progress {} {} {}",
                progress.written, progress.gets_failed, progress.transactions_failed
            ),
            Line::Footprint(footprint) => println!(
                "footprint {} {} {}",
                footprint.kibibytes, footprint.threads, footprint.descriptors
            ),
            Line::Counts(counts) => println!("counts {}", serde_json::json!(counts)),
        }
    }
}
