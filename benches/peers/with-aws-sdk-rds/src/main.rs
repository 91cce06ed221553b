//! The same application by AWS's own client of RDS: a token for each connection of an r2d2 pool.

use std::error::Error;

use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config};
use diesel::r2d2::{ConnectionManager, ManageConnection, Pool};
use diesel::{Connection, ConnectionError, PgConnection, RunQueryDsl, sql_query};
use tokio::runtime::Runtime;

const USER: &str = "app";

struct Manager {
    runtime: Runtime,
    aws: aws_config::SdkConfig,
    host: String,
    roots: String,
    inner: ConnectionManager<PgConnection>,
}

impl Manager {
    fn token(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        let config = Config::builder().hostname(&self.host).port(5432).username(USER);
        let generator = AuthTokenGenerator::new(config.build()?);
        let token = self.runtime.block_on(generator.auth_token(&self.aws))?;
        Ok(token.as_str().to_owned())
    }
}

impl ManageConnection for Manager {
    type Connection = PgConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<PgConnection, Self::Error> {
        let token = self
            .token()
            .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        let (host, roots) = (&self.host, &self.roots);
        let conninfo = format!(
            "host={host} user={USER} password='{token}' sslmode=verify-full sslrootcert={roots}"
        );
        Ok(PgConnection::establish(&conninfo)?)
    }

    fn is_valid(&self, connection: &mut PgConnection) -> Result<(), Self::Error> {
        self.inner.is_valid(connection)
    }

    fn has_broken(&self, connection: &mut PgConnection) -> bool {
        self.inner.has_broken(connection)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let manager = Manager {
        aws: runtime.block_on(aws_config::load_from_env()),
        runtime,
        host: std::env::var("DATABASE_HOST")?,
        roots: std::env::var("DATABASE_ROOTS")?,
        inner: ConnectionManager::new(""),
    };
    let pool = Pool::new(manager)?;
    sql_query("SELECT 1").execute(&mut pool.get()?)?;
    Ok(())
}
