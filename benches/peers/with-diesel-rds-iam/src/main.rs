//! An application that logs in with IAM, by this library.

use std::error::Error;

use diesel::{RunQueryDsl, sql_query};
use diesel_rds_iam::PgConnectionManager;

fn main() -> Result<(), Box<dyn Error>> {
    let manager = PgConnectionManager::new(&std::env::var("DATABASE_URL")?)?;
    let pool = manager.pool_builder().max_size(1).build()?;
    let rows = sql_query("SELECT 1").execute(&mut pool.get()?)?;
    println!("{rows}");
    Ok(())
}
