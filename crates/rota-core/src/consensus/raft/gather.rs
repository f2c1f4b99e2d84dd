//! How long a leader gathers writes before it fills a block (step 4).
//!
//! Each block costs every member messages, a flush and turns at the processor, whatever is in it.
//! Clients that were answered together write again within moments of each other: a leader that took
//! the first of them would make it wait for a block of one, and the others for the block after
//! that. So it waits until as many writes are there as lately waited together, but not for long;
//! whoever writes alone waits for nobody.

use std::time::Duration;

use crate::time::Instant;

/// Clients that were answered have this long to come back, from when their block became final.
const GATHER: Duration = Duration::from_millis(1);

/// So many writes wait for no others.
pub(super) const ENOUGH: usize = 16;

/// Fewer wait until the block before them is final, unless that takes longer than this: members
/// are far apart then, or their disks slow.
const BESIDE: Duration = Duration::from_millis(3);

/// So many blocks tell how many writes are to be expected: as many as half of them saw, since who
/// comes back now and then is not to be waited for.
const BLOCKS: usize = 8;

/// How many writes there are at a time.
#[derive(Debug)]
pub(super) struct Gather {
    enough: usize,
    /// The most that waited together since the last finality.
    most: usize,
    /// The same for the ones before.
    before: [usize; BLOCKS],
    final_at: Instant,
    filled_at: Instant,
}

impl Gather {
    /// For blocks that hold so many transactions.
    pub fn new(block_transactions: u32, now: Instant) -> Self {
        let enough = ENOUGH.min(block_transactions as usize);
        Self { enough, most: 0, before: [0; BLOCKS], final_at: now, filled_at: now }
    }

    /// So many writes wait, those in blocks that are not final among them.
    pub fn saw(&mut self, writes: usize) {
        self.most = self.most.max(writes);
    }

    /// A block went on its way.
    pub fn filled(&mut self, now: Instant) {
        self.filled_at = now;
    }

    pub fn finalized(&mut self, now: Instant) {
        self.before.rotate_left(1);
        self.before[BLOCKS - 1] = std::mem::take(&mut self.most);
        self.final_at = now;
    }

    /// When a block for so many writes, which stand in none, is due; beside another one or not.
    pub fn due(&self, writes: usize, beside: bool) -> Instant {
        if writes >= self.enough {
            return Instant(0);
        }
        if beside {
            return self.filled_at.plus(BESIDE);
        }
        let mut before = self.before;
        before.sort_unstable();
        let are_all_here = writes >= before[BLOCKS / 2];
        if are_all_here { Instant(0) } else { self.final_at.plus(GATHER) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Instant = Instant(0);
    const FINAL: Instant = Instant(100);

    /// After blocks before whose finality so many waited.
    fn after(waited: &[usize]) -> Gather {
        let mut gather = Gather::new(1_000, AT_ONCE);
        for &writes in waited {
            gather.saw(writes);
            gather.saw(writes.saturating_sub(1));
            gather.finalized(FINAL);
        }
        gather
    }

    #[test]
    fn whoever_writes_alone_waits_for_nobody() {
        assert_eq!(after(&[]).due(1, false), AT_ONCE);
        assert_eq!(after(&[1; 10]).due(1, false), AT_ONCE);
        let now_and_then = after(&[2, 1, 1, 2, 1, 1, 2, 1]);
        assert_eq!(now_and_then.due(1, false), AT_ONCE);
    }

    #[test]
    fn those_who_were_answered_together_are_waited_for() {
        let gather = after(&[3, 4, 8, 8, 7, 5, 7, 8]);
        assert_eq!(gather.due(1, false), FINAL.plus(GATHER));
        assert_eq!(gather.due(6, false), FINAL.plus(GATHER));
        assert_eq!(gather.due(7, false), AT_ONCE, "all are here");
    }

    #[test]
    fn enough_wait_for_no_others() {
        assert_eq!(after(&[100; BLOCKS]).due(ENOUGH, false), AT_ONCE);
        assert_eq!(after(&[100; BLOCKS]).due(ENOUGH, true), AT_ONCE);
        let mut small = Gather::new(2, AT_ONCE);
        for _ in 0..BLOCKS {
            small.saw(5);
            small.finalized(FINAL);
        }
        assert_eq!(small.due(1, false), FINAL.plus(GATHER));
        assert_eq!(small.due(2, false), AT_ONCE, "a block holds no more");
    }

    #[test]
    fn few_wait_for_the_block_before_them_but_not_for_ever() {
        let mut gather = after(&[]);
        gather.filled(FINAL);
        assert_eq!(gather.due(ENOUGH - 1, true), FINAL.plus(BESIDE));
    }

    #[test]
    fn who_has_gone_is_soon_forgotten() {
        let mut gather = after(&[8; BLOCKS]);
        for _ in 0..=BLOCKS / 2 {
            assert_eq!(gather.due(1, false), FINAL.plus(GATHER), "half of them saw eight");
            gather.saw(1);
            gather.finalized(FINAL);
        }
        assert_eq!(gather.due(1, false), AT_ONCE);
    }
}
