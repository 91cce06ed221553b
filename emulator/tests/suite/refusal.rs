//! Tokens that RDS refuses, and the recorded reason of each.

use std::time::{Duration, SystemTime};

use rds_iam_emulator::{Credentials, Emulator, LoginResult, Reason};

use crate::client::{Token, connect, emulator, refusal};

/// Logs in as `app` with `token`. Asserts RDS's error, and returns the actual reason.
fn reason(emulator: &Emulator, token: &str) -> Reason {
    let (sqlstate, message) = refusal(connect(emulator, "app", token));
    assert_eq!(sqlstate, "28000");
    assert_eq!(message, "PAM authentication failed for user \"app\"");
    let login = emulator.logins().pop().unwrap();
    let text = login.to_string();
    assert!(!text.contains(token), "the log shows the token");
    match *login.result() {
        LoginResult::Refused(reason) => reason,
        result => panic!("{result:?}"),
    }
}

#[test]
fn each_fault_of_a_token_has_its_reason() {
    let emulator = Emulator::builder()
        .credentials(Credentials::new("AKIDEXAMPLE", "secret"))
        .credentials(Credentials::new("ASIAOTHER", "other").session_token("the/right+one=="))
        .credentials(
            Credentials::new("ASIAENDED", "ended")
                .session_token("token")
                .expires_at(SystemTime::now() - Duration::from_secs(1)),
        )
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let right = Token::new(&emulator, "app");
    let port = emulator.port();
    let with = |change: &dyn Fn(&mut Token)| {
        let mut token = right.clone();
        change(&mut token);
        token.sign()
    };
    let now = SystemTime::now();
    let cases: Vec<(&str, String, Reason)> = vec![
        (
            "another host",
            with(&|token| token.authority = format!("other.eu-west-1.rds.amazonaws.com:{port}")),
            Reason::Host,
        ),
        (
            "the host in capitals",
            with(&|token| token.authority = emulator.host().to_uppercase() + &format!(":{port}")),
            Reason::Host,
        ),
        (
            "another port",
            with(&|token| token.authority = format!("{}:{}", emulator.host(), port ^ 1)),
            Reason::Port,
        ),
        (
            "no port",
            with(&|token| token.authority = emulator.host().to_owned()),
            Reason::Port,
        ),
        (
            "another region",
            with(&|token| token.region = "us-east-1".to_owned()),
            Reason::Region,
        ),
        (
            "another service",
            with(&|token| token.service = "rds".to_owned()),
            Reason::Service,
        ),
        (
            "another action",
            with(&|token| token.query = "Action=DbConnect&DBUser=app".to_owned()),
            Reason::Action,
        ),
        (
            "another user",
            with(&|token| token.query = "Action=connect&DBUser=App".to_owned()),
            Reason::User,
        ),
        (
            "no user",
            with(&|token| token.query = "Action=connect".to_owned()),
            Reason::User,
        ),
        (
            "another access key",
            with(&|token| token.access_key = "AKIDOTHER".to_owned()),
            Reason::UnknownAccessKey,
        ),
        (
            "another secret",
            with(&|token| token.secret_key = "Secret".to_owned()),
            Reason::Signature,
        ),
        (
            "a session token too many",
            with(&|token| token.session_token = Some("any".to_owned())),
            Reason::SessionToken,
        ),
        (
            "no session token",
            with(&|token| {
                token.access_key = "ASIAOTHER".to_owned();
                token.secret_key = "other".to_owned();
            }),
            Reason::SessionToken,
        ),
        (
            "another session token",
            with(&|token| {
                token.access_key = "ASIAOTHER".to_owned();
                token.secret_key = "other".to_owned();
                token.session_token = Some("the/wrong+one==".to_owned());
            }),
            Reason::SessionToken,
        ),
        (
            "credentials that ended",
            with(&|token| {
                token.access_key = "ASIAENDED".to_owned();
                token.secret_key = "ended".to_owned();
                token.session_token = Some("token".to_owned());
            }),
            Reason::CredentialsExpired,
        ),
        (
            "15 minutes old",
            with(&|token| token.issued = now - Duration::from_secs(900)),
            Reason::Expired,
        ),
        (
            "older than it asked for",
            with(&|token| {
                token.issued = now - Duration::from_secs(60);
                token.expires = Duration::from_secs(60);
            }),
            Reason::Expired,
        ),
        (
            "from the future",
            with(&|token| token.issued = now + Duration::from_secs(360)),
            Reason::NotYetValid,
        ),
        (
            "for too long",
            with(&|token| token.expires = Duration::from_secs(901)),
            Reason::LifetimeTooLong,
        ),
        ("a password", "hunter2".to_owned(), Reason::Malformed),
        (
            "a URL with its scheme",
            format!("https://{}", right.sign()),
            Reason::Malformed,
        ),
        (
            "doubled parameters",
            format!("{}&Action=connect", right.sign()),
            Reason::Malformed,
        ),
        (
            "an unsigned parameter",
            format!("{}&a=b", right.sign()),
            Reason::Signature,
        ),
    ];
    for (what, token, expected) in &cases {
        assert_eq!(reason(&emulator, token), *expected, "{what}");
    }
    connect(&emulator, "app", &right.sign()).unwrap();
}

#[test]
fn one_changed_character_anywhere_is_refused() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    // Every seventh position, so that each parameter is changed several times.
    for index in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
        reason(&emulator, &String::from_utf8(changed).unwrap());
    }
}

#[test]
fn the_error_codes_are_those_of_the_instances_log() {
    for (reason, code, status) in [
        (Reason::Signature, Some("InvalidToken"), Some(400)),
        (Reason::Expired, Some("ExpiredToken"), Some(400)),
        (Reason::NotAuthorized, Some("NotAuthorized"), Some(403)),
        (Reason::Throttled, Some("ThrottlingException"), Some(429)),
        (Reason::Fault, Some("InternalError"), Some(500)),
        (Reason::NotEncrypted, None, None),
    ] {
        assert_eq!(reason.code(), code);
        assert_eq!(reason.status(), status);
    }
    assert_eq!(
        Reason::Expired.to_string(),
        "the token has expired (Status Code: 400, Error Code: ExpiredToken)"
    );
}

#[test]
fn the_policy_decides_which_identity_logs_in_as_which_user() {
    let emulator = Emulator::builder()
        .credentials(
            Credentials::new("AKIDONE", "one").principal("arn:aws:iam::123456789012:role/reader"),
        )
        .credentials(Credentials::new("AKIDTWO", "two"))
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let token = |access_key: &str, secret_key: &str| {
        Token {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            ..Token::new(&emulator, "app")
        }
        .sign()
    };
    connect(&emulator, "app", &token("AKIDTWO", "two")).unwrap();

    emulator.allow("AKIDONE", "other");
    assert_eq!(
        reason(&emulator, &token("AKIDONE", "one")),
        Reason::NotAuthorized
    );
    assert_eq!(
        reason(&emulator, &token("AKIDTWO", "two")),
        Reason::NotAuthorized
    );
    emulator.allow("arn:aws:iam::*:role/reader", "a*");
    connect(&emulator, "app", &token("AKIDONE", "one")).unwrap();
    assert_eq!(
        reason(&emulator, &token("AKIDTWO", "two")),
        Reason::NotAuthorized
    );
    assert!(emulator.revoke("arn:aws:iam::*:role/reader", "a*"));
    assert_eq!(
        reason(&emulator, &token("AKIDONE", "one")),
        Reason::NotAuthorized
    );
}

#[test]
fn the_servers_clock_decides() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    emulator.set_server_clock_skew(3_600);
    assert_eq!(reason(&emulator, &token), Reason::Expired);
    assert!(emulator.logins()[0].token_age().unwrap() >= Duration::from_secs(3_599));
    emulator.set_server_clock_skew(-3_600);
    assert_eq!(reason(&emulator, &token), Reason::NotYetValid);
    assert_eq!(emulator.logins()[1].token_age(), None);
    emulator.set_server_clock_skew(0);
    connect(&emulator, "app", &token).unwrap();
}

#[test]
fn a_short_token_lifetime_ends_a_token_early() {
    let emulator = Emulator::builder()
        .token_lifetime(Duration::from_secs(15))
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    let mut token = Token::new(&emulator, "app");
    connect(&emulator, "app", &token.sign()).unwrap();
    token.issued -= Duration::from_secs(15);
    assert_eq!(reason(&emulator, &token.sign()), Reason::Expired);
    emulator.set_token_lifetime(Duration::from_secs(60));
    connect(&emulator, "app", &token.sign()).unwrap();
}

#[test]
fn removed_credentials_are_unknown_at_once() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    connect(&emulator, "app", &token).unwrap();
    assert!(emulator.remove_credentials(emulator.access_key()));
    assert_eq!(reason(&emulator, &token), Reason::UnknownAccessKey);
    emulator.add_credentials(Credentials::new(
        emulator.access_key(),
        emulator.secret_key(),
    ));
    connect(&emulator, "app", &token).unwrap();
}

#[test]
fn a_password_of_65530_bytes_is_read_and_one_more_is_not() {
    let emulator = emulator();
    let longest = "x".repeat(65_530);
    assert_eq!(reason(&emulator, &longest), Reason::Malformed);
    let error = connect(&emulator, "app", &"x".repeat(65_531))
        .err()
        .unwrap();
    assert!(
        error.as_db_error().is_none(),
        "the server was to hang up: {error}"
    );
    let login = emulator.logins().pop().unwrap();
    assert_eq!(login.result(), &LoginResult::Refused(Reason::TooLong));
}

#[test]
fn no_secret_and_no_token_can_be_printed() {
    let builder = Emulator::builder()
        .credentials(Credentials::new("AKIDEXAMPLE", "MARKERSECRET").session_token("MARKERTOKEN"));
    let mut printed = format!("{builder:?}");
    let emulator = builder.start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let token = Token {
        session_token: Some("MARKERTOKEN".to_owned()),
        ..Token::new(&emulator, "app")
    };
    let signature = token.sign().split_once("X-Amz-Signature=").unwrap().1[..64].to_owned();
    connect(&emulator, "app", &token.sign()).unwrap();
    emulator.set_server_clock_skew(3_600);
    reason(&emulator, &token.sign());
    reason(&emulator, "MARKERPASSWORD");
    printed += &format!("{emulator:?} {:?} {:?}", emulator.logins(), emulator.aws());
    for login in emulator.logins() {
        printed += &login.to_string();
    }
    assert!(!printed.contains("MARKER"), "{printed}");
    assert!(!printed.contains(&signature), "{printed}");
    assert!(
        printed.contains("AKIDEXAMPLE"),
        "the access key is no secret: {printed}"
    );
    assert_eq!(
        emulator.logins()[2].fingerprint(),
        "",
        "what is no token has no fingerprint"
    );
}
