//! Faults on demand.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rds_iam_emulator::{Emulator, Fault, Language, LoginResult, Reason, Stage};

use crate::client::{
    Token, config, connect, emulator, login, query_one, refusal, tls, until_refused,
};

#[test]
fn refuse_next_refuses_that_many_logins() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    emulator.fault(Fault::RefuseNext(3));
    for _ in 0..3 {
        assert_eq!(refusal(connect(&emulator, "app", &token)).0, "28000");
    }
    connect(&emulator, "app", &token).unwrap();
    let results: Vec<LoginResult> = emulator
        .logins()
        .iter()
        .map(|login| *login.result())
        .collect();
    assert_eq!(results[..3], [LoginResult::Refused(Reason::Fault); 3]);
}

#[test]
fn a_delay_applies_to_its_stage() {
    let emulator = emulator();
    let delay = Duration::from_millis(300);
    for stage in [Stage::Accept, Stage::Tls, Stage::Login, Stage::Data] {
        emulator.set_faults(&[Fault::Delay(stage, delay)]);
        let start = Instant::now();
        let mut client = login(&emulator, "app");
        assert!(start.elapsed() >= delay, "{stage:?}");
        if stage == Stage::Data {
            let start = Instant::now();
            query_one(&mut client, "SELECT 'x'");
            assert!(start.elapsed() >= delay, "a query of an open session");
        }
        emulator.heal();
        query_one(&mut client, "SELECT 'x'");
    }
}

#[test]
fn a_black_hole_is_silent_and_keeps_the_connection_open() {
    let emulator = emulator();
    for stage in [Stage::Accept, Stage::Tls, Stage::Login] {
        // A client that connects after the fault was deactivated proves nothing. That takes a machine that stands
        // still for seconds.
        let was_swallowed = (0..5).any(|_| is_swallowed(&emulator, stage));
        assert!(was_swallowed, "{stage:?}");
    }
}

/// Whether a client was lost in a black hole at `stage` until all connections were ended.
fn is_swallowed(emulator: &Emulator, stage: Stage) -> bool {
    emulator.set_faults(&[Fault::BlackHole(stage)]);
    emulator.set_authentication_timeout(Duration::from_secs(1));
    let token = Token::new(emulator, "app").sign();
    std::thread::scope(|scope| {
        let (sender, result) = std::sync::mpsc::channel();
        scope.spawn(move || sender.send(connect(emulator, "app", &token).map(drop)));
        // Longer than the server's time limit for a login.
        let silence = result.recv_timeout(Duration::from_millis(1_500));
        assert!(silence.is_err(), "{stage:?}: {silence:?}");
        // Other connections go on.
        emulator.heal();
        emulator.set_authentication_timeout(Duration::from_secs(60));
        login(emulator, "app");
        emulator.drop_sessions();
        match result.recv().unwrap() {
            Ok(()) => false,
            Err(error) => {
                assert!(error.as_db_error().is_none(), "{stage:?}: {error}");
                true
            }
        }
    })
}

#[test]
fn a_black_hole_applies_to_open_sessions() {
    let emulator = emulator();
    let mut client = login(&emulator, "app");
    emulator.fault(Fault::BlackHole(Stage::Data));
    std::thread::scope(|scope| {
        let (sender, result) = std::sync::mpsc::channel();
        scope.spawn(move || sender.send(client.simple_query("SELECT 1").map(drop)));
        assert!(result.recv_timeout(Duration::from_millis(300)).is_err());
        emulator.drop_sessions();
        assert!(result.recv().unwrap().is_err());
    });
}

#[test]
fn a_reset_applies_to_its_stage() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    for stage in [Stage::Accept, Stage::Tls, Stage::Login, Stage::Data] {
        let before = emulator.login_count();
        emulator.set_faults(&[Fault::Reset(stage)]);
        let error = connect(&emulator, "app", &token).err().unwrap();
        assert!(error.as_db_error().is_none(), "{stage:?}: {error}");
        // A session to reset exists only after the token was accepted.
        assert_eq!(
            emulator.login_count() - before,
            usize::from(stage == Stage::Data)
        );
    }
    emulator.heal();
    connect(&emulator, "app", &token).unwrap();

    emulator.fault(Fault::Reset(Stage::Accept));
    let mut tcp = TcpStream::connect(emulator.addr()).unwrap();
    let error = tcp.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_one_by_one_make_the_same_session() {
    let emulator = emulator();
    emulator.fault(Fault::OneByteAtATime);
    let mut client = login(&emulator, "app");
    let text = query_one(&mut client, "SELECT repeat('0123456789', 100)");
    assert_eq!(text, "0123456789".repeat(100));
}

#[test]
fn open_sessions_can_be_dropped_and_reset() {
    let emulator = emulator();
    let mut one = login(&emulator, "app");
    let mut other = login(&emulator, "app");
    assert_eq!(emulator.sessions(), 2);
    emulator.drop_sessions();
    assert_eq!(emulator.sessions(), 0);
    assert!(one.simple_query("SELECT 1").is_err());
    assert!(other.simple_query("SELECT 1").is_err());
    let mut next = login(&emulator, "app");
    next.simple_query("SELECT 1").unwrap();
    emulator.reset_sessions();
    assert!(next.simple_query("SELECT 1").is_err());

    // The result over TCP: an end, or a reset.
    let half_open = || {
        let mut tcp = TcpStream::connect(emulator.addr()).unwrap();
        tcp.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
            .unwrap();
        tcp.read_exact(&mut [0; 1]).unwrap();
        tcp
    };
    let mut tcp = half_open();
    emulator.drop_sessions();
    assert_eq!(tcp.read(&mut [0; 1]).unwrap(), 0);
    let mut tcp = half_open();
    emulator.reset_sessions();
    let error = tcp.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_throttle_refuses_only_logins_above_its_rate() {
    let emulator = emulator();
    let token = Token::new(&emulator, "app").sign();
    emulator.fault(Fault::Throttle(NonZeroU32::MIN));
    assert_eq!(until_refused(&emulator, &token).0, "28000");
    let login = emulator.logins().pop().unwrap();
    assert_eq!(login.result(), &LoginResult::Refused(Reason::Throttled));
    emulator.heal();
    connect(&emulator, "app", &token).unwrap();
}

#[test]
fn a_login_that_takes_too_long_is_cancelled() {
    let emulator = Emulator::builder()
        .authentication_timeout(Duration::from_secs(3))
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.fault(Fault::Delay(Stage::Login, Duration::from_secs(60)));
    let token = Token::new(&emulator, "app").sign();
    let (sqlstate, message) = refusal(connect(&emulator, "app", &token));
    assert_eq!(sqlstate, "57014");
    assert_eq!(message, "canceling authentication due to timeout");
}

#[test]
fn the_servers_messages_are_in_the_set_language() {
    let emulator = emulator();
    emulator.set_language(Language::German).unwrap();
    let (sqlstate, message) = refusal(connect(&emulator, "app", "no token"));
    assert_eq!(sqlstate, "28000");
    assert_eq!(
        message,
        "PAM-Authentifizierung für Benutzer »app« fehlgeschlagen"
    );

    emulator.set_language(Language::Russian).unwrap();
    let error = connect(&emulator, "app", "no token").err().unwrap();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.severity(), "ВАЖНО");
    assert_eq!(error.code().code(), "28000");
    emulator.set_language(Language::English).unwrap();
    assert!(
        refusal(connect(&emulator, "app", "no token"))
            .1
            .starts_with("PAM")
    );
}

#[test]
fn a_session_ends_at_its_limit() {
    const LIMIT: Duration = Duration::from_secs(2);
    let emulator = Emulator::builder().session_limit(LIMIT).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    let start = Instant::now();
    let mut client = login(&emulator, "app");
    while client.simple_query("SELECT pg_sleep(0.05)").is_ok() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the session outlives its limit"
        );
    }
    assert!(start.elapsed() >= LIMIT);
    emulator.set_session_limit(Duration::ZERO);
    let mut client = login(&emulator, "app");
    client.simple_query("SELECT pg_sleep(2.5)").unwrap();
}

#[test]
fn clients_reject_the_wrong_certificates() {
    let expired = Emulator::builder()
        .expired_certificate(true)
        .start()
        .unwrap();
    expired.create_iam_user("app").unwrap();
    let token = Token::new(&expired, "app").sign();
    let error = connect(&expired, "app", &token).err().unwrap();
    assert!(format!("{error:?}").contains("expired"), "{error:?}");

    let misnamed = Emulator::builder()
        .certificate_names(["other.example.com"])
        .start()
        .unwrap();
    misnamed.create_iam_user("app").unwrap();
    let token = Token::new(&misnamed, "app").sign();
    let error = connect(&misnamed, "app", &token).err().unwrap();
    assert!(
        format!("{error:?}").to_lowercase().contains("mismatch"),
        "{error:?}"
    );

    let error = config(&misnamed, "app", &token)
        .connect(tls(&expired))
        .err()
        .unwrap();
    assert!(format!("{error:?}").contains("verify failed"), "{error:?}");
}
