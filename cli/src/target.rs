//! The database to connect to: a connection string, or its parts.

use std::fmt;

use clap::Args;
use diesel_rds_iam::{Error, PgConnectionManager};

/// The options that select the database, common to all commands.
#[derive(Args)]
pub(crate) struct Target {
    /// A connection string without a password: a URL or libpq's `keyword=value` pairs. It may have the
    /// library's parameters, such as iam_region and iam_role_arn
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: Option<String>,

    /// The host name of the database's endpoint; overrides the connection string
    #[arg(long, requires = "user", required_unless_present = "url")]
    host: Option<String>,

    /// The port [default: 5432]
    #[arg(long, requires = "host")]
    port: Option<u16>,

    /// The database user
    #[arg(long, requires = "host")]
    user: Option<String>,

    /// The database [default: the user's name]
    #[arg(long, requires = "host")]
    dbname: Option<String>,

    /// The AWS region [default: from the host name, else from the AWS configuration]
    #[arg(long)]
    region: Option<String>,

    /// A profile of the AWS configuration files
    #[arg(long)]
    profile: Option<String>,

    /// A PEM file of root certificates, or `system` [default: the RDS roots of the region]
    #[arg(long)]
    sslrootcert: Option<String>,
}

impl Target {
    /// The manager that opens its connections. Nothing is fetched or dialled yet.
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

/// Omits the connection string, which may contain a password by mistake.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
