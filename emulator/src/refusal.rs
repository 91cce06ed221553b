//! The errors for clients that get no session.

use std::io;

use crate::engine::Answer;
use crate::packet::{self, Malformed};
use crate::server::Server;

/// The error for a client that gets no session.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    /// The login took longer than the server allows.
    pub(crate) fn too_slow(server: &Server) -> Refusal {
        Refusal {
            sqlstate: "57014",
            message: server.language.phrases().too_slow.to_owned(),
        }
    }

    /// There is no PostgreSQL behind the emulator at present.
    pub(crate) fn shutting_down(server: &Server) -> Refusal {
        Refusal {
            sqlstate: "57P03",
            message: server.language.phrases().shutting_down.to_owned(),
        }
    }

    /// A message that an attacker on the network sends before TLS.
    pub(crate) fn forged(server: &Server) -> Refusal {
        Refusal {
            sqlstate: "28000",
            message: server.language.phrases().pam_failed("forged"),
        }
    }

    pub(crate) fn packet(&self, server: &Server) -> Vec<u8> {
        let severity = server.language.phrases().fatal;
        packet::fatal(severity, self.sqlstate, &self.message, "auth_failed")
    }
}

impl From<Answer> for Refusal {
    fn from((sqlstate, message): Answer) -> Refusal {
        Refusal { sqlstate, message }
    }
}

/// Why a connection ends before a session is open.
pub(crate) enum End {
    /// No error is sent.
    HangUp,
    /// An error is sent.
    Refused(Refusal),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::HangUp
    }
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> End {
        match malformed {
            Malformed::HangUp => End::HangUp,
            Malformed::Answer(sqlstate, message) => End::Refused(Refusal { sqlstate, message }),
        }
    }
}
