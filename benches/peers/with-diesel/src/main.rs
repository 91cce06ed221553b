//! An application that logs in with a password, by diesel alone.

use std::error::Error;

use diesel::r2d2::{ConnectionManager, Pool};
use diesel::{PgConnection, RunQueryDsl, sql_query};

fn main() -> Result<(), Box<dyn Error>> {
    let manager = ConnectionManager::<PgConnection>::new(std::env::var("DATABASE_URL")?);
    let pool = Pool::builder().max_size(1).build(manager)?;
    let rows = sql_query("SELECT 1").execute(&mut pool.get()?)?;
    println!("{rows}");
    Ok(())
}
