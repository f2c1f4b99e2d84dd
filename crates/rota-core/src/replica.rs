//! A server's deciding part: everything that moves goes through [`Replica::step`].
//!
//! ```text
//!   Input ──► Replica::step(now, input) ──► Vec<Output>, carried out strictly in order by rota-store's `host`
//! ```
//!
//! This file only dispatches. Steps 3 to 7 of a transaction's life (crate docs) each have a file here.

use std::sync::Arc;

use crate::block::{Applied, Block};
use crate::error::Refusal;
use crate::journal::Record;
use crate::message::{Fetch, Message, Recipient};
use crate::time::{Instant, Time};
use crate::transaction::Envelope;
use crate::types::{Epoch, Height, NodeId, Slot, StateRoot, TransactionId};

/// What happens to a server.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's message. Its form and signatures have been checked (`verify`).
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// An envelope of this server's own clients; signed by this server, or checked.
    Submit(Arc<Envelope>),
    /// A stream to this member was opened (again): it may have missed everything.
    Connected(NodeId),
    /// The time of the last `Wake` has come. Too early or once too often is harmless.
    Woken,
    /// The block asked for by the oldest unanswered `Apply` is executed.
    Applied(Applied),
}

/// What a server is to do, in this order. Nothing may be sent before every `Persist` that stands before it is on disk.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write down, durably.
    Persist(Record),
    /// Send, best effort.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Answer a peer from the log of final blocks: `Message::Final`, or nothing if there is nothing.
    Serve {
        /// Who asks.
        to: NodeId,
        /// For what.
        fetch: Fetch,
    },
    /// Execute a final block. Each is applied once, by rising height, and answered by `Input::Applied`.
    Apply(Arc<Block>),
    /// Step with `Input::Woken` at this instant; replaces what was asked for before.
    Wake {
        /// When.
        at: Instant,
    },
    /// These transactions of our own clients will not be executed.
    Dropped {
        /// Which.
        transactions: Vec<TransactionId>,
        /// Why.
        why: Refusal,
    },
    /// For the log: something that an operator should know. Nothing depends on it.
    Report(String),
    /// Our state after `height` is not the one that a quorum finalized: stop serving, find out where.
    Diverged {
        /// The last block in both states.
        height: Height,
        /// The quorum's root.
        agreed: StateRoot,
        /// Ours.
        ours: StateRoot,
    },
}

/// What a server knows of where it stands, for people and for the front doors.
#[derive(Clone, Debug)]
pub struct Status {
    /// The current epoch.
    pub epoch: Epoch,
    /// The current slot.
    pub slot: Slot,
    /// Whose turn it is.
    pub leader: Option<NodeId>,
    /// The newest final block.
    pub height: Height,
    /// What is executed here.
    pub applied: Applied,
    /// What the newest final header says a quorum has executed.
    pub agreed: Applied,
    /// The newest final block's time.
    pub block_time: Time,
    /// Estimated date now: the newest block's time and what has passed since.
    pub chain_time: Time,
    /// Envelopes waiting here to become final.
    pub pending: usize,
}
