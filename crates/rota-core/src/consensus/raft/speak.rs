//! What members say to each other: the `raft` crate's messages in our encoding and back (steps 5
//! and 6). The crate takes its peers at their word and panics where a word cannot be true: nothing
//! that a peer says reaches it unchecked.

use std::sync::Arc;

use raft::StateRole;
use raft::eraftpb::{Entry as WireEntry, Message as Wire, MessageType};

use super::Raft;
use super::log::Place;
use super::reads::Context;
use crate::block::{Block, Turn};
use crate::journal::Entry;
use crate::message::{RaftKind, RaftMessage};
use crate::types::NodeId;

/// The largest term and index: nothing counts that far, and a number above it from a peer could
/// overflow.
const MAX_NUMBER: u64 = 1 << 62;

/// The most reads of other members that wait for a leader's majority at once: each member asks for
/// one round of reads at a time, or a few.
const MAX_READS: usize = 1_024;

/// The kinds of message, in both words.
const KINDS: [(RaftKind, MessageType); 13] = [
    (RaftKind::Append, MessageType::MsgAppend),
    (RaftKind::AppendResponse, MessageType::MsgAppendResponse),
    (RaftKind::PreVote, MessageType::MsgRequestPreVote),
    (RaftKind::PreVoteResponse, MessageType::MsgRequestPreVoteResponse),
    (RaftKind::Vote, MessageType::MsgRequestVote),
    (RaftKind::VoteResponse, MessageType::MsgRequestVoteResponse),
    (RaftKind::Heartbeat, MessageType::MsgHeartbeat),
    (RaftKind::HeartbeatResponse, MessageType::MsgHeartbeatResponse),
    (RaftKind::Snapshot, MessageType::MsgSnapshot),
    (RaftKind::TimeoutNow, MessageType::MsgTimeoutNow),
    (RaftKind::ReadIndex, MessageType::MsgReadIndex),
    (RaftKind::ReadIndexResponse, MessageType::MsgReadIndexResp),
    (RaftKind::TransferLeader, MessageType::MsgTransferLeader),
];

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// It is late, or for somebody else: that happens.
    Stale,
    /// An honest member whose disk is whole would not have sent it.
    Wrong(&'static str),
}

use Objection::{Stale, Wrong};

impl Raft {
    /// The id by which the crate knows a member: its place among them, from 1 on.
    pub(super) fn id_of(&self, member: NodeId) -> Option<u64> {
        self.members.index_of(&member).map(|index| u64::from(index.0) + 1)
    }

    /// Which server that is.
    pub(super) fn member(&self, id: u64) -> Option<NodeId> {
        let position = usize::try_from(id.checked_sub(1)?).ok()?;
        self.members.iter().nth(position).map(|(_, member)| member.key)
    }

    /// A message of the crate's as it is sent.
    pub(super) fn in_our_words(&self, mut wire: Wire) -> Option<(NodeId, RaftMessage)> {
        let kind = wire.get_msg_type();
        let (kind, _) = KINDS.into_iter().find(|(_, theirs)| *theirs == kind)?;
        let mut context = wire.context.to_vec();
        let mut entries = Vec::new();
        if matches!(kind, RaftKind::ReadIndex | RaftKind::ReadIndexResponse) {
            context = wire.entries.first()?.data.to_vec();
        } else {
            for entry in wire.take_entries() {
                entries.push(self.entry_at(Place { index: entry.index, term: entry.term })?);
            }
        }
        let snapshot = (kind == RaftKind::Snapshot).then(|| {
            let metadata = wire.get_snapshot().get_metadata();
            (metadata.index, metadata.term)
        });
        let message = RaftMessage {
            kind,
            term: wire.term,
            log_term: wire.log_term,
            index: wire.index,
            commit: wire.commit,
            commit_term: wire.commit_term,
            entries,
            reject: wire.reject,
            reject_hint: wire.reject_hint,
            context,
            snapshot,
            applied: self.roots.newest(),
        };
        Some((self.member(wire.to)?, message))
    }

    fn entry_at(&self, at: Place) -> Option<Entry> {
        let kept = self.node.store().get(at.index).filter(|kept| kept.term == at.term)?;
        let block = kept.block.as_ref().map(|(_, block)| Arc::clone(block));
        Some(Entry { index: at.index, term: at.term, block })
    }

    /// A checked message as the crate reads it; the bodies of its blocks are kept for when it
    /// stores their ids.
    pub(super) fn in_their_words(&mut self, from: u64, message: RaftMessage) -> Wire {
        let mut wire = Wire::default();
        let kind = KINDS.into_iter().find(|(ours, _)| *ours == message.kind);
        wire.set_msg_type(kind.map_or(MessageType::MsgHup, |(_, theirs)| theirs));
        (wire.from, wire.to) = (from, self.id);
        (wire.term, wire.log_term, wire.index) = (message.term, message.log_term, message.index);
        (wire.commit, wire.commit_term) = (message.commit, message.commit_term);
        (wire.reject, wire.reject_hint) = (message.reject, message.reject_hint);
        let mut entries = Vec::with_capacity(message.entries.len());
        if matches!(message.kind, RaftKind::ReadIndex | RaftKind::ReadIndexResponse) {
            entries.push(WireEntry { data: message.context.into(), ..WireEntry::default() });
        } else {
            wire.context = message.context.into();
        }
        for Entry { index, term, block } in message.entries {
            let data = block.map_or_else(Vec::new, |block| {
                let id = block.id(self.chain);
                self.fresh.insert(id, block);
                id.0.to_vec()
            });
            entries.push(WireEntry { index, term, data: data.into(), ..WireEntry::default() });
        }
        wire.set_entries(entries.into());
        wire
    }

    /// Whether a member's message can be given to the crate. `Snapshot` is looked at elsewhere
    /// (`behind`).
    pub(super) fn check(&self, from: u64, message: &RaftMessage) -> Result<(), Objection> {
        check_form(message)?;
        let last = self.node.store().last().index;
        let is_leader = self.node.raft.state == StateRole::Leader;
        match message.kind {
            RaftKind::Append => self.check_append(message),
            RaftKind::Heartbeat if message.term < self.node.raft.term => Ok(()),
            RaftKind::Heartbeat if message.commit > last => {
                Err(Wrong("it names entries that we should have on disk, and have not"))
            }
            RaftKind::AppendResponse if is_leader && !message.reject && message.index > last => {
                Err(Wrong("it acknowledges entries that nobody sent"))
            }
            RaftKind::ReadIndex if !is_leader => Err(Stale),
            RaftKind::ReadIndex if !Context::is_from(from, &message.context) => {
                Err(Wrong("it asks in another member's name"))
            }
            RaftKind::ReadIndex if self.node.raft.pending_read_count() >= MAX_READS => Err(Stale),
            RaftKind::ReadIndexResponse if !self.reads.was_asked(&message.context) => Err(Stale),
            // Who hands over says so itself: nobody asks for it.
            RaftKind::TransferLeader => Err(Stale),
            _ => Ok(()),
        }
    }

    /// Entries that would be taken must fit our log: the crate looks at index and term only.
    fn check_append(&self, message: &RaftMessage) -> Result<(), Objection> {
        let mut term = message.log_term;
        for (entry, index) in message.entries.iter().zip(message.index + 1..) {
            // The crate takes an entry of term 0 for one that is there already, beyond its end.
            let has_term = entry.term > 0 && (term..=message.term).contains(&entry.term);
            if entry.index != index || !has_term {
                return Err(Wrong("its entries do not follow one another"));
            }
            if entry.block.as_ref().is_some_and(|block| !stands_at(block, entry)) {
                return Err(Wrong("a block's slot or term is not its entry's"));
            }
            term = entry.term;
        }
        let log = self.node.store();
        let is_late =
            message.term < self.node.raft.term || message.index < self.node.raft.raft_log.committed;
        if is_late || log.term_at(message.index) != Some(message.log_term) {
            return Ok(()); // the crate takes none of its entries
        }
        let mut same = true;
        let (mut parent, mut height) = match log.newest_block(message.index) {
            Some((id, block)) => (*id, block.header.height),
            None => (self.last.id, self.last.block.header.height),
        };
        for entry in &message.entries {
            let ours = log.get(entry.index).filter(|ours| same && ours.term == entry.term);
            same = ours.is_some();
            let Some(block) = &entry.block else {
                if ours.is_some_and(|ours| ours.block.is_some()) {
                    return Err(Wrong("two entries of one index and term differ"));
                }
                continue;
            };
            let id = block.id(self.chain);
            if ours.is_some_and(|ours| ours.block.as_ref().is_none_or(|(ours, _)| *ours != id)) {
                return Err(Wrong("two entries of one index and term differ"));
            }
            if block.header.parent != parent || block.header.height != height.next() {
                return Err(Wrong("a block does not follow the one before"));
            }
            (parent, height) = (id, block.header.height);
        }
        Ok(())
    }
}

/// Whether a block was made for this entry.
fn stands_at(block: &Block, entry: &Entry) -> bool {
    block.header.slot.0 == entry.index && block.header.turn == (Turn::Elected { term: entry.term })
}

/// Whether numbers are in range, and nothing is where it does not belong.
fn check_form(message: &RaftMessage) -> Result<(), Objection> {
    let (snapshot, snapshot_term) = message.snapshot.unwrap_or_default();
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        snapshot,
        snapshot_term,
    ];
    if numbers.into_iter().any(|number| number >= MAX_NUMBER) {
        return Err(Wrong("a number out of range"));
    }
    let (asks, appends) = (message.kind == RaftKind::ReadIndex, message.kind == RaftKind::Append);
    if (message.term == 0) != asks {
        return Err(Wrong("a message without a term, or a question with one"));
    }
    if !message.entries.is_empty() && !appends {
        return Err(Wrong("entries in a message that has none"));
    }
    if (message.snapshot.is_some()) != (message.kind == RaftKind::Snapshot) {
        return Err(Wrong("a snapshot where there is none"));
    }
    if appends && (message.index == 0) != (message.log_term == 0) {
        return Err(Wrong("entries that follow no entry"));
    }
    Ok(())
}
