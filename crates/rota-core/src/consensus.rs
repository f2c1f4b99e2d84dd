//! How the members agree whose turn it is: the contract between the
//! [`Replica`](crate::replica::Replica) and a method.
//!
//! ```text
//!   Event ──► Consensus::step(now, event) ──► Vec<Action>, carried out strictly in order
//! ```
//!
//! The contract, which a suite of laws holds every method to:
//!
//! 1. *Deterministic*: the same events at the same instants give the same actions.
//! 2. *Durable before sent*: a `Send` that promises something comes after the `Persist` of what it
//!    promises.
//! 3. *Once*: each block is named by one `Finalize` at most, parents before children, and never by
//!    two methods' words.
//! 4. *Agreement*: no two honest members `Finalize` different blocks at one height, whatever the
//!    network does, while the method's assumption holds.
//! 5. *Restart decides nothing anew*: given its own records back, a method sends the same bytes
//!    again and contradicts none of them.
//! 6. *Bounded*: what a peer sends makes a method hold a bounded number of things.
//!
//! A method checks turns, votes and proofs. Whether a block's *content* is right is not its
//! business: it asks with `Validate`, and asks for a block with `Build`.

pub mod bft;
pub mod schedule;

use std::sync::Arc;

use crate::block::{Block, Certificate};
use crate::journal::Record;
use crate::message::{Message, Recipient};
use crate::time::{Instant, Now, Time};
use crate::types::{BlockId, Height, NodeId, Slot};

/// What happens to a method.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first event, once.
    Start,
    /// A peer's message whose form and signatures have been checked.
    Message {
        /// Who sent it.
        from: NodeId,
        /// `Proposal`, `Vote`, `Certificate`, `Fetch::CertificatesAfter`, `Final` or `Pending`;
        /// others are ignored.
        message: Message,
    },
    /// A stream to this member was opened: it may have missed everything.
    Connected(NodeId),
    /// Time has passed.
    Timer,
    /// The answer to `Validate`; `Later` may be followed by another one for the same block.
    Validated {
        /// The block.
        block: BlockId,
        /// Whether its content is right.
        verdict: Verdict,
    },
    /// The answer to `Build`: a block without its final signature, or nothing worth proposing.
    Built {
        /// The slot it was asked for.
        slot: Slot,
        /// The block.
        block: Option<Arc<Block>>,
    },
    /// What waits has changed.
    Load(Load),
    /// This server has executed up to this height.
    Applied(Height),
}

/// Whether there is anything to do, as the replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Envelopes wait that are not final.
    pub pending: bool,
    /// The root of the last block with transactions does not stand in a final header yet.
    pub unconfirmed: bool,
}

/// Whether a block's content is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Valid,
    /// It cannot be said before more blocks are executed here.
    Later,
    /// It is not, and never will be.
    Invalid(String),
}

/// What a method wants done, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write down, durably, before anything after it is sent.
    Persist(Record),
    /// Send, best effort.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Say whether this block's content is right, by `Event::Validated`.
    Validate(Validate),
    /// Fill a block, by `Event::Built`.
    Build(Build),
    /// This block is known and may become final.
    Known(Arc<Block>),
    /// These blocks are final, by rising height. The record is on disk before any of them is
    /// executed.
    Finalize {
        /// The blocks.
        blocks: Vec<Arc<Block>>,
        /// The proof for the last of them.
        certificate: Certificate,
    },
    /// For the log.
    Report(String),
}

/// A block to check, and what its time is measured against.
#[derive(Clone, Debug)]
pub struct Validate {
    /// The block.
    pub block: Arc<Block>,
    /// Its parent.
    pub parent: Arc<Block>,
    /// The latest acceptable time.
    pub latest_time: Time,
}

/// A block to fill.
#[derive(Clone, Debug)]
pub struct Build {
    /// Our slot.
    pub slot: Slot,
    /// What to build on.
    pub parent: Arc<Block>,
    /// The proof that it may be built on; `None` above genesis.
    pub parent_certificate: Option<Certificate>,
    /// The block's time, if that is later than the parent's.
    pub time: Time,
    /// The greatest height that a quorum has executed, as far as we were told.
    pub reached: Height,
    /// Whether an empty block is wanted if nothing waits.
    pub may_be_empty: bool,
    /// Whether the block must be empty: its parent's clocks are old, and this block's votes bring
    /// newer ones.
    pub must_be_empty: bool,
}

/// The end of the best branch that is not final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The newest block that this server voted for or knows to be notarized; `None` when nothing
    /// is on its way.
    pub newest: Option<BlockId>,
    /// The newest notarized one.
    pub notarized: Option<BlockId>,
}

/// A way of agreeing whose turn it is.
pub trait Consensus: Send {
    /// Moves on. See the module's contract.
    fn step(&mut self, now: Now, event: Event) -> Vec<Action>;

    /// When `Event::Timer` is wanted next.
    fn wake(&self) -> Option<Instant>;

    /// The current slot.
    fn slot(&self) -> Slot;

    /// Who leads so many slots from now, as far as anyone can know.
    fn leader(&self, slots_ahead: u64) -> Option<NodeId>;

    /// How many slots ahead the next leader's turn starts.
    fn next_turn(&self) -> u64;

    /// The newest slot for which this server voted `finalize`, or that of the last final block: no
    /// block of a later slot is final by its vote. Answered from what is on disk.
    fn finalizing(&self) -> Slot;

    /// The newest blocks of the branch that this server takes to be the next to become final.
    fn head(&self) -> Head;

    /// Whether a block proposed since this server started has become final here: before that, its
    /// idea of the date may be as old as its files.
    fn is_live(&self) -> bool;
}
