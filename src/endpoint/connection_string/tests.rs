mod foreign;
mod meaning;
mod tls;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::error::ErrorKind;

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";

fn parse(input: &str) -> ConnectionString {
    ConnectionString::parse(input).unwrap_or_else(|error| panic!("{input}: {error}"))
}

/// The error for `input`, from parsing or from the check that follows.
fn refusal(input: &str) -> Error {
    let check = || {
        let parsed = ConnectionString::parse(input)?;
        parsed.is_load_balanced()?;
        for server in parsed.servers()? {
            server.check()?;
            server.destination()?;
        }
        Ok(())
    };
    let error: Error = check().expect_err(input);
    assert_eq!(error.kind(), ErrorKind::Configuration, "{input}");
    error
}

fn parameters(parsed: &ConnectionString) -> Vec<(&str, &str)> {
    parsed.parameters().collect()
}

fn password(parsed: &ConnectionString) -> Option<&str> {
    match parsed.login() {
        Login::Password(password) => Some(password.expose()),
        _ => None,
    }
}

#[test]
fn a_url_and_keyword_value_pairs_parse_alike() {
    let url = format!("postgres://app@{HOST}:5433/shop?application_name=web&connect_timeout=5");
    let pairs = format!(
        "user=app host={HOST} port = 5433 dbname='shop' application_name=web connect_timeout=5"
    );
    for input in [url, pairs] {
        let parsed = parse(&input);
        parsed.check().unwrap();
        assert_eq!(
            parameters(&parsed),
            [
                ("user", "app"),
                ("host", HOST),
                ("port", "5433"),
                ("dbname", "shop"),
                ("application_name", "web"),
                ("connect_timeout", "5"),
            ]
        );
        assert_eq!(parsed.get("dbname"), Some("shop"));
        assert!(matches!(parsed.login(), Login::Iam));
        let endpoint = parsed.endpoint().unwrap();
        assert_eq!(
            (endpoint.host(), endpoint.port(), endpoint.user()),
            (HOST, 5433, "app")
        );
        assert_eq!(endpoint.region(), Some("eu-west-1"));
    }
}

#[test]
fn the_parts_of_a_url_are_found_as_libpq_finds_them() {
    for (input, expected) in [
        ("postgresql://", vec![]),
        ("postgres://h", vec![("host", "h")]),
        ("postgres://h/", vec![("host", "h")]),
        ("postgres://h:/d", vec![("host", "h"), ("dbname", "d")]),
        ("postgres://@h?", vec![("host", "h")]),
        ("postgres:///d", vec![("dbname", "d")]),
        ("postgres://u@/d", vec![("user", "u"), ("dbname", "d")]),
        ("postgres://u:@h", vec![("user", "u"), ("host", "h")]),
        (
            "postgres://[::1]:99/d",
            vec![("host", "::1"), ("port", "99"), ("dbname", "d")],
        ),
        (
            "postgres://%2Fvar%2Frun/d",
            vec![("host", "/var/run"), ("dbname", "d")],
        ),
        (
            "postgres:///d?host=/tmp&port=9&",
            vec![("dbname", "d"), ("host", "/tmp"), ("port", "9")],
        ),
        // The user ends at the first `@`, the database only at `?`, and `+` is a plus.
        (
            "postgres://u%40v@h/d/e@f?a=g+h",
            vec![
                ("user", "u@v"),
                ("host", "h"),
                ("dbname", "d/e@f"),
                ("a", "g+h"),
            ],
        ),
        // Decoded once.
        (
            "postgres://h/100%2525",
            vec![("host", "h"), ("dbname", "100%25")],
        ),
        ("postgres://h/?%61b=%63", vec![("host", "h"), ("ab", "c")]),
    ] {
        let mut parsed = parse(input);
        parsed.use_iam = Some(false);
        assert_eq!(parameters(&parsed), expected, "{input}");
    }
}

#[test]
fn the_parts_of_pairs_are_found_as_libpq_finds_them() {
    for (input, expected) in [
        ("", vec![]),
        (" \t\n", vec![]),
        ("a=b c=d", vec![("a", "b"), ("c", "d")]),
        ("a = 'b  c'\n d=e", vec![("a", "b  c"), ("d", "e")]),
        (r"a=b\ c d=\\e\'", vec![("a", "b c"), ("d", r"\e'")]),
        (r"a='it\'s \\ \n' b=''", vec![("a", r"it's \ n"), ("b", "")]),
        ("a='b'c=d", vec![("a", "b"), ("c", "d")]),
        (
            "a=b'c d=e\x0bf=g\x0c",
            vec![("a", "b'c"), ("d", "e"), ("f", "g")],
        ),
        ("a= b=c", vec![("a", "b=c")]),
        (r"a=b\", vec![("a", "b")]),
        ("a=%20 b=ü", vec![("a", "%20"), ("b", "ü")]),
    ] {
        let mut parsed = parse(input);
        parsed.use_iam = Some(false);
        assert_eq!(parameters(&parsed), expected, "{input}");
    }
}

#[test]
fn the_last_of_two_counts() {
    let parsed =
        parse("postgres://a:one@h1:1/d?host=h2&port=2&user=b&password=two&dbname=e&host=h3");
    assert_eq!(
        parameters(&parsed),
        [
            ("user", "b"),
            ("host", "h3"),
            ("port", "2"),
            ("dbname", "e")
        ]
    );
    assert_eq!(password(&parsed), Some("two"));
    let parsed = parse("iam_region=a sslmode=disable iam=off iam_region=b sslmode=require iam=on");
    assert_eq!(parsed.iam.region.as_deref(), Some("b"));
    assert_eq!(parsed.sslmode().unwrap(), Some(SslMode::Require));
    assert!(matches!(parsed.login(), Login::Iam));
}

#[test]
fn connection_strings_of_any_length_parse_without_panic() {
    let words = "x ".repeat(5_000);
    let pairs = "a='b' ".repeat(1_667);
    let escapes = format!("postgres://{}", "%41".repeat(3_330));
    let ats = format!("postgres://{}", "@".repeat(10_000));
    let slashes = "\\".repeat(10_000);
    for input in ["", "x", "=", "'", "%", "@", &words, &ats, &slashes] {
        refusal(input);
    }
    assert_eq!(parse(&pairs).get("a"), Some("b"));
    assert_eq!(parse(&escapes).get("host").map(str::len), Some(3_330));
}

#[test]
fn a_password_cannot_be_printed() {
    let parsed = parse("postgres://user:S3cr3t@h/d?sslpassword=0th3r");
    let text = format!("{parsed:?} {parsed:#?} {:?}", parsed.login());
    assert!(
        !text.contains("S3cr3t") && !text.contains("0th3r"),
        "{text}"
    );
}

/// FAULTS.md row 31: a password that contains `?` or `&`, unencoded.
#[test]
fn a_part_of_a_password_is_never_quoted_as_a_keyword() {
    for input in [
        "postgres://u:p@h?iam_S3cr3t=1",
        "postgres://u@h/d?password=p&iam_S3cr3t=1",
        "user=u host=h password=p iam_S3cr3t=1",
    ] {
        let text = refusal(input).to_string();
        assert!(!text.contains("S3cr3t"), "{text}");
        assert!(text.contains("iam_role_arn"), "{text}");
    }
}

/// Escapes exactly the characters that libpq's URLs require to be escaped in any part.
const NEEDED: &AsciiSet = &CONTROLS
    // At the end of a URL, white space is dropped.
    .add(b' ')
    .add(b'%')
    .add(b'@')
    .add(b'/')
    .add(b':')
    .add(b'?')
    .add(b',')
    .add(b'[')
    .add(b'&')
    .add(b'=');

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Any text that can be passed to libpq, whose strings end at a zero byte.
fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    // Characters with a meaning in one of the grammars occur more often than by chance.
    let special = select(" \t\n'\\%@:/?#&=+,[]\"25é€".chars().collect::<Vec<_>>());
    vec(prop_oneof![special, any::<char>()], length)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect())
}

proptest! {
    #[test]
    fn written_strings_parse_to_the_same_settings(
        user in text(1..20),
        secret in text(1..60),
        database in text(1..20),
        option in text(0..40),
        external_id in text(1..20),
    ) {
        prop_assume!([&user, &secret, &database, &external_id].iter().all(|part| !part.is_empty()));
        let url = |set: &'static AsciiSet| {
            let [user, secret, database, option, external_id] =
                [&user, &secret, &database, &option, &external_id]
                    .map(|part| utf8_percent_encode(part, set).to_string());
            format!(
                "postgres://{user}:{secret}@h:1/{database}?options={option}\
                 &iam_external_id={external_id}"
            )
        };
        let pairs = format!(
            "user={} password={} host=h port=1 dbname={} options={}iam_external_id={}",
            quoted(&user), quoted(&secret), quoted(&database), quoted(&option),
            quoted(&external_id),
        );
        for input in [url(NON_ALPHANUMERIC), url(NEEDED), pairs] {
            let parsed = parse(&input);
            prop_assert_eq!(password(&parsed), Some(secret.as_str()));
            prop_assert_eq!(parsed.iam.external_id.as_deref(), Some(external_id.as_str()));
            prop_assert_eq!(
                parameters(&parsed),
                [
                    ("user", user.as_str()),
                    ("host", "h"),
                    ("port", "1"),
                    ("dbname", database.as_str()),
                    ("options", option.as_str()),
                ]
            );
        }
    }

    #[test]
    fn no_input_panics_and_no_error_quotes_it(
        scheme in select(vec!["", "postgres://", "postgresql://"]),
        parts in vec(
            prop_oneof![
                3 => Just("S3cr3t".to_owned()),
                8 => select(vec![
                    ":", "@", "/", "?", "&", "=", "%", "'", "\\", " ", "[", "]", ",", "\0", "u", "1",
                    "user=", "password=", "host=", "hostaddr=", "port=", "dbname=", "sslmode=",
                    "sslrootcert=", "iam=", "iam_region=", "iam_host=", "iam_port=", "options=",
                    "ssl=true", "requiressl=",
                ]).prop_map(str::to_owned),
                1 => text(0..5),
            ],
            0..20,
        ),
    ) {
        let input = format!("{scheme}{}", parts.concat());
        match ConnectionString::parse(&input) {
            Ok(parsed) => {
                let debug = format!("{:?}", parsed);
                prop_assert!(!debug.contains("S3cr3t"), "{}", debug);
                for error in [parsed.check().err(), parsed.endpoint().err()].into_iter().flatten() {
                    prop_assert!(!error.to_string().contains("S3cr3t"), "{}", error);
                }
            }
            Err(error) => prop_assert!(!error.to_string().contains("S3cr3t"), "{}", error),
        }
    }
}
