//! sqlx's pool, with a task that replaces its token at 80 % of the lifetime. Arguments: seconds, users, size,
//! seconds that a token lives.

use std::env::{args, var};
use std::error::Error;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use tokio::time::sleep;

#[derive(Clone, Default)]
struct Results {
    checkouts: u64,
    failed: u64,
    failed_queries: u64,
    slowest: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let numbers: Vec<f64> = args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let [seconds, users, size, lifetime] = numbers[..] else {
        return Err("four numbers are needed".into());
    };
    let aws = aws_config::load_from_env().await;
    let (host, user) = (var("PGHOST")?, var("PGUSER")?);
    let port: u16 = var("PGPORT")?.parse()?;
    // sqlx cannot dial another address than that of the name, so that it cannot check the name either.
    let options = PgConnectOptions::new_without_pgpass()
        .host(&var("PGHOSTADDR")?)
        .port(port)
        .username(&user)
        .database(&var("PGDATABASE")?)
        .ssl_mode(PgSslMode::VerifyCa)
        .ssl_root_cert(var("PGSSLROOTCERT")?);
    let first = peers::token(&aws, &host, port.into(), &user).await?;
    let pool = PgPoolOptions::new().max_connections(size as u32);
    let pool = pool.connect_lazy_with(options.clone().password(&first));

    let refreshed = pool.clone();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs_f64(lifetime * 0.8)).await;
            if let Ok(token) = peers::token(&aws, &host, port.into(), &user).await {
                refreshed.set_connect_options(options.clone().password(&token));
            }
        }
    });

    let start = Instant::now();
    let users: Vec<_> = (0..users as usize)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut results = Results { slowest: vec![0.0; seconds as usize + 1], ..Results::default() };
                while start.elapsed().as_secs_f64() < seconds {
                    let asked = Instant::now();
                    let connection = pool.acquire().await;
                    let slowest = &mut results.slowest[(asked - start).as_secs() as usize];
                    *slowest = slowest.max(asked.elapsed().as_secs_f64() * 1e3);
                    results.checkouts += 1;
                    match connection {
                        Ok(mut connection) => {
                            let query = sqlx::query("SELECT 1").execute(&mut *connection).await;
                            results.failed_queries += u64::from(query.is_err());
                        }
                        Err(error) => {
                            results.failed += 1;
                            eprintln!("{error}");
                        }
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                results
            })
        })
        .collect();
    let mut all = Results { slowest: vec![0.0; seconds as usize + 1], ..Results::default() };
    for user in users {
        let results = user.await?;
        all.checkouts += results.checkouts;
        all.failed += results.failed;
        all.failed_queries += results.failed_queries;
        for (slowest, other) in all.slowest.iter_mut().zip(results.slowest) {
            *slowest = slowest.max(other);
        }
    }
    let all = serde_json::json!({
        "checkouts": all.checkouts,
        "failed": all.failed,
        "failed queries": all.failed_queries,
        "slowest": all.slowest,
    });
    println!("{all}");
    Ok(())
}
