//! Envelopes on their way into the chain, in order of arrival. Step 3, and where step 4 takes from.
//!
//! Bounded in number and bytes. Peers' envelopes may fill half of it, so that a flooding peer
//! cannot shut out this server's own clients. What has become final is remembered for a while, so
//! that a late copy is not proposed again; it would do no harm (ids are checked when a block is
//! applied) but waste room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::codec::encode;
use crate::genesis::Parameters;
use crate::time::{Instant, Time};
use crate::transaction::Envelope;
use crate::types::{EnvelopeId, Height};

/// The most encoded bytes held: some seconds of full blocks.
pub const MAX_BYTES: usize = 64 << 20;

/// The most envelopes held.
pub const MAX_ENVELOPES: usize = 50_000;

/// The longest time between two attempts to tell all members of an envelope.
const MAX_PATIENCE: Duration = Duration::from_secs(5);

/// How many final envelopes are remembered: more than pass while a message travels.
const REMEMBERED: usize = 65_536;

/// One waiting envelope.
#[derive(Debug)]
struct Entry {
    envelope: Arc<Envelope>,
    id: EnvelopeId,
    bytes: usize,
    own: Option<Own>,
}

/// What is known of an envelope of this server's own clients.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// When it goes to all members, unless it stands in a block by then.
    due: Instant,
    patience: Duration,
}

/// Why an envelope was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is here already, or was final not long ago.
    Known,
    /// No room.
    Full,
    /// Larger than any block, so that it would stand in everybody's way.
    TooLarge,
}

/// Waiting envelopes, oldest first.
#[derive(Debug, Default)]
pub struct Mempool {
    arrivals: u64,
    entries: BTreeMap<u64, Entry>,
    by_id: BTreeMap<EnvelopeId, u64>,
    bytes: usize,
    final_ids: BTreeSet<EnvelopeId>,
    final_order: VecDeque<EnvelopeId>,
}

impl Mempool {
    /// Takes an envelope. `own` says that it is of this server's own clients.
    pub fn insert(
        &mut self,
        envelope: Arc<Envelope>,
        own: bool,
        limits: &Parameters,
        now: Instant,
    ) -> Result<EnvelopeId, NotTaken> {
        let id = envelope.id();
        if self.by_id.contains_key(&id) || self.final_ids.contains(&id) {
            return Err(NotTaken::Known);
        }
        let bytes = encode(&*envelope).len();
        if bytes > limits.block_bytes as usize
            || envelope.transactions.len() > limits.block_transactions as usize
        {
            return Err(NotTaken::TooLarge);
        }
        let share = if own { 1 } else { 2 };
        if self.entries.len() >= MAX_ENVELOPES / share || self.bytes + bytes > MAX_BYTES / share {
            return Err(NotTaken::Full);
        }
        let patience = limits.slot_timeout() / 2;
        let own = own.then_some(Own { due: now.plus(patience), patience });
        self.arrivals += 1;
        self.bytes += bytes;
        self.by_id.insert(id, self.arrivals);
        self.entries.insert(self.arrivals, Entry { envelope, id, bytes, own });
        Ok(id)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The oldest envelopes that fit a block of this height and time and are not `taken` by its
    /// ancestors.
    pub fn select(
        &self,
        taken: &BTreeSet<EnvelopeId>,
        limits: &Parameters,
        room: usize,
        height: Height,
        time: Time,
    ) -> Vec<Arc<Envelope>> {
        let mut room = room;
        let mut transactions = limits.block_transactions as usize;
        let mut selected = Vec::new();
        for entry in self.entries.values() {
            let expiry = entry.envelope.expiry;
            if taken.contains(&entry.id)
                || expiry.has_passed(height, time)
                || expiry.is_too_far(height, time)
            {
                continue;
            }
            let count = entry.envelope.transactions.len();
            if entry.bytes > room || count > transactions {
                break; // the next block's; taking a smaller one first would starve it
            }
            room -= entry.bytes;
            transactions -= count;
            selected.push(Arc::clone(&entry.envelope));
        }
        selected
    }

    /// Forgets what became final.
    pub fn remove_final(&mut self, ids: impl IntoIterator<Item = EnvelopeId>) {
        for id in ids {
            if let Some(arrival) = self.by_id.remove(&id)
                && let Some(entry) = self.entries.remove(&arrival)
            {
                self.bytes -= entry.bytes;
            }
            if self.final_ids.insert(id) {
                self.final_order.push_back(id);
            }
            if self.final_order.len() > REMEMBERED
                && let Some(oldest) = self.final_order.pop_front()
            {
                self.final_ids.remove(&oldest);
            }
        }
    }

    /// Forgets what can no longer enter the chain after a final block of this height and time;
    /// gives back what of it was this server's own.
    pub fn remove_expired(&mut self, height: Height, time: Time) -> Vec<Arc<Envelope>> {
        let expired: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.envelope.expiry.has_passed(height, time))
            .map(|(&arrival, _)| arrival)
            .collect();
        let mut own = Vec::new();
        for arrival in expired {
            if let Some(entry) = self.entries.remove(&arrival) {
                self.bytes -= entry.bytes;
                self.by_id.remove(&entry.id);
                if entry.own.is_some() {
                    own.push(entry.envelope);
                }
            }
        }
        own
    }

    /// Our own envelopes that stand in none of the blocks whose ids are in `taken`.
    pub fn own_waiting(&self, taken: &BTreeSet<EnvelopeId>) -> Vec<Arc<Envelope>> {
        self.entries
            .values()
            .filter(|entry| entry.own.is_some() && !taken.contains(&entry.id))
            .map(|entry| Arc::clone(&entry.envelope))
            .collect()
    }

    /// Our own envelopes that are due to be sent to all members and stand in no block of `taken`.
    /// What is sent is due again after twice the time, since a message can be lost; what stands in
    /// a block, after the same.
    pub fn take_overdue(
        &mut self,
        taken: &BTreeSet<EnvelopeId>,
        now: Instant,
    ) -> Vec<Arc<Envelope>> {
        let mut overdue = Vec::new();
        for entry in self.entries.values_mut() {
            let Some(own) = entry.own.as_mut().filter(|own| own.due <= now) else { continue };
            if !taken.contains(&entry.id) {
                own.patience = own.patience.saturating_mul(2).min(MAX_PATIENCE);
                overdue.push(Arc::clone(&entry.envelope));
            }
            own.due = now.plus(own.patience);
        }
        overdue
    }

    /// When the next of our own envelopes is due to be sent to all.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.own.map(|own| own.due)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Signature;
    use crate::transaction::{Expiry, Settings, Statement, Transaction};
    use crate::types::PublicKey;

    fn envelope(salt: u8, expiry: u64) -> Arc<Envelope> {
        let parameters = crate::transaction::Parameters::Positional(vec![]);
        let statement = Statement { sql: "SELECT 1".into(), parameters };
        Arc::new(Envelope {
            signer: PublicKey([1; 32]),
            expiry: Expiry { height: Height(expiry), time: Time(expiry) },
            transactions: vec![Transaction {
                salt: [salt; 16],
                user: "rota".into(),
                statements: vec![statement],
                settings: Settings::default(),
                interactive: None,
            }],
            signature: Signature([0; 64]),
        })
    }

    fn select(mempool: &Mempool, taken: &BTreeSet<EnvelopeId>, height: u64) -> Vec<u8> {
        mempool
            .select(taken, &Parameters::default(), 1 << 20, Height(height), Time(height))
            .iter()
            .map(|envelope| envelope.transactions[0].salt[0])
            .collect()
    }

    #[test]
    fn oldest_first_without_what_is_taken_final_or_expired() {
        let mut mempool = Mempool::default();
        let ids: Vec<EnvelopeId> = [10, 20, 30, 40]
            .iter()
            .enumerate()
            .map(|(i, &expiry)| {
                let salt = u8::try_from(i).unwrap();
                mempool
                    .insert(envelope(salt, expiry), true, &Parameters::default(), Instant(0))
                    .unwrap()
            })
            .collect();
        let taken = BTreeSet::from([ids[2]]);
        assert_eq!(select(&mempool, &taken, 11), [1, 3]);
        mempool.remove_final([ids[1]]);
        assert_eq!(select(&mempool, &taken, 11), [3]);
        assert_eq!(
            mempool.insert(envelope(1, 20), false, &Parameters::default(), Instant(0)),
            Err(NotTaken::Known),
            "a late copy of a final envelope"
        );
        let gone = mempool.remove_expired(Height(31), Time(0));
        assert_eq!(gone.len(), 2, "the ones that expired at 10 and 30");
        assert_eq!(mempool.len(), 1);
    }

    #[test]
    fn overdue_envelopes_are_sent_to_all_ever_more_seldom() {
        let limits = Parameters { slot_timeout_ms: 300, ..Parameters::default() };
        let at = |milliseconds: u64| Instant(milliseconds * 1000);
        let mut mempool = Mempool::default();
        let id = mempool.insert(envelope(1, 9), true, &limits, at(0)).unwrap();
        mempool.insert(envelope(2, 9), false, &limits, at(0)).unwrap();
        let none = BTreeSet::new();
        assert!(mempool.take_overdue(&none, at(149)).is_empty());
        assert!(mempool.take_overdue(&BTreeSet::from([id]), at(150)).is_empty(), "in a block");
        assert_eq!(mempool.take_overdue(&none, at(300)).len(), 1, "only our own");
        assert_eq!(mempool.next_overdue(), Some(at(600)));
    }
}
