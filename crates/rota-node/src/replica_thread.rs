//! The thread that owns the replica and `chain.db`: takes inputs in batches, so that one flush
//! makes all of a batch's promises durable, and carries out what follows. Never waits but for
//! inputs, time and the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use crossbeam_channel::TrySendError;
use rota_core::block::Block;
use rota_core::consensus::Standing;
use rota_core::error::{Fault, Invalid, Refusal};
use rota_core::genesis::Method;
use rota_core::message::{Message, Offer, Recipient};
use rota_core::replica::{Input, Output};
use rota_core::time::Instant;
use rota_core::transaction::Envelope;
use rota_core::types::{Height, NodeId, StateRoot, TransactionId};
use rota_core::work::SearchJob;
use rota_store::chain_db::ChainDb;
use rota_store::host::{Host, Io};
use rota_store::snapshot::swap::Incoming;
use tokio::sync::mpsc;

use crate::agenda::Orders;
use crate::anew::Anew;
use crate::board::Board;
use crate::clock::Clock;
use crate::executor::{Executed, Job};
use crate::mailbox::{Mailbox, Post, Wanted};
use crate::miner::Miner;
use crate::pending::Pending;
use crate::threads::Faults;
use crate::transport::{Room, Transport};
use crate::unfinal::{Question, Unfinal, Waiting};

/// With nothing to wait for, the thread looks up this seldom; it need not at all.
const LONG: Duration = Duration::from_secs(3600);

/// Under `raft` nothing that is decided waits for what is executed: the thread takes note of it
/// when it wakes for something else, or after this.
const EXECUTED_WAITS: Duration = Duration::from_millis(2);

/// The replica's thread.
pub(crate) struct ReplicaThread {
    pub(crate) host: Host<ChainDb>,
    pub(crate) clock: Clock,
    pub(crate) board: Arc<Board>,
    pub(crate) mailbox: Mailbox,
    pub(crate) outside: Outside,
}

/// What the replica's outputs reach.
pub(crate) struct Outside {
    pub(crate) transport: Transport,
    pub(crate) jobs: Orders,
    pub(crate) pending: Arc<Pending>,
    pub(crate) unfinal: Arc<Unfinal>,
    pub(crate) board: Arc<Board>,
    pub(crate) miner: Miner,
    pub(crate) incoming: Incoming,
    /// Where the server hears that it has to start anew.
    pub(crate) anew: mpsc::Sender<Anew>,
    pub(crate) faults: Faults,
    /// Blocks that the executor's queue had no room for: at most what one batch of inputs made
    /// final, since no inputs are taken until they are gone.
    pub(crate) backlog: VecDeque<Job>,
    /// Blocks that were asked for and are not known to be executed.
    pub(crate) executing: usize,
    pub(crate) wake: Option<Instant>,
}

impl ReplicaThread {
    /// The thread's body; `first` are the outputs of the replica's start.
    pub(crate) fn run(mut self, first: Vec<Output>) -> Result<(), Fault> {
        self.host.carry_out(first, &mut self.outside)?;
        while let Some(Post { results, inputs, questions }) = self.wait() {
            questions.into_iter().for_each(|question| self.answer(question));
            let mut batch: Vec<Input> = Vec::with_capacity(results.len() + inputs.len() + 1);
            batch.extend(results.into_iter().map(|result| self.executed(result)));
            let mut rooms: Vec<Option<Room>> = Vec::with_capacity(inputs.len());
            for arrival in inputs {
                batch.push(arrival.input);
                rooms.push(arrival.room);
            }
            let now = self.clock.now();
            if self.outside.wake.is_some_and(|at| at <= now.instant) {
                self.outside.wake = None;
                batch.push(Input::Woken);
            }
            self.outside.drain_backlog();
            if self.board.refuse_if_diverged().is_ok() {
                self.host.handle(now, batch, &mut self.outside)?;
            }
            drop(rooms);
            self.publish();
        }
        Ok(())
    }

    /// Waits for something to do. Nothing when the server stops.
    fn wait(&self) -> Option<Post> {
        let held_up = !self.outside.backlog.is_empty();
        // What a diverged server has asked for is never executed.
        let executes = self.outside.executing > 0 && self.board.refuse_if_diverged().is_ok();
        let can_wait = self.board.method() == Method::Raft && !held_up;
        let wanted = Wanted { inputs: !held_up, results: !can_wait };
        let until_woken = self.outside.wake.map_or(LONG, |at| at.since(self.clock.now().instant));
        let patience = match can_wait && executes {
            true => until_woken.min(EXECUTED_WAITS),
            false => until_woken,
        };
        self.mailbox.take(wanted, Moment::now() + patience)
    }

    /// Tells what is not final. Whoever asked may have gone away.
    fn answer(&self, question: Question) {
        let replica = self.host.replica();
        match question {
            Question::Tail(asker) => drop(asker.send(replica.tail())),
            Question::Waiting(asker) => {
                let waiting = Waiting { tail: replica.tail(), envelopes: replica.waiting() };
                drop(asker.try_send(waiting));
            }
        }
    }

    fn executed(&mut self, result: Executed) -> Input {
        self.outside.executing = self.outside.executing.saturating_sub(1);
        self.host.journal().save_receipts(result.receipts);
        Input::Applied(result.applied)
    }

    fn publish(&mut self) {
        let status = self.host.replica().status(self.clock.now());
        let fsyncs = self.host.journal().fsyncs();
        let paused = match &status.standing {
            Standing::Mining(mining) => Some(mining.paused.clone()),
            _ => None,
        };
        self.board.replica_is(status, fsyncs);
        if let Some(why) = paused {
            self.outside.pending.pause(why);
        }
    }
}

impl Outside {
    fn ask(&mut self, job: Job) {
        self.backlog.push_back(job);
        self.drain_backlog();
    }

    fn drain_backlog(&mut self) {
        while let Some(job) = self.backlog.pop_front() {
            match self.jobs.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    self.backlog.push_front(job);
                    return;
                }
                // The executor ended by a fault, which stops the server.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }
}

impl Io for Outside {
    fn send(&mut self, to: Recipient, message: Message) {
        self.transport.send(&to, &message);
    }

    fn apply(&mut self, block: Arc<Block>) {
        self.executing += 1;
        self.ask(Job::Apply(block));
    }

    fn ahead(&mut self, block: Arc<Block>) {
        // A later one would have to wait for it, and it is a hint.
        if self.backlog.is_empty() {
            self.jobs.expect(block);
        }
    }

    fn wake(&mut self, at: Instant) {
        self.wake = Some(at);
    }

    fn admitted(&mut self, envelope: Arc<Envelope>) {
        self.pending.admitted(&envelope);
    }

    fn notarized(&mut self, blocks: Vec<Arc<Block>>) {
        for block in blocks {
            self.pending.notarized(&block);
        }
    }

    fn barrier(&mut self, id: u64, reached: Result<Height, Refusal>) {
        self.unfinal.barrier(id, reached);
    }

    fn dropped(&mut self, transactions: Vec<TransactionId>, why: Refusal) {
        self.pending.dropped(&transactions, &why);
    }

    fn search(&mut self, job: Option<SearchJob>) {
        self.miner.search(job);
    }

    fn punish(&mut self, peer: NodeId, why: Invalid) {
        self.transport.punish(peer, why);
    }

    fn chunk(&mut self, height: Height, number: u32, bytes: Vec<u8>) {
        if let Err(fault) = self.incoming.keep(height, number, &bytes) {
            self.faults.raise(fault);
        }
    }

    fn restore(&mut self, offer: Offer, from: NodeId) {
        // There is room for one, and nothing comes after it.
        let _ = self.anew.try_send(Anew::Restore { offer: Box::new(offer), from });
    }

    fn rewind(&mut self, height: Height) {
        let _ = self.anew.try_send(Anew::Rewind { height });
    }

    fn report(&mut self, line: String) {
        tracing::info!("{line}");
    }

    fn diverged(&mut self, height: Height, agreed: StateRoot, ours: StateRoot) {
        tracing::error!(%height, %agreed, %ours, "this server's state is not the cluster's");
        self.board
            .diverge(format!("at height {height} it has root {ours:?}, the cluster {agreed:?}"));
        self.pending.close("this server's state is not the cluster's");
        self.ask(Job::Rescan);
    }
}
