//! Any text as a connection string: no panic, no secret in an error, and every accepted string has the same meaning
//! as for libpq.

#![no_main]

mod libpq;

use diesel_rds_iam::config::{ConnectionSettings, Connections};
use diesel_rds_iam::diesel::PgConnection;
use diesel_rds_iam::{Endpoint, Error, PgConnectionManager};
use libfuzzer_sys::fuzz_target;

/// Marks a secret, wherever the fuzzer puts it.
const MARKER: &str = "marker";

/// The errors that quote a part of a connection string: a region, which a misplaced `@` or `/` cannot make of a
/// password, and the name of a parameter in a string without a password.
const QUOTES: [&str; 3] = [
    "no root certificates are carried for the region",
    "iam_region is",
    "which is no parameter of libpq",
];

fuzz_target!(|text: &str| {
    if text.starts_with('[') {
        return try_settings(text);
    }
    let builder = PgConnectionManager::builder(text);
    assert_silent(&format!("{builder:?}"));
    let built = builder.build();
    let configured = ConnectionSettings::new(text).manager::<PgConnection>();
    match (&built, &configured) {
        (Ok(manager), Ok(same)) => {
            assert_eq!(manager.endpoint(), same.endpoint());
            compare_with_libpq(text, manager.endpoint());
        }
        (Err(error), Err(same)) => {
            assert_eq!(error.to_string(), same.to_string());
            assert_error_is_silent(error);
        }
        _ => panic!("builder and settings disagree: {built:?}, {configured:?}"),
    }
});

/// As an application's settings, which hold several connection strings and the options beside them.
fn try_settings(text: &str) {
    let Ok(connections) = toml::from_str::<Connections>(text) else {
        return;
    };
    for settings in connections.connections.values() {
        assert_silent(&format!("{:?} {:?}", settings.url, settings.password));
        if let Err(error) = settings.manager::<PgConnection>() {
            assert_error_is_silent(&error);
        }
    }
}

fn compare_with_libpq(text: &str, endpoint: Option<&Endpoint>) {
    // libpq includes text after a URL in its last part.
    let options = match libpq::parse(trim(text)) {
        Ok(options) => options,
        // This libpq does not have this crate's parameters, nor those of later versions of libpq.
        Err(error) => {
            return assert!(
                error.contains("invalid connection option")
                    || error.contains("invalid URI query parameter"),
                "libpq: {error}"
            );
        }
    };
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let Some(endpoint) = endpoint else {
        assert_ne!(option("password"), "", "libpq sees no password");
        return;
    };
    assert_eq!(option("password"), "", "libpq sees a password");
    assert_eq!(endpoint.user(), option("user"));
    let host = option("host");
    let host = host.strip_suffix('.').unwrap_or(host);
    assert_eq!(endpoint.host(), host.to_ascii_lowercase());
    let port = match option("port").trim() {
        "" => 5432,
        port => port.parse().expect("a port that was accepted"),
    };
    assert_eq!(endpoint.port(), port);
}

/// Without the white space and byte order marks that this crate drops.
fn trim(text: &str) -> &str {
    let is_dropped = |c: char| c.is_whitespace() || c == '\u{feff}';
    let text = text.trim_start_matches(is_dropped);
    match text.starts_with("postgres") {
        true => text.trim_end_matches(is_dropped),
        false => text,
    }
}

fn assert_error_is_silent(error: &Error) {
    let text = error.to_string();
    if !QUOTES.iter().any(|quote| text.contains(quote)) {
        assert_silent(&text);
        assert_silent(&format!("{error:?}"));
    }
}

fn assert_silent(text: &str) {
    assert!(
        !text.to_ascii_lowercase().contains(MARKER),
        "a secret is in: {text}"
    );
}
