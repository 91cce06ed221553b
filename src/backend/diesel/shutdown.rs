//! Keeps the process from exiting while libpq opens a connection.
//!
//! When `main` returns, another thread may be inside libpq. The C libraries below it free their memory anyway:
//! OpenSSL, if another library initialized it first or it is linked twice, and Kerberos, which libpq asks for
//! credentials before most logins without IAM. The thread then reads freed memory, and the process dies of a
//! signal although its work is done. So the exit waits for connects that are under way, for at most
//! [`LONGEST_WAIT`], and no connect begins after that.

use std::cell::Cell;
use std::process;
use std::sync::Once;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, ErrorKind};

/// How long the exit waits. A connect takes hundredths of a second if the server responds, and a second or two
/// if the server or this machine is overloaded. The exit must not wait for a silent server.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The wait is divided into steps, so that a process that is suspended for seconds loses one of them and
/// not all.
const STEPS: u32 = 30;

/// How long a thread is kept from entering libpq while the process exits. The process ends earlier, unless an
/// exit handler of the application waits for the thread.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

static STATE: Mutex<State> = Mutex::new(State {
    process: 0,
    under_way: 0,
    ending: false,
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The connects of this thread. `exit` may be called inside one, for instance by an instrumentation of
    /// diesel's, and must not wait for its own thread.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

struct State {
    /// The process that this state belongs to. A forked child has none of its parent's threads.
    process: u32,
    under_way: usize,
    ending: bool,
}

/// A connect that is under way, for which the exit of the process waits.
#[derive(Debug)]
pub(super) struct ConnectGuard(());

impl ConnectGuard {
    /// # Errors
    ///
    /// If the process is exiting.
    pub(super) fn begin() -> Result<ConnectGuard, Error> {
        static BEFORE: Once = Once::new();
        BEFORE.call_once(wait_at_exit);
        let mut state = own_state();
        if state.ending {
            hold(state);
            return Err(Error::new(
                ErrorKind::Internal,
                "the process is ending, so no connection is opened",
            ));
        }
        state.under_way += 1;
        OWN.set(OWN.get() + 1);
        Ok(ConnectGuard(()))
    }
}

impl Drop for ConnectGuard {
    fn drop(&mut self) {
        // Exit handlers run in the reverse order of their registration, and libpq's OpenSSL may
        // have registered its own during the first connect. Ours has to come before it.
        static AFTER: Once = Once::new();
        AFTER.call_once(wait_at_exit);
        let mut state = own_state();
        state.under_way = state.under_way.saturating_sub(1);
        OWN.set(OWN.get().saturating_sub(1));
        CHANGED.notify_all();
        if state.ending {
            // The connection may be closed at once, since the pool may have been dropped.
            hold(state);
        }
    }
}

impl State {
    /// Whether a thread other than this one is connecting.
    fn has_others(&self) -> bool {
        self.under_way > OWN.get()
    }
}

/// Returns the state of this process, and not that of the process it was forked from.
fn own_state() -> MutexGuard<'static, State> {
    let mut state = STATE.lock();
    let process = process::id();
    if state.process != process {
        *state = State {
            process,
            under_way: 0,
            ending: false,
        };
    }
    state
}

fn hold(mut state: MutexGuard<'static, State>) {
    // An exit cannot be cancelled, so this wait ends with the process or after the limit.
    CHANGED.wait_while_for(&mut state, |state| state.ending, LONGEST_HOLD);
}

fn wait_at_exit() {
    // Registration fails only if memory is exhausted, and nothing can be done then.
    let _ = shutdown_hooks::add_shutdown_hook(wait_for_connects);
}

extern "C" fn wait_for_connects() {
    // With a time limit, since `exit` may be called in a signal handler or a forked child while another thread
    // holds the lock.
    let Some(mut state) = STATE.try_lock_for(LONGEST_WAIT) else {
        return;
    };
    if state.ending || state.process != process::id() {
        return;
    }
    state.ending = true;
    for _ in 0..STEPS {
        let step = LONGEST_WAIT / STEPS;
        CHANGED.wait_while_for(&mut state, |state| state.has_others(), step);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// FAULTS.md row 35.
    #[test]
    fn an_exit_inside_a_connect_does_not_wait_for_itself() {
        let guard = ConnectGuard::begin().unwrap();
        assert!(!own_state().has_others());
        thread::scope(|scope| {
            let seen = scope.spawn(|| own_state().has_others());
            assert!(seen.join().unwrap(), "another thread waits for this one");
        });
        drop(guard);
    }
}
