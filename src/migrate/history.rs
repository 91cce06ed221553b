//! The migrations that are applied, according to diesel's table in the database.

use std::collections::BTreeMap;
use std::time::SystemTime;

use diesel::dsl::sql;
use diesel::migration::MigrationConnection;
use diesel::prelude::*;
use diesel::result::QueryResult;
use diesel::sql_types::{Bool, Text, Timestamp};

/// The applied versions, and when each was applied.
pub(super) type History = BTreeMap<String, SystemTime>;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Timestamp)]
    applied_at: SystemTime,
}

/// Reads the table, which may not exist yet. diesel's own function would create it, which fails on a read-only
/// server and for a user without the right to.
pub(super) fn read(connection: &mut PgConnection) -> QueryResult<History> {
    let is_there = "to_regclass('__diesel_schema_migrations') IS NOT NULL";
    if !diesel::select(sql::<Bool>(is_there)).get_result::<bool>(connection)? {
        return Ok(History::new());
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT version, run_on::timestamptz AT TIME ZONE 'UTC' AS applied_at \
         FROM __diesel_schema_migrations",
    )
    .load(connection)?;
    Ok(rows
        .into_iter()
        .map(|row| (row.version, row.applied_at))
        .collect())
}

pub(super) fn create(connection: &mut PgConnection) -> QueryResult<()> {
    connection.setup().map(drop)
}
