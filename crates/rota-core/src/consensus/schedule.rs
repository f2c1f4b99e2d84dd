//! Who leads which slot.

use crate::types::{MemberIndex, Slot};

/// A round-robin over all members, `turn_length` slots each: `members[(slot / turn_length) % n]`.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin {
    members: u64,
    turn_length: u64,
}

impl RoundRobin {
    /// For so many members (1 to `MAX_MEMBERS`), with a turn length of at least 1.
    pub fn new(members: usize, turn_length: u64) -> Self {
        assert!(members > 0 && turn_length > 0, "checked with the genesis");
        Self { members: members as u64, turn_length }
    }

    /// Whose turn it is.
    pub fn leader(&self, slot: Slot) -> MemberIndex {
        let index = (slot.0 / self.turn_length) % self.members;
        MemberIndex(u16::try_from(index).expect("at most MAX_MEMBERS"))
    }

    /// The last slot of the turn that a slot belongs to.
    pub fn turn_end(&self, slot: Slot) -> Slot {
        let first = slot.0 - slot.0 % self.turn_length;
        Slot(first.saturating_add(self.turn_length - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_leads_turn_length_slots_in_a_row() {
        let schedule = RoundRobin::new(3, 2);
        let leaders: Vec<u16> = (0..8).map(|slot| schedule.leader(Slot(slot)).0).collect();
        assert_eq!(leaders, [0, 0, 1, 1, 2, 2, 0, 0]);
        assert_eq!(schedule.turn_end(Slot(2)), Slot(3));
        assert_eq!(schedule.turn_end(Slot(3)), Slot(3));
        assert_eq!(schedule.turn_end(Slot(u64::MAX)), Slot(u64::MAX));
    }
}
