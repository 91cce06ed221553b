//! The end of the process, which must not come while libpq opens a connection.
//!
//! When `main` returns, a pool's worker may be inside libpq. The C libraries under it tear
//! themselves down all the same: OpenSSL where it was first initialized by someone else than us or
//! is there twice, Kerberos's, which libpq asks for credentials before most logins without IAM. The
//! worker then reads what has been freed, and the process dies of a signal after all its work was
//! done. So the end waits for connects that are under way, for at most [`LONGEST_WAIT`], and no
//! connect begins after it has begun.

use std::process;
use std::sync::Once;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::{Error, ErrorKind};

/// How long the end of the process waits. A connect takes hundredths of a second where the server
/// answers, and a second or two where it or this machine is out of breath. Where it does not answer,
/// the end must not wait for it.
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// It waits in so many steps, so that a machine which stands still for seconds uses up one of them and
/// not all.
const STEPS: u32 = 30;

/// How long a thread is kept away from libpq while the process ends. The process is gone before
/// that; the limit is for whoever waits for the thread in an exit handler of his own.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

static STATE: Mutex<State> = Mutex::new(State {
    process: 0,
    under_way: 0,
    ending: false,
});
static CHANGED: Condvar = Condvar::new();

struct State {
    /// Whose state this is: a forked child has none of its parent's threads.
    process: u32,
    under_way: usize,
    ending: bool,
}

/// A connect that is under way, for which the end of the process waits.
#[derive(Debug)]
pub(super) struct Connect(());

impl Connect {
    /// # Errors
    ///
    /// If the process is ending.
    pub(super) fn begin() -> Result<Connect, Error> {
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
        Ok(Connect(()))
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        // Exit handlers run in the reverse order of their registration, and libpq's OpenSSL may
        // have registered its own during the first connect. Ours has to come before it.
        static AFTER: Once = Once::new();
        AFTER.call_once(wait_at_exit);
        let mut state = own_state();
        state.under_way = state.under_way.saturating_sub(1);
        CHANGED.notify_all();
        if state.ending {
            // Whoever has it may have to close it at once, since the pool is gone.
            hold(state);
        }
    }
}

/// The state of this process, and not of the one that it was forked from.
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
    // Nobody ends the end, so this is over with the process or after that time.
    CHANGED.wait_while_for(&mut state, |state| state.ending, LONGEST_HOLD);
}

fn wait_at_exit() {
    // It fails where there is no memory left, and then there is nothing to be done.
    let _ = shutdown_hooks::add_shutdown_hook(wait_for_connects);
}

extern "C" fn wait_for_connects() {
    // Not for ever: `exit` may have been called in a signal handler, or the process forked, while
    // another thread had the lock.
    let Some(mut state) = STATE.try_lock_for(LONGEST_WAIT) else {
        return;
    };
    if state.ending || state.process != process::id() {
        return;
    }
    state.ending = true;
    for _ in 0..STEPS {
        let step = LONGEST_WAIT / STEPS;
        CHANGED.wait_while_for(&mut state, |state| state.under_way > 0, step);
    }
}
