//! Two pools, one for writing and one for reading, with one identity: its credentials are fetched once.
//!
//! ```sh
//! DATABASE_URL=postgres://app@db.cluster-c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//! READER_URL=postgres://app@db.cluster-ro-c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example read_write_split
//! ```
//!
//! The names are those of an Aurora cluster. Its members are dialled by their own names, so that writes go on at the new
//! writer after a failover, whatever DNS says, and reads are shared out among the readers.

use std::error::Error;

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_rds_iam::{IamAuth, PgConnectionManager};

fn main() -> Result<(), Box<dyn Error>> {
    let writer_url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let reader_url = std::env::var("READER_URL").map_err(|_| "set READER_URL")?;
    let auth = IamAuth::builder().build()?;
    let at = |url: &str| PgConnectionManager::builder(url).auth(auth.clone());
    let writers = at(&writer_url).writer().build()?.into_pool()?;
    let readers = at(&reader_url).readers().build()?.into_pool()?;

    let mut writer = writers.get()?;
    diesel::sql_query("CREATE TEMPORARY TABLE orders (id bigint)").execute(&mut writer)?;
    let inserted = diesel::sql_query("INSERT INTO orders VALUES (1), (2)").execute(&mut writer)?;
    println!("{inserted} orders written");

    let mut reader = readers.get()?;
    let (version, standby): (String, bool) = diesel::select((
        diesel::dsl::sql::<Text>("current_setting('server_version')"),
        diesel::dsl::sql::<Bool>("pg_is_in_recovery()"),
    ))
    .get_result(&mut reader)?;
    let role = if standby {
        "a standby"
    } else {
        "the writer itself"
    };
    println!("reading from {role}, PostgreSQL {version}");
    Ok(())
}
