//! Which database is meant: a connection string, or its parts.

use std::sync::Arc;

use clap::Args;
use diesel_rds_iam::{Endpoint, Error, IamAuth, PgConnectionManager, Token};

/// The options that every command has for it.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// A connection string without a password, as a URL or as libpq's `keyword=value` pairs
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: Option<String>,

    /// The database's endpoint, by its real name; comes before a connection string
    #[arg(long, requires = "user", required_unless_present = "url")]
    host: Option<String>,

    /// The database's port
    #[arg(long, default_value_t = 5432)]
    port: u16,

    /// The database user
    #[arg(long, requires = "host")]
    user: Option<String>,

    /// The database; by default the one named like the user
    #[arg(long, requires = "host")]
    dbname: Option<String>,

    /// The region; by default it is read from the host name, or else from the AWS configuration
    #[arg(long)]
    region: Option<String>,

    /// A profile of AWS's configuration files
    #[arg(long)]
    profile: Option<String>,
}

impl Target {
    /// A manager for the database. It logs in with IAM, or by password where the connection string
    /// has one, so that a script serves a laptop and the cloud.
    pub(crate) fn manager(&self) -> Result<PgConnectionManager, Error> {
        let parts = match (&self.host, &self.user) {
            (Some(host), Some(user)) => {
                let mut parts = format!(
                    "host={} port={} user={}",
                    quoted(host),
                    self.port,
                    quoted(user)
                );
                if let Some(dbname) = &self.dbname {
                    parts += &format!(" dbname={}", quoted(dbname));
                }
                Some(parts)
            }
            _ => self.url.clone(),
        };
        let mut manager = PgConnectionManager::builder(&parts.unwrap_or_default());
        if let Some(profile) = &self.profile {
            manager = manager.auth(IamAuth::builder().profile(profile).build()?);
        }
        if let Some(region) = &self.region {
            manager = manager.region(region);
        }
        manager.build()
    }

    /// The endpoint, and a token for it that is good now.
    pub(crate) fn token(&self) -> Result<(Endpoint, Arc<Token>), Error> {
        let mut auth = IamAuth::builder();
        if let Some(profile) = &self.profile {
            auth = auth.profile(profile);
        }
        match (&self.url, &self.host, &self.user) {
            (_, Some(host), Some(user)) => {
                let mut endpoint = Endpoint::new(host, self.port, user)?;
                if let Some(region) = &self.region {
                    endpoint = endpoint.with_region(region)?;
                }
                let token = auth.build()?.source(&endpoint).token()?;
                Ok((endpoint, token))
            }
            (url, ..) => {
                let mut manager =
                    PgConnectionManager::builder(url.as_deref().unwrap_or_default()).require_iam();
                // A profile in the string is read by the library, unless an option is given.
                if self.profile.is_some() {
                    manager = manager.auth(auth.build()?);
                }
                if let Some(region) = &self.region {
                    manager = manager.region(region);
                }
                manager.build()?.token()
            }
        }
    }
}

/// As libpq reads a value.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
