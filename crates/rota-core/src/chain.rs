//! The blocks that this server knows beyond the last final one, as a tree.
//!
//! ```text
//!   … ── final ──┬── a ── b      a, b, c are pending; when b becomes final, c is abandoned
//!                └── c
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block::Block;
use crate::types::{BlockId, ChainId, EnvelopeId, Slot};

/// A block with what is asked of it often.
#[derive(Clone, Debug)]
pub struct Known {
    /// The block.
    pub block: Arc<Block>,
    /// Its id.
    pub id: BlockId,
    /// The ids of its envelopes.
    pub envelopes: Arc<[EnvelopeId]>,
}

impl Known {
    fn new(chain: ChainId, block: Arc<Block>) -> Self {
        let id = block.id(chain);
        let envelopes = block.body.envelopes.iter().map(|envelope| envelope.id()).collect();
        Self { block, id, envelopes }
    }
}

/// The last final block and the tree above it.
#[derive(Debug)]
pub struct Chain {
    chain: ChainId,
    last: Known,
    pending: BTreeMap<BlockId, Known>,
}

impl Chain {
    /// Starts at a final block.
    pub fn new(chain: ChainId, last: Arc<Block>) -> Self {
        Self { chain, last: Known::new(chain, last), pending: BTreeMap::new() }
    }

    /// The last final block.
    pub fn last(&self) -> &Known {
        &self.last
    }

    /// Adds a block that is not final.
    pub fn insert(&mut self, block: Arc<Block>) {
        let known = Known::new(self.chain, block);
        self.pending.insert(known.id, known);
    }

    /// Forgets a block that will not become final.
    pub fn remove(&mut self, id: BlockId) {
        self.pending.remove(&id);
    }

    /// A pending block, or the last final one.
    pub fn get(&self, id: BlockId) -> Option<&Known> {
        if id == self.last.id { Some(&self.last) } else { self.pending.get(&id) }
    }

    /// The envelopes in a pending block and its pending ancestors.
    pub fn envelopes_up_to(&self, id: BlockId) -> BTreeSet<EnvelopeId> {
        let mut taken = BTreeSet::new();
        let mut next = id;
        while let Some(known) = self.pending.get(&next) {
            taken.extend(known.envelopes.iter().copied());
            next = known.block.header.parent;
        }
        taken
    }

    /// The envelopes in any pending block up to this slot. What a leader sends ahead of its turn
    /// says nothing: it could hide an envelope in it.
    pub fn pending_envelopes(&self, slot: Slot) -> BTreeSet<EnvelopeId> {
        let begun = self.pending.values().filter(|known| known.block.header.slot <= slot);
        begun.flat_map(|known| known.envelopes.iter().copied()).collect()
    }

    /// Makes a child of the last final block the last final block, and drops what can no longer
    /// become final; gives it back with its envelopes' ids.
    pub fn finalize(&mut self, block: Arc<Block>) -> &Known {
        assert_eq!(block.header.parent, self.last.id, "finalized out of order");
        let id = block.id(self.chain);
        let known = self.pending.remove(&id).unwrap_or_else(|| Known::new(self.chain, block));
        let slot = known.block.header.slot;
        self.pending.retain(|_, other| other.block.header.slot > slot);
        self.last = known;
        &self.last
    }
}
