//! The doctor's output: a line for each step as it completes, or one JSON document at the end.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use diesel_rds_iam::Clock;
use serde_json::{Value, json};

use super::step::{Failed, Observation, Problem, Step, StepResult};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    colour: bool,
    steps: Vec<Value>,
    failure: Option<(Step, Problem)>,
    /// The first failure to write to standard output.
    output_error: Option<io::Error>,
}

/// A result, and how long it took.
pub(super) struct Attempt<T> {
    pub(super) result: T,
    pub(super) took: Duration,
}

impl Report {
    pub(super) fn new(json: bool) -> Report {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Report {
            json,
            colour: !json && !no_colour && io::stdout().is_terminal(),
            steps: Vec::new(),
            failure: None,
            output_error: None,
        }
    }

    /// Performs a step and prints its result.
    pub(super) fn step<T>(
        &mut self,
        step: Step,
        work: impl FnOnce() -> StepResult<T>,
    ) -> Result<T, Failed> {
        let Attempt { result, took } = self.attempt(work);
        match result {
            Ok((value, found)) => {
                self.pass(step, took, found);
                Ok(value)
            }
            Err(problem) => Err(self.fail(step, took, problem)),
        }
    }

    pub(super) fn attempt<T>(&self, work: impl FnOnce() -> T) -> Attempt<T> {
        let clock = Clock::default();
        let before = clock.now();
        let result = work();
        Attempt {
            result,
            took: clock.now().monotonic - before.monotonic,
        }
    }

    pub(super) fn pass(&mut self, step: Step, took: Duration, found: impl Into<Observation>) {
        let (mark, colour, outcome, text) = match found.into() {
            Observation::Passed(text) => ("✓", GREEN, "passed", text),
            Observation::Skipped(text) => ("-", DIM, "skipped", text),
        };
        self.line(mark, colour, step, took, &text);
        self.record(step, took, outcome, &text);
    }

    pub(super) fn fail(&mut self, step: Step, took: Duration, problem: Problem) -> Failed {
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
                json!({
                    "step": step.name(),
                    "message": problem.message,
                    "next": problem.next,
                    "paste": problem.paste,
                })
            });
            let document = json!({
                "ok": failure.is_none(),
                "exit_code": code,
                "steps": self.steps,
                "failure": failure,
            });
            writeln!(io::stdout(), "{document:#}")?;
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
        self.steps.push(json!({
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
