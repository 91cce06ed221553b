//! A program that ends soon, often while one of its threads is inside libpq. The suite runs it hundreds of times and
//! checks its exit status.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "how it exits is what is tested"
)]

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel_rds_iam::{PgConnectionManager, PgPool};

fn main() {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL");
    let what = std::env::args().nth(1).expect("what to do");
    match what.as_str() {
        "query" => query_once(&pool(&url)),
        "migrate" => migrate(&url),
        "connect-after-another" => {
            end_slowly();
            connect_elsewhere();
            query_once(&pool(&url));
        }
        "connect-to-nobody" => connect_to_nobody(),
        other => panic!("cannot do {other}"),
    }
}

/// A pool whose threads still open connections after it has been built.
fn pool(url: &str) -> PgPool {
    let manager = PgConnectionManager::new(url).expect("manager");
    let builder = manager.pool_builder().max_size(10).min_idle(Some(10));
    builder.build().expect("pool")
}

fn query_once(pool: &PgPool) {
    let mut connection = pool.get().expect("connection");
    let query = sql_query("SELECT 1");
    query.execute(&mut connection).expect("query");
}

fn migrate(url: &str) {
    let manager = PgConnectionManager::new(url).expect("manager");
    let mut connection = manager.try_connect().expect("connection");
    let statement = sql_query("CREATE TEMPORARY TABLE migrated (version text PRIMARY KEY)");
    statement.execute(&mut connection).expect("statement");
}

/// Another part of the program uses libpq first, which initializes OpenSSL with its exit handler.
fn connect_elsewhere() {
    let url = std::env::var("OTHER_DATABASE_URL").expect("OTHER_DATABASE_URL");
    drop(PgConnection::establish(&url).expect("connection elsewhere"));
}

/// Returns when a thread waits for a server that does not answer.
fn connect_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let host = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    let url = format!("host={host} hostaddr=127.0.0.1 port={port} user=app");
    let manager = PgConnectionManager::builder(&url)
        .connect_timeout(Duration::from_secs(120))
        .build()
        .expect("manager");
    thread::spawn(move || manager.try_connect().map(drop));
    let (mut client, _) = listener.accept().expect("client");
    let mut request_for_tls = [0; 8];
    client.read_exact(&mut request_for_tls).expect("request");
    // If either were closed, libpq would get an answer.
    std::mem::forget((listener, client));
}

/// Delays the exit, so that other threads run while the process ends: a handler that was registered first runs last.
/// Without the delay, one program in fifty crashes instead of one in four.
fn end_slowly() {
    extern "C" fn linger() {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(shutdown_hooks::add_shutdown_hook(linger));
}
