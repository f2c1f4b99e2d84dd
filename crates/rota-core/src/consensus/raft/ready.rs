//! What the `raft` crate wants done, in the order that makes it right (steps 5 to 7).
//!
//! ```text
//!   leader    its words ─► what is committed ─► blocks to come ─► entries, term and vote on disk
//!             (they promise nothing of ours)    (Ahead)           (Persist)
//!   follower  entries, term and vote on disk ─► its words ─► what is committed ─► blocks to come
//!             (Persist)                         (they promise it)                 (Ahead)
//! ```
//!
//! A leader's words come before its own fsync, so that the members' disks work side by side (Ongaro
//! 2014, section 10.2.1). They say nothing of its own disk: an entry of its term counts as its own
//! only beside others that have it, and their words cannot be here before the records that stand in
//! the same batch are on disk.
//!
//! What is committed was on disk in an earlier step. To execute it, and ahead what most likely
//! follows it, takes a processor: a leader's client waits for that, so it is done while the disks
//! write; a follower's leader waits for its words, so they come first.

use std::collections::BTreeSet;
use std::sync::Arc;

use raft::StateRole;
use raft::eraftpb::{Entry as WireEntry, HardState as WireState, Message as Wire, MessageType};

use super::behind::place_of;
use super::log::Place;
use super::{Last, Raft};
use crate::block::{Block, Finality};
use crate::consensus::Action;
use crate::journal::{Entry, HardState, Record};
use crate::message::{Message, Recipient};
use crate::types::BlockId;

impl Place {
    /// What makes the block there final.
    pub fn finality(self) -> Finality {
        Finality::Log { term: self.term, index: self.index }
    }
}

impl Raft {
    /// Does all that the crate wants done.
    pub(super) fn carry_out(&mut self) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            let restored = ready.snapshot().get_metadata();
            let restored = Place { index: restored.index, term: restored.term };
            let (told, promised) = (ready.take_messages(), ready.take_persisted_messages());
            let mut committed = ready.take_committed_entries();
            let state = ready.hs().cloned();
            for read in ready.take_read_states() {
                self.reads.confirmed(&read.request_ctx, read.index);
            }
            if restored.index > 0 {
                let gone = self.node.mut_store().restore(restored);
                self.abandon(gone);
            }
            let entries = ready.take_entries();
            let leads = self.is_leader();
            let records = self.store(entries);
            let waiting = self.members_that_wait(&committed);
            self.send_all(told, &waiting);
            if leads {
                self.on_committed(std::mem::take(&mut committed));
                self.look_ahead();
            }
            self.actions.extend(records.into_iter().map(Action::Persist));
            self.save(state);
            self.send_all(promised, &waiting);
            self.on_committed(committed);
            // The host has all this on disk before it carries out any of what follows.
            let mut light = self.node.advance_append(ready);
            let committed = light.take_committed_entries();
            let waiting = self.members_that_wait(&committed);
            self.send_all(light.take_messages(), &waiting);
            self.on_committed(committed);
            self.node.advance_apply();
            self.look_ahead();
        }
        self.fresh.clear();
        let end = place_of(&self.last.block);
        self.node.mut_store().finalized(end);
    }

    /// Takes entries into the log in memory; returns what is to be written.
    fn store(&mut self, entries: Vec<WireEntry>) -> Vec<Record> {
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            let at = Place { index: entry.index, term: entry.term };
            let block = entry.data.as_ref().try_into().ok().map(|id| {
                let block = self.fresh.get(&BlockId(id));
                Arc::clone(block.expect("an id is given to the crate after its block was kept"))
            });
            let gone = self.node.mut_store().append(at, block.clone());
            self.abandon(gone);
            if let Some(block) = &block {
                self.actions.push(Action::Known(Arc::clone(block)));
                self.to_come.push(Arc::clone(block));
            }
            records.push(Record::Entry(Entry { index: at.index, term: at.term, block }));
        }
        records
    }

    /// Says which blocks have come into the log, unless they are final by now.
    fn look_ahead(&mut self) {
        let lowest = self.last.block.header.slot;
        let to_come = std::mem::take(&mut self.to_come);
        let to_come = to_come.into_iter().filter(|block| block.header.slot > lowest);
        self.actions.extend(to_come.map(Action::Ahead));
    }

    /// Blocks that another leader's entries have replaced.
    fn abandon(&mut self, blocks: Vec<Arc<Block>>) {
        if !blocks.is_empty() {
            self.actions.push(Action::Abandon(blocks));
        }
    }

    /// Term and vote must be on disk before anybody hears of them. How far the log is committed is
    /// learnt again after a restart.
    fn save(&mut self, state: Option<WireState>) {
        let Some(state) = state else { return };
        if (state.term, state.vote) != self.saved {
            self.saved = (state.term, state.vote);
            self.save_hard_state();
        }
    }

    /// Writes down term and vote, and with them what was noted before.
    pub(super) fn save_hard_state(&mut self) {
        let (term, vote) = self.saved;
        let (vote, commit) = (self.member(vote), self.node.raft.raft_log.committed);
        let record = Record::HardState(HardState { term, vote, commit });
        self.actions.push(Action::Persist(record));
    }

    fn members_that_wait(&self, committed: &[WireEntry]) -> BTreeSet<u64> {
        let log = self.node.store();
        let blocks = committed.iter().filter_map(|entry| log.get(entry.index)?.block.as_ref());
        self.waiting_for(blocks.map(|(_, block)| &**block))
    }

    fn send_all(&mut self, messages: Vec<Wire>, waiting: &BTreeSet<u64>) {
        for wire in messages {
            if !self.hold(&wire, waiting) {
                self.say(wire);
            }
        }
    }

    pub(super) fn say(&mut self, wire: Wire) {
        if wire.get_msg_type() == MessageType::MsgSnapshot {
            self.snapshots_sent.insert(wire.to, self.now.instant);
        }
        if let Some((to, message)) = self.in_our_words(wire) {
            let message = Message::Raft(Box::new(message));
            self.actions.push(Action::Send { to: Recipient::One(to), message });
        }
    }

    /// Entries that a majority has on disk, this member among it. Those that came as final blocks
    /// (`behind`) are final already.
    fn on_committed(&mut self, entries: Vec<WireEntry>) {
        let lowest = self.last.block.header.slot.0;
        let log = self.node.store();
        let blocks = entries.iter().filter(|entry| entry.index > lowest).filter_map(|entry| {
            let (_, block) = log.get(entry.index)?.block.as_ref()?;
            Some(Arc::clone(block))
        });
        let blocks: Vec<Arc<Block>> = blocks.collect();
        if let Some(last) = blocks.last() {
            let at = place_of(last);
            // One record each: every block then has a proof of its own, and an answer to whoever
            // asks for final blocks can end with any of them.
            for block in &blocks {
                let (finality, blocks) = (place_of(block).finality(), vec![Arc::clone(block)]);
                self.actions.push(Action::Note(Record::Finalized { blocks, finality }));
            }
            self.noted_at.get_or_insert(self.now.instant);
            self.finalize(blocks, at);
        }
    }

    /// These blocks can no longer change; `at` is the last one's place.
    pub(super) fn finalize(&mut self, blocks: Vec<Arc<Block>>, at: Place) {
        let Some(block) = blocks.last().map(Arc::clone) else { return };
        // A block of this term's leader that was not here when this server started, and nothing
        // newer that is final elsewhere: it tells the date.
        let is_newest = at.term == self.node.raft.term && at.index >= self.leader_commit;
        self.live |= is_newest && at.index > self.recovered_end;
        self.last = Last { id: block.id(self.chain), block };
        self.actions.push(Action::Finalize { blocks, finality: at.finality() });
        self.pace.finalized(self.now.instant);
        self.gather.finalized(self.now.instant);
    }

    /// In which part this member is, for people.
    pub(super) fn role(&self) -> &'static str {
        match self.node.raft.state {
            StateRole::Leader => "leader",
            StateRole::Follower => "follower",
            StateRole::Candidate | StateRole::PreCandidate => "candidate",
        }
    }
}
