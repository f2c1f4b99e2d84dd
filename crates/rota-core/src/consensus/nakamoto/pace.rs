//! How fast blocks come, and whether their depth means anything (N6).

use super::Nakamoto;
use crate::consensus::Mining;
use crate::time::Now;
use crate::types::Height;

/// Blocks that come at less than the due pace divided by this are too slow.
const SLOW: u64 = 2;

/// Without a block for so many spacings nothing is acknowledged either: at the due pace that
/// happens by chance once in 1,100 blocks (e⁻⁷).
const SILENCE: u64 = 7;

impl Nakamoto {
    /// Where it stands, for people, and whether what is final is acknowledged.
    pub(super) fn mining(&self, now: Now) -> Mining {
        let (hash, head) = self.tree.head();
        Mining {
            head: head.height,
            hash,
            depth: self.rules.depth,
            work: head.work.to_string(),
            bits: self.tree.bits_after(hash).unwrap_or(self.rules.bits),
            hash_rate: self.hash_rate(),
            stale: u64::try_from(self.tree.stale()).unwrap_or(u64::MAX),
            reorganisations: self.reorganisations,
            deepest: self.deepest,
            paused: self.paused(now),
            ..Mining::default()
        }
    }

    /// The blocks that the pace is measured by: the last `2k`, or all.
    fn measured(&self) -> (Height, u64) {
        let head = self.tree.head().1.height;
        let blocks = head.0.min(2 * u64::from(self.rules.depth));
        (Height(head.0 - blocks), blocks)
    }

    /// Hashes a second: the work of the measured blocks over the time that they took.
    fn hash_rate(&self) -> u64 {
        let (first, _) = self.measured();
        let Some((_, first)) = self.tree.on_main(first) else { return 0 };
        let head = self.tree.head().1;
        let took = head.proof.time().saturating_sub(first.proof.time()).max(1);
        // For people: a float will do, and ends at the largest number.
        ((head.work.hashes() - first.work.hashes()) / f64::from(took)) as u64
    }

    /// N6: why nothing is acknowledged now, if so.
    fn paused(&self, now: Now) -> Option<String> {
        if self.is_deep() {
            return Some("a branch with more work leaves ours below what was final".into());
        }
        let spacing = u64::from(self.rules.spacing_s);
        let clock = now.clock.0 / 1_000;
        let head = self.tree.head().1;
        let silent = clock.saturating_sub(u64::from(head.proof.time()));
        if silent > spacing.saturating_mul(SILENCE) {
            return Some(format!("no block for {silent} s; one is due every {spacing} s"));
        }
        let (first, blocks) = self.measured();
        let since = self.tree.on_main(first)?.1.proof.time();
        let took = clock.saturating_sub(u64::from(since));
        let due = spacing.saturating_mul(blocks);
        (took > due.saturating_mul(SLOW).max(spacing.saturating_mul(SILENCE))).then(|| {
            format!(
                "the last {blocks} blocks took {took} s; {due} s are due: less than half the pace"
            )
        })
    }
}
