//! The steps, and what comes out of one.

use std::fmt::Display;

/// A part of the way of a connection, in its order.
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
        }
    }

    /// The exit status where it fails. They are in the help text, and stay what they are.
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
        }
    }
}

/// What a step has for the next ones and what it found, or what is wrong.
pub(super) type Outcome<T> = Result<(T, Found), Trouble>;

/// What a step that did not fail has to tell.
#[derive(Debug)]
pub(super) enum Found {
    Good(String),
    /// There was nothing to be seen.
    NotSeen(String),
}

impl From<String> for Found {
    fn from(text: String) -> Found {
        Found::Good(text)
    }
}

/// What is wrong, and what to do about it.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) meaning: String,
    pub(super) next: String,
    /// A policy, a statement or a setting, ready to be used.
    pub(super) paste: Option<String>,
}

impl Trouble {
    pub(super) fn new(meaning: impl Display, next: impl Into<String>) -> Trouble {
        Trouble {
            meaning: meaning.to_string(),
            next: next.into(),
            paste: None,
        }
    }

    pub(super) fn paste(mut self, text: impl Into<String>) -> Trouble {
        self.paste = Some(text.into());
        self
    }
}

/// A step failed, and the report has it.
#[derive(Debug)]
pub(super) struct Failed;
