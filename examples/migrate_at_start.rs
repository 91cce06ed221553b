//! Migrations at a service's start. Start any number of replicas at once: one of them applies the pending migrations,
//! and the others wait for it.
//!
//! ```sh
//! export DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app
//! for replica in 1 2 3; do cargo run --features migrations --example migrate_at_start & done; wait
//! ```

use std::env;
use std::error::Error;
use std::time::Duration;

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use diesel_rds_iam::PgConnectionManager;
use diesel_rds_iam::migrate::{self, Options, Progress};

/// The folder `migrations`, as it was at compile time.
const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

fn main() -> Result<(), Box<dyn Error>> {
    let manager = PgConnectionManager::new(&env::var("DATABASE_URL")?)?;

    let options = Options::new()
        .lock_wait(Duration::from_secs(120))
        // A migration that waits long for the lock of a table makes all other sessions wait for that table.
        .lock_timeout(Duration::from_secs(10))
        .on_progress(tell);
    let applied = migrate::run_pending(&manager, MIGRATIONS, options)?;
    println!("{} applied here", applied.len());

    // The service starts here.
    let pool = manager.into_pool()?;
    let tables = "SELECT FROM readings LIMIT 1";
    diesel::sql_query(tables).execute(&mut *pool.get()?)?;
    println!("ready");
    Ok(())
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Waiting { limit } => println!("another replica is at it; waiting for {limit:?}"),
        Progress::Finished { step, took } => println!("applied {step} in {took:?}"),
        _ => {}
    }
}
