//! What a leader does with its turn (step 4): when it asks for a block, when it proposes an empty
//! one, and how it hands over before it stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use raft::{ProgressState, SnapshotStatus, StateRole};

use super::Raft;
use super::ticks::TICK;
use crate::block::{Block, Turn};
use crate::consensus::{Action, Build, Naming};
use crate::time::{Instant, Time};
use crate::types::Slot;

/// How long after the last block an empty one follows, so that the state root of the last full one
/// becomes final.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// At most so many blocks are on their way to the members' disks at once (`gather`: when a second
/// one is). With more, each would hold what came within a fraction of an fsync, and an fsync costs
/// the same for one write as for a hundred.
const MAX_IN_FLIGHT: usize = 2;

/// Who has handed over does not stand for election for so many time-outs: by then another leads, or
/// nobody else can, and a healthy majority must not wait for it.
const ASIDE_TIMEOUTS: u32 = 2;

/// So many members are asked to take over, one after the other, before the leader goes on itself:
/// the first may have died since it was last heard, which takes a time-out to be seen.
const HEIRS: usize = 2;

/// A member that was told to fetch final blocks is told again after this, should the word be lost.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);

/// What the timing of blocks rests on.
#[derive(Debug)]
pub(super) struct Pace {
    idle: Duration,
    /// When the last block became final.
    quiet_since: Instant,
    /// A block was asked for, and is not here yet.
    is_asked: bool,
    /// The replica had nothing to fill a block with when it was last asked.
    nothing_to_propose: bool,
    /// Somebody came (back): a block brings its idea of the date up to date.
    newcomer: bool,
    aside_until: Option<Instant>,
    /// Who was asked to take over, since this server was told to hand over.
    heirs: BTreeSet<u64>,
}

impl Pace {
    pub fn new(idle: Duration, now: Instant) -> Self {
        Self {
            idle,
            quiet_since: now,
            is_asked: false,
            nothing_to_propose: false,
            newcomer: false,
            aside_until: None,
            heirs: BTreeSet::new(),
        }
    }

    pub fn finalized(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    pub fn newcomer(&mut self) {
        self.newcomer = true;
    }

    /// There may be something to propose again.
    pub fn look_again(&mut self) {
        self.nothing_to_propose = false;
    }

    /// Another term: what was asked for before is of no use.
    pub fn begin_anew(&mut self, now: Instant) {
        self.is_asked = false;
        self.nothing_to_propose = false;
        self.quiet_since = now;
    }
}

impl Raft {
    pub(super) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The newest block in our log, final or not.
    fn newest_block(&self) -> &Arc<Block> {
        let newest = self.node.store().newest_block(u64::MAX);
        newest.map_or(&self.last.block, |(_, block)| block)
    }

    /// Blocks that are on their way to the members' disks.
    fn in_flight(&self) -> impl Iterator<Item = &Block> {
        self.node.store().blocks_after(self.node.raft.raft_log.committed)
    }

    fn is_free(&self) -> bool {
        self.in_flight().next().is_none()
    }

    /// When a block is due for what waits and stands in none, if anything does.
    fn block_due(&self) -> Option<Instant> {
        let (mut blocks, mut written) = (0, 0);
        for block in self.in_flight() {
            blocks += 1;
            written += block.transaction_count();
        }
        let left = self.load.waiting.saturating_sub(written);
        let is_wanted = left > 0 && blocks < MAX_IN_FLIGHT && !self.pace.nothing_to_propose;
        is_wanted.then(|| self.gather.due(left, blocks > 0))
    }

    /// The same if that is still to come.
    pub(super) fn next_block(&self) -> Option<Instant> {
        let waits = self.is_leader() && !self.is_handing_over();
        waits.then(|| self.block_due())?.filter(|&due| due > self.now.instant)
    }

    fn quiet_due(&self) -> Instant {
        let after = if self.load.unconfirmed { CONFIRM_AFTER } else { self.pace.idle };
        self.pace.quiet_since.plus(after)
    }

    /// When an empty block is due, if nothing comes before.
    pub(super) fn next_empty_block(&self) -> Option<Instant> {
        let waits = self.is_leader() && self.is_free() && !self.is_handing_over();
        waits.then(|| self.quiet_due()).filter(|&due| due > self.now.instant)
    }

    /// Asks for a block if one is due: for what waits, or an empty one.
    pub(super) fn propose(&mut self) {
        if !self.is_leader() || self.pace.is_asked || self.is_handing_over() {
            return;
        }
        let quiet = !self.live || self.pace.newcomer || self.now.instant >= self.quiet_due();
        let may_be_empty = self.is_free() && quiet;
        let is_due = self.block_due().is_some_and(|due| self.now.instant >= due);
        if !(may_be_empty || is_due) {
            return;
        }
        let parent = Arc::clone(self.newest_block());
        self.pace.is_asked = true;
        self.actions.push(Action::Build(Build {
            slot: Slot(self.node.raft.raft_log.last_index() + 1),
            turn: Turn::Elected { term: self.node.raft.term },
            time: after(&parent).max(self.now.clock),
            parent,
            parent_certificate: None,
            applied: Naming::Reached(self.roots.reached(self.members.len())),
            may_be_empty,
            must_be_empty: false,
        }));
    }

    /// Puts the block that was asked for into the log, unless things have changed since.
    pub(super) fn on_built(&mut self, block: Option<Arc<Block>>) {
        self.pace.is_asked = false;
        let Some(block) = block else {
            self.pace.nothing_to_propose = true;
            return;
        };
        let (header, raft) = (&block.header, &self.node.raft);
        let fits = header.slot == Slot(raft.raft_log.last_index() + 1)
            && header.turn == (Turn::Elected { term: raft.term })
            && header.parent == self.newest_block().id(self.chain);
        if !self.is_leader() || !fits {
            return;
        }
        self.pace.newcomer = false;
        let id = block.id(self.chain);
        self.gather.filled(self.now.instant);
        self.fresh.insert(id, block);
        // While the leadership is being handed over the crate takes no entries: what is in the
        // block still waits, and the next leader is told of it.
        let _dropped = self.node.propose(Vec::new(), id.0.to_vec());
    }

    fn is_handing_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some() || self.pace.aside_until.is_some()
    }

    /// Before this server stops: the member that has most of the log takes over at once, without
    /// the others waiting for a time-out (Ongaro 2014, section 3.10).
    pub(super) fn hand_over(&mut self) {
        self.pace.heirs.clear();
        self.hand_over_to_next();
    }

    fn hand_over_to_next(&mut self) {
        if self.members.len() == 1 {
            return;
        }
        let timeout = u32::try_from(self.node.raft.election_timeout()).unwrap_or(u32::MAX);
        let aside = TICK.saturating_mul(timeout).saturating_mul(ASIDE_TIMEOUTS);
        self.pace.aside_until = Some(self.now.instant.plus(aside));
        if !self.is_leader() {
            return;
        }
        let heirs = &self.pace.heirs;
        let others = self.node.raft.prs().iter();
        let others = others.filter(|(id, _)| **id != self.id && !heirs.contains(id));
        // Who was heard lately is known since the last count of the majority only.
        let best = others.max_by_key(|&(id, progress)| {
            (progress.matched, progress.recent_active, std::cmp::Reverse(*id))
        });
        let Some(heir) = best.map(|(id, _)| *id) else {
            self.pace.aside_until = None; // nobody is left to ask
            return;
        };
        self.pace.heirs.insert(heir);
        self.node.transfer_leader(heir);
    }

    /// What becomes of handing over, when the heir has not taken over in time: the next one is
    /// asked to; then whoever still leads goes on, or tries again if it must not lead.
    pub(super) fn look_after_heir(&mut self) {
        if !self.is_leader() || self.node.raft.lead_transferee.is_some() {
            return;
        }
        let was_handing_over = self.pace.aside_until.take().is_some();
        if was_handing_over && self.pace.heirs.len() < HEIRS {
            self.hand_over_to_next();
        } else if self.is_outvoted() {
            self.hand_over();
        }
    }

    /// Whether most members have another state than this server: no header that it proposes could
    /// name one.
    pub(super) fn is_outvoted(&self) -> bool {
        self.roots.is_outvoted(self.members.len())
    }

    /// Whether this server is about to stop, or damaged, and neither leads nor stands for election.
    pub(super) fn steps_aside(&mut self) -> bool {
        let now = self.now.instant;
        self.pace.aside_until = self.pace.aside_until.filter(|&until| until > now);
        (self.pace.aside_until.is_some() || self.is_outvoted()) && !self.is_leader()
    }

    /// Until when it does.
    pub(super) fn aside_until(&self) -> Option<Instant> {
        self.pace.aside_until.filter(|_| !self.is_leader())
    }

    /// Members that were told to fetch final blocks and have not said that they have them are told
    /// again.
    pub(super) fn repeat_snapshots(&mut self) {
        let now = self.now.instant;
        let late = self.snapshots_sent.iter().filter(|(_, at)| now.since(**at) > SNAPSHOT_PATIENCE);
        let late: Vec<u64> = late.map(|(id, _)| *id).collect();
        for id in late {
            self.snapshots_sent.remove(&id);
            let progress = self.node.raft.prs().get(id);
            if progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }
}

/// The first moment after a block's time.
fn after(block: &Block) -> Time {
    Time(block.header.time.0.saturating_add(1))
}
