//! The crate `postgres` instead of diesel.
//!
//! ```sh
//! DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --no-default-features --features postgres --example postgres_client
//! ```

use std::error::Error;

use diesel_rds_iam::PostgresConnectionManager;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let pool = PostgresConnectionManager::new(&url)?.into_pool()?;
    let mut client = pool.get()?;

    let user: String = client.query_one("SELECT current_user::text", &[])?.get(0);
    println!("logged in as {user}");

    let mut transaction = client.transaction()?;
    transaction.batch_execute(
        "CREATE TEMPORARY TABLE notes (id serial PRIMARY KEY, text text NOT NULL) ON COMMIT DROP",
    )?;
    for text in ["water the tomatoes", "open the roof"] {
        transaction.execute("INSERT INTO notes (text) VALUES ($1)", &[&text])?;
    }
    for row in transaction.query("SELECT id, text FROM notes ORDER BY id", &[])? {
        println!(
            "{}: {}",
            row.get::<_, i32>("id"),
            row.get::<_, &str>("text")
        );
    }
    transaction.commit()?;
    Ok(())
}
