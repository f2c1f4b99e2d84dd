//! What a server writes down before it speaks. Each record is one thing that must be on disk
//! *together*, before any message that depends on it leaves. After a restart the same bytes are
//! sent again and nothing is decided anew.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::block::{Applied, Block, Certificate, Finality, Proposal, Vote};
use crate::transaction::Envelope;
use crate::types::{Height, NodeId, Slot};
use crate::work::WorkProof;

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A slot was entered by this certificate (of the slot before).
    Entered(Certificate),
    /// Our proposal with its block, or a crash would make an honest leader propose twice. Our
    /// `notarize` vote for it is a `Notarized` record of its own, in the same batch.
    Proposed(Proposal),
    /// Our `notarize` vote with the body it is for, or a power loss could leave a certificate whose
    /// block nobody has.
    Notarized {
        /// The vote.
        vote: Vote,
        /// What it is for.
        block: Arc<Block>,
    },
    /// Our vote to skip a slot: it must outlive a crash, since it excludes `finalize`.
    Nullified(Vote),
    /// Our `finalize` vote with the notarization it rests on: it excludes `nullify`.
    Finalizing {
        /// The vote.
        vote: Vote,
        /// Why.
        notarization: Certificate,
    },
    /// The body of a notarized block that we did not vote for and had to fetch.
    Fetched(Arc<Block>),
    /// Blocks became final, by rising height. On disk before they are applied; `raft`'s blocks are
    /// on disk as entries, so that this may follow with the next record (`Output::Note`).
    Finalized {
        /// The blocks.
        blocks: Vec<Arc<Block>>,
        /// What makes the last one, and so all, final.
        finality: Finality,
    },
    /// `raft`: our term and vote. The newest counts; it outlives all other records.
    HardState(HardState),
    /// `raft`: an entry of the log, which replaces any that stood at its index or after.
    Entry(Entry),
    /// `pow`: a block that is connected to the chain and found to be right, with its proof.
    Connected {
        /// Its proof.
        proof: WorkProof,
        /// The block.
        block: Arc<Block>,
    },
}

/// `raft`: what must outlive a crash of a member (Ongaro and Ousterhout 2014, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct HardState {
    /// The newest term that it has seen.
    pub term: u64,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// How far it knows the log to be committed.
    pub commit: u64,
}

/// `raft`: an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// Its place; a block's slot.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// The block; none in the entry that a new leader begins its term with.
    pub block: Option<Arc<Block>>,
}

impl Record {
    /// The slot it belongs to: a record of a slot at or below the last final block's is of no more
    /// use, but for `Finalized`, which is the chain itself.
    pub fn slot(&self) -> Slot {
        match self {
            Self::HardState(_) => Slot(u64::MAX),
            Self::Entry(entry) => Slot(entry.index),
            Self::Connected { block, .. } => block.header.slot,
            Self::Entered(certificate) => certificate.slot.next(),
            Self::Proposed(proposal) => proposal.block.header.slot,
            Self::Notarized { vote, .. }
            | Self::Nullified(vote)
            | Self::Finalizing { vote, .. } => vote.slot,
            Self::Fetched(block) => block.header.slot,
            Self::Finalized { blocks, .. } => {
                blocks.last().map_or(Slot(0), |block| block.header.slot)
            }
        }
    }
}

/// What a restarted server knows: what its journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest final block with a finalization of its own, if any block is final.
    pub last: Option<(Arc<Block>, Finality)>,
    /// The records of later slots, in the order in which they were written (never `Finalized` or
    /// `HardState`).
    pub tail: Vec<Record>,
    /// `raft`: the newest hard state.
    pub hard_state: HardState,
    /// `pow`: what the executor had after each of the last blocks, `2k` at the least.
    pub roots: Vec<Applied>,
    /// `pow`: the proofs of all final blocks from height 1 on.
    pub proofs: Vec<WorkProof>,
    /// `pow`: what stood in blocks that were undone, oldest first: it waits to be written again.
    pub waiting: Vec<Arc<Envelope>>,
    /// `pow`: the lowest height that this server can go back to: it has deleted what is older.
    pub goes_back_to: Height,
    /// Whether this member's log was lost, or never there: it must not vote, since it does not know
    /// what it has voted for.
    pub is_wiped: bool,
    /// Peers whose snapshot, fetched before, did not hold the rows that it should have: none is
    /// taken from them.
    pub distrusted: Vec<NodeId>,
}
