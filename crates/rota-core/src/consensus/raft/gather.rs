//! How long a leader gathers writes before it fills a block (step 4).
//!
//! A block costs every member messages, a flush and turns at the processor, as much for one write
//! as for ten. Clients that were answered together write again within moments of each other: a
//! leader that took the first of them would make them wait for a block of one, and the others for
//! the block after it. So it waits until as many writes are there as lately were before a block
//! became final, but not for long; whoever writes alone waits for nobody.

use std::time::Duration;

use crate::time::Instant;

/// Clients that were answered have this long to come back, from when their block became final.
const GATHER: Duration = Duration::from_millis(1);

/// So many blocks tell how many writes are to be expected: as many as half of them saw, since who
/// comes back now and then is not to be waited for.
const BLOCKS: usize = 8;

/// How many writes there are at a time.
#[derive(Debug)]
pub(super) struct Gather {
    /// The most that waited since a block became final, and between those before.
    most: usize,
    before: [usize; BLOCKS],
    final_at: Instant,
}

impl Gather {
    pub fn new(now: Instant) -> Self {
        Self { most: 0, before: [0; BLOCKS], final_at: now }
    }

    /// So many writes wait, those in blocks that are not final among them.
    pub fn waiting(&mut self, writes: usize) {
        self.most = self.most.max(writes);
    }

    pub fn finalized(&mut self, now: Instant) {
        self.before.rotate_left(1);
        self.before[BLOCKS - 1] = std::mem::take(&mut self.most);
        self.final_at = now;
    }

    /// Until when a block with so many writes is not filled yet, if more are expected.
    pub fn until(&self, writes: usize, now: Instant) -> Option<Instant> {
        let mut before = self.before;
        before.sort_unstable();
        let expected = before[BLOCKS / 2];
        let until = self.final_at.plus(GATHER);
        (writes > 0 && writes < expected && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Instant = Instant(100);

    /// After blocks before whose finality so many waited, the last of them final now.
    fn after(waited: &[usize]) -> Gather {
        let mut gather = Gather::new(Instant(0));
        for &writes in waited {
            gather.waiting(writes);
            gather.waiting(writes.saturating_sub(1));
            gather.finalized(Instant(0));
        }
        gather
    }

    #[test]
    fn whoever_writes_alone_waits_for_nobody() {
        assert_eq!(after(&[]).until(1, SOON), None);
        assert_eq!(after(&[1; 10]).until(1, SOON), None);
        let now_and_then = after(&[2, 1, 1, 2, 1, 1, 2, 1]);
        assert_eq!(now_and_then.until(1, SOON), None);
    }

    #[test]
    fn those_who_were_answered_together_are_waited_for() {
        let gather = after(&[3, 4, 8, 8, 7, 5, 7, 8]);
        let until = Some(Instant(0).plus(GATHER));
        assert_eq!(gather.until(1, SOON), until);
        assert_eq!(gather.until(6, SOON), until);
        assert_eq!(gather.until(7, SOON), None, "all are there");
        assert_eq!(gather.until(0, SOON), None, "nobody is");
        assert_eq!(gather.until(1, Instant(0).plus(GATHER)), None, "not for long");
    }

    #[test]
    fn who_has_gone_is_soon_forgotten() {
        let mut gather = after(&[8; BLOCKS]);
        for _ in 0..BLOCKS / 2 {
            assert!(gather.until(1, SOON).is_some());
            gather.waiting(1);
            gather.finalized(Instant(0));
        }
        assert!(gather.until(1, SOON).is_some(), "half of them saw eight");
        gather.waiting(1);
        gather.finalized(Instant(0));
        assert_eq!(gather.until(1, SOON), None);
    }
}
