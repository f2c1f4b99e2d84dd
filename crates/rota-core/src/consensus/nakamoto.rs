//! `pow`: most work wins, `k` deep is final.

use super::{Action, Consensus, Event, Head, Standing};
use crate::crypto::SecretKey;
use crate::genesis::Genesis;

use crate::journal::Recovered;
use crate::time::{Instant, Now};
use crate::types::{NodeId, Slot};

/// `pow`: most work wins, `k` deep is final.
pub struct Nakamoto {}

impl Nakamoto {
    /// From its records.
    pub fn new(_genesis: &Genesis, _key: SecretKey, _recovered: Recovered, _now: Now) -> Self {
        Self {}
    }
}

impl Consensus for Nakamoto {
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
