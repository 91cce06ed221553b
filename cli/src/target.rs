//! Which database is meant: a connection string, or its parts.

use std::fmt;

use clap::Args;
use diesel_rds_iam::{Error, PgConnectionManager};

/// The options that every command has for it.
#[derive(Args)]
pub(crate) struct Target {
    /// A connection string without a password, as a URL or as libpq's `keyword=value` pairs; the
    /// library's parameters, such as iam_region and iam_role_arn, may be in it
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: Option<String>,

    /// The database's endpoint, by its real name; comes before a connection string
    #[arg(long, requires = "user", required_unless_present = "url")]
    host: Option<String>,

    /// The database's port, 5432 by default
    #[arg(long, requires = "host")]
    port: Option<u16>,

    /// The database user
    #[arg(long, requires = "host")]
    user: Option<String>,

    /// The database; by default it has the user's name
    #[arg(long, requires = "host")]
    dbname: Option<String>,

    /// The region; by default it is read from the host name, or else from the AWS configuration
    #[arg(long)]
    region: Option<String>,

    /// A profile of AWS's configuration files
    #[arg(long)]
    profile: Option<String>,

    /// A PEM file with the roots to trust, or `system`; by default RDS's own for the region
    #[arg(long)]
    sslrootcert: Option<String>,
}

impl Target {
    /// What opens connections to it. Nothing is asked or dialled yet.
    pub(crate) fn manager(&self) -> Result<PgConnectionManager, Error> {
        let mut builder = match &self.host {
            Some(host) => PgConnectionManager::builder(&self.pairs(host)),
            None => PgConnectionManager::builder(self.url.as_deref().unwrap_or_default()),
        };
        if let Some(region) = &self.region {
            builder = builder.region(region);
        }
        if let Some(profile) = &self.profile {
            builder = builder.profile(profile);
        }
        if let Some(path) = &self.sslrootcert {
            builder = builder.sslrootcert(path);
        }
        builder.build()
    }

    /// The parts as a connection string.
    fn pairs(&self, host: &str) -> String {
        let port = self.port.map(|port| port.to_string());
        [
            ("host", Some(host)),
            ("port", port.as_deref()),
            ("user", self.user.as_deref()),
            ("dbname", self.dbname.as_deref()),
        ]
        .into_iter()
        .filter_map(|(keyword, value)| {
            let value = value?.replace('\\', r"\\").replace('\'', r"\'");
            Some(format!("{keyword}='{value}'"))
        })
        .collect::<Vec<_>>()
        .join(" ")
    }
}

/// Without the connection string, which may hold a password by mistake.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
