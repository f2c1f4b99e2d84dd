//! How hard the next block has to be (steps 4 and 6): two rules, a choice of the genesis.
//!
//! - `asert`: Bitcoin Cash's aserti3-2d (specification of 2020-11-15): after each block the target
//!   is `anchor's target · 2^((time passed − time due) / halflife)`, in integers. It depends on the
//!   anchor and on the parent, on nothing between them.
//! - `bitcoin`: every `interval` blocks the target is scaled by how long they took over how long
//!   they should have taken, within ¼ and 4 (`CalculateNextWorkRequired` in Bitcoin Core).

#[cfg(test)]
mod published;
#[cfg(test)]
mod tests;

use bitcoin::Target;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::proof::target_of;
use super::wide::Wide;
use crate::types::Height;

/// How the target follows the pace of blocks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(tag = "rule", rename_all = "lowercase", deny_unknown_fields)]
pub enum Retarget {
    /// aserti3-2d.
    Asert {
        /// A chain this many seconds behind its schedule has half the difficulty. Bitcoin Cash:
        /// 172,800 at a spacing of 600.
        halflife_s: u32,
    },
    /// Bitcoin's own rule.
    Bitcoin {
        /// Blocks between two changes. Bitcoin: 2016.
        interval: u32,
    },
}

/// Where the difficulty begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The block at which it begins.
    pub height: Height,
    /// The time of the block before that one, in seconds since 1970.
    pub parent_time: u32,
    /// Its target, in compact form.
    pub bits: u32,
}

/// What a rule reads of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its height.
    pub height: Height,
    /// Its time, in seconds since 1970.
    pub time: u32,
    /// Its target, in compact form.
    pub bits: u32,
}

/// Why a rule with these numbers would not work: the genesis is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Blocks cannot be 0 seconds apart.
    #[error("the spacing is 0 seconds; blocks need at least 1")]
    Spacing,
    /// Something divides by the half-life.
    #[error("the half-life is 0 seconds; it needs at least 1")]
    Halflife,
    /// Of `interval` blocks Bitcoin measures `interval - 1` spacings.
    #[error("the interval is {0} blocks; it needs at least 2")]
    Interval(u32),
    /// No target is written so.
    #[error("{0:#010x} is no target in compact form")]
    Bits(u32),
    /// The first target is above the easiest.
    #[error("{bits:#010x} is easier than the easiest target, {easiest:#010x}")]
    TooEasy {
        /// The anchor's.
        bits: u32,
        /// The easiest.
        easiest: u32,
    },
}

/// The rule of a chain, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difficulty {
    retarget: Retarget,
    spacing_s: u32,
    easiest: Target,
    anchor: Anchor,
    anchor_target: Target,
}

impl Difficulty {
    /// The rule `retarget` for blocks `spacing_s` seconds apart, from `anchor` on, never easier
    /// than the compact target `easiest`.
    pub fn new(
        retarget: Retarget,
        spacing_s: u32,
        easiest: u32,
        anchor: Anchor,
    ) -> Result<Self, Unusable> {
        if spacing_s == 0 {
            return Err(Unusable::Spacing);
        }
        match retarget {
            Retarget::Asert { halflife_s: 0 } => return Err(Unusable::Halflife),
            Retarget::Bitcoin { interval: interval @ (0 | 1) } => {
                return Err(Unusable::Interval(interval));
            }
            Retarget::Asert { .. } | Retarget::Bitcoin { .. } => {}
        }
        let target = |bits| target_of(bits).ok_or(Unusable::Bits(bits));
        let (easiest_target, anchor_target) = (target(easiest)?, target(anchor.bits)?);
        if anchor_target > easiest_target {
            return Err(Unusable::TooEasy { bits: anchor.bits, easiest });
        }
        Ok(Self { retarget, spacing_s, easiest: easiest_target, anchor, anchor_target })
    }

    /// The bits that are due in the child of `parent`. `time_at` tells the time of the ancestor of
    /// `parent` (or `parent` itself) at a height; it is asked at most once, and if it does not know
    /// the answer is `None`. Only Bitcoin's rule asks, and only once in an interval.
    pub fn next(&self, parent: Mark, time_at: impl FnOnce(Height) -> Option<u32>) -> Option<u32> {
        match self.retarget {
            Retarget::Asert { halflife_s } => Some(self.asert(parent, halflife_s)),
            Retarget::Bitcoin { interval } => {
                let next = parent.height.0.checked_add(1)?;
                if next % u64::from(interval) != 0 {
                    return Some(parent.bits);
                }
                let first = time_at(Height(next.checked_sub(u64::from(interval))?))?;
                Some(self.bitcoin(parent, first, interval))
            }
        }
    }

    fn asert(&self, parent: Mark, halflife_s: u32) -> u32 {
        let since = i128::from(parent.time) - i128::from(self.anchor.parent_time);
        let blocks = i128::from(parent.height.0) - i128::from(self.anchor.height.0) + 1;
        let late = since - i128::from(self.spacing_s) * blocks;
        // Fixed point with 16 bits behind the point; Rust's division rounds towards zero as the
        // specification's does, its shift to the right rounds down.
        let exponent = late * 65_536 / i128::from(halflife_s);
        let whole = exponent >> 16;
        let fraction = (exponent & 0xffff) as u64;
        // 2^x for 0 ≤ x < 1, by a cubic polynomial off by less than 0.013 %; 64 bits suffice.
        let factor = 65_536
            + ((195_766_423_245_049 * fraction
                + 971_821_376 * fraction * fraction
                + 5_127 * fraction * fraction * fraction
                + (1 << 47))
                >> 48);
        // Past these a target of 256 bits is 1 or the easiest anyway.
        let shift = whole.clamp(-1_000, 1_000) as i64 - 16;
        let next = Wide::of(self.anchor_target).times(factor).scaled(shift);
        let next = next.map_or(self.easiest, |next| next.to_target(self.easiest));
        next.to_compact_lossy().to_consensus()
    }

    fn bitcoin(&self, parent: Mark, first: u32, interval: u32) -> u32 {
        let due = u64::from(interval) * u64::from(self.spacing_s);
        // Off by one since 2009: `interval` blocks have `interval - 1` spacings between them.
        let took = u64::from(parent.time.saturating_sub(first));
        let took = took.clamp(due / 4, due.saturating_mul(4));
        let last = target_of(parent.bits).unwrap_or(self.easiest);
        let next = Wide::of(last).times(took).over(due).to_target(self.easiest);
        next.to_compact_lossy().to_consensus()
    }
}
