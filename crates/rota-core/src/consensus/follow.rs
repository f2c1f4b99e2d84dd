//! A server that follows and never votes.

use super::{Action, Consensus, Event, Head, Standing};
use crate::crypto::SecretKey;
use crate::genesis::Genesis;
use crate::journal::Recovered;
use crate::members::Members;
use crate::time::{Instant, Now};
use crate::types::{NodeId, Slot};

/// A server that follows and never votes.
pub struct Follow {}

impl Follow {
    /// From its records.
    pub fn new(
        _genesis: &Genesis,
        _members: Members,
        _key: SecretKey,
        _recovered: Recovered,
        _now: Now,
    ) -> Self {
        Self {}
    }
}

impl Consensus for Follow {
    fn step(&mut self, _now: Now, _event: Event) -> Vec<Action> {
        Vec::new()
    }

    fn wake(&self) -> Option<Instant> {
        None
    }

    fn slot(&self) -> Slot {
        Slot(0)
    }

    fn leader(&self, _slots_ahead: u64) -> Option<NodeId> {
        None
    }

    fn next_turn(&self) -> u64 {
        0
    }

    fn finalizing(&self) -> Slot {
        Slot(0)
    }

    fn head(&self) -> Head {
        Head::default()
    }

    fn is_live(&self) -> bool {
        false
    }

    fn standing(&self, _now: Now) -> Standing {
        Standing::Following
    }
}
