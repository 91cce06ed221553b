//! The refresher: a process that replaces the token in the program's password file, and removes the
//! program's folder after it.
//!
//! It is this program again, started by `rds-iam exec`. It is not the program's child, because the
//! program may wait for all of its children, and it has a session of its own, so that signals of the
//! terminal do not reach it. It ends with the last process that inherited the file.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::SystemTime;

use clap::Parser;
use diesel_rds_iam::Token;
use humantime::parse_rfc3339;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::inherited_file::{InheritedFiles, ROOTS};
use super::lease;
use super::passfile::{NEW_PASSFILE, PASSFILE, Passfile, Slots};
use super::refresh::Refresher;
use crate::target::{Target, TokenLifetime};

/// The command's name. It is not one for users, so it is in no help text and no completion.
const COMMAND: &str = "refresh-passfile";

/// The arguments of the command `refresh-passfile`.
#[derive(Debug, Parser)]
#[command(name = "rds-iam refresh-passfile")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    lifetime: TokenLifetime,

    /// When the refresh of the program's first token is due. Without it nothing is refreshed
    #[arg(long, value_parser = parse_rfc3339, requires = "expires_at")]
    refresh_at: Option<SystemTime>,

    /// When the program's first token expires
    #[arg(long, value_parser = parse_rfc3339)]
    expires_at: Option<SystemTime>,

    /// The process id of the program
    #[arg(long)]
    program: i32,

    /// The program's folder, which is removed after it. Without it standard input is the password file
    #[arg(long)]
    folder: Option<PathBuf>,

    /// The process is no child of the program
    #[arg(long)]
    is_detached: bool,
}

/// Starts the refresher for a program that is about to be run.
pub(super) fn start(
    target: &Target,
    lifetime: TokenLifetime,
    files: &InheritedFiles,
    refreshed: Option<&Token>,
) -> io::Result<()> {
    // The password file is the last one of the memory files.
    let Some(held) = files.open().last() else {
        return Ok(());
    };
    lease::hold(held)?;
    let mut command = this_program()?;
    target.apply(&mut command);
    lifetime.apply(&mut command);
    if let Some((refresh, expiry)) =
        refreshed.and_then(|token| token.refresh_due_at().zip(token.expires_at()))
    {
        for (option, date) in [("--refresh-at", refresh), ("--expires-at", expiry)] {
            command.arg(format!(
                "{option}={}",
                humantime::format_rfc3339_millis(date)
            ));
        }
    }
    command.arg(format!("--program={}", std::process::id()));
    match files.to_remove() {
        Some(folder) => command.arg("--folder").arg(folder).stdin(Stdio::null()),
        None => command.stdin(held.try_clone()?),
    };
    // It starts the refresher, and ends at once. So the refresher is not a child of this process,
    // which becomes the program.
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(io::Error::other("it did not start"));
    }
    Ok(())
}

impl Arguments {
    /// The arguments of this process, if it was started as a refresher.
    pub(crate) fn of_this_process() -> Option<Arguments> {
        let mut arguments = std::env::args_os().skip(1).peekable();
        let command = arguments.peek()?;
        (command == COMMAND).then(|| Arguments::parse_from(arguments))
    }
}

/// This program, to be run again as a refresher.
fn this_program() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND);
    Ok(command)
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if !arguments.is_detached {
        rustix::process::setsid()?;
        this_program()?
            .args(std::env::args_os().skip(2))
            .arg("--is-detached")
            .spawn()?;
        return Ok(ExitCode::SUCCESS);
    }
    // A service manager sends SIGTERM to all processes of a service, and the program may go on opening
    // connections until it has ended.
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let held = match &arguments.folder {
        Some(folder) => File::open(folder)?,
        None => File::options().read(true).write(true).open("/dev/stdin")?,
    };
    let program = Program::open(arguments.program);
    // The inherited file holds the lock.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    if let Some((refresh_at, expires_at)) = arguments.refresh_at.zip(arguments.expires_at) {
        let passfile = match &arguments.folder {
            Some(folder) => Passfile::Renamed(folder.join(PASSFILE)),
            None => Passfile::Slots(Slots::new(held.try_clone()?)?),
        };
        let mut refresher =
            Refresher::new(&arguments.target, arguments.lifetime, passfile, expires_at)?;
        thread::spawn(move || refresher.run(refresh_at));
    }
    lease::wait_for_holders(&held)?;
    if let Some(folder) = &arguments.folder {
        // A program that closes what it inherits, as sudo does, still reads its files by their paths.
        program.wait();
        remove(folder)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The program, where this system can wait for a process that is not a child.
struct Program {
    /// `None` if the program has ended.
    #[cfg(target_os = "linux")]
    open: Option<std::os::fd::OwnedFd>,
}

impl Program {
    #[cfg(target_os = "linux")]
    fn open(id: i32) -> Program {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};

        let open = Pid::from_raw(id).and_then(|id| pidfd_open(id, PidfdFlags::empty()).ok());
        Program { open }
    }

    /// Waits for the program's end.
    #[cfg(target_os = "linux")]
    fn wait(&self) {
        use rustix::event::{PollFd, PollFlags, poll};

        if let Some(open) = &self.open {
            let mut ends = [PollFd::new(open, PollFlags::IN)];
            let _ = rustix::io::retry_on_intr(|| poll(&mut ends, None));
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open(_id: i32) -> Program {
        Program {}
    }

    /// Does not wait. A check by `kill` would take a program that has ended for a running one until its parent waits
    /// for it, and a parent may wait for the end of standard error first, which this process has open.
    #[cfg(not(target_os = "linux"))]
    fn wait(&self) {}
}

/// Removes the folder with the files that `exec` and a refresh create, and nothing else.
fn remove(folder: &Path) -> Result<(), String> {
    let attempt = || {
        for name in [PASSFILE, NEW_PASSFILE, ROOTS] {
            match std::fs::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::remove_dir(folder)
    };
    // A refresh that is under way may have created a file between the two.
    let removed = attempt().or_else(|_| attempt());
    removed.map_err(|cause| format!("cannot remove {}: {cause}", folder.display()))
}
