//! Log in to Amazon RDS with IAM tokens.

mod clock;
mod endpoint;
mod error;
mod roots;

pub use clock::{Clock, ManualClock, Moment};
pub use endpoint::{Endpoint, Engine, SslMode};
pub use error::{Error, ErrorKind};
