//! The database of the measurements, and the managers that connect to it: this crate's, and diesel's with the
//! same server, user and password.

use std::path::Path;
use std::time::Duration;

use diesel::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{Endpoint, IamAuth, PgConnectionManager};
use rds_iam_emulator::Emulator;
use serde::{Deserialize, Serialize};

/// The address and the login, for this process or a child.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Database {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) region: String,
    pub(crate) roots: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// An emulator with a user `app`.
pub(crate) fn emulator() -> Emulator {
    let emulator = Emulator::builder().start().unwrap();
    emulator.create_iam_user("app").unwrap();
    emulator
}

impl Database {
    pub(crate) fn of(emulator: &Emulator) -> Database {
        Database {
            host: emulator.host().to_owned(),
            port: emulator.port(),
            region: emulator.region().to_owned(),
            roots: emulator.ca_path().to_str().unwrap().to_owned(),
            access_key: emulator.access_key().to_owned(),
            secret_key: emulator.secret_key().to_owned(),
        }
    }

    /// The same with other roots.
    pub(crate) fn trusting(mut self, roots: &Path) -> Database {
        self.roots = roots.to_str().unwrap().to_owned();
        self
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(&self.access_key, &self.secret_key, None, None, "bench")
    }

    pub(crate) fn auth(&self) -> IamAuth {
        self.auth_living(Duration::from_secs(900))
    }

    /// With tokens that live for `lifetime`.
    pub(crate) fn auth_living(&self, lifetime: Duration) -> IamAuth {
        let auth = IamAuth::builder().credentials_provider(self.credentials());
        auth.token_lifetime(lifetime).build().unwrap()
    }

    pub(crate) fn manager(&self, auth: IamAuth) -> PgConnectionManager {
        let builder = PgConnectionManager::builder(&self.conninfo()).auth(auth);
        builder.build().unwrap()
    }

    /// diesel's own manager, with a token of 15 minutes as its fixed password, so that the server does the same
    /// work.
    pub(crate) fn stock(&self) -> ConnectionManager<PgConnection> {
        ConnectionManager::new(self.conninfo_with_password())
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.host, self.port, "app").unwrap()
    }

    pub(crate) fn conninfo_with_password(&self) -> String {
        let token = self.auth().source(&self.endpoint()).token().unwrap();
        format!("{} password='{}'", self.conninfo(), token.expose_secret())
    }

    pub(crate) fn conninfo(&self) -> String {
        format!(
            "host={} hostaddr=127.0.0.1 port={} user=app dbname=postgres sslmode=verify-full \
             sslrootcert='{}'",
            self.host, self.port, self.roots
        )
    }
}
