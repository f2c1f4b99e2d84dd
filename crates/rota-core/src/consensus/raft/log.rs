//! The log as the `raft` crate reads it: in memory, since `chain.db` has it on disk. The crate sees
//! ids of blocks only; their bodies stand beside. Steps 4 to 7.
//!
//! ```text
//!   base │ kept, final … │ the newest final block … │ not final yet     ──► last
//!        └── compacted up to here, bounded by entries and by bytes
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::block::Block;
use crate::types::{BlockId, ChainId};

/// The most final entries that are kept for members that lag: who lags more asks for final blocks,
/// which come from disk.
pub(super) const KEPT_ENTRIES: usize = 1_024;

/// The most bytes of blocks in them.
pub(super) const KEPT_BYTES: usize = 64 << 20;

/// An entry's place: its index and its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub index: u64,
    pub term: u64,
}

/// An entry that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub term: u64,
    /// None in the entry that a leader begins its term with.
    pub block: Option<(BlockId, Arc<Block>)>,
    bytes: usize,
}

/// The entries of this member's log.
#[derive(Debug)]
pub(super) struct Log {
    chain: ChainId,
    /// The entry before the first one that is kept.
    base: Place,
    entries: VecDeque<Kept>,
    /// Of all blocks in them.
    bytes: usize,
    /// The newest final block's entry; its index is 0 before the first.
    last_final: Place,
    hard_state: HardState,
    voters: ConfState,
}

impl Log {
    /// A log that ends with the newest final block. `hard_state` is what the crate begins with.
    pub fn new(chain: ChainId, last_final: Place, hard_state: HardState, members: u64) -> Self {
        let voters = ConfState { voters: (1..=members).collect(), ..ConfState::default() };
        let (entries, bytes, base) = (VecDeque::new(), 0, last_final);
        Self { chain, base, entries, bytes, last_final, hard_state, voters }
    }

    /// The first hard state, before the crate has read it.
    pub fn begin_with(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The last entry's place.
    pub fn last(&self) -> Place {
        let index = self.base.index + self.entries.len() as u64;
        Place { index, term: self.entries.back().map_or(self.base.term, |entry| entry.term) }
    }

    /// Adds an entry, in the place of those that stood at its index and after, which are returned.
    pub fn append(&mut self, at: Place, block: Option<Arc<Block>>) -> Vec<Arc<Block>> {
        assert!(
            at.index > self.base.index && at.index <= self.last().index + 1,
            "entry {} does not follow our log, which goes from {} to {}",
            at.index,
            self.base.index,
            self.last().index
        );
        let gone = self.truncate(at.index);
        let bytes = block.as_ref().map_or(0, |block| size(block));
        let block = block.map(|block| (block.id(self.chain), block));
        self.bytes += bytes;
        self.entries.push_back(Kept { term: at.term, block, bytes });
        gone
    }

    /// Removes the entries from this index on; returns the blocks in them.
    fn truncate(&mut self, from: u64) -> Vec<Arc<Block>> {
        let mut gone = Vec::new();
        while self.last().index >= from
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.bytes;
            gone.extend(entry.block.map(|(_, block)| block));
        }
        gone.reverse();
        gone
    }

    /// The log begins anew after this place, which is final; returns the blocks that were in it and
    /// not final.
    pub fn restore(&mut self, at: Place) -> Vec<Arc<Block>> {
        let gone = self.truncate(self.last_final.index.max(self.base.index) + 1);
        self.truncate(0);
        self.base = at;
        self.last_final = at;
        gone
    }

    /// The newest final block stands here: what is more than is kept for others goes.
    pub fn finalized(&mut self, at: Place) {
        self.last_final = at;
        while self.base.index < at.index && self.has_too_much(at.index) {
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= entry.bytes;
            self.base = Place { index: self.base.index + 1, term: entry.term };
        }
    }

    fn has_too_much(&self, last_final: u64) -> bool {
        let kept = last_final.saturating_sub(self.base.index);
        kept > KEPT_ENTRIES as u64 || self.bytes > KEPT_BYTES
    }

    /// The entry at an index, if it is kept.
    pub fn get(&self, index: u64) -> Option<&Kept> {
        let after = index.checked_sub(self.base.index)?.checked_sub(1)?;
        self.entries.get(usize::try_from(after).ok()?)
    }

    /// The term of the entry at an index, the one before the first included.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// The newest block at this index or before that is not final yet.
    pub fn newest_block(&self, up_to: u64) -> Option<&(BlockId, Arc<Block>)> {
        let lowest = self.last_final.index.max(self.base.index);
        (lowest + 1..=up_to.min(self.last().index))
            .rev()
            .find_map(|index| self.get(index)?.block.as_ref())
    }

    /// The blocks after this index.
    pub fn blocks_after(&self, index: u64) -> impl Iterator<Item = &Block> {
        let from = index.max(self.base.index) + 1;
        (from..=self.last().index).filter_map(|index| Some(&*self.get(index)?.block.as_ref()?.1))
    }
}

/// An encoded block's size, without its header: it is for limits on memory and messages.
fn size(block: &Block) -> usize {
    borsh::object_length(&block.body).unwrap_or(usize::MAX / 2)
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.voters.clone() })
    }

    /// As many as `max_size` bytes of blocks allow, at least one.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.index {
            return Err(StorageError::Compacted.into());
        }
        let most = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0_u64);
        for index in low..high {
            let Some(kept) = self.get(index) else {
                return Err(StorageError::Unavailable.into());
            };
            bytes = bytes.saturating_add(kept.bytes as u64);
            if bytes > most && !entries.is_empty() {
                break;
            }
            let data = kept.block.as_ref().map_or_else(Vec::new, |(id, _)| id.0.to_vec());
            entries.push(Entry { term: kept.term, index, data: data.into(), ..Entry::default() });
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_at(index) {
            Some(term) => Ok(term),
            None if index < self.base.index => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Where the final blocks end: who lacks them fetches them as anybody would.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.last_final.index == 0 || self.last_final.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(snapshot(self.last_final, self.voters.clone()))
    }
}

impl Log {
    /// The snapshot that the crate is given when the final blocks up to this place have come.
    pub fn snapshot_at(&self, at: Place) -> Snapshot {
        snapshot(at, self.voters.clone())
    }
}

fn snapshot(at: Place, voters: ConfState) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = at.index;
    metadata.term = at.term;
    metadata.set_conf_state(voters);
    snapshot
}
