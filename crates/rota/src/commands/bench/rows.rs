//! The table that is worked on: made and filled before, counted after.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config};

use super::{Results, Target};
use crate::address::connect;
use crate::args::Workload;
use crate::failure::{Failure, database};

/// Reading and updating need something to read and update.
const ROWS: i64 = 10_000;

/// Rows to one statement while the table is filled.
const BATCH: i64 = 1_000;

/// The text in each row has this many characters.
pub const TEXT: usize = 100;

/// How long the other servers may take to show what was written, after everything is acknowledged.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How often they are asked.
const AGAIN: Duration = Duration::from_millis(50);

/// The table, and what marks the rows of this run.
#[derive(Clone, Copy)]
pub struct Run {
    /// In the column `run` of every row inserted now.
    pub mark: i64,
    /// Rows have the keys 1 to this before the first workload.
    pub rows: i64,
}

/// What counting came to.
pub struct Kept {
    /// Rows that were acknowledged; all of them are there.
    pub acknowledged: u64,
    /// On how many servers they were counted.
    pub servers: usize,
}

/// Makes the table, and fills it if a workload needs rows.
pub async fn prepare(servers: &[Config], workloads: &[Workload]) -> Result<Run, Failure> {
    let Some(config) = servers.first() else { return Err(Failure::new("no server is named")) };
    let client = connect(config).await?;
    let failed = |error| Failure::new(format!("preparing the table: {}", database(&error)));
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bench_rows \
             (id INTEGER PRIMARY KEY, run BIGINT NOT NULL, text TEXT NOT NULL)",
        )
        .await
        .map_err(failed)?;
    let mut rows = largest_key(&client).await.map_err(failed)?;
    let needed = workloads.iter().any(|workload| *workload != Workload::Insert);
    while needed && rows < ROWS {
        let filler = "-".repeat(TEXT);
        let values = (0..BATCH).map(|_| format!("(0, '{filler}')"));
        let values = values.collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO bench_rows (run, text) VALUES {values}");
        client.batch_execute(&sql).await.map_err(failed)?;
        rows = largest_key(&client).await.map_err(failed)?;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mark = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    Ok(Run { mark, rows })
}

async fn largest_key(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let messages = client.simple_query("SELECT coalesce(max(id), 0) FROM bench_rows").await?;
    Ok(number(&messages))
}

fn number(messages: &[tokio_postgres::SimpleQueryMessage]) -> i64 {
    let value = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    value.unwrap_or_default()
}

/// Counts this run's rows on every server: none that was acknowledged may be missing, and there may
/// be no more than those and the ones whose outcome nobody knows.
pub async fn check(targets: &[Target], results: &Results, run: Run) -> Result<Kept, Failure> {
    let acknowledged: u64 = results.iter().map(|(_, measured, _)| measured.inserted).sum();
    let unknown: u64 = results.iter().map(|(_, measured, _)| measured.unknown).sum();
    let mut servers = 0;
    for target in targets {
        let Ok(client) = connect(&target.config).await else {
            eprintln!("{} is down: its rows are not counted", target.at);
            continue;
        };
        let begun = Instant::now();
        loop {
            let found = count(&client, run).await?;
            if (acknowledged..=acknowledged + unknown).contains(&found) {
                servers += 1;
                break;
            }
            if begun.elapsed() > CATCH_UP {
                return Err(Failure::new(format!(
                    "{} has {found} rows of this run; {acknowledged} were acknowledged and of \
                     {unknown} the outcome is unknown: rows are lost or doubled",
                    target.at
                )));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    Ok(Kept { acknowledged, servers })
}

async fn count(client: &Client, run: Run) -> Result<u64, Failure> {
    let failed = |error| Failure::new(format!("counting rows: {}", database(&error)));
    let sql = "SELECT count(*) FROM bench_rows WHERE run = $1";
    let statement = client.prepare_typed(sql, &[Type::INT8]).await.map_err(failed)?;
    let row = client.query_one(&statement, &[&run.mark]).await.map_err(failed)?;
    let count: i64 = row.try_get(0).map_err(failed)?;
    Ok(u64::try_from(count).unwrap_or_default())
}
