//! `raft`: terms, votes and the log (Ongaro and Ousterhout 2014, figure 3). What a member promises
//! is on its disk before the promise leaves; it votes once in a term; a term has one leader, and
//! that one has everything that was committed before.

use std::collections::BTreeMap;

use rota_core::message::{RaftKind, RaftMessage, Recipient};
use rota_core::types::{BlockId, Height, NodeId, Slot};

use super::{Broken, broken};
use crate::disk::Durable;

/// The members' words.
#[derive(Default)]
pub(super) struct Words {
    votes: BTreeMap<(usize, u64), NodeId>,
    leaders: BTreeMap<u64, usize>,
    /// The newest block that anybody had executed while the newest term with a leader was this one:
    /// it was committed in it or in an earlier one.
    committed: BTreeMap<u64, (Height, Slot, BlockId)>,
}

impl Words {
    /// Somebody has executed this block: it was committed before.
    pub fn applies(&mut self, height: Height, slot: Slot, id: BlockId) {
        let term = self.leaders.last_key_value().map_or(0, |(&term, _)| term);
        let newest = self.committed.entry(term).or_insert((height, slot, id));
        if newest.0 < height {
            *newest = (height, slot, id);
        }
    }

    /// A server says something, with this on its disk.
    pub fn sends(
        &mut self,
        server: usize,
        me: NodeId,
        to: &Recipient,
        message: &RaftMessage,
        durable: &Durable,
    ) -> Result<(), Broken> {
        let RaftMessage { kind, term, index, reject, .. } = message;
        let detail = || {
            let Durable { hard_state, slot, .. } = durable;
            let end = durable.log.last_key_value().map(|(index, (term, _))| (*index, *term));
            format!(
                "server {server}: {kind:?} of term {term}, index {index}; on disk: {hard_state:?}, \
                 log up to {end:?}, final slot {slot}"
            )
        };
        let asks_before = matches!(kind, RaftKind::PreVote | RaftKind::PreVoteResponse);
        if !asks_before && *term > durable.hard_state.term {
            return broken("a term is on disk before it is spoken of", detail());
        }
        match kind {
            RaftKind::AppendResponse if !reject => {
                let end = durable.log.last_key_value().map_or(0, |(&index, _)| index);
                if *index > end.max(durable.slot.0) {
                    return broken("entries are on disk before they are acknowledged", detail());
                }
                Ok(())
            }
            RaftKind::Vote => self.votes_for(server, *term, me, durable),
            RaftKind::VoteResponse if !reject => match to {
                Recipient::One(candidate) => self.votes_for(server, *term, *candidate, durable),
                _ => broken("a vote goes to its candidate", detail()),
            },
            RaftKind::Append | RaftKind::Heartbeat | RaftKind::Snapshot | RaftKind::TimeoutNow => {
                self.leads(server, *term, durable)
            }
            _ => Ok(()),
        }
    }

    fn votes_for(
        &mut self,
        server: usize,
        term: u64,
        candidate: NodeId,
        durable: &Durable,
    ) -> Result<(), Broken> {
        let written = durable.hard_state;
        if written.term == term && written.vote != Some(candidate) {
            let detail = format!("server {server}, term {term}: {written:?}");
            return broken("a vote is on disk before it leaves", detail);
        }
        let before = *self.votes.entry((server, term)).or_insert(candidate);
        if before != candidate {
            let detail = format!("server {server}, term {term}: {before:?}, then {candidate:?}");
            return broken("one vote a term", detail);
        }
        Ok(())
    }

    fn leads(&mut self, server: usize, term: u64, durable: &Durable) -> Result<(), Broken> {
        if let Some(&before) = self.leaders.get(&term) {
            if before != server {
                let detail = format!("term {term}: servers {before} and {server}");
                return broken("one leader a term", detail);
            }
            return Ok(());
        }
        self.leaders.insert(term, server);
        let before = self.committed.range(..term).next_back();
        let Some((_, &(height, slot, id))) = before else { return Ok(()) };
        let has = durable.log.get(&slot.0).is_some_and(|(_, block)| *block == Some(id));
        if !has && durable.height < height {
            let detail = format!("server {server}, term {term}: no block {height} in slot {slot}");
            return broken("a leader has all that was committed", detail);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rota_core::journal::HardState;

    use super::*;

    const ME: NodeId = rota_core::types::PublicKey([1; 32]);
    const OTHER: NodeId = rota_core::types::PublicKey([2; 32]);

    fn message(kind: RaftKind, term: u64, index: u64) -> RaftMessage {
        RaftMessage { index, ..RaftMessage::new(kind, term) }
    }

    fn says(words: &mut Words, message: &RaftMessage, durable: &Durable) -> Option<&'static str> {
        let to = Recipient::One(OTHER);
        words.sends(0, ME, &to, message, durable).err().map(|broken| broken.rule)
    }

    fn durable(term: u64, vote: Option<NodeId>) -> Durable {
        Durable { hard_state: HardState { term, vote, commit: 0 }, ..Durable::default() }
    }

    #[test]
    fn what_is_not_on_disk_must_not_be_said() {
        let words = &mut Words::default();
        let kinds = [RaftKind::AppendResponse, RaftKind::Heartbeat, RaftKind::Vote];
        for kind in kinds {
            let rule = says(words, &message(kind, 3, 0), &durable(2, None));
            assert_eq!(rule, Some("a term is on disk before it is spoken of"), "{kind:?}");
        }
        assert_eq!(says(words, &message(RaftKind::PreVote, 3, 0), &durable(2, None)), None);
        let ahead = message(RaftKind::AppendResponse, 2, 1);
        let rule = says(words, &ahead, &durable(2, None));
        assert_eq!(rule, Some("entries are on disk before they are acknowledged"));
        let mut with_entry = durable(2, None);
        with_entry.log.insert(1, (2, None));
        assert_eq!(says(words, &ahead, &with_entry), None);
        let vote = message(RaftKind::VoteResponse, 2, 0);
        let rule = says(words, &vote, &durable(2, None));
        assert_eq!(rule, Some("a vote is on disk before it leaves"));
    }

    #[test]
    fn a_second_vote_in_a_term_is_seen_even_if_the_first_was_forgotten() {
        let words = &mut Words::default();
        let vote = message(RaftKind::VoteResponse, 2, 0);
        assert_eq!(says(words, &vote, &durable(2, Some(OTHER))), None);
        let own = message(RaftKind::Vote, 2, 0);
        assert_eq!(says(words, &own, &durable(2, Some(ME))), Some("one vote a term"));
    }

    #[test]
    fn a_leader_without_what_was_committed_is_seen() {
        let words = &mut Words::default();
        let id = BlockId([7; 32]);
        words.applies(Height(1), Slot(2), id);
        let heartbeat = message(RaftKind::Heartbeat, 2, 0);
        let rule = says(words, &heartbeat, &durable(2, None));
        assert_eq!(rule, Some("a leader has all that was committed"));
        let mut complete = durable(3, None);
        complete.log.insert(2, (1, Some(id)));
        assert_eq!(says(words, &message(RaftKind::Heartbeat, 3, 0), &complete), None);
    }
}
