//! What servers say to each other.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::block::{Block, Certificate, Proposal, Vote};
use crate::transaction::Envelope;
use crate::types::{BlockId, Height, NodeId, Slot};

/// The largest encoded message: an answer with blocks (see [`MAX_ANSWER_BYTES`]) or the largest
/// proposal, and framing.
pub const MAX_MESSAGE_BYTES: usize = 24 << 20;

/// An answer holds whole blocks up to this size, and always at least one.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

/// One message. Bytes that do not decode to one, canonically, cost their sender (`error::Invalid`).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Envelopes of the sender's own clients, for whoever leads next.
    Envelopes(Vec<Arc<Envelope>>),
    /// A leader's block.
    Proposal(Proposal),
    /// A member's vote.
    Vote(Vote),
    /// A quorum's votes.
    Certificate(Certificate),
    /// "I miss this": answered by `Final`, `Pending` or `Certificate`, or not at all.
    Fetch(Fetch),
    /// Final blocks by rising height, and the certificate that makes the last of them, and so all,
    /// final.
    Final(FinalBlocks),
    /// A block that is not final yet, asked for by id.
    Pending(Arc<Block>),
    /// "For which slot did you last vote `finalize`?": answered by `Finalizing`. For a linearizable
    /// read.
    FinalizingWhat {
        /// Tells this question from all others of the same server.
        nonce: u64,
    },
    /// The newest slot that the sender voted to finalize, or that of its last final block.
    Finalizing {
        /// The question's.
        nonce: u64,
        /// The slot.
        slot: Slot,
    },
    /// Envelopes of other members' clients, which the leader may have been kept from.
    PassedOn(Vec<Arc<Envelope>>),
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Fetch {
    /// Final blocks after this height, as many as an answer holds.
    FinalAfter(Height),
    /// The body of a certified block that is not final yet.
    Block(BlockId),
    /// The certificates of slots after this one that are not final yet. Answered by `Certificate`s,
    /// never from disk.
    CertificatesAfter(Slot),
}

/// Consecutive final blocks.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FinalBlocks {
    /// By rising height, each the parent of the next.
    pub blocks: Vec<Arc<Block>>,
    /// The finalization of the last one.
    pub certificate: Certificate,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One server.
    One(NodeId),
    /// All other members.
    Members,
}
