//! Servers that break the protocol.

use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel_rds_iam::{Backend, Error, ErrorKind, IamAuth, Password, RdsConnectionManager, SslMode};

use crate::support::hostile::{Attack, HostileServer};
use crate::support::{PATIENCE, keys};

const PASSWORD: &str = "S3cr3t";

/// Logs in with IAM. The server must get no token, and its answer must not cause another one to be signed.
fn refuse_token<C: Backend>(attack: Attack) -> Error {
    let server = HostileServer::start(attack);
    let auth = IamAuth::builder().credentials_provider(keys()).build();
    let manager = RdsConnectionManager::<C>::builder(&server.url())
        .auth(auth.unwrap())
        .build()
        .unwrap();
    let error = manager.try_connect().err().unwrap();
    let stats = manager.stats();
    assert_eq!((stats.tokens_signed, stats.logins_refused), (1, 0));
    let received = String::from_utf8_lossy(&server.received()).into_owned();
    assert!(!received.contains("X-Amz-"), "a token was sent: {received}");
    error
}

/// Logs in with a password and without TLS, in which an attack gets further.
fn log_in<C: Backend>(attack: Attack) -> Error {
    let server = HostileServer::start(attack);
    let manager = RdsConnectionManager::<C>::builder(&server.url())
        .password(Password::fixed(PASSWORD))
        .sslmode(SslMode::Disable)
        .connect_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let started = Instant::now();
    let error = manager.try_connect().err().unwrap();
    assert!(started.elapsed() < PATIENCE);
    let received = String::from_utf8_lossy(&server.received()).into_owned();
    assert!(!received.contains(PASSWORD), "the password was sent");
    error
}

/// FAULTS.md row 59.
#[test]
fn what_a_server_sends_before_tls_is_neither_trusted_nor_a_refused_login() {
    fn assert_is<C: Backend>() {
        let error = refuse_token::<C>(Attack::BytesBeforeTls);
        // libpq waits for the handshake before it reads what came before it.
        let kinds = [ErrorKind::Tls, ErrorKind::Network];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(!error.to_string().contains("injected"), "{error}");
        let error = refuse_token::<C>(Attack::ErrorBeforeTls);
        assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    }
    assert_is::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 59: a server that keeps sending is abandoned like a silent one.
#[test]
fn endless_notices_end_with_connect_timeout() {
    fn assert_is<C: Backend>() {
        let error = log_in::<C>(Attack::EndlessNotices);
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    }
    assert_is::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 59: a server that cannot complete SCRAM has not proved that it has the password.
#[test]
fn a_scram_exchange_that_a_server_cannot_complete_is_no_refused_login() {
    let error = log_in::<PgConnection>(Attack::Iterations("0"));
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    #[cfg(feature = "postgres")]
    {
        // Each iteration costs the client a hash; libpq has no limit for them.
        let attack = Attack::Iterations("4000000000");
        let error = log_in::<diesel_rds_iam::postgres::Client>(attack);
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    }
}

/// FAULTS.md row 57.
#[test]
fn an_unsupported_authentication_method_is_no_refused_login() {
    fn assert_is<C: Backend>() {
        let error = log_in::<C>(Attack::Method(6));
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("rds_iam"), "{error}");
    }
    assert_is::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 58: a terminal would interpret them.
#[test]
fn control_characters_of_a_server_are_escaped() {
    fn assert_is<C: Backend>() {
        let text = "PAM authentication failed for user \"app\u{1b}[2J\u{7}\u{9b}1m\u{202e}\"";
        let error = log_in::<C>(Attack::Error("28000", text));
        assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'));
        assert!(shown.contains(r"\u{1b}[2J"), "{shown}");
    }
    assert_is::<PgConnection>();
    #[cfg(feature = "postgres")]
    assert_is::<diesel_rds_iam::postgres::Client>();
}

/// FAULTS.md row 57: SQLSTATEs of broken connections, from a server that has answered.
#[cfg(feature = "postgres")]
#[test]
fn a_server_that_answers_can_be_reached() {
    for state in ["08P01", "08004", "08006"] {
        let attack = Attack::Error(state, "la conexión fue rechazada");
        let error = log_in::<diesel_rds_iam::postgres::Client>(attack);
        assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
        assert!(!error.to_string().contains("cannot reach"), "{error}");
    }
}
