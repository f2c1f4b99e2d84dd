//! What a leader does not say at once (step 7): that more is committed, to members that nobody asks
//! for it. The next entry says it too, and until then it would cost each member a message, an
//! answer and its turns at the processor, for every block.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft::ProgressState;
use raft::eraftpb::{Message as Wire, MessageType};

use super::Raft;
use crate::block::Block;
use crate::time::Instant;

/// Members hear of what is committed at most so much later than they could: what a local read on a
/// follower may lack beside the way of a message.
const HELD: Duration = Duration::from_millis(5);

/// Messages that wait, the newest to each member.
#[derive(Debug, Default)]
pub(super) struct Held {
    words: BTreeMap<u64, Wire>,
    since: Option<Instant>,
}

impl Held {
    /// When they are sent, if nothing makes them needless.
    pub fn wake(&self) -> Option<Instant> {
        self.since.map(|since| since.plus(HELD))
    }

    fn forget(&mut self, member: u64) {
        self.words.remove(&member);
        if self.words.is_empty() {
            self.since = None;
        }
    }
}

impl Raft {
    /// Members whose own clients wait for these blocks.
    pub(super) fn waiting_for<'a>(&self, blocks: impl Iterator<Item = &'a Block>) -> BTreeSet<u64> {
        let signers = blocks.flat_map(|block| &block.body.envelopes).map(|e| e.signer);
        signers.filter_map(|signer| self.id_of(signer)).collect()
    }

    /// Whether this message is held back, because it says no more than what is committed.
    pub(super) fn hold(&mut self, wire: &Wire, waiting: &BTreeSet<u64>) -> bool {
        if wire.get_msg_type() != MessageType::MsgAppend {
            return false;
        }
        let progress = self.node.raft.prs().get(wire.to);
        let is_replicating = progress.is_some_and(|p| p.state == ProgressState::Replicate);
        if !wire.entries.is_empty() || waiting.contains(&wire.to) || !is_replicating {
            self.held.forget(wire.to);
            return false;
        }
        self.held.words.insert(wire.to, wire.clone());
        self.held.since.get_or_insert(self.now.instant);
        true
    }

    /// Sends what has been held for long enough. In another term it is worth nothing.
    pub(super) fn release(&mut self) {
        if self.held.wake().is_none_or(|at| self.now.instant < at) {
            return;
        }
        let held = std::mem::take(&mut self.held);
        for wire in held.words.into_values() {
            if wire.term == self.node.raft.term {
                self.say(wire);
            }
        }
    }
}
