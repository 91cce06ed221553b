//! The process that runs a server and outlives this one for as long as cleaning up takes.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::error::{Error, ErrorKind};
use crate::postgres::account::Account;

/// A shell that starts and stops one server on order, and stops it and removes its folder when the
/// orders end, because this process dropped it or is gone.
pub(crate) struct Supervisor {
    /// The process that gives the orders.
    owner: u32,
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    running: bool,
}

impl Supervisor {
    pub(crate) fn spawn(
        root: &Path,
        log: &Path,
        server: &[OsString],
        account: Account,
    ) -> Result<Supervisor, Error> {
        let mut child = account
            .command("/bin/sh")
            .args(["-c", include_str!("supervisor.sh"), "supervisor"])
            .args([root, log])
            .args(server)
            // A group of its own: Ctrl-C in a terminal is for the program in front, and the supervisor
            // then hears of its end through the pipe.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| Error::io("the shell that keeps PostgreSQL did not start", cause))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => Ok(Supervisor {
                owner: std::process::id(),
                child,
                orders,
                answers: BufReader::new(answers),
                running: false,
            }),
            _ => Err(Error::new(
                ErrorKind::Io,
                "the shell that keeps PostgreSQL has no pipes",
            )),
        }
    }

    /// Has the server started, if it is not running.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        if !self.running {
            self.order("start")?;
            self.running = true;
        }
        Ok(())
    }

    /// Stops the server, if it is running, and returns when it is gone.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if !self.running {
            return Ok(());
        }
        self.order("stop")?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(0) => Err(Error::new(
                ErrorKind::Postgres,
                "the shell that keeps PostgreSQL ended before it had stopped it",
            )),
            Ok(_) => {
                self.running = false;
                Ok(())
            }
            Err(cause) => Err(Error::io("the shell that keeps PostgreSQL is gone", cause)),
        }
    }

    fn order(&mut self, order: &str) -> Result<(), Error> {
        writeln!(self.orders, "{order}")
            .map_err(|cause| Error::io("the shell that keeps PostgreSQL is gone", cause))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A process that was forked off from the owner has a copy of this, and no say.
        if std::process::id() != self.owner {
            return;
        }
        // Said rather than left to the closing pipe: a process that was forked off from this one
        // may hold the pipe open.
        let _ = self.order("quit");
        let _ = self.child.wait();
    }
}
