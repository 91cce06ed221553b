//! The process that runs a PostgreSQL server and cleans up after this process has ended.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::error::{Error, ErrorKind};
use crate::postgres::account::Account;

/// A shell that starts and stops one server on command. When its standard input ends, because this process
/// dropped it or has ended, it stops the server and removes its folder.
pub(crate) struct Supervisor {
    /// The process that sends the commands.
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
            // A process group of its own: Ctrl-C in a terminal ends only the program in front. The supervisor
            // then sees the end of its pipe.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| Error::io("the supervisor of PostgreSQL did not start", cause))?;
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
                "the supervisor of PostgreSQL has no pipes",
            )),
        }
    }

    /// Starts the server, if it is not running.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        if !self.running {
            self.order("start")?;
            self.running = true;
        }
        Ok(())
    }

    /// Stops the server, if it is running, and waits until it has ended.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        if !self.running {
            return Ok(());
        }
        self.order("stop")?;
        let mut answer = String::new();
        match self.answers.read_line(&mut answer) {
            Ok(0) => Err(Error::new(
                ErrorKind::Postgres,
                "the supervisor of PostgreSQL ended before it had stopped PostgreSQL",
            )),
            Ok(_) => {
                self.running = false;
                Ok(())
            }
            Err(cause) => Err(Error::io("the supervisor of PostgreSQL has ended", cause)),
        }
    }

    fn order(&mut self, order: &str) -> Result<(), Error> {
        writeln!(self.orders, "{order}")
            .map_err(|cause| Error::io("the supervisor of PostgreSQL has ended", cause))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // A forked child has a copy of this and must not stop the server.
        if std::process::id() != self.owner {
            return;
        }
        // An explicit command, because a forked child may keep the pipe open.
        let _ = self.order("quit");
        let _ = self.child.wait();
    }
}
