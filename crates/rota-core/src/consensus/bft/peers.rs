//! What members tell each other beside votes: help for who lags, and fetching what we lack
//! ourselves (R8).
//!
//! A certificate proves that something exists before anybody is asked for it: nothing that a peer
//! merely claims makes us fetch.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::Bft;
use crate::block::{Certificate, Choice};
use crate::message::{Fetch, Message, Recipient};
use crate::time::Instant;
use crate::types::{BlockId, MemberIndex, NodeId, Slot};

/// Who repeats old messages is answered with newer certificates at most this often.
const HELP_INTERVAL: Duration = Duration::from_millis(100);

/// The time between two attempts to fetch one thing doubles this often at the most.
const MAX_FETCH_DOUBLINGS: u32 = 4;

/// The most certificates in one answer.
const MAX_HELP: usize = 64;

/// What we lack, why we know that it exists, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    wanted: Fetch,
    /// Asked for on every second attempt: a certified body may be with members for whom it is not
    /// final yet.
    or_else: Option<BlockId>,
    voters: Vec<MemberIndex>,
}

/// A fetch under way.
#[derive(Debug)]
struct Fetching {
    wanted: Fetch,
    attempts: usize,
    next: Instant,
}

/// Whom we answered, and what we asked for.
#[derive(Debug, Default)]
pub(super) struct Peers {
    answered: BTreeMap<NodeId, Instant>,
    fetching: Option<Fetching>,
    eager: bool,
}

impl Peers {
    /// Something asked for has come: what is missing next is asked for without waiting whether it
    /// comes by itself.
    pub fn fetched(&mut self) {
        self.fetching = None;
        self.eager = true;
    }

    pub fn wake(&self) -> Option<Instant> {
        self.fetching.as_ref().map(|fetching| fetching.next)
    }
}

impl Bft {
    /// A peer says things about slots that we have left: it gets what let us leave them.
    pub(super) fn help(&mut self, peer: NodeId) {
        let now = self.now.instant;
        let last = self.peers.answered.get(&peer);
        if last.is_some_and(|&last| now.since(last) < HELP_INTERVAL) {
            return;
        }
        self.peers.answered.insert(peer, now);
        self.send_certificates(peer, Slot(0));
    }

    /// R8: what a member hears first on a new stream.
    pub(super) fn greet(&mut self, peer: NodeId) {
        self.pace.newcomer();
        self.send_certificates(peer, Slot(0));
        for message in self.own_words() {
            self.send(Recipient::One(peer), message);
        }
    }

    /// The certificates of slots after this one: the newest finalization stands for all before it.
    pub(super) fn send_certificates(&mut self, peer: NodeId, after: Slot) {
        let mut certificates: Vec<Certificate> = Vec::new();
        if after < self.last.block.header.slot {
            certificates.extend(self.last.finalization.clone());
        }
        let later = (Bound::Excluded(after), Bound::Unbounded);
        for state in self.slots.range(later).map(|(_, state)| state) {
            certificates.extend(state.nullification.clone());
            certificates.extend(state.notarization.clone());
            certificates.extend(state.finalization.clone());
        }
        certificates.truncate(MAX_HELP);
        // The newest is worth the most, and must not be what the bound cuts off.
        if let Some(newest) = self.entering_certificate()
            && !certificates.contains(newest)
        {
            certificates.push(newest.clone());
        }
        for certificate in certificates {
            self.send(Recipient::One(peer), Message::Certificate(certificate));
        }
    }

    /// The certificate that let us into the current slot.
    pub(super) fn entering_certificate(&self) -> Option<&Certificate> {
        let before = self.slot.previous()?;
        if before == self.last.block.header.slot {
            return self.last.finalization.as_ref();
        }
        let state = self.slots.get(&before)?;
        let notarized = state.finalization.as_ref().or(state.notarization.as_ref());
        notarized.or(state.nullification.as_ref())
    }

    /// Asks for what is missing, one thing and one member at a time, the next member after each
    /// time-out.
    pub(super) fn fetch_missing(&mut self) {
        let now = self.now.instant;
        let Some(missing) = self.missing() else {
            self.peers.fetching = None;
            self.peers.eager = false;
            return;
        };
        let patience = if self.peers.eager { Duration::ZERO } else { self.pace.base() / 4 };
        let base = self.pace.base();
        let fetching = match &mut self.peers.fetching {
            Some(fetching) if fetching.wanted == missing.wanted => fetching,
            other => {
                let next = now.plus(patience);
                other.insert(Fetching { wanted: missing.wanted.clone(), attempts: 0, next })
            }
        };
        if now < fetching.next {
            return;
        }
        let attempts = fetching.attempts;
        fetching.attempts += 1;
        // An answer can be large and the link slow: asking ever faster would only delay it.
        let doublings = u32::try_from(attempts / 2).unwrap_or(u32::MAX).min(MAX_FETCH_DOUBLINGS);
        fetching.next = now.plus(base.saturating_mul(1 << doublings));
        let others: Vec<NodeId> = missing
            .voters
            .iter()
            .filter(|&&voter| Some(voter) != self.me)
            .filter_map(|&voter| self.members.get(voter).map(|member| member.key))
            .collect();
        // Where there are two ways to ask, each member is asked both.
        let (fetch, turn) = match missing.or_else {
            Some(block) if attempts % 2 == 1 => (Fetch::Block(block), attempts / 2),
            Some(_) => (missing.wanted, attempts / 2),
            None => (missing.wanted, attempts),
        };
        let Some(&peer) = others.get(turn % others.len().max(1)) else { return };
        self.send(Recipient::One(peer), Message::Fetch(fetch));
    }

    /// The body that keeps a finalization from being carried out: the hashes from its block down to
    /// this one prove it.
    pub(super) fn missing_ancestor(&self) -> Option<BlockId> {
        self.missing_final()?.or_else
    }

    fn missing(&self) -> Option<Missing> {
        self.missing_final().or_else(|| self.missing_body()).or_else(|| self.missing_certificate())
    }

    /// A finalization proves blocks that are not here. Nothing is fetched that the executor could
    /// not keep up with.
    fn missing_final(&self) -> Option<Missing> {
        let height = self.last.block.header.height;
        if height.0.saturating_sub(self.applied.0) > self.lag {
            return None;
        }
        let certificate =
            self.slots.values().rev().find_map(|state| state.finalization.as_ref())?;
        let Choice::Finalize(block) = certificate.choice else { return None };
        let mut next = block;
        while let Some(body) = self.body(next) {
            next = body.header.parent;
            if next == self.last.id {
                return None;
            }
        }
        Some(Missing {
            wanted: Fetch::FinalAfter(height),
            or_else: Some(next),
            voters: voters(certificate),
        })
    }

    /// A notarized block whose body is not here.
    fn missing_body(&self) -> Option<Missing> {
        self.slots.values().rev().find_map(|state| {
            let certificate = state.notarization.as_ref()?;
            let Choice::Notarize(block) = certificate.choice else { return None };
            let missing = !state.bodies.contains_key(&block);
            missing.then(|| Missing {
                wanted: Fetch::Block(block),
                or_else: None,
                voters: voters(certificate),
            })
        })
    }

    /// A slot below ours, above the block to build on, that we do not know to be nullified. A slot
    /// can be both notarized and nullified, so what a leader builds on decides which slots must be
    /// nullified.
    fn missing_certificate(&self) -> Option<Missing> {
        let proposal = self.slots.get(&self.slot).and_then(|state| state.proposal.as_ref());
        let parent = proposal.map(|proposal| proposal.block.header.parent);
        let lowest = self.last.block.header.slot;
        let mut below = self.slot.previous()?;
        while below > lowest {
            let state = self.slots.get(&below);
            let certified = state.and_then(|state| state.certified_block());
            let nullified = state.is_some_and(|state| state.nullification.is_some());
            if certified.is_some() && parent.is_none_or(|parent| certified == Some(parent)) {
                return None;
            }
            let before = below.previous()?;
            if !nullified {
                let mut asked = vec![self.schedule.leader(self.slot)];
                asked.extend(voters(self.entering_certificate()?));
                let wanted = Fetch::CertificatesAfter(before);
                return Some(Missing { wanted, or_else: None, voters: asked });
            }
            below = before;
        }
        None
    }
}

fn voters(certificate: &Certificate) -> Vec<MemberIndex> {
    certificate.votes.iter().map(|vote| vote.voter).collect()
}
