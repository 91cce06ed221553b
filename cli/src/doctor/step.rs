//! The steps, and the result of a step.

use std::fmt::Display;

/// A step of a connection, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    String,
    Region,
    Credentials,
    Clock,
    Token,
    Dns,
    Tcp,
    Tls,
    Login,
    Role,
    Server,
    Cluster,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::String => "string",
            Step::Region => "region",
            Step::Credentials => "credentials",
            Step::Clock => "clock",
            Step::Token => "token",
            Step::Dns => "dns",
            Step::Tcp => "tcp",
            Step::Tls => "tls",
            Step::Login => "login",
            Step::Role => "role",
            Step::Server => "server",
            Step::Cluster => "cluster",
        }
    }

    /// The exit status if the step fails. The help text documents them, so they do not change.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Step::String => 10,
            Step::Region => 11,
            Step::Credentials => 12,
            Step::Clock => 13,
            Step::Token => 14,
            Step::Dns => 15,
            Step::Tcp => 16,
            Step::Tls => 17,
            Step::Login => 18,
            Step::Role => 19,
            Step::Server => 20,
            Step::Cluster => 21,
        }
    }
}

/// The value for the next steps with an observation, or the problem.
pub(super) type StepResult<T> = Result<(T, Observation), Problem>;

/// The observation of a step that did not fail.
#[derive(Debug)]
pub(super) enum Observation {
    Passed(String),
    /// The step had nothing to check.
    Skipped(String),
}

impl From<String> for Observation {
    fn from(text: String) -> Observation {
        Observation::Passed(text)
    }
}

/// What failed, and what to do about it.
#[derive(Debug)]
pub(super) struct Problem {
    /// The step that it belongs to, if that is not the one that found it.
    pub(super) step: Option<Step>,
    pub(super) message: String,
    pub(super) next: String,
    /// A policy, a statement or a setting to copy.
    pub(super) paste: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Display, next: impl Into<String>) -> Problem {
        Problem {
            step: None,
            message: message.to_string(),
            next: next.into(),
            paste: None,
        }
    }

    /// Assigns the problem to another step than the one that found it.
    pub(super) fn at(mut self, step: Step) -> Problem {
        self.step = Some(step);
        self
    }

    pub(super) fn paste(mut self, text: impl Into<String>) -> Problem {
        self.paste = Some(text.into());
        self
    }
}

/// A step failed, and the report has its problem.
#[derive(Debug)]
pub(super) struct Failed;
