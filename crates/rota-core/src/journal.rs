//! What a server writes down before it speaks. Each record is one thing that must be on disk
//! *together*, before any message that depends on it leaves. After a restart the same bytes are
//! sent again and nothing is decided anew.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::block::{Block, Certificate, Proposal, Vote};
use crate::types::Slot;

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
    /// Blocks became final, by rising height; the certificate finalizes the last one. On disk
    /// before they are applied.
    Finalized {
        /// The blocks.
        blocks: Vec<Arc<Block>>,
        /// The proof.
        certificate: Certificate,
    },
}

impl Record {
    /// The slot it belongs to: a record of a slot at or below the last final block's is of no more
    /// use, but for `Finalized`, which is the chain itself.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Entered(certificate) => certificate.slot.next(),
            Self::Proposed(proposal) => proposal.block.header.slot,
            Self::Notarized { vote, .. }
            | Self::Nullified(vote)
            | Self::Finalizing { vote, .. } => vote.slot,
            Self::Fetched(block) => block.header.slot,
            Self::Finalized { certificate, .. } => certificate.slot,
        }
    }
}

/// What a restarted server knows: what its journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The newest final block with a finalization of its own, if any block is final.
    pub last: Option<(Arc<Block>, Certificate)>,
    /// The records of later slots, in the order in which they were written (never `Finalized`).
    pub tail: Vec<Record>,
}
