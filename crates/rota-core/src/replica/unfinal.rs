//! What is on its way: blocks beyond what is executed here, for whoever asks for it (`rota.read =
//! latest`, `rota.wait = included`, `rota_transaction`). Between steps 3 and 8; decides nothing.
//!
//! ```text
//!   executed ── final, being executed ── notarized ── voted for ── (mempool)
//!               └──────────────── Replica::tail ───────────────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Output, Replica};
use crate::block::Block;
use crate::transaction::Envelope;
use crate::types::{BlockId, Height};

/// Blocks beyond the executed state.
#[derive(Debug, Default)]
pub(super) struct Unfinal {
    /// Final, and with the executor.
    executing: VecDeque<Arc<Block>>,
    /// The newest notarized block that was told of, with its height.
    told: Option<(BlockId, Height)>,
}

impl Unfinal {
    pub fn executing(&mut self, block: Arc<Block>) {
        self.executing.push_back(block);
    }

    pub fn executed(&mut self, height: Height) {
        while self.executing.front().is_some_and(|block| block.header.height <= height) {
            self.executing.pop_front();
        }
    }
}

impl Replica {
    /// The blocks after the executed state up to the newest that this server voted for or knows to
    /// be notarized, by rising height, each the parent of the next. All but the final ones may yet
    /// be abandoned.
    pub fn tail(&self) -> Vec<Arc<Block>> {
        let newest = self.consensus.head().newest;
        let executing = self.unfinal.executing.iter().cloned();
        executing.chain(newest.map(|id| self.branch_to(id)).unwrap_or_default()).collect()
    }

    /// The envelopes in the mempool, oldest first.
    pub fn waiting(&self) -> Vec<Arc<Envelope>> {
        self.mempool.envelopes().cloned().collect()
    }

    /// Tells of blocks that have been notarized since it was last told.
    pub(super) fn tell_notarized(&mut self) {
        let Some(id) = self.consensus.head().notarized else { return };
        if self.unfinal.told.is_some_and(|(told, _)| told == id) {
            return;
        }
        let mut blocks = self.branch_to(id);
        let Some(height) = blocks.last().map(|block| block.header.height) else { return };
        if let Some((told, told_at)) = self.unfinal.told {
            let follows = |block: &Arc<Block>| {
                block.header.height == told_at.next() && block.header.parent == told
            };
            if let Some(first) = blocks.iter().position(follows) {
                blocks.drain(..first);
            }
        }
        self.unfinal.told = Some((id, height));
        self.outputs.push(Output::Notarized(blocks));
    }

    /// The blocks after the last final one up to this one; none while one of them is missing.
    fn branch_to(&self, id: BlockId) -> Vec<Arc<Block>> {
        let last = self.chain.last().id;
        let mut blocks = Vec::new();
        let mut next = id;
        while next != last {
            let Some(known) = self.chain.get(next) else { return Vec::new() };
            blocks.push(Arc::clone(&known.block));
            next = known.block.header.parent;
        }
        blocks.reverse();
        blocks
    }
}
