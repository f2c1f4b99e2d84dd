//! Lies of a miner (`pow`): what it has found, made wrong in one point. Where another header needs
//! another proof, the work is really done again: a lie costs its sender what an honest block costs,
//! or nothing where the lie is about the work itself.

use std::sync::Arc;

use rota_core::block::{Header, Turn};
use rota_core::crypto::SecretKey;
use rota_core::message::{Fetch, Message, Mined, Recipient};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry};
use rota_core::types::{BlockId, Height, StateRoot};
use rota_core::work::{HeaderHash, SearchJob, WorkProof};

use super::{Liar, Outgoing, forgery};
use crate::mining::search;

/// Further ahead than any clock that is right, in seconds.
const FAR_AHEAD_S: u32 = 100_000;

/// A target that every second hash meets.
const EASY: u32 = 0x207f_ffff;

/// A liar gives up a search after so many tries: another of its lies may have garbled the target
/// into one that nobody meets.
const MOST_TRIES: u64 = 1 << 20;

/// So many strangers' envelopes at once.
const SPAM: usize = 20;

impl Liar {
    /// Its own block, if that is what this message is.
    fn own<'a>(&self, message: &'a Message) -> Option<&'a Mined> {
        match message {
            Message::Mined(mined) => {
                let me = Turn::Found { miner: self.key.public() };
                (mined.block.header.turn == me).then_some(mined)
            }
            _ => None,
        }
    }

    /// The same block with a changed header, and the work done for it.
    fn mined_again(&self, mined: &Mined, change: impl FnOnce(&mut Header)) -> Message {
        let mut block = (*mined.block).clone();
        change(&mut block.header);
        let proof = &mined.proof;
        let id = block.id(self.chain);
        let found = worked(proof.previous(), id, proof.time(), proof.bits());
        Message::Mined(Mined { proof: found.unwrap_or(*proof), block: Arc::new(block) })
    }

    /// The same block with another time or target in its proof.
    fn proven_again(&self, mined: &Mined, time_s: u32, bits: u32) -> Message {
        let id = mined.block.id(self.chain);
        let found = worked(mined.proof.previous(), id, time_s, bits);
        let (proof, block) = (found.unwrap_or(mined.proof), Arc::clone(&mined.block));
        Message::Mined(Mined { proof, block })
    }

    pub(super) fn too_little_work(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        let WorkProof(mut header) = mined.proof;
        while WorkProof(header).meets_its_target() {
            header[76..].copy_from_slice(&self.random.bytes::<4>());
        }
        let (proof, block) = (WorkProof(header), Arc::clone(&mined.block));
        vec![(to, Message::Mined(Mined { proof, block }))]
    }

    pub(super) fn far_future(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        let time = mined.proof.time().saturating_add(FAR_AHEAD_S);
        vec![(to, self.proven_again(mined, time, mined.proof.bits()))]
    }

    pub(super) fn old_time(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        let time = mined.proof.time().saturating_sub(FAR_AHEAD_S);
        vec![(to, self.proven_again(mined, time, mined.proof.bits()))]
    }

    pub(super) fn wrong_target(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        vec![(to, self.proven_again(mined, mined.proof.time(), EASY))]
    }

    pub(super) fn wrong_root_mined(&mut self, to: Recipient, message: Message) -> Outgoing {
        let root = StateRoot(self.random.bytes());
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        vec![(to, self.mined_again(mined, |header| header.applied.root = root))]
    }

    pub(super) fn spoils_mined(&mut self, to: Recipient, message: Message) -> Outgoing {
        let (which, parent) = (self.random.below(5), BlockId(self.random.bytes()));
        let Some(mined) = self.own(&message) else { return vec![(to, message)] };
        let spoilt = self.mined_again(mined, |header| match which {
            0 => header.height = header.height.next(),
            1 => header.parent = parent,
            2 => header.slot = header.slot.next(),
            3 => header.time.0 += 1,
            _ => header.applied.height = Height(header.applied.height.0 + 1),
        });
        vec![(to, spoilt)]
    }

    /// Proves that there are blocks, and never shows them.
    pub(super) fn withholds_bodies(&mut self, to: Recipient, message: Message) -> Outgoing {
        match &message {
            Message::Pending(_) => Vec::new(),
            Message::Mined(mined) => vec![(to, Message::Proofs(vec![mined.proof]))],
            _ => vec![(to, message)],
        }
    }

    /// What no block will hold: envelopes of keys that may not write, some with no signature at
    /// all; and questions without end.
    pub(super) fn spams(&mut self, to: Recipient, message: Message) -> Outgoing {
        if !self.random.per_mille(200) {
            return vec![(to, message)];
        }
        let expiry = self.old.iter().find_map(|old| match old {
            Message::Mined(mined) => Some(mined.block.header.time.0),
            _ => None,
        });
        let time = Time(expiry.unwrap_or(0).saturating_add(1_000_000));
        let expiry = Expiry { height: Height(1_000), time };
        let mut spam: Vec<Arc<Envelope>> = (0..SPAM)
            .map(|_| {
                let stranger = SecretKey::from_bytes(self.random.bytes());
                let transaction = forgery(self.random.bytes());
                Arc::new(Envelope::sign(self.chain, &stranger, expiry, vec![transaction]))
            })
            .collect();
        if self.random.per_mille(300)
            && let Some(first) = spam.first_mut()
        {
            Arc::make_mut(first).signer = self.key.public();
        }
        let known = vec![HeaderHash(self.random.bytes())];
        let ask = || Message::Fetch(Fetch::ProofsAfter(known.clone()));
        let asked = (0..SPAM).map(|_| (to.clone(), ask()));
        let mut outgoing = vec![(to.clone(), Message::Envelopes(spam))];
        outgoing.extend(asked);
        outgoing.push((to, message));
        outgoing
    }
}

fn worked(previous: HeaderHash, block: BlockId, time_s: u32, bits: u32) -> Option<WorkProof> {
    let job = SearchJob::new(previous, block, time_s, bits);
    search(SearchJob { tries: MOST_TRIES, ..job }).1
}
