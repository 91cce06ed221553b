//! The syntax of libpq's connection strings: URLs and `keyword=value` pairs.
//!
//! It follows `conninfo_uri_parse_options` and `conninfo_parse` in libpq's `fe-connect.c`, so that a string
//! means the same here and there. A general URL parser does not fit: libpq's hosts can be percent-encoded
//! socket directories or lists, its user name ends before the first `@`, a `+` is not a space, and nothing is
//! normalised.
//!
//! No error here quotes the input, not even a keyword. A stray `@`, `/` or space in a password can move a part
//! of it to any place.

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::error::Error;

/// A decoded value. It may be the password, so it is wiped when it is dropped.
pub(super) type Value = Zeroizing<String>;

/// Calls `put` with every keyword and its value, in the order of `input`.
pub(super) fn parse(
    input: &str,
    put: impl FnMut(&str, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    if input.contains('\0') {
        return Err(Error::configuration(
            "the connection string holds a zero byte",
        ));
    }
    let url = ["postgresql://", "postgres://"]
        .iter()
        .find_map(|scheme| input.strip_prefix(scheme));
    match url {
        Some(rest) => parse_url(rest, put),
        None => parse_pairs(input, put),
    }
}

/// `[user[:password]@][host][:port][/dbname][?keyword=value[&...]]`
fn parse_url(
    rest: &str,
    mut put: impl FnMut(&str, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    // An empty part of a URL counts as missing.
    let put_part =
        |put: &mut dyn FnMut(&str, Value) -> Result<(), Error>, keyword: &str, raw: &str| {
            if raw.is_empty() {
                return Ok(());
            }
            put(keyword, decode(raw)?)
        };

    let (before, after) = cut(rest, &['@', '/']);
    let rest = match after.strip_prefix('@') {
        Some(after) => {
            let (user, password) = match before.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (before, None),
            };
            put_part(&mut put, "user", user)?;
            if let Some(password) = password {
                put("password", decode(password)?)?;
            }
            after
        }
        None => rest,
    };

    let (hosts, ports, rest) = split_hosts(rest)?;
    put_part(&mut put, "host", &hosts)?;
    put_part(&mut put, "port", &ports)?;

    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    put_part(&mut put, "dbname", path.strip_prefix('/').unwrap_or(path))?;
    parse_query(query, put)
}

/// Splits off `host[:port][,...]`, and returns the lists of hosts and of ports as libpq's keywords take them.
fn split_hosts(mut rest: &str) -> Result<(String, String, &str), Error> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let (host, after) = match rest.strip_prefix('[') {
            Some(rest) => split_ipv6(rest)?,
            None => cut(rest, &[':', '/', '?', ',']),
        };
        if host.contains('@') {
            return Err(Error::configuration(
                "the URL holds an `@` where its host should be: write %40 for an `@` in a user name \
                 or password",
            ));
        }
        let (port, after) = match after.strip_prefix(':') {
            Some(after) => cut(after, &['/', '?', ',']),
            None => ("", after),
        };
        hosts.push(host);
        ports.push(port);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                let ports = match ports.iter().all(|port| port.is_empty()) {
                    true => String::new(),
                    false => ports.join(","),
                };
                return Ok((hosts.join(","), ports, after));
            }
        }
    }
}

/// Splits the text after `[` into the address and the text after `]`.
fn split_ipv6(rest: &str) -> Result<(&str, &str), Error> {
    rest.split_once(']')
        .filter(|(address, rest)| {
            !address.is_empty() && (rest.is_empty() || rest.starts_with([':', '/', '?', ',']))
        })
        .ok_or_else(|| {
            Error::configuration(
                "the URL's host begins with `[` and is not an IPv6 address in brackets",
            )
        })
}

fn parse_query(
    query: &str,
    mut put: impl FnMut(&str, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    // As in libpq, a URL may end with `?`, and its last parameter with `&`.
    if query.is_empty() {
        return Ok(());
    }
    let query = query.strip_suffix('&').unwrap_or(query);
    for pair in query.split('&') {
        let (keyword, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::configuration("a parameter in the URL has no `=`"))?;
        let keyword = decode(keyword)?;
        check_keyword(&keyword)?;
        if value.contains('=') {
            return Err(Error::configuration(
                "the value of a parameter in the URL holds a `=`: write it as %3D",
            ));
        }
        put(&keyword, decode(value)?)?;
    }
    Ok(())
}

/// Decodes the escapes in `raw`, once.
fn decode(raw: &str) -> Result<Value, Error> {
    for escape in raw.split('%').skip(1) {
        let digits = escape.as_bytes().get(..2).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) || digits == b"00" {
            return Err(Error::configuration(
                "the URL has a `%` that does not begin an escape such as %20, or it has %00: write \
                 %25 for a `%`",
            ));
        }
    }
    // As long as the input, so that no half-decoded password is left behind by a reallocation.
    let mut bytes = Zeroizing::new(Vec::with_capacity(raw.len()));
    bytes.extend(percent_decode_str(raw));
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::configuration(
            "the URL is not UTF-8 once its escapes are decoded",
        )),
    }
}

/// Parses `keyword = value` pairs separated by spaces. A value with spaces is quoted.
fn parse_pairs(
    input: &str,
    mut put: impl FnMut(&str, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rest = input.trim_start_matches(is_space);
    while !rest.is_empty() {
        let at = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (keyword, after) = rest.split_at(at);
        let after = after
            .trim_start_matches(is_space)
            .strip_prefix('=')
            .ok_or_else(|| {
                Error::configuration(
                    "the connection string is neither a URL that begins with postgres:// nor pairs \
                     of keyword=value: a word in it has no `=`",
                )
            })?;
        check_keyword(keyword)?;
        let (value, after) = read_value(after.trim_start_matches(is_space))?;
        put(keyword, value)?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(())
}

/// Splits `text` into the value at its start and the rest.
fn read_value(text: &str) -> Result<(Value, &str), Error> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = Zeroizing::new(String::with_capacity(text.len()));
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            '\'' if quoted.is_some() => return Ok((value, chars.as_str())),
            c if quoted.is_none() && is_space(c) => return Ok((value, chars.as_str())),
            c => value.push(c),
        }
    }
    if quoted.is_some() {
        return Err(Error::configuration(
            "a value in the connection string begins with a quote and has none at its end",
        ));
    }
    Ok((value, ""))
}

/// Whether `text` has the form of all libpq keywords. libpq's errors quote unknown keywords, and a part of a
/// password may be in the place of one.
fn check_keyword(keyword: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if keyword.is_empty() || !keyword.bytes().all(fits) {
        return Err(Error::configuration(
            "the connection string has a `=` without a keyword before it: keywords are letters, \
             digits and underscores, and a value with spaces stands between single quotes",
        ));
    }
    Ok(())
}

/// Splits `text` before the first of `ends`.
fn cut<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// C's `isspace`, which libpq uses to split pairs.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}
