//! The connections, and what they do over and over.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Statement};

use super::measure::{Measured, Shared};
use super::rows::{Run, TEXT};
use crate::address::connect;
use crate::args::Workload;
use crate::failure::{Failure, database};

/// Between attempts to connect again to a server that is gone.
const RECONNECT: Duration = Duration::from_millis(100);

/// After an error: a server that refuses at once is not asked in a tight loop.
const BREATH: Duration = Duration::from_millis(10);

/// How long after its end a workload waits for the last answers. Longer than a server takes to
/// answer that it does not know.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// Of the mixed workload's statements, one in this many is an update.
const MIXED: u64 = 5;

/// Loads the servers for a while.
pub async fn load(
    workload: Workload,
    servers: &[Config],
    connections: u32,
    seconds: Duration,
    run: Run,
) -> Result<Measured, Failure> {
    let mut ready = Vec::new();
    for (number, config) in (0..connections).zip(servers.iter().cycle()) {
        let connected = Prepared::new(config).await?;
        let random = Random(run.mark.unsigned_abs() ^ (u64::from(number) + 1) << 32);
        ready.push(Worker { workload, config: config.clone(), run, random, connected });
    }
    let shared = Arc::new(Shared::new());
    let until = shared.begun + seconds;
    let tasks =
        ready.into_iter().map(|worker| tokio::spawn(worker.run(Arc::clone(&shared), until)));
    let tasks: Vec<_> = tasks.collect();
    watch(workload, &shared, until).await;
    let mut all = Measured::new();
    let last_answers = tokio::time::Instant::from_std(until + LAST_ANSWERS);
    let gap = shared.longest_gap();
    for task in tasks {
        match tokio::time::timeout_at(last_answers, task).await {
            Ok(Ok(one)) => all.add(&one),
            _ => *all.errors.entry("no answer at all".into()).or_default() += 1,
        }
    }
    all.lasted = seconds.max(shared.last_answer());
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
}

impl Prepared {
    async fn new(config: &Config) -> Result<Self, Failure> {
        let client = connect(config).await?;
        let prepare = async |sql: &str, types: &[Type]| {
            let prepared = client.prepare_typed(sql, types).await;
            prepared.map_err(|error| Failure::new(format!("{sql}: {}", database(&error))))
        };
        let insert = "INSERT INTO bench_rows (run, text) VALUES ($1, $2)";
        let update = "UPDATE bench_rows SET text = $2 WHERE id = $1";
        let read = "SELECT text FROM bench_rows WHERE id = $1";
        Ok(Self {
            insert: prepare(insert, &[Type::INT8, Type::TEXT]).await?,
            update: prepare(update, &[Type::INT8, Type::TEXT]).await?,
            read: prepare(read, &[Type::INT8]).await?,
            client,
        })
    }
}

struct Worker {
    workload: Workload,
    config: Config,
    run: Run,
    random: Random,
    connected: Prepared,
}

impl Worker {
    async fn run(mut self, shared: Arc<Shared>, until: Instant) -> Measured {
        let mut measured = Measured::new();
        while Instant::now() < until {
            let inserts = matches!(self.workload, Workload::Insert);
            let begun = Instant::now();
            match self.once().await {
                Ok(()) => {
                    measured.answered(begun.elapsed());
                    measured.inserted += u64::from(inserts);
                    shared.answered();
                }
                Err(error) => {
                    let known = error.code().is_some_and(|code| code.code() != "40003");
                    measured.unknown += u64::from(inserts && !known);
                    *measured.errors.entry(named(&error)).or_default() += 1;
                    tokio::time::sleep(BREATH).await;
                    self.reconnect(until).await;
                }
            }
        }
        measured
    }

    async fn once(&mut self) -> Result<(), tokio_postgres::Error> {
        let Prepared { client, insert, update, read } = &self.connected;
        let writes = match self.workload {
            Workload::Insert => {
                let text = self.random.text();
                return client.execute(insert, &[&self.run.mark, &text]).await.map(drop);
            }
            Workload::Update => true,
            Workload::Read => false,
            Workload::Mixed => self.random.below(MIXED) == 0,
        };
        let rows = self.run.rows.max(1).unsigned_abs();
        let key = i64::try_from(self.random.below(rows)).unwrap_or_default() + 1;
        if writes {
            client.execute(update, &[&key, &self.random.text()]).await.map(drop)
        } else {
            client.query_opt(read, &[&key]).await.map(drop)
        }
    }

    /// Waits for the server, if the connection is lost.
    async fn reconnect(&mut self, until: Instant) {
        while self.connected.client.is_closed() && Instant::now() < until {
            match Prepared::new(&self.config).await {
                Ok(connected) => self.connected = connected,
                Err(_) => tokio::time::sleep(RECONNECT).await,
            }
        }
    }
}

/// Errors are counted by this: SQLSTATE and message, without what differs from one to the next.
fn named(error: &tokio_postgres::Error) -> String {
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

    fn text(&mut self) -> String {
        let mut text = String::with_capacity(TEXT + 16);
        while text.len() < TEXT {
            text.push_str(&format!("{:016x}", self.next()));
        }
        text.truncate(TEXT);
        text
    }
}
