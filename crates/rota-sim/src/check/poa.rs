//! `poa`: what a member signs, across its restarts. Its votes are on disk before they leave, and
//! none contradicts another.

use std::collections::BTreeMap;

use rota_core::block::{Block, Choice, Vote};
use rota_core::message::Message;
use rota_core::types::{BlockId, ChainId, MemberIndex, Slot};

use super::{Broken, broken};
use crate::disk::Durable;

/// What a member said about one slot, as far as anybody could see.
#[derive(Clone, Debug, Default)]
struct Said {
    proposal: Option<BlockId>,
    notarize: Option<BlockId>,
    finalize: Option<BlockId>,
    nullify: bool,
}

/// The members' words.
pub(super) struct Words {
    chain: ChainId,
    /// By member; server and member have the same number.
    honest: Vec<bool>,
    said: BTreeMap<(usize, Slot), Said>,
}

impl Words {
    pub fn new(chain: ChainId, honest: Vec<bool>) -> Self {
        Self { chain, honest, said: BTreeMap::new() }
    }

    /// An honest server says something, with this on its disk.
    pub fn sends(
        &mut self,
        server: usize,
        message: &Message,
        durable: &Durable,
    ) -> Result<(), Broken> {
        match message {
            Message::Proposal(proposal) if is(server, proposal.block.header.leader) => {
                let id = proposal.block.id(self.chain);
                if !durable.proposals.contains(&id) {
                    let detail = format!("server {server}: proposal");
                    return broken("durable before sending", detail);
                }
                let said = self.said.entry((server, proposal.block.header.slot)).or_default();
                let before = *said.proposal.get_or_insert(id);
                if before != id {
                    let detail = format!("server {server}: {before} {id}");
                    return broken("one proposal a slot", detail);
                }
                Ok(())
            }
            Message::Vote(vote) if is(server, vote.voter) => {
                if !durable.votes.contains(&(vote.slot, vote.choice)) {
                    let detail =
                        format!("server {server}: {:?} in slot {}", vote.choice, vote.slot);
                    return broken("durable before sending", detail);
                }
                self.voted(vote)
            }
            Message::Certificate(certificate) => {
                certificate.votes().try_for_each(|vote| self.voted(&vote))
            }
            _ => Ok(()),
        }
    }

    /// A signature of the voter's exists.
    fn voted(&mut self, vote: &Vote) -> Result<(), Broken> {
        let member = vote.voter.position();
        if !self.honest.get(member).copied().unwrap_or(false) {
            return Ok(());
        }
        let said = self.said.entry((member, vote.slot)).or_default();
        let before = said.clone();
        match vote.choice {
            Choice::Notarize(id) => said.notarize = Some(id),
            Choice::Finalize(id) => said.finalize = Some(id),
            Choice::Nullify => said.nullify = true,
        }
        let after = said.clone();
        let detail = || format!("server {member}, slot {}: {before:?}, then {after:?}", vote.slot);
        if before.notarize.is_some() && before.notarize != after.notarize {
            return broken("one notarize vote a slot", detail());
        }
        if before.finalize.is_some() && before.finalize != after.finalize {
            return broken("one finalize vote a slot", detail());
        }
        if after.nullify && after.finalize.is_some() {
            return broken("never nullify and finalize", detail());
        }
        Ok(())
    }

    /// An honest server says that a block is notarized, and its ancestors.
    pub fn told_notarized(&self, server: usize, block: &Block) -> Result<(), Broken> {
        let (id, slot) = (block.id(self.chain), block.header.slot);
        let voted = |&member: &usize| {
            let said = self.said.get(&(member, slot));
            !self.honest[member] || said.is_some_and(|said| said.notarize == Some(id))
        };
        let members = self.honest.len();
        if (0..members).filter(voted).count() * 3 <= members * 2 {
            let detail = format!("server {server}: slot {slot}, {id}");
            return broken("what is said to be notarized has a quorum's votes", detail);
        }
        Ok(())
    }
}

fn is(server: usize, member: MemberIndex) -> bool {
    member.position() == server
}
