//! Step 8 in parts, so that the file is written when it costs least: a block is executed in a
//! transaction that stays open, and COMMIT comes later.
//!
//! ```text
//!   ahead(h)  not final: nobody sees it ─┬─ hold(h), apply(h) ──────────────────► COMMIT
//!                                        └─ another h, or a restart ─► as if it had never run
//!   hold(h), hold(h+1), …  final: one COMMIT for all of them; a restart executes them again
//! ```
//! SQLite shows an open transaction to its own connection only, so that readers, drafts, snapshots
//! and a crash know nothing of it. What is in memory beside it (trees, sequences, ids, the schema,
//! prepared statements) has gone on; where the transaction is rolled back it is brought back by
//! opening the file again, as at any start. That is rare: a leader's entries are replaced only
//! after another one was elected. And so there is one way, not two, in which a server comes to what
//! it knows.
//!
//! A transaction holds final blocks or one that is not final, never both: what is final must not
//! wait for what may never be.

use std::sync::Arc;

use rota_core::block::{Applied, Block};
use rota_core::error::Fault;
use rota_core::types::BlockId;

use crate::state::{AppliedBlock, StateDb};

/// What the open transaction holds, if one is open.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// A block that is not final.
    ahead: Option<Ahead>,
    /// Final blocks, in order, to be executed again should one after them take them with it.
    held: Vec<Arc<Block>>,
    /// The state after the last of them.
    newest: Applied,
    /// Executing a block has failed here: what is in memory is of no block.
    is_spoilt: bool,
}

#[derive(Debug)]
struct Ahead {
    block: BlockId,
    done: AppliedBlock,
}

impl StateDb {
    /// Executes the block after [`Self::executed`] and commits nothing of it: it is not final, and
    /// nothing of it is to be seen anywhere before [`Self::hold`] or [`Self::apply`] is given the
    /// very same. Of another height it is let be; another one of the same height takes the place of
    /// the one before.
    pub fn ahead(&mut self, block: &Block) -> Result<(), Fault> {
        if block.header.height != self.executed().height.next() {
            return Ok(());
        }
        self.commit()?;
        let id = block.id(self.chain);
        match &self.open.ahead {
            Some(ahead) if ahead.block == id => return Ok(()),
            Some(_) => self.forget_ahead()?,
            None => {}
        }
        let done = self.execute(block)?;
        self.open.ahead = Some(Ahead { block: id, done });
        Ok(())
    }

    /// Whether the next block is executed already.
    pub fn is_ahead(&self) -> bool {
        self.open.ahead.is_some()
    }

    /// Executes the final block after [`Self::executed`], and leaves COMMIT to [`Self::commit`].
    pub fn hold(&mut self, block: &Arc<Block>) -> Result<AppliedBlock, Fault> {
        let done = match self.take_ahead(block)? {
            Some(done) => done,
            None => self.execute(block)?,
        };
        self.settle_remembered();
        self.open.newest = done.applied;
        self.open.held.push(Arc::clone(block));
        Ok(done)
    }

    /// Whether clients may be told of what is held before it is committed. It will be: here, or
    /// where its blocks are executed again. Not where it changes users or grants, which are looked
    /// up apart from the rows: whoever is let in by the new ones must not see the old rows.
    pub fn may_be_told(&self) -> Result<bool, Fault> {
        self.refuse_spoilt()?;
        Ok(Arc::ptr_eq(&self.view.current(), &self.engine.access))
    }

    /// Commits what is held, if anything is: all of it at once into the file, for everybody to see.
    pub fn commit(&mut self) -> Result<(), Fault> {
        self.commit_only()?;
        self.keep_log_short()
    }

    /// The same without [`Self::keep_log_short`], which may take a while.
    pub fn commit_only(&mut self) -> Result<(), Fault> {
        if !self.holds() {
            return Ok(());
        }
        self.refuse_spoilt()?;
        self.open.held.clear();
        self.write_down(self.open.newest)
    }

    fn refuse_spoilt(&self) -> Result<(), Fault> {
        if self.open.is_spoilt {
            let why = "a block could not be executed: what is held with it is not committed";
            return Err(Fault::Diverged(why.into()));
        }
        Ok(())
    }

    /// Whether final blocks are executed and not committed.
    pub fn holds(&self) -> bool {
        !self.open.held.is_empty()
    }

    /// The state after the last final block that is executed, committed or not.
    pub fn executed(&self) -> Applied {
        if self.holds() { self.open.newest } else { self.applied }
    }

    /// Whether a transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.is_ahead() || self.holds()
    }

    /// What came of this block, if it is the one that was executed ahead; another one is undone.
    pub(crate) fn take_ahead(&mut self, block: &Block) -> Result<Option<AppliedBlock>, Fault> {
        let id = block.id(self.chain);
        if self.open.ahead.as_ref().is_some_and(|ahead| ahead.block != id) {
            self.forget_ahead()?;
        }
        Ok(self.open.ahead.take().map(|ahead| ahead.done))
    }

    /// Undoes the block that was executed ahead, if there is one.
    pub fn forget_ahead(&mut self) -> Result<(), Fault> {
        if self.is_ahead() { self.open_again() } else { Ok(()) }
    }

    /// The transaction goes: what is in memory is read from the file again.
    fn open_again(&mut self) -> Result<(), Fault> {
        self.open = Open::default();
        // A statement may have ended it.
        if !self.engine.database.connection().is_autocommit() {
            self.run_ours("ROLLBACK")?;
        }
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

    /// A block has taken the transaction with it, and the blocks that were held in it: they are
    /// executed again, each for itself.
    pub(crate) fn hold_again(&mut self) -> Result<(), Fault> {
        let (held, newest) = (std::mem::take(&mut self.open.held), self.open.newest);
        self.open_again()?;
        for block in held {
            self.apply(&block)?;
        }
        if self.applied != newest {
            return Err(Fault::Diverged(format!(
                "blocks that were executed twice came to {newest:?} and {:?}",
                self.applied
            )));
        }
        Ok(())
    }

    /// Executing a block has failed.
    pub(crate) fn spoil(&mut self) {
        self.open.is_spoilt = self.is_open();
    }

    /// What is in memory is what is in the file: what is held is committed, or goes if something
    /// has failed since; a block ahead goes.
    pub(crate) fn settle(&mut self) -> Result<(), Fault> {
        if self.open.is_spoilt {
            return self.open_again();
        }
        self.commit()?;
        self.forget_ahead()
    }
}
