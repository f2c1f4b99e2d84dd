//! Steps 2 and 9 of a transaction's life: a client's write becomes part of a signed envelope, and
//! its receipt an answer. Reads go to the pool of readers. This is all that the front doors see of
//! a server.
//!
//! ```text
//!  door ── write() ──► pending (id ► who waits) ──► WRITES ──► signer ──► envelope ──► replica
//!   ▲                     │                                                              :
//!   └───── Written ◄──────┴───────────────── receipt ◄── executor ◄──────────────────────┘
//! ```

mod envelopes;
mod latest;
mod levels;
mod patience;
mod purse;
mod transaction;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use rota_core::codec::encode;
use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::{Genesis, Method};
use rota_core::transaction::{self as core, Settings, Statement};
use rota_core::types::{Height, TransactionId};
use rota_store::access::{Access as Users, View};
use rota_store::draft::Drafts;
use rota_store::query::Description;
use rota_store::sql::{Access, classify, forbidden};
use rota_store::staged::is_reserved;
use rota_store::{Rows, StatementResult};
use tokio::sync::oneshot;

use crate::agenda::Haste;
use crate::auth::seal;
use crate::board::Board;
use crate::pending::Pending;
use crate::queues;
use crate::readers::ReadJob;
use crate::signer::{EnvelopeLimits, Pen, Unsent};
use crate::status::{Depth, Named, ServerStatus, State};
use crate::unfinal::Unfinal;
pub use envelopes::ChainNow;
pub use levels::{BeginOptions, Cancel, ReadLevel, ReadOptions, RunOptions, Wait, WriteOptions};
pub(crate) use patience::Patience;
pub(crate) use purse::{Purse, purse_of};
pub use transaction::Transaction;

/// A server that has been without a quorum for so long refuses writes and linearizable reads;
/// before that they wait.
const QUORUM_WAIT: Duration = Duration::from_secs(1);

/// How often it looks.
const QUORUM_STEP: Duration = Duration::from_millis(10);

/// How long a server that stops waits until another one leads.
const HAND_OVER: Duration = Duration::from_secs(1);

/// And how long for the answers to writes that are under way; whoever waits longer hears 40003.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// How long a read waits for the height that it must see.
pub const READ_WAIT: Duration = Duration::from_secs(10);

/// How long a write waits for a server that has just started.
pub const LIVE_WAIT: Duration = Duration::from_secs(5);

/// What an envelope has besides its transactions: signer, expiry, signature, counts.
pub(crate) const ENVELOPE_FRAME_BYTES: usize = 256;

/// What the front doors see of a server.
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    board: Arc<Board>,
    pending: Arc<Pending>,
    unfinal: Arc<Unfinal>,
    haste: Haste,
    pen: Pen,
    writes: Sender<QueuedWrite>,
    reads: Sender<ReadJob>,
    limits: EnvelopeLimits,
    drafts: Arc<Drafts>,
    access: View,
    /// Present under `pow`.
    purse: Purse,
    /// One reservation of numbers at a time.
    reserving: tokio::sync::Mutex<()>,
    /// Bytes of the writes that are queued or in flight.
    bytes: AtomicUsize,
}

/// A write that is final and executed here.
#[derive(Clone, Debug)]
pub struct Written {
    /// What became of it can be asked by this from any server.
    pub id: TransactionId,
    /// The block that it stands in.
    pub height: Height,
    /// Its place in the block.
    pub index: u32,
    /// One for each statement.
    pub results: Vec<StatementResult>,
}

/// A write that was refused, failed, or whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct WriteError {
    /// What the client is told.
    pub refusal: Refusal,
    /// Present once the transaction was signed; with 40003 the client asks what became of it by
    /// this.
    pub id: Option<TransactionId>,
}

impl From<Refusal> for WriteError {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, id: None }
    }
}

/// A transaction on its way to the signer.
pub(crate) struct QueuedWrite {
    pub(crate) id: TransactionId,
    pub(crate) transaction: core::Transaction,
    /// Encoded.
    pub(crate) bytes: usize,
}

impl Driver {
    pub(crate) fn new(
        board: Arc<Board>,
        pending: Arc<Pending>,
        (unfinal, haste): (Arc<Unfinal>, Haste),
        (pen, writes): (Pen, Sender<QueuedWrite>),
        reads: Sender<ReadJob>,
        limits: EnvelopeLimits,
        (drafts, access, purse): (Arc<Drafts>, View, Purse),
    ) -> Self {
        let (bytes, reserving) = (AtomicUsize::new(0), tokio::sync::Mutex::default());
        let inner = Inner {
            board,
            pending,
            unfinal,
            haste,
            pen,
            writes,
            reads,
            limits,
            drafts,
            access,
            purse,
            reserving,
            bytes,
        };
        Self(Arc::new(inner))
    }

    /// Users and grants as of the newest block that is executed here.
    pub fn access(&self) -> Arc<Users> {
        self.0.access.current()
    }

    /// Refuses what this server cannot sign: `user` is not bound to it.
    pub(crate) fn check_user(&self, user: &str) -> Result<(), Refusal> {
        self.access().is_bound(&self.0.board.key, user)
    }

    /// Executes statements as one transaction, in the name of `user`; answers when it is final and
    /// executed here.
    ///
    /// `57P03` before signing: no quorum in reach, or stopping. `53000`: busy. `54000`: too large
    /// for an envelope. `40003`: signed, outcome unknown. Anything else: it was executed and
    /// failed, and changed nothing.
    pub async fn write(
        &self,
        user: &str,
        statements: Vec<Statement>,
        settings: Settings,
        options: &WriteOptions,
    ) -> Result<Written, WriteError> {
        self.check_votes()?;
        self.check_user(user)?;
        let statements = sealed(statements)?;
        check_statements(&statements)?;
        let salt = salt()?;
        let transaction =
            core::Transaction { salt, user: user.into(), statements, settings, interactive: None };
        self.submit(transaction, options, self.write_timeout()).await
    }

    /// How long a client waits for its write before it hears that the outcome is unknown.
    pub fn write_timeout(&self) -> Duration {
        self.0.limits.patience.write
    }

    /// Refuses writes where they cannot be decided: on a server that only follows.
    fn check_votes(&self) -> Result<(), Refusal> {
        if !self.0.board.follows() {
            return Ok(());
        }
        let message = "this server follows the others and takes no part in deciding: reads only; \
                       write to a member";
        Err(Refusal::new(sqlstate::READ_ONLY, message))
    }

    /// Sends a transaction and waits for what becomes of it, no longer than `most`.
    async fn submit(
        &self,
        transaction: core::Transaction,
        options: &WriteOptions,
        most: Duration,
    ) -> Result<Written, WriteError> {
        let inner = &*self.0;
        inner.board.refuse_if_diverged()?;
        self.check_votes()?;
        self.wait_for_quorum().await?;
        self.wait_until_live().await?;
        let bytes = encode(&transaction).len();
        if bytes > inner.limits.bytes {
            return Err(too_large(bytes, inner.limits.bytes).into());
        }
        self.check_purse(bytes).await?;
        let early = early_results(options.wait, &transaction.statements);
        let _room = inner.room(bytes)?;
        let id = transaction.id(inner.board.chain, inner.board.key);
        let mut waiting = inner.pending.wait_for(id, options.wait, early)?;
        inner.sign(QueuedWrite { id, transaction, bytes })?;
        let patience = options.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let patience = patience.map_or(most, |patience| patience.min(most));
        match tokio::time::timeout(patience, &mut waiting.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unknown(id, "this server stopped")),
            Err(_) => Err(unknown(id, &inner.pending.why_late())),
        }
    }

    /// Executes a statement that only reads, on a state as new as `options` ask for.
    pub async fn read(
        &self,
        user: &str,
        statement: Statement,
        settings: Settings,
        options: &ReadOptions,
    ) -> Result<Rows, Refusal> {
        self.0.board.refuse_if_diverged()?;
        self.wait_for(options.after).await?;
        match options.level {
            ReadLevel::Local => {}
            ReadLevel::Linearizable => drop(self.linearizable(options.deadline).await?),
            ReadLevel::Latest => {
                if let Some(rows) = self.read_latest(user, &statement, &settings, options).await? {
                    return Ok(rows);
                }
            }
        }
        let (reply, answer) = oneshot::channel();
        let (user, options) = (user.into(), options.clone());
        self.send(ReadJob::Query { user, statement, settings, options, reply })?;
        answer.await.map_err(|_| stopping())?
    }

    /// What a statement takes and gives, without executing it.
    pub async fn describe(
        &self,
        user: &str,
        sql: String,
        settings: Settings,
    ) -> Result<Description, Refusal> {
        self.0.board.refuse_if_diverged()?;
        let (reply, answer) = oneshot::channel();
        self.send(ReadJob::Describe { user: user.into(), sql, settings, reply })?;
        answer.await.map_err(|_| stopping())?
    }

    /// Refuses reads of a server that has been cut off from a quorum, or `strict`ly behind it, for
    /// longer than `within`.
    pub(crate) fn check_freshness(&self, within: Duration, strict: bool) -> Result<(), Refusal> {
        let staleness = self.0.board.staleness(strict);
        if staleness <= within {
            return Ok(());
        }
        let message = format!(
            "stale read: for {:.1} s this server has not been in touch with a quorum, or not up to \
             date; ask another server",
            staleness.as_secs_f64()
        );
        Err(Refusal::new(sqlstate::CANNOT_CONNECT_NOW, message))
    }

    /// Where this server stands.
    pub fn status(&self) -> ServerStatus {
        self.0.board.status()
    }

    /// What all servers of this database have in common.
    pub(crate) fn genesis(&self) -> &Genesis {
        self.0.board.genesis()
    }

    /// How it is found out whose turn it is.
    pub(crate) fn method(&self) -> Method {
        self.0.board.method()
    }

    /// The servers that have names, in their order.
    pub(crate) fn servers(&self) -> Vec<Named> {
        self.0.board.servers()
    }

    /// How deep a final block is, where that is what makes it final (`pow`).
    pub(crate) fn depth(&self, height: Height) -> Option<Depth> {
        self.0.board.depth(height)
    }

    /// Whether this server can be used, in one word.
    pub(crate) fn state(&self) -> State {
        self.0.board.state()
    }

    /// Whether it can, and has executed the block at a height.
    pub(crate) fn has_executed(&self, height: Height) -> bool {
        self.state() == State::Ready && *self.0.board.applied().borrow() >= height
    }

    /// The newest final height here.
    pub(crate) fn height(&self) -> Height {
        self.0.board.chain_now().0
    }

    /// Where peers, and over HTTP clients, reach this server, as far as its settings say so.
    pub(crate) fn own_addresses(&self) -> (String, Option<String>) {
        self.0.board.own_addresses()
    }

    /// Before a planned stop: takes no more writes (57P03), so that their clients go elsewhere, has
    /// another server elected, and waits a moment for the writes that are under way.
    pub(crate) async fn wind_up(&self) {
        let inner = &*self.0;
        inner.pending.take_no_more();
        self.hand_over().await;
        let answered = async {
            while !inner.pending.is_empty() {
                tokio::time::sleep(QUORUM_STEP).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WRITES, answered).await;
    }

    /// Has another server elected, if this one leads until it is missed, and
    /// returns when one leads, or when none does in time. Whether this server leads no more.
    /// Whoever waits here for a write goes on waiting for it.
    pub(crate) async fn hand_over(&self) -> bool {
        let inner = &*self.0;
        let leads = || inner.board.leader() == Some(inner.board.key);
        if inner.board.method() != Method::Raft || !leads() {
            return true;
        }
        inner.unfinal.hand_over();
        let handed = async {
            while leads() {
                tokio::time::sleep(QUORUM_STEP).await;
            }
        };
        let done = tokio::time::timeout(HAND_OVER, handed).await.is_ok();
        match done {
            true => tracing::info!("this server leads no more"),
            false => tracing::warn!("no other server took over within {HAND_OVER:?}"),
        }
        done
    }

    /// Returns when everything that a client was told of stands in `state.db`: for those who read
    /// it without a reader. Blocks, for as long as a COMMIT takes.
    pub(crate) fn wait_for_commit(&self) -> Result<(), Refusal> {
        if self.0.board.commit_gate.pass() { Ok(()) } else { Err(stopping()) }
    }

    /// This server's home.
    pub(crate) fn home(&self) -> &Path {
        self.0.drafts.home()
    }

    /// Returns when a quorum is in reach: at once, as a rule. A connection that was lost because a
    /// machine was busy is back in a moment, and so is a leader.
    async fn wait_for_quorum(&self) -> Result<(), Refusal> {
        while !self.0.board.quorum_in_reach() {
            if self.0.board.cut_off_for() >= QUORUM_WAIT {
                return Err(no_quorum());
            }
            tokio::time::sleep(QUORUM_STEP).await;
        }
        Ok(())
    }

    /// Returns when this server has taken part in a decision since it started: a moment after that,
    /// as a rule.
    async fn wait_until_live(&self) -> Result<(), Refusal> {
        let mut live = self.0.board.live();
        if *live.borrow_and_update() {
            return Ok(());
        }
        match tokio::time::timeout(LIVE_WAIT, live.wait_for(|live| *live)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::new(
                sqlstate::CANNOT_CONNECT_NOW,
                "this server has just started and is catching up: nothing was written; try again, \
                 or use another server",
            )),
        }
    }

    /// Returns once this server has executed every write that was acknowledged anywhere before this
    /// was called.
    async fn linearizable(&self, deadline: Option<Instant>) -> Result<Height, Refusal> {
        if self.wait_for_quorum().await.is_err() {
            return Err(Refusal::new(
                sqlstate::CANNOT_CONNECT_NOW,
                "not enough servers are in touch with this one to make sure that a read is the \
                 newest state: try again, use another server, or SET rota.read = local",
            ));
        }
        let _awaited = self.0.haste.hurry();
        self.0.unfinal.linearizable(deadline).await
    }

    /// Returns when this server has executed the block at `height`.
    async fn wait_for(&self, height: Height) -> Result<(), Refusal> {
        let mut applied = self.0.board.applied();
        if *applied.borrow_and_update() >= height {
            return Ok(());
        }
        let _awaited = self.0.haste.hurry();
        match tokio::time::timeout(READ_WAIT, applied.wait_for(|now| *now >= height)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refusal::new(
                sqlstate::QUERY_CANCELED,
                format!(
                    "this server has not executed height {height} within {READ_WAIT:?}: try again, \
                     or ask another server"
                ),
            )),
        }
    }

    fn send(&self, job: ReadJob) -> Result<(), Refusal> {
        self.0.reads.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => busy("reads"),
            TrySendError::Disconnected(_) => stopping(),
        })
    }
}

impl Inner {
    /// Counts a write's bytes until it is answered.
    fn room(&self, bytes: usize) -> Result<Room<'_>, Refusal> {
        let room = Room { held: &self.bytes, bytes };
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The largest single write is far below the limit, so it always fits an idle server.
        if before.saturating_add(bytes) > queues::WRITES_BYTES {
            return Err(busy("writes"));
        }
        Ok(room)
    }

    /// Has a write signed: at once, or by the signer with others.
    fn sign(&self, write: QueuedWrite) -> Result<(), Refusal> {
        let write = match self.pen.sign_lone(write) {
            Ok(()) => return Ok(()),
            Err(Unsent::Later(write)) => *write,
            Err(Unsent::Full) => return Err(busy("writes")),
            Err(Unsent::Gone) => return Err(stopping()),
        };
        self.writes.try_send(write).map_err(|error| match error {
            TrySendError::Full(_) => busy("writes"),
            TrySendError::Disconnected(_) => stopping(),
        })
    }
}

struct Room<'a> {
    held: &'a AtomicUsize,
    bytes: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a client is told that does not wait until its statements are executed.
fn early_results(wait: Wait, statements: &[Statement]) -> Vec<StatementResult> {
    let nothing = |statement: &Statement| StatementResult::nothing(classify(&statement.sql).kind);
    if wait == Wait::Final { Vec::new() } else { statements.iter().map(nothing).collect() }
}

/// Passwords become verifiers before anything is signed.
fn sealed(mut statements: Vec<Statement>) -> Result<Vec<Statement>, Refusal> {
    for statement in &mut statements {
        if let Some(sealed) = seal(&statement.sql)? {
            statement.sql = sealed;
        }
    }
    Ok(statements)
}

/// What is refused for sure, at once; everything is checked again at apply.
fn check_statements(statements: &[Statement]) -> Result<(), Refusal> {
    if statements.is_empty() {
        return Err(Refusal::new(sqlstate::PROTOCOL_VIOLATION, "a transaction needs a statement"));
    }
    for statement in statements {
        if is_reserved(&statement.sql) {
            let message = "this statement is the servers' own";
            return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message));
        }
        let found = classify(&statement.sql);
        match found.access {
            Access::Read | Access::Write => forbidden(&statement.sql, found.kind)?,
            Access::Empty => {
                let message = "a statement without words in a transaction";
                return Err(Refusal::new(sqlstate::SYNTAX_ERROR, message));
            }
            Access::Session => {
                let message = "BEGIN, COMMIT, SET and their like cannot be part of a transaction \
                               that is sent as a whole";
                return Err(Refusal::new(sqlstate::INVALID_TRANSACTION_STATE, message));
            }
        }
    }
    Ok(())
}

/// Makes a transaction's id unique.
fn salt() -> Result<[u8; 16], Refusal> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| {
        Refusal::new(sqlstate::INTERNAL, format!("the system's random source failed: {error}"))
    })?;
    Ok(salt)
}

fn no_quorum() -> Refusal {
    Refusal::new(
        sqlstate::CANNOT_CONNECT_NOW,
        "not enough servers are in touch with this one to make a write final: nothing was written; \
         try again, or use another server",
    )
}

pub(crate) fn stopping() -> Refusal {
    Refusal::new(sqlstate::CANNOT_CONNECT_NOW, "this server is stopping: use another server")
}

pub(crate) fn busy(what: &str) -> Refusal {
    Refusal::new(sqlstate::BUSY, format!("this server has too many {what} waiting: try again"))
}

fn too_large(bytes: usize, most: usize) -> Refusal {
    Refusal::new(
        sqlstate::TOO_COMPLEX,
        format!("a transaction of {bytes} bytes; {most} are possible: use several transactions"),
    )
}

pub(crate) fn unknown(id: TransactionId, why: &str) -> WriteError {
    let message = format!(
        "outcome unknown: {why}; it will be executed once or never: ask any server with \
         SELECT rota_transaction('{id}')"
    );
    WriteError { refusal: Refusal::new(sqlstate::OUTCOME_UNKNOWN, message), id: Some(id) }
}
