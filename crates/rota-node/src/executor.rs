//! Steps 8 and 9: the thread that owns `state.db` executes final blocks, and answers clients once a
//! block is committed. A block that most likely becomes final next is executed before it is, when
//! nothing final waits, and then has only to be committed (`StateDb::ahead`).

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rota_core::block::{Applied, Block};
use rota_core::error::Fault;
use rota_core::types::Height;
use rota_store::chain_db::ChainDb;
use rota_store::draft::Drafts;
use rota_store::{Receipt, StateDb};

use crate::board::Board;
use crate::pending::Pending;
use crate::queues;
use crate::snapshots::Maker;
use crate::threads::Stop;

/// How often a long replay says how far it is, in blocks.
const PROGRESS_BLOCKS: u64 = 1_000;

/// What the replica asks for.
pub(crate) enum Job {
    /// Execute the next block.
    Apply(Arc<Block>),
    /// Execute this one when its turn comes, and do not commit it: it is not final yet.
    Ahead(Arc<Block>),
    /// Find out where this server's state went wrong, and log it.
    Rescan,
}

/// A block that is executed and committed.
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
    pub(crate) jobs: Receiver<Job>,
    pub(crate) results: Sender<Executed>,
    pub(crate) maker: Maker,
    pub(crate) stop: Stop,
    /// Blocks that are not final, by rising height.
    pub(crate) to_come: VecDeque<Arc<Block>>,
}

impl Executor {
    /// The thread's body.
    pub(crate) fn run(mut self) -> Result<(), Fault> {
        while let Some(job) = self.next() {
            if self.stop.is_told() {
                break;
            }
            let done = match job {
                Job::Rescan => self.rescan().map(|()| true),
                // What comes after a divergence would be executed on a wrong state, and answered
                // wrongly.
                _ if self.board.refuse_if_diverged().is_err() => Ok(true),
                Job::Apply(block) => self.apply(&block),
                Job::Ahead(block) => self.state.ahead(&block).map(|()| true),
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

    /// What is to be done next: what is final first, then a block whose turn it would be. Nothing
    /// when the replica is gone.
    fn next(&mut self) -> Option<Job> {
        loop {
            match self.jobs.try_recv() {
                Ok(Job::Ahead(block)) => self.expect(block),
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => match self.next_to_come() {
                    Some(block) => return Some(Job::Ahead(block)),
                    None => match self.jobs.recv().ok()? {
                        Job::Ahead(block) => self.expect(block),
                        job => return Some(job),
                    },
                },
            }
        }
    }

    /// A block that was expected at this height or above is not any more.
    fn expect(&mut self, block: Arc<Block>) {
        let height = block.header.height;
        self.to_come.retain(|other| other.header.height < height);
        if self.to_come.len() < queues::AHEAD {
            self.to_come.push_back(block);
        }
    }

    /// The block after the last one that is executed, if it is expected.
    fn next_to_come(&mut self) -> Option<Arc<Block>> {
        let next = self.state.applied().height.next();
        while self.to_come.front().is_some_and(|block| block.header.height < next) {
            self.to_come.pop_front();
        }
        self.to_come.pop_front_if(|block| block.header.height == next)
    }

    /// False when the replica is gone.
    fn apply(&mut self, block: &Block) -> Result<bool, Fault> {
        let done = self.state.apply(block)?;
        self.maker.executed(done.applied.height);
        if self.drafts.log_is(self.state.log_pages()) {
            self.state.copy_log()?;
        }
        let transactions = u64::try_from(done.receipts.len()).unwrap_or(u64::MAX);
        self.board.executed(done.applied, transactions);
        self.pending.executed(&done.receipts, self.board.tells_of(done.applied.height));
        Ok(self.results.send(Executed { applied: done.applied, receipts: done.receipts }).is_ok())
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
             or chain.db lost blocks; restore both, or start from an empty home under a new key"
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
