//! How much work a branch is: the branch with the most is the chain (step 6).

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

use super::proof::target_of;

/// Expected hashes: ⌊2²⁵⁶ / (target + 1)⌋ for one proof, and the sum of them for a branch.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Work {
    // In this order, so that the derived comparison is that of the number.
    high: u128,
    low: u128,
}

impl Work {
    /// None at all: genesis.
    pub const ZERO: Self = Self { high: 0, low: 0 };

    /// What a proof with these bits is worth; nothing if they are no target. (Of the target 1,
    /// which nobody meets, the `bitcoin` crate says 2²⁵⁶ − 1.)
    pub fn of(bits: u32) -> Self {
        let Some(target) = target_of(bits) else { return Self::ZERO };
        let bytes = target.to_work().to_be_bytes();
        let (high, low) = bytes.split_at(16);
        let number = |half: &[u8]| u128::from_be_bytes(half.try_into().expect("half of 32 bytes"));
        Self { high: number(high), low: number(low) }
    }

    /// The sum, or `None` past 2²⁵⁶, which nobody's machines reach.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.checked_add(other.high)?.checked_add(u128::from(carry))?;
        Some(Self { high, low })
    }

    /// As a float, for people.
    pub fn hashes(self) -> f64 {
        self.high as f64 * 2f64.powi(128) + self.low as f64
    }
}

impl fmt::Display for Work {
    /// As Bitcoin's programs write a chain's work: 64 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}{:032x}", self.high, self.low)
    }
}

impl fmt::Debug for Work {
    /// A power of two: enough to tell branches apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2^{:.3}", self.hashes().log2())
    }
}
