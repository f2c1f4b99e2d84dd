//! How many envelopes of a neighbour are checked where anybody may connect (`pow`): so many that
//! blocks, which wait in the same queue, are not held up by signatures. Between steps 5 and 6.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rota_core::message::Message;
use rota_core::types::NodeId;

/// So many at once, and ...
const BURST: u32 = 2_000;

/// ... so many a second from then on: of thirty neighbours together what one thread verifies. What
/// is dropped comes again, from its sender or from others.
const PER_SECOND: u32 = 1_000;

/// A large envelope counts as one for each so many bytes: hashing takes as long as a signature.
const ENVELOPE_BYTES: usize = 16 << 10;

/// More neighbours are not remembered: with one more, all begin anew.
const MOST_NEIGHBOURS: usize = 1_024;

/// What of each neighbour is checked yet.
#[derive(Default)]
pub(crate) struct Flow {
    /// Paid for up to this moment, which may be a burst ahead.
    paid_until: HashMap<NodeId, Instant>,
}

impl Flow {
    /// Whether a message of so many bytes is to be checked.
    pub(crate) fn lets(
        &mut self,
        from: NodeId,
        message: &Message,
        bytes: usize,
        now: Instant,
    ) -> bool {
        let envelopes = match message {
            Message::Envelopes(envelopes) | Message::PassedOn(envelopes) => envelopes.len(),
            _ => return true,
        };
        let count = u32::try_from(envelopes.max(bytes / ENVELOPE_BYTES)).unwrap_or(u32::MAX);
        let takes = Duration::from_secs(1).saturating_mul(count) / PER_SECOND;
        if self.paid_until.len() >= MOST_NEIGHBOURS && !self.paid_until.contains_key(&from) {
            self.paid_until.clear();
        }
        let paid_until = self.paid_until.entry(from).or_insert(now);
        let burst = Duration::from_secs(1).saturating_mul(BURST) / PER_SECOND;
        let is_free = paid_until.saturating_duration_since(now) < burst;
        if is_free {
            *paid_until = (*paid_until).max(now) + takes;
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use rota_core::message::Fetch;
    use rota_core::types::{Height, PublicKey};

    use super::*;

    #[test]
    fn a_neighbour_that_floods_is_heard_at_its_rate_and_its_blocks_always() {
        let (mut flow, begun) = (Flow::default(), Instant::now());
        let [one, other] = [1, 2].map(|byte| PublicKey([byte; 32]));
        let large = Message::PassedOn(Vec::new());
        let bytes = 100 * ENVELOPE_BYTES;
        let heard = |flow: &mut Flow, from, at: Duration| {
            (0..1_000).filter(|_| flow.lets(from, &large, bytes, begun + at)).count()
        };
        assert_eq!(heard(&mut flow, one, Duration::ZERO), 20, "a burst, of a hundred each");
        assert_eq!(heard(&mut flow, other, Duration::ZERO), 20);
        assert_eq!(heard(&mut flow, one, Duration::from_millis(500)), 5);
        let block = Message::Fetch(Fetch::FinalAfter(Height(1)));
        assert!(flow.lets(one, &block, 4 << 20, begun));
        for number in 0..=u16::MAX {
            let mut key = [9; 32];
            key[..2].copy_from_slice(&number.to_le_bytes());
            flow.lets(PublicKey(key), &large, 1, begun);
        }
        assert!(flow.paid_until.len() <= MOST_NEIGHBOURS);
    }
}
