//! Time as the `raft` crate counts it: in ticks of this machine's monotonic clock. No clock is
//! compared with another server's.
//!
//! Ticks are counted when something happens, so that a server wakes for what is due and not for
//! every tick. A server that was stopped for a while does not count what it slept through: the
//! messages that wait for it come first.

use std::time::Duration;

use raft::StateRole;

use super::Raft;
use crate::genesis::Parameters;
use crate::time::Instant;

/// The crate's unit of time: a tenth of the time-outs of a cluster on one network.
pub(super) const TICK: Duration = Duration::from_millis(25);

/// A member must not stand for election while others still count on the leader that it misses:
/// they would not hear it, and it would try again only after its whole time-out. They heard of the
/// leader at most a tick later, and their ticks begin up to one later.
const LEASE_TICKS: u64 = 2;

/// Between the time-outs of two members: an election is over within it, as a rule.
const APART_TICKS: u64 = 2;

/// A member's time-outs, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub heartbeat: usize,
    /// How long a leader lives without a majority, and how long members hold on to one.
    pub lease: usize,
    /// How long this member waits before it stands for election.
    pub election: usize,
}

impl Timeouts {
    /// `order`: this member's place in the order in which members stand for election.
    pub fn new(parameters: &Parameters, order: usize) -> Self {
        let ticks = |ms: u64| Duration::from_millis(ms).as_micros().div_ceil(TICK.as_micros());
        let ticks = |ms| usize::try_from(ticks(ms)).unwrap_or(usize::MAX / 4).max(1);
        let heartbeat = ticks(parameters.heartbeat_ms);
        let lease = ticks(parameters.election_ms).max(heartbeat + 1);
        let later = LEASE_TICKS as usize + APART_TICKS as usize * order;
        Self { heartbeat, lease, election: lease + later }
    }
}

impl Raft {
    /// Counts the ticks since the last time. What is due happens at `Event::Timer` only: whatever
    /// came in before it is heard first.
    pub(super) fn tick(&mut self, is_timer: bool) {
        let now = self.now.instant;
        let passed = now.since(self.ticked_at).as_micros() / TICK.as_micros();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        // Who steps aside does not stand for election; but its ticks tell it that the leader is
        // gone, and only then does it vote for another one.
        let steps_aside = self.steps_aside();
        let due = self.ticks_until_due();
        let count = passed.min(if is_timer && !steps_aside { due } else { due - 1 });
        for _ in 0..count {
            self.node.tick();
        }
        let counted = TICK.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        self.ticked_at = self.ticked_at.plus(counted);
        if is_timer && steps_aside {
            self.ticked_at = now; // or the next timer would be due at once, and again
        } else if now.since(self.ticked_at) > TICK {
            self.ticked_at = Instant(now.0 - TICK.as_micros() as u64);
        }
    }

    /// After so many ticks something happens by itself; at least 1.
    fn ticks_until_due(&self) -> u64 {
        let raft = &self.node.raft;
        let left = |timeout: usize, elapsed: usize| timeout.saturating_sub(elapsed).max(1) as u64;
        if raft.state == StateRole::Leader {
            left(raft.heartbeat_timeout(), raft.heartbeat_elapsed())
                .min(left(raft.election_timeout(), raft.election_elapsed))
        } else {
            left(raft.randomized_election_timeout(), raft.election_elapsed)
        }
    }

    /// When the next thing happens by itself.
    pub(super) fn next_tick(&self) -> Instant {
        let ticks = u32::try_from(self.ticks_until_due()).unwrap_or(u32::MAX);
        self.ticked_at.plus(TICK.saturating_mul(ticks))
    }
}
