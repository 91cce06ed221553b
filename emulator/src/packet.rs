//! Reads and writes the four packets of a login.
//!
//! All other packets are passed on unread. Nothing in this file panics, whatever the bytes are.

/// The maximum size of a start-up packet in PostgreSQL, without its length field.
pub const MAXIMUM_STARTUP: usize = 10_000;

/// The longest name that PostgreSQL keeps, in bytes: `NAMEDATALEN - 1`.
pub const MAXIMUM_NAME: usize = 63;

/// The maximum size of a password message in PostgreSQL, with its length field.
pub const MAXIMUM_PASSWORD: usize = 65_535;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The first packet of a connection, or the first one after a request for encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initial {
    /// A request for TLS.
    Tls,
    /// A request for GSSAPI encryption.
    Gss,
    /// A request to cancel the statement of another connection.
    Cancel,
    /// A request for a session.
    Startup(Startup),
}

/// A start-up packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The database user, truncated to [`MAXIMUM_NAME`] bytes.
    pub user: Vec<u8>,
    /// The database, truncated to [`MAXIMUM_NAME`] bytes. Default: the user's name.
    pub database: Vec<u8>,
    /// Whether the client sends command-line options for the backend.
    pub has_options: bool,
}

/// PostgreSQL's reaction to a malformed packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It closes the connection without a message.
    HangUp,
    /// It sends this SQLSTATE and message.
    Answer(&'static str, String),
}

/// Returns how many bytes follow the four bytes of a start-up packet's length.
///
/// # Errors
///
/// [`Malformed::HangUp`] if PostgreSQL does not accept that length.
pub fn startup_length(header: [u8; 4]) -> Result<usize, Malformed> {
    let length = usize::try_from(u32::from_be_bytes(header)).map_err(|_| Malformed::HangUp)?;
    match length.checked_sub(4) {
        Some(rest) if (4..=MAXIMUM_STARTUP).contains(&rest) => Ok(rest),
        _ => Err(Malformed::HangUp),
    }
}

/// Reads a packet whose length has been read already.
///
/// # Errors
///
/// [`Malformed::Answer`] with the error that PostgreSQL sends for such a packet.
pub fn parse_initial(body: &[u8]) -> Result<Initial, Malformed> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or(Malformed::HangUp)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST => Ok(Initial::Tls),
        GSSENC_REQUEST => Ok(Initial::Gss),
        CANCEL_REQUEST => Ok(Initial::Cancel),
        version if version >> 16 == 3 => parse_startup(rest).map(Initial::Startup),
        version => Err(unsupported_version(version)),
    }
}

/// PostgreSQL's error for a packet that requests an unsupported protocol.
pub fn unsupported(packet: &[u8]) -> Malformed {
    match packet
        .split_at_checked(4)
        .and_then(|(_, body)| body.first_chunk::<4>())
    {
        Some(code) => unsupported_version(u32::from_be_bytes(*code)),
        None => Malformed::HangUp,
    }
}

/// Returns how many bytes of a password message follow these five.
///
/// # Errors
///
/// As in PostgreSQL: the connection is closed if the message is too long, and another message is an error.
pub fn password_length(header: [u8; 5]) -> Result<usize, Malformed> {
    let [kind, length @ ..] = header;
    if kind != b'p' {
        return Err(Malformed::Answer(
            "08P01",
            format!("expected password response, got message type {kind}"),
        ));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed::HangUp)?;
    if length > MAXIMUM_PASSWORD {
        return Err(Malformed::HangUp);
    }
    length.checked_sub(4).ok_or(Malformed::HangUp)
}

/// Returns the password in the body of a password message.
///
/// # Errors
///
/// PostgreSQL's error if the body is not a zero-terminated string, or an empty one.
pub fn parse_password(body: &[u8]) -> Result<&[u8], Malformed> {
    match body.split_last() {
        Some((0, [])) => Err(Malformed::Answer(
            "28P01",
            "empty password returned by client".to_owned(),
        )),
        Some((0, password)) if !password.contains(&0) => Ok(password),
        _ => Err(Malformed::Answer(
            "08P01",
            "invalid password packet size".to_owned(),
        )),
    }
}

/// The request for a cleartext password, as sent for PAM.
pub fn password_request() -> [u8; 9] {
    [b'R', 0, 0, 0, 8, 0, 0, 0, 3]
}

/// A fatal error, the last message to a client.
pub fn fatal(severity: &str, sqlstate: &str, message: &str, routine: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + 64);
    for (field, text) in [
        (b'S', severity),
        (b'V', "FATAL"),
        (b'C', sqlstate),
        (b'M', message),
        (b'F', "auth.c"),
        (b'R', routine),
    ] {
        body.push(field);
        // A zero byte would end the field. Names from a start-up packet contain none; this is a second guard.
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = vec![b'E'];
    packet.extend(length.to_be_bytes());
    packet.extend(body);
    packet
}

fn unsupported_version(version: u32) -> Malformed {
    Malformed::Answer(
        "0A000",
        format!(
            "unsupported frontend protocol {}.{}: server supports 3.0 to 3.0",
            version >> 16,
            version & 0xffff,
        ),
    )
}

fn parse_startup(mut rest: &[u8]) -> Result<Startup, Malformed> {
    let invalid = || {
        Malformed::Answer(
            "08P01",
            "invalid startup packet layout: expected terminator as last byte".to_owned(),
        )
    };
    let mut startup = Startup::default();
    // The same steps as in PostgreSQL's ProcessStartupPacket, which checks only that one byte is left.
    while let Some((name, after)) = c_string(rest)
        && !name.is_empty()
        && !after.is_empty()
    {
        let (value, after) = c_string(after).ok_or_else(invalid)?;
        // PostgreSQL accepts repeated parameters, and uses the last value.
        match name {
            b"user" => startup.user = value.to_vec(),
            b"database" => startup.database = value.to_vec(),
            b"options" => startup.has_options = true,
            _ => {}
        }
        rest = after;
    }
    if rest.len() != 1 {
        return Err(invalid());
    }
    if startup.user.is_empty() {
        return Err(Malformed::Answer(
            "28000",
            "no PostgreSQL user name specified in startup packet".to_owned(),
        ));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    // PostgreSQL truncates both names by bytes, even within a character, before it looks up the role. Only 17.0
    // to 17.2 reject longer names.
    startup.user.truncate(MAXIMUM_NAME);
    startup.database.truncate(MAXIMUM_NAME);
    Ok(startup)
}

/// Returns the string up to the next zero byte, and the rest.
fn c_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((text, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn startup(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in pairs {
            body.extend(name.bytes().chain([0]));
            body.extend(value.bytes().chain([0]));
        }
        body.push(0);
        body
    }

    #[test]
    fn a_start_up_packet_gives_user_database_and_options() {
        let body = startup(&[("user", "app"), ("database", "shop"), ("options", "-c a=b")]);
        let Ok(Initial::Startup(parsed)) = parse_initial(&body) else {
            panic!("not a start-up packet");
        };
        assert_eq!(parsed.user, b"app");
        assert_eq!(parsed.database, b"shop");
        assert!(parsed.has_options);

        let Ok(Initial::Startup(parsed)) = parse_initial(&startup(&[("user", "app")])) else {
            panic!("not a start-up packet");
        };
        assert_eq!(parsed.database, b"app", "the user's name is the default");
        assert!(!parsed.has_options);
    }

    #[test]
    fn malformed_packets_get_the_error_of_postgresql() {
        let no_user = parse_initial(&startup(&[("database", "shop")]));
        assert!(matches!(no_user, Err(Malformed::Answer("28000", _))));
        let cut = startup(&[("user", "app")]);
        let cut = parse_initial(&cut[..cut.len() - 1]);
        assert!(matches!(cut, Err(Malformed::Answer("08P01", _))));
        // Any byte ends the packet, if it is the last one.
        let mut other = startup(&[("user", "app")]);
        *other.last_mut().unwrap() = b'u';
        assert_eq!(
            parse_initial(&other),
            parse_initial(&startup(&[("user", "app")]))
        );
        let old = parse_initial(&[0, 2, 0, 0]);
        assert!(matches!(old, Err(Malformed::Answer("0A000", _))));
    }

    #[test]
    fn the_last_of_repeated_parameters_is_used() {
        let body = startup(&[
            ("user", "app"),
            ("database", "a"),
            ("user", "boss"),
            ("database", "b"),
        ]);
        let Ok(Initial::Startup(parsed)) = parse_initial(&body) else {
            panic!("not a start-up packet");
        };
        assert_eq!(
            (&*parsed.user, &*parsed.database),
            (&b"boss"[..], &b"b"[..])
        );
    }

    #[test]
    fn names_are_cut_to_63_bytes() {
        let name = "x".repeat(63);
        let body = startup(&[("user", &format!("{name}\u{e9}"))]);
        let Ok(Initial::Startup(parsed)) = parse_initial(&body) else {
            panic!("not a start-up packet");
        };
        assert_eq!(parsed.user, name.as_bytes());
        assert_eq!(parsed.database, name.as_bytes());
    }

    #[test]
    fn the_longest_password_is_65530_bytes() {
        let header = |password: u32| {
            let length = (password + 5).to_be_bytes();
            [b'p', length[0], length[1], length[2], length[3]]
        };
        assert_eq!(password_length(header(65_530)), Ok(65_531));
        assert_eq!(password_length(header(65_531)), Err(Malformed::HangUp));
        assert!(matches!(
            parse_password(b"\0"),
            Err(Malformed::Answer("28P01", _))
        ));
        assert!(matches!(
            parse_password(b"a\0b\0"),
            Err(Malformed::Answer("08P01", _))
        ));
        assert_eq!(parse_password(b"token\0"), Ok(&b"token"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, four: [u8; 4], five: [u8; 5]) {
            let _ = startup_length(four);
            let _ = password_length(five);
            let _ = parse_initial(&body);
            let _ = parse_password(&body);
            let mut known = vec![0, 3, 0, 0];
            known.extend(&body);
            let _ = parse_initial(&known);
        }

        #[test]
        fn any_user_and_database_are_read_back(
            user in "[^\0]{1,80}", database in "[^\0]{0,80}",
        ) {
            let body = startup(&[("user", &user), ("database", &database)]);
            let Ok(Initial::Startup(parsed)) = parse_initial(&body) else {
                panic!("not a start-up packet");
            };
            let cut = |name: &str| name.bytes().take(MAXIMUM_NAME).collect::<Vec<u8>>();
            prop_assert_eq!(&parsed.user, &cut(&user));
            let expected = if database.is_empty() { &user } else { &database };
            prop_assert_eq!(&parsed.database, &cut(expected));
        }

        #[test]
        fn the_length_field_of_an_error_is_correct(message: String) {
            let packet = fatal("FATAL", "28000", &message, "auth_failed");
            let length = u32::from_be_bytes(packet[1..5].try_into()?);
            prop_assert_eq!(usize::try_from(length)?, packet.len() - 1);
            prop_assert_eq!(packet.iter().filter(|byte| **byte == 0).count()
                - packet[1..5].iter().filter(|byte| **byte == 0).count(), 7);
        }
    }
}
