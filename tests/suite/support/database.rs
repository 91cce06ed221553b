//! A database that logs in with IAM: the emulator, with users and an identity that it accepts.

use std::sync::LazyLock;
use std::time::Duration;

use aws_credential_types::Credentials;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_rds_iam::{IamAuth, IamAuthBuilder, ManagerBuilder, PgConnectionManager};
use rds_iam_emulator::{Emulator, Login, Verdict};

/// An emulator with a user `app` that may log in with IAM.
pub fn emulator() -> Emulator {
    emulator_with(Duration::from_secs(900))
}

/// The same for tokens that it accepts for `lifetime` only.
pub fn emulator_with(lifetime: Duration) -> Emulator {
    let emulator = Emulator::builder()
        .token_lifetime(lifetime)
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

/// For tests that need nothing but a login, and leave no trace.
pub fn shared_emulator() -> &'static Emulator {
    static SHARED: LazyLock<Emulator> = LazyLock::new(emulator);
    &SHARED
}

/// The credentials that the emulator accepts.
pub fn credentials_of(emulator: &Emulator) -> Credentials {
    let (key, secret) = (emulator.access_key(), emulator.secret_key());
    Credentials::new(key, secret, None, None, "test")
}

/// An identity that the emulator accepts.
pub fn auth_builder(emulator: &Emulator) -> IamAuthBuilder {
    IamAuth::builder().credentials_provider(credentials_of(emulator))
}

/// A manager for the user `app`, with that identity.
pub fn manager_builder(emulator: &Emulator) -> ManagerBuilder<PgConnection> {
    let auth = auth_builder(emulator).build().unwrap();
    PgConnectionManager::builder(&emulator.url("app")).auth(auth)
}

pub fn manager(emulator: &Emulator) -> PgConnectionManager {
    manager_builder(emulator).build().unwrap()
}

/// The logins that were refused.
pub fn refused(emulator: &Emulator) -> Vec<Login> {
    let mut logins = emulator.logins();
    logins.retain(|login| !matches!(login.verdict(), Verdict::Accepted));
    logins
}

/// Which session of the server this is.
pub fn backend_pid(connection: &mut PgConnection) -> i32 {
    diesel::select(sql::<Integer>("pg_backend_pid()"))
        .get_result(connection)
        .unwrap()
}
