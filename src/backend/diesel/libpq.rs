//! Classifies a failed connect by the text that libpq returns, since it returns no SQLSTATE.
//!
//! libpq's own messages are English, since a Rust program does not call `setlocale`. A server's message is in
//! the server's language. libpq puts the severity, a colon and two spaces before it, and has no message of that
//! form itself. So the two can be distinguished in any language.

use crate::backend::classify::{self as server, Classification};
use crate::endpoint;
use crate::error::{Error, ErrorKind};

/// libpq's messages for a failure of the network, before or after TLS began. [fe-connect.c, fe-misc.c,
/// fe-secure.c, fe-secure-openssl.c of libpq 14 to 18]
const NETWORK: &[&str] = &[
    "SSL SYSCALL error",
    "SSL connection has been closed unexpectedly",
    "unexpected eof while reading",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    // Follows the system's message for a failed connect.
    "Is the server running on",
    "No route to host",
    "Network is unreachable",
    "could not connect to server",
    "could not create socket",
    "could not get socket error status",
    "could not receive",
    "could not send",
    "could not translate host name",
    "could not parse network address",
    "server closed the connection unexpectedly",
    "timeout expired",
    // The other end does not speak PostgreSQL's protocol.
    "received invalid response to SSL negotiation",
    "expected authentication request from server",
    "lost synchronization with server",
];

/// libpq's messages for a failure of TLS. [fe-secure-openssl.c, fe-secure-common.c]
const TLS: &[&str] = &[
    "SSL error",
    "root certificate file",
    "system root certificate paths",
    "server certificate for",
    "server does not support SSL",
    "certificate verify failed",
    "could not establish SSL connection",
    "could not load",
    "could not read root certificate",
    "ALPN protocol",
];

/// libpq's messages for a server that `target_session_attrs` rejects. [fe-connect.c]
const NOT_WANTED: &[&str] = &[
    "session is read-only",
    "session is not read-only",
    "server is in hot standby mode",
    "server is not in hot standby mode",
];

/// libpq's messages for invalid settings, as far as they quote no more than the value of a known keyword.
/// [fe-connect.c, fe-auth.c]
const CONFIGURATION: &[&str] = &[
    "invalid sslmode value",
    "invalid integer value",
    "invalid port number",
    "invalid value for connection option",
    "invalid SSL protocol version",
    "authentication method requirement",
    "channel binding",
    "weak sslmode",
    "not compiled in",
    "host name must be specified",
    "value: \"",
];

/// libpq's message about PGSERVICE, the one variable that cannot be overridden. [fe-connect.c]
const SERVICE: &[&str] = &["definition of service", "service file"];

/// libpq's message about an unknown keyword, before the quoted keyword. [fe-connect.c]
const UNKNOWN_KEYWORD: &str = "invalid connection option \"";

/// libpq's message if the server requests a password and there is none. [fe-auth.c]
const NO_PASSWORD: &str = "no password supplied";

/// The message of libpq before 14 for a long token if the server requests a password. [fe-auth-scram.c]
const OUT_OF_MEMORY: &str = "out of memory";

const UNREADABLE_SERVICE: Classification = Classification::new(
    ErrorKind::Configuration,
    "PGSERVICE names a service that libpq cannot read; unset it",
);

const PASSWORD_WANTED: Classification = Classification::new(
    ErrorKind::Configuration,
    "the server asks for a password and there is none; set one, or leave out iam=off",
);

const TOO_OLD: Classification = Classification::new(
    ErrorKind::Configuration,
    "libpq has no memory, or is older than 14 and was asked for a password instead of a token; grant \
     rds_iam to the user, and use libpq 14 or later",
);

/// Returns the error for libpq's text about a failed connect.
pub(super) fn classify(text: &str) -> Error {
    if let Some((_, keyword)) = text.split_once(UNKNOWN_KEYWORD) {
        return unknown_keyword(keyword.split('"').next().unwrap_or_default());
    }
    let attempts = attempts(text);
    let mut decisive: Option<(usize, Classification)> = None;
    for (at, attempt) in attempts.iter().enumerate() {
        let classification = classify_attempt(attempt);
        // Of two that got equally far, the later one decides.
        if decisive
            .as_ref()
            .is_none_or(|(_, best)| progress(classification.kind()) >= progress(best.kind()))
        {
            decisive = Some((at, classification));
        }
    }
    let Some((at, classification)) = decisive else {
        return classify_attempt(text).error(text.to_owned());
    };
    // An error ends with its cause.
    let mut order: Vec<&str> = attempts;
    let last = order.remove(at);
    order.push(last);
    classification.error(order.join("\n"))
}

/// The texts of the attempts of one connect: libpq tries every address of a name, and puts the texts of all
/// into one. [PQconnectPoll of fe-connect.c, libpq 14 to 18]
fn attempts(text: &str) -> Vec<&str> {
    const BEGINNINGS: &[&str] = &[
        "connection to server at \"",
        "connection to server on socket",
        "could not translate host name",
    ];
    let mut attempts = Vec::new();
    let mut begin = 0;
    for (newline, _) in text.match_indices('\n') {
        let (attempt, rest) = text.split_at(newline + 1);
        if BEGINNINGS
            .iter()
            .any(|beginning| rest.starts_with(beginning))
        {
            attempts.push(attempt.get(begin..).unwrap_or_default().trim_end());
            begin = newline + 1;
        }
    }
    attempts.push(text.get(begin..).unwrap_or_default().trim_end());
    attempts
}

/// Ranks how far an attempt got that failed with `kind`.
fn progress(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::LoginRefused => 5,
        ErrorKind::Configuration => 4,
        ErrorKind::Tls => 3,
        ErrorKind::Network => 1,
        // The server answered.
        _ => 2,
    }
}

fn classify_attempt(text: &str) -> Classification {
    match server_message(text) {
        Some(words) => server::from_message(words),
        None => classify_libpq_message(text),
    }
}

/// Returns the server's last message, if there is one: the text after a severity in any language.
/// [pqBuildErrorMessage3 of fe-protocol3.c]
fn server_message(text: &str) -> Option<&str> {
    let starts = text.match_indices(":  ").filter(|(at, _)| {
        let line = text[..*at].lines().next_back().unwrap_or_default();
        let severity = line.rsplit("failed: ").next().unwrap_or_default();
        // Not a DETAIL or HINT line, and no text within a message.
        let is_detail = matches!(severity, "DETAIL" | "HINT" | "CONTEXT" | "QUERY");
        !severity.is_empty() && !is_detail && !severity.contains(['"', '(', ':', '\t'])
    });
    starts.last().map(|(at, colon)| &text[at + colon.len()..])
}

fn classify_libpq_message(text: &str) -> Classification {
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    if says(SERVICE) {
        UNREADABLE_SERVICE
    } else if says(NETWORK) {
        server::NETWORK
    } else if says(TLS) {
        server::TLS
    } else if says(NOT_WANTED) {
        server::NOT_WANTED
    } else if is_other_method(text) {
        server::REFUSED
    } else if says(CONFIGURATION) {
        server::CONFIGURATION
    } else if text.contains(NO_PASSWORD) {
        PASSWORD_WANTED
    } else if text.contains(OUT_OF_MEMORY) {
        TOO_OLD
    } else {
        // A server that cannot start a process for the connection sends no severity.
        server::from_message(text)
    }
}

/// Whether the server asked for another kind of login than a token's, which is a cleartext password.
/// [check_expected_areq of fe-auth.c, libpq 16 to 18]
fn is_other_method(text: &str) -> bool {
    text.contains("authentication method requirement")
        && text.contains("server requested")
        && !text.contains("cleartext")
}

/// Whether `text` is about a keyword that this libpq does not know.
pub(super) fn is_unknown_keyword(text: &str) -> bool {
    text.contains(UNKNOWN_KEYWORD)
}

/// Quotes only a name that is a keyword of libpq. Any other may be a part of a password that was not quoted.
fn unknown_keyword(keyword: &str) -> Error {
    if endpoint::is_keyword_of_libpq(keyword) {
        return Error::configuration(format!(
            "this libpq is too old to know {keyword}; leave it out of the connection string, or use \
             libpq 14 or later, such as the one of the feature bundled"
        ));
    }
    server::unknown_keyword()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "connection to server at \"h\" (1.2.3.4), port 5432 failed: ";

    /// Refused logins, as worded in PostgreSQL's message catalogs.
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

    #[test]
    fn each_libpq_message_has_its_kind() {
        for (text, kind) in [
            (
                "could not translate host name \"h\" to address: Name or service not known",
                ErrorKind::Network,
            ),
            (
                "Connection refused\n\tIs the server running on that host and accepting TCP/IP \
                 connections?\n",
                ErrorKind::Network,
            ),
            (
                "server closed the connection unexpectedly\n\tThis probably means the server \
                 terminated abnormally\n\tbefore or while processing the request.\n",
                ErrorKind::Network,
            ),
            ("timeout expired", ErrorKind::Network),
            (
                "SSL SYSCALL error: Connection reset by peer",
                ErrorKind::Network,
            ),
            ("SSL SYSCALL error: EOF detected", ErrorKind::Network),
            (
                "SSL error: unexpected eof while reading",
                ErrorKind::Network,
            ),
            (
                "SSL connection has been closed unexpectedly",
                ErrorKind::Network,
            ),
            ("SSL error: certificate verify failed", ErrorKind::Tls),
            (
                "server certificate for \"a\" does not match host name \"b\"",
                ErrorKind::Tls,
            ),
            (
                "root certificate file \"/none\" does not exist\nEither provide the file, use the \
                 system's trusted roots with sslrootcert=system, or change sslmode to disable \
                 server certificate verification.",
                ErrorKind::Tls,
            ),
            (
                "server does not support SSL, but SSL was required",
                ErrorKind::Tls,
            ),
            ("session is read-only", ErrorKind::ServerUnavailable),
            (
                "definition of service \"nonsense\" not found",
                ErrorKind::Configuration,
            ),
            (
                "invalid channel_binding value: \"nonsense\"",
                ErrorKind::Configuration,
            ),
            (
                "authentication method requirement \"md5\" failed: server requested a cleartext \
                 password",
                ErrorKind::Configuration,
            ),
            (
                "authentication method requirement \"password\" failed: server requested SASL \
                 authentication",
                ErrorKind::LoginRefused,
            ),
            (
                "fe_sendauth: no password supplied",
                ErrorKind::Configuration,
            ),
            ("out of memory", ErrorKind::Configuration),
            (
                "could not fork new process for connection: Cannot allocate memory",
                ErrorKind::ServerUnavailable,
            ),
        ] {
            for text in [text.to_owned(), format!("{PREFIX}{text}")] {
                assert_eq!(server_message(&text), None, "{text}");
                assert_eq!(classify(&text).kind(), kind, "{text}");
            }
        }
    }

    /// FAULTS.md row 27: messages of the server and of libpq are distinguished in any language.
    #[test]
    fn server_messages_are_recognised_in_any_language() {
        for refusal in REFUSALS {
            let words = refusal.split_once(":  ").unwrap().1;
            for text in [format!("{refusal}\n"), format!("{PREFIX}{refusal}\n")] {
                assert_eq!(server_message(&text).map(str::trim_end), Some(words));
                let error = classify(&text);
                assert_eq!(error.kind(), ErrorKind::LoginRefused, "{error}");
                assert!(error.to_string().ends_with(text.trim_end()), "{error}");
            }
        }
    }

    #[test]
    fn a_user_name_that_imitates_a_message_changes_nothing() {
        for name in [
            "timeout expired",
            "SSL error",
            "Connection refused",
            "a:  b",
        ] {
            let text = format!("{PREFIX}FATAL:  PAM authentication failed for user \"{name}\"\n");
            assert_eq!(classify(&text).kind(), ErrorKind::LoginRefused, "{text}");
        }
    }

    #[test]
    fn among_several_addresses_the_servers_answer_decides() {
        let starting = "FATAL:  the database system is starting up\n";
        let refused = "FATAL:  PAM authentication failed for user \"app\"\n";
        let nobody = "Connection refused\n\tIs the server running on that host?\n";
        for (first, second, kind) in [
            (starting, refused, ErrorKind::LoginRefused),
            (nobody, refused, ErrorKind::LoginRefused),
            (starting, nobody, ErrorKind::ServerUnavailable),
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
            // It ends with the text that decided.
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
    fn a_detail_line_is_not_a_separate_message() {
        let text = "FATAL:  no way in\nDETAIL:  too many connections for today\nHINT:  wait\n";
        assert_eq!(classify(text).kind(), ErrorKind::ServerUnavailable);
    }

    #[test]
    fn an_error_quotes_a_keyword_only_if_it_cannot_be_part_of_a_password() {
        let error = classify("invalid connection option \"hunter2\"\n");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = classify("invalid connection option \"sslsni\"\n");
        assert!(error.to_string().contains("libpq 14"), "{error}");
    }
}
