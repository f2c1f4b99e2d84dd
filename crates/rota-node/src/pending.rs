//! Who waits for which transaction of this server's clients, between steps 2 and 9.
//!
//! ```text
//!  wait_for ─► queued ─► signed ─► admitted ─► notarized ─► executed
//!                                  Wait::None  ::Included   ::Final      is answered here
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rota_core::block::Block;
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Envelope;
use rota_core::types::{ChainId, Height, NodeId, TransactionId};
use rota_store::{Receipt, StatementResult};
use tokio::sync::oneshot;

use crate::driver::{Wait, WriteError, Written, stopping, unknown};

/// A client's answer.
pub(crate) type Answer = Result<Written, WriteError>;

/// Who waits for what.
pub(crate) struct Pending {
    chain: ChainId,
    key: NodeId,
    waiting: Mutex<HashMap<TransactionId, Waiter>>,
    /// How many of them are signed.
    in_flight: AtomicUsize,
    /// How many of them wait for less than `Wait::Final`: as a rule nobody, and then nobody is
    /// looked for.
    early: AtomicUsize,
    /// Nobody new may wait.
    closed: AtomicBool,
    /// Why what is executed is not acknowledged now (`pow`), and who would be answered what.
    paused: Mutex<Paused>,
}

/// Acknowledgements that wait until depth means something again.
#[derive(Default)]
struct Paused {
    why: Option<String>,
    answers: HashMap<TransactionId, Answer>,
}

struct Waiter {
    answer: oneshot::Sender<Answer>,
    signed: bool,
    wait: Wait,
    /// What is answered where nothing has been executed yet.
    early: Vec<StatementResult>,
}

/// A client's place in [`Pending`]; given up when this is dropped.
pub(crate) struct Waiting<'a> {
    pending: &'a Pending,
    id: TransactionId,
    /// Comes once.
    pub(crate) answer: oneshot::Receiver<Answer>,
}

impl Waiting<'_> {
    /// Which transaction is waited for.
    pub(crate) fn id(&self) -> TransactionId {
        self.id
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pending.take(&self.id);
    }
}

impl Pending {
    /// Nobody, for this server's clients.
    pub(crate) fn new(chain: ChainId, key: NodeId) -> Self {
        Self {
            chain,
            key,
            waiting: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            early: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            paused: Mutex::default(),
        }
    }

    /// A place for whoever waits for this transaction. `early` are the results that it is answered
    /// with if it does not wait until there are others (`Wait::Final`).
    pub(crate) fn wait_for(
        &self,
        id: TransactionId,
        wait: Wait,
        early: Vec<StatementResult>,
    ) -> Result<Waiting<'_>, Refusal> {
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter { answer: sender, signed: false, wait, early };
        let mut map = self.map();
        // Read under the lock: `close` sets it before it takes the lock to answer all who wait.
        if self.closed.load(Ordering::Relaxed) {
            return Err(stopping());
        }
        if map.contains_key(&id) {
            return Err(Refusal::new(sqlstate::INTERNAL, "the random source repeats itself"));
        }
        map.insert(id, waiter);
        if wait != Wait::Final {
            self.early.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Waiting { pending: self, id, answer })
    }

    /// Notes that this transaction is about to be sent. False if nobody waits for it any more: it
    /// need not be.
    pub(crate) fn signed(&self, id: &TransactionId) -> bool {
        match self.map().get_mut(id) {
            Some(waiter) => {
                waiter.signed = true;
                self.in_flight.fetch_add(1, Ordering::Relaxed);
                true
            }
            None => false,
        }
    }

    /// How many transactions are signed and not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether a client of this server waits for this transaction.
    pub(crate) fn has(&self, id: &TransactionId) -> bool {
        self.map().contains_key(id)
    }

    /// Answers those of our clients who wait for no more than that their transaction is taken.
    pub(crate) fn admitted(&self, envelope: &Envelope) {
        self.answer_early(envelope, Wait::None, (Height(0), 0));
    }

    /// Answers those of our clients whose transactions stand in this notarized block, if that
    /// suffices them.
    pub(crate) fn notarized(&self, block: &Block) {
        let mut index = 0_u32;
        for envelope in &block.body.envelopes {
            self.answer_early(envelope, Wait::Included, (block.header.height, index));
            let transactions = u32::try_from(envelope.transactions.len()).unwrap_or(u32::MAX);
            index = index.saturating_add(transactions);
        }
    }

    fn answer_early(&self, envelope: &Envelope, wait: Wait, (height, first): (Height, u32)) {
        if self.early.load(Ordering::Relaxed) == 0 || envelope.signer != self.key {
            return;
        }
        for (transaction, index) in envelope.transactions.iter().zip(first..) {
            let id = transaction.id(self.chain, self.key);
            let enough = self.map().get(&id).is_some_and(|waiter| waiter.wait == wait);
            if enough && let Some(waiter) = self.take(&id) {
                let results = waiter.early;
                let _ = waiter.answer.send(Ok(Written { id, height, index, results }));
            }
        }
    }

    /// Answers those of our clients whose transactions were in a final block that is
    /// executed: at once, or, unless `certain`, when [`Pending::pause`] is next told that nothing
    /// speaks against it.
    pub(crate) fn executed(&self, receipts: &[Receipt], certain: bool) {
        let mut paused = self.paused();
        for receipt in receipts.iter().filter(|receipt| self.has(&receipt.id)) {
            let answer = match &receipt.outcome {
                Ok(results) => Ok(Written {
                    id: receipt.id,
                    height: receipt.height,
                    index: receipt.index,
                    results: results.clone(),
                }),
                Err(refusal) => Err(WriteError { refusal: refusal.clone(), id: Some(receipt.id) }),
            };
            if certain && paused.why.is_none() {
                self.answer(&receipt.id, answer);
            } else {
                paused.answers.insert(receipt.id, answer);
            }
        }
    }

    /// From now on what is executed is not acknowledged, for this reason; or it is again, and those
    /// who still wait are answered.
    pub(crate) fn pause(&self, why: Option<String>) {
        let mut paused = self.paused();
        paused.why = why;
        // Who has waited for too long has been told so.
        paused.answers.retain(|id, _| self.has(id));
        if paused.why.is_none() {
            for (id, answer) in std::mem::take(&mut paused.answers) {
                self.answer(&id, answer);
            }
        }
    }

    /// Whether nothing is acknowledged now.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused().why.is_some()
    }

    /// Why a write that was sent is not answered yet.
    pub(crate) fn why_late(&self) -> String {
        match &self.paused().why {
            Some(why) => format!("nothing is acknowledged now ({why})"),
            None => "it is not final yet".into(),
        }
    }

    fn answer(&self, id: &TransactionId, answer: Answer) {
        if let Some(waiter) = self.take(id) {
            // A client that went away does not mind.
            let _ = waiter.answer.send(answer);
        }
    }

    fn paused(&self) -> MutexGuard<'_, Paused> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers those of our clients whose transactions will not be executed.
    pub(crate) fn dropped(&self, transactions: &[TransactionId], why: &Refusal) {
        for id in transactions {
            if let Some(waiter) = self.take(id) {
                let error = WriteError { refusal: why.clone(), id: Some(*id) };
                let _ = waiter.answer.send(Err(error));
            }
        }
    }

    /// Nobody new may wait: this server stops as soon as those who do are answered.
    pub(crate) fn take_no_more(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.map().is_empty()
    }

    /// Nothing more will be answered: everybody hears what is known of theirs.
    pub(crate) fn close(&self, why: &str) {
        self.closed.store(true, Ordering::Relaxed);
        let all: Vec<TransactionId> = self.map().keys().copied().collect();
        for id in all {
            let Some(waiter) = self.take(&id) else { continue };
            let error = if waiter.signed { unknown(id, why) } else { stopping().into() };
            let _ = waiter.answer.send(Err(error));
        }
    }

    fn take(&self, id: &TransactionId) -> Option<Waiter> {
        let waiter = self.map().remove(id)?;
        if waiter.signed {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if waiter.wait != Wait::Final {
            self.early.fetch_sub(1, Ordering::Relaxed);
        }
        Some(waiter)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<TransactionId, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(id: TransactionId) -> Receipt {
        Receipt { id, height: Height(7), index: 1, outcome: Ok(Vec::new()) }
    }

    #[test]
    fn nothing_is_acknowledged_while_depth_means_nothing() {
        let pending = Pending::new(ChainId::default(), NodeId::default());
        let [one, two] = [1, 2].map(|byte| TransactionId([byte; 32]));
        let [mut first, mut second] =
            [one, two].map(|id| pending.wait_for(id, Wait::Final, Vec::new()).unwrap());
        pending.pause(Some("no block for 15 s".into()));
        pending.executed(&[receipt(one)], true);
        assert!(first.answer.try_recv().is_err());
        assert!(pending.why_late().contains("no block for 15 s"));
        pending.pause(None);
        assert_eq!(first.answer.try_recv().unwrap().unwrap().height, Height(7));
        // Of a newer block it is not known yet whether anything speaks against it.
        pending.executed(&[receipt(two)], false);
        assert!(second.answer.try_recv().is_err());
        pending.pause(None);
        assert!(second.answer.try_recv().unwrap().is_ok());
    }

    #[test]
    fn those_who_wait_are_answered_when_nobody_new_may() {
        let pending = Pending::new(ChainId::default(), NodeId::default());
        let [one, two] = [1, 2].map(|byte| TransactionId([byte; 32]));
        let mut waiting = pending.wait_for(one, Wait::Final, Vec::new()).unwrap();
        pending.take_no_more();
        let refused = pending.wait_for(two, Wait::Final, Vec::new()).err().unwrap();
        assert_eq!(refused.code(), sqlstate::CANNOT_CONNECT_NOW);
        assert!(!pending.is_empty());
        pending.executed(&[receipt(one)], true);
        assert!(waiting.answer.try_recv().unwrap().is_ok() && pending.is_empty());
    }

    #[test]
    fn who_has_gone_is_not_kept_for_later() {
        let pending = Pending::new(ChainId::default(), NodeId::default());
        let id = TransactionId([1; 32]);
        let gone = pending.wait_for(id, Wait::Final, Vec::new()).unwrap();
        pending.pause(Some("slow".into()));
        pending.executed(&[receipt(id)], true);
        drop(gone);
        pending.pause(Some("slow".into()));
        assert!(pending.paused().answers.is_empty());
    }
}
