//! The language of the server's messages: `lc_messages`.

use std::sync::{PoisonError, RwLock};

/// The language of a server's messages. SQLSTATEs stay the same; texts and severities change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// `en_US`.
    #[default]
    English,
    /// `de_DE`.
    German,
    /// `fr_FR`.
    French,
    /// `ja_JP`.
    Japanese,
    /// `ru_RU`, in which the severity is not in Latin script either.
    Russian,
}

/// The emulator's own messages, worded as in PostgreSQL's message catalogs. `{}` stands for a name.
pub(crate) struct Phrases {
    pub(crate) fatal: &'static str,
    pam_failed: &'static str,
    rejects: &'static str,
    no_entry: &'static str,
    no_encryption: &'static str,
    ssl_encryption: &'static str,
    pub(crate) shutting_down: &'static str,
    pub(crate) too_slow: &'static str,
}

impl Language {
    /// The locale, for `lc_messages`.
    pub(crate) fn locale(self) -> &'static str {
        match self {
            Language::English => "C",
            Language::German => "de_DE.UTF-8",
            Language::French => "fr_FR.UTF-8",
            Language::Japanese => "ja_JP.UTF-8",
            Language::Russian => "ru_RU.UTF-8",
        }
    }

    pub(crate) fn phrases(self) -> &'static Phrases {
        match self {
            Language::English => &ENGLISH,
            Language::German => &GERMAN,
            Language::French => &FRENCH,
            Language::Japanese => &JAPANESE,
            Language::Russian => &RUSSIAN,
        }
    }
}

/// A client, as the messages of `pg_hba.conf` describe it.
pub(crate) struct Described<'a> {
    pub(crate) host: &'a str,
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) encrypted: bool,
}

impl Phrases {
    pub(crate) fn pam_failed(&self, user: &str) -> String {
        fill(self.pam_failed, &[user])
    }

    pub(crate) fn rejects(&self, client: &Described<'_>) -> String {
        self.describe(self.rejects, client)
    }

    pub(crate) fn no_entry(&self, client: &Described<'_>) -> String {
        self.describe(self.no_entry, client)
    }

    fn describe(&self, phrase: &str, client: &Described<'_>) -> String {
        let encryption = if client.encrypted {
            self.ssl_encryption
        } else {
            self.no_encryption
        };
        fill(
            phrase,
            &[client.host, client.user, client.database, encryption],
        )
    }
}

/// The language in use, which a test can change.
#[derive(Debug, Default)]
pub(crate) struct CurrentLanguage(RwLock<Language>);

impl CurrentLanguage {
    pub(crate) fn set(&self, language: Language) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = language;
    }

    pub(crate) fn phrases(&self) -> &'static Phrases {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .phrases()
    }
}

/// Replaces each `{}` with the next of `names`. A name may contain `{}` itself.
fn fill(phrase: &str, names: &[&str]) -> String {
    let mut names = names.iter();
    let mut parts = phrase.split("{}");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + names.next().unwrap_or(&"") + part
    })
}

const ENGLISH: Phrases = Phrases {
    fatal: "FATAL",
    pam_failed: "PAM authentication failed for user \"{}\"",
    rejects: "pg_hba.conf rejects connection for host \"{}\", user \"{}\", database \"{}\", {}",
    no_entry: "no pg_hba.conf entry for host \"{}\", user \"{}\", database \"{}\", {}",
    no_encryption: "no encryption",
    ssl_encryption: "SSL encryption",
    shutting_down: "the database system is shutting down",
    too_slow: "canceling authentication due to timeout",
};

const GERMAN: Phrases = Phrases {
    fatal: "FATAL",
    pam_failed: "PAM-Authentifizierung für Benutzer »{}« fehlgeschlagen",
    rejects: "pg_hba.conf lehnt Verbindung ab für Host »{}«, Benutzer »{}«, Datenbank »{}«, {}",
    no_entry: "kein pg_hba.conf-Eintrag für Host »{}«, Benutzer »{}«, Datenbank »{}«, {}",
    no_encryption: "keine Verschlüsselung",
    ssl_encryption: "SSL-Verschlüsselung",
    shutting_down: "das Datenbanksystem fährt herunter",
    too_slow: "storniere Authentifizierung wegen Zeitüberschreitung",
};

const FRENCH: Phrases = Phrases {
    fatal: "FATAL",
    pam_failed: "authentification PAM échouée pour l'utilisateur « {} »",
    rejects: "pg_hba.conf rejette la connexion pour l'hôte « {} », utilisateur « {} », base\n\
              de données « {} », {}",
    no_entry: "aucune entrée dans pg_hba.conf pour l'hôte « {} », utilisateur « {} »,\n\
               base de données « {} », {}",
    no_encryption: "aucun chiffrement",
    ssl_encryption: "chiffrement SSL",
    shutting_down: "le système de base de données s'arrête",
    too_slow: "annulation de l'authentification à cause du délai écoulé",
};

const JAPANESE: Phrases = Phrases {
    fatal: "FATAL",
    pam_failed: "ユーザー\"{}\"のPAM認証に失敗しました",
    rejects: "pg_hba.conf の設定でホスト \"{}\"、ユーザー \"{}\"、データベース \"{}\", {}の接続を拒否しました",
    no_entry: "pg_hba.conf にホスト\"{}\"、ユーザー\"{}\"、データベース\"{}, {}用のエントリがありません",
    no_encryption: "暗号化なし",
    ssl_encryption: "SSL暗号化",
    shutting_down: "データベースシステムはシャットダウンしています",
    too_slow: "タイムアウトにより認証処理をキャンセルしています",
};

const RUSSIAN: Phrases = Phrases {
    fatal: "ВАЖНО",
    pam_failed: "пользователь \"{}\" не прошёл проверку подлинности (PAM)",
    rejects: "pg_hba.conf отвергает подключение: компьютер \"{}\", пользователь \"{}\", \
              база данных \"{}\", {}",
    no_entry: "в pg_hba.conf нет записи для компьютера \"{}\", пользователя \"{}\", базы \"{}\", {}",
    no_encryption: "без шифрования",
    ssl_encryption: "Шифрование SSL",
    shutting_down: "система баз данных останавливается",
    too_slow: "отмена проверки подлинности из-за тайм-аута",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_contains_its_names() {
        let client = Described {
            host: "127.0.0.1",
            user: "a{}b",
            database: "shop",
            encrypted: false,
        };
        for language in [
            Language::English,
            Language::German,
            Language::French,
            Language::Japanese,
            Language::Russian,
        ] {
            let phrases = language.phrases();
            for text in [phrases.rejects(&client), phrases.no_entry(&client)] {
                for part in ["127.0.0.1", "a{}b", "shop", phrases.no_encryption] {
                    assert!(text.contains(part), "{text}");
                }
            }
            assert!(phrases.pam_failed("app").contains("app"));
        }
    }
}
