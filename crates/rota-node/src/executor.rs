//! Steps 8 and 9: the thread that owns `state.db` executes final blocks, answers clients, and
//! commits; who reads after an answer waits for that (`commit_gate`). A block that most likely
//! becomes final next is executed before it is, when nothing final waits, and then has only to be
//! committed; where nobody waits, one COMMIT is for several blocks (`rota-store/src/ahead.rs`).

use std::sync::Arc;

use rota_core::block::{Applied, Block};
use rota_core::error::Fault;
use rota_core::types::Height;
use rota_store::chain_db::ChainDb;
use rota_store::draft::Drafts;
use rota_store::{AppliedBlock, Receipt, StateDb};

use crate::agenda::{Agenda, HELD_BLOCKS, Next};
use crate::board::Board;
use crate::mailbox::Results;
use crate::pending::Pending;
use crate::snapshots::Maker;

/// How often a long replay says how far it is, in blocks.
const PROGRESS_BLOCKS: u64 = 1_000;

/// What the replica asks for.
pub(crate) enum Job {
    /// Execute the next block.
    Apply(Arc<Block>),
    /// Find out where this server's state went wrong, and log it.
    Rescan,
}

/// A final block that is executed and committed.
pub(crate) struct Executed {
    /// The new state.
    pub(crate) applied: Applied,
    /// To be written down by whoever owns `chain.db`.
    pub(crate) receipts: Vec<Receipt>,
}

/// Executes blocks until no more come.
pub(crate) struct Executor {
    pub(crate) state: StateDb,
    pub(crate) drafts: Arc<Drafts>,
    pub(crate) board: Arc<Board>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) agenda: Agenda,
    pub(crate) results: Results,
    pub(crate) maker: Maker,
    /// What is executed and not committed.
    pub(crate) held: Vec<AppliedBlock>,
}

impl Executor {
    /// The thread's body.
    pub(crate) fn run(mut self) -> Result<(), Fault> {
        loop {
            let next = self.agenda.next(self.state.executed().height.next(), !self.held.is_empty());
            let is_wrong = self.board.refuse_if_diverged().is_err();
            let done = match next {
                Next::End if is_wrong => break,
                Next::End => return self.commit().map(drop),
                Next::Job(Job::Rescan) => self.rescan().map(|()| true),
                // What comes after a divergence would be executed on a wrong state, and answered
                // wrongly.
                _ if is_wrong => Ok(true),
                Next::Job(Job::Apply(block)) => self.apply(&block),
                Next::Ahead(block) => self.ahead(&block),
            };
            match done {
                Ok(true) => {}
                Ok(false) => break,
                Err(Fault::Diverged(why)) => {
                    self.board.diverge(why);
                    self.pending.close("this server's state is not the cluster's");
                    self.rescan()?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// False when the replica is gone.
    fn apply(&mut self, block: &Arc<Block>) -> Result<bool, Fault> {
        let done = self.state.hold(block)?;
        let height = done.applied.height;
        self.held.push(done);
        let is_due = self.held.len() >= HELD_BLOCKS
            // A snapshot is of what is committed.
            || self.maker.is_due(height)
            || self.agenda.is_awaited();
        if is_due { self.commit() } else { Ok(true) }
    }

    fn ahead(&mut self, block: &Block) -> Result<bool, Fault> {
        // What is final does not wait for what may never be.
        let goes_on = self.commit()?;
        self.state.ahead(block)?;
        Ok(goes_on)
    }

    /// Tells of what is held, if anything is, and commits it.
    fn commit(&mut self) -> Result<bool, Fault> {
        if self.held.is_empty() {
            return Ok(true);
        }
        if self.state.may_be_told()? {
            let closed = self.board.commit_gate.close();
            self.tell();
            self.state.commit_only()?;
            closed.committed();
        } else {
            self.state.commit_only()?;
            self.tell();
        }
        self.state.keep_log_short()?;
        self.maker.executed(self.state.applied().height);
        if self.drafts.log_is(self.state.log_pages()) {
            self.state.copy_log()?;
        }
        for AppliedBlock { applied, receipts } in self.held.drain(..) {
            if self.results.send(Executed { applied, receipts }).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells clients, and whoever waits for a height, of what is held.
    fn tell(&self) {
        for AppliedBlock { applied, receipts } in &self.held {
            let transactions = u64::try_from(receipts.len()).unwrap_or(u64::MAX);
            self.board.executed(*applied, transactions);
            self.pending.executed(receipts, self.board.tells_of(applied.height));
        }
    }

    fn rescan(&mut self) -> Result<(), Fault> {
        let found = self.state.rescan()?;
        let rows = found.differing.len();
        tracing::error!(root = %found.root, rows, "rescanned this server's state");
        for row in &found.differing {
            tracing::error!(table = row.table, key = row.key, "this row is not what was executed");
        }
        if found.differing.is_empty() {
            tracing::error!(
                "every row is what was executed here: the execution itself differed; keep this \
                 home for a report, and start a server anew from an empty one"
            );
        }
        Ok(())
    }
}

/// Executes the final blocks that `state.db` lacks, before anything is served: it may have lost its
/// newest commits, or the server was killed between finality and execution.
pub(crate) fn replay(state: &mut StateDb, chain: &mut ChainDb, last: Height) -> Result<(), Fault> {
    let first = state.applied().height;
    if first > last {
        return Err(Fault::WrongFiles(format!(
            "state.db is at height {first}, chain.db only at {last}: they are not of one server, \
             or chain.db lost blocks; restore both, or remove both and let it follow the others"
        )));
    }
    let mut height = first;
    while height < last {
        height = height.next();
        let block = chain.final_block(height)?.ok_or_else(|| {
            Fault::WrongFiles(format!("chain.db lacks block {height}, which state.db needs next"))
        })?;
        let done = state.apply(&block)?;
        chain.save_receipts(done.receipts);
        if (height.0 - first.0).is_multiple_of(PROGRESS_BLOCKS) || height == last {
            tracing::info!("executed again what state.db lacked: height {height} of {last}");
        }
    }
    Ok(())
}
