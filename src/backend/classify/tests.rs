//! Tests of the rules beside the table of messages, which is in `backend/tests.rs`.

use super::*;

/// Messages of a server with `lc_messages` other than English, and of one with a single SQLSTATE.
#[cfg(feature = "postgres")]
#[test]
fn a_sqlstate_decides_in_any_language() {
    for (state, message, classification) in [
        (
            "28000",
            "пользователь \"app\" не прошёл проверку подлинности (PAM)",
            REFUSED,
        ),
        (
            "28P01",
            "пользователь \"app\" не прошёл проверку подлинности (по паролю)",
            REFUSED,
        ),
        (
            "28000",
            "la autenticación PAM falló para el usuario «app»",
            REFUSED,
        ),
        ("3D000", "база данных \"db\" не существует", NO_DATABASE),
        ("53400", "превышен предел", THROTTLED),
        ("58000", "ошибка ввода-вывода", UNAVAILABLE),
        ("53300", "извините, уже слишком много клиентов", UNAVAILABLE),
        ("57P03", "система баз данных запускается", UNAVAILABLE),
        (
            "57P03",
            "el sistema de base de datos está apagándose",
            UNAVAILABLE,
        ),
        (
            "57014",
            "отмена проверки подлинности из-за таймаута",
            UNAVAILABLE,
        ),
        ("08P01", "неверный стартовый пакет", REJECTED),
        (
            "22023",
            "неверное значение для параметра \"work_mem\": \"x\"",
            SETTING,
        ),
        (
            "42704",
            "нераспознанный параметр конфигурации: \"nonsense\"",
            SETTING,
        ),
        (
            "0A000",
            "Feature not supported: RDS Proxy currently doesn't support command-line options.",
            SETTING,
        ),
        // One state for all of RDS Proxy's refusals, and for those of `pg_hba.conf`.
        (
            "28000",
            "The IAM authentication failed because of too many competing requests.",
            THROTTLED,
        ),
        (
            "28000",
            "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"app\", database \
             \"db\", no encryption",
            NOT_ENCRYPTED,
        ),
        // A quoted name takes no part here either.
        (
            "28000",
            "PAM authentication failed for user \"no encryption\"",
            REFUSED,
        ),
        (
            "28000",
            "la autenticación PAM falló para el usuario «no encryption»",
            REFUSED,
        ),
        // If the SQLSTATE does not decide, a known message does.
        ("42501", "permission denied for database \"db\"", REFUSED),
        ("XX000", "the database system is starting up", UNAVAILABLE),
        ("XX000", "что-то пошло не так", IN_DOUBT),
        ("", "", IN_DOUBT),
    ] {
        assert_eq!(
            from_sqlstate(state, message),
            classification,
            "{state}: {message}"
        );
    }
    assert!(IN_DOUBT.message.contains("not recognised"));
}

#[test]
fn a_quoted_name_does_not_decide_the_kind() {
    for name in [
        "the database system is",
        "no encryption",
        "out of memory",
        "a\" the database system is \"b",
        "a\" out of memory",
        "a\nthe database system is starting up",
    ] {
        let message = format!("PAM authentication failed for user \"{name}\"");
        assert_eq!(from_message(&message), REFUSED, "{message}");
    }
    let message =
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"a\", database \"d\", no encryption";
    assert_eq!(from_message(message), NOT_ENCRYPTED);
}

#[test]
fn an_unrecognised_message_counts_as_a_refused_login_and_says_so() {
    for message in [
        "lo siento, ya tenemos demasiados clientes",
        "",
        "no way in\nDETAIL:  too many connections for today\nHINT:  out of memory",
    ] {
        assert_eq!(from_message(message), IN_DOUBT);
    }
    assert!(IN_DOUBT.message.contains("not recognised"));
}
