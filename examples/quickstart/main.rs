//! Shows a pool that outlives its tokens: `cargo run --example quickstart -- [SECONDS]`.
//!
//! The database is an emulator of RDS's login in front of a real PostgreSQL. It accepts a token for 15 s instead of
//! 15 minutes, so that one minute shows an hour of rotations. Eight threads read and write all the time. If a query or
//! a login fails, the exit status is one of failure.

#![allow(
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "an example reads the time as any application does"
)]

mod timeline;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{IamAuth, PgConnectionManager, PgPool};
use rds_iam_emulator::{Emulator, LoginResult};

use timeline::Timeline;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();
const TOKEN_LIFETIME: Duration = Duration::from_secs(15);
const MAX_LIFETIME: Duration = Duration::from_secs(14);
const THREADS: usize = 8;

diesel::table! {
    readings (id) {
        id -> BigInt,
        sensor -> Text,
        celsius -> Double,
    }
}

fn main() -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let seconds = env::args()
        .nth(1)
        .map_or(Ok(60), |seconds| seconds.parse())?;
    let emulator = Emulator::builder().token_lifetime(TOKEN_LIFETIME).start()?;
    emulator.create_iam_user("app")?;
    let url = emulator.url("app");

    // The code of an application, except for the credentials and the lifetimes, which have defaults.
    let timeline = Arc::new(Timeline::start(TOKEN_LIFETIME));
    let (key, secret) = (emulator.access_key(), emulator.secret_key());
    let auth = IamAuth::builder()
        .credentials_provider(Credentials::new(key, secret, None, None, "emulator"))
        .token_lifetime(TOKEN_LIFETIME)
        .event_handler(timeline.clone())
        .build()?;
    let manager = PgConnectionManager::builder(&url)
        .auth(auth.clone())
        .build()?;
    let pool = manager
        .pool_builder()
        .max_lifetime(Some(MAX_LIFETIME))
        .build()?;

    pool.get()?.run_pending_migrations(MIGRATIONS)?;
    timeline.note("migrations ran through the pool");

    let outlived = thread::scope(|scope| {
        for number in 0..THREADS {
            let (pool, timeline) = (&pool, &timeline);
            scope.spawn(move || measure(number, pool, timeline));
        }
        let witness = scope.spawn(|| outlive_a_token(&manager, &timeline));
        timeline.show_for(Duration::from_secs(seconds));
        witness.join()
    });
    let outlived = outlived.unwrap_or_else(|_| Err("the witness panicked".into()));

    let accepted = |login: &&rds_iam_emulator::Login| *login.result() == LoginResult::Accepted;
    let logins = emulator.logins();
    let refused = logins.len() - logins.iter().filter(accepted).count();
    let (queries, mut errors) = (timeline.queries(), timeline.errors());
    if let Err(error) = outlived {
        eprintln!("a session did not outlive its token: {error}");
        errors += 1;
    }
    let rotations = auth.stats().tokens_signed.saturating_sub(1);
    println!(
        "rotations={rotations} logins={} refused={refused} queries={queries} errors={errors}",
        logins.len()
    );
    let is_good = refused == 0 && errors == 0 && queries > 0 && rotations >= 3;
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes a reading and reads the latest one, repeatedly.
fn measure(number: usize, pool: &PgPool, timeline: &Timeline) {
    let name = format!("bed {number}");
    while timeline.is_running() {
        let written = write_and_read(&name, number as f64, pool);
        timeline.count(2, written);
        thread::sleep(Duration::from_millis(20));
    }
}

fn write_and_read(name: &str, degrees: f64, pool: &PgPool) -> Result<(), Box<dyn Error>> {
    use self::readings::dsl::{celsius, id, readings, sensor};

    let mut connection = pool.get()?;
    let written: i64 = diesel::insert_into(readings)
        .values((sensor.eq(name), celsius.eq(degrees)))
        .returning(id)
        .get_result(&mut connection)?;
    let latest: i64 = readings
        .filter(sensor.eq(name))
        .select(id)
        .order(id.desc())
        .first(&mut connection)?;
    if latest < written {
        return Err("a reading that was written is not there".into());
    }
    Ok(())
}

/// Opens a connection with a token that expires soon, and uses the connection after that.
fn outlive_a_token(
    manager: &PgConnectionManager,
    timeline: &Timeline,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    // At an age of 9 s it is valid for another 6 s, and at about 10 s it is replaced.
    let token_end = loop {
        match timeline.newest_token() {
            Some((age, end)) if age >= Duration::from_secs(9) => break end,
            _ if !timeline.is_running() => return Err("no token was about to expire".into()),
            _ => thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut connection = manager.try_connect()?;
    timeline.note("a connection was opened with a token that expires in a few seconds");
    while SystemTime::now() < token_end + Duration::from_secs(1) {
        diesel::sql_query("SELECT 1").execute(&mut connection)?;
        thread::sleep(Duration::from_millis(100));
    }
    diesel::sql_query("SELECT 1").execute(&mut connection)?;
    timeline.note("that connection still works, after its token has expired");
    Ok(())
}
