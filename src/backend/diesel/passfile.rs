//! The password's way to libpq: a line of a file, as libpq's `.pgpass` has them.

use zeroize::Zeroizing;

use crate::error::Error;

/// PostgreSQL hangs up without a word on a longer one.
const LONGEST_PASSWORD: usize = 65_530;

/// One line that holds for every host, port, database and user.
///
/// # Errors
///
/// If libpq or PostgreSQL could not take the password.
pub(super) fn line(password: &str) -> Result<Zeroizing<String>, Error> {
    if password.len() > LONGEST_PASSWORD {
        return Err(Error::configuration(format!(
            "the password has {} bytes, and PostgreSQL takes {LONGEST_PASSWORD} at the most; a \
             shorter session token or password is needed",
            password.len()
        )));
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err(Error::configuration(
            "the password holds a line break or a zero byte, which libpq cannot read from a file; \
             change it",
        ));
    }
    let mut line = Zeroizing::new(String::with_capacity(2 * password.len() + 16));
    line.push_str("*:*:*:*:");
    for char in password.chars() {
        if matches!(char, ':' | '\\') {
            line.push('\\');
        }
        line.push(char);
    }
    line.push('\n');
    Ok(line)
}
