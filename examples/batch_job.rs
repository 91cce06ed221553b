//! A job that takes longer than a token is valid. It reads through one session that stays open to the end, since a
//! session outlives its token. It stores each batch through a new connection, which gets a valid token.
//!
//! ```sh
//! 90 batches of 20 s: twice as long as a token is valid.
//! DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example batch_job -- 90 20
//! ```
//!
//! A third argument is the lifetime of the tokens in seconds, for servers with a limit below RDS's 15 minutes, such
//! as the emulator.

use std::error::Error;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double};
use diesel_rds_iam::{IamAuth, PgConnectionManager};

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let mut arguments = std::env::args().skip(1);
    let batches: i64 = arguments.next().map_or(Ok(3), |number| number.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |number| number.parse())?;
    let mut auth = IamAuth::builder();
    if let Some(lifetime) = arguments.next() {
        auth = auth.token_lifetime(Duration::from_secs(lifetime.parse()?));
    }
    let auth = auth.build()?;
    let manager = PgConnectionManager::builder(&url)
        .auth(auth.clone())
        .build()?;

    let mut reader = manager.try_connect()?;
    for batch in 0..batches {
        let total = work_out(&mut reader, batch, seconds)?;
        // Without a pool, since a connection is needed only now and then.
        let mut writer = manager.try_connect()?;
        store(&mut writer, batch, total)?;
        println!("batch {batch}: {total}");
    }
    println!("batches={batches} tokens={}", auth.stats().tokens_signed);
    Ok(())
}

/// Stands for a slow query.
fn work_out(reader: &mut PgConnection, batch: i64, seconds: f64) -> QueryResult<i64> {
    diesel::sql_query("SELECT pg_sleep($1)")
        .bind::<Double, _>(seconds)
        .execute(reader)?;
    let total = diesel::dsl::sql::<BigInt>("(SELECT sum(n)::bigint FROM generate_series(1, ")
        .bind::<BigInt, _>(100 * (batch + 1))
        .sql(") AS n)");
    diesel::select(total).get_result(reader)
}

/// Keeps a total, in a temporary table that leaves no trace.
fn store(writer: &mut PgConnection, batch: i64, total: i64) -> QueryResult<()> {
    diesel::sql_query("CREATE TEMPORARY TABLE totals (batch bigint, total bigint)")
        .execute(writer)?;
    diesel::sql_query("INSERT INTO totals VALUES ($1, $2)")
        .bind::<BigInt, _>(batch)
        .bind::<BigInt, _>(total)
        .execute(writer)?;
    Ok(())
}
