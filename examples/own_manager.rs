//! An application with a manager of its own, over PostgreSQL in the cloud and SQLite on a laptop.
//!
//! ```sh
//! DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example own_manager
//! DATABASE_URL=sqlite::memory: cargo run --example own_manager
//! ```
//!
//! The guide's page `own_manager` describes it.

#![allow(missing_docs, reason = "diesel's macro makes items that are public")]

use std::error::Error;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, ManageConnection, Pool};
use diesel::sql_types::Text;
use diesel_rds_iam::{HasRdsManager, PgConnectionManager, PoolBuilder};

diesel::table! {
    notes (text) {
        text -> Text,
    }
}

#[derive(diesel::MultiConnection)]
enum AnyConnection {
    Postgresql(PgConnection),
    Sqlite(SqliteConnection),
}

enum AnyManager {
    Postgresql(PgConnectionManager),
    Sqlite(ConnectionManager<SqliteConnection>),
}

impl AnyManager {
    fn new(url: &str) -> Result<AnyManager, diesel_rds_iam::Error> {
        Ok(match url.strip_prefix("sqlite:") {
            Some(path) => AnyManager::Sqlite(ConnectionManager::new(path)),
            None => AnyManager::Postgresql(PgConnectionManager::new(url)?),
        })
    }
}

impl ManageConnection for AnyManager {
    type Connection = AnyConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<AnyConnection, Self::Error> {
        Ok(match self {
            AnyManager::Postgresql(manager) => {
                let mut connection = manager.connect()?;
                connection
                    .batch_execute("SET statement_timeout = '5s'")
                    .map_err(diesel::r2d2::Error::QueryError)?;
                AnyConnection::Postgresql(connection)
            }
            AnyManager::Sqlite(manager) => AnyConnection::Sqlite(manager.connect()?),
        })
    }

    fn is_valid(&self, connection: &mut AnyConnection) -> Result<(), Self::Error> {
        match (self, connection) {
            (AnyManager::Postgresql(manager), AnyConnection::Postgresql(connection)) => {
                manager.is_valid(connection)
            }
            (AnyManager::Sqlite(manager), AnyConnection::Sqlite(connection)) => {
                manager.is_valid(connection)
            }
            // No manager opens connections of the other.
            _ => Ok(()),
        }
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        match (self, connection) {
            (AnyManager::Postgresql(manager), AnyConnection::Postgresql(connection)) => {
                manager.has_broken(connection)
            }
            (AnyManager::Sqlite(manager), AnyConnection::Sqlite(connection)) => {
                manager.has_broken(connection)
            }
            _ => true,
        }
    }
}

/// The pool is one of this crate, with its lifetimes and its recovery.
impl HasRdsManager for AnyManager {
    type Backend = PgConnection;

    fn rds_manager(&mut self) -> Option<&mut PgConnectionManager> {
        match self {
            AnyManager::Postgresql(manager) => Some(manager),
            AnyManager::Sqlite(_) => None,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let manager = AnyManager::new(&url)?;
    let pool = match manager {
        AnyManager::Postgresql(_) => PoolBuilder::new(manager).max_size(2).build()?,
        AnyManager::Sqlite(_) => Pool::builder().max_size(2).build(manager)?,
    };

    let mut connection = pool.get()?;
    diesel::sql_query("CREATE TEMPORARY TABLE notes (text VARCHAR PRIMARY KEY)")
        .execute(&mut *connection)?;
    for text in ["open the roof", "water the tomatoes"] {
        diesel::insert_into(notes::table)
            .values(notes::text.eq(text))
            .execute(&mut *connection)?;
    }
    let notes: Vec<String> = notes::table
        .select(notes::text)
        .order(notes::text)
        .load(&mut *connection)?;
    let kept_for = match &mut *connection {
        AnyConnection::Postgresql(connection) => {
            let timeout = sql::<Text>("current_setting('statement_timeout')");
            let timeout: String = diesel::select(timeout).get_result(connection)?;
            format!("PostgreSQL, statements end after {timeout}")
        }
        AnyConnection::Sqlite(_) => "SQLite".to_owned(),
    };
    println!("{kept_for}: {}", notes.join(", "));
    Ok(())
}
