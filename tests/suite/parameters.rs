//! Parameters reach the server unchanged, or are rejected locally.

use aws_credential_types::Credentials;
use diesel::PgConnection;
use diesel_rds_iam::{
    Backend, ErrorKind, IamAuth, Password, PgConnectionManager, RdsConnectionManager,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use rds_iam_emulator::{Emulator, Fault, LoginResult};
use sha2::{Digest, Sha256};

use crate::support::database::{Ask, auth_builder, emulator, refused, shared_emulator};

/// The longest password that PostgreSQL accepts.
const LONGEST: usize = 65_530;

/// Each case costs a login or more.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // proptest writes no files beside the sources.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Any text that libpq can read from a file, with more than the usual share of characters that have a meaning in
/// URLs, password files and connection strings.
fn secret() -> impl Strategy<Value = String> {
    let special = r#"[:\\'"%&=+@/?# \t*$`-]"#;
    let any = "[^\\x00\\r\\n]";
    proptest::collection::vec(prop_oneof![special, any], 1..200).prop_map(|parts| parts.concat())
}

/// Any name of at most 60 bytes, of which PostgreSQL keeps 63.
fn name() -> impl Strategy<Value = String> {
    let special = r#"[:\\'"%&=+@/?# \t*$`,.-]"#;
    let any = "[^\\x00]";
    proptest::collection::vec(prop_oneof![special, any], 1..15)
        .prop_map(|parts| parts.concat())
        // PostgreSQL reserves these names.
        .prop_filter("reserved", |name| {
            !name.starts_with("pg_") && !["none", "public"].contains(&name.as_str())
        })
}

/// The password as the emulator identifies it.
fn fingerprint(secret: &str) -> String {
    let digest = Sha256::digest(secret.as_bytes());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// FAULTS.md row 15.
#[test]
fn any_password_reaches_the_server_unchanged() {
    fn assert_reaches<C: Backend>(emulator: &Emulator, secret: &str) -> Result<(), TestCaseError> {
        // The emulator requests a cleartext password of a member of rds_iam, and records the fingerprint of one
        // that a fault refuses.
        emulator.fault(Fault::RefuseNext(1));
        let manager = RdsConnectionManager::<C>::builder(&emulator.url("app"))
            .password(Password::fixed(secret))
            .build()
            .unwrap();
        let error = manager.try_connect().err().unwrap();
        prop_assert_eq!(error.kind(), ErrorKind::LoginRefused, "{}", error);
        let logins = emulator.logins();
        prop_assert_eq!(logins.last().unwrap().fingerprint(), fingerprint(secret));
        Ok(())
    }
    let emulator = emulator();
    proptest!(cases(32), |(secret in secret())| {
        assert_reaches::<PgConnection>(&emulator, &secret)?;
        #[cfg(feature = "postgres")]
        assert_reaches::<diesel_rds_iam::postgres::Client>(&emulator, &secret)?;
    });
}

/// FAULTS.md row 15.
#[test]
fn any_password_in_a_connection_string_is_sent_unchanged() {
    fn log_in<C: Backend>(url: &str) {
        RdsConnectionManager::<C>::new(url)
            .unwrap()
            .try_connect()
            .unwrap();
    }
    let emulator = emulator();
    emulator.create_password_user("bob", "-").unwrap();
    proptest!(cases(16), |(secret in secret())| {
        let literal = secret.replace('\'', "''").replace('\\', r"\\");
        emulator.execute(&format!("ALTER ROLE bob PASSWORD E'{literal}'")).unwrap();
        let encoded = utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string();
        let url = emulator.url("bob").replace("bob@", &format!("bob:{encoded}@"));
        log_in::<PgConnection>(&url);
        #[cfg(feature = "postgres")]
        log_in::<diesel_rds_iam::postgres::Client>(&url);

        let quoted = secret.replace('\\', r"\\").replace('\'', r"\'");
        let pairs = format!(
            "host={} hostaddr=127.0.0.1 port={} dbname=postgres user=bob password='{quoted}' \
             sslmode=require",
            emulator.host(),
            emulator.port(),
        );
        log_in::<PgConnection>(&pairs);
    });
}

/// FAULTS.md row 15.
#[test]
fn any_user_and_database_reach_the_server_unchanged() {
    fn assert_are<C: Backend<Connection: Ask>>(
        url: &str,
        auth: &IamAuth,
        user: &str,
        database: &str,
    ) -> Result<(), TestCaseError> {
        let manager = RdsConnectionManager::<C>::builder(url).auth(auth.clone());
        let mut connection = manager.build().unwrap().try_connect().unwrap();
        prop_assert_eq!(connection.ask("current_user"), user);
        prop_assert_eq!(connection.ask("current_database()"), database);
        Ok(())
    }
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    proptest!(cases(12), |(user in name(), database in name())| {
        // proptest repeats names when it shrinks a failure.
        let _ = emulator.create_iam_user(&user);
        let _ = emulator.create_database(&database, &user);
        let url = emulator.url_of(&user, &database);
        assert_are::<PgConnection>(&url, &auth, &user, &database)?;
        #[cfg(feature = "postgres")]
        assert_are::<diesel_rds_iam::postgres::Client>(&url, &auth, &user, &database)?;
    });
}

#[test]
fn libpqs_parameters_are_passed_on() {
    fn assert_goes_through<C: Backend<Connection: Ask>>() {
        let emulator = shared_emulator();
        let url = format!(
            "{}&application_name=web%20%27x%27&options=-c%20work_mem%3D123kB",
            emulator.url("app")
        );
        let auth = auth_builder(emulator).build().unwrap();
        let manager = RdsConnectionManager::<C>::builder(&url).auth(auth);
        let mut connection = manager.build().unwrap().try_connect().unwrap();
        let mut setting = |name| connection.ask(&format!("current_setting('{name}')"));
        assert_eq!(setting("application_name"), "web 'x'");
        assert_eq!(setting("work_mem"), "123kB");
    }
    assert_goes_through::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_goes_through::<diesel_rds_iam::postgres::Client>();
}

/// A manager whose tokens have this many bytes, or the fewest that are possible.
fn manager_with_tokens_of(emulator: &Emulator, bytes: usize) -> PgConnectionManager {
    let (key, secret) = (emulator.access_key(), emulator.secret_key());
    let auth_with = |session: Option<&str>| {
        let session = session.map(str::to_owned);
        let credentials = Credentials::new(key, secret, session, None, "test");
        let auth = IamAuth::builder().credentials_provider(credentials);
        auth.build().unwrap()
    };
    let manager_with = |session: Option<&str>| {
        let builder = PgConnectionManager::builder(&emulator.url("app"));
        builder.auth(auth_with(session)).build().unwrap()
    };
    let shortest = manager_with(None);
    let endpoint = shortest.endpoint().unwrap();
    let token = auth_with(Some("x")).source(endpoint).token().unwrap();
    let Some(more) = bytes.checked_sub(token.expose_secret().len()) else {
        return shortest;
    };
    let session = "x".repeat(1 + more);
    let credentials = rds_iam_emulator::Credentials::new(key, secret).session_token(&session);
    emulator.add_credentials(credentials);
    manager_with(Some(&session))
}

/// FAULTS.md row 26.
#[test]
fn a_token_may_be_as_long_as_postgresql_takes_it() {
    let emulator = emulator();
    for bytes in [330, 1_025, 8_192, LONGEST] {
        let manager = manager_with_tokens_of(&emulator, bytes);
        manager.try_connect().unwrap();
    }
    let logins = emulator.login_count();
    assert_eq!(logins, 4);
    let manager = manager_with_tokens_of(&emulator, LONGEST + 1);
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("65531"), "{error}");
    assert_eq!(emulator.login_count(), logins, "it was sent");
    assert_eq!(refused(&emulator).len(), 0);
}

/// FAULTS.md row 26.
#[test]
fn a_password_may_be_as_long_as_postgresql_takes_it() {
    let emulator = emulator();
    emulator.create_password_user("bob", "-").unwrap();
    for bytes in [1, 149, 150, 151, 330, 1_025, 8_192, LONGEST] {
        let password = "p".repeat(bytes);
        emulator
            .execute(&format!("ALTER ROLE bob PASSWORD '{password}'"))
            .unwrap();
        let url = emulator
            .url("bob")
            .replace("bob@", &format!("bob:{password}@"));
        PgConnectionManager::new(&url)
            .unwrap()
            .try_connect()
            .unwrap();
    }
    let logins = emulator.logins();
    assert!(
        logins
            .iter()
            .all(|login| *login.result() == LoginResult::Password)
    );

    let password = "p".repeat(LONGEST + 1);
    let url = emulator
        .url("bob")
        .replace("bob@", &format!("bob:{password}@"));
    for builder in [
        PgConnectionManager::builder(&url),
        PgConnectionManager::builder(&emulator.url("bob")).password(Password::fixed(&password)),
    ] {
        let error = builder.build().unwrap().try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    assert_eq!(emulator.login_count(), logins.len(), "it was sent");
}

/// Text that libpq would read as the end of the password, or that diesel would show.
#[test]
fn secrets_that_cannot_be_passed_safely_are_rejected() {
    let emulator = shared_emulator();
    for password in ["a\nb", "a\r", "a\0b"] {
        let builder = PgConnectionManager::builder(&emulator.url("bob"));
        let manager = builder.password(Password::fixed(password)).build().unwrap();
        let error = manager.try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    for keyword in ["sslpassword", "scram_client_key", "scram_server_key"] {
        let url = format!("{}&{keyword}=hunter2", emulator.url("app"));
        let error = PgConnectionManager::new(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains(keyword) && !text.contains("hunter2"),
            "{text}"
        );
    }
}

/// FAULTS.md row 31.
#[test]
fn no_string_makes_a_manager_panic_or_quote_it() {
    let mut strings = vec![
        String::new(),
        "x".to_owned(),
        "postgres://".to_owned(),
        "postgres://u:hunter2@h?user=%ff%fe".to_owned(),
        "postgres://u:hunter2%@h".to_owned(),
        "postgres://u:hunter2@hunter2@h".to_owned(),
        "user=u host=h password=hunter2 hunter2".to_owned(),
        "user=u host=h password=a hunter2=hunter2".to_owned(),
        "user=u host=h password='hunter2".to_owned(),
        format!("postgres://u:hunter2@{}", "h".repeat(10_000)),
        format!("password=hunter2 {}", "a=b ".repeat(2_500)),
    ];
    strings.push("hunter2".repeat(1_430));
    for string in strings {
        let debug = format!("{:?}", PgConnectionManager::builder(&string));
        assert!(!debug.contains("hunter2"), "{debug}");
        if let Err(error) = PgConnectionManager::new(&string) {
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
    proptest!(cases(2_000), |(
        before in ".{0,40}",
        after in "[a-z:/?&=@%' \\\\-]{0,40}",
        scheme in prop_oneof![Just("postgres://u:"), Just("user=u password=")],
    )| {
        // After an empty password, the text is the host.
        prop_assume!(!before.starts_with('@'));
        for string in [before.clone(), format!("{scheme}{before}hunter2{after}")] {
            let shown = match PgConnectionManager::new(&string) {
                Ok(manager) => format!("{manager:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    });
}
