//! What servers say to each other.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::block::{Applied, Block, Certificate, Finality, Header, Proposal, Vote};
use crate::journal::Entry;
use crate::transaction::Envelope;
use crate::types::{BlockId, Digest, Height, NodeId, Slot};
use crate::work::{HeaderHash, WorkProof};

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
    /// Final blocks by rising height, and what makes the last of them, and so all, final.
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
    /// `raft`: a member's word on elections and the log.
    Raft(Box<RaftMessage>),
    /// `pow`: a newly found block.
    Mined(Mined),
    /// `pow`: proofs without their blocks, each the child of the one before; at most
    /// [`MAX_PROOFS`].
    Proofs(Vec<WorkProof>),
    /// A snapshot that the sender has, for one that is too far behind for its blocks.
    Offer(Box<Offer>),
    /// A piece of a snapshot.
    Chunk {
        /// Of the snapshot after this height.
        height: Height,
        /// Which, from 0 on.
        number: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// The most proofs in one answer, as in Bitcoin.
pub const MAX_PROOFS: usize = 2_000;

/// The size of a snapshot's pieces; the last one may be shorter.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The hash of a snapshot's piece, as it stands in an [`Offer`].
pub fn chunk_digest(bytes: &[u8]) -> Digest {
    Digest(rota_hash::hash("rota chunk", &[bytes]))
}

/// A block with its proof of work.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Mined {
    /// The proof, which names the block.
    pub proof: WorkProof,
    /// The block.
    pub block: Arc<Block>,
}

/// What one member of a `raft` cluster says to another: the fields of the `raft` crate's message
/// that are used here, in our own encoding.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RaftMessage {
    /// What it is.
    pub kind: RaftKind,
    /// The sender's term.
    pub term: u64,
    /// The term of the entry at `index`.
    pub log_term: u64,
    /// Where the entries follow, or what is acknowledged.
    pub index: u64,
    /// How far the sender knows the log to be committed.
    pub commit: u64,
    /// The term of the entry there.
    pub commit_term: u64,
    /// Entries to append.
    pub entries: Vec<Entry>,
    /// Whether something was refused.
    pub reject: bool,
    /// Where to try instead.
    pub reject_hint: u64,
    /// Names a read, or a leader's hand-over; at most [`MAX_RAFT_CONTEXT`] bytes.
    pub context: Vec<u8>,
    /// The place and term that a snapshot ends with.
    pub snapshot: Option<(u64, u64)>,
    /// What the sender has executed, with its root.
    pub applied: Applied,
}

impl RaftMessage {
    /// Of this kind and term, and with nothing else to say.
    pub fn new(kind: RaftKind, term: u64) -> Self {
        Self {
            kind,
            term,
            log_term: 0,
            index: 0,
            commit: 0,
            commit_term: 0,
            entries: Vec::new(),
            reject: false,
            reject_hint: 0,
            context: Vec::new(),
            snapshot: None,
            applied: Applied::default(),
        }
    }
}

/// The longest context of a [`RaftMessage`].
pub const MAX_RAFT_CONTEXT: usize = 64;

/// The kinds of [`RaftMessage`], as the `raft` crate has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum RaftKind {
    /// Entries.
    Append,
    /// They are on disk, or do not fit.
    AppendResponse,
    /// "Would you vote for me?", without a new term.
    PreVote,
    /// The answer.
    PreVoteResponse,
    /// "Vote for me."
    Vote,
    /// The answer.
    VoteResponse,
    /// The leader is there.
    Heartbeat,
    /// It was heard.
    HeartbeatResponse,
    /// Too far behind for the log that is kept.
    Snapshot,
    /// The leader asks this member to take over.
    TimeoutNow,
    /// A follower asks how far a read must go.
    ReadIndex,
    /// The leader's answer.
    ReadIndexResponse,
    /// A member asks the leader to hand over.
    TransferLeader,
}

/// A snapshot, and what proves its root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Offer {
    /// What the state in it is.
    pub applied: Applied,
    /// The block at that height.
    pub block: Arc<Block>,
    /// The headers after it: the `applied` of one of them is this snapshot's.
    pub headers: Vec<Header>,
    /// What makes the last of those final (`pow`: it is the receiver's own chain that must have
    /// them).
    pub finality: Finality,
    /// The length of the whole copy, in bytes.
    pub bytes: u64,
    /// The hashes of its chunks of [`CHUNK_BYTES`].
    pub chunks: Vec<Digest>,
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
    /// `pow`: the proofs after the newest of these that the asked server has on its best branch:
    /// newest first, at most [`MAX_LOCATOR`]. Answered by `Proofs`.
    ProofsAfter(Vec<HeaderHash>),
    /// A piece of an offered snapshot.
    Chunk {
        /// Of the snapshot after this height.
        height: Height,
        /// Which.
        number: u32,
    },
}

/// The most hashes in a `ProofsAfter`: steps that double reach back 2⁶⁴ blocks.
pub const MAX_LOCATOR: usize = 80;

/// Consecutive final blocks.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FinalBlocks {
    /// By rising height, each the parent of the next.
    pub blocks: Vec<Arc<Block>>,
    /// What makes the last one final.
    pub finality: Finality,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One server.
    One(NodeId),
    /// All other members; under `pow` all servers that we are connected to.
    Members,
    /// The same but for one: who told us need not be told.
    MembersBut(NodeId),
}
