//! A database with IAM login: the emulator, with users and an identity that it accepts.

use std::sync::LazyLock;
use std::time::Duration;

use aws_credential_types::Credentials;
use diesel::PgConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use diesel_rds_iam::{
    Backend, IamAuth, IamAuthBuilder, ManagerBuilder, PgConnectionManager, RdsConnectionManager,
};
use rds_iam_emulator::{Emulator, Login, LoginResult};

/// An emulator with a user `app` that may log in with IAM.
pub fn emulator() -> Emulator {
    emulator_with(Duration::from_secs(900))
}

/// The same, with tokens that it accepts for `lifetime` only.
pub fn emulator_with(lifetime: Duration) -> Emulator {
    let emulator = Emulator::builder()
        .token_lifetime(lifetime)
        .start()
        .unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

/// For tests that only log in, and change nothing.
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
    builder_of(emulator)
}

/// The same for any kind of connection.
pub fn builder_of<C: Backend>(emulator: &Emulator) -> ManagerBuilder<C> {
    let auth = auth_builder(emulator).build().unwrap();
    RdsConnectionManager::builder(&emulator.url("app")).auth(auth)
}

pub fn manager(emulator: &Emulator) -> PgConnectionManager {
    manager_builder(emulator).build().unwrap()
}

/// The logins that were refused.
pub fn refused(emulator: &Emulator) -> Vec<Login> {
    let mut logins = emulator.logins();
    logins.retain(|login| !matches!(login.result(), LoginResult::Accepted));
    logins
}

/// Identifies the session at the server.
pub fn backend_pid(connection: &mut PgConnection) -> i32 {
    diesel::select(sql::<Integer>("pg_backend_pid()"))
        .get_result(connection)
        .unwrap()
}

/// A connection of any kind that can evaluate an expression.
pub trait Ask {
    fn try_ask(&mut self, expression: &str) -> Result<String, Box<dyn std::error::Error>>;

    fn ask(&mut self, expression: &str) -> String {
        self.try_ask(expression).unwrap()
    }
}

impl Ask for PgConnection {
    fn try_ask(&mut self, expression: &str) -> Result<String, Box<dyn std::error::Error>> {
        let expression = format!("({expression})::text");
        let asked = diesel::select(sql::<Text>(&expression));
        Ok(asked.get_result(self)?)
    }
}

#[cfg(feature = "postgres")]
impl Ask for diesel_rds_iam::PostgresConnection {
    fn try_ask(&mut self, expression: &str) -> Result<String, Box<dyn std::error::Error>> {
        let row = self.query_one(&format!("SELECT ({expression})::text"), &[])?;
        Ok(row.get(0))
    }
}
