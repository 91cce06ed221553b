//! Each pooled connection's own life, kept also while the pool is busy.
//!
//! r2d2 looks at `max_lifetime` when its reaper passes, and at idle connections only: under load a
//! connection would never be replaced, and a pool born at once would be replaced at once. Here every
//! connection has a span of its own, between 90 and 100 % of the maximum, and is retired when it is
//! checked in after the end of it; or after [`retire_all`](crate::retire_all), whatever its age.

mod handler;
mod lives;

pub(crate) use self::handler::{
    Drawing, LifetimeHandler, begin_connect, is_drawing, note_read_only, take_verdict,
};
pub(crate) use self::lives::Lifetimes;
