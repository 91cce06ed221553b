//! Tests of libpq's texts. `backend/tests.rs` has the table of messages.

use super::*;

const PREFIX: &str = "connection to server at \"h\" (1.2.3.4), port 5432 failed: ";

/// Refusals in the wording of PostgreSQL's message catalogs.
const REFUSALS: [&str; 12] = [
    "FATAL:  PAM-Authentifizierung für Benutzer »app« fehlgeschlagen",
    "FATAL:  la autentificación PAM falló para el usuario «app»",
    "FATAL:  authentification PAM échouée pour l'utilisateur « app »",
    "FATALE:  Autenticazione PAM fallita per l'utente \"app\"",
    "FATAL:  ユーザー\"app\"のPAM認証に失敗しました",
    "ფატალური:  PAM ავთენტიფიკაცია მომხმარებლისთვის \"app\" ვერ მოხერხდა",
    "치명적오류:  사용자 \"app\"의 PAM 인증을 실패했습니다.",
    "ВАЖНО:  пользователь \"app\" не прошёл проверку подлинности (PAM)",
    "FATALT:  PAM-autentisering misslyckades för användare \"app\"",
    "ФАТАЛЬНО:  Користувач \"app\" не пройшов автентифікацію PAM",
    "致命错误:  用户 \"app\" 的 PAM 认证失败",
    "致命錯誤:  PAM 驗證使用者 \"app\" 失敗",
];

/// FAULTS.md row 27: messages of the server and of libpq are told apart in any language.
#[test]
fn a_server_message_is_recognised_in_any_language() {
    for refusal in REFUSALS {
        let message = refusal.split_once(":  ").unwrap().1;
        for text in [format!("{refusal}\n"), format!("{PREFIX}{refusal}\n")] {
            assert_eq!(
                server_message(without_prefix(&text)).map(str::trim_end),
                Some(message)
            );
            let error = classify(&text);
            assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
            assert!(error.to_string().ends_with(text.trim_end()), "{error}");
        }
    }
}

/// FAULTS.md row 57: a name with a line break imitates another message, a severity, or a line of libpq's.
#[test]
fn a_user_name_that_looks_like_a_failure_does_not_decide_the_kind() {
    for name in [
        "timeout expired",
        "SSL error",
        "Connection refused",
        "a:  b",
        "a\nFATAL:  the database system is starting up",
        "a\" FATAL:  the database system is starting up",
        "a\nHINT:  too many clients already",
        "a failed: FATAL:  too many clients already",
    ] {
        let text = format!("{PREFIX}FATAL:  PAM authentication failed for user \"{name}\"\n");
        assert_eq!(classify(&text).kind(), ErrorKind::LoginRefused, "{text}");
    }
    // Names in a certificate are the server's choice.
    for name in ["Connection refused", "timeout expired", "a:  b"] {
        let text =
            format!("{PREFIX}server certificate for \"{name}\" does not match host name \"h\"\n");
        assert_eq!(classify(&text).kind(), ErrorKind::Tls, "{text}");
    }
}

/// FAULTS.md row 57: lines that follow a message take no part, in any language.
#[test]
fn a_detail_does_not_decide_the_kind() {
    for detail in ["DETAIL", "HINT", "DETALLE", "ПОДРОБНОСТИ"] {
        let text =
            format!("{PREFIX}FATAL:  role \"app\" does not exist\n{detail}:  out of memory\n");
        assert_eq!(classify(&text).kind(), ErrorKind::LoginRefused, "{text}");
    }
}

/// FAULTS.md row 57: a message of a future libpq.
#[test]
fn an_unknown_message_of_libpq_is_no_refused_login() {
    for text in ["flux capacitor \"x\" overheated", ""] {
        let error = classify(&format!("{PREFIX}{text}\n"));
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
        assert!(error.to_string().contains("not recognised"), "{error}");
    }
}

#[test]
fn the_last_server_message_of_several_addresses_decides() {
    let starting = "FATAL:  the database system is starting up\n";
    let refused = "FATAL:  PAM authentication failed for user \"app\"\n";
    let unreachable = "Connection refused\n\tIs the server running on that host?\n";
    for (first, second, kind) in [
        (starting, refused, ErrorKind::LoginRefused),
        (unreachable, refused, ErrorKind::LoginRefused),
        (starting, unreachable, ErrorKind::ServerUnavailable),
    ] {
        let text = format!("{PREFIX}{first}{PREFIX}{second}");
        assert_eq!(classify(&text).kind(), kind, "{text}");
    }
}

/// FAULTS.md row 34.
#[test]
fn the_attempt_that_got_furthest_decides() {
    const ADDRESSES: [&str; 3] = ["::1", "127.0.0.1", "10.0.0.1"];
    let network = "Connection refused\n\tIs the server running on that host?\n";
    let unavailable = "FATAL:  the database system is starting up\n";
    let tls = "SSL error: certificate verify failed\n";
    let name = "server certificate for \"a\" does not match host name \"b\"\n";
    let refused = "FATAL:  PAM authentication failed for user \"app\"\n";
    for (attempts, kind, last) in [
        (&[network, tls][..], ErrorKind::Tls, tls),
        (&[network, name], ErrorKind::Tls, name),
        (&[tls, network], ErrorKind::Tls, tls),
        (&[unavailable, tls], ErrorKind::Tls, tls),
        (&[refused, network], ErrorKind::LoginRefused, refused),
        (
            &[network, unavailable],
            ErrorKind::ServerUnavailable,
            unavailable,
        ),
        (&[network, tls, network], ErrorKind::Tls, tls),
        (&[tls, refused, network], ErrorKind::LoginRefused, refused),
        (&[network, network, network], ErrorKind::Network, network),
    ] {
        let text: String = attempts
            .iter()
            .zip(ADDRESSES)
            .map(|(text, address)| {
                let at = format!("connection to server at \"h\" ({address}), port 5432");
                format!("{at} failed: {text}")
            })
            .collect();
        let error = classify(&text);
        assert_eq!(error.kind(), kind, "{text}");
        // The error ends with the message that decided.
        let text = error.to_string();
        let last = last.replace("\n\t", "; ");
        assert!(text.ends_with(last.trim_end()), "{text}");
        for address in ADDRESSES.iter().take(attempts.len()) {
            assert!(text.contains(address), "{text}");
        }
    }
    let text = format!(
        "could not translate host name \"gone\" to address: Name or service not known\n\
         connection to server on socket \"/tmp/.s.PGSQL.5432\" failed: {refused}"
    );
    assert_eq!(classify(&text).kind(), ErrorKind::LoginRefused);
}

#[test]
fn a_keyword_is_quoted_only_if_it_is_one_of_libpqs() {
    let error = classify("invalid connection option \"hunter2\"\n");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let error = classify("invalid connection option \"sslsni\"\n");
    assert!(error.to_string().contains("libpq 14"), "{error}");
}
