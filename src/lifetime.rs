//! Each pooled connection's own lifetime, which also applies while the pool is busy.
//!
//! r2d2 applies `max_lifetime` in its reaper only, and so to idle connections only. Under load it would
//! never replace a connection, and it would replace all connections of a pool at once if they were opened
//! at once. Here each connection has a lifetime between 90 and 100 % of the maximum and is retired at the
//! first check-in after it, or after [`retire_all`](crate::retire_all) at any age.

mod handler;
mod lifetimes;

pub(crate) use self::handler::{
    Drain, LifetimeHandler, begin_connect, is_draining, note_dropped_for, note_no_failure,
    take_no_failure, take_retirement, without_notes,
};
pub(crate) use self::lifetimes::{Lifetimes, idle_timeout};
