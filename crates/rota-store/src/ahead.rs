//! Step 8 before step 7 is over: the block that most likely becomes final next is executed while
//! the members' disks write it (`raft`), and only COMMIT waits until it is final.
//!
//! ```text
//!   ahead(h) ── BEGIN … leaves, root, height ─┬─ apply(h) ───────────────────► COMMIT
//!                    nobody sees any of it    └─ apply(another), or a restart ─► as if never run
//! ```
//! SQLite shows an open transaction to its own connection only, so that readers, drafts, snapshots
//! and a crash know nothing of it. What is in memory beside it (trees, sequences, ids, the schema,
//! prepared statements) has gone on, and is brought back by opening the file again, as at any
//! start: that is rare, since a leader's entries are replaced only after another one was elected,
//! and there is then one way, not two, in which a server comes to what it knows.

use rota_core::block::Block;
use rota_core::error::Fault;
use rota_core::types::BlockId;

use crate::state::{AppliedBlock, StateDb};

/// A block that is executed, and not committed.
#[derive(Debug)]
pub(crate) struct Ahead {
    block: BlockId,
    done: AppliedBlock,
}

impl StateDb {
    /// Executes the block after [`Self::applied`] and commits nothing: it is not final, and nothing
    /// of it is to be seen anywhere before [`Self::apply`] is given the very same. Of another
    /// height it is let be; another one of the same height takes the place of the one before.
    pub fn ahead(&mut self, block: &Block) -> Result<(), Fault> {
        if block.header.height != self.applied.height.next() {
            return Ok(());
        }
        let id = block.id(self.chain);
        match &self.ahead {
            Some(ahead) if ahead.block == id => return Ok(()),
            Some(_) => self.forget_ahead()?,
            None => {}
        }
        let done = self.execute(block)?;
        self.ahead = Some(Ahead { block: id, done });
        Ok(())
    }

    /// Whether [`Self::apply`] of the next block has no more to do than to commit it.
    pub fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// What came of this block, if it is the one that was executed ahead; another one is undone.
    pub(crate) fn take_ahead(&mut self, block: &Block) -> Result<Option<AppliedBlock>, Fault> {
        let id = block.id(self.chain);
        if self.ahead.as_ref().is_some_and(|ahead| ahead.block != id) {
            self.forget_ahead()?;
        }
        Ok(self.ahead.take().map(|ahead| ahead.done))
    }

    /// Undoes the block that was executed ahead, if there is one: what is in memory is read from
    /// the file again.
    pub fn forget_ahead(&mut self) -> Result<(), Fault> {
        if self.ahead.take().is_none() {
            return Ok(());
        }
        self.run_ours("ROLLBACK")?;
        let anew = Self::open_for(self.origin.clone(), self.view.clone())?;
        if anew.applied != self.applied {
            return Err(Fault::Diverged(format!(
                "state.db holds {:?} after {:?} was committed",
                anew.applied, self.applied
            )));
        }
        let before = std::mem::replace(self, anew);
        // The file's log is as long as it was.
        self.log = before.log;
        Ok(())
    }
}
