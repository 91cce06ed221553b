//! A small web service. axum is asynchronous and diesel blocks, so the pool is used inside `spawn_blocking` only.
//!
//! ```sh
//! DATABASE_URL=postgres://app@mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com/app \
//!     cargo run --example web -- 127.0.0.1:3000
//! curl --json '{"text": "water the tomatoes"}' localhost:3000/notes
//! curl localhost:3000/notes
//! curl localhost:3000/ready
//! ```

#![allow(missing_docs, reason = "diesel's macro makes items that are public")]

use std::error::Error;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use diesel::prelude::*;
use diesel_rds_iam::{PgConnectionManager, PgPool};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

diesel::table! {
    notes (id) {
        id -> Integer,
        text -> Text,
    }
}

#[derive(Serialize, Queryable)]
struct Note {
    id: i32,
    text: String,
}

#[derive(Deserialize, Insertable)]
#[diesel(table_name = notes)]
struct NewNote {
    text: String,
}

const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

type Failure = (StatusCode, String);

/// The pool, and its manager beside it, which has the counters and the last failure.
#[derive(Clone)]
struct Database {
    pool: PgPool,
    manager: PgConnectionManager,
}

/// What `/ready` answers with.
#[derive(Serialize)]
struct Health {
    connections: u32,
    idle_connections: u32,
    connections_opened: u64,
    connects_failed: u64,
    logins_refused: u64,
    last_failure: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL")?;
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    // Before the runtime starts, since `build` waits for the first connection. The database may start with this
    // service.
    let manager = PgConnectionManager::new(&url)?;
    let pool = manager
        .pool_builder()
        .startup_timeout(STARTUP_TIMEOUT)
        .build()?;
    diesel::sql_query(
        "CREATE TABLE IF NOT EXISTS notes (id serial PRIMARY KEY, text text NOT NULL)",
    )
    .execute(&mut pool.get()?)?;
    serve(&address, Database { pool, manager })
}

#[tokio::main]
async fn serve(address: &str, database: Database) -> Result<(), Box<dyn Error>> {
    let service = Router::new()
        .route("/notes", get(list).post(add))
        .route("/ready", get(ready))
        .with_state(database);
    let listener = TcpListener::bind(address).await?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    println!("listening on {}", listener.local_addr()?);
    // Completes the requests that are under way.
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
        .await?;
    println!("stopped");
    Ok(())
}

async fn list(State(database): State<Database>) -> Result<Json<Vec<Note>>, Failure> {
    let listed = query(database.pool, |connection| {
        notes::table.order(notes::id).load(connection)
    });
    Ok(Json(listed.await?))
}

async fn add(
    State(database): State<Database>,
    Json(note): Json<NewNote>,
) -> Result<(StatusCode, Json<Note>), Failure> {
    let added = query(database.pool, move |connection| {
        diesel::insert_into(notes::table)
            .values(note)
            .get_result(connection)
    });
    Ok((StatusCode::CREATED, Json(added.await?)))
}

/// Opens no connection and waits for none, so that it answers at once and keeps no paused database awake. Not ready
/// without a connection after a failed attempt to open one. The response has only the kind of the failure; the log
/// has its text.
async fn ready(State(database): State<Database>) -> (StatusCode, Json<Health>) {
    let pool = database.pool.state();
    let stats = database.manager.stats();
    let last_failure = database.manager.last_failure();
    let status = if pool.connections == 0 && last_failure.is_some() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let health = Health {
        connections: pool.connections,
        idle_connections: pool.idle_connections,
        connections_opened: stats.connections_opened,
        connects_failed: stats.connects_failed,
        logins_refused: stats.logins_refused,
        last_failure: last_failure.map(|error| format!("{:?}", error.kind())),
    };
    (status, Json(health))
}

/// Takes a connection and uses it where blocking is allowed. Responds with 503 if there is none, and with 500 if the
/// query fails. The cause goes to the log, and not to the client.
async fn query<T: Send + 'static>(
    pool: PgPool,
    work: impl FnOnce(&mut PgConnection) -> QueryResult<T> + Send + 'static,
) -> Result<T, Failure> {
    let work = spawn_blocking(move || {
        let mut connection = pool.get().map_err(|error| {
            eprintln!("no connection: {error}");
            let message = "the database is not available".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        work(&mut connection).map_err(|error| {
            eprintln!("a query failed: {error}");
            let message = "the database did not answer as it should".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        })
    });
    let panicked = |_| (StatusCode::INTERNAL_SERVER_ERROR, "a bug".to_owned());
    work.await.map_err(panicked)?
}
