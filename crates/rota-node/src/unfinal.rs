//! What is not final yet, for whoever asks: the driver and the readers ask, the replica's thread
//! answers between two batches of inputs. Steps 1 and 9; the normal path of a write does not come
//! by here.
//!
//! ```text
//!  linearizable() ── Input::Barrier ──► replica ── Io::barrier ──► the read goes on
//!  tail(), knows() ── Question ──► replica's thread ──► blocks, waiting envelopes
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use rota_core::block::Block;
use rota_core::error::{Refusal, sqlstate};
use rota_core::replica::Input;
use rota_core::transaction::Envelope;
use rota_core::types::{ChainId, Height, TransactionId};
use tokio::sync::oneshot;

use crate::driver::{busy, stopping};
use crate::mailbox::{Inputs, Questions};
use crate::pending::Pending;

/// How long a linearizable read waits for the replica's word, which comes sooner as a rule, good or
/// bad.
const BARRIER_WAIT: Duration = Duration::from_secs(12);

/// How long a question may wait for the replica's thread, which answers within one batch of inputs.
const QUESTION_WAIT: Duration = Duration::from_secs(5);

/// What waits is collected anew after this at the soonest, and ...
const COLLECT_PAUSE: Duration = Duration::from_millis(10);

/// ... after so many times what collecting took: with a full mempool it takes a while, and a query
/// can ask for many transactions.
const COLLECT_SHARE: u32 = 20;

/// A question to the replica's thread.
pub(crate) enum Question {
    /// The blocks beyond the executed state.
    Tail(oneshot::Sender<Vec<Arc<Block>>>),
    /// The same, and the envelopes that wait.
    Waiting(Sender<Waiting>),
}

/// What is on its way.
pub(crate) struct Waiting {
    /// Blocks beyond the executed state.
    pub(crate) tail: Vec<Arc<Block>>,
    /// The mempool.
    pub(crate) envelopes: Vec<Arc<Envelope>>,
}

/// Asks, and is told.
pub(crate) struct Unfinal {
    chain: ChainId,
    inputs: Inputs,
    questions: Questions,
    pending: Arc<Pending>,
    reads: Mutex<HashMap<u64, oneshot::Sender<Result<Height, Refusal>>>>,
    seen: Mutex<Seen>,
}

/// The transactions that waited when it was last looked.
#[derive(Default)]
struct Seen {
    ids: HashSet<TransactionId>,
    until: Option<Instant>,
}

/// A read's place, given up when this is dropped.
struct Place<'a> {
    unfinal: &'a Unfinal,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.unfinal.reads).remove(&self.id);
    }
}

impl Unfinal {
    pub(crate) fn new(
        chain: ChainId,
        inputs: Inputs,
        questions: Questions,
        pending: Arc<Pending>,
    ) -> Self {
        let (reads, seen) = (Mutex::default(), Mutex::default());
        Self { chain, inputs, questions, pending, reads, seen }
    }

    /// Returns once this server's executed state, of the height returned or later, contains every
    /// write that was acknowledged anywhere before this was called. 57P03 when that cannot be made
    /// sure of in time.
    pub(crate) async fn linearizable(&self, deadline: Option<Instant>) -> Result<Height, Refusal> {
        let id = random()?;
        let (sender, answer) = oneshot::channel();
        lock(&self.reads).insert(id, sender);
        let _place = Place { unfinal: self, id };
        self.inputs.try_send(Input::Barrier { id }.into()).map_err(|error| match error {
            TrySendError::Full(_) => busy("reads"),
            TrySendError::Disconnected(_) => stopping(),
        })?;
        let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let patience = patience.map_or(BARRIER_WAIT, |patience| patience.min(BARRIER_WAIT));
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refusal::new(
                sqlstate::QUERY_CANCELED,
                "a linearizable read was not confirmed by enough servers in time",
            )),
        }
    }

    /// Has the turn handed over, if this server has it. With a full queue there is no time for it.
    pub(crate) fn hand_over(&self) {
        let _ = self.inputs.try_send(Input::Yield.into());
    }

    /// Hands an envelope that is signed and checked to the replica. `53000`: too much waits for it.
    pub(crate) fn submit(&self, envelope: Arc<Envelope>) -> Result<(), Refusal> {
        self.inputs.try_send(Input::Submit(envelope).into()).map_err(|error| match error {
            TrySendError::Full(_) => busy("writes"),
            TrySendError::Disconnected(_) => stopping(),
        })
    }

    /// The blocks after the executed state, by rising height: final ones that are being executed,
    /// then those that may yet be abandoned, the last of which may not be notarized. A state opened
    /// *after* this call is at most so far behind that the first block follows it; blocks that it
    /// contains already are to be left out.
    pub(crate) async fn tail(&self) -> Result<Vec<Arc<Block>>, Refusal> {
        let (sender, answer) = oneshot::channel();
        self.ask(Question::Tail(sender))?;
        match tokio::time::timeout(QUESTION_WAIT, answer).await {
            Ok(Ok(tail)) => Ok(tail),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(busy("questions")),
        }
    }

    /// Whether this transaction is on its way, as far as this server knows: queued or signed here,
    /// in the mempool, or in a block that is not executed. Blocks for a moment: for readers'
    /// threads.
    pub(crate) fn knows(&self, id: &TransactionId) -> bool {
        if self.pending.has(id) {
            return true;
        }
        let mut seen = lock(&self.seen);
        if seen.until.is_none_or(|until| until <= Instant::now()) {
            let began = Instant::now();
            seen.ids = self.collect().unwrap_or_default();
            let pause = began.elapsed().saturating_mul(COLLECT_SHARE).max(COLLECT_PAUSE);
            seen.until = Some(Instant::now() + pause);
        }
        seen.ids.contains(id)
    }

    fn collect(&self) -> Option<HashSet<TransactionId>> {
        let (sender, answer) = bounded(1);
        self.ask(Question::Waiting(sender)).ok()?;
        let Waiting { tail, envelopes } = answer.recv_timeout(QUESTION_WAIT).ok()?;
        let in_blocks = tail.iter().flat_map(|block| &block.body.envelopes);
        let ids = in_blocks.chain(&envelopes).flat_map(|envelope| {
            let id = |t: &rota_core::transaction::Transaction| t.id(self.chain, envelope.signer);
            envelope.transactions.iter().map(id)
        });
        Some(ids.collect())
    }

    /// The replica's word on a linearizable read.
    pub(crate) fn barrier(&self, id: u64, reached: Result<Height, Refusal>) {
        if let Some(read) = lock(&self.reads).remove(&id) {
            // A client that went away does not mind.
            let _ = read.send(reached);
        }
    }

    fn ask(&self, question: Question) -> Result<(), Refusal> {
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => busy("questions"),
            TrySendError::Disconnected(_) => stopping(),
        })
    }
}

/// A number that does not come again, in this process or a later one.
fn random() -> Result<u64, Refusal> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Refusal::new(sqlstate::INTERNAL, format!("the system's random source failed: {error}"))
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// What a thread that panicked left behind is still right.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
