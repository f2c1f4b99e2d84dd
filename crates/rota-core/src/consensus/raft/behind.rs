//! A member that is too far behind: the leader keeps a bounded log, and says where its final blocks
//! end. They are fetched as anybody fetches them, from disk, by `Fetch::FinalAfter`; then the log
//! goes on after them.
//!
//! ```text
//!   Snapshot(index, term) ──► FinalAfter ──► Final ──► final here, on disk ──► the log restored
//! ```
//!
//! Members trust each other: a member's word that blocks are final is as good as the leader's.

use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Message as Wire, MessageType};

use super::Raft;
use super::log::Place;
use crate::block::{Block, Turn};
use crate::consensus::Action;
use crate::journal::Record;
use crate::message::{Fetch, FinalBlocks, Message, RaftMessage, Recipient};
use crate::time::Instant;
use crate::types::{Height, NodeId};

/// Without an answer for so long, the question is asked again: an answer can be large.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be fetched.
#[derive(Debug)]
pub(super) struct Behind {
    /// The log goes on after this index.
    index: u64,
    next_question: Instant,
    /// The question was due, and the executor had too much to do.
    is_withheld: bool,
    /// What was asked for last.
    asked: Option<Height>,
    /// How often nobody has answered: another member is asked each time.
    unanswered: usize,
}

impl Behind {
    fn new(index: u64, next_question: Instant) -> Self {
        Self { index, next_question, is_withheld: false, asked: None, unanswered: 0 }
    }
}

impl Raft {
    /// The leader has no entries for us. It hears that we are there; what it said is done when the
    /// blocks are here.
    pub(super) fn on_snapshot(&mut self, from: u64, message: &RaftMessage) {
        let Some((index, term)) = message.snapshot else { return };
        let raft = &self.node.raft;
        if message.term < raft.term || term == 0 {
            return;
        }
        let at = Place { index, term };
        let is_known = self.node.store().term_at(index) == Some(term);
        if is_known || index < raft.raft_log.committed {
            self.restore_log(from, message.term, at);
            return;
        }
        let mut wire = Wire::default();
        wire.set_msg_type(MessageType::MsgHeartbeat);
        (wire.from, wire.to, wire.term) = (from, self.id, message.term);
        self.give(wire);
        let now = self.now.instant;
        match &mut self.behind {
            Some(behind) => behind.index = index,
            None => self.behind = Some(Behind::new(index, now)),
        }
    }

    /// Tells the crate that everything up to this place is final here.
    fn restore_log(&mut self, from: u64, term: u64, at: Place) {
        let mut wire = Wire::default();
        wire.set_msg_type(MessageType::MsgSnapshot);
        (wire.from, wire.to, wire.term) = (from, self.id, term);
        wire.set_snapshot(self.node.store().snapshot_at(at));
        self.give(wire);
    }

    /// Asks for what is missing. Nothing is fetched that the executor could not keep up with. One
    /// question is under way at a time: each answer is work for whoever gives it.
    pub(super) fn fetch_missing(&mut self) {
        let committed = self.node.raft.raft_log.committed;
        let others = self.whom_to_ask();
        let Some(behind) = self.behind.as_mut().filter(|behind| behind.index > committed) else {
            self.behind = None;
            return;
        };
        let now = self.now.instant;
        if now < behind.next_question {
            return;
        }
        behind.next_question = now.plus(PATIENCE);
        let height = self.last.block.header.height;
        behind.is_withheld = height.0.saturating_sub(self.roots.newest().height.0) > self.lag;
        if behind.is_withheld {
            return;
        }
        if behind.asked == Some(height) {
            behind.unanswered = behind.unanswered.wrapping_add(1);
        }
        let turn = behind.unanswered.checked_rem(others.len());
        if let Some(&to) = turn.and_then(|turn| others.get(turn)) {
            behind.asked = Some(height);
            let message = Message::Fetch(Fetch::FinalAfter(height));
            self.actions.push(Action::Send { to: Recipient::One(to), message });
        }
    }

    /// The members that can be asked: the leader last, which has enough to do. Nobody while there
    /// is none, or this server is it.
    fn whom_to_ask(&self) -> Vec<NodeId> {
        let leader = self.leader_key().filter(|_| self.behind.is_some() && !self.is_leader());
        let Some(leader) = leader else { return Vec::new() };
        let me = self.member(self.id);
        let keys = self.members.iter().map(|(_, member)| member.key);
        let others = keys.filter(|key| Some(*key) != me && *key != leader);
        others.chain([leader]).collect()
    }

    /// The next question need not wait: there is news.
    fn ask_at_once(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.next_question = self.now.instant;
        }
    }

    /// The executor has done something: a question that waited for it need not wait longer.
    pub(super) fn ask_if_withheld(&mut self) {
        if self.behind.as_ref().is_some_and(|behind| behind.is_withheld) {
            self.ask_at_once();
        }
    }

    /// When the question is asked again.
    pub(super) fn next_question(&self) -> Option<Instant> {
        self.behind.as_ref().map(|behind| behind.next_question)
    }

    /// Final blocks have come, which `verify` has found to follow one another. Wanted are those
    /// that follow our last one.
    pub(super) fn on_final(&mut self, answer: FinalBlocks) {
        let leader = self.node.raft.leader_id;
        if self.behind.is_none() || leader == raft::INVALID_ID || leader == self.id {
            return;
        }
        let height = self.last.block.header.height;
        let news = answer.blocks.into_iter().filter(|block| block.header.height > height);
        let news: Vec<Arc<Block>> = news.collect();
        let Some(at) = self.end_of(&news) else {
            if !news.is_empty() {
                self.report("an answer with final blocks does not follow our last one".into());
            }
            return;
        };
        let finality = at.finality();
        self.actions.push(Action::Persist(Record::Finalized { blocks: news.clone(), finality }));
        self.finalize(news, at);
        self.restore_log(leader, self.node.raft.term, at);
        self.ask_at_once();
    }

    /// The last block's place in the log, if they follow our last final block and all that is
    /// committed here.
    fn end_of(&self, blocks: &[Arc<Block>]) -> Option<Place> {
        let first = blocks.first()?;
        let committed = self.node.raft.raft_log.committed;
        let follows = first.header.parent == self.last.id
            && first.header.height == self.last.block.header.height.next();
        if !follows || first.header.slot.0 <= committed {
            return None;
        }
        let mut end = place_of(&self.last.block);
        for block in blocks {
            let at = place_of(block);
            if at.index <= end.index || at.term < end.term || at.term == 0 {
                return None;
            }
            end = at;
        }
        let raft = &self.node.raft;
        (end.term <= raft.term && end.index < u64::MAX / 2).then_some(end)
    }
}

/// Where a block stands in the log; the beginning, for genesis.
pub(super) fn place_of(block: &Block) -> Place {
    let term = match block.header.turn {
        Turn::Elected { term } => term,
        Turn::Scheduled | Turn::Found { .. } => 0,
    };
    Place { index: block.header.slot.0, term }
}
