//! Accounts and transfers between them: each transfer reads two balances and writes both, so that
//! money is made or lost wherever two of them do not see each other.
//!
//! Every run has accounts of its own, told apart by its mark. An account also counts the transfers
//! that changed it, so that none can be lost or happen twice unnoticed either.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use super::Results;
use super::rows::{Run, first_row, until_so};
use crate::args::Workload;
use crate::failure::{Failure, database};
use crate::postgres::Postgres;

/// How many accounts: few enough that transfers meet all the time.
pub const ACCOUNTS: i64 = 100;

/// What is on each account at first.
const BALANCE: i64 = 1_000;

/// The largest amount that is moved at once.
pub const MOST: u64 = 50;

/// So much, or what there is, from one account to another.
#[derive(Clone, Copy)]
pub struct Transfer {
    /// Whence.
    pub from: i64,
    /// Whither; another account.
    pub to: i64,
    /// How much at most: no account is overdrawn.
    pub amount: i64,
}

/// A connection's statements.
pub struct Statements {
    read: Statement,
    write: Statement,
}

impl Statements {
    /// Prepares them.
    pub async fn new(client: &Client) -> Result<Self, Error> {
        let read = "SELECT balance FROM bench_accounts WHERE run = $1 AND id = $2";
        let write = "UPDATE bench_accounts SET balance = $3, transfers = transfers + 1 \
                     WHERE run = $1 AND id = $2";
        Ok(Self {
            read: client.prepare_typed(read, &[Type::INT8, Type::INT8]).await?,
            write: client.prepare_typed(write, &[Type::INT8, Type::INT8, Type::INT8]).await?,
        })
    }

    /// One attempt, as a program would make it: it waits for each answer.
    pub async fn transfer(
        &self,
        client: &Client,
        run: Run,
        transfer: Transfer,
    ) -> Result<(), Error> {
        let Transfer { from, to, amount } = transfer;
        client.batch_execute("BEGIN").await?;
        let here: i64 = client.query_one(&self.read, &[&run.mark, &from]).await?.try_get(0)?;
        let there: i64 = client.query_one(&self.read, &[&run.mark, &to]).await?.try_get(0)?;
        let amount = amount.min(here);
        client.execute(&self.write, &[&run.mark, &from, &(here - amount)]).await?;
        client.execute(&self.write, &[&run.mark, &to, &(there + amount)]).await?;
        client.batch_execute("COMMIT").await
    }
}

/// Makes this run's accounts, and waits until all servers show them.
pub async fn prepare(servers: &[Postgres], mark: i64) -> Result<(), Failure> {
    let Some(config) = servers.first() else { return Err(Failure::new("no server is named")) };
    let client = config.connect().await?;
    let values = (1..=ACCOUNTS).map(|id| format!("({mark}, {id}, {BALANCE}, 0)"));
    let values = values.collect::<Vec<_>>().join(", ");
    for sql in [
        "CREATE TABLE IF NOT EXISTS bench_accounts \
         (run BIGINT NOT NULL, id BIGINT NOT NULL, balance BIGINT NOT NULL, \
         transfers BIGINT NOT NULL, PRIMARY KEY (run, id))",
        &format!("INSERT INTO bench_accounts VALUES {values}"),
    ] {
        let done = client.batch_execute(sql).await;
        done.map_err(|error| Failure::new(format!("making accounts: {}", database(&error))))?;
    }
    for config in servers {
        let client = config.connect().await?;
        until_so(async || {
            let found = Found::on(&client, mark).await;
            Ok(found.is_ok_and(|found| found.accounts == ACCOUNTS).then_some(()))
        })
        .await?
        .ok_or_else(|| Failure::new("not every server shows the accounts that were made"))?;
    }
    Ok(())
}

/// What a server shows of a run's accounts.
struct Found {
    accounts: i64,
    sum: i64,
    least: i64,
    changes: i64,
}

impl Found {
    async fn on(client: &Client, mark: i64) -> Result<Self, Failure> {
        let sql = format!(
            "SELECT count(*), coalesce(sum(balance), 0), coalesce(min(balance), 0), \
             coalesce(sum(transfers), 0) FROM bench_accounts WHERE run = {mark}"
        );
        let [accounts, sum, least, changes] = first_row(client, &sql).await.map_err(|error| {
            Failure::new(format!("adding up the balances: {}", database(&error)))
        })?;
        Ok(Self { accounts, sum, least, changes })
    }
}

/// What adding up came to.
pub struct Balanced {
    /// Transfers that were acknowledged; all of them are there.
    pub acknowledged: u64,
    /// The sum of all balances, as at first.
    pub sum: i64,
    /// On how many servers they were added up.
    pub servers: usize,
}

/// Adds up this run's accounts on every server: no money may be made or lost, no account
/// overdrawn, and no transfer lost or doubled.
pub async fn check(
    targets: &[super::Target],
    results: &Results,
    run: Run,
) -> Result<Option<Balanced>, Failure> {
    let transfers = || results.iter().filter(|(workload, ..)| *workload == Workload::Transfer);
    if transfers().next().is_none() {
        return Ok(None);
    }
    let acknowledged: u64 = transfers().map(|(_, measured, _)| measured.answers()).sum();
    let unknown: u64 = transfers().map(|(_, measured, _)| measured.unknown).sum();
    let expected = ACCOUNTS * BALANCE;
    let mut servers = 0;
    for target in targets {
        let Ok(client) = target.config.connect().await else {
            eprintln!("{} is down: its balances are not added up", target.at);
            continue;
        };
        let mut last = None;
        let so = until_so(async || {
            let found = Found::on(&client, run.mark).await?;
            let there = u64::try_from(found.changes / 2).unwrap_or_default();
            let all = (acknowledged..=acknowledged + unknown).contains(&there);
            let whole = found.sum == expected && found.least >= 0 && found.changes % 2 == 0;
            last = Some(found);
            Ok((all && whole).then_some(()))
        });
        if so.await?.is_some() {
            servers += 1;
        } else if let Some(found) = last {
            return Err(Failure::new(format!(
                "{} has a sum of {} over {} accounts, the least {}, changed {} times; there must \
                 be {expected}, and two changes for each of {acknowledged} acknowledged transfers \
                 (of {unknown} the outcome is unknown): transactions did not see each other",
                target.at, found.sum, found.accounts, found.least, found.changes
            )));
        }
    }
    Ok(Some(Balanced { acknowledged, sum: expected, servers }))
}
