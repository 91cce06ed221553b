//! The crate `postgres`'s clients, where they differ from diesel's connections.

mod async_code;
mod queries;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use diesel_rds_iam::postgres::config::SslMode as PostgresSslMode;
use diesel_rds_iam::postgres::error::SqlState;
use diesel_rds_iam::postgres::{Client, Config};
use diesel_rds_iam::{
    ErrorKind, IamAuth, ManualClock, Password, PostgresConnectionManager, SslMode,
};
use parking_lot::Mutex;
use r2d2::ManageConnection;
use rds_iam_emulator::{Emulator, Engine, Fault, Language, Stage};

use crate::support::child::{self, Child};
use crate::support::database::{Ask, auth_builder, builder_of, emulator, refused, shared_emulator};
use crate::support::{MINUTE, PATIENCE, SECOND, keys};

fn manager(emulator: &Emulator) -> PostgresConnectionManager {
    builder_of(emulator).build().unwrap()
}

/// The error of a login with `addition` to the URL.
fn failure(emulator: &Emulator, addition: &str) -> (ErrorKind, String) {
    let url = format!("{}{addition}", emulator.url("app"));
    let auth = auth_builder(emulator).build().unwrap();
    let manager = PostgresConnectionManager::builder(&url).auth(auth);
    let error = manager.build().unwrap().try_connect().err().unwrap();
    (error.kind(), error.to_string())
}

#[test]
fn tokens_are_replaced_before_they_expire() {
    let emulator = emulator();
    // In the past, so that the first token is valid for another minute when the second is due.
    let time = ManualClock::starting_at(SystemTime::now() - 14 * MINUTE);
    let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
    let manager: PostgresConnectionManager =
        builder_of(&emulator).auth(auth.clone()).build().unwrap();
    let mut session = manager.try_connect().unwrap();
    drop(manager.try_connect().unwrap());
    time.advance(14 * MINUTE);
    drop(manager.try_connect().unwrap());
    let tokens: Vec<_> = emulator.logins();
    assert_eq!(tokens[0].fingerprint(), tokens[1].fingerprint());
    assert_ne!(tokens[1].fingerprint(), tokens[2].fingerprint());
    assert!(refused(&emulator).is_empty());
    assert_eq!(session.ask("current_user"), "app");
}

/// A connection string cannot contain a callback for notices.
#[test]
fn the_config_of_a_login_can_be_tuned() {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = notices.clone();
    let builder = builder_of::<Client>(shared_emulator()).tune_config(move |config| {
        let heard = heard.clone();
        config.notice_callback(move |notice| heard.lock().push(notice.message().to_owned()));
        // User, TLS and the time limit remain the manager's.
        config.user("nobody").ssl_mode(PostgresSslMode::Disable);
        config.connect_timeout(Duration::ZERO);
    });
    let mut connection = builder.build().unwrap().try_connect().unwrap();
    assert_eq!(connection.ask("current_user"), "app");
    let raise = "DO $$ BEGIN RAISE NOTICE 'heard'; END $$";
    connection.batch_execute(raise).unwrap();
    assert_eq!(*notices.lock(), ["heard"]);
}

/// No other server must get a token.
#[test]
fn a_tuned_config_names_no_server() {
    let changes: [fn(&mut Config); 4] = [
        |config| {
            config.host("elsewhere.example.com");
        },
        |config| {
            config.hostaddr([127, 0, 0, 1].into());
        },
        |config| {
            config.port(1);
        },
        |config| {
            config.password("other");
        },
    ];
    for change in changes {
        let builder = builder_of::<Client>(shared_emulator()).tune_config(change);
        let error = builder.build().unwrap().try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("tune_config"), "{error}");
    }
}

/// In any language of the server.
#[test]
fn a_refused_login_is_recognised_by_its_sqlstate() {
    let emulator = emulator();
    emulator.set_language(Language::Russian).unwrap();
    emulator.fault(Fault::RefuseNext(1));
    let (kind, text) = failure(&emulator, "");
    assert_eq!(kind, ErrorKind::LoginRefused, "{text}");
    assert!(text.contains("PAM") && text.contains("rds_iam"), "{text}");

    let mut expected = vec![
        ("&dbname=nonsense", ErrorKind::Configuration),
        ("&options=-c%20nonsense%3D1", ErrorKind::Configuration),
        ("&options=-c%20work_mem%3Dx", ErrorKind::Configuration),
    ];
    emulator
        .execute("REVOKE CONNECT ON DATABASE template1 FROM PUBLIC")
        .unwrap();
    expected.push(("&dbname=template1", ErrorKind::LoginRefused));
    for (addition, expected) in expected {
        let (kind, text) = failure(&emulator, addition);
        assert_eq!(kind, expected, "{addition}: {text}");
    }

    emulator
        .execute("ALTER ROLE app CONNECTION LIMIT 0")
        .unwrap();
    let (kind, text) = failure(&emulator, "");
    assert_eq!(kind, ErrorKind::ServerUnavailable, "too many: {text}");
    emulator.set_authentication_timeout(SECOND / 10);
    emulator.fault(Fault::Delay(Stage::Login, MINUTE));
    let (kind, text) = failure(&emulator, "");
    assert_eq!(kind, ErrorKind::ServerUnavailable, "too slow: {text}");
}

#[test]
fn a_throttling_proxy_is_not_a_refused_login() {
    let emulator = Emulator::builder().engine(Engine::Proxy).start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator.fault(Fault::LimitConnections(1.try_into().unwrap()));
    let manager = manager(&emulator);
    let error = loop {
        if let Err(error) = manager.try_connect() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    emulator.heal();
    let (kind, text) = failure(&emulator, "&options=-c%20work_mem%3D1MB");
    assert_eq!(kind, ErrorKind::Configuration, "{text}");
}

#[test]
fn a_writer_is_distinguished_from_a_reader() {
    let emulator = shared_emulator();
    let url = format!("{}&target_session_attrs=", emulator.url("app"));
    let log_in = |kind: &str| {
        let builder = PostgresConnectionManager::builder(&format!("{url}{kind}"));
        let auth = auth_builder(emulator).build().unwrap();
        builder.auth(auth).build().unwrap().try_connect()
    };
    // Zero selects the system's default; the system itself would reject it as a value.
    let zeros = "keepalives_idle=0&keepalives_interval=0&keepalives_count=0&tcp_user_timeout=0";
    log_in(&format!("any&{zeros}")).unwrap();
    log_in("read-write").unwrap();
    let error = log_in("read-only").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ServerUnavailable, "{error}");
    assert!(error.to_string().contains("not read only"), "{error}");
}

/// FAULTS.md row 19.
#[test]
fn a_server_that_falls_silent_times_out() {
    let emulator = emulator();
    let log_in = || {
        let builder = builder_of::<diesel_rds_iam::postgres::Client>(&emulator);
        let manager = builder.connect_timeout(SECOND / 2).build().unwrap();
        manager.try_connect()
    };
    for stage in [Stage::Accept, Stage::Tls, Stage::Login] {
        for (fault, words) in [
            (Fault::BlackHole(stage), "connect_timeout"),
            (Fault::Reset(stage), "cannot reach the server"),
        ] {
            emulator.set_faults(&[fault]);
            let begun = Instant::now();
            let error = log_in().err().unwrap();
            assert!(begun.elapsed() < PATIENCE / 2, "{fault:?}");
            assert_eq!(error.kind(), ErrorKind::Network, "{fault:?}: {error}");
            assert!(error.to_string().contains(words), "{fault:?}: {error}");
        }
    }
    emulator.set_faults(&[Fault::OneByteAtATime]);
    let manager = manager(&emulator);
    let mut client = manager.try_connect().unwrap();
    assert_eq!(client.ask("current_user"), "app");
}

/// FAULTS.md row 19: the time limit of a login does not limit the session.
#[test]
fn a_session_outlives_the_limit_of_its_login() {
    let builder = builder_of(shared_emulator()).connect_timeout(5 * SECOND);
    let manager: PostgresConnectionManager = builder.build().unwrap();
    let begun = Instant::now();
    let mut client = manager.try_connect().unwrap();
    while begun.elapsed() < 6 * SECOND {
        client.batch_execute("SELECT pg_sleep(0.5)").unwrap();
    }
}

/// FAULTS.md row 19: before TLS, and without TLS.
#[test]
fn a_server_that_never_answers_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("host=127.0.0.1 port={port} user=app");
    for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
        let manager = PostgresConnectionManager::builder(&url)
            .password(Password::fixed("secret"))
            .sslmode(mode)
            .connect_timeout(SECOND / 5);
        let error = manager.build().unwrap().try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Network, "{mode:?}: {error}");
        assert!(error.to_string().contains("connect_timeout"), "{error}");
    }
    drop(listener);
    let manager = PostgresConnectionManager::builder(&url).password(Password::fixed("secret"));
    let manager = manager.sslmode(SslMode::Require).build().unwrap();
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Network, "nobody there: {error}");
}

#[test]
fn a_password_logs_in_with_tls_and_without() {
    let emulator = Emulator::builder().force_ssl(false).start().unwrap();
    emulator.create_password_user("bob", "o' \\ \n").unwrap();
    let url = emulator.url("bob");
    for mode in [SslMode::Disable, SslMode::Prefer, SslMode::VerifyFull] {
        let builder = PostgresConnectionManager::builder(&url).sslmode(mode);
        let builder = builder.password(Password::fixed("o' \\ \n"));
        let mut client = builder.build().unwrap().try_connect().unwrap();
        assert_eq!(client.ask("current_user"), "bob", "{mode:?}");
    }
    let builder = PostgresConnectionManager::builder(&url).password(Password::fixed("wrong"));
    let error = builder.build().unwrap().try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");

    let too_long = Password::fixed("p".repeat(65_531));
    let zero = Password::fixed("a\0b");
    let logins = emulator.login_count();
    for password in [too_long, zero] {
        let builder = PostgresConnectionManager::builder(&url).password(password);
        let error = builder.build().unwrap().try_connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    assert_eq!(emulator.login_count(), logins, "it was sent");

    // Over the Unix socket, which has no TLS.
    let socket = format!("{} iam=off", emulator.superuser_url());
    let manager = PostgresConnectionManager::new(&socket).unwrap();
    drop(manager.try_connect().unwrap());
}

/// No requested parameter is ignored silently.
#[test]
fn parameters_that_the_crate_postgres_lacks_are_rejected_by_name() {
    let url = "host=mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com user=app";
    let build = |addition: &str| {
        let auth = IamAuth::builder().credentials_provider(keys()).build();
        let builder = PostgresConnectionManager::builder(&format!("{url} {addition}"));
        builder.auth(auth.unwrap()).build()
    };
    for (keyword, value) in [
        ("client_encoding", "LATIN1"),
        ("gssencmode", "require"),
        ("gsslib", "gssapi"),
        ("krbsrvname", "postgres"),
        ("load_balance_hosts", "nonsense"),
        ("replication", "database"),
        ("require_auth", "password"),
        ("requirepeer", "postgres"),
        ("ssl_max_protocol_version", "TLSv1.2"),
        ("ssl_min_protocol_version", "TLSv1.3"),
        ("sslcert", "client.crt"),
        ("sslcrl", "root.crl"),
        ("sslkey", "client.key"),
        ("sslnegotiation", "direct"),
        ("sslpassword", "hunter2"),
        ("passfile", "pass"),
        ("service", "db"),
        ("target_session_attrs", "leader"),
        ("channel_binding", "nonsense"),
        ("keepalives_idle", "soon"),
        ("keepalives_count", "-1"),
        ("tcp_user_timeout", "soon"),
        ("connect_timeout", "soon"),
        ("hostaddr", "db.example.com"),
        ("sslmode", "allow"),
    ] {
        let error = build(&format!("{keyword}={value}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{keyword}: {error}");
        assert!(error.to_string().contains(keyword), "{keyword}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    // It may be a part of a password.
    let error = build("hunter2=x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");

    for addition in [
        "client_encoding=UTF8 gssencmode=disable sslsni=1 sslcompression=0 sslnegotiation=postgres",
        "keepalives=1 keepalives_idle=30 keepalives_interval=5 keepalives_count=3",
        "target_session_attrs=prefer-standby",
        "tcp_user_timeout=5000 connect_timeout=3 channel_binding=prefer hostaddr=10.0.0.1",
        "application_name=x fallback_application_name=y options='-c x.y=1' dbname=app",
        "sslrootcert=system",
    ] {
        build(addition).unwrap();
    }

    let local =
        |string: &str| PostgresConnectionManager::new(&format!("user=app iam=off {string}"));
    for (string, keyword) in [
        ("", "host"),
        ("host=@abstract", "host"),
        ("host=/tmp hostaddr=127.0.0.1", "host"),
        ("host=h sslmode=allow", "sslmode"),
        ("host=h sslmode=verify-ca", "sslrootcert"),
        ("host=h passfile=pass", "passfile"),
        ("host=h service=db", "service"),
    ] {
        let error = local(string).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{string}: {error}");
        assert!(error.to_string().contains(keyword), "{string}: {error}");
    }
}

/// FAULTS.md row 9: a public CA is trusted for a database only if that is requested.
#[test]
fn system_roots_are_trusted_with_sslrootcert_system_only() {
    const TEST: &str = "system_roots_are_trusted_with_sslrootcert_system_only";
    if !child::is_running(module_path!(), TEST) {
        let emulator = shared_emulator();
        let url = emulator.url("app");
        let (url, _tls) = url.split_once("&sslmode").unwrap();
        let home = tempfile::tempdir().unwrap();
        // OpenSSL reads the system's trusted roots from here.
        return Child::new(module_path!(), TEST, home.path())
            .argument("URL", url)
            .env("SSL_CERT_FILE", emulator.ca_path())
            .env("AWS_ACCESS_KEY_ID", emulator.access_key())
            .env("AWS_SECRET_ACCESS_KEY", emulator.secret_key())
            .run();
    }
    let url = child::argument("URL");
    let manager = |url: &str| PostgresConnectionManager::new(url).unwrap();
    let error = manager(&url).try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    let mut client = manager(&format!("{url}&sslrootcert=system"))
        .try_connect()
        .unwrap();
    assert_eq!(client.ask("current_user"), "app");
}

#[test]
fn into_inner_returns_the_client() {
    let connection = manager(shared_emulator()).try_connect().unwrap();
    let mut client = connection.into_inner();
    client.batch_execute("SELECT 1").unwrap();
    client.close().unwrap();
}

#[test]
fn maximum_lifetimes_are_respected() {
    let emulator = emulator();
    let pool = manager(&emulator)
        .pool_builder()
        .max_size(2)
        .max_lifetime(Some(SECOND))
        .build()
        .unwrap();
    let begun = Instant::now();
    while emulator.login_count() < 5 {
        assert_eq!(pool.get().unwrap().ask("current_user"), "app");
        assert!(begun.elapsed() < PATIENCE, "{}", emulator.login_count());
        thread::park_timeout(SECOND / 20);
    }
}

#[test]
fn a_connection_that_is_gone_is_not_handed_out() {
    let emulator = emulator();
    let pool = manager(&emulator)
        .pool_builder()
        .max_size(1)
        .build()
        .unwrap();
    drop(pool.get().unwrap());
    emulator.drop_sessions();
    assert_eq!(pool.get().unwrap().ask("current_user"), "app");
    assert_eq!(emulator.login_count(), 2);
}

/// FAULTS.md row 30: a connection to a writer that failed may never get a packet again.
#[test]
fn a_writer_that_falls_silent_times_out() {
    let emulator = emulator();
    let builder = builder_of::<diesel_rds_iam::postgres::Client>(&emulator).writer();
    let manager = builder.build().unwrap();
    let mut connection = manager.try_connect().unwrap();
    manager.is_valid(&mut connection).unwrap();
    emulator.fault(Fault::BlackHole(Stage::Data));
    thread::scope(|scope| {
        let (sender, result) = mpsc::channel();
        scope.spawn(move || sender.send(manager.is_valid(&mut connection)));
        let result = result.recv_timeout(PATIENCE);
        emulator.drop_sessions();
        let error = result.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    });
}

#[test]
fn a_query_is_cancelled_over_the_same_tls() {
    let manager = manager(shared_emulator());
    let mut client = manager.try_connect().unwrap();
    let (token, tls) = (client.cancel_token(), manager.tls());
    let (done, is_done) = mpsc::channel::<()>();
    let canceller = thread::spawn(move || {
        // The query may not have begun.
        while is_done.recv_timeout(SECOND / 5) == Err(RecvTimeoutError::Timeout) {
            token.cancel_query(tls.clone()).unwrap();
        }
    });
    let error = client.batch_execute("SELECT pg_sleep(30)").unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error}");
    drop(done);
    canceller.join().unwrap();
}

#[test]
fn an_identity_serves_both_kinds_of_connections() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    let by_postgres: PostgresConnectionManager =
        builder_of(&emulator).auth(auth.clone()).build().unwrap();
    let by_diesel = crate::support::database::manager_builder(&emulator).auth(auth.clone());
    drop(by_postgres.try_connect().unwrap());
    drop(by_diesel.build().unwrap().try_connect().unwrap());
    assert_eq!(auth.stats().tokens_signed, 1);
    assert_eq!(emulator.login_count(), 2);
}
