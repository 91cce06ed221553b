//! What the doctor says: a line for each step as it is done, or one JSON document at the end.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use diesel_rds_iam::Clock;
use serde_json::{Value, json};

use super::step::{Failed, Found, Outcome, Step, Trouble};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    colour: bool,
    steps: Vec<Value>,
    failure: Option<(Step, Trouble)>,
    /// The first time that standard output took no more.
    broken: Option<io::Error>,
}

/// Something done, and how long it took.
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
            broken: None,
        }
    }

    /// Does a step, and tells what came out of it.
    pub(super) fn step<T>(
        &mut self,
        step: Step,
        work: impl FnOnce() -> Outcome<T>,
    ) -> Result<T, Failed> {
        let Attempt { result, took } = self.attempt(work);
        match result {
            Ok((value, found)) => {
                self.pass(step, took, found);
                Ok(value)
            }
            Err(trouble) => Err(self.fail(step, took, trouble)),
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

    pub(super) fn pass(&mut self, step: Step, took: Duration, found: impl Into<Found>) {
        let (mark, colour, outcome, text) = match found.into() {
            Found::Good(text) => ("✓", GREEN, "passed", text),
            Found::NotSeen(text) => ("-", DIM, "not seen", text),
        };
        self.line(mark, colour, step, took, &text);
        self.note(step, took, outcome, &text);
    }

    pub(super) fn fail(&mut self, step: Step, took: Duration, trouble: Trouble) -> Failed {
        self.line("✗", RED, step, took, &trouble.meaning);
        self.note(step, took, "failed", &trouble.meaning);
        let mut advice = format!("\nNext: {}.", trouble.next);
        if let Some(text) = &trouble.paste {
            advice = format!("{advice}\n\n{text}");
        }
        self.print(&advice);
        self.failure = Some((step, trouble));
        Failed
    }

    /// Says what is left to be said.
    pub(super) fn finish(self) -> io::Result<ExitCode> {
        let code = self
            .failure
            .as_ref()
            .map_or(0, |(step, _)| step.exit_code());
        if self.json {
            let failure = self.failure.as_ref().map(|(step, trouble)| {
                json!({
                    "step": step.name(),
                    "meaning": trouble.meaning,
                    "next": trouble.next,
                    "paste": trouble.paste,
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
        match self.broken {
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

    fn note(&mut self, step: Step, took: Duration, outcome: &str, text: &str) {
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
            self.broken.get_or_insert(error);
        }
    }
}
