//! Where a session stands between BEGIN and COMMIT: PostgreSQL's states, over one
//! [`Transaction`](crate::driver::Transaction) of the driver's. Step 1.
//!
//! ```text
//!          BEGIN                    error
//!   idle ────────► open ──────────────────────────► failed ── everything else: 25P02
//!    ▲ │            │ ▲            ROLLBACK TO        │ │
//!    │ │ several    │ └───────────────────────────────┘ │
//!    │ │ at once    │ COMMIT, ROLLBACK                  │ COMMIT (says ROLLBACK), ROLLBACK
//!    │ ▼            ▼                                   │
//!    └ implicit ◄── BEGIN makes it open;  ◄─────────────┘
//!        its end or an error: idle
//! ```
//!
//! *Implicit* is what several statements in one Query, or between two Syncs, are run in
//! (<https://www.postgresql.org/docs/15/protocol-flow.html>, 55.2.2.1).

use std::time::{Duration, Instant};

use pgwire::messages::response::TransactionStatus;
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement};
use rota_core::types::TransactionId;

use super::variables::Mark;
use crate::driver::{RunOptions, Transaction};

/// The most savepoints in a transaction at a time: each is one more thing to undo at apply, and
/// whoever nests deeper does so by mistake.
const MAX_SAVEPOINTS: usize = 1_000;

/// How long a client may be silent while it holds a draft, of which a server has few and which keep
/// it from beginning its log anew. With `idle_in_transaction_session_timeout` a client chooses
/// another time, and PostgreSQL's way of losing the connection.
pub(crate) const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// A session's transaction, if it is in one.
#[derive(Default)]
pub(crate) struct Block {
    phase: Phase,
    /// Present but in idle, and where nothing can bring it back from failure.
    open: Option<Transaction>,
    savepoints: Vec<Savepoint>,
    read_only: bool,
    /// Whether a statement has seen the database: from then on READ WRITE cannot be had back.
    used: bool,
    /// Whether a draft is open, or may be.
    drafted: bool,
    /// Rolled back behind its client's back, which has to be told.
    expired: bool,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Idle,
    Implicit,
    Open,
    Failed,
}

struct Savepoint {
    name: String,
    /// The session's settings when it was made.
    mark: Mark,
}

impl Block {
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// What ReadyForQuery says.
    pub(crate) fn status(&self) -> TransactionStatus {
        match self.phase {
            Phase::Idle | Phase::Implicit => TransactionStatus::Idle,
            Phase::Open => TransactionStatus::Transaction,
            Phase::Failed => TransactionStatus::Error,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Which transaction it is.
    pub(crate) fn id(&self) -> Option<TransactionId> {
        self.open.as_ref().map(Transaction::id)
    }

    /// When it began.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The transaction that statements run in, if there is one.
    pub(crate) fn transaction(&mut self) -> Option<&mut Transaction> {
        self.drafted = true;
        self.open.as_mut()
    }

    /// The same for a statement that sees the database.
    pub(crate) fn used(&mut self) -> Option<&mut Transaction> {
        self.used = true;
        self.transaction()
    }

    /// Begins.
    pub(crate) fn begin(&mut self, transaction: Transaction, phase: Phase, read_only: bool) {
        *self = Self {
            phase,
            open: Some(transaction),
            savepoints: Vec::new(),
            read_only,
            used: false,
            drafted: false,
            expired: false,
            since: Some(Instant::now()),
        };
    }

    /// BEGIN after other statements of the same Query: they belong to it.
    pub(crate) fn make_explicit(&mut self) {
        self.phase = Phase::Open;
    }

    /// SET TRANSACTION.
    pub(crate) fn set_read_only(&mut self, read_only: bool) -> Result<(), Refusal> {
        if self.read_only && !read_only && self.used {
            return Err(Refusal::new(
                "25001",
                "transaction read-write mode must be set before any query",
            ));
        }
        self.read_only = read_only;
        Ok(())
    }

    /// After an error of any kind.
    pub(crate) fn fail(&mut self) {
        match self.phase {
            Phase::Idle => {}
            Phase::Implicit => *self = Self::default(),
            Phase::Open | Phase::Failed => {
                self.phase = Phase::Failed;
                // Nothing can bring it back: what it holds is given up now rather than when its
                // client gets to it.
                if self.savepoints.is_empty() {
                    self.open = None;
                }
            }
        }
    }

    /// Whether it keeps a draft.
    pub(crate) fn holds_draft(&self) -> bool {
        self.drafted && self.open.is_some()
    }

    /// After [`LONGEST_SILENCE`]: nothing can bring it back.
    pub(crate) fn expire(&mut self) {
        self.phase = Phase::Failed;
        self.open = None;
        self.savepoints.clear();
        self.expired = true;
    }

    /// Whether its client has yet to be told that it is over; it then has been.
    pub(crate) fn take_expired(&mut self) -> bool {
        std::mem::take(&mut self.expired)
    }

    /// Ends it: the transaction, to be committed or dropped.
    pub(crate) fn end(&mut self) -> Option<Transaction> {
        std::mem::take(self).open
    }

    /// How many savepoints there are.
    pub(crate) fn depth(&self) -> usize {
        self.savepoints.len()
    }

    /// SAVEPOINT. Their names on the draft are ours: SQLite's know no difference between `a` and
    /// `"A"`.
    pub(crate) async fn savepoint(
        &mut self,
        name: &str,
        mark: Mark,
        options: &RunOptions,
    ) -> Result<(), Refusal> {
        self.explicit("SAVEPOINT")?;
        if self.savepoints.len() >= MAX_SAVEPOINTS {
            return Err(Refusal::new(
                sqlstate::TOO_COMPLEX,
                format!("a transaction may have {MAX_SAVEPOINTS} savepoints at a time"),
            ));
        }
        let depth = self.savepoints.len();
        self.run(format!("SAVEPOINT s{depth}"), options).await?;
        self.savepoints.push(Savepoint { name: name.to_owned(), mark });
        Ok(())
    }

    /// RELEASE, with all that were made after it.
    pub(crate) async fn release(
        &mut self,
        name: &str,
        options: &RunOptions,
    ) -> Result<(), Refusal> {
        self.explicit("RELEASE SAVEPOINT")?;
        let place = self.find(name)?;
        self.run(format!("RELEASE s{place}"), options).await?;
        self.savepoints.truncate(place);
        Ok(())
    }

    /// ROLLBACK TO: the settings to go back to, and how many savepoints are left.
    pub(crate) async fn rollback_to(
        &mut self,
        name: &str,
        options: &RunOptions,
    ) -> Result<(Mark, usize), Refusal> {
        self.explicit("ROLLBACK TO SAVEPOINT")?;
        let place = self.find(name)?;
        self.run(format!("ROLLBACK TO s{place}"), options).await?;
        self.savepoints.truncate(place.saturating_add(1));
        self.phase = Phase::Open;
        let mark = self.savepoints.get(place).map(|savepoint| savepoint.mark.clone());
        let mark = mark.ok_or_else(|| absent(name))?;
        Ok((mark, self.savepoints.len()))
    }

    fn explicit(&self, what: &str) -> Result<(), Refusal> {
        match self.phase {
            Phase::Open | Phase::Failed => Ok(()),
            Phase::Idle | Phase::Implicit => Err(outside(what)),
        }
    }

    fn find(&self, name: &str) -> Result<usize, Refusal> {
        let place = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        place.ok_or_else(|| absent(name))
    }

    async fn run(&mut self, sql: String, options: &RunOptions) -> Result<(), Refusal> {
        let Some(transaction) = self.transaction() else { return Err(aborted()) };
        let statement = Statement { sql, parameters: Parameters::Positional(Vec::new()) };
        transaction.run(statement, options).await?;
        Ok(())
    }
}

fn absent(name: &str) -> Refusal {
    Refusal::new("3B001", format!("savepoint \"{name}\" does not exist"))
}

/// What only makes sense in a transaction stands outside of one.
pub(crate) fn outside(what: &str) -> Refusal {
    Refusal::new("25P01", format!("{what} can only be used in transaction blocks"))
}

/// A statement after one that failed.
pub(crate) fn aborted() -> Refusal {
    Refusal::new(
        "25P02",
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// What the client of a transaction hears that was silent for too long.
pub(crate) fn expired() -> Refusal {
    let seconds = LONGEST_SILENCE.as_secs();
    Refusal::new(
        "25P03",
        format!(
            "this transaction was idle for {seconds} s and has been rolled back: begin it again"
        ),
    )
}

/// A write in a transaction that only reads.
pub(crate) fn read_only(what: &str) -> Refusal {
    Refusal::new(sqlstate::READ_ONLY, format!("cannot execute {what} in a read-only transaction"))
}
