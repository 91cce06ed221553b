//! Two pools, one for writing and one for reading, with one identity: its credentials are fetched once.
//!
//! ```sh
//! DATABASE_URL=postgres://app@db.cluster-c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//! READER_URL=postgres://app@db.cluster-ro-c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example read_write_split
//! ```
//!
//! After a failover, the writer's name may lead to the old writer for a while, which only reads now. The
//! writer's pool takes no such connection: `target_session_attrs=read-write` has each one asked when
//! it is opened.

use std::error::Error;

use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_rds_iam::{IamAuth, PgConnectionManager, PgPool};

fn main() -> Result<(), Box<dyn Error>> {
    let writer_url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let reader_url = std::env::var("READER_URL").map_err(|_| "set READER_URL")?;
    let auth = IamAuth::builder().build()?;
    let writers = pool(
        &with_parameter(&writer_url, "target_session_attrs=read-write"),
        &auth,
    )?;
    let readers = pool(&reader_url, &auth)?;

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

fn pool(url: &str, auth: &IamAuth) -> Result<PgPool, diesel_rds_iam::Error> {
    let manager = PgConnectionManager::builder(url).auth(auth.clone());
    manager.build()?.into_pool()
}

/// The URL with one parameter more.
fn with_parameter(url: &str, parameter: &str) -> String {
    let between = if url.contains('?') { '&' } else { '?' };
    format!("{url}{between}{parameter}")
}
