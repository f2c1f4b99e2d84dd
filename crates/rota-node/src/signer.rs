//! Step 2: transactions of this server's clients become envelopes signed with its key.
//!
//! A lone write is signed at once, by the task of whoever asks for it. While some are in flight,
//! those that come are gathered for a moment by a thread of their own: one signature for all of
//! them here, and one to verify on every other server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use crossbeam_channel::{Receiver, RecvTimeoutError, TrySendError};
use rota_core::crypto::{SecretKey, Signature};
use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::replica::Input;
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry, MAX_ENVELOPE_BYTES, Transaction};
use rota_core::types::{ChainId, Height, PublicKey};

use crate::board::Board;
use crate::driver::{ENVELOPE_FRAME_BYTES, Patience, QueuedWrite};
use crate::mailbox::Inputs;
use crate::pending::Pending;

/// An envelope's expiry in blocks: far more than can be made until its time has passed, so that the
/// time is what counts.
const EXPIRY_BLOCKS: u64 = 100_000;

/// The most transactions in an envelope: one signature for that many costs next to nothing for
/// each.
const MOST_TRANSACTIONS: usize = 500;

/// No more is added to an envelope of this size, so that several servers' envelopes share a block.
const GATHERED_BYTES: usize = 256 << 10;

/// With fewer transactions in flight than this, a write is signed at once.
const EAGER: usize = 4;

/// A larger write is signed by the signer's thread: hashing it takes longer than the way there.
const LONE_BYTES: usize = 64 << 10;

/// With more, it waits this long for each in flight: the fuller the server, the longer a block
/// takes, and the more there is to gather.
const GATHER: Duration = Duration::from_micros(50);

/// The longest that a write waits for others: a part of the time that a block of many takes.
const MOST_GATHER: Duration = Duration::from_millis(5);

/// Signs with this server's key.
#[derive(Clone)]
pub(crate) struct Pen {
    pub(crate) nib: Arc<Nib>,
    pub(crate) board: Arc<Board>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) inputs: Inputs,
    /// How long what is signed is good for.
    pub(crate) expiry: Duration,
}

/// What makes the signatures: the same as the key's own, as RFC 8032 says which they are, by a
/// library that takes a third of the time.
pub(crate) struct Nib {
    signer: PublicKey,
    pair: Ed25519KeyPair,
}

impl Nib {
    pub(crate) fn new(key: &SecretKey) -> Result<Self, Fault> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&key.to_bytes())
            .map_err(|error| Fault::WrongFiles(format!("the server's key: {error}")))?;
        Ok(Self { signer: key.public(), pair })
    }

    fn sign(&self, chain: ChainId, expiry: Expiry, transactions: Vec<Transaction>) -> Envelope {
        Envelope::sign_by(chain, self.signer, expiry, transactions, |message| {
            let mut bytes = [0; 64];
            bytes.copy_from_slice(self.pair.sign(message).as_ref());
            Signature(bytes)
        })
    }
}

/// What was not signed, or was and did not reach the replica.
pub(crate) enum Unsent {
    /// So much is in flight that it is worth gathering some.
    Later(Box<QueuedWrite>),
    /// The replica has no room for it.
    Full,
    /// The replica is gone.
    Gone,
}

impl Pen {
    /// Signs a lone write and hands it over at once.
    pub(crate) fn sign_lone(&self, write: QueuedWrite) -> Result<(), Unsent> {
        if self.pending.in_flight() >= EAGER || write.bytes > LONE_BYTES {
            return Err(Unsent::Later(Box::new(write)));
        }
        let Some(envelope) = self.sign(vec![write]) else { return Ok(()) };
        self.inputs.try_send(Input::Submit(envelope).into()).map_err(|error| match error {
            TrySendError::Full(_) => Unsent::Full,
            TrySendError::Disconnected(_) => Unsent::Gone,
        })
    }

    /// One envelope of all that somebody still waits for, if there is any.
    fn sign(&self, gathered: Vec<QueuedWrite>) -> Option<Arc<Envelope>> {
        let wanted =
            |write: QueuedWrite| self.pending.signed(&write.id).then_some(write.transaction);
        let transactions: Vec<Transaction> = gathered.into_iter().filter_map(wanted).collect();
        if transactions.is_empty() {
            return None;
        }
        let (height, time): (Height, Time) = self.board.chain_now();
        let expiry = Expiry {
            height: Height(height.0.saturating_add(EXPIRY_BLOCKS)),
            time: time.plus(self.expiry),
        };
        Some(Arc::new(self.nib.sign(self.board.chain, expiry, transactions)))
    }
}

/// Gathers and signs until no more writes come or nobody wants them.
pub(crate) struct Signer {
    pub(crate) pen: Pen,
    pub(crate) writes: Receiver<QueuedWrite>,
    pub(crate) limits: EnvelopeLimits,
}

/// How large an envelope may be, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvelopeLimits {
    /// Transactions.
    pub(crate) transactions: usize,
    /// Encoded bytes of one transaction, or of all together.
    pub(crate) bytes: usize,
    /// How far ahead an expiry may lie.
    pub(crate) max_expiry: Duration,
    /// How long a write may take.
    pub(crate) patience: Patience,
}

impl EnvelopeLimits {
    /// An envelope must fit in a block of its own.
    pub(crate) fn new(genesis: &Genesis) -> Self {
        let parameters = &genesis.parameters;
        let block = usize::try_from(parameters.block_bytes).unwrap_or(usize::MAX);
        let most = usize::try_from(parameters.block_transactions).unwrap_or(usize::MAX);
        Self {
            transactions: MOST_TRANSACTIONS.min(most),
            bytes: MAX_ENVELOPE_BYTES.min(block).saturating_sub(ENVELOPE_FRAME_BYTES),
            max_expiry: Patience::most_expiry(genesis),
            patience: Patience::of(genesis),
        }
    }
}

impl Signer {
    /// The thread's body.
    pub(crate) fn run(self) -> Result<(), Fault> {
        let mut next = self.writes.recv().ok();
        while let Some(first) = next.take() {
            let (gathered, left_over) = self.gather(first);
            if !self.submit(gathered) {
                break;
            }
            next = left_over.or_else(|| self.writes.recv().ok());
        }
        Ok(())
    }

    /// What goes into the next envelope, and a write that was taken and did not fit.
    fn gather(&self, first: QueuedWrite) -> (Vec<QueuedWrite>, Option<QueuedWrite>) {
        let in_flight = self.pen.pending.in_flight();
        let wait = GATHER.saturating_mul(u32::try_from(in_flight).unwrap_or(u32::MAX));
        let deadline = (in_flight >= EAGER).then(|| Instant::now() + wait.min(MOST_GATHER));
        let mut bytes = first.bytes;
        let mut gathered = vec![first];
        while gathered.len() < self.limits.transactions && bytes < GATHERED_BYTES {
            let next = match deadline {
                None => self.writes.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                Some(deadline) => self.writes.recv_deadline(deadline),
            };
            let Ok(next) = next else { break };
            bytes = bytes.saturating_add(next.bytes);
            if bytes > self.limits.bytes {
                return (gathered, Some(next));
            }
            gathered.push(next);
        }
        (gathered, None)
    }

    /// Signs and hands over. False when the replica is gone.
    fn submit(&self, gathered: Vec<QueuedWrite>) -> bool {
        let Some(envelope) = self.pen.sign(gathered) else { return true };
        self.pen.inputs.send(Input::Submit(envelope).into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_core::transaction::{Parameters, Settings, Statement};

    #[test]
    fn its_signatures_are_the_keys_own() {
        let key = SecretKey::from_bytes([7; 32]);
        let expiry = Expiry { height: Height(9), time: Time(1_000) };
        let parameters = Parameters::Positional(Vec::new());
        let transaction = Transaction {
            salt: [3; 16],
            user: "rota".into(),
            statements: vec![Statement { sql: "SELECT 1".into(), parameters }],
            settings: Settings::default(),
            interactive: None,
        };
        let chain = ChainId::default();
        let own = Envelope::sign(chain, &key, expiry, vec![transaction.clone()]);
        let made = Nib::new(&key).unwrap().sign(chain, expiry, vec![transaction]);
        assert_eq!(made, own);
        assert!(made.claim(chain).verify().is_ok());
    }
}
