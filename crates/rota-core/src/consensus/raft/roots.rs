//! What members have executed, with which root: a header names a state only when a majority has
//! reported that very root (step 4).

use std::collections::BTreeMap;

use crate::block::Applied;
use crate::types::{Height, StateRoot};

/// Own roots are kept for so many heights: more than a member lags that is not catching up.
const KEPT_ROOTS: usize = 4_096;

/// So many reports of a member wait for our own executor: it lags by no more blocks than the
/// genesis' `lag`, as a rule.
const WAITING_REPORTS: usize = 1_024;

/// So many states of a member that are not ours are kept: members do not report every height, and
/// two of them must have reported the same one.
const KEPT_DIFFERENCES: usize = 256;

/// What the members have executed.
#[derive(Debug, Default)]
pub(super) struct Roots {
    newest: Applied,
    own: BTreeMap<Height, StateRoot>,
    others: BTreeMap<u64, Told>,
}

/// What a member has told.
#[derive(Debug, Default)]
struct Told {
    /// The newest state of its that is ours as well.
    confirmed: Height,
    /// States that we have not executed ourselves yet.
    waiting: BTreeMap<Height, StateRoot>,
    /// The newest states that are others than ours, all of them newer than `confirmed`.
    differs: BTreeMap<Height, StateRoot>,
}

/// A member whose state is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub member: u64,
    pub height: Height,
}

/// Most members have the same state at a height, and it is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outvoted {
    pub height: Height,
    pub agreed: StateRoot,
    pub ours: StateRoot,
}

impl Roots {
    /// What this server has executed.
    pub fn newest(&self) -> Applied {
        self.newest
    }

    /// This server has executed more; says whose state turns out to be another one.
    pub fn executed(&mut self, applied: Applied) -> Vec<Difference> {
        self.newest = applied;
        self.own.insert(applied.height, applied.root);
        if self.own.len() > KEPT_ROOTS {
            self.own.pop_first();
        }
        let mut differences = Vec::new();
        for (&member, told) in &mut self.others {
            let height = applied.height;
            if let Some(root) = told.waiting.remove(&height)
                && told.compare(height, root, applied.root)
            {
                differences.push(Difference { member, height });
            }
            told.waiting = told.waiting.split_off(&height);
        }
        differences
    }

    /// A member says what it has executed; says whether that is another state than ours, where it
    /// was not before.
    pub fn told(&mut self, member: u64, applied: Applied) -> Option<Difference> {
        let told = self.others.entry(member).or_default();
        let height = applied.height;
        if height > self.newest.height {
            if told.waiting.len() < WAITING_REPORTS {
                told.waiting.insert(height, applied.root);
            }
            return None;
        }
        let ours = *self.own.get(&height)?;
        let is_new = told.compare(height, applied.root, ours);
        is_new.then_some(Difference { member, height })
    }

    /// The greatest height that a majority of so many members has executed with our root.
    pub fn reached(&self, members: usize) -> Height {
        let mut heights: Vec<Height> = self.others.values().map(|told| told.confirmed).collect();
        heights.push(self.newest.height);
        heights.sort_unstable();
        heights.into_iter().rev().nth(members / 2).unwrap_or_default()
    }

    /// Whether more than half of all members say that our state is another one than theirs.
    pub fn is_outvoted(&self, members: usize) -> bool {
        let others = self.others.values().filter(|told| !told.differs.is_empty());
        others.count() > members / 2
    }

    /// The first state on which more than half of all members agree, and which is not ours. Where
    /// all of them have different ones, nobody knows whose is right.
    pub fn outvoted(&self, members: usize) -> Option<Outvoted> {
        if !self.is_outvoted(members) {
            return None;
        }
        let mut votes: BTreeMap<(Height, [u8; 32]), usize> = BTreeMap::new();
        for (height, root) in self.others.values().flat_map(|told| &told.differs) {
            let vote = votes.entry((*height, root.0)).or_default();
            *vote = vote.saturating_add(1);
        }
        votes.into_iter().filter(|(_, count)| *count > members / 2).find_map(
            |((height, root), _)| {
                let ours = *self.own.get(&height)?;
                Some(Outvoted { height, agreed: StateRoot(root), ours })
            },
        )
    }
}

impl Told {
    /// Says whether this is the first that differs.
    fn compare(&mut self, height: Height, theirs: StateRoot, ours: StateRoot) -> bool {
        if theirs == ours {
            self.confirmed = self.confirmed.max(height);
            self.differs = self.differs.split_off(&height.next());
            return false;
        }
        if height <= self.confirmed {
            return false; // an old word of a state that was repaired since
        }
        let is_first = self.differs.is_empty();
        self.differs.insert(height, theirs);
        if self.differs.len() > KEPT_DIFFERENCES {
            self.differs.pop_first();
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(height: u64, root: u8) -> Applied {
        Applied { height: Height(height), root: StateRoot([root; 32]) }
    }

    #[test]
    fn a_height_is_reached_when_a_majority_has_our_root() {
        let mut roots = Roots::default();
        for height in 1..=5 {
            roots.executed(at(height, 1));
        }
        assert_eq!(roots.reached(3), Height(0), "nobody else has said anything");
        assert_eq!(roots.told(2, at(3, 1)), None);
        assert_eq!(roots.reached(3), Height(3));
        assert_eq!(roots.reached(5), Height(0), "two of five");
        assert_eq!(Roots::default().reached(1), Height(0));
    }

    #[test]
    fn another_root_confirms_nothing_and_is_told_once() {
        let mut roots = Roots::default();
        roots.executed(at(4, 1));
        let difference = Some(Difference { member: 2, height: Height(4) });
        assert_eq!(roots.told(2, at(4, 9)), difference);
        assert_eq!(roots.told(2, at(4, 9)), None);
        assert_eq!(roots.reached(3), Height(0));
        assert!(!roots.is_outvoted(3));
        assert!(roots.told(3, at(4, 9)).is_some());
        assert!(roots.is_outvoted(3));
        roots.executed(at(5, 1));
        roots.told(2, at(5, 1));
        assert!(!roots.is_outvoted(3), "it has been repaired");
        assert_eq!(roots.reached(3), Height(5));
    }

    #[test]
    fn most_members_must_have_the_same_other_state() {
        let mut roots = Roots::default();
        for height in 4..=6 {
            roots.executed(at(height, 1));
        }
        roots.told(2, at(4, 9));
        roots.told(3, at(4, 8));
        assert!(roots.is_outvoted(3));
        assert_eq!(roots.outvoted(3), None, "three states, each on one server");
        // They need not have told of the same heights, or in the same order.
        roots.told(2, at(6, 9));
        roots.told(3, at(5, 9));
        assert_eq!(roots.outvoted(3), None);
        roots.told(2, at(5, 9));
        let (agreed, ours) = (StateRoot([9; 32]), StateRoot([1; 32]));
        assert_eq!(roots.outvoted(3), Some(Outvoted { height: Height(5), agreed, ours }));
        assert_eq!(roots.outvoted(5), None, "two of five");
        roots.told(2, at(5, 1));
        assert_eq!(roots.outvoted(3), None, "it has been repaired");
    }

    #[test]
    fn what_a_member_has_executed_before_us_is_compared_later() {
        let mut roots = Roots::default();
        roots.executed(at(1, 1));
        assert_eq!(roots.told(2, at(2, 1)), None);
        assert_eq!(roots.told(3, at(2, 9)), None);
        assert_eq!(roots.reached(3), Height(0));
        assert_eq!(roots.executed(at(2, 1)), [Difference { member: 3, height: Height(2) }]);
        assert_eq!(roots.reached(3), Height(2));
    }
}
