//! Who votes, with what weight, and what a quorum is.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::types::{MemberIndex, NodeId, Weight};

/// The largest total weight of an epoch's members. Three times it still fits 128 bits with room to
/// spare, and a sum of four of them fits 64, so that quorum arithmetic cannot overflow.
pub const MAX_TOTAL_WEIGHT: u64 = u64::MAX / 4;

/// More members than this would make certificates larger than blocks.
pub const MAX_MEMBERS: usize = 256;

/// One voter of an epoch.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    BorshSerialize,
    BorshDeserialize,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Member {
    /// Who it is.
    pub key: NodeId,
    /// Its share of the votes. Equal for all under `poa`.
    pub weight: u64,
}

/// An epoch's members in their agreed order, with checked weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    list: Vec<Member>,
    total: Weight,
}

impl Members {
    /// Refuses none, too many, the same key twice, a weight of zero, and a total above
    /// [`MAX_TOTAL_WEIGHT`].
    pub fn new(list: Vec<Member>) -> Result<Self, String> {
        if list.is_empty() || list.len() > MAX_MEMBERS {
            return Err(format!("{} members; 1 to {MAX_MEMBERS} are possible", list.len()));
        }
        let mut total: u64 = 0;
        for (index, member) in list.iter().enumerate() {
            if member.weight == 0 {
                return Err(format!("member {} has no weight", member.key));
            }
            if list[..index].iter().any(|other| other.key == member.key) {
                return Err(format!("member {} is listed twice", member.key));
            }
            total = total
                .checked_add(member.weight)
                .filter(|&total| total <= MAX_TOTAL_WEIGHT)
                .ok_or_else(|| format!("the weights add up to more than {MAX_TOTAL_WEIGHT}"))?;
        }
        Ok(Self { list, total: Weight(total) })
    }

    /// Nobody: under `pow` there are no members, and no quorum either.
    pub fn none() -> Self {
        Self { list: Vec::new(), total: Weight(0) }
    }

    /// Whether there is nobody: only under `pow`.
    pub fn is_none(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether `weight` is a majority: more than half of all. Any two majorities share a member.
    pub fn is_majority(&self, weight: Weight) -> bool {
        2 * u128::from(weight.0) > u128::from(self.total.0)
    }

    /// How many there are; zero under `pow` only.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// All, in their agreed order.
    pub fn iter(&self) -> impl Iterator<Item = (MemberIndex, &Member)> {
        self.list.iter().enumerate().map(|(index, member)| {
            (MemberIndex(u16::try_from(index).expect("at most MAX_MEMBERS")), member)
        })
    }

    /// The member at a place, if there is one.
    pub fn get(&self, index: MemberIndex) -> Option<&Member> {
        self.list.get(index.position())
    }

    /// Where a server stands among the members, if it is one.
    pub fn index_of(&self, key: &NodeId) -> Option<MemberIndex> {
        self.iter().find(|(_, member)| member.key == *key).map(|(index, _)| index)
    }

    /// The weight of all.
    pub fn total(&self) -> Weight {
        self.total
    }

    /// Whether `weight` is a quorum: more than two thirds of all. Any two quorums then share more
    /// than a third of the weight, so at least one honest member.
    pub fn is_quorum(&self, weight: Weight) -> bool {
        3 * u128::from(weight.0) > 2 * u128::from(self.total.0)
    }

    /// The weight of several members, each counted once however often it is named; those who are
    /// none count nothing.
    pub fn weight_of(&self, who: impl Iterator<Item = MemberIndex>) -> Weight {
        let mut seen = vec![false; self.list.len()];
        let mut sum: u64 = 0;
        for index in who {
            if let (Some(member), Some(seen)) = (self.get(index), seen.get_mut(index.position()))
                && !std::mem::replace(seen, true)
            {
                sum += member.weight;
            }
        }
        Weight(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PublicKey;

    fn members(weights: &[u64]) -> Result<Members, String> {
        let key = |i| PublicKey([u8::try_from(i).unwrap(); 32]);
        Members::new(
            weights.iter().enumerate().map(|(i, &weight)| Member { key: key(i), weight }).collect(),
        )
    }

    #[test]
    fn a_quorum_is_more_than_two_thirds() {
        for (weights, weight, quorum) in [
            (&[1, 1, 1, 1][..], 2, false),
            (&[1, 1, 1, 1], 3, true),
            (&[1, 1, 1], 2, false), // exactly two thirds is not enough
            (&[1, 1, 1], 3, true),
            (&[1], 1, true),
            (&[1], 0, false),
            (&[MAX_TOTAL_WEIGHT - 1, 1], MAX_TOTAL_WEIGHT / 3 * 2, false),
            (&[MAX_TOTAL_WEIGHT - 1, 1], MAX_TOTAL_WEIGHT / 3 * 2 + 2, true),
        ] {
            let members = members(weights).unwrap();
            assert_eq!(members.is_quorum(Weight(weight)), quorum, "{weight} of {weights:?}");
        }
    }

    #[test]
    fn nobody_counts_twice() {
        let members = members(&[5, 7]).unwrap();
        let twice = [MemberIndex(0), MemberIndex(0), MemberIndex(9)];
        assert_eq!(members.weight_of(twice.into_iter()), Weight(5));
    }

    #[test]
    fn impossible_members_are_refused() {
        assert!(members(&[]).is_err());
        assert!(members(&[1, 0]).is_err());
        assert!(members(&[MAX_TOTAL_WEIGHT, 1]).is_err());
        let same = Member { key: PublicKey([1; 32]), weight: 1 };
        assert!(Members::new(vec![same.clone(), same]).is_err());
    }
}
