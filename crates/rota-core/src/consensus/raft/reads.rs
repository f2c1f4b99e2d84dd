//! Linearizable reads by read index (Ongaro 2014, section 6.4): the leader makes sure by a round of
//! heartbeats that it still leads, and says how far its log was committed when it was asked. What
//! comes before step 1's answer.

use std::collections::VecDeque;

use super::Raft;
use crate::consensus::Action;

/// The most reads that wait here: the replica gathers all that come within some milliseconds into
/// one, and gives up each after seconds, without a word to us.
const MAX_ASKED: usize = 64;

/// What names a read in messages: the member that asks, and its number for it.
pub(super) struct Context;

impl Context {
    fn of(member: u64, nonce: u64) -> Vec<u8> {
        [member.to_le_bytes(), nonce.to_le_bytes()].concat()
    }

    /// Whether it is this member that asks.
    pub fn is_from(member: u64, context: &[u8]) -> bool {
        context.len() == 16 && context.starts_with(&member.to_le_bytes())
    }

    fn nonce(context: &[u8]) -> Option<u64> {
        let (_, nonce) = context.split_at_checked(8)?;
        Some(u64::from_le_bytes(nonce.try_into().ok()?))
    }
}

/// The reads of this server that are under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Reads {
    me: u64,
    asked: VecDeque<Asked>,
}

/// One of them.
#[derive(Debug)]
struct Asked {
    nonce: u64,
    /// What must be committed here, once the leader has said so.
    index: Option<u64>,
}

impl Reads {
    pub fn new(me: u64) -> Self {
        Self { me, asked: VecDeque::new() }
    }

    /// Whether an answer with this context is wanted.
    pub fn was_asked(&self, context: &[u8]) -> bool {
        Context::is_from(self.me, context)
            && Context::nonce(context).is_some_and(|nonce| {
                self.asked.iter().any(|asked| asked.nonce == nonce && asked.index.is_none())
            })
    }

    fn begin(&mut self, nonce: u64) {
        if self.asked.iter().any(|asked| asked.nonce == nonce) {
            return;
        }
        self.asked.push_back(Asked { nonce, index: None });
        if self.asked.len() > MAX_ASKED {
            self.asked.pop_front();
        }
    }

    /// A majority has confirmed the leader: this read must see what is committed up to `index`.
    pub fn confirmed(&mut self, context: &[u8], index: u64) {
        let Some(nonce) = Context::nonce(context) else { return };
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.nonce == nonce) {
            asked.index.get_or_insert(index);
        }
    }

    /// The reads that have what they need, now that `committed` is.
    fn take_ready(&mut self, committed: u64) -> Vec<u64> {
        let is_ready = |asked: &Asked| asked.index.is_some_and(|index| index <= committed);
        let ready = self.asked.iter().filter(|asked| is_ready(asked)).map(|asked| asked.nonce);
        let ready: Vec<u64> = ready.collect();
        self.asked.retain(|asked| !is_ready(asked));
        ready
    }

    fn unanswered(&self) -> Vec<u64> {
        let waits = |asked: &&Asked| asked.index.is_none();
        self.asked.iter().filter(waits).map(|asked| asked.nonce).collect()
    }
}

impl Raft {
    /// Asks the leader, or the majority if that is us. Without a leader, and before a new one knows
    /// how far the log is committed, nothing happens: the question is asked again.
    pub(super) fn read(&mut self, nonce: u64) {
        self.reads.begin(nonce);
        self.node.read_index(Context::of(self.id, nonce));
    }

    /// Asks again what the leader before has not answered, or what this one could not yet.
    pub(super) fn read_again(&mut self) {
        for nonce in self.reads.unanswered() {
            self.node.read_index(Context::of(self.id, nonce));
        }
    }

    /// Lets reads go on for which enough is final here.
    pub(super) fn answer_reads(&mut self) {
        for nonce in self.reads.take_ready(self.node.raft.raft_log.committed) {
            let height = self.last.block.header.height;
            self.actions.push(Action::Readable { nonce, height });
        }
    }
}
