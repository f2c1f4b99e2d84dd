//! Numbers of 320 bits, for one multiplication and one division of a target: next targets (steps 4
//! and 6) are computed without losing a bit, whatever the easiest target is. Bitcoin and Bitcoin
//! Cash have 256 bits there and easiest targets far below them.

use bitcoin::Target;

const LIMBS: usize = 5;

/// An unsigned number of 320 bits, the least significant 64 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide([u64; LIMBS]);

impl Wide {
    /// A target as a number.
    pub(super) fn of(target: Target) -> Self {
        let mut limbs = [0; LIMBS];
        for (limb, bytes) in limbs.iter_mut().zip(target.to_le_bytes().chunks_exact(8)) {
            *limb = u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
        }
        Self(limbs)
    }

    /// This number as a target: at least 1 (0 could never be met), at most `easiest`.
    pub(super) fn to_target(self, easiest: Target) -> Target {
        let mut bytes = [0; 32];
        for (bytes, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&limb.to_le_bytes());
        }
        let [.., beyond] = self.0;
        if beyond != 0 {
            return easiest;
        }
        let mut one = [0; 32];
        one[0] = 1;
        Target::from_le_bytes(bytes).max(Target::from_le_bytes(one)).min(easiest)
    }

    /// The product, which fits: a target has 256 of the 320 bits.
    pub(super) fn times(self, factor: u64) -> Self {
        let mut carry = 0;
        let limbs = self.0.map(|limb| {
            let product = u128::from(limb) * u128::from(factor) + carry;
            carry = product >> 64;
            product as u64
        });
        assert_eq!(carry, 0, "more than 320 bits");
        Self(limbs)
    }

    /// The quotient, rounded down. `divisor` is not 0.
    pub(super) fn over(self, divisor: u64) -> Self {
        let mut limbs = self.0;
        let mut rest = 0;
        for limb in limbs.iter_mut().rev() {
            let dividend = (rest << 64) | u128::from(*limb);
            *limb = (dividend / u128::from(divisor)) as u64;
            rest = dividend % u128::from(divisor);
        }
        Self(limbs)
    }

    /// This · 2^`shift`, rounded down; `None` past 320 bits.
    pub(super) fn scaled(self, shift: i64) -> Option<Self> {
        let limbs = usize::try_from(shift.unsigned_abs() / 64).ok()?;
        let bits = shift.unsigned_abs() % 64;
        let at = |place: Option<usize>| place.and_then(|place| self.0.get(place)).copied();
        let at = |place: Option<usize>| at(place).unwrap_or(0);
        // Two neighbours as one number, of which one shift takes the middle.
        let pair = |high, low| (u128::from(at(high)) << 64) | u128::from(at(low));
        let mut scaled = [0; LIMBS];
        for (place, limb) in scaled.iter_mut().enumerate() {
            *limb = if shift < 0 {
                let low = place.checked_add(limbs);
                (pair(low.and_then(|low| low.checked_add(1)), low) >> bits) as u64
            } else {
                let high = place.checked_sub(limbs);
                (pair(high, high.and_then(|high| high.checked_sub(1))) << bits >> 64) as u64
            };
        }
        let fits = shift <= i64::from(self.leading_zeros());
        (shift < 0 || fits || self.0 == [0; LIMBS]).then_some(Self(scaled))
    }

    fn leading_zeros(self) -> u32 {
        let mut zeros = 0;
        for limb in self.0.iter().rev() {
            zeros += limb.leading_zeros();
            if *limb != 0 {
                break;
            }
        }
        zeros
    }
}
