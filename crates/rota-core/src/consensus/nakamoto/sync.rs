//! What servers tell each other under `pow`: proofs first, then the blocks of the heaviest branch,
//! each from one neighbour at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Nakamoto;
use super::tree::State;
use crate::block::Block;
use crate::consensus::Action;
use crate::message::{Fetch, MAX_PROOFS, Message, Mined, Recipient};
use crate::time::Instant;
use crate::types::NodeId;
use crate::work::{HeaderHash, WorkProof};

/// So many blocks are asked for ahead of the one that is checked: a round trip's worth, and no
/// more than 64 MB of the largest.
const WINDOW: usize = 16;

/// A block that does not come is asked of another neighbour after this time, then after twice as
/// long, so many times doubled.
const BODY_PATIENCE: Duration = Duration::from_millis(1_000);
const MOST_DOUBLINGS: u32 = 4;

/// With no more blocks to fetch than this none is waited for longer than a spacing: while it is
/// missing, our own branch grows, and becomes final.
const NEAR: usize = WINDOW;

/// A neighbour is asked for a block at most this often, beside a burst: somewhat less than anybody
/// is answered (`replica`), since what is asked too often is not.
const BODY_EVERY: Duration = Duration::from_micros(1_250);
const BODY_BURST: u32 = 32;

/// With all neighbours asked as often as that, they are asked again after this.
const BODY_PAUSE: Duration = Duration::from_millis(5);

/// Who has left so many questions for blocks unanswered, one after the other, is asked last.
const UNANSWERED: u32 = 3;

/// A neighbour is asked for its proofs at most this often, unless it has just answered.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// One neighbour after the other is asked whether it knows more, since messages get lost: once in
/// so many spacings, and not more often than [`LEAST_REMINDER`].
const REMINDER_SPACINGS: u32 = 2;
const LEAST_REMINDER: Duration = Duration::from_secs(2);

/// Who knows that it lacks something asks this often at least, however far blocks are apart.
const REMINDER_BEHIND: Duration = Duration::from_secs(10);

/// A new head is told to all neighbours if it is not older than so many spacings: who catches up
/// has nothing to tell.
const NEWS_SPACINGS: u64 = 20;

/// More neighbours are not remembered: twice as many as the transport has. Beyond, who was not
/// heard of for the longest is forgotten: a word that was still on its way can name one that has
/// gone.
const MOST_NEIGHBOURS: usize = 64;

/// A block that was asked for.
#[derive(Debug)]
struct Asked {
    of: NodeId,
    tries: u32,
    next: Instant,
}

/// A server that we are connected to.
#[derive(Debug)]
struct Neighbour {
    /// When it may be asked for proofs again.
    next: Instant,
    heard: Instant,
    /// Questions for blocks are paid for up to this moment, which may be a burst ahead.
    paid_until: Instant,
    unanswered: u32,
}

impl Neighbour {
    fn new(now: Instant) -> Self {
        Self { next: Instant(0), heard: now, paid_until: now, unanswered: 0 }
    }

    /// Whether it answers one more question for a block now.
    fn is_free(&self, now: Instant) -> bool {
        self.paid_until.since(now) < BODY_EVERY.saturating_mul(BODY_BURST)
    }
}

/// The servers that we are connected to, and what we want of them.
#[derive(Debug)]
pub(super) struct Neighbours {
    known: BTreeMap<NodeId, Neighbour>,
    bodies: BTreeMap<HeaderHash, Asked>,
    remind_at: Instant,
    remind_every: Duration,
    turn: usize,
}

impl Neighbours {
    pub fn new(now: Instant, spacing_s: u32) -> Self {
        let spacing = Duration::from_secs(spacing_s.into());
        let remind_every = spacing.saturating_mul(REMINDER_SPACINGS).max(LEAST_REMINDER);
        Self {
            known: BTreeMap::new(),
            bodies: BTreeMap::new(),
            remind_at: now.plus(remind_every),
            remind_every,
            turn: 0,
        }
    }

    /// A neighbour says something.
    pub fn heard(&mut self, peer: NodeId, now: Instant) {
        self.known.entry(peer).or_insert_with(|| Neighbour::new(now)).heard = now;
        if self.known.len() > MOST_NEIGHBOURS
            && let Some(first) =
                self.known.iter().min_by_key(|(_, one)| one.heard).map(|(peer, _)| *peer)
        {
            self.known.remove(&first);
        }
    }

    /// It is gone: nothing is asked of it any more.
    pub fn lost(&mut self, peer: NodeId) {
        self.known.remove(&peer);
    }

    /// A block is here; true if it was asked for.
    pub fn came(&mut self, hash: HeaderHash) -> bool {
        let Some(asked) = self.bodies.remove(&hash) else { return false };
        if let Some(neighbour) = self.known.get_mut(&asked.of) {
            neighbour.unanswered = 0;
        }
        true
    }

    pub fn wake(&self) -> Option<Instant> {
        let reminder = (!self.known.is_empty()).then_some(self.remind_at);
        self.bodies.values().map(|asked| asked.next).chain(reminder).min()
    }

    /// Another neighbour each time; the first choice at the first.
    fn choose(&mut self, first: Option<NodeId>, tries: u32) -> Option<NodeId> {
        if tries == 0
            && let Some(first) = first.filter(|first| self.known.contains_key(first))
        {
            return Some(first);
        }
        self.turn = self.turn.wrapping_add(1);
        let count = self.known.len().max(1);
        self.known.keys().nth(self.turn % count).copied()
    }

    /// Whom to ask for a block: whoever told us of it first, unless it does not answer or has been
    /// asked as often as it is to be; then the others in turn.
    fn choose_for_body(
        &mut self,
        source: Option<NodeId>,
        asked: &Asked,
        now: Instant,
    ) -> Option<NodeId> {
        if asked.tries > 0
            && let Some(neighbour) = self.known.get_mut(&asked.of)
        {
            neighbour.unanswered = neighbour.unanswered.saturating_add(1);
        }
        let answers = |neighbour: &Neighbour| neighbour.unanswered < UNANSWERED;
        let first = source.filter(|_| asked.tries == 0);
        let first = first.filter(|first| {
            self.known.get(first).is_some_and(|one| answers(one) && one.is_free(now))
        });
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % self.known.len().max(1);
        let in_turn = || self.known.iter().cycle().skip(turn).take(self.known.len());
        let free = |(_, one): &(&NodeId, &Neighbour)| one.is_free(now);
        let next = in_turn().filter(free).find(|(_, one)| answers(one));
        let peer =
            first.or_else(|| next.or_else(|| in_turn().find(free)).map(|(peer, _)| *peer))?;
        let neighbour = self.known.get_mut(&peer)?;
        neighbour.paid_until = neighbour.paid_until.max(now).plus(BODY_EVERY);
        Some(peer)
    }
}

impl Nakamoto {
    /// A neighbour is there (again): what does it know?
    pub(super) fn greet(&mut self, peer: NodeId) {
        self.neighbours.heard(peer, self.now.instant);
        self.ask_for_proofs(peer);
    }

    /// Asks for the proofs that follow our heaviest branch.
    pub(super) fn ask_for_proofs(&mut self, peer: NodeId) {
        let now = self.now.instant;
        let Some(neighbour) = self.neighbours.known.get_mut(&peer) else { return };
        if now < neighbour.next {
            return;
        }
        neighbour.next = now.plus(ASK_PAUSE);
        self.ask_after(peer, self.tree.heaviest());
    }

    fn ask_after(&mut self, peer: NodeId, tip: HeaderHash) {
        let known = self.tree.locator(tip);
        self.send(Recipient::One(peer), Message::Fetch(Fetch::ProofsAfter(known)));
    }

    fn send(&mut self, to: Recipient, message: Message) {
        self.actions.push(Action::Send { to, message });
    }

    pub(super) fn send_proofs(&mut self, peer: NodeId, known: &[HeaderHash]) {
        let proofs = self.tree.after(known, MAX_PROOFS);
        if !proofs.is_empty() {
            self.send(Recipient::One(peer), Message::Proofs(proofs));
        }
    }

    pub(super) fn on_proofs(&mut self, from: NodeId, proofs: &[WorkProof]) {
        let Some(last) = proofs.last().map(WorkProof::hash) else { return };
        let is_new = self.tree.get(last).is_none();
        for &proof in proofs {
            if !self.admit(proof, Some(from)) {
                return;
            }
        }
        if proofs.len() < MAX_PROOFS {
            self.progress.no_more_headers();
        }
        // A full answer has a next one, unless it told nothing new: of a branch that may not be
        // the heaviest before its end is known.
        if proofs.len() >= MAX_PROOFS && is_new && !self.tree.is_far_behind() {
            self.ask_after(from, last);
        }
    }

    /// A block that was asked for, as a rule.
    pub(super) fn on_body(&mut self, block: Arc<Block>) {
        let id = block.id(self.chain);
        let wanted = |hash: &&HeaderHash| self.tree.block_id(**hash) == Some(id);
        let hashes: Vec<HeaderHash> =
            self.neighbours.bodies.keys().filter(wanted).copied().collect();
        for hash in hashes {
            self.keep_body(hash, Arc::clone(&block));
        }
    }

    /// Asks for the next blocks of the heaviest branch, and reminds neighbours.
    pub(super) fn fetch_bodies(&mut self) {
        self.remind();
        let missing = |hash: &&HeaderHash| !self.tree.has_body(**hash);
        let is_right = |hash: &&HeaderHash| {
            self.tree.get(**hash).is_some_and(|node| node.state == State::Right)
        };
        let unchecked = self.plan.iter().skip_while(is_right).take(self.window());
        let wanted: Vec<HeaderHash> = unchecked.filter(missing).copied().collect();
        self.neighbours.bodies.retain(|hash, _| wanted.contains(hash));
        let now = self.now.instant;
        let spacing = Duration::from_secs(self.rules.spacing_s.into());
        let is_near = self.plan.len() <= NEAR;
        let most_patience = if is_near { spacing.max(BODY_PATIENCE) } else { Duration::MAX };
        for hash in wanted {
            let before = match self.neighbours.bodies.remove(&hash) {
                Some(asked) if now < asked.next => {
                    self.neighbours.bodies.insert(hash, asked);
                    continue;
                }
                Some(asked) => asked,
                None => Asked { of: NodeId::default(), tries: 0, next: now },
            };
            let (source, block) = match self.tree.get(hash) {
                Some(node) => (node.source, node.proof.block()),
                None => continue,
            };
            let Some(peer) = self.neighbours.choose_for_body(source, &before, now) else {
                let is_alone = self.neighbours.known.is_empty();
                let pause = if is_alone { BODY_PATIENCE } else { BODY_PAUSE };
                let asked = Asked { tries: 0, next: now.plus(pause), ..before };
                self.neighbours.bodies.insert(hash, asked);
                continue;
            };
            let patience = BODY_PATIENCE.saturating_mul(1 << before.tries.min(MOST_DOUBLINGS));
            let patience = patience.min(most_patience);
            let (of, tries) = (peer, before.tries.saturating_add(1));
            self.neighbours.bodies.insert(hash, Asked { of, tries, next: now.plus(patience) });
            self.send(Recipient::One(peer), Message::Fetch(Fetch::Block(block)));
        }
    }

    /// How far ahead blocks are fetched: enough to go back for (N5) in any case.
    pub(super) fn window(&self) -> usize {
        if self.is_deep() { self.bodies_to_rewind() } else { WINDOW }
    }

    fn remind(&mut self) {
        let now = self.now.instant;
        if self.tree.heaviest() != self.head() {
            let soon = now.plus(REMINDER_BEHIND);
            self.neighbours.remind_at = self.neighbours.remind_at.min(soon);
        }
        if now < self.neighbours.remind_at {
            return;
        }
        self.neighbours.remind_at = now.plus(self.neighbours.remind_every);
        if self.tree.is_far_behind() {
            return;
        }
        if let Some(peer) = self.neighbours.choose(None, 1) {
            self.ask_for_proofs(peer);
        }
    }

    /// Tells all neighbours but the one we have it from of a new head.
    pub(super) fn announce(&mut self, tip: super::HeaderHash, source: Option<NodeId>) {
        let Some(node) = self.tree.get(tip) else { return };
        let age = (self.now.clock.0 / 1_000).saturating_sub(u64::from(node.proof.time()));
        let Some(block) = node.body.clone() else { return };
        if age > NEWS_SPACINGS.saturating_mul(u64::from(self.rules.spacing_s)) {
            return;
        }
        let to = source.map_or(Recipient::Members, Recipient::MembersBut);
        let message = Message::Mined(Mined { proof: node.proof, block });
        self.send(to, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PublicKey;

    fn peer(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PublicKey(bytes)
    }

    #[test]
    fn nobody_is_asked_who_has_gone() {
        let mut neighbours = Neighbours::new(Instant(0), 2);
        for number in 0..3 {
            neighbours.heard(peer(number), Instant(1));
        }
        neighbours.lost(peer(1));
        for _ in 0..10 {
            assert_ne!(neighbours.choose(Some(peer(1)), 0), Some(peer(1)));
        }
        neighbours.lost(peer(0));
        neighbours.lost(peer(2));
        assert_eq!(neighbours.choose(None, 1), None);
    }

    #[test]
    fn whoever_comes_and_goes_does_not_push_out_who_stays() {
        let mut neighbours = Neighbours::new(Instant(0), 2);
        for number in 1..10_000 {
            let now = Instant(u64::try_from(number).unwrap());
            neighbours.heard(peer(0), now);
            neighbours.heard(peer(number), now);
        }
        assert_eq!(neighbours.known.len(), MOST_NEIGHBOURS);
        assert!(neighbours.known.contains_key(&peer(0)));
    }
}
