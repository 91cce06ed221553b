//! PostgreSQL's limits for a password.

use crate::error::Error;

/// PostgreSQL closes the connection without a message if a password is longer.
const LONGEST: usize = 65_530;

/// # Errors
///
/// If PostgreSQL cannot accept the password.
pub(super) fn check(password: &str) -> Result<(), Error> {
    if password.len() > LONGEST {
        return Err(Error::configuration(format!(
            "the password has {} bytes, and PostgreSQL takes {LONGEST} at the most; a shorter \
             session token or password is needed",
            password.len()
        )));
    }
    if password.contains('\0') {
        return Err(Error::configuration(
            "the password holds a zero byte, which PostgreSQL cannot take; change it",
        ));
    }
    Ok(())
}
