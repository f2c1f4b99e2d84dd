//! The connections, and what they do over and over.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};

use super::accounts::{self, ACCOUNTS, Statements, Transfer};
use super::measure::{Measured, Shared};
use super::rows::{Run, TEXT};
use crate::args::Workload;
use crate::failure::{Failure, database};
use crate::postgres::Postgres;

/// Between attempts to connect again to a server that is gone.
const RECONNECT: Duration = Duration::from_millis(100);

/// After an error: a server that refuses at once is not asked in a tight loop.
const BREATH: Duration = Duration::from_millis(10);

/// Of the mixed workload's statements, one in this many is an update.
const MIXED: u64 = 5;

/// A workload that ends after so many answers ends after a day at the latest.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How long a workload runs.
#[derive(Clone, Copy)]
pub enum Extent {
    /// For so long.
    Time(Duration),
    /// For so many answers.
    Count(u64),
}

/// Loads the servers for a while, and waits for the last answers for so long after it.
pub async fn load(
    workload: Workload,
    servers: &[Postgres],
    connections: u32,
    (extent, last_answers): (Extent, Duration),
    run: Run,
) -> Result<Measured, Failure> {
    let mut ready = Vec::new();
    for (number, config) in (0..connections).zip(servers.iter().cycle()) {
        let connected = Prepared::new(config, workload).await?;
        let random = Random(run.mark.unsigned_abs() ^ (u64::from(number) + 1) << 32);
        ready.push(Worker { workload, config: config.clone(), run, random, connected });
    }
    let (seconds, count) = match extent {
        Extent::Time(seconds) => (seconds, u64::MAX),
        Extent::Count(count) => (LONGEST, count),
    };
    let shared = Arc::new(Shared::new(count));
    let until = shared.begun + seconds;
    let tasks =
        ready.into_iter().map(|worker| tokio::spawn(worker.run(Arc::clone(&shared), until)));
    let tasks: Vec<_> = tasks.collect();
    watch(workload, &shared, until).await;
    let mut all = Measured::new();
    let last_answers = tokio::time::Instant::now() + last_answers;
    let gap = shared.longest_gap();
    for task in tasks {
        match tokio::time::timeout_at(last_answers, task).await {
            Ok(Ok(one)) => all.add(&one),
            _ => *all.errors.entry("no answer at all".into()).or_default() += 1,
        }
    }
    all.lasted = match extent {
        Extent::Time(seconds) => seconds.max(shared.last_answer()),
        Extent::Count(_) => shared.last_answer(),
    };
    all.longest_gap = gap;
    Ok(all)
}

/// One line a second: in place on a terminal, else one after the other. Standard error, so that
/// results can be kept apart.
async fn watch(workload: Workload, shared: &Shared, until: Instant) {
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut before = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = tokio::time::sleep_until(until.into()) => break,
            () = shared.complete() => break,
        }
        let answers = shared.answers();
        let line = format!(
            "{} {:>3} s: {} per second",
            workload.name(),
            shared.begun.elapsed().as_secs(),
            answers - before
        );
        if terminal {
            eprint!("\r\x1b[2K{line}")
        } else {
            eprintln!("{line}")
        }
        before = answers;
    }
    if terminal {
        eprint!("\r\x1b[2K");
    }
}

/// A connection with its statements.
struct Prepared {
    client: Client,
    insert: Statement,
    update: Statement,
    read: Statement,
    /// For transfers only: nothing else makes their table.
    accounts: Option<Statements>,
}

impl Prepared {
    async fn new(config: &Postgres, workload: Workload) -> Result<Self, Failure> {
        let client = config.connect().await?;
        let prepare = async |sql: &str, types: &[Type]| {
            let prepared = client.prepare_typed(sql, types).await;
            prepared.map_err(|error| Failure::new(format!("{sql}: {}", database(&error))))
        };
        let insert = "INSERT INTO bench_rows (run, text) VALUES ($1, $2)";
        let update = "UPDATE bench_rows SET text = $2 WHERE id = $1";
        let read = "SELECT text FROM bench_rows WHERE id = $1";
        let accounts = match workload {
            Workload::Transfer => Some(Statements::new(&client).await.map_err(|error| {
                Failure::new(format!("preparing transfers: {}", database(&error)))
            })?),
            _ => None,
        };
        Ok(Self {
            insert: prepare(insert, &[Type::INT8, Type::TEXT]).await?,
            update: prepare(update, &[Type::INT8, Type::TEXT]).await?,
            read: prepare(read, &[Type::INT8]).await?,
            accounts,
            client,
        })
    }

    async fn attempt(&self, run: Run, task: &Task) -> Result<(), Error> {
        let Self { client, insert, update, read, accounts } = self;
        match task {
            Task::Insert(text) => client.execute(insert, &[&run.mark, text]).await.map(drop),
            Task::Transaction(text) => {
                client.batch_execute("BEGIN").await?;
                client.execute(insert, &[&run.mark, text]).await?;
                client.batch_execute("COMMIT").await
            }
            Task::Update(key, text) => client.execute(update, &[key, text]).await.map(drop),
            Task::Read(key) => client.query_opt(read, &[key]).await.map(drop),
            Task::Transfer(transfer) => match accounts {
                Some(accounts) => accounts.transfer(client, run, *transfer).await,
                None => Ok(()),
            },
        }
    }
}

/// What is done once, and tried again with the same values where it conflicts with something else.
enum Task {
    Insert(String),
    Transaction(String),
    Update(i64, String),
    Read(i64),
    Transfer(Transfer),
}

struct Worker {
    workload: Workload,
    config: Postgres,
    run: Run,
    random: Random,
    connected: Prepared,
}

impl Worker {
    async fn run(mut self, shared: Arc<Shared>, until: Instant) -> Measured {
        let mut measured = Measured::new();
        while Instant::now() < until && shared.take() {
            let task = self.draw();
            let begun = Instant::now();
            let mut done = self.connected.attempt(self.run, &task).await;
            while Instant::now() < until && done.as_ref().is_err_and(conflicts) {
                measured.retries += 1;
                self.roll_back().await;
                done = self.connected.attempt(self.run, &task).await;
            }
            match done {
                Ok(()) => {
                    measured.answered(begun.elapsed());
                    shared.answered();
                }
                Err(error) => {
                    shared.give_back();
                    let known = error.code().is_some_and(|code| code.code() != "40003");
                    measured.unknown += u64::from(!known);
                    *measured.errors.entry(named(&error)).or_default() += 1;
                    self.roll_back().await;
                    tokio::time::sleep(BREATH).await;
                    self.reconnect(until).await;
                }
            }
        }
        measured
    }

    fn draw(&mut self) -> Task {
        let writes = match self.workload {
            Workload::Insert => return Task::Insert(self.random.text()),
            Workload::Transaction => return Task::Transaction(self.random.text()),
            Workload::Transfer => return Task::Transfer(self.random.transfer()),
            Workload::Update => true,
            Workload::Read => false,
            Workload::Mixed => self.random.below(MIXED) == 0,
        };
        let key = self.random.key(self.run.rows);
        if writes { Task::Update(key, self.random.text()) } else { Task::Read(key) }
    }

    /// Ends a transaction that failed on its way.
    async fn roll_back(&self) {
        if matches!(self.workload, Workload::Transaction | Workload::Transfer) {
            // Without a connection there is none to end.
            let _ = self.connected.client.batch_execute("ROLLBACK").await;
        }
    }

    /// Waits for the server, if the connection is lost.
    async fn reconnect(&mut self, until: Instant) {
        while self.connected.client.is_closed() && Instant::now() < until {
            match Prepared::new(&self.config, self.workload).await {
                Ok(connected) => self.connected = connected,
                Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
    }
}

/// Whether the transaction met another one, changed nothing, and may work when tried again.
fn conflicts(error: &Error) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Errors are counted by this: SQLSTATE and message, without what differs from one to the next.
fn named(error: &Error) -> String {
    match error.as_db_error() {
        Some(said) => {
            let words = said.message().split_whitespace();
            let words = words
                .map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "…" } else { word });
            format!("{}: {}", said.code().code(), words.collect::<Vec<_>>().join(" "))
        }
        None => "connection lost".into(),
    }
}

/// xorshift64* (Vigna, 2016): which row is next need not be unpredictable.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of the keys from 1 to `last`.
    fn key(&mut self, last: i64) -> i64 {
        i64::try_from(self.below(last.max(1).unsigned_abs())).unwrap_or_default() + 1
    }

    fn transfer(&mut self) -> Transfer {
        let (from, next) = (self.key(ACCOUNTS), self.key(ACCOUNTS - 1));
        let to = if next < from { next } else { next + 1 };
        let amount = i64::try_from(self.below(accounts::MOST)).unwrap_or_default() + 1;
        Transfer { from, to, amount }
    }

    fn text(&mut self) -> String {
        let mut text = String::with_capacity(TEXT + 16);
        while text.len() < TEXT {
            text.push_str(&format!("{:016x}", self.next()));
        }
        text.truncate(TEXT);
        text
    }
}
