//! `pow`: whoever finds the hash has the turn, most work wins, and what is `k` blocks deep is final
//! (Nakamoto, *Bitcoin: A Peer-to-Peer Electronic Cash System*, 2008). Steps 4, 6 and 7.
//!
//! ```text
//!   proofs ──► tree: right target, right time ──► the heaviest branch ──► its bodies are fetched
//!     ──► each found right by the replica ──► more work than the head: it becomes the head
//!     ──► what is k deep under it is final ──► what is searched for next stands on it
//! ```
//!
//! The rules:
//! - N1 a proof counts if its hash is below its target, the target is the one that is due after
//!   its parent, and its time is later than the median of the last eleven and not far ahead.
//! - N2 a block is right if its time is that median (BIP 113), its slot its height, its `applied`
//!   that of the block `k + 1` below it, and its content what the replica finds right.
//! - N3 the head is the block with the most work below and in it of all whose branch is here and
//!   right; of two with the same, the one that was first.
//! - N4 a block with `k` blocks above it on the head's branch is final.
//! - N5 a branch with more work that leaves ours below a final block is followed too, once its
//!   first blocks are here: the server goes back to where it leaves and starts anew from there.
//!   The probability of this is what an acknowledgement states.
//! - N6 where blocks come at less than half the due pace, the statement is void, and nothing is
//!   acknowledged.
//!
//! Files: `tree` knows proofs and branches, `sync` talks to neighbours, `mine` asks for blocks to
//! search for, `pace` says how fast blocks come, `progress` how far a server is that catches up.
//! What is deliberately absent: members, votes, and any need to know who the others are.

mod mine;
mod pace;
mod progress;
mod sync;
mod tree;

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Action, Consensus, Event, Head, Reads, Standing, Validate, Verdict};
use crate::block::{Block, Finality, Kind, Turn};
use crate::crypto::SecretKey;
use crate::error::Invalid;
use crate::genesis::{Genesis, Parameters, Pow};
use crate::journal::{Record, Recovered};
use crate::message::{Fetch, Message, Mined};
use crate::time::{Instant, Now, Time};
use crate::types::{BlockId, ChainId, Epoch, Height, MemberIndex, NodeId, Slot};
use crate::work::{HeaderHash, WorkProof};

use mine::Miner;
use progress::Progress;
use sync::Neighbours;
use tree::{Refused, State, Tree};

/// A branch that leaves ours below a final block is followed when so many times `k` of its first
/// blocks are here, or all: going back for proofs without blocks would cost this server much and
/// their sender nothing.
const BODIES_TO_REWIND: u64 = 2;

/// However large `k` is, not more of its blocks are waited for: 256 MB of the largest.
const MOST_TO_REWIND: u64 = 64;

/// A server that follows the chain with the most work.
pub struct Nakamoto {
    chain: ChainId,
    rules: Pow,
    limits: Parameters,
    me: NodeId,
    now: Now,
    tree: Tree,
    /// The newest final block.
    last: Arc<Block>,
    /// The way from the main branch to the heaviest one, by rising height.
    plan: VecDeque<HeaderHash>,
    /// The height at which the plan leaves the main branch.
    fork: Height,
    /// The block that the replica is asked about.
    asked: Option<HeaderHash>,
    neighbours: Neighbours,
    miner: Miner,
    progress: Progress,
    reorganisations: u64,
    deepest: u64,
    /// What is below was deleted here: nothing of it can be undone.
    lowest: Height,
    /// A heavier branch that leaves ours below that, once it was told of.
    unreachable: Option<HeaderHash>,
    /// The server is about to start anew: nothing more is done.
    leaving: bool,
    actions: Vec<Action>,
}

impl Nakamoto {
    /// From its log, or from the genesis.
    pub fn new(genesis: &Genesis, key: SecretKey, recovered: Recovered, now: Now) -> Self {
        let rules = genesis.pow.clone().expect("a checked genesis says what pow needs");
        let mut tree = Tree::new(genesis, &rules);
        tree.load(&recovered.proofs);
        let last = match recovered.last {
            Some((block, _)) => block,
            None => Arc::new(Block::genesis(genesis)),
        };
        let mut this = Self {
            chain: genesis.chain_id(),
            limits: genesis.parameters.clone(),
            me: key.public(),
            now,
            last,
            plan: VecDeque::new(),
            fork: Height(0),
            asked: None,
            neighbours: Neighbours::new(now.instant, rules.spacing_s),
            miner: Miner::default(),
            progress: Progress::default(),
            reorganisations: 0,
            deepest: 0,
            lowest: recovered.goes_back_to,
            unreachable: None,
            leaving: false,
            actions: Vec::new(),
            tree,
            rules,
        };
        this.recover(recovered.tail);
        this
    }

    /// Blocks that were connected and found right before: nothing is decided anew.
    fn recover(&mut self, tail: Vec<Record>) {
        let mut best = self.tree.head().0;
        for record in tail {
            let Record::Connected { proof, block } = record else { continue };
            // A clock that went back does not make them wrong.
            let clock = Time(u64::MAX);
            if self.tree.admit(proof, clock, None).is_err() {
                continue;
            }
            let hash = proof.hash();
            let stands = self.tree.get(proof.previous()).map(|parent| parent.state);
            if stands == Some(State::Right) {
                self.tree.keep_body(hash, Arc::clone(&block));
                self.tree.set_right(hash);
                if self.tree.work(hash) > self.tree.work(best) {
                    best = hash;
                }
                self.actions.push(Action::Known(block));
            }
        }
        self.tree.adopt(best);
    }

    fn report(&mut self, line: impl Into<String>) {
        self.actions.push(Action::Report(line.into()));
    }

    fn punish(&mut self, peer: Option<NodeId>, why: Invalid) {
        if let Some(peer) = peer {
            self.actions.push(Action::Punish { peer, why });
        }
    }

    fn head(&self) -> HeaderHash {
        self.tree.head().0
    }

    fn final_height(&self) -> Height {
        self.last.header.height
    }

    // ---- what comes in ----

    fn on_message(&mut self, from: NodeId, message: Message) {
        self.neighbours.heard(from, self.now.instant);
        match message {
            Message::Proofs(proofs) => self.on_proofs(from, &proofs),
            Message::Mined(mined) => self.on_mined(from, mined),
            Message::Pending(block) => self.on_body(block),
            Message::Fetch(Fetch::ProofsAfter(known)) => self.send_proofs(from, &known),
            _ => {}
        }
    }

    /// N1. False if it is not here afterwards.
    fn admit(&mut self, proof: WorkProof, from: Option<NodeId>) -> bool {
        match self.tree.admit(proof, self.now.clock, from) {
            Ok(_) => true,
            Err(Refused::Orphan) => {
                if let Some(from) = from {
                    self.ask_for_proofs(from);
                }
                false
            }
            Err(Refused::Early) => false,
            Err(Refused::Wrong(why)) => {
                self.punish(from, why);
                false
            }
        }
    }

    fn on_mined(&mut self, from: NodeId, mined: Mined) {
        if self.admit(mined.proof, Some(from)) {
            self.keep_body(mined.proof.hash(), mined.block);
        }
    }

    /// Keeps a body for a proof that is here: it has cost work.
    fn keep_body(&mut self, hash: HeaderHash, block: Arc<Block>) {
        let is_new = self.tree.get(hash).is_some_and(|node| {
            node.state == State::Proven && node.body.is_none() && node.height > self.final_height()
        });
        if self.neighbours.came(hash) || is_new {
            self.tree.keep_body(hash, block);
        }
    }

    fn on_validated(&mut self, id: BlockId, verdict: Verdict) {
        let Some(hash) = self.asked else { return };
        if self.tree.block_id(hash) != Some(id) {
            return;
        }
        match verdict {
            Verdict::Later => {}
            Verdict::Valid => {
                self.asked = None;
                self.found_right(hash);
            }
            Verdict::Invalid(why) => {
                self.asked = None;
                self.found_wrong(hash, &why);
            }
        }
    }

    fn found_right(&mut self, hash: HeaderHash) {
        self.tree.set_right(hash);
        let Some(node) = self.tree.get(hash) else { return };
        let proof = node.proof;
        if let Some(block) = node.body.clone() {
            self.actions.push(Action::Note(Record::Connected { proof, block: Arc::clone(&block) }));
            self.actions.push(Action::Known(block));
        }
    }

    fn found_wrong(&mut self, hash: HeaderHash, why: &str) {
        let Some(node) = self.tree.get(hash) else { return };
        let (height, source) = (node.height, node.source);
        self.report(format!("block {hash} of height {height} is wrong: {why}"));
        self.punish(source, Invalid::Rule("a block that breaks a rule"));
        self.tree.condemn(hash);
    }

    // ---- the rules ----

    fn advance(&mut self) {
        if self.leaving {
            return;
        }
        while self.go_on() {}
        if self.leaving {
            return;
        }
        self.finalize();
        self.fetch_bodies();
        self.mine();
        self.tell_progress();
    }

    /// One step towards the heaviest branch, or while its blocks are not here, towards the heaviest
    /// whose blocks are; false if nothing can be done now.
    fn go_on(&mut self) -> bool {
        let heaviest = self.tree.heaviest();
        if self.plan.back() != Some(&heaviest) {
            let more = self.plan.back().and_then(|&back| self.tree.above(back, heaviest));
            match more {
                Some(more) => self.plan.extend(more),
                None => (self.fork, self.plan) = self.tree.path_to(heaviest),
            }
        }
        if self.is_deep() {
            self.go_back();
        } else {
            match self.follow(&self.plan) {
                Follow::Adopt(tip) => return self.adopt(tip),
                Follow::Ask(next) => return self.ask_about(next),
                Follow::Wait => return false,
                Follow::Missing => {}
            }
        }
        if self.leaving {
            return false;
        }
        let Some(complete) = self.tree.complete(self.final_height()) else { return false };
        match self.follow(&complete) {
            Follow::Adopt(tip) => self.adopt(tip),
            Follow::Ask(next) => self.ask_about(next),
            Follow::Wait | Follow::Missing => false,
        }
    }

    /// Whether the heaviest branch leaves ours below a final block.
    fn is_deep(&self) -> bool {
        self.fork < self.final_height() && !self.plan.is_empty()
    }

    /// N3: a right part of the way that is heavier than the head is the better head; else what the
    /// next block on the way needs.
    fn follow(&self, path: &VecDeque<HeaderHash>) -> Follow {
        let state = |hash: &HeaderHash| self.tree.get(*hash).map(|node| node.state);
        let right = path.iter().take_while(|hash| state(hash) == Some(State::Right)).count();
        let tip = right.checked_sub(1).and_then(|last| path.get(last));
        if let Some(&tip) = tip.filter(|tip| self.tree.work(**tip) > self.tree.head().1.work) {
            return Follow::Adopt(tip);
        }
        match path.get(right) {
            None => Follow::Wait,
            Some(next) if self.asked == Some(*next) => Follow::Wait,
            Some(next) if self.tree.has_body(*next) => Follow::Ask(*next),
            Some(_) => Follow::Missing,
        }
    }

    /// N2, but for what only the replica knows.
    fn ask_about(&mut self, hash: HeaderHash) -> bool {
        let Some(node) = self.tree.get(hash) else { return false };
        let Some(block) = node.body.clone() else { return false };
        let previous = node.proof.previous();
        let time = self.block_time(previous);
        let Some(parent) = self.body_of(previous) else { return false };
        if let Err(why) = self.check_form(&block, parent.id(self.chain), node.height, time) {
            self.found_wrong(hash, why);
            return true;
        }
        let applied = Some(self.named_height(node.height));
        self.asked = Some(hash);
        let (earliest_time, latest_time) = (time, time);
        let wanted = Validate { block, parent, earliest_time, latest_time, applied };
        self.actions.push(Action::Validate(wanted));
        false
    }

    fn check_form(
        &self,
        block: &Block,
        parent: BlockId,
        height: Height,
        time: Time,
    ) -> Result<(), &'static str> {
        let header = &block.header;
        let form = header.epoch == Epoch(0)
            && header.slot.0 == height.0
            && header.height == height
            && header.kind == Kind::Ordinary
            && header.leader == MemberIndex(0)
            && matches!(header.turn, Turn::Found { .. })
            && block.body.parent_certificate.is_none();
        if !form {
            return Err("its header is not one of pow's");
        }
        if header.parent != parent {
            return Err("its parent is not the block that its proof stands on");
        }
        if header.time != time {
            return Err("its time is not the median of the last eleven");
        }
        Ok(())
    }

    /// BIP 113: the time of the block that stands on this one.
    fn block_time(&self, parent: HeaderHash) -> Time {
        Time(u64::from(self.tree.median_time(parent)).saturating_mul(1_000))
    }

    /// The height that a block of this height names in `applied`: what is final where it is built.
    fn named_height(&self, height: Height) -> Height {
        Height(height.0.saturating_sub(u64::from(self.rules.depth)).saturating_sub(1))
    }

    /// A block beyond the final ones, or the last final one.
    fn body_of(&self, hash: HeaderHash) -> Option<Arc<Block>> {
        let node = self.tree.get(hash)?;
        let is_last = self.tree.on_main(self.final_height()).is_some_and(|(at, _)| at == hash);
        if is_last { Some(Arc::clone(&self.last)) } else { node.body.clone() }
    }

    /// N3. True: there may be more to do.
    fn adopt(&mut self, tip: HeaderHash) -> bool {
        let before = self.tree.head().1.height;
        let source = self.tree.get(tip).and_then(|node| node.source);
        let (fork, path) = self.tree.path_to(tip);
        let left = self.tree.adopt(tip);
        if path.len().checked_sub(1).and_then(|last| self.plan.get(last)) == Some(&tip) {
            self.plan.drain(..path.len());
            self.fork = self.tree.head().1.height;
        } else {
            (self.fork, self.plan) = self.tree.path_to(self.tree.heaviest());
        }
        if fork < before {
            let depth = before.0.saturating_sub(fork.0);
            self.reorganisations += 1;
            self.deepest = self.deepest.max(depth);
            self.report(format!(
                "reorganisation: {depth} blocks above height {fork} are abandoned for {} others",
                path.len()
            ));
            self.actions.push(Action::Abandon(left));
        }
        self.announce(tip, source);
        self.miner.head_changed();
        true
    }

    /// N4.
    fn finalize(&mut self) {
        let top = self.tree.head().1.height.0.saturating_sub(u64::from(self.rules.depth));
        let first = self.final_height().next();
        let (mut blocks, mut proofs) = (Vec::new(), Vec::new());
        let mut height = first;
        while height.0 <= top {
            let Some((_, node)) = self.tree.on_main(height) else { break };
            let Some(block) = node.body.clone() else { break };
            blocks.push(block);
            proofs.push(node.proof);
            height = height.next();
        }
        let Some(last) = blocks.last().cloned() else { return };
        let kept = if self.is_deep() { self.window() } else { 0 };
        let kept: Vec<HeaderHash> = self.plan.iter().take(kept).copied().collect();
        self.tree.drop_bodies(first, last.header.height, &kept);
        self.last = last;
        let finality = Finality::Work(proofs);
        let record = Record::Finalized { blocks: blocks.clone(), finality: finality.clone() };
        self.actions.push(Action::Persist(record));
        self.actions.push(Action::Finalize { blocks, finality });
    }

    /// What can be said of the first blocks of a branch without the state that they stand on:
    /// nothing of ours is given up for blocks that are wrong on their face.
    fn check_way_back(&self, first: usize) -> Result<(), (HeaderHash, &'static str)> {
        for &hash in self.plan.iter().take(first) {
            let Some(node) = self.tree.get(hash) else { continue };
            let Some(block) = &node.body else { continue };
            let previous = node.proof.previous();
            let parent = self.tree.block_id(previous).unwrap_or_default();
            self.check_form(block, parent, node.height, self.block_time(previous))
                .and_then(|()| block.check_transactions(&self.limits))
                .map_err(|why| (hash, why))?;
            if block.header.applied.height != self.named_height(node.height) {
                return Err((hash, "its applied height is not the one that is final below it"));
            }
        }
        Ok(())
    }

    /// So many of a branch's first blocks have to be here.
    fn bodies_to_rewind(&self) -> usize {
        let wanted = BODIES_TO_REWIND.saturating_mul(u64::from(self.rules.depth));
        usize::try_from(wanted.min(MOST_TO_REWIND)).unwrap_or(usize::MAX)
    }

    /// N5 asks for more than this server has kept: it stays where it is, and acknowledges nothing
    /// (N6).
    fn tell_unreachable(&mut self) {
        let first = self.plan.front().copied();
        if first != self.unreachable {
            self.unreachable = first;
            self.report(format!(
                "a branch with more work leaves ours after height {}, but blocks and snapshots up \
                 to height {} are deleted here: this server cannot follow; start one from an empty \
                 home",
                self.fork, self.lowest
            ));
        }
    }

    /// N5: the heaviest branch leaves ours below a final block.
    fn go_back(&mut self) {
        if self.fork < self.lowest {
            self.tell_unreachable();
            return;
        }
        let wanted = self.bodies_to_rewind();
        if !self.plan.iter().take(wanted).all(|&hash| self.tree.has_body(hash)) {
            return;
        }
        if let Err(wrong) = self.check_way_back(wanted) {
            self.found_wrong(wrong.0, wrong.1);
            return;
        }
        let (height, depth) = (self.fork, self.final_height().0.saturating_sub(self.fork.0));
        self.report(format!(
            "DEEP REORGANISATION: a branch of {} blocks with more work leaves ours after height \
             {height}; {depth} blocks that were final are undone",
            self.plan.len()
        ));
        self.leaving = true;
        self.actions.push(Action::Rewind { height });
    }
}

/// What is to be done on the way to a better head.
enum Follow {
    /// Take this one as head.
    Adopt(HeaderHash),
    /// Find out whether this block is right.
    Ask(HeaderHash),
    /// Nothing, or not before the replica has answered.
    Wait,
    /// Wait for a body.
    Missing,
}

impl Consensus for Nakamoto {
    fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        if self.leaving {
            return Vec::new();
        }
        match event {
            Event::Message { from, message } => self.on_message(from, message),
            Event::Connected(peer) => self.greet(peer),
            Event::Disconnected(peer) => self.neighbours.lost(peer),
            Event::Validated { block, verdict } => self.on_validated(block, verdict),
            Event::Built { block, .. } => self.on_built(block),
            Event::Found(proof) => self.on_found(proof),
            Event::Mine(mines) => self.set_mining(mines),
            Event::Load(load) => self.miner.load_is(load.waiting),
            Event::Applied(_) => self.miner.executed(),
            Event::Start | Event::Timer | Event::Read { .. } | Event::Yield => {}
        }
        self.advance();
        std::mem::take(&mut self.actions)
    }

    fn wake(&self) -> Option<Instant> {
        self.neighbours.wake().into_iter().chain(self.miner.wake(self.rules.spacing_s)).min()
    }

    fn slot(&self) -> Slot {
        Slot(self.tree.head().1.height.0).next()
    }

    fn leader(&self, _slots_ahead: u64) -> Option<NodeId> {
        None
    }

    fn next_turn(&self) -> u64 {
        0
    }

    fn finalizing(&self) -> Slot {
        self.last.header.slot
    }

    fn head(&self) -> Head {
        let (hash, node) = self.tree.head();
        let newest =
            (node.height > self.final_height()).then(|| self.tree.block_id(hash)).flatten();
        Head { newest, notarized: newest }
    }

    /// Anybody may write at any time: the date is this machine's own.
    fn is_live(&self) -> bool {
        true
    }

    fn reads(&self) -> Reads {
        Reads::Refused(
            "under pow nobody can say that this is the newest state: read with rota.read = local \
             or latest",
        )
    }

    fn date(&self, now: Now) -> Option<Time> {
        Some(now.clock)
    }

    fn standing(&self, now: Now) -> Standing {
        Standing::Mining(self.with_progress(self.mining(now)))
    }
}

#[cfg(test)]
mod tests;
