//! Decides which logins succeed, and which error the others get.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::monotonic;
use crate::engine::Engine;
use crate::language::Described;
use crate::login::{Login, LoginResult};
use crate::packet::Startup;
use crate::postgres::admin::AccountStatus;
use crate::postgres::template::SUPERUSER;
use crate::reason::Reason;
use crate::refusal::{End, Refusal};
use crate::server::Server;
use crate::token;
use crate::verify::{self, Expectation};

/// Returns whether this user must present a token. If not, PostgreSQL itself asks for a password.
pub(crate) async fn wants_token(
    server: &Server,
    startup: &Startup,
    encrypted: bool,
    peer: SocketAddr,
) -> Result<bool, End> {
    let user = String::from_utf8_lossy(&startup.user);
    let database = String::from_utf8_lossy(&startup.database);
    let client = peer.ip().to_string();
    let refuse = |message: String| {
        Err(End::Refused(Refusal {
            sqlstate: "28000",
            message,
        }))
    };
    let phrases = server.language.phrases();
    let described = Described {
        host: &client,
        user: &user,
        database: &database,
        encrypted,
    };
    if let Some(rejection) = server.faults.rejects_this() {
        let answer = rejection.answer(server.engine, phrases, &described);
        return Err(End::Refused(answer.into()));
    }
    if server.engine == Engine::Proxy
        && let Some(limit) = server.faults.turns_away(monotonic())
    {
        return refuse(format!("Rate of connection to proxy exceeded {limit}."));
    }
    if server.engine == Engine::Proxy && startup.has_options {
        return Err(End::Refused(Refusal {
            sqlstate: "0A000",
            message: "Feature not supported: RDS Proxy currently doesn't support command-line \
                      options."
                .to_owned(),
        }));
    }
    // PostgreSQL trusts the superuser on its socket, so clients must not log in as this user.
    if user == SUPERUSER {
        return refuse(phrases.rejects(&described));
    }
    let status = server
        .admin
        .status(&startup.user)
        .await
        .map_err(|_| End::Refused(Refusal::shutting_down(server)))?;
    if status == AccountStatus::Unknown
        && let Some(answer) = server.engine.unknown_user(&user)
    {
        return Err(End::Refused(answer.into()));
    }
    // DSQL has no passwords.
    let member = status == AccountStatus::IamMember || server.engine == Engine::Dsql;
    if member && !encrypted {
        log(server, &user, None, Reason::NotEncrypted);
        let answer = server.engine.not_encrypted(phrases, &described);
        return Err(End::Refused(answer.into()));
    }
    if !encrypted && server.force_ssl {
        return refuse(phrases.no_entry(&described));
    }
    if !member {
        server
            .logins
            .add(login(server, &user, LoginResult::Password));
    }
    Ok(member)
}

/// Verifies a password, which should be a token, and records the result.
pub(crate) fn verify_password(
    server: &Server,
    startup: &Startup,
    password: &[u8],
) -> Result<(), Refusal> {
    let user = String::from_utf8_lossy(&startup.user);
    if server.faults.throttles(monotonic()) {
        log(server, &user, Some(password), Reason::Throttled);
        return Err(server
            .engine
            .refusal(server.language.phrases(), &user, Reason::Throttled)
            .into());
    }
    let names_user_and_port = server.engine.token_names_user_and_port();
    let expected = Expectation {
        host: &server.host,
        other_hosts: &server.other_hosts,
        port: names_user_and_port.then_some(server.signed_port),
        region: &server.region,
        service: server.engine.service(),
        action: server.engine.action(&user),
        token_user: names_user_and_port.then_some(user.as_ref()),
        user: &user,
        lifetime: server.token_lifetime.get(),
        now: server.clock.now(),
    };
    let text = String::from_utf8_lossy(password);
    let judgement = verify::verify(&text, &expected, &server.keyring, &server.policy);
    let refusal = if server.faults.refuses_this() {
        Some((Reason::Fault, String::new()))
    } else {
        judgement.refusal
    };
    let (result, detail) = match refusal {
        Some((reason, detail)) => (LoginResult::Refused(reason), detail),
        None => (LoginResult::Accepted, String::new()),
    };
    let fingerprint = match result {
        // A password that is not a token may be in use elsewhere, so nothing of it is recorded.
        LoginResult::Refused(Reason::Malformed) => String::new(),
        _ => token::fingerprint(password),
    };
    server.logins.add(Login {
        fingerprint,
        token_age: judgement.age,
        access_key: judgement.access_key,
        detail,
        ..login(server, &user, result)
    });
    match result {
        LoginResult::Refused(reason) => Err(server
            .engine
            .refusal(server.language.phrases(), &user, reason)
            .into()),
        _ => Ok(()),
    }
}

/// Records a password that is longer than PostgreSQL reads.
pub(crate) fn password_too_long(server: &Server, startup: &Startup) {
    let user = String::from_utf8_lossy(&startup.user);
    log(server, &user, None, Reason::TooLong);
}

fn log(server: &Server, user: &str, password: Option<&[u8]>, reason: Reason) {
    server.logins.add(Login {
        fingerprint: password.map(token::fingerprint).unwrap_or_default(),
        ..login(server, user, LoginResult::Refused(reason))
    });
}

fn login(server: &Server, user: &str, result: LoginResult) -> Login {
    Login {
        user: user.to_owned(),
        fingerprint: String::new(),
        token_age: None::<Duration>,
        access_key: None,
        result,
        detail: String::new(),
        at: server.clock.now(),
    }
}
