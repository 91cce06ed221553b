//! The short table at the top of BENCHMARKS.md: what an application would use instead, and how it fares.

use std::fmt::Write;

use crate::figure::{Figure, Results, grouped};

/// What is used, the figure of its pool, and the figure of its tokens.
const ROWS: [(&str, &str, Option<&str>); 5] = [
    (
        "**diesel and this crate**",
        "rotation_peers",
        Some("token_peers_aws-sdk-rds"),
    ),
    (
        "diesel, `PGPASSWORD` set at the start",
        "rotation_peers_diesel",
        None,
    ),
    (
        "sqlx, a task that sets a token of aws-sdk-rds every 12 s",
        "rotation_peers_sqlx",
        Some("token_peers_aws-sdk-rds"),
    ),
    (
        "psycopg_pool, a token of boto3 for each connection",
        "rotation_peers_psycopg",
        Some("token_peers_botocore"),
    ),
    (
        "node-postgres, a token of @aws-sdk/rds-signer for each connection",
        "rotation_peers_node",
        Some("token_peers_aws-sdkrds-signer"),
    ),
];

/// The table, of what was measured. The first row is this crate's; `None` if its pool was not measured.
pub(crate) fn table(results: &Results) -> Option<String> {
    let mut table = String::from(
        "| what you would use | failed checkouts | refused logins | slowest checkout, s | new token, µs | \
         repeated token, µs |\n|---|---:|---:|---:|---:|---:|\n",
    );
    let figures = results.read();
    let find = |name: &str| figures.iter().find(|figure| figure.name() == name);
    find(ROWS[0].1)?;
    for (row, (what, pool, token)) in ROWS.into_iter().enumerate() {
        let is_ours = row == 0;
        let Some(pool) = find(pool) else { continue };
        let value = |figure: Option<&Figure>, key| {
            let value = figure.and_then(|figure| figure.optional(key));
            value.map_or_else(String::new, grouped)
        };
        let token = token.and_then(find);
        let (new, repeated) = match is_ours {
            true => {
                let repeated = token.and_then(|token| token.optional("a repeated token, ns"));
                let repeated = repeated.map_or_else(String::new, |ns| format!("{:.2}", ns / 1e3));
                (value(token, "ours"), repeated)
            }
            // None of them has a cache.
            false => (value(token, "baseline"), value(token, "baseline")),
        };
        let failed = value(Some(pool), if is_ours { "ours" } else { "baseline" });
        let refused = value(Some(pool), "refused logins");
        let slowest = value(Some(pool), "slowest checkout, s");
        let _ = writeln!(
            table,
            "| {what} | {failed} | {refused} | {slowest} | {new} | {repeated} |"
        );
    }
    Some(table)
}
