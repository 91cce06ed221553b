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

/// The refusal of `input`, at parsing or at the check that follows.
fn refusal(input: &str) -> Error {
    let error = ConnectionString::parse(input)
        .and_then(|parsed| parsed.check())
        .expect_err(input);
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
fn a_url_and_pairs_say_the_same() {
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
fn a_string_says_how_to_log_in() {
    assert_eq!(
        password(&parse("postgres://u:p%20w@localhost")),
        Some("p w")
    );
    assert_eq!(
        password(&parse("postgres://u@localhost?password=pw")),
        Some("pw")
    );
    assert_eq!(
        password(&parse("user=u password='p w' iam=off")),
        Some("p w")
    );
    assert!(matches!(parse("user=u iam=off").login(), Login::None));
    assert!(matches!(parse("user=u password=''").login(), Login::Iam));
    assert!(matches!(parse("postgres://u:@h").login(), Login::Iam));
}

#[test]
fn a_demand_for_iam_is_not_met_by_a_password() {
    let error = refusal(&format!("postgres://u:pw@{HOST}?iam=on"));
    assert!(error.to_string().contains("password"), "{error}");

    let mut parsed = parse(&format!("postgres://u:pw@{HOST}"));
    parsed.check().unwrap();
    parsed.require_iam();
    parsed.check().unwrap_err();

    let mut parsed = parse(&format!("postgres://u@{HOST}?iam=on"));
    parsed.supply_password();
    parsed.check().unwrap_err();
}

#[test]
fn a_password_of_the_builders_wins_and_wants_tls() {
    for input in [
        format!("postgres://u@{HOST}"),
        format!("postgres://u:pw@{HOST}"),
        format!("postgres://u@{HOST}?iam=off"),
    ] {
        let mut parsed = parse(&input);
        parsed.supply_password();
        parsed.check().unwrap();
        assert!(matches!(parsed.login(), Login::Supplied), "{input}");
        assert_eq!(parsed.sslmode().unwrap(), Some(SslMode::VerifyFull));
        assert!(parameters(&parsed).contains(&("port", "5432")), "{input}");
        parsed.set_sslmode(SslMode::Disable);
        parsed.check().unwrap();
        assert_eq!(parsed.sslmode().unwrap(), Some(SslMode::Disable));
    }
    // Over a Unix socket there is no TLS to ask for.
    let mut parsed = parse("user=u host=/run/postgresql");
    parsed.supply_password();
    parsed.check().unwrap();
    assert_eq!(parsed.sslmode().unwrap(), None);
}

#[test]
fn a_piece_of_a_password_does_not_pass_for_a_keyword() {
    let error = refusal("host=h user=u password=ab cd=ef");
    assert!(!error.to_string().contains("cd"), "{error}");
    // Without a password it may be a keyword of a libpq to come.
    parse("host=h user=u cd=ef").check().unwrap();
}

#[test]
fn nothing_of_ours_reaches_libpq() {
    let parsed = parse(&format!(
        "postgres://u@{HOST}/d?iam=on&iam_region=eu-west-2&iam_profile=p&iam_role_arn=r\
         &iam_external_id=e&iam_session_name=s&iam_host=real.example&iam_port=1&sslmode=require\
         &sslrootcert=/ca.pem&requiressl=0&sslmode=verify-ca"
    ));
    parsed.check().unwrap();
    assert_eq!(
        parameters(&parsed),
        [
            ("user", "u"),
            ("host", HOST),
            ("dbname", "d"),
            ("port", "5432")
        ]
    );
    let iam = &parsed.iam;
    assert_eq!(
        [
            iam.region.as_deref(),
            iam.profile.as_deref(),
            iam.role_arn.as_deref(),
            iam.external_id.as_deref(),
            iam.session_name.as_deref(),
            iam.host.as_deref(),
        ],
        ["eu-west-2", "p", "r", "e", "s", "real.example"].map(Some)
    );
    assert_eq!(iam.port, Some(1));
    assert_eq!(parsed.sslmode().unwrap(), Some(SslMode::VerifyCa));
    assert_eq!(parsed.sslrootcert(), Some("/ca.pem"));

    let parsed = parse("postgres://u:secret@localhost/d");
    assert!(parsed.parameters().all(|(_, value)| value != "secret"));
}

#[test]
fn pgport_cannot_lead_elsewhere_than_to_the_signed_port() {
    for port in ["", "port=''"] {
        let parsed = parse(&format!("host={HOST} {port} user=u"));
        assert_eq!(
            parameters(&parsed),
            [("host", HOST), ("user", "u"), ("port", "5432")]
        );
        assert_eq!(parsed.endpoint().unwrap().port(), 5432);
    }
    // libpq lets a number have spaces around it.
    let parsed = parse(&format!("host={HOST} port=' 5433 ' user=u"));
    assert_eq!(parsed.endpoint().unwrap().port(), 5433);
    let parsed = parse("host=localhost user=u iam=off");
    assert_eq!(parameters(&parsed), [("host", "localhost"), ("user", "u")]);
}

#[test]
fn a_dot_at_the_end_is_not_in_the_certificate() {
    let parsed = parse(&format!("host={HOST}. user=u"));
    assert_eq!(parameters(&parsed)[0], ("host", HOST));
    assert_eq!(parsed.endpoint().unwrap().host(), HOST);
    let parsed = parse(&format!("host={HOST}. user=u iam=off"));
    assert_eq!(
        parameters(&parsed)[0],
        ("host", format!("{HOST}.").as_str())
    );
}

#[test]
fn the_machines_own_roots_can_be_asked_for() {
    parse("user=u host=h sslrootcert=system").check().unwrap();
    parse("user=u password=p sslrootcert=system")
        .check()
        .unwrap();
    assert_eq!(
        parse("sslrootcert=/ca.pem sslrootcert=''").sslrootcert(),
        None
    );
    let mut parsed = parse("user=u host=h sslrootcert=/ca.pem");
    parsed.set_sslrootcert("system");
    assert_eq!(parsed.sslrootcert(), Some("system"));
}

#[test]
fn another_name_than_the_dialled_one_is_signed() {
    // A tunnel: the certificate is checked for `host`, the address dialled is `hostaddr`.
    let parsed = parse(&format!(
        "host={HOST} hostaddr=127.0.0.1 port=15432 iam_port=5432 user=u"
    ));
    parsed.check().unwrap();
    let endpoint = parsed.endpoint().unwrap();
    assert_eq!((endpoint.host(), endpoint.port()), (HOST, 5432));
    assert_eq!(
        parameters(&parsed),
        [
            ("host", HOST),
            ("hostaddr", "127.0.0.1"),
            ("port", "15432"),
            ("user", "u")
        ]
    );

    // An alias, which the builder's settings override in turn.
    let mut parsed = parse(&format!(
        "postgres://u@db.example.com:6000?iam_host={HOST}."
    ));
    let endpoint = parsed.endpoint().unwrap();
    assert_eq!((endpoint.host(), endpoint.port()), (HOST, 6000));
    assert_eq!(endpoint.region(), Some("eu-west-1"));
    assert_eq!(parsed.get("host"), Some("db.example.com"));
    parsed.iam.host = Some("other.example.com".into());
    parsed.iam.region = Some("ap-south-1".into());
    parsed.set_user("v");
    let endpoint = parsed.endpoint().unwrap();
    assert_eq!(
        (endpoint.host(), endpoint.user(), endpoint.region()),
        ("other.example.com", "v", Some("ap-south-1"))
    );
    assert_eq!(parsed.get("user"), Some("v"));
}

#[test]
fn an_address_or_an_alias_has_no_region_until_one_is_given() {
    for host in ["10.0.0.5", "::1", "localhost", "db.internal.example.com"] {
        let endpoint = parse(&format!("host={host} user=u")).endpoint().unwrap();
        assert_eq!((endpoint.host(), endpoint.region()), (host, None));
        let endpoint = parse(&format!("host={host} user=u iam_region=EU-west-1"))
            .endpoint()
            .unwrap();
        assert_eq!(endpoint.region(), Some("eu-west-1"));
    }
    // What is said outright counts more than the host name.
    let endpoint = parse(&format!("host={HOST} user=u iam_region=eu-west-2")).endpoint();
    assert_eq!(endpoint.unwrap().region(), Some("eu-west-2"));
}

#[test]
fn a_token_is_never_sent_in_clear() {
    for mode in ["disable", "allow", "prefer"] {
        for input in [
            format!("postgres://u@{HOST}?sslmode={mode}"),
            format!("user=u host={HOST} sslmode={mode} iam=on"),
        ] {
            let error = refusal(&input);
            assert!(error.to_string().contains("sslmode"), "{error}");
        }
        let mut parsed = parse(&format!("postgres://u@{HOST}"));
        parsed.set_sslmode(SslMode::from_name(mode).unwrap());
        parsed.check().unwrap_err();

        // Without a token that is the user's to say.
        for input in [
            format!("sslmode={mode} iam=off"),
            format!("sslmode={mode} password=p"),
        ] {
            let chosen = parse(&input).sslmode().unwrap().unwrap();
            assert_eq!(chosen.as_str(), mode);
        }
    }
    // Neither libpq's old keyword nor JDBC's slips past.
    refusal(&format!("user=u host={HOST} sslmode=require requiressl=0"));
    let jdbc = parse(&format!("postgres://u@{HOST}?ssl=true"));
    assert_eq!(jdbc.sslmode().unwrap(), Some(SslMode::Require));

    let default = parse(&format!("postgres://u@{HOST}"));
    assert_eq!(default.sslmode().unwrap(), Some(SslMode::VerifyFull));
    for mode in ["require", "verify-ca", "verify-full"] {
        let asked = parse(&format!("postgres://u@{HOST}?sslmode={mode}"));
        asked.check().unwrap();
        assert_eq!(asked.sslmode().unwrap().unwrap().as_str(), mode);
    }
    assert_eq!(parse("postgres://u:p@h").sslmode().unwrap(), None);
    assert_eq!(parse("postgres://u@h?iam=off").sslmode().unwrap(), None);
}

#[test]
fn an_error_names_the_knob() {
    for (input, knob) in [
        ("host=h", "user"),
        ("user=u", "host"),
        ("user=u hostaddr=10.0.0.5", "host"),
        ("user=u iam_host=h", "host"),
        ("user=u host=/var/run/postgresql", "Unix socket"),
        ("user=u host=@abstract iam_host=h", "Unix socket"),
        ("user=u host='a b'", "host"),
        ("user=u host=h iam_host='h/?a=b'", "iam_host"),
        ("user=u host=h port=0", "port"),
        ("iam=off port=0", "port"),
        ("user=u host=h port=65536", "port"),
        ("user=u host=h port=five", "port"),
        ("user=u host=h iam_port=", "iam_port"),
        ("user=u host=h iam_region=''", "iam_region"),
        ("user=u host=h iam_region=eu/west", "iam_region"),
        ("user=u host=h iam_profile=''", "iam_profile"),
        ("user=u host=h iam_role=x", "iam_role"),
        ("user=u host=h iam=yes", "iam is"),
        ("user=u host=h sslmode=on", "sslmode"),
        ("user=u host=h sslmode=''", "sslmode"),
        (
            "user=u host=h sslrootcert=system sslmode=verify-ca",
            "verify-full",
        ),
        ("iam=off sslrootcert=system sslmode=require", "verify-full"),
        ("user=u host=h passfile=/p", "passfile"),
        ("user=u host=h service=s", "service"),
        ("user=u host=h servicefile=s", "servicefile"),
        ("user=u host=h,i", "several hosts"),
        ("user=u host=h port=1,2", "several hosts"),
        ("user=u host=h hostaddr=1.1.1.1,2.2.2.2", "several hosts"),
        ("postgres://u@h:1,i:2/d", "several hosts"),
        ("postgres://u@h,i/d", "several hosts"),
        ("postgres://u@h?host=h,i", "several hosts"),
        ("postgres://u@[::1],i/d", "several hosts"),
        ("postgres://u@[::1/d", "IPv6"),
        ("postgres://u@[]/d", "IPv6"),
        ("postgres://u@[::1]x/d", "IPv6"),
        ("postgres://u:p@q@h/d", "%40"),
        ("postgres://u:p/q@h/d", "%2F"),
        ("postgres://u@h/%", "%25"),
        ("postgres://u@h/%2", "%25"),
        ("postgres://u@h/%zz", "%25"),
        ("postgres://u@h/%€", "%25"),
        ("postgres://u@h/%00", "%00"),
        ("postgres://u@h/%ff", "UTF-8"),
        ("postgres://u@h?a", "no `=`"),
        ("postgres://u@h?a=b&&c=d", "no `=`"),
        ("postgres://u@h?&", "no `=`"),
        ("postgres://u@h?a=b=c", "%3D"),
        ("postgres://u@h?=b", "keyword"),
        ("user=u host='h", "quote"),
        ("user=u host=h password=p q", "keyword=value"),
        ("user=u host=h password=p =q", "keyword"),
        ("user=u p@ss=q", "keyword"),
        ("mydb", "postgres://"),
        ("Postgres://u@h/d", "postgres://"),
        ("mysql://u:p@h/d?a=b", "keyword"),
        ("user=u\0 host=h", "zero byte"),
        ("\0", "zero byte"),
    ] {
        let text = refusal(input).to_string();
        assert!(text.contains(knob), "{input:?} was refused so: {text}");
        assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

#[test]
fn what_would_take_the_tokens_place_is_allowed_without_iam() {
    let parsed = parse("user=u passfile=/p service=s iam=off");
    parsed.check().unwrap();
    assert_eq!(
        parameters(&parsed),
        [("user", "u"), ("passfile", "/p"), ("service", "s")]
    );
}

#[test]
fn long_and_short_strings_end_well() {
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

/// FAULTS.md row 31: a password's own `?` or `&`, which nobody has encoded.
#[test]
fn a_piece_of_a_password_is_no_keyword_that_is_repeated() {
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

/// What libpq's URLs need escaped, wherever it stands, and no more.
const NEEDED: &AsciiSet = &CONTROLS
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

/// Any text that libpq can be told, which ends strings with a zero byte.
fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    // What has a meaning in one of the grammars more often than chance has it.
    let special = select(" \t\n'\\%@:/?#&=+,[]\"25é€".chars().collect::<Vec<_>>());
    vec(prop_oneof![special, any::<char>()], length)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
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
