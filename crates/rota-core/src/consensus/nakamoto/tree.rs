//! All proofs that this server knows, as a tree: which of them are connected to the genesis by
//! right targets and times, how much work each branch has, and which branch is the chain.
//!
//! ```text
//!   genesis ── 1 ── … ── final ──┬── a ── b ── c   main: most work, all bodies here and right
//!                                └── d ── e ── f ── g   more work, bodies still to be fetched
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::block::Block;
use crate::error::Invalid;
use crate::genesis::{Genesis, Pow};
use crate::time::Time;
use crate::types::{BlockId, Height, NodeId};
use crate::work::{
    Difficulty, HeaderHash, MEDIAN_OF, Mark, Work, WorkProof, is_too_far_ahead, median_time_past,
    most_ahead_s,
};

/// With more proofs beside the main branch, and twice as many as there were when it was last
/// looked, light branches are forgotten. Each proof has cost the work that was due.
const MOST_ASIDE: usize = 100_000;

/// So many proofs of a branch are fetched ahead of its blocks, some 150 MB of them: as many as a
/// chain of a fortnight has at two seconds. The main branch's take the same room for good.
const MOST_AHEAD: u64 = 500_000;

/// Who is so many blocks behind does not search.
const LATE: u64 = 16;

/// Who sends a time further ahead than so many times what is allowed pays for it; less is how
/// clocks differ, and the proof is only not taken yet.
const FAR_AHEAD: u64 = 2;

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its proof.
    Proven,
    /// Its content is right, and that of all its ancestors.
    Right,
    /// Its content, or an ancestor's, is wrong.
    Wrong,
}

/// A proof, and what is known of its block.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub proof: WorkProof,
    pub height: Height,
    /// Of all blocks up to this one.
    pub work: Work,
    pub state: State,
    /// The block, once it is here and until it is final.
    pub body: Option<Arc<Block>>,
    /// Who told us first; nobody if we found it.
    pub source: Option<NodeId>,
    arrival: u64,
    /// An ancestor far below (`skip_height`), so that any is found in a few steps.
    skip: HeaderHash,
}

/// The height of the ancestor that a block of this height names beside its parent: with the last
/// one bit, or two, taken out (Bitcoin Core's `GetSkipHeight`), any other is so reached in about
/// `2 log height` steps.
fn skip_height(height: Height) -> Height {
    let without = |number: u64| number & number.wrapping_sub(1);
    match height.0 {
        0 | 1 => Height(0),
        odd if odd % 2 == 1 => Height(without(without(odd - 1)).saturating_add(1)),
        even => Height(without(even)),
    }
}

/// Why a proof was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its parent is not here.
    Orphan,
    /// Its time is ahead of our clock; later it may do.
    Early,
    /// It breaks a rule.
    Wrong(Invalid),
}

/// The tree. Genesis has a header of its own, without work, so that its children can name it.
pub(super) struct Tree {
    nodes: BTreeMap<HeaderHash, Node>,
    /// By height, from genesis on.
    main: Vec<HeaderHash>,
    /// The branch with the most work of which nothing is known to be wrong.
    heaviest: HeaderHash,
    /// Proofs beside the main branch, oldest first; some may have come to stand on it since.
    aside: VecDeque<HeaderHash>,
    /// With so many of those, light branches are forgotten.
    most_aside: usize,
    /// Those beside the main branch whose bodies are here.
    with_body: BTreeSet<HeaderHash>,
    arrivals: u64,
    difficulty: Difficulty,
    spacing_s: u32,
}

impl Tree {
    /// Genesis alone.
    pub fn new(genesis: &Genesis, pow: &Pow) -> Self {
        let time = u32::try_from(genesis.time_ms / 1_000).unwrap_or(u32::MAX);
        let id = Block::genesis(genesis).id(genesis.chain_id());
        let proof = WorkProof::new(HeaderHash::default(), id, time, pow.bits, 0);
        let difficulty = pow.difficulty(time).expect("the genesis was checked");
        let root = Node {
            proof,
            height: Height(0),
            work: Work::ZERO,
            state: State::Right,
            body: None,
            source: None,
            arrival: 0,
            skip: proof.hash(),
        };
        let hash = proof.hash();
        Self {
            nodes: BTreeMap::from([(hash, root)]),
            main: vec![hash],
            heaviest: hash,
            aside: VecDeque::new(),
            most_aside: MOST_ASIDE,
            with_body: BTreeSet::new(),
            arrivals: 0,
            difficulty,
            spacing_s: pow.spacing_s,
        }
    }

    /// What is known of a proof.
    pub fn get(&self, hash: HeaderHash) -> Option<&Node> {
        self.nodes.get(&hash)
    }

    /// The work of a branch up to this block; none of one that is not here.
    pub fn work(&self, hash: HeaderHash) -> Work {
        self.nodes.get(&hash).map_or(Work::ZERO, |node| node.work)
    }

    /// Whether its body is here.
    pub fn has_body(&self, hash: HeaderHash) -> bool {
        self.nodes.get(&hash).is_some_and(|node| node.body.is_some())
    }

    /// Its body is here.
    pub fn keep_body(&mut self, hash: HeaderHash, block: Arc<Block>) {
        let is_main = self.is_main(hash);
        let Some(node) = self.nodes.get_mut(&hash) else { return };
        if node.state != State::Wrong {
            node.body = Some(block);
            if !is_main {
                self.with_body.insert(hash);
            }
        }
    }

    /// Its content is right, and that of its ancestors.
    pub fn set_right(&mut self, hash: HeaderHash) {
        if let Some(node) = self.nodes.get_mut(&hash) {
            node.state = State::Right;
        }
    }

    /// The way to the heaviest block, heavier than the head, of which all bodies are here and that
    /// leaves the main branch at `lowest` or above.
    pub fn complete(&self, lowest: Height) -> Option<VecDeque<HeaderHash>> {
        let height = |hash: &HeaderHash| self.nodes.get(hash).map(|node| (node.height, *hash));
        let mut by_height: Vec<(Height, HeaderHash)> =
            self.with_body.iter().filter_map(height).collect();
        by_height.sort_unstable();
        // Blocks whose whole way from the main branch is here; parents come before children.
        let mut whole = BTreeSet::new();
        let mut best = None;
        for (_, hash) in by_height {
            let Some(node) = self.nodes.get(&hash) else { continue };
            let parent = node.proof.previous();
            let leaves_high = |parent: &Node| parent.height >= lowest;
            let stands = whole.contains(&parent)
                || (self.is_main(parent) && self.nodes.get(&parent).is_some_and(leaves_high));
            if stands {
                whole.insert(hash);
                best = best.max(Some((node.work, hash)));
            }
        }
        let (work, tip) = best?;
        (work > self.head().1.work).then(|| self.path_to(tip).1)
    }

    /// The newest block of the main branch.
    pub fn head(&self) -> (HeaderHash, &Node) {
        let hash = self.main[self.main.len() - 1];
        (hash, &self.nodes[&hash])
    }

    /// The main branch's block at a height.
    pub fn on_main(&self, height: Height) -> Option<(HeaderHash, &Node)> {
        let hash = *self.main.get(usize::try_from(height.0).ok()?)?;
        Some((hash, self.nodes.get(&hash)?))
    }

    /// Whether it stands on the main branch.
    pub fn is_main(&self, hash: HeaderHash) -> bool {
        let node = self.nodes.get(&hash);
        node.is_some_and(|node| self.on_main(node.height).is_some_and(|(at, _)| at == hash))
    }

    /// The branch with the most work that may be right.
    pub fn heaviest(&self) -> HeaderHash {
        self.heaviest
    }

    /// How many proofs stand beside the main branch.
    pub fn stale(&self) -> usize {
        self.nodes.len().saturating_sub(self.main.len())
    }

    /// The bits that are due in a child of this one.
    pub fn bits_after(&self, parent: HeaderHash) -> Option<u32> {
        let node = self.nodes.get(&parent)?;
        let mark = Mark { height: node.height, time: node.proof.time(), bits: node.proof.bits() };
        self.difficulty.next(mark, |height| {
            let ancestor = self.ancestor(parent, height)?;
            Some(self.nodes.get(&ancestor)?.proof.time())
        })
    }

    /// The median of the last times up to this one, in seconds: its child's must be later, and the
    /// child's block has it as its time.
    pub fn median_time(&self, hash: HeaderHash) -> u32 {
        let times = self.up_from(hash).map(|node| node.proof.time()).take(MEDIAN_OF);
        median_time_past(times).unwrap_or_default()
    }

    /// This one and its ancestors, down to genesis.
    fn up_from(&self, hash: HeaderHash) -> impl Iterator<Item = &Node> {
        std::iter::successors(self.nodes.get(&hash), |node| self.nodes.get(&node.proof.previous()))
    }

    /// The ancestor at a height, or the block itself.
    pub fn ancestor(&self, of: HeaderHash, height: Height) -> Option<HeaderHash> {
        let mut hash = of;
        loop {
            let node = self.nodes.get(&hash)?;
            if node.height <= height {
                return (node.height == height).then_some(hash);
            }
            if self.is_main(hash) {
                return self.on_main(height).map(|at| at.0);
            }
            let skips = skip_height(node.height) >= height;
            hash = if skips { node.skip } else { node.proof.previous() };
        }
    }

    /// Takes a proof whose hash is below its own target, if it says what is due after its parent.
    /// True if it is new.
    pub fn admit(
        &mut self,
        proof: WorkProof,
        clock: Time,
        source: Option<NodeId>,
    ) -> Result<bool, Refused> {
        let hash = proof.hash();
        if self.nodes.contains_key(&hash) {
            return Ok(false);
        }
        let wrong = |what| Err(Refused::Wrong(Invalid::Rule(what)));
        let parent = self.nodes.get(&proof.previous()).ok_or(Refused::Orphan)?;
        if parent.state == State::Wrong {
            return wrong("a proof that stands on a wrong block");
        }
        if self.bits_after(proof.previous()) != Some(proof.bits()) {
            return wrong("another target than is due");
        }
        if proof.time() <= self.median_time(proof.previous()) {
            return wrong("a time not after the median of the eleven before");
        }
        if is_too_far_ahead(proof.time(), clock, self.spacing_s) {
            if self.is_far_ahead(proof.time(), clock) {
                return wrong("a time far in the future");
            }
            return Err(Refused::Early);
        }
        let Some(work) = parent.work.checked_add(Work::of(proof.bits())) else {
            return wrong("more work than there is");
        };
        let height = parent.height.next();
        let skip = self.ancestor(proof.previous(), skip_height(height)).unwrap_or_default();
        self.arrivals += 1;
        let node = Node {
            proof,
            height,
            work,
            state: State::Proven,
            body: None,
            source,
            arrival: self.arrivals,
            skip,
        };
        if work > self.nodes[&self.heaviest].work {
            self.heaviest = hash;
        }
        self.nodes.insert(hash, node);
        self.aside.push_back(hash);
        self.forget_light();
        Ok(true)
    }

    /// Further ahead than clocks that differ explain.
    fn is_far_ahead(&self, time_s: u32, clock: Time) -> bool {
        let ahead = u64::from(most_ahead_s(self.spacing_s)).saturating_mul(FAR_AHEAD);
        u64::from(time_s) > (clock.0 / 1_000).saturating_add(ahead)
    }

    /// Proofs of final blocks, from our own log: they were checked when they came.
    pub fn load(&mut self, proofs: &[WorkProof]) {
        for &proof in proofs {
            let (head, node) = self.head();
            assert_eq!(proof.previous(), head, "the log's proofs are a chain");
            let work = node.work.checked_add(Work::of(proof.bits())).unwrap_or(node.work);
            let height = node.height.next();
            let (hash, state) = (proof.hash(), State::Right);
            let skip = self.on_main(skip_height(height)).map(|at| at.0).unwrap_or_default();
            let (body, source) = (None, None);
            let node = Node { proof, height, work, state, body, source, arrival: 0, skip };
            self.nodes.insert(hash, node);
            self.main.push(hash);
            self.heaviest = hash;
        }
    }

    /// Where there are too many proofs beside the main branch, only the ways to the heaviest one
    /// and to blocks that are here stay: whole branches, never the middle of one.
    fn forget_light(&mut self) {
        if self.aside.len() <= self.most_aside {
            return;
        }
        let mut wanted = BTreeSet::new();
        for tip in self.with_body.iter().copied().chain([self.heaviest]) {
            let mut hash = tip;
            while !self.is_main(hash) && wanted.insert(hash) {
                let Some(node) = self.nodes.get(&hash) else { break };
                hash = node.proof.previous();
            }
        }
        for hash in std::mem::take(&mut self.aside) {
            if self.is_main(hash) {
                continue;
            }
            if wanted.contains(&hash) {
                self.aside.push_back(hash);
            } else {
                self.nodes.remove(&hash);
            }
        }
        // The way to a long branch that is still to be fetched stays whole: each look is paid for
        // by as many proofs that came since.
        self.most_aside = self.aside.len().saturating_mul(2).max(MOST_ASIDE);
    }

    /// Whether there is a heavier branch that is so much longer that what we find now would stand
    /// beside it. Its proofs have cost work: nobody keeps others from searching for nothing.
    pub fn is_catching_up(&self) -> bool {
        let heaviest = self.nodes.get(&self.heaviest).map_or(0, |node| node.height.0);
        heaviest.saturating_sub(self.head().1.height.0) > LATE
    }

    /// Whether so many proofs of the heaviest branch wait for their blocks that no more are wanted
    /// before those have come.
    pub fn is_far_behind(&self) -> bool {
        let heaviest = self.nodes.get(&self.heaviest).map_or(0, |node| node.height.0);
        heaviest.saturating_sub(self.head().1.height.0) > MOST_AHEAD
    }

    /// The blocks after `from` up to `tip`, if that stands on it and the main branch does not begin
    /// in between.
    pub fn above(&self, from: HeaderHash, tip: HeaderHash) -> Option<VecDeque<HeaderHash>> {
        let mut path = VecDeque::new();
        let mut hash = tip;
        while hash != from {
            let node = self.nodes.get(&hash).filter(|_| !self.is_main(hash))?;
            path.push_front(hash);
            hash = node.proof.previous();
        }
        Some(path)
    }

    /// The blocks after the main branch up to this one, by rising height, and the height of the
    /// last common one.
    pub fn path_to(&self, tip: HeaderHash) -> (Height, VecDeque<HeaderHash>) {
        let mut path = VecDeque::new();
        let mut hash = tip;
        while !self.is_main(hash) {
            let node = self.nodes.get(&hash).expect("no proof stays without its ancestors");
            path.push_front(hash);
            hash = node.proof.previous();
        }
        (self.nodes[&hash].height, path)
    }

    /// Makes the branch that ends with `tip` the main one; gives back the blocks that stand on it
    /// no more, by rising height.
    pub fn adopt(&mut self, tip: HeaderHash) -> Vec<Arc<Block>> {
        let (fork, path) = self.path_to(tip);
        let keep = usize::try_from(fork.0).unwrap_or(usize::MAX).saturating_add(1);
        let left: Vec<HeaderHash> = self.main.drain(keep..).collect();
        for hash in &path {
            self.with_body.remove(hash);
        }
        self.main.extend(path);
        self.with_body.extend(left.iter().copied());
        left.iter().filter_map(|hash| self.nodes.get(hash)?.body.clone()).collect()
    }

    /// A block is wrong, and so is all that stands on it.
    pub fn condemn(&mut self, hash: HeaderHash) {
        let mut wrong = BTreeSet::from([hash]);
        // Parents come before their children there.
        for next in &self.aside {
            let Some(node) = self.nodes.get_mut(next) else { continue };
            if wrong.contains(next) || wrong.contains(&node.proof.previous()) {
                wrong.insert(*next);
                node.state = State::Wrong;
                node.body = None;
                self.with_body.remove(next);
            }
        }
        let possible = self.nodes.iter().filter(|(_, node)| node.state != State::Wrong);
        let heaviest =
            possible.max_by_key(|(_, node)| (node.work, std::cmp::Reverse(node.arrival)));
        if let Some((&hash, _)) = heaviest {
            self.heaviest = hash;
        }
    }

    /// Bodies up to this height are in the log now.
    /// Those of `kept` are wanted still, beside the main branch.
    pub fn drop_bodies(&mut self, from: Height, to: Height, kept: &[HeaderHash]) {
        let mut height = from;
        while height <= to {
            let hash = self.on_main(height).map(|(hash, _)| hash);
            if let Some(node) = hash.and_then(|hash| self.nodes.get_mut(&hash)) {
                node.body = None;
            }
            height = height.next();
        }
        let nodes = &mut self.nodes;
        self.with_body.retain(|hash| {
            let Some(node) = nodes.get_mut(hash) else { return false };
            let stays = node.height > to || kept.contains(hash);
            if !stays {
                node.body = None;
            }
            stays
        });
    }

    /// Hashes by which another server finds the newest block that it shares with us: the newest
    /// ten of this branch, then ever larger steps down to genesis.
    pub fn locator(&self, tip: HeaderHash) -> Vec<HeaderHash> {
        let mut hashes = Vec::new();
        let Some(top) = self.nodes.get(&tip).map(|node| node.height.0) else { return hashes };
        let (mut height, mut step) = (top, 1);
        let mut from = tip;
        loop {
            let Some(hash) = self.ancestor(from, Height(height)) else { return hashes };
            hashes.push(hash);
            from = hash;
            if height == 0 {
                return hashes;
            }
            if hashes.len() >= 10 {
                step *= 2;
            }
            height = height.saturating_sub(step);
        }
    }

    /// The proofs of the main branch after the first of these that stands on it, at most so many.
    pub fn after(&self, known: &[HeaderHash], most: usize) -> Vec<WorkProof> {
        let shared = known.iter().find(|&&hash| self.is_main(hash));
        let height = shared.and_then(|hash| self.nodes.get(hash)).map_or(0, |node| node.height.0);
        let first = usize::try_from(height).unwrap_or(usize::MAX).saturating_add(1);
        let hashes = self.main.iter().skip(first).take(most);
        hashes.filter_map(|hash| Some(self.nodes.get(hash)?.proof)).collect()
    }

    /// The id of a proof's block.
    pub fn block_id(&self, hash: HeaderHash) -> Option<BlockId> {
        self.nodes.get(&hash).map(|node| node.proof.block())
    }
}
