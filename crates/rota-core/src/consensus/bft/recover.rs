//! A member after a restart: its own records make it what it was.

use std::sync::Arc;

use super::Bft;
use super::slots::Check;
use crate::consensus::Action;
use crate::journal::Record;

impl Bft {
    /// Takes back what was written down: nothing is decided anew.
    pub(super) fn recover(&mut self, tail: Vec<Record>) {
        for record in tail {
            match record {
                Record::Entered(certificate) => self.on_certificate(certificate),
                Record::Proposed(proposal) => {
                    let slot = self.state(proposal.block.header.slot);
                    slot.check = Check::Valid;
                    slot.proposal = Some(proposal);
                }
                Record::Notarized { vote, block } => {
                    let id = block.id(self.chain);
                    self.state(vote.slot).bodies.insert(id, Arc::clone(&block));
                    self.actions.push(Action::Known(block));
                    self.state(vote.slot).add(vote);
                }
                Record::Nullified(vote) => {
                    self.state(vote.slot).add(vote);
                }
                Record::Finalizing { vote, notarization } => {
                    self.on_certificate(notarization);
                    self.state(vote.slot).add(vote);
                }
                Record::Fetched(block) => {
                    let id = block.id(self.chain);
                    self.state(block.header.slot).bodies.insert(id, Arc::clone(&block));
                    self.actions.push(Action::Known(block));
                }
                Record::Finalized { .. }
                | Record::HardState(_)
                | Record::Entry(_)
                | Record::Connected { .. } => {}
            }
        }
        // R1: every slot that we were in was entered by a certificate that is written down.
        let certified =
            self.slots.iter().rev().find(|(_, state)| {
                state.certified_block().is_some() || state.nullification.is_some()
            });
        if let Some((slot, _)) = certified {
            self.slot = self.slot.max(slot.next());
        }
    }
}
