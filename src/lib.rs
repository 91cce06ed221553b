//! Log in to Amazon RDS with IAM tokens.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "nothing asks the cache for anything yet")
)]
mod cache;
mod clock;
mod error;

pub use clock::{Clock, ManualClock, Moment};
pub use error::{Error, ErrorKind};
