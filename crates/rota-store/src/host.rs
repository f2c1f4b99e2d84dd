//! The one executor of what the replica decides: between steps 3–7 (core) and the world. Node and
//! simulator supply the journal and the I/O; the order of things is this code, in both.
//!
//! ```text
//! inputs ──► Replica::step, one by one ──► outputs
//!                                          │ 1. those before the first Persist
//!                                          │ 2. every Persist of the batch: ONE append, one fsync
//!                                          ▼
//!                                          3. all other outputs; 1 and 3 strictly in order
//! ```
//!
//! **Why this order is right.** An output may depend on any record before it, its own batch's or an
//! older one's, and on none after it. Older batches' records are on disk, since `handle` returns
//! only then; so what stands before this batch's first record need not wait for the disk (a `raft`
//! leader's entries travel while it writes them), and all that stands after it waits for all of
//! them: more than asked for, and it costs one fsync however many inputs came at once (group
//! commit). Records keep their order among themselves, and so do the other outputs. When the append
//! fails nothing leaves that comes after it: the replica in memory is then ahead of what is known,
//! and must not be stepped again, so that the fault is final. `Serve` may answer with blocks of the
//! same batch, which are as final as any.

use std::sync::Arc;

use rota_core::block::Block;
use rota_core::codec::encode;
use rota_core::error::{Fault, Invalid, Refusal};
use rota_core::journal::Record;
use rota_core::message::{Fetch, Message, Offer, Recipient};
use rota_core::replica::{Input, Output, Replica, Status};
use rota_core::time::{Instant, Now};
use rota_core::transaction::Envelope;
use rota_core::types::{Height, NodeId, StateRoot, TransactionId};
use rota_core::work::SearchJob;

/// Where records go. [`crate::chain_db::ChainDb`], or the simulator's wrapping of it.
pub trait Journal {
    /// Writes records, all of them or none, and returns when they would survive a power loss.
    fn append(&mut self, records: &[Record]) -> Result<(), Fault>;

    /// Takes note of a record: it is written with the next append, before its records, or by
    /// itself when the server is idle. A crash may lose it.
    fn note(&mut self, record: Record);

    /// The answer to a peer's question, if there is one here.
    fn serve(&mut self, fetch: &Fetch) -> Result<Option<Message>, Fault>;
}

/// What a server does to the world. None of these may block for long, and none can fail: what
/// cannot be done is dropped, as a network drops things, or stops the server by a way of its own.
pub trait Io {
    /// Sends, best effort.
    fn send(&mut self, to: Recipient, message: Message);
    /// Hands a final block to the executor, which answers with `Input::Applied`.
    fn apply(&mut self, block: Arc<Block>);
    /// Lets the executor execute, and not commit, the block that is most likely handed to it next,
    /// or not: it is a hint.
    fn ahead(&mut self, block: Arc<Block>);
    /// Asks for `Input::Woken` at this instant, instead of the one asked for before.
    fn wake(&mut self, at: Instant);
    /// Tells our own clients that their transactions are in the mempool.
    fn admitted(&mut self, envelope: Arc<Envelope>);
    /// Tells our own clients that these blocks are notarized.
    fn notarized(&mut self, blocks: Vec<Arc<Block>>);
    /// Lets a linearizable read go on, on a state of at least this height, or refuses it.
    fn barrier(&mut self, id: u64, reached: Result<Height, Refusal>);
    /// Tells our own clients that these will not be executed.
    fn dropped(&mut self, transactions: Vec<TransactionId>, why: Refusal);
    /// Looks for this proof of work from now on, or for none.
    fn search(&mut self, job: Option<SearchJob>);
    /// Keeps a peer out for a while.
    fn punish(&mut self, peer: NodeId, why: Invalid);
    /// Keeps a piece of the snapshot that is being fetched.
    fn chunk(&mut self, height: Height, number: u32, bytes: Vec<u8>);
    /// Takes over a snapshot that has been fetched from this peer, and starts the server anew from
    /// it.
    fn restore(&mut self, offer: Offer, from: NodeId);
    /// Removes the final blocks above this height, and starts the server anew without them.
    fn rewind(&mut self, height: Height);
    /// Writes a line to the log.
    fn report(&mut self, line: String);
    /// Stops serving: our state after `height` is not what a quorum agreed on.
    fn diverged(&mut self, height: Height, agreed: StateRoot, ours: StateRoot);
}

/// A replica with its journal.
pub struct Host<J: Journal> {
    replica: Replica,
    journal: J,
    /// Whether the server is to start anew from other files: the replica is not stepped again.
    ended: bool,
}

impl<J: Journal> Host<J> {
    /// Puts a replica and its journal together. The outputs that `Replica::new` returned go to
    /// [`Host::carry_out`].
    pub fn new(replica: Replica, journal: J) -> Self {
        Self { replica, journal, ended: false }
    }

    /// The same, with the outputs of `Replica::new` carried out.
    pub fn start(
        replica: Replica,
        journal: J,
        outputs: Vec<Output>,
        io: &mut dyn Io,
    ) -> Result<Self, Fault> {
        let mut host = Self::new(replica, journal);
        host.carry_out(outputs, io)?;
        Ok(host)
    }

    /// Steps every input in order and carries out what follows. After a fault this must not be
    /// called again.
    pub fn handle(
        &mut self,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
        io: &mut dyn Io,
    ) -> Result<(), Fault> {
        let mut outputs = Vec::new();
        for input in inputs {
            if self.ended {
                break;
            }
            let more = self.replica.step(now, input);
            self.ended |= more.iter().any(ends);
            outputs.extend(more);
        }
        if !self.ended {
            outputs.extend(self.replica.drained(now));
        }
        self.carry_out(outputs, io)
    }

    /// Carries out outputs: those that `Replica::new` returned, before anything else.
    pub fn carry_out(&mut self, outputs: Vec<Output>, io: &mut dyn Io) -> Result<(), Fault> {
        for (to, bytes) in carry_out(&mut self.journal, outputs, io)? {
            self.replica.served(to, bytes);
        }
        Ok(())
    }

    /// Where the replica stands.
    pub fn status(&self, now: Now) -> Status {
        self.replica.status(now)
    }

    /// The replica, to look at.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The journal, for what is not a record: receipts, blocks to apply again.
    pub fn journal(&mut self) -> &mut J {
        &mut self.journal
    }

    /// The two apart again.
    pub fn into_parts(self) -> (Replica, J) {
        (self.replica, self.journal)
    }
}

/// Carries out outputs in the order above. After a fault nothing may be carried out again. Gives
/// back who was answered from the journal with blocks, of how many bytes.
fn carry_out(
    journal: &mut impl Journal,
    mut outputs: Vec<Output>,
    io: &mut dyn Io,
) -> Result<Vec<(NodeId, usize)>, Fault> {
    let mut served = Vec::new();
    if let Some(last) = outputs.iter().position(ends) {
        outputs.truncate(last + 1);
    }
    let (mut records, mut others) = (Vec::new(), Vec::new());
    for output in outputs {
        match output {
            Output::Persist(record) => records.push(record),
            // It tells of what follows those blocks: it must not be written before them.
            Output::Note(record) if records.iter().any(makes_final) => records.push(record),
            // Before the records that follow it in this batch: what it tells of is older.
            Output::Note(record) => journal.note(record),
            other if records.is_empty() => carry_out_one(journal, other, io, &mut served)?,
            other => others.push(other),
        }
    }
    if !records.is_empty() {
        journal.append(&records)?;
    }
    others.into_iter().try_for_each(|output| carry_out_one(journal, output, io, &mut served))?;
    Ok(served)
}

/// Whether blocks are final by this record.
fn makes_final(record: &Record) -> bool {
    matches!(record, Record::Finalized { .. })
}

/// Whether nothing is carried out after this output.
fn ends(output: &Output) -> bool {
    matches!(output, Output::Restore { .. } | Output::Rewind { .. })
}

/// Carries out what is no record.
fn carry_out_one(
    journal: &mut impl Journal,
    output: Output,
    io: &mut dyn Io,
    served: &mut Vec<(NodeId, usize)>,
) -> Result<(), Fault> {
    match output {
        Output::Persist(_) | Output::Note(_) => {
            unreachable!("records are written together")
        }
        Output::Send { to, message } => io.send(to, message),
        Output::Serve { to, fetch } => {
            if let Some(message) = journal.serve(&fetch)? {
                if let Message::Pending(block) = &message {
                    served.push((to, encode(&**block).len()));
                }
                io.send(Recipient::One(to), message);
            }
        }
        Output::Apply(block) => io.apply(block),
        Output::Ahead(block) => io.ahead(block),
        Output::Wake { at } => io.wake(at),
        Output::Admitted(envelope) => io.admitted(envelope),
        Output::Notarized(blocks) => io.notarized(blocks),
        Output::BarrierReached { id, height } => io.barrier(id, Ok(height)),
        Output::BarrierFailed { id, why } => io.barrier(id, Err(why)),
        Output::Dropped { transactions, why } => io.dropped(transactions, why),
        Output::Search(job) => io.search(job),
        Output::Punish { peer, why } => io.punish(peer, why),
        Output::Chunk { height, number, bytes } => io.chunk(height, number, bytes),
        Output::Restore { offer, from } => io.restore(*offer, from),
        Output::Rewind { height } => io.rewind(height),
        Output::Report(line) => io.report(line),
        Output::Diverged { height, agreed, ours } => io.diverged(height, agreed, ours),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain_db::tests::{Maker, genesis};
    use rota_core::block::{Certificate, Choice, Finality};
    use rota_core::types::{Epoch, NodeId, Slot};

    /// Journal and world in one, so that the order between the two is seen.
    #[derive(Default)]
    struct Seen {
        events: std::rc::Rc<std::cell::RefCell<Vec<String>>>,
        fails: bool,
    }

    impl Seen {
        fn note(&self, event: impl Into<String>) {
            self.events.borrow_mut().push(event.into());
        }

        fn journal(&self) -> Self {
            Self { events: self.events.clone(), fails: self.fails }
        }
    }

    impl Journal for Seen {
        fn append(&mut self, records: &[Record]) -> Result<(), Fault> {
            if self.fails {
                return Err(Fault::storage("test", "the disk is gone"));
            }
            let slots: Vec<u64> = records.iter().map(|record| record.slot().0).collect();
            Self::note(self, format!("disk {slots:?}"));
            Ok(())
        }

        fn note(&mut self, record: Record) {
            Self::note(self, format!("noted {}", record.slot()));
        }

        fn serve(&mut self, fetch: &Fetch) -> Result<Option<Message>, Fault> {
            Self::note(self, "look up");
            Ok(match fetch {
                Fetch::FinalAfter(Height(0)) => Some(Message::Fetch(fetch.clone())),
                _ => None,
            })
        }
    }

    impl Io for Seen {
        fn send(&mut self, _: Recipient, message: Message) {
            Self::note(
                self,
                match message {
                    Message::Certificate(certificate) => format!("send {}", certificate.slot),
                    _ => "answer".into(),
                },
            );
        }
        fn apply(&mut self, block: Arc<Block>) {
            Self::note(self, format!("apply {}", block.header.height));
        }
        fn ahead(&mut self, block: Arc<Block>) {
            Self::note(self, format!("ahead {}", block.header.height));
        }
        fn wake(&mut self, at: Instant) {
            Self::note(self, format!("wake {}", at.0));
        }
        fn admitted(&mut self, _: Arc<Envelope>) {
            Self::note(self, "admitted");
        }
        fn notarized(&mut self, blocks: Vec<Arc<Block>>) {
            Self::note(self, format!("notarized {}", blocks.len()));
        }
        fn barrier(&mut self, id: u64, _: Result<Height, Refusal>) {
            Self::note(self, format!("barrier {id}"));
        }
        fn dropped(&mut self, transactions: Vec<TransactionId>, _: Refusal) {
            Self::note(self, format!("dropped {}", transactions.len()));
        }
        fn search(&mut self, _: Option<SearchJob>) {
            Self::note(self, "search");
        }
        fn punish(&mut self, _: NodeId, why: Invalid) {
            Self::note(self, why.to_string());
        }
        fn chunk(&mut self, height: Height, number: u32, _: Vec<u8>) {
            Self::note(self, format!("chunk {height} {number}"));
        }
        fn restore(&mut self, offer: Offer, _: NodeId) {
            Self::note(self, format!("restore {}", offer.applied.height));
        }
        fn rewind(&mut self, height: Height) {
            Self::note(self, format!("rewind {height}"));
        }
        fn report(&mut self, line: String) {
            Self::note(self, line);
        }
        fn diverged(&mut self, height: Height, _: StateRoot, _: StateRoot) {
            Self::note(self, format!("diverged {height}"));
        }
    }

    fn certificate(slot: u64) -> Certificate {
        let choice = Choice::Nullify;
        Certificate { epoch: Epoch(0), slot: Slot(slot), choice, votes: Vec::new() }
    }

    fn persist(slot: u64) -> Output {
        Output::Persist(Record::Entered(certificate(slot)))
    }

    fn send(slot: u64) -> Output {
        let message = Message::Certificate(certificate(slot));
        Output::Send { to: Recipient::Members, message }
    }

    fn serve(height: u64) -> Output {
        Output::Serve { to: NodeId::default(), fetch: Fetch::FinalAfter(Height(height)) }
    }

    fn run(fails: bool, outputs: Vec<Output>) -> (bool, Vec<String>) {
        let mut io = Seen { fails, ..Seen::default() };
        let result = carry_out(&mut io.journal(), outputs, &mut io);
        let events = io.events.borrow().clone();
        (result.is_ok(), events)
    }

    #[test]
    fn a_batch_is_on_disk_in_one_append_before_anything_leaves_that_may_depend_on_it() {
        let outputs = vec![
            send(1),
            send(2),
            persist(2),
            Output::Wake { at: Instant(9) },
            persist(3),
            send(4),
        ];
        let (ok, events) = run(false, outputs);
        assert!(ok);
        assert_eq!(events, ["send 1", "send 2", "disk [3, 4]", "wake 9", "send 4"]);
    }

    #[test]
    fn nothing_leaves_after_a_record_when_the_journal_fails() {
        let why = Refusal::new("53000", "busy");
        let outputs = vec![
            send(1),
            persist(2),
            Output::Dropped { transactions: Vec::new(), why },
            persist(3),
            Output::Report("hello".into()),
        ];
        assert_eq!(run(true, outputs), (false, vec!["send 1".to_string()]));
    }

    #[test]
    fn answers_are_looked_up_after_the_append_and_only_what_exists_is_sent() {
        let (_, events) = run(false, vec![persist(1), serve(0), serve(7)]);
        assert_eq!(events, ["disk [2]", "look up", "answer", "look up"]);
    }

    #[test]
    fn what_is_noted_after_blocks_became_final_is_not_written_before_them() {
        let mut maker = Maker::new(&genesis("host"));
        let mut finalized = |index| {
            let finality = Finality::Log { term: 1, index };
            Record::Finalized { blocks: vec![maker.next(index, 1)], finality }
        };
        let (one, two, three) = (finalized(1), finalized(2), finalized(3));
        let outputs = vec![Output::Note(one), Output::Persist(two), Output::Note(three.clone())];
        assert_eq!(run(false, outputs).1, ["noted 1", "disk [2, 3]"]);
        // Entries are older than what is noted of them: the note need not be written with them.
        assert_eq!(run(false, vec![persist(1), Output::Note(three)]).1, ["noted 3", "disk [2]"]);
    }

    #[test]
    fn nothing_leaves_once_the_server_is_to_start_anew() {
        let rewind = Output::Rewind { height: Height(7) };
        let (_, events) = run(false, vec![persist(1), send(1), rewind, send(2), persist(3)]);
        assert_eq!(events, ["disk [2]", "send 1", "rewind 7"]);
    }

    #[test]
    fn what_needs_no_promise_costs_no_append() {
        let (_, events) = run(false, vec![send(1), Output::Report("hello".into())]);
        assert_eq!(events, ["send 1", "hello"]);
    }
}
