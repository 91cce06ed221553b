//! Log in to Amazon RDS with IAM tokens.

mod clock;
mod error;

pub use clock::{Clock, ManualClock, Moment};
pub use error::{Error, ErrorKind};
