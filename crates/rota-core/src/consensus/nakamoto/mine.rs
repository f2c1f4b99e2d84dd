//! What is searched for (step 4): a block on the head, asked of the replica anew when the head has
//! changed, when more waits, and now and then so that its time is the present one.

use std::sync::Arc;
use std::time::Duration;

use super::Nakamoto;
use super::tree::State;
use crate::block::{Block, Turn};
use crate::consensus::{Action, Build, Naming};
use crate::time::Instant;
use crate::types::Slot;
use crate::work::{HeaderHash, SearchJob, WorkProof};

/// Blocks that were searched for before and may still be found: a proof can be on its way from the
/// searching threads while they are given another job.
const REMEMBERED: usize = 4;

/// With new transactions waiting the block is filled anew after a quarter of the spacing, between
/// these bounds: a search loses nothing by it, filling a block costs time.
const LEAST_REFILL: Duration = Duration::from_millis(250);

/// The longest time between two fillings.
const MOST_REFILL: Duration = Duration::from_secs(10);

/// What is being searched for.
#[derive(Debug, Default)]
pub(super) struct Miner {
    mines: bool,
    /// What was asked for was not answered yet.
    building: bool,
    /// The replica has not executed what a block must name; it is asked again when it has.
    waits: bool,
    /// More waits than when the block was filled, or something else.
    changed: bool,
    /// So many transactions wait.
    waiting: usize,
    /// The newest blocks that were searched for, newest last, with what they stand on.
    jobs: Vec<(HeaderHash, Arc<Block>)>,
    /// On what the newest stands, and when it was filled.
    newest: Option<(HeaderHash, Instant)>,
}

impl Miner {
    pub fn head_changed(&mut self) {
        self.waits = false;
    }

    pub fn load_is(&mut self, waiting: usize) {
        self.changed |= waiting > 0 && waiting >= self.waiting;
        self.waiting = waiting;
    }

    pub fn executed(&mut self) {
        self.waits = false;
    }

    pub fn wake(&self, spacing_s: u32) -> Option<Instant> {
        let (_, at) = self.newest.filter(|_| self.mines && !self.building && !self.waits)?;
        Some(at.plus(self.patience(spacing_s)))
    }

    fn patience(&self, spacing_s: u32) -> Duration {
        let spacing = Duration::from_secs(spacing_s.into());
        let wanted = if self.changed { spacing / 4 } else { spacing };
        wanted.clamp(LEAST_REFILL, MOST_REFILL)
    }
}

impl Nakamoto {
    pub(super) fn set_mining(&mut self, mines: bool) {
        if self.miner.mines && !mines {
            self.actions.push(Action::Search(None));
            self.miner = Miner::default();
        }
        self.miner.mines = mines;
    }

    /// Asks for a block to search for, if it is time.
    pub(super) fn mine(&mut self) {
        if !self.miner.mines || self.miner.building || self.miner.waits {
            return;
        }
        if self.tree.is_catching_up() {
            // An event ends that. A time at which nothing is done would wake us without end.
            self.miner.newest = None;
            return;
        }
        let head = self.head();
        let patience = self.miner.patience(self.rules.spacing_s);
        let is_fresh = self
            .miner
            .newest
            .is_some_and(|(on, at)| on == head && self.now.instant.since(at) < patience);
        if is_fresh {
            return;
        }
        let Some(parent) = self.body_of(head) else { return };
        let height = parent.header.height.next();
        self.miner.building = true;
        self.miner.changed = false;
        self.actions.push(Action::Build(Build {
            slot: Slot(height.0),
            time: self.block_time(head),
            turn: Turn::Found { miner: self.me },
            parent,
            parent_certificate: None,
            applied: Naming::Exactly(self.named_height(height)),
            may_be_empty: true,
            must_be_empty: false,
        }));
    }

    pub(super) fn on_built(&mut self, block: Option<Arc<Block>>) {
        self.miner.building = false;
        let Some(block) = block else {
            self.miner.waits = true;
            return;
        };
        let head = self.head();
        // The head may have changed meanwhile: then another block is asked for.
        if self.tree.block_id(head) != Some(block.header.parent) || !self.miner.mines {
            return;
        }
        let Some(bits) = self.tree.bits_after(head) else { return };
        let clock = u32::try_from(self.now.clock.0 / 1_000).unwrap_or(u32::MAX);
        let time = clock.max(self.tree.median_time(head).saturating_add(1));
        let id = block.id(self.chain);
        if self.miner.jobs.len() >= REMEMBERED {
            self.miner.jobs.remove(0);
        }
        self.miner.jobs.push((head, block));
        self.miner.newest = Some((head, self.now.instant));
        self.actions.push(Action::Search(Some(SearchJob::new(head, id, time, bits))));
    }

    /// The search has found something: N1 holds for it as for any other.
    pub(super) fn on_found(&mut self, proof: WorkProof) {
        let of = |(on, block): &&(HeaderHash, Arc<Block>)| {
            *on == proof.previous() && block.id(self.chain) == proof.block()
        };
        let Some((_, block)) = self.miner.jobs.iter().find(of).cloned() else { return };
        if !proof.meets_its_target() || !self.admit(proof, None) {
            return;
        }
        let hash = proof.hash();
        if self.tree.get(hash).is_none_or(|node| node.state != State::Proven) {
            return;
        }
        self.keep_body(hash, block);
        self.found_right(hash);
        self.miner.newest = None;
    }
}
