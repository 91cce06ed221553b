//! No secret appears in any output.

use std::path::Path;
use std::time::Duration;

use aws_credential_types::Credentials;
use diesel_rds_iam::{
    AssumeRole, Backend, IamAuth, IamAuthBuilder, ManagerBuilder, Password, PgConnectionManager,
    RotatingPassword,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rds_iam_emulator::Emulator;

use crate::support::child::{self, Child};
use crate::support::database::{Ask, emulator, manager_builder};
use crate::support::eavesdropper::Eavesdropper;
use crate::support::{endpoint, keys};

/// Part of every secret of these tests. It is the same raw and percent-encoded.
const MARKER: &str = "MARKER";

/// The emulator's STS begins every session token with this text, as AWS's does.
const SESSION_TOKEN: &str = "IQoJb3JpZ2luX2VjE";

/// Signs with secrets that contain the marker, which `emulator` accepts.
fn marked_auth(emulator: &Emulator, heard: &Eavesdropper) -> IamAuthBuilder {
    let (key, secret, session) = (
        "AKIAMARKED",
        "MARKER/secret+key=1",
        "MARKER/session+token=2",
    );
    emulator
        .add_credentials(rds_iam_emulator::Credentials::new(key, secret).session_token(session));
    let credentials = Credentials::new(key, secret, Some(session.into()), None, "test");
    IamAuth::builder()
        .credentials_provider(credentials)
        .event_handler(heard.clone())
}

/// Builds, connects, pools and queries, and passes everything printable of that to `heard`.
fn use_it<C: Backend<Connection: Ask>>(builder: ManagerBuilder<C>, heard: &Eavesdropper) {
    heard.hear("builder", &builder);
    let manager = match builder.build() {
        Ok(manager) => manager,
        Err(error) => return heard.hear_error(&error),
    };
    heard.hear("manager", &manager);
    if let Err(error) = manager.try_connect() {
        heard.hear_error(&error);
    }
    let pool_builder = manager
        .pool_builder()
        .max_size(1)
        .connection_timeout(Duration::from_secs(1));
    heard.hear("pool builder", &pool_builder);
    let pool = pool_builder.build_unchecked().unwrap();
    heard.hear("pool", &pool);
    match pool.get() {
        Ok(mut connection) => {
            let error = connection.try_ask("nonsense").unwrap_err();
            heard.hear_error(&*error);
        }
        Err(error) => heard.hear_error(&error),
    }
}

/// Fails if a secret was recorded, or if nothing was.
fn assert_no_secret(heard: &Eavesdropper, sources: &[&str]) {
    let texts = heard.texts();
    for source in sources {
        assert!(
            texts.iter().any(|text| text.contains(source)),
            "nothing was heard of {source}"
        );
    }
    let mut secrets = vec![MARKER.to_owned(), SESSION_TOKEN.to_owned()];
    for token in heard.tokens() {
        let (_, signature) = token.split_once("X-Amz-Signature=").unwrap();
        secrets.push(signature.to_owned());
        secrets.push(utf8_percent_encode(&token, NON_ALPHANUMERIC).to_string());
        secrets.push(token);
    }
    for secret in secrets {
        for text in &texts {
            assert!(!text.contains(&secret), "{secret:?} was heard in {text}");
        }
    }
}

fn is_child(test: &str) -> bool {
    child::is_running(module_path!(), test)
}

fn child(test: &str) -> Child {
    Child::new(module_path!(), test, Path::new("/dev/null/none"))
}

/// FAULTS.md row 3.
#[test]
fn of_tokens() {
    const TEST: &str = "of_tokens";
    if !is_child(TEST) {
        return child(TEST).run();
    }
    let heard = Eavesdropper::start();
    let emulator = emulator();
    let auth = marked_auth(&emulator, &heard).build().unwrap();
    heard.hear("identity", &auth);
    let with = |url: &str| PgConnectionManager::builder(url).auth(auth.clone());
    let url = emulator.url("app");
    use_it(with(&url), &heard);
    let source = auth.source(with(&url).build().unwrap().endpoint().unwrap());
    heard.hear("source", &source);
    heard.hear("token", source.token());

    // A closed port, an untrusted certificate, and an unknown user.
    use_it(
        with("host=127.0.0.1 port=1 user=app iam_region=eu-west-1"),
        &heard,
    );
    use_it(with(&url.replace("verify-full", "prefer")), &heard);
    use_it(with(&url.replace(emulator.host(), "127.0.0.2")), &heard);
    use_it(with(&emulator.url("nobody")), &heard);
    // Logins that are refused repeatedly.
    emulator.remove_credentials("AKIAMARKED");
    use_it(with(&url), &heard);

    #[cfg(feature = "postgres")]
    {
        let with = |url: &str| {
            let builder = diesel_rds_iam::PostgresConnectionManager::builder(url);
            builder.auth(auth.clone())
        };
        // Logins that are refused and then accepted.
        use_it(with(&url), &heard);
        let auth = marked_auth(&emulator, &heard).build().unwrap();
        use_it(with(&url).auth(auth), &heard);
        let texts = heard.texts();
        let is_its_own = |text: &String| text.contains("tokio_postgres");
        assert!(
            texts.iter().any(is_its_own),
            "nothing was heard of postgres"
        );
    }

    // A token that is too long for PostgreSQL.
    let session = MARKER.repeat(11_000);
    let credentials = Credentials::new("AKIA", "s", Some(session), None, "test");
    let auth = IamAuth::builder()
        .credentials_provider(credentials)
        .event_handler(heard.clone());
    use_it(
        manager_builder(&emulator).auth(auth.build().unwrap()),
        &heard,
    );

    // A source that panics.
    let auth = IamAuth::builder()
        .credentials_fn(|| panic!("as this test wants it to"))
        .event_handler(heard.clone());
    use_it(
        manager_builder(&emulator).auth(auth.build().unwrap()),
        &heard,
    );

    let sources = [
        "diesel: StartEstablishConnection",
        "diesel: FinishEstablishConnection",
        "/proc/self/environ: \"",
        "token signed",
        "login refused",
        "event: LoginRefused",
        "WARN diesel_rds_iam::event::sink: ",
        "event: ConnectFailed",
        "panic: ",
        "PAM authentication failed",
    ];
    assert_no_secret(&heard, &sources);
}

/// FAULTS.md row 3.
#[test]
fn of_passwords() {
    const TEST: &str = "of_passwords";
    let (right, wrong) = (r"MARKER: p%41's \ @MARKER", "MARKER wrong");
    if !is_child(TEST) {
        // Here, because the emulator's client logs the statement.
        let emulator = emulator();
        emulator.create_password_user("bob", right).unwrap();
        return child(TEST).argument("URL", emulator.url("bob")).run();
    }
    let heard = Eavesdropper::start();
    let url = child::argument("URL");
    for password in [right, wrong] {
        let builder = |url: &str| PgConnectionManager::builder(url);
        use_it(builder(&url).password(Password::fixed(password)), &heard);
        let rotating = move || Ok(RotatingPassword::new(password));
        let rotating = Password::builder(rotating).event_handler(heard.clone());
        heard.hear("password builder", &rotating);
        let rotating = Password::rotating(move || Ok(RotatingPassword::new(password)));
        use_it(builder(&url).password(rotating), &heard);

        let encoded = utf8_percent_encode(password, NON_ALPHANUMERIC);
        let with_password = |password: &str| url.replace("bob@", &format!("bob:{password}@"));
        use_it(builder(&with_password(&encoded.to_string())), &heard);
        // Not encoded, and not quoted.
        use_it(builder(&with_password(password)), &heard);
        use_it(
            builder(&format!("user=bob host=h password={password}")),
            &heard,
        );
        use_it(
            builder(&format!("user=bob host=h password=a {password}=x")),
            &heard,
        );
        use_it(builder("user=bob host=h password=a MARKER=x"), &heard);
        use_it(builder(&format!("{url}&sslpassword={encoded}")), &heard);
        use_it(builder(&format!("{url}&iam=on&password={encoded}")), &heard);
    }
    let sources = [
        "diesel: StartEstablishConnection",
        "password authentication failed",
        "has a password, so IAM is not used",
        "connections cannot be opened",
    ];
    assert_no_secret(&heard, &sources);
}

/// FAULTS.md row 3.
#[test]
fn of_assumed_roles() {
    const TEST: &str = "of_assumed_roles";
    if !is_child(TEST) {
        let emulator = emulator();
        return child(TEST)
            .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
            .argument("URL", emulator.url("app"))
            .argument("KEY", emulator.access_key())
            .argument("SECRET", emulator.secret_key())
            .run();
    }
    let heard = Eavesdropper::start();
    let credentials = Credentials::new(
        child::argument("KEY"),
        child::argument("SECRET"),
        None,
        None,
        "test",
    );
    let role = |name: &str| AssumeRole::new(format!("arn:aws:iam::123456789012:role/{name}"));
    let auth = IamAuth::builder()
        .credentials_provider(credentials)
        .assume_role(role("first").external_id("MARKER-external"))
        // Requested with the session token of the first, which must not be logged either.
        .assume_role(role("second"))
        .event_handler(heard.clone())
        .build()
        .unwrap();
    use_it(
        PgConnectionManager::builder(&child::argument("URL")).auth(auth),
        &heard,
    );
    assert_no_secret(
        &heard,
        &["token signed", "TRACE ", "DEBUG aws_", "connection opened"],
    );
    let tokens = heard.tokens();
    assert!(tokens.iter().all(|token| token.contains(SESSION_TOKEN)));
}

/// Without a subscriber, tracing writes to `log` if its feature is enabled, and stops for the rest of the process
/// once a subscriber is set.
#[test]
fn keeping_the_sdks_trace_does_not_suppress_the_log() {
    const TEST: &str = "keeping_the_sdks_trace_does_not_suppress_the_log";
    if !is_child(TEST) {
        return child(TEST).run();
    }
    let auth = IamAuth::builder().credentials_provider(keys()).build();
    auth.unwrap().source(&endpoint()).token().unwrap();
    assert!(!tracing::dispatcher::has_been_set());
}
