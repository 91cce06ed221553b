//! Passes the password to libpq as a line of a password file (`.pgpass`).

use zeroize::Zeroizing;

use crate::backend::password;
use crate::error::Error;

/// Returns one line that applies to every host, port, database and user.
///
/// # Errors
///
/// If libpq or PostgreSQL cannot read the password.
pub(super) fn line(secret: &str) -> Result<Zeroizing<String>, Error> {
    password::check(secret)?;
    if secret.contains(['\n', '\r']) {
        return Err(Error::configuration(
            "the password holds a line break, which libpq cannot read from a file; change it",
        ));
    }
    let mut line = Zeroizing::new(String::with_capacity(2 * secret.len() + 16));
    line.push_str("*:*:*:*:");
    for char in secret.chars() {
        if matches!(char, ':' | '\\') {
            line.push('\\');
        }
        line.push(char);
    }
    line.push('\n');
    Ok(line)
}
