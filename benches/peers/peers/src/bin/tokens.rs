//! Nanoseconds that aws-sdk-rds and aws-rds-signer take for a token. Argument: the number of calls.

use std::error::Error;
use std::time::Instant;

use aws_rds_signer::Signer;

const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
const USER: &str = "app";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let calls: u32 = std::env::args().nth(1).ok_or("a number is needed")?.parse()?;
    let aws = aws_config::load_from_env().await;
    let start = Instant::now();
    for _ in 0..calls {
        peers::token(&aws, HOST, 5432, USER).await?;
    }
    let client = start.elapsed().as_nanos() as f64 / f64::from(calls);

    let signer = Signer::builder().host(HOST).port(5432_u16).user(USER).region("eu-west-1").build();
    // It reads its configuration anew for each token.
    let calls = calls.div_ceil(20);
    let start = Instant::now();
    for _ in 0..calls {
        signer.fetch_token().await.map_err(|error| error.to_string())?;
    }
    let signer = start.elapsed().as_nanos() as f64 / f64::from(calls);
    println!("{}", serde_json::json!({ "aws-sdk-rds": client, "aws-rds-signer": signer }));
    Ok(())
}
