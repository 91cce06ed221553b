//! The doctor's output: a line for each step as it completes, or one JSON document at the end.
//!
//! Messages have text from servers and certificates in them. All of them are escaped here.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use diesel_rds_iam::{Clock, Moment};
use serde_json::Value;

use super::step::{Failed, Observation, Problem, Step, StepResult};
use crate::escape::{escaped, escaped_lines, json};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The characters of a message that are printed.
const LONGEST_MESSAGE: usize = 2000;

#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    colour: bool,
    steps: Vec<Value>,
    failure: Option<(Step, Problem)>,
    /// The first failure to write to standard output.
    output_error: Option<io::Error>,
    /// When the last step has to be complete.
    end: Moment,
    clock: Clock,
}

impl Report {
    /// A report of steps that together take no longer than `limit`, unless it is extended.
    pub(super) fn new(json: bool, limit: Duration) -> Report {
        let clock = Clock::default();
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Report {
            json,
            colour: !json && !no_colour && io::stdout().is_terminal(),
            steps: Vec::new(),
            failure: None,
            output_error: None,
            end: clock.now() + limit,
            clock,
        }
    }

    /// Gives the next steps together as much time as `limit`.
    pub(super) fn extend(&mut self, limit: Duration) {
        self.end = self.clock.now() + limit;
    }

    /// Performs a step within `limit` and prints its result. A step that takes longer is abandoned on
    /// its thread, which ends with the process.
    pub(super) fn step<T: Send + 'static>(
        &mut self,
        step: Step,
        limit: Duration,
        work: impl FnOnce() -> StepResult<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let before = self.clock.now();
        let left = self
            .end
            .monotonic
            .saturating_duration_since(before.monotonic);
        let limit = limit.min(left);
        let (sender, receiver) = mpsc::sync_channel(1);
        // A step that panics drops the sender.
        let started = thread::Builder::new().spawn(move || {
            let _ = sender.send(work());
        });
        let result = match started {
            Ok(_) => receiver.recv_timeout(limit).unwrap_or_else(|error| {
                Err(match error {
                    RecvTimeoutError::Timeout => too_slow(step, limit),
                    RecvTimeoutError::Disconnected => Problem::new(
                        "the step panicked",
                        "report the message on standard error to the project",
                    ),
                })
            }),
            Err(cause) => Err(Problem::new(
                format!("cannot start a thread: {cause}"),
                "raise the limit of processes, `ulimit -u`",
            )),
        };
        let took = self.clock.now().monotonic - before.monotonic;
        match result {
            Ok((value, found)) => {
                self.pass(step, took, found);
                Ok(value)
            }
            Err(problem) => Err(self.fail(problem.step.unwrap_or(step), took, problem)),
        }
    }

    fn pass(&mut self, step: Step, took: Duration, found: Observation) {
        let (mark, colour, outcome, text) = match found {
            Observation::Passed(text) => ("✓", GREEN, "passed", text),
            Observation::Skipped(text) => ("-", DIM, "skipped", text),
        };
        let text = shown(&text);
        self.line(mark, colour, step, took, &text);
        self.record(step, took, outcome, &text);
    }

    fn fail(&mut self, step: Step, took: Duration, problem: Problem) -> Failed {
        let problem = Problem {
            message: shown(&problem.message),
            next: escaped(&problem.next).into_owned(),
            paste: problem.paste.as_deref().map(escaped_lines),
            ..problem
        };
        self.line("✗", RED, step, took, &problem.message);
        self.record(step, took, "failed", &problem.message);
        let mut advice = format!("\nNext: {}.", problem.next);
        if let Some(text) = &problem.paste {
            advice = format!("{advice}\n\n{text}");
        }
        self.print(&advice);
        self.failure = Some((step, problem));
        Failed
    }

    /// Prints the JSON document, if requested, and returns the exit status.
    pub(super) fn finish(self) -> io::Result<ExitCode> {
        let code = self
            .failure
            .as_ref()
            .map_or(0, |(step, _)| step.exit_code());
        if self.json {
            let failure = self.failure.as_ref().map(|(step, problem)| {
                serde_json::json!({
                    "step": step.name(),
                    "message": problem.message,
                    "next": problem.next,
                    "paste": problem.paste,
                })
            });
            let document = serde_json::json!({
                "schema_version": 1,
                "ok": failure.is_none(),
                "exit_code": code,
                "steps": self.steps,
                "failure": failure,
            });
            writeln!(io::stdout(), "{}", json(&document, true))?;
        }
        match self.output_error {
            Some(error) if code == 0 => Err(error),
            _ => Ok(ExitCode::from(code)),
        }
    }

    fn line(&mut self, mark: &str, colour: &str, step: Step, took: Duration, text: &str) {
        let name = step.name();
        let took = format!("{:.1} ms", took.as_secs_f64() * 1000.0);
        let (on, dim, off) = match self.colour {
            true => (colour, DIM, PLAIN),
            false => ("", "", ""),
        };
        self.print(&format!(
            "{on}{mark}{off} {name:<11} {dim}{took:>10}{off}  {text}"
        ));
    }

    fn record(&mut self, step: Step, took: Duration, outcome: &str, text: &str) {
        self.steps.push(serde_json::json!({
            "step": step.name(),
            "outcome": outcome,
            "took_ms": took.as_secs_f64() * 1000.0,
            "found": text,
        }));
    }

    fn print(&mut self, text: &str) {
        if self.json {
            return;
        }
        if let Err(error) = writeln!(io::stdout(), "{text}") {
            self.output_error.get_or_insert(error);
        }
    }
}

/// A message, without what a terminal would interpret. A server may send pages.
fn shown(message: &str) -> String {
    let end = message.char_indices().nth(LONGEST_MESSAGE);
    match end.and_then(|(end, _)| message.get(..end)) {
        Some(start) => format!("{} …", escaped(start)),
        None => escaped(message).into_owned(),
    }
}

fn too_slow(step: Step, limit: Duration) -> Problem {
    let next = match step {
        Step::String => "check that sslrootcert is a file that can be read",
        Step::Region | Step::Credentials | Step::Clock | Step::Token => {
            "check that this machine can reach the source of the credentials"
        }
        Step::Dns | Step::Cluster => "check the name servers of this machine",
        Step::Tcp | Step::Tls | Step::Login | Step::Role | Step::Server => {
            "check what answers there, because a database answers within seconds; for one that has to \
             resume, such as Aurora Serverless at 0 ACU, set --connect-timeout"
        }
    };
    Problem::new(
        format!("no result within {:.1} s", limit.as_secs_f64()),
        next,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that ends when the test does.
    fn endless() -> (mpsc::Sender<()>, impl FnOnce() -> StepResult<()> + Send) {
        let (sender, receiver) = mpsc::channel::<()>();
        let work = move || {
            let _ = receiver.recv();
            Ok(((), "done".to_owned().into()))
        };
        (sender, work)
    }

    fn message(report: &Report) -> &str {
        report
            .failure
            .as_ref()
            .map_or("", |(_, problem)| &problem.message)
    }

    #[test]
    fn the_whole_run_has_a_limit() {
        let mut report = Report::new(true, Duration::from_millis(100));
        let (_running, work) = endless();
        report
            .step(Step::Dns, Duration::from_secs(600), work)
            .unwrap_err();
        assert!(
            message(&report).starts_with("no result within 0.1 s"),
            "{report:?}"
        );
    }

    #[test]
    fn each_step_has_a_limit() {
        let mut report = Report::new(true, Duration::from_secs(600));
        let (_running, work) = endless();
        report
            .step(Step::Dns, Duration::from_millis(200), work)
            .unwrap_err();
        assert!(
            message(&report).starts_with("no result within 0.2 s"),
            "{report:?}"
        );
    }

    #[test]
    fn a_step_that_panics_fails() {
        let mut report = Report::new(true, Duration::from_secs(600));
        let work = || -> StepResult<()> { panic!("on purpose") };
        report
            .step(Step::Dns, Duration::from_secs(600), work)
            .unwrap_err();
        assert_eq!(message(&report), "the step panicked");
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = "\x07".repeat(LONGEST_MESSAGE + 1);
        let shown = shown(&long);
        assert_eq!(shown.matches("\\u{7}").count(), LONGEST_MESSAGE);
        assert!(shown.ends_with(" …"));
    }
}
