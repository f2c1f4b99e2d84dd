//! The one executor of what the replica decides: between steps 3–7 (core) and the world. Node and simulator supply the
//! journal and the I/O; the order of things is this code, in both.
//!
//! ```text
//!   inputs ──► Replica::step, one by one ──► outputs
//!                                              │ 1. every Persist of the batch: ONE append, one fsync
//!                                              ▼
//!                                            2. all other outputs, strictly in order
//! ```
//!
//! **Why this order is right.** An output may depend on any record before it, its own batch's or an older one's, and on
//! none after it. Older batches' records are on disk, since `handle` returns only then, and this batch's are on disk before
//! its first other output is looked at. So whatever leaves, all that it promises is on disk: more than asked for, and it
//! costs one fsync however many inputs came at once (group commit). Records keep their order among themselves, and so do
//! the other outputs. When the append fails nothing of the batch leaves: the replica in memory is then ahead of what is
//! known, and must not be stepped again, so that the fault is final. `Serve` reads the journal after the append; it may
//! answer with blocks of the same batch, which are as final as any.

use std::sync::Arc;

use rota_core::block::Block;
use rota_core::error::{Fault, Refusal};
use rota_core::journal::Record;
use rota_core::message::{Fetch, Message, Recipient};
use rota_core::replica::Output;
use rota_core::time::Instant;
use rota_core::types::{Height, StateRoot, TransactionId};

/// Where records go. [`crate::chain_db::ChainDb`], or the simulator's wrapping of it.
pub trait Journal {
    /// Writes records, all of them or none, and returns when they would survive a power loss.
    fn append(&mut self, records: &[Record]) -> Result<(), Fault>;

    /// The answer to a peer's question, if there is one here.
    fn serve(&mut self, fetch: &Fetch) -> Result<Option<Message>, Fault>;
}

/// What a server does to the world. None of these may block for long, and none can fail: what cannot be done is dropped,
/// as a network drops things, or stops the server by a way of its own.
pub trait Io {
    /// Sends, best effort.
    fn send(&mut self, to: Recipient, message: Message);
    /// Hands a final block to the executor, which answers with `Input::Applied`.
    fn apply(&mut self, block: Arc<Block>);
    /// Asks for `Input::Woken` at this instant, instead of the one asked for before.
    fn wake(&mut self, at: Instant);
    /// Tells our own clients that these will not be executed.
    fn dropped(&mut self, transactions: Vec<TransactionId>, why: Refusal);
    /// Writes a line to the log.
    fn report(&mut self, line: String);
    /// Stops serving: our state after `height` is not what a quorum agreed on.
    fn diverged(&mut self, height: Height, agreed: StateRoot, ours: StateRoot);
}

/// Carries out outputs in the order above. After a fault nothing may be carried out again.
pub fn carry_out(
    journal: &mut impl Journal,
    outputs: Vec<Output>,
    io: &mut dyn Io,
) -> Result<(), Fault> {
    let (mut records, mut others) = (Vec::new(), Vec::new());
    for output in outputs {
        match output {
            Output::Persist(record) => records.push(record),
            other => others.push(other),
        }
    }
    if !records.is_empty() {
        journal.append(&records)?;
    }
    for output in others {
        match output {
            Output::Persist(_) => unreachable!("records were taken out above"),
            Output::Send { to, message } => io.send(to, message),
            Output::Serve { to, fetch } => {
                if let Some(message) = journal.serve(&fetch)? {
                    io.send(Recipient::One(to), message);
                }
            }
            Output::Apply(block) => io.apply(block),
            Output::Wake { at } => io.wake(at),
            Output::Dropped { transactions, why } => io.dropped(transactions, why),
            Output::Report(line) => io.report(line),
            Output::Diverged { height, agreed, ours } => io.diverged(height, agreed, ours),
        }
    }
    Ok(())
}
