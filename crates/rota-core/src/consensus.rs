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
pub mod follow;
pub mod nakamoto;
pub mod raft;
pub mod schedule;

use std::sync::Arc;

use crate::block::{Applied, Block, Certificate, Finality, Turn};
use crate::crypto::SecretKey;
use crate::error::Invalid;
use crate::genesis::{Genesis, Method};
use crate::journal::{Record, Recovered};
use crate::members::Members;
use crate::message::{Message, Recipient};
use crate::time::{Instant, Now, Time};
use crate::types::{BlockId, Height, NodeId, Slot, StateRoot};
use crate::work::{HeaderHash, SearchJob, WorkProof};

/// What happens to a method.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first event, once.
    Start,
    /// A peer's message whose form and signatures have been checked.
    Message {
        /// Who sent it.
        from: NodeId,
        /// `Proposal`, `Vote`, `Certificate`, `Fetch::CertificatesAfter`, `Fetch::ProofsAfter`,
        /// `Final`, `Pending`, `Raft`, `Mined` or `Proofs`; what a method does not know it ignores.
        message: Message,
    },
    /// A stream to this member was opened: it may have missed everything.
    Connected(NodeId),
    /// The last stream to this server is gone. Where membership is open it may never come back.
    Disconnected(NodeId),
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
    /// This server has executed up to this height, and has this root.
    Applied(Applied),
    /// Our search has found a proof (`pow`).
    Found(WorkProof),
    /// Whether this server searches (`pow`); it does not at first.
    Mine(bool),
    /// A linearizable read asks how far it must go, where the method says so ([`Reads::Index`]);
    /// answered by `Action::Readable`, or not at all.
    Read {
        /// Names it.
        nonce: u64,
    },
    /// This server is about to stop: whoever can take over at once should.
    Yield,
}

/// Whether there is anything to do, as the replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// So many transactions wait that are not final, those in blocks on their way among them.
    pub waiting: usize,
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
    /// Write down with the next record that is persisted, or when there is time: nothing that is
    /// sent depends on it, and a crash may lose it.
    Note(Record),
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
    /// This block most likely becomes final next, after those that were named before it: it may be
    /// executed now, as long as nothing of that is seen or kept before it is final. A hint: nothing
    /// depends on it.
    Ahead(Arc<Block>),
    /// These blocks are final, by rising height. The record is on disk before any of them is
    /// executed.
    Finalize {
        /// The blocks.
        blocks: Vec<Arc<Block>>,
        /// What makes the last of them final.
        finality: Finality,
    },
    /// Blocks that were on the best branch are not any more: what is in them waits again (`pow`).
    Abandon(Vec<Arc<Block>>),
    /// Final blocks above this height were not final after all (`pow`, deeper than `k`): nothing
    /// after this action is carried out; the server starts anew from what it had at that height.
    Rewind {
        /// The last block that stays.
        height: Height,
    },
    /// Look for the proof of this block instead of any other; or for none.
    Search(Option<SearchJob>),
    /// A read that began before `Event::Read` with this nonce sees everything at this height.
    Readable {
        /// The event's.
        nonce: u64,
        /// What must be executed.
        height: Height,
    },
    /// This peer sent what an honest one would not have sent.
    Punish {
        /// Who.
        peer: NodeId,
        /// What.
        why: Invalid,
    },
    /// Most members say that after this height they have the same state, which is not ours
    /// (`raft`): this server must serve no more.
    Outvoted {
        /// The last block in both states.
        height: Height,
        /// Most members' root.
        agreed: StateRoot,
        /// Ours.
        ours: StateRoot,
    },
    /// For the log.
    Report(String),
}

/// Which executed state a header is to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// Not beyond this height, which a quorum has reached; it never goes back.
    Reached(Height),
    /// This one.
    Exactly(Height),
}

/// A block to check, and what its time is measured against.
#[derive(Clone, Debug)]
pub struct Validate {
    /// The block.
    pub block: Arc<Block>,
    /// Its parent.
    pub parent: Arc<Block>,
    /// The earliest acceptable time.
    pub earliest_time: Time,
    /// The latest.
    pub latest_time: Time,
    /// The height that its `applied` must name, where only one will do.
    pub applied: Option<Height>,
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
    /// By what right.
    pub turn: Turn,
    /// The block's time.
    pub time: Time,
    /// Which executed state to name.
    pub applied: Naming,
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

    /// All that had come is stepped: what is better done once for all of it is due now.
    fn drained(&mut self, _now: Now) -> Vec<Action> {
        Vec::new()
    }

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

    /// How a read finds out how far it must go to see all that was acknowledged.
    fn reads(&self) -> Reads {
        Reads::Ask
    }

    /// The date, where it is not the newest final block's time and what has passed since.
    fn date(&self, _now: Now) -> Option<Time> {
        None
    }

    /// Where the method stands, for people.
    fn standing(&self, now: Now) -> Standing;
}

/// How linearizable reads are made sure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// By asking the members what they voted for (`replica/barrier`).
    Ask,
    /// By `Event::Read`.
    Index,
    /// Not at all, for this reason.
    Refused(&'static str),
}

/// Where a method stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A member's slots say it all.
    Voting,
    /// This server follows, and does not vote.
    Following,
    /// `raft`.
    Elected {
        /// The term.
        term: u64,
        /// Whether it leads, follows, or stands for election.
        role: &'static str,
    },
    /// `pow`.
    Mining(Mining),
}

/// Where `pow` stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mining {
    /// The newest block's height.
    pub head: Height,
    /// The newest block's proof, by its hash.
    pub hash: HeaderHash,
    /// How many blocks deep is final.
    pub depth: u32,
    /// All work in the best branch, in hashes.
    pub work: String,
    /// The next block's target, in Bitcoin's compact form.
    pub bits: u32,
    /// What the network hashes in a second, from the last blocks' targets and times.
    pub hash_rate: u64,
    /// Blocks seen that are not on the best branch.
    pub stale: u64,
    /// Reorganisations, and the depth of the deepest, since this server started.
    pub reorganisations: u64,
    /// How many blocks the deepest one undid.
    pub deepest: u64,
    /// Why nothing is acknowledged now, if so: blocks come too slowly for depth to mean anything.
    pub paused: Option<String>,
    /// The height of the newest proof of the branch with the most work.
    pub headers: Height,
    /// About how high that branch is for those who have all of it.
    pub due: Height,
    /// Whether there are proofs of many blocks that are not here or not checked.
    pub catching_up: bool,
}

/// The method of the genesis, as a member, or as a server that only follows.
pub fn begin(
    genesis: &Genesis,
    members: &Members,
    key: SecretKey,
    recovered: Recovered,
    now: Now,
) -> Box<dyn Consensus> {
    let votes = members.index_of(&key.public()).is_some() && !recovered.is_wiped;
    match genesis.method {
        Method::Pow => Box::new(nakamoto::Nakamoto::new(genesis, key, recovered, now)),
        _ if !votes => Box::new(follow::Follow::new(genesis, members.clone(), key, recovered, now)),
        Method::Poa => Box::new(bft::Bft::new(genesis, members.clone(), key, recovered, now)),
        Method::Raft => Box::new(raft::Raft::new(genesis, members.clone(), key, recovered, now)),
    }
}
