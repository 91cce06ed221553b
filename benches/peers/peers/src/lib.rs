//! What the programs of this package share.

use std::error::Error;

use aws_config::SdkConfig;
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config};

/// A new token of AWS's own RDS client.
///
/// # Errors
///
/// Those of the client.
pub async fn token(aws: &SdkConfig, host: &str, port: u64, user: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let config = Config::builder().hostname(host).port(port).username(user);
    let token = AuthTokenGenerator::new(config.build()?).auth_token(aws).await?;
    Ok(token.as_str().to_owned())
}
