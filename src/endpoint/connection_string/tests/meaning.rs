//! The meaning of a parsed string: the kind of login, the endpoint to sign for, and what is rejected.

use super::*;

#[test]
fn a_connection_string_selects_the_kind_of_login() {
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
fn requiring_iam_rejects_a_password() {
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
fn the_builders_password_wins_and_requires_tls() {
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
    // A Unix socket has no TLS.
    let mut parsed = parse("user=u host=/run/postgresql");
    parsed.supply_password();
    parsed.check().unwrap();
    assert_eq!(parsed.sslmode().unwrap(), None);
}

#[test]
fn a_part_of_a_password_is_not_taken_for_a_keyword() {
    let error = refusal("host=h user=u password=ab cd=ef");
    assert!(!error.to_string().contains("cd"), "{error}");
    // An unencoded `&` may have ended the password, so that `cd` is a part of it.
    let error = refusal("postgres://u@h/d?password=&cd=ef");
    assert!(!error.to_string().contains("cd"), "{error}");
}

#[test]
fn own_parameters_are_not_passed_to_libpq() {
    let parsed = parse(&format!(
        "postgres://u@{HOST}/d?iam=on&iam_region=eu-west-2&iam_profile=p&iam_role_arn=arn:aws:iam::123456789012:role/r\
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
        [
            "eu-west-2",
            "p",
            "arn:aws:iam::123456789012:role/r",
            "e",
            "s",
            "real.example"
        ]
        .map(Some)
    );
    assert_eq!(iam.port, Some(1));
    assert_eq!(parsed.sslmode().unwrap(), Some(SslMode::VerifyCa));
    assert_eq!(parsed.sslrootcert(), Some("/ca.pem"));

    let parsed = parse("postgres://u:secret@localhost/d");
    assert!(parsed.parameters().all(|(_, value)| value != "secret"));
}

#[test]
fn pgport_does_not_change_the_signed_port() {
    for port in ["", "port=''"] {
        let parsed = parse(&format!("host={HOST} {port} user=u"));
        assert_eq!(
            parameters(&parsed),
            [("host", HOST), ("user", "u"), ("port", "5432")]
        );
        assert_eq!(parsed.endpoint().unwrap().port(), 5432);
    }
    // libpq accepts spaces around a number.
    let parsed = parse(&format!("host={HOST} port=' 5433 ' user=u"));
    assert_eq!(parsed.endpoint().unwrap().port(), 5433);
    let parsed = parse("host=localhost user=u iam=off");
    assert_eq!(parameters(&parsed), [("host", "localhost"), ("user", "u")]);
}

#[test]
fn a_trailing_dot_is_removed_for_certificate_verification() {
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
fn system_roots_can_be_selected() {
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
fn iam_host_is_signed_and_host_is_dialled() {
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
fn an_address_or_alias_has_no_region_unless_configured() {
    for host in ["10.0.0.5", "localhost", "db.internal.example.com"] {
        let endpoint = parse(&format!("host={host} user=u")).endpoint().unwrap();
        assert_eq!((endpoint.host(), endpoint.region()), (host, None));
        let endpoint = parse(&format!("host={host} user=u iam_region=EU-west-1"))
            .endpoint()
            .unwrap();
        assert_eq!(endpoint.region(), Some("eu-west-1"));
    }
}

#[test]
fn a_token_is_never_sent_unencrypted() {
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

        // Without a token the user decides about that.
        for input in [
            format!("sslmode={mode} iam=off"),
            format!("sslmode={mode} password=p"),
        ] {
            let chosen = parse(&input).sslmode().unwrap().unwrap();
            assert_eq!(chosen.as_str(), mode);
        }
    }
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
fn an_error_names_the_setting() {
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
        ("user=u host=h iam_region=eu-west-1a", "availability zone"),
        ("user=u host=h iam_region=Ireland", "iam_region"),
        (
            "user=u host=mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com iam_region=eu-west-2",
            "iam_region is eu-west-2, and the host to sign for is in eu-west-1",
        ),
        ("user=u host=h iam_host=mydb.example.com:5432", "iam_port"),
        ("user=u host=h:5432", "port"),
        ("user=u host=::1", "IPv6"),
        ("postgres://u@[::1]/d", "IPv6"),
        ("user=u host=localhost iam_host=::1", "IPv6"),
        ("user=u host=h iam_role_arn=database", "iam_role_arn"),
        (
            "user=u host=h iam_role_arn=arn:aws:iam::123456789012:user/u",
            "iam_role_arn",
        ),
        (
            "user=u host=h iam_role_arn=arn:aws:iam::1234:role/r",
            "iam_role_arn",
        ),
        (
            "user=admin host=abcdefghijklmnopqrstuvwx12 iam_region=us-east-1",
            "ID.dsql.REGION.on.aws",
        ),
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
        ("user=u host=h gssencmode=prefer", "gssencmode"),
        ("user=u host=h gssencmode=require", "gssencmode"),
        ("user=u host=h passfile=/p", "passfile"),
        ("user=u host=h service=s", "service"),
        ("user=u host=h servicefile=s", "servicefile"),
        ("user=u host=h port=1,2", "different numbers"),
        (
            "user=u host=h hostaddr=1.1.1.1,2.2.2.2",
            "different numbers",
        ),
        ("user=u host=h,i,j port=1,2", "different numbers"),
        ("user=u host=h,i port=1,x", "port"),
        ("user=u host=h,i iam_host=j", "iam_host"),
        ("user=u host=h, iam_region=eu-west-1", "needs a host"),
        ("user=u host=h load_balance_hosts=all", "load_balance_hosts"),
        ("user=u host=h hostaddr=db.example.com", "hostaddr"),
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
        ("user=u\0 host=h", "zero byte"),
        ("\0", "zero byte"),
    ] {
        let text = refusal(input).to_string();
        assert!(text.contains(knob), "{input:?} was refused so: {text}");
        assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
    }
}

#[test]
fn settings_that_would_replace_the_token_are_allowed_without_iam() {
    let parsed = parse("user=u passfile=/p service=s iam=off");
    parsed.check().unwrap();
    assert_eq!(
        parameters(&parsed),
        [("user", "u"), ("passfile", "/p"), ("service", "s")]
    );
}

#[test]
fn by_default_three_probes_are_lost_before_a_silent_connection_is_closed() {
    let parsed = parse("user=u host=h");
    let defaults: Vec<_> = parsed.tcp_defaults().collect();
    let value = |keyword: &str| -> u64 {
        let found = defaults.iter().find(|(name, _)| *name == keyword);
        found.unwrap().1.parse().unwrap()
    };
    let probe = |at: u64| value("keepalives_idle") + value("keepalives_interval") * at;
    assert_eq!(value("keepalives_count"), 3);
    let limit = value("tcp_user_timeout");
    // Linux closes the connection at the first probe after the limit.
    assert!(probe(2) * 1000 < limit && limit < probe(3) * 1000);
    assert!(limit < 30_000);

    let parsed = parse("user=u host=h keepalives_idle=60 tcp_user_timeout=0");
    let keywords: Vec<_> = parsed.tcp_defaults().map(|(keyword, _)| keyword).collect();
    assert_eq!(keywords, ["keepalives_interval", "keepalives_count"]);
}

#[test]
fn the_time_for_credentials_is_in_whole_seconds() {
    let of = |value: &str| {
        let string = format!("host=h user=u iam_credentials_timeout={value}");
        ConnectionString::parse(&string).map(|parsed| parsed.iam.credentials_timeout)
    };
    assert_eq!(of("30").unwrap(), Some(Duration::from_secs(30)));
    for value in ["0", "-1", "''", "5s", "1.5"] {
        let error = of(value).unwrap_err().to_string();
        assert!(error.contains("iam_credentials_timeout"), "{error}");
    }
}
