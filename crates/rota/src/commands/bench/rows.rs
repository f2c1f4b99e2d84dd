//! The table that is worked on: made and filled before, counted after.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::{Results, Target};
use crate::args::Workload;
use crate::failure::{Failure, database};
use crate::postgres::Postgres;

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

impl Workload {
    /// Whether each of its answers is a new row.
    fn inserts(self) -> bool {
        matches!(self, Self::Insert | Self::Transaction)
    }

    /// Whether it needs rows that are there already.
    fn needs_rows(self) -> bool {
        matches!(self, Self::Update | Self::Read | Self::Mixed)
    }
}

/// Makes the table, fills it if a workload needs rows, and waits until all servers show them.
pub async fn prepare(servers: &[Postgres], workloads: &[Workload]) -> Result<Run, Failure> {
    let Some(config) = servers.first() else { return Err(Failure::new("no server is named")) };
    let client = config.connect().await?;
    let failed = |error| Failure::new(format!("preparing the table: {}", database(&error)));
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bench_rows \
             (id INTEGER PRIMARY KEY, run BIGINT NOT NULL, text TEXT NOT NULL)",
        )
        .await
        .map_err(failed)?;
    let mut rows = largest_key(&client).await.map_err(failed)?;
    let needed = workloads.iter().any(|workload| workload.needs_rows());
    while needed && rows < ROWS {
        let filler = "-".repeat(TEXT);
        let values = (0..BATCH).map(|_| format!("(0, '{filler}')"));
        let values = values.collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT INTO bench_rows (run, text) VALUES {values}");
        client.batch_execute(&sql).await.map_err(failed)?;
        rows = largest_key(&client).await.map_err(failed)?;
    }
    for config in servers {
        let client = config.connect().await?;
        until_so(async || {
            Ok(largest_key(&client).await.is_ok_and(|key| key >= rows).then_some(()))
        })
        .await?
        .ok_or_else(|| Failure::new("not every server shows the table that was made"))?;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mark = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    Ok(Run { mark, rows })
}

async fn largest_key(client: &Client) -> Result<i64, Error> {
    let [key] = first_row(client, "SELECT coalesce(max(id), 0) FROM bench_rows").await?;
    Ok(key)
}

/// The numbers in a query's first row; what is none is 0.
pub async fn first_row<const N: usize>(client: &Client, sql: &str) -> Result<[i64; N], Error> {
    let messages = client.simple_query(sql).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let number = |place| row?.get(place)?.parse().ok();
    Ok(std::array::from_fn(|place| number(place).unwrap_or_default()))
}

/// Looks again and again, until something is so or servers have had time enough to catch up.
pub async fn until_so<T>(
    mut so: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let begun = Instant::now();
    loop {
        match so().await? {
            None if begun.elapsed() < CATCH_UP => tokio::time::sleep(AGAIN).await,
            found => return Ok(found),
        }
    }
}

/// Counts this run's rows on every server: none that was acknowledged may be missing, and there may
/// be no more than those and the ones whose outcome nobody knows.
pub async fn check(targets: &[Target], results: &Results, run: Run) -> Result<Kept, Failure> {
    let inserts = || results.iter().filter(|(workload, ..)| workload.inserts());
    let acknowledged: u64 = inserts().map(|(_, measured, _)| measured.answers()).sum();
    let unknown: u64 = inserts().map(|(_, measured, _)| measured.unknown).sum();
    let mut servers = 0;
    for target in targets {
        let Ok(client) = target.config.connect().await else {
            eprintln!("{} is down: its rows are not counted", target.at);
            continue;
        };
        let mut found = 0;
        let so = until_so(async || {
            found = count(&client, run).await?;
            Ok((acknowledged..=acknowledged + unknown).contains(&found).then_some(()))
        });
        if so.await?.is_none() {
            return Err(Failure::new(format!(
                "{} has {found} rows of this run; {acknowledged} were acknowledged and of \
                 {unknown} the outcome is unknown: rows are lost or doubled",
                target.at
            )));
        }
        servers += 1;
    }
    Ok(Kept { acknowledged, servers })
}

async fn count(client: &Client, run: Run) -> Result<u64, Failure> {
    let sql = format!("SELECT count(*) FROM bench_rows WHERE run = {}", run.mark);
    let counted = first_row(client, &sql).await;
    let [count] =
        counted.map_err(|error| Failure::new(format!("counting rows: {}", database(&error))))?;
    Ok(u64::try_from(count).unwrap_or_default())
}
