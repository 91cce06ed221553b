//! RDS Proxy and Aurora DSQL.

use std::num::NonZeroU32;
use std::time::Duration;

use postgres::config::SslMode;
use rds_iam_emulator::{Emulator, Engine, Fault, LoginResult, Reason};

use crate::client::{Token, config, connect, login, refusal, tls, until_refused};

fn proxy() -> Emulator {
    let emulator = Emulator::builder().engine(Engine::Proxy).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

#[test]
fn rds_proxy_has_messages_of_its_own() {
    let emulator = proxy();
    assert!(emulator.host().contains(".proxy-"));
    login(&emulator, "app");
    assert_eq!(
        refusal(connect(&emulator, "app", "no token")).1,
        "The IAM authentication failed for the role app. \
         Check the IAM token for this role and try again."
    );
    let token = Token::new(&emulator, "app").sign();
    let clear = config(&emulator, "app", &token)
        .ssl_mode(SslMode::Disable)
        .connect(tls(&emulator));
    assert_eq!(
        refusal(clear).1,
        "IAM is allowed only with SSL connections."
    );
    let options = config(&emulator, "app", &token)
        .options("-c search_path=elsewhere")
        .connect(tls(&emulator));
    let (sqlstate, message) = refusal(options);
    assert_eq!(sqlstate, "0A000");
    assert!(message.starts_with("Feature not supported"), "{message}");

    emulator.fault(Fault::Throttle(NonZeroU32::MIN));
    assert_eq!(
        until_refused(&emulator, &token).1,
        "The IAM authentication failed because of too many competing requests."
    );

    emulator.heal();
    emulator.fault(Fault::LimitConnections(NonZeroU32::MIN));
    assert_eq!(
        until_refused(&emulator, &token).1,
        "Rate of connection to proxy exceeded 1."
    );
}

#[test]
fn rds_proxy_refuses_users_that_it_has_no_credentials_for() {
    let emulator = proxy();
    assert_eq!(
        refusal(connect(&emulator, "stranger", "any")).1,
        "This RDS proxy has no credentials for the role stranger. \
         Check the credentials for this role and try again."
    );
}

#[test]
fn rds_proxys_certificate_comes_from_another_ca_than_the_databases() {
    let rds = Emulator::builder().start().unwrap();
    let proxy = proxy();
    let token = Token::new(&proxy, "app").sign();
    let error = config(&proxy, "app", &token)
        .connect(tls(&rds))
        .err()
        .unwrap();
    assert!(format!("{error:?}").contains("verify failed"), "{error:?}");
}

#[test]
fn dsql_takes_tokens_without_user_and_port() {
    let emulator = Emulator::builder().engine(Engine::Dsql).start().unwrap();
    assert!(emulator.host().ends_with(".dsql.eu-west-1.on.aws"));
    emulator
        .execute("CREATE ROLE admin LOGIN; CREATE ROLE reader LOGIN")
        .unwrap();
    let token = |action: &str| Token::of_dsql(&emulator, action);
    connect(&emulator, "admin", &token("DbConnectAdmin").sign()).unwrap();
    connect(&emulator, "reader", &token("DbConnect").sign()).unwrap();

    let reason = |user: &str, token: &Token| {
        let (sqlstate, message) = refusal(connect(&emulator, user, &token.sign()));
        assert_eq!(sqlstate, "28000");
        assert_eq!(message, "unable to accept connection, access denied");
        *emulator.logins().pop().unwrap().result()
    };
    assert_eq!(
        reason("admin", &token("DbConnect")),
        LoginResult::Refused(Reason::Action)
    );
    assert_eq!(
        reason("reader", &token("DbConnectAdmin")),
        LoginResult::Refused(Reason::Action)
    );
    let mut with_port = token("DbConnect");
    with_port.authority = format!("{}:{}", emulator.host(), emulator.port());
    assert_eq!(
        reason("reader", &with_port),
        LoginResult::Refused(Reason::Port)
    );
    let mut of_rds = token("DbConnect");
    of_rds.service = "rds-db".to_owned();
    assert_eq!(
        reason("reader", &of_rds),
        LoginResult::Refused(Reason::Service)
    );
    let mut with_user = token("DbConnect");
    with_user.query = "Action=DbConnect&DBUser=reader".to_owned();
    assert_eq!(
        reason("reader", &with_user),
        LoginResult::Refused(Reason::User)
    );
}

#[test]
fn dsql_closes_sessions_at_their_limit() {
    let emulator = Emulator::builder()
        .engine(Engine::Dsql)
        .session_limit(Duration::from_secs(2))
        .start()
        .unwrap();
    emulator.execute("CREATE ROLE admin LOGIN").unwrap();
    let token = Token::of_dsql(&emulator, "DbConnectAdmin");
    let mut client = connect(&emulator, "admin", &token.sign()).unwrap();
    assert!(client.simple_query("SELECT pg_sleep(30)").is_err());
}
