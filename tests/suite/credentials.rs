//! Every source of AWS credentials, by the SDK's own code, with AWS's endpoints on loopback.
//!
//! Sources are selected by environment variables, so each test runs in a process of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, future};
use diesel_rds_iam::{AssumeRole, Error, ErrorKind, IamAuth, IamAuthBuilder, PgConnectionManager};
use parking_lot::Mutex;
use rds_iam_emulator::{AwsBehaviour, AwsService, Emulator};

use crate::support::child::{self, Child};
use crate::support::database::{emulator, refused};
#[cfg(target_os = "linux")]
use crate::support::thread_names;
use crate::support::{PATIENCE, SECOND, endpoint, keys};

/// The time limit for failures that must be returned at once.
const MOMENT: Duration = Duration::from_millis(500);

fn is_child(test: &str) -> bool {
    child::is_running(module_path!(), test)
}

/// A process without any credentials, whose home is `home`.
fn child(test: &str, home: &Path) -> Child {
    Child::new(module_path!(), test, home)
}

/// The same without a home.
fn homeless(test: &str, emulator: &Emulator) -> Child {
    child(test, Path::new("/dev/null/none")).argument("URL", emulator.url("app"))
}

/// With the emulator's long-term keys and its STS.
fn with_sts(child: Child, emulator: &Emulator) -> Child {
    child
        .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
        .env("AWS_ACCESS_KEY_ID", emulator.access_key())
        .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
}

/// With the credentials of a container.
fn with_container(child: Child, emulator: &Emulator) -> Child {
    child.envs(emulator.aws().container_environment())
}

/// In a child: logs in a few times, with the identity of the environment and the connection string.
fn log_in() {
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    for _ in 0..3 {
        manager.try_connect().unwrap();
    }
}

/// In a child: the login fails because there are no credentials.
fn fail_to_log_in(auth: IamAuthBuilder) -> Error {
    let manager = PgConnectionManager::builder(&child::argument("URL"))
        .auth(auth.build().unwrap())
        .build()
        .unwrap();
    manager.try_connect().err().unwrap()
}

/// The SDK's chain is loaded on the signing thread. Without that thread it is not, and no file is read.
#[cfg(target_os = "linux")]
#[test]
fn keys_in_the_environment_need_no_thread() {
    const TEST: &str = "keys_in_the_environment_need_no_thread";
    if !is_child(TEST) {
        let emulator = emulator();
        with_sts(homeless(TEST, &emulator), &emulator).run();
        return;
    }
    log_in();
    let has_signer = || thread_names().contains(&"rds-iam-signer".to_owned());
    assert!(!has_signer());
    let manager = PgConnectionManager::new(&child::argument("URL")).unwrap();
    let auth = manager.auth().unwrap();
    // That is asked on the thread.
    let told = auth.credentials(manager.endpoint().unwrap()).unwrap();
    assert_eq!(told.source, "environment variables");
    assert!(has_signer());
}

/// The distinct access keys that logged in.
fn access_keys(emulator: &Emulator) -> Vec<String> {
    let logins = emulator.logins();
    let keys: BTreeSet<_> = logins.iter().map(|login| login.access_key()).collect();
    keys.into_iter()
        .map(|key| key.unwrap().to_owned())
        .collect()
}

/// The value of `parameter` in each call of STS.
fn told_sts(emulator: &Emulator, parameter: &str) -> Vec<Option<String>> {
    let calls = emulator.aws().calls();
    calls
        .into_iter()
        .filter(|call| call.service == AwsService::Sts)
        .map(|mut call| call.parameters.remove(parameter))
        .collect()
}

/// Fails unless exactly one set of temporary credentials logged in three times.
fn assert_one_role_logged_in(emulator: &Emulator) {
    let keys = access_keys(emulator);
    assert!(keys.len() == 1 && keys[0].starts_with("ASIA"), "{keys:?}");
    assert_eq!(emulator.login_count(), 3);
    assert_eq!(refused(emulator).len(), 0);
}

#[test]
fn the_role_of_the_connection_string_is_assumed() {
    const TEST: &str = "the_role_of_the_connection_string_is_assumed";
    if is_child(TEST) {
        return log_in();
    }
    let emulator = emulator();
    let role = "arn:aws:iam::210987654321:role/team/database";
    emulator.aws().trust_role(role, Some("partner-42"));
    let url = format!(
        "{}&iam_role_arn={role}&iam_external_id=partner-42&iam_session_name=billing",
        emulator.url("app")
    );
    with_sts(homeless(TEST, &emulator), &emulator)
        .argument("URL", url)
        .run();
    assert_one_role_logged_in(&emulator);
    let told = |parameter| told_sts(&emulator, parameter);
    assert_eq!(told("RoleArn"), [Some(role.to_owned())]);
    assert_eq!(told("ExternalId"), [Some("partner-42".to_owned())]);
    assert_eq!(told("RoleSessionName"), [Some("billing".to_owned())]);
}

#[test]
fn a_role_is_assumed_from_a_role() {
    const TEST: &str = "a_role_is_assumed_from_a_role";
    let (hub, spoke) = (
        "arn:aws:iam::123456789012:role/hub",
        "arn:aws:iam::210987654321:role/spoke",
    );
    if is_child(TEST) {
        let auth = IamAuth::builder()
            .assume_role(AssumeRole::new(hub))
            .assume_role(AssumeRole::new(spoke).external_id("x"))
            .build()
            .unwrap();
        // Two databases, and credentials for both. A login at the second would be refused, and the credentials
        // fetched anew for it.
        auth.source(&endpoint()).token().unwrap();
        let manager = PgConnectionManager::builder(&child::argument("URL")).auth(auth);
        drop(manager.build().unwrap().try_connect().unwrap());
        return;
    }
    let emulator = emulator();
    with_sts(homeless(TEST, &emulator), &emulator).run();
    let told = |parameter| told_sts(&emulator, parameter);
    assert_eq!(
        told("RoleArn"),
        [Some(hub.to_owned()), Some(spoke.to_owned())]
    );
    assert_eq!(told("ExternalId"), [None, Some("x".to_owned())]);
    let keys = access_keys(&emulator);
    assert!(keys.len() == 1 && keys[0].starts_with("ASIA"), "{keys:?}");
}

#[test]
fn a_role_without_trust_is_credentials_refused() {
    const TEST: &str = "a_role_without_trust_is_credentials_refused";
    let role = "arn:aws:iam::210987654321:role/database";
    if is_child(TEST) {
        let role = AssumeRole::new(role).external_id("wrong");
        let auth = IamAuth::builder().assume_role(role);
        let error = fail_to_log_in(auth.refresh_timeout(PATIENCE));
        assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{error}");
        let text = error.to_string();
        assert!(text.contains("external id"), "{text}");
        assert!(text.contains("not authorized to perform"), "{text}");
        return;
    }
    let emulator = emulator();
    emulator.aws().trust_role(role, Some("partner-42"));
    with_sts(homeless(TEST, &emulator), &emulator).run();
    assert_eq!(emulator.login_count(), 0);
}

/// FAULTS.md row 1.
#[test]
fn a_containers_credentials_are_replaced_while_a_pool_works() {
    const TEST: &str = "a_containers_credentials_are_replaced_while_a_pool_works";
    if is_child(TEST) {
        let auth = IamAuth::builder()
            .token_lifetime(10 * SECOND)
            .build()
            .unwrap();
        let manager = PgConnectionManager::builder(&child::argument("URL"))
            .auth(auth.clone())
            .build()
            .unwrap();
        let pool = manager.pool_builder().max_size(2).build().unwrap();
        // The third token is signed after the credentials of the first have expired.
        while auth.stats().tokens_signed < 3 {
            let mut connection = pool.get().unwrap();
            let query = diesel::sql_query("SELECT 1");
            diesel::RunQueryDsl::execute(query, &mut *connection).unwrap();
            manager.try_connect().unwrap();
            std::thread::sleep(SECOND / 20);
        }
        manager.try_connect().unwrap();
        return;
    }
    let emulator = emulator();
    emulator.aws().set_credential_lifetime(12 * SECOND);
    with_container(homeless(TEST, &emulator), &emulator).run();
    let keys = access_keys(&emulator);
    assert!(keys.len() >= 2, "{keys:?}");
    assert!(emulator.aws().requests(AwsService::Container) >= keys.len());
}

/// EKS Pod Identity: the container endpoint, with the authorization token in a file.
#[test]
fn a_pod_sends_the_token_from_its_file() {
    const TEST: &str = "a_pod_sends_the_token_from_its_file";
    if is_child(TEST) {
        return log_in();
    }
    let emulator = emulator();
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    let aws = emulator.aws();
    std::fs::write(&token, aws.container_authorization_token()).unwrap();
    homeless(TEST, &emulator)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            aws.container_credentials_url(),
        )
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token)
        .run();
    assert_one_role_logged_in(&emulator);
}

#[test]
fn a_profiles_credential_process_runs_once_for_all_databases() {
    const TEST: &str = "a_profiles_credential_process_runs_once_for_all_databases";
    if is_child(TEST) {
        return log_in();
    }
    let emulator = emulator();
    let home = tempfile::tempdir().unwrap();
    let (script, runs) = (home.path().join("process"), home.path().join("runs"));
    let program = format!(
        "echo run >> '{}'\n\
         echo '{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{}\"}}'\n",
        runs.display(),
        emulator.access_key(),
        emulator.secret_key(),
    );
    std::fs::write(&script, program).unwrap();
    let config = home.path().join("config");
    let profile = format!(
        "[profile database]\ncredential_process = /bin/sh {}\n",
        script.display()
    );
    std::fs::write(&config, profile).unwrap();
    child(TEST, home.path())
        .env("AWS_CONFIG_FILE", &config)
        // A profile that is set takes precedence over variables of the environment.
        .env("AWS_ACCESS_KEY_ID", "AKIAOFSOMEBODYELSE00")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .argument(
            "URL",
            format!("{}&iam_profile=database", emulator.url("app")),
        )
        .run();
    assert_eq!(emulator.login_count(), 3);
    assert_eq!(refused(&emulator).len(), 0);
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
}

/// Of a profile, the SDK passes on the role, the external id and the session's name; the credentials last for STS's
/// default, an hour, which is also the limit of a chained role.
#[test]
fn a_profiles_role_has_the_default_duration_and_no_source_identity() {
    const TEST: &str = "a_profiles_role_has_the_default_duration_and_no_source_identity";
    if is_child(TEST) {
        return log_in();
    }
    let emulator = emulator();
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config");
    let role = "arn:aws:iam::123456789012:role/database";
    let profile = format!(
        "[default]\nrole_arn = {role}\nrole_session_name = billing\ncredential_source = Environment\n\
         duration_seconds = 7200\nsource_identity = alice\n"
    );
    std::fs::write(&config, profile).unwrap();
    with_sts(child(TEST, home.path()), &emulator)
        .env("AWS_CONFIG_FILE", &config)
        .argument(
            "URL",
            format!("{}&iam_profile=default", emulator.url("app")),
        )
        .run();
    assert_one_role_logged_in(&emulator);
    let told = |parameter| told_sts(&emulator, parameter);
    assert_eq!(told("RoleSessionName"), [Some("billing".to_owned())]);
    assert_eq!(told("DurationSeconds"), [None]);
    assert_eq!(told("SourceIdentity"), [None]);
}

#[test]
fn a_web_identity_takes_its_role() {
    const TEST: &str = "a_web_identity_takes_its_role";
    if is_child(TEST) {
        return log_in();
    }
    let emulator = emulator();
    let home = tempfile::tempdir().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "header.claims.signature").unwrap();
    let role = "arn:aws:iam::123456789012:role/pod";
    child(TEST, home.path())
        .argument("URL", emulator.url("app"))
        .env("AWS_ENDPOINT_URL_STS", emulator.aws().sts_url())
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .env("AWS_ROLE_ARN", role)
        .env("AWS_ROLE_SESSION_NAME", "pod-7")
        .env("AWS_REGION", emulator.region())
        .run();
    assert_one_role_logged_in(&emulator);
    assert_eq!(told_sts(&emulator, "RoleArn"), [Some(role.to_owned())]);
    let sessions = told_sts(&emulator, "RoleSessionName");
    assert_eq!(sessions, [Some("pod-7".to_owned())]);
}

#[test]
fn an_instance_gives_its_role_and_its_region() {
    const TEST: &str = "an_instance_gives_its_role_and_its_region";
    if is_child(TEST) {
        return log_in();
    }
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let alias = "db.example.com";
    let emulator = Emulator::builder()
        .endpoint(alias, 5432)
        .certificate_names([host, alias])
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    homeless(TEST, &emulator)
        .argument("URL", format!("{}&iam_port=5432", emulator.url("app")))
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            emulator.aws().metadata_url(),
        )
        .run();
    assert_one_role_logged_in(&emulator);
}

#[test]
fn without_credentials_the_error_lists_the_sources_searched() {
    const TEST: &str = "without_credentials_the_error_lists_the_sources_searched";
    if is_child(TEST) {
        let error = fail_to_log_in(IamAuth::builder());
        assert_eq!(error.kind(), ErrorKind::CredentialsNotFound, "{error}");
        assert!(error.to_string().contains("profile"), "{error}");
        let error = fail_to_log_in(IamAuth::builder().profile("missing"));
        assert_eq!(error.kind(), ErrorKind::CredentialsNotFound, "{error}");
        assert!(error.to_string().contains("missing"), "{error}");
        return;
    }
    homeless(TEST, &emulator()).run();
}

#[test]
fn a_source_that_refuses_or_answers_nonsense_is_a_refusal() {
    const TEST: &str = "a_source_that_refuses_or_answers_nonsense_is_a_refusal";
    if is_child(TEST) {
        // The SDK makes several attempts, with pauses.
        let error = fail_to_log_in(IamAuth::builder().refresh_timeout(PATIENCE));
        assert_eq!(error.kind(), ErrorKind::CredentialsRefused, "{error}");
        return;
    }
    let emulator = emulator();
    emulator
        .aws()
        .set_behaviour(AwsService::Container, AwsBehaviour::Garbled);
    with_container(homeless(TEST, &emulator), &emulator).run();
    // As if another container sent the request.
    emulator
        .aws()
        .set_behaviour(AwsService::Container, AwsBehaviour::Normal);
    with_container(homeless(TEST, &emulator), &emulator)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")
        .run();
    assert_eq!(emulator.login_count(), 0);
}

#[test]
fn a_source_that_does_not_answer_has_its_own_kind() {
    const TEST: &str = "a_source_that_does_not_answer_has_its_own_kind";
    if is_child(TEST) {
        let error = fail_to_log_in(IamAuth::builder().refresh_timeout(MOMENT));
        assert_eq!(error.kind(), ErrorKind::CredentialsTimeout, "{error}");
        assert!(
            error.to_string().contains("iam_credentials_timeout"),
            "{error}"
        );
        return;
    }
    let emulator = emulator();
    emulator
        .aws()
        .set_behaviour(AwsService::Container, AwsBehaviour::Slow(60 * SECOND));
    with_container(homeless(TEST, &emulator), &emulator).run();
}

#[test]
fn a_blocking_provider_gets_an_error_that_names_credentials_fn() {
    const TEST: &str = "a_blocking_provider_gets_an_error_that_names_credentials_fn";
    if is_child(TEST) {
        let (release, held) = channel();
        let auth = IamAuth::builder()
            .credentials_provider(Blocks(Mutex::new(held)))
            .refresh_timeout(MOMENT);
        let error = fail_to_log_in(auth);
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.to_string().contains("credentials_fn"), "{error}");
        drop(release);
        return;
    }
    // All identities of the process share the signing thread that is blocked.
    homeless(TEST, &emulator()).run();
}

/// Blocks until the sender is dropped.
#[derive(Debug)]
struct Blocks(Mutex<Receiver<()>>);

impl ProvideCredentials for Blocks {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let _ = self.0.lock().recv();
        future::ProvideCredentials::ready(Ok(keys()))
    }
}

#[test]
fn credentials_that_expire_at_once_have_their_own_error() {
    const TEST: &str = "credentials_that_expire_at_once_have_their_own_error";
    if is_child(TEST) {
        let error = fail_to_log_in(IamAuth::builder());
        assert_eq!(error.kind(), ErrorKind::CredentialsExpired, "{error}");
        return;
    }
    let emulator = emulator();
    emulator.aws().set_credential_lifetime(SECOND);
    with_container(homeless(TEST, &emulator), &emulator).run();
}
