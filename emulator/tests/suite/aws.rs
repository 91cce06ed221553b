//! AWS's endpoints, called by AWS's own SDK: its default chain, in a process of its own, since environment variables
//! set the endpoints.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use rds_iam_emulator::{AwsBehaviour, AwsService, Emulator, LoginResult, Reason};

use crate::client::{Token, connect, emulator, query_one, refusal};

/// Set for the child process.
const CHILD: &str = "RDS_IAM_EMULATOR_TEST_CHAIN";

const ROLE: &str = "arn:aws:iam::123456789012:role/path/reader";

/// The result of the chain: the fields of the credentials, or `error`.
type Found = HashMap<String, String>;

/// Not a test of its own: the child processes of the other tests run it.
#[test]
fn default_chain() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let found = runtime.block_on(async {
        let tls = tls::Provider::Rustls(CryptoMode::Ring);
        let client = Builder::new().tls_provider(tls).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(client);
        let config = config.load().await;
        config
            .credentials_provider()
            .unwrap()
            .provide_credentials()
            .await
    });
    match found {
        Ok(credentials) => {
            println!("found:access_key={}", credentials.access_key_id());
            println!("found:secret_key={}", credentials.secret_access_key());
            println!(
                "found:session_token={}",
                credentials.session_token().unwrap_or_default()
            );
            let expiry = credentials.expiry().unwrap();
            let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
            println!("found:seconds_left={}", left.as_secs());
        }
        Err(error) => println!(
            "found:error={:?}",
            error.to_string() + &format!("{error:?}")
        ),
    }
}

fn chain(emulator: &Emulator, environment: &[(&str, String)]) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "aws::default_chain"])
        .env_clear()
        .env(CHILD, "1")
        .env("HOME", folder.path())
        .env("AWS_REGION", emulator.region())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_MAX_ATTEMPTS", "1")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Found = text
        .lines()
        .filter_map(|line| line.split_once("found:")?.1.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(
        !found.is_empty(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    found
}

fn token(emulator: &Emulator, found: &Found) -> Token {
    assert!(!found.contains_key("error"), "{found:?}");
    Token {
        access_key: found["access_key"].clone(),
        secret_key: found["secret_key"].clone(),
        session_token: Some(found["session_token"].clone()),
        ..Token::new(emulator, "app")
    }
}

/// A profile that assumes `ROLE` with the emulator's own keys.
fn assumed_role(
    emulator: &Emulator,
    folder: &std::path::Path,
    more: &str,
) -> [(&'static str, String); 3] {
    let file = folder.join("config");
    let text = format!(
        "[default]\nrole_arn = {ROLE}\nrole_session_name = night.shift@example\n\
         source_profile = keys\n{more}\n[profile keys]\naws_access_key_id = {}\n\
         aws_secret_access_key = {}\n",
        emulator.access_key(),
        emulator.secret_key(),
    );
    std::fs::write(&file, text).unwrap();
    [
        ("AWS_CONFIG_FILE", file.to_str().unwrap().to_owned()),
        ("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url()),
        ("AWS_PROFILE", "default".to_owned()),
    ]
}

#[test]
fn an_assumed_role_may_log_in_until_its_credentials_end() {
    let emulator = emulator();
    let aws = emulator.aws();
    let folder = tempfile::tempdir().unwrap();
    aws.trust_role(ROLE, Some("ticket 42"));
    aws.set_credential_lifetime(Duration::from_secs(100));

    let denied = chain(&emulator, &assumed_role(&emulator, folder.path(), ""));
    assert!(denied["error"].contains("AccessDenied"), "{denied:?}");
    let found = chain(
        &emulator,
        &assumed_role(&emulator, folder.path(), "external_id = ticket 42"),
    );
    let left: u64 = found["seconds_left"].parse().unwrap();
    assert!((30..=100).contains(&left), "{left}");
    let token = token(&emulator, &found).sign();
    let mut client = connect(&emulator, "app", &token).unwrap();

    assert_eq!(aws.requests(AwsService::Sts), 2);
    let call = aws.calls().pop().unwrap();
    assert_eq!(call.action, "AssumeRole");
    assert_eq!(call.status, 200);
    assert_eq!(call.parameters["RoleArn"], ROLE);
    assert_eq!(call.parameters["RoleSessionName"], "night.shift@example");
    assert_eq!(call.parameters["ExternalId"], "ticket 42");

    // The policy names the role, not the access key.
    emulator.allow(ROLE, "app");
    connect(&emulator, "app", &token).unwrap();
    emulator.set_server_clock_skew(101);
    assert_eq!(refusal(connect(&emulator, "app", &token)).0, "28000");
    let login = emulator.logins().pop().unwrap();
    assert_eq!(
        login.result(),
        &LoginResult::Refused(Reason::CredentialsExpired)
    );
    assert_eq!(query_one(&mut client, "SELECT 'still open'"), "still open");
}

#[test]
fn sts_rejects_a_signature_with_a_wrong_key() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let environment = assumed_role(&emulator, folder.path(), "");
    let file = folder.path().join("config");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(emulator.secret_key(), "another")).unwrap();
    let found = chain(&emulator, &environment);
    assert!(
        found["error"].contains("SignatureDoesNotMatch"),
        "{found:?}"
    );
    std::fs::write(&file, text.replace(emulator.access_key(), "AKIDNOBODY")).unwrap();
    let found = chain(&emulator, &environment);
    assert!(found["error"].contains("InvalidClientTokenId"), "{found:?}");
}

#[test]
fn a_web_identity_may_log_in() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "eyJhbGciOiJSUzI1NiJ9.web.identity").unwrap();
    let found = chain(
        &emulator,
        &[
            ("AWS_ROLE_ARN", ROLE.to_owned()),
            ("AWS_ROLE_SESSION_NAME", "pod".to_owned()),
            (
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                file.to_str().unwrap().to_owned(),
            ),
            ("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url()),
        ],
    );
    connect(&emulator, "app", &token(&emulator, &found).sign()).unwrap();
    let call = emulator.aws().calls().pop().unwrap();
    assert_eq!(call.action, "AssumeRoleWithWebIdentity");
    assert!(
        !format!("{call:?}").contains("identity\""),
        "the call shows the token: {call:?}"
    );
}

#[test]
fn a_container_and_an_instance_may_log_in() {
    let emulator = emulator();
    let found = chain(&emulator, &emulator.aws().container_environment());
    connect(&emulator, "app", &token(&emulator, &found).sign()).unwrap();
    assert_eq!(emulator.aws().requests(AwsService::Container), 1);

    let [url, _] = emulator.aws().container_environment();
    let wrong = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong".to_owned());
    assert!(chain(&emulator, &[url, wrong]).contains_key("error"));
    assert_eq!(emulator.aws().calls().pop().unwrap().status, 401);

    let found = chain(
        &emulator,
        &[
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            (
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                emulator.aws().metadata_url(),
            ),
        ],
    );
    connect(&emulator, "app", &token(&emulator, &found).sign()).unwrap();
    assert!(emulator.aws().requests(AwsService::Metadata) >= 3);
}

#[test]
fn endpoints_fail_throttle_and_garble_on_demand() {
    let emulator = emulator();
    let folder = tempfile::tempdir().unwrap();
    let sts = assumed_role(&emulator, folder.path(), "");
    for (behaviour, expected, status) in [
        (AwsBehaviour::Failing, "InternalFailure", 500),
        (AwsBehaviour::Throttled, "Throttling", 429),
        (AwsBehaviour::Garbled, "error", 200),
    ] {
        emulator.aws().set_behaviour(AwsService::Sts, behaviour);
        emulator
            .aws()
            .set_behaviour(AwsService::Container, behaviour);
        let error = chain(&emulator, &sts)["error"].clone();
        assert!(error.contains(expected), "{behaviour:?}: {error}");
        assert!(
            chain(&emulator, &emulator.aws().container_environment()).contains_key("error"),
            "{behaviour:?}"
        );
        let call = emulator.aws().calls().pop().unwrap();
        assert_eq!(
            (call.service, call.status),
            (AwsService::Container, status),
            "{behaviour:?}"
        );
    }
    emulator
        .aws()
        .set_behaviour(AwsService::Sts, AwsBehaviour::Normal);
    token(&emulator, &chain(&emulator, &sts));
}

#[test]
fn a_slow_endpoint_responds_correctly_after_its_delay() {
    let emulator = emulator();
    let delay = Duration::from_millis(700);
    emulator
        .aws()
        .set_behaviour(AwsService::Container, AwsBehaviour::Slow(delay));
    let start = std::time::Instant::now();
    let found = chain(&emulator, &emulator.aws().container_environment());
    assert!(start.elapsed() >= delay);
    token(&emulator, &found);
}

#[test]
fn get_caller_identity_returns_the_principal() {
    let emulator = emulator();
    let identity = |secret_key: &str| {
        let url = emulator.aws().sts_url() + "/";
        let body = "Action=GetCallerIdentity&Version=2011-06-15";
        let host = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let identity = Credentials::from_keys(emulator.access_key(), secret_key, None).into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let own = [
            ("host", host.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            // Runs of spaces are signed as one.
            ("x-amz-note", "a   b"),
        ];
        let request = SignableRequest::new(
            "POST",
            &url,
            own.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )
        .unwrap();
        let (instructions, _) = sign(request, &parameters).unwrap().into_parts();
        let mut text = "POST / HTTP/1.1\r\nconnection: close\r\n".to_owned();
        for (name, value) in own.into_iter().chain(instructions.headers()) {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut tcp = TcpStream::connect(&host).unwrap();
        tcp.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = identity(emulator.secret_key());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("<Arn>arn:aws:iam::123456789012:user/emulator</Arn>"),
        "{answer}"
    );
    assert!(
        answer.contains("<Account>123456789012</Account>"),
        "{answer}"
    );
    let answer = identity("another");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(
        answer.contains("<Code>SignatureDoesNotMatch</Code>"),
        "{answer}"
    );
}
