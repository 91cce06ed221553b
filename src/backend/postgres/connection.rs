//! A client that can be dropped in any context, including asynchronous code.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::thread;

use postgres::Client;

use crate::runtime;

const THREAD_NAME: &str = "rds-iam-closer";

const NOT_GONE: &str = "taken only at the end";

/// A connection of a [`PostgresConnectionManager`](crate::PostgresConnectionManager), which dereferences to the
/// crate `postgres`'s [`Client`].
///
/// A `Client` that is dropped in asynchronous code panics, and several of them, such as those of a pool, end
/// the process. This one can be dropped in any context. On a thread with a tokio runtime, including the threads
/// of `spawn_blocking`, it is closed on another thread, and the drop does not wait for that.
pub struct PostgresConnection {
    /// `None` only during a drop or `into_inner`.
    client: Option<Client>,
    /// Set if the server does not respond: closing would wait for it, and so it is done elsewhere.
    pub(super) is_silent: bool,
}

impl PostgresConnection {
    pub(super) fn new(client: Client) -> PostgresConnection {
        PostgresConnection {
            client: Some(client),
            is_silent: false,
        }
    }

    /// Returns the client, which panics if it is dropped in asynchronous code.
    #[expect(
        clippy::expect_used,
        reason = "only `into_inner` and drop take it, and nothing comes after them"
    )]
    pub fn into_inner(mut self) -> Client {
        self.client.take().expect(NOT_GONE)
    }
}

impl Deref for PostgresConnection {
    type Target = Client;

    #[expect(
        clippy::expect_used,
        reason = "only `into_inner` and drop take it, and nothing comes after them"
    )]
    fn deref(&self) -> &Client {
        self.client.as_ref().expect(NOT_GONE)
    }
}

impl DerefMut for PostgresConnection {
    #[expect(
        clippy::expect_used,
        reason = "only `into_inner` and drop take it, and nothing comes after them"
    )]
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect(NOT_GONE)
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && (self.is_silent || runtime::may_forbid_blocking())
        {
            close_elsewhere(client);
        }
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection").finish_non_exhaustive()
    }
}

fn close_elsewhere(client: Client) {
    // If no thread can be started, the closure is dropped here, where the client must not be dropped.
    let client = ManuallyDrop::new(client);
    let closing = thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || drop(ManuallyDrop::into_inner(client)));
    if let Err(error) = closing {
        tracing::warn!(%error, "no thread to close a connection on; it stays open");
    }
}
