//! A member's own words: its votes are signed, written down, and only then said.

use super::Bft;
use super::slots::{Added, Kind};
use crate::block::{Certificate, Choice, Vote};
use crate::consensus::Action;
use crate::crypto::Signature;
use crate::journal::Record;
use crate::message::{Message, Recipient};
use crate::types::{MemberIndex, Slot};

impl Bft {
    pub(super) fn signed_vote(&self, voter: MemberIndex, slot: Slot, choice: Choice) -> Vote {
        let unsigned = Vote {
            epoch: self.epoch,
            slot,
            choice,
            voter,
            clock: self.now.clock,
            applied: self.applied,
            signature: Signature([0; 64]),
        };
        Vote::sign(self.chain, &self.key, unsigned)
    }

    /// Writes a vote down, says it, and counts it.
    pub(super) fn cast(&mut self, vote: Vote, record: Record) {
        self.actions.push(Action::Persist(record));
        self.send(Recipient::Members, Message::Vote(vote.clone()));
        let (slot, choice) = (vote.slot, vote.choice);
        self.first_vote.get_or_insert(slot);
        let added = self.state(slot).add(vote);
        assert_eq!(
            added,
            Added::New,
            "we were about to contradict ourselves: {choice:?} in {slot}"
        );
        self.changed = true;
    }

    /// The certificate of a slot, unless a record of our `finalize` vote holds it already.
    pub(super) fn certificate_to_remember(&self, slot: Slot) -> Option<Certificate> {
        if self.own_vote(slot, Kind::Finalize).is_some() {
            return None;
        }
        let state = self.slots.get(&slot)?;
        let notarization = state.notarization.as_ref().or(state.finalization.as_ref());
        notarization.or(state.nullification.as_ref()).cloned()
    }
}
