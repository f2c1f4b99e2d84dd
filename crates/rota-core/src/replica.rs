//! A server's deciding part: everything that moves goes through [`Replica::step`].
//!
//! ```text
//! Input ──► Replica::step(now, input) ──► Vec<Output>, carried out in order by rota-store's `host`
//! ```
//!
//! This file only dispatches. Steps 3 to 7 of a transaction's life (crate docs) each have a file
//! here.

mod admit;
mod allowance;
mod barrier;
mod download;
mod finalize;
mod propose;
mod questions;
mod unfinal;
mod validate;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::allowance::{Allowance, Rate};
use self::barrier::Barriers;
use self::download::Downloads;
use self::questions::Questions;
use self::unfinal::Unfinal;
use crate::block::{Applied, Block};
use crate::chain::Chain;
use crate::consensus::{self, Action, Consensus, Event, Load, Standing};
use crate::crypto::SecretKey;
use crate::error::{Fault, Invalid, Refusal};
use crate::genesis::{Genesis, Method, Parameters};
use crate::journal::{Record, Recovered};
use crate::members::Members;
use crate::mempool::{Account, Mempool};
use crate::message::{Fetch, Message, Offer, Recipient};
use crate::time::{Instant, Now, Time};
use crate::transaction::Envelope;
use crate::types::{
    BlockId, ChainId, Epoch, Height, MemberIndex, NodeId, Slot, StateRoot, TransactionId,
};
use crate::work::{SearchJob, WorkProof};

/// What happens to a server.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer's message. Its form and signatures have been checked (`verify`).
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// An envelope of this server's own clients; signed by this server, or checked.
    Submit(Arc<Envelope>),
    /// A stream to this member was opened (again): it may have missed everything.
    Connected(NodeId),
    /// The last stream to this server is gone (`pow`, where anybody comes and goes).
    Disconnected(NodeId),
    /// The time of the last `Wake` has come. Too early or once too often is harmless.
    Woken,
    /// The block asked for by the oldest unanswered `Apply` is executed.
    Applied(Applied),
    /// A client wants to read every write that was acknowledged anywhere before now; answered by
    /// `BarrierReached` or `BarrierFailed`.
    Barrier {
        /// Names the read. Drawn at random: it must not come again, in this run or a later one.
        id: u64,
    },
    /// The search that was asked for last has found a proof.
    Found(WorkProof),
    /// Whether this server searches (`pow`); it does not at first.
    Mine(bool),
    /// This server is about to stop: whoever can take over at once should.
    Yield,
}

/// What a server is to do, in this order. Nothing may be sent before every `Persist` that stands
/// before it is on disk.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write down, durably.
    Persist(Record),
    /// Write down with the next record that is persisted, or when there is time; a crash may lose
    /// it.
    Note(Record),
    /// Send, best effort.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Answer a peer from the log of final blocks: `Message::Final`, or nothing if there is
    /// nothing.
    Serve {
        /// Who asks.
        to: NodeId,
        /// For what.
        fetch: Fetch,
    },
    /// Execute a final block. Each is applied once, by rising height, and answered by
    /// `Input::Applied`.
    Apply(Arc<Block>),
    /// This block most likely becomes final next (`raft`): execute it, but commit nothing. A hint:
    /// it may be left out, and another block may be applied instead.
    Ahead(Arc<Block>),
    /// Step with `Input::Woken` at this instant; replaces what was asked for before.
    Wake {
        /// When.
        at: Instant,
    },
    /// An envelope of our own clients is in the mempool.
    Admitted(Arc<Envelope>),
    /// These blocks are notarized, by rising height, each told once as a rule: unless most of the
    /// weight fails, they will become final. One that becomes final first is not told.
    Notarized(Vec<Arc<Block>>),
    /// What is executed here contains every write that was acknowledged anywhere before this read
    /// began.
    BarrierReached {
        /// The read.
        id: u64,
        /// What is executed.
        height: Height,
    },
    /// That cannot be said of this read in time.
    BarrierFailed {
        /// The read.
        id: u64,
        /// Why.
        why: Refusal,
    },
    /// These transactions of our own clients will not be executed.
    Dropped {
        /// Which.
        transactions: Vec<TransactionId>,
        /// Why.
        why: Refusal,
    },
    /// Look for the proof of this block (`pow`) instead of any other, or for none; answered by
    /// `Input::Found`.
    Search(Option<SearchJob>),
    /// Keep a peer out for a while: it sent what an honest one would not have sent.
    Punish {
        /// Who.
        peer: NodeId,
        /// What.
        why: Invalid,
    },
    /// Keep this piece of the snapshot that is being fetched.
    Chunk {
        /// Of the snapshot after this height.
        height: Height,
        /// Which.
        number: u32,
        /// Its bytes, whose hash is the offered one.
        bytes: Vec<u8>,
    },
    /// All pieces of this snapshot are kept, and its root is proven to be the cluster's: compare it
    /// with that of the rows, take it over in place of our files, and start anew from it. The
    /// replica is not stepped again.
    Restore {
        /// What was offered.
        offer: Box<Offer>,
        /// Who offered it: if the rows turn out to be others, it is not asked again
        /// (`Recovered::distrusted`).
        from: NodeId,
    },
    /// Final blocks above this height were not final after all (`pow`): remove them, go back to the
    /// state of this height, and start anew from it. The replica is not stepped again.
    Rewind {
        /// The last block that stays.
        height: Height,
    },
    /// For the log: something that an operator should know. Nothing depends on it.
    Report(String),
    /// Our state after `height` is not the one that a quorum finalized: stop serving, find out
    /// where.
    Diverged {
        /// The last block in both states.
        height: Height,
        /// The quorum's root.
        agreed: StateRoot,
        /// Ours.
        ours: StateRoot,
    },
}

/// What a server knows of where it stands, for people and for the front doors.
#[derive(Clone, Debug)]
pub struct Status {
    /// The current epoch.
    pub epoch: Epoch,
    /// The current slot.
    pub slot: Slot,
    /// Whose turn it is.
    pub leader: Option<NodeId>,
    /// The newest final block.
    pub height: Height,
    /// What is executed here.
    pub applied: Applied,
    /// What the newest final header says a quorum has executed.
    pub agreed: Applied,
    /// The newest final block's time.
    pub block_time: Time,
    /// Estimated date now: the newest block's time and what has passed since.
    pub chain_time: Time,
    /// Envelopes waiting here to become final.
    pub pending: usize,
    /// Whether a block proposed since this server started is final here: before that, `chain_time`
    /// may be as old as its files.
    pub live: bool,
    /// Where the method stands.
    pub standing: Standing,
    /// Whether a snapshot is being fetched.
    pub fetching: bool,
}

/// So many answers to a peer at once, and one more every so often: a server that catches up asks
/// again as soon as it has its answer, one that lags once in a slot time-out.
const ANSWERS: Rate = Rate { burst: 8, every: Duration::from_millis(20) };

/// Under `pow` a server has so many neighbours at most: twice what the transport looks for by
/// itself.
const MOST_NEIGHBOURS: usize = 32;

/// The same under `pow`, where each answer is one block, and who catches up asks for many at once.
const BODIES: Rate = Rate { burst: 64, every: Duration::from_millis(1) };

/// All neighbours together, under `pow`, where there are any number of them: reading and encoding a
/// block takes this thread's time, some twenty microseconds and seven milliseconds a megabyte.
const ALL_BODIES: Rate = Rate { burst: 1_024, every: Duration::from_micros(500) };

/// A large answer counts as one for each so many bytes.
const ANSWER_BYTES: usize = 16 << 10;

/// So many lines in the log at once, and one more every so often: a peer can make us write them.
const REPORTS: Rate = Rate { burst: 50, every: Duration::from_millis(200) };

/// A server's deciding part.
pub struct Replica {
    chain_id: ChainId,
    method: Method,
    parameters: Parameters,
    members: Members,
    me: NodeId,
    key: SecretKey,
    member: Option<MemberIndex>,
    consensus: Box<dyn Consensus>,
    mempool: Mempool,
    chain: Chain,
    /// When the last final block became known here: chain time counts from it.
    final_at: Instant,
    applied: Applied,
    /// Our roots by height, from the agreed height on: what headers say is compared with them.
    roots: BTreeMap<Height, StateRoot>,
    /// What final headers say of heights that we have not executed yet.
    awaited: BTreeMap<Height, StateRoot>,
    /// The height of the last final block with transactions.
    last_full: Height,
    /// A block whose content could not be judged before more is executed.
    postponed: Option<crate::consensus::Validate>,
    load: Load,
    /// The leaders that our waiting envelopes have been sent to.
    sent_to: Vec<NodeId>,
    woken_for: Option<Instant>,
    /// How many questions of each peer are answered yet.
    answers: BTreeMap<NodeId, Allowance>,
    /// How many of all of them together (`pow`).
    all_answers: Allowance,
    reports: Allowance,
    barriers: Barriers,
    unfinal: Unfinal,
    downloads: Downloads,
    questions: Questions,
    now: Now,
    events: VecDeque<Event>,
    outputs: Vec<Output>,
}

impl Replica {
    /// A server's replica as its files leave it, and the first things to do. `applied` is what
    /// `state.db` holds: every final block up to `recovered.last`, which the caller has replayed. A
    /// block above it, or below, is a fault.
    pub fn new(
        genesis: &Genesis,
        key: SecretKey,
        recovered: Recovered,
        applied: Applied,
        now: Now,
    ) -> Result<(Self, Vec<Output>), Fault> {
        let members = genesis.check().map_err(Fault::WrongFiles)?;
        let last = match &recovered.last {
            Some((block, _)) => Arc::clone(block),
            None => Arc::new(Block::genesis(genesis)),
        };
        if applied.height != last.header.height {
            return Err(Fault::WrongFiles(format!(
                "state.db holds height {}, but the last final block in chain.db has height {}",
                applied.height, last.header.height
            )));
        }
        // The genesis header vouches for no root: what headers say of height 0 is the default.
        let root = if applied.height == Height(0) { StateRoot::default() } else { applied.root };
        let roots = roots_told(&recovered, Applied { height: applied.height, root });
        let me = key.public();
        let chain_id = genesis.chain_id();
        let distrusted = recovered.distrusted.clone();
        let waiting = recovered.waiting.clone();
        let last_full = if last.header.height.0 == 0 { Height(0) } else { applied.height };
        let mut replica = Self {
            chain_id,
            method: genesis.method,
            parameters: genesis.parameters.clone(),
            me,
            key: key.clone(),
            member: members.index_of(&me).filter(|_| !recovered.is_wiped),
            consensus: consensus::begin(genesis, &members, key, recovered, now),
            answers: BTreeMap::new(),
            all_answers: Allowance::new(now.instant, ALL_BODIES),
            reports: Allowance::new(now.instant, REPORTS),
            barriers: Barriers::new(now.instant),
            unfinal: Unfinal::default(),
            downloads: Downloads::new(distrusted),
            questions: Questions::default(),
            mempool: mempool(genesis, &members),
            members,
            chain: Chain::new(chain_id, last),
            final_at: now.instant,
            applied,
            roots,
            awaited: BTreeMap::new(),
            last_full,
            postponed: None,
            load: Load::default(),
            sent_to: Vec::new(),
            woken_for: None,
            now,
            events: VecDeque::new(),
            outputs: Vec::new(),
        };
        replica.events.push_back(Event::Applied(applied));
        replica.events.push_back(Event::Start);
        replica.run();
        replica.wait_again(waiting);
        replica.run();
        let outputs = std::mem::take(&mut replica.outputs);
        Ok((replica, outputs))
    }

    /// Moves on by one input.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Message { from, message } => self.on_message(from, message),
            Input::Submit(envelope) => self.admit_own(envelope),
            Input::Connected(peer) if self.is_follower(peer) => {}
            Input::Connected(peer) => self.events.push_back(Event::Connected(peer)),
            Input::Disconnected(peer) => {
                if !self.method.is_closed() {
                    self.answers.remove(&peer);
                }
                self.events.push_back(Event::Disconnected(peer));
            }
            Input::Woken => {
                self.woken_for = None;
                self.events.push_back(Event::Timer);
            }
            Input::Applied(applied) => self.on_applied(applied),
            Input::Barrier { id } => self.await_barrier(id),
            Input::Found(proof) => self.events.push_back(Event::Found(proof)),
            Input::Mine(mines) => self.events.push_back(Event::Mine(mines)),
            Input::Yield => self.events.push_back(Event::Yield),
        }
        self.run();
        std::mem::take(&mut self.outputs)
    }

    /// All inputs that had come are stepped: what the method does once for all of them.
    pub fn drained(&mut self, now: Now) -> Vec<Output> {
        self.now = now;
        let actions = self.consensus.drained(now);
        if !actions.is_empty() {
            for action in actions {
                self.carry_out(action);
            }
            self.run();
        }
        std::mem::take(&mut self.outputs)
    }

    /// Where this server stands.
    pub fn status(&self, now: Now) -> Status {
        let last = &self.chain.last().block.header;
        Status {
            epoch: last.epoch,
            slot: self.consensus.slot(),
            leader: self.consensus.leader(0),
            height: last.height,
            applied: self.applied,
            agreed: last.applied,
            block_time: last.time,
            chain_time: self.chain_time(now),
            pending: self.mempool.len(),
            live: self.consensus.is_live(),
            standing: self.consensus.standing(now),
            fetching: self.downloads.is_busy(),
        }
    }

    /// The estimated date.
    fn chain_time(&self, now: Now) -> Time {
        let newest = || {
            let last = &self.chain.last().block.header;
            last.time.plus(now.instant.since(self.final_at))
        };
        self.consensus.date(now).unwrap_or_else(newest)
    }

    /// Whether this peer only follows: nothing that it says counts.
    fn is_follower(&self, peer: NodeId) -> bool {
        self.method.is_closed() && self.members.index_of(&peer).is_none()
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        if self.is_follower(from) && !matches!(message, Message::Fetch(_)) {
            return;
        }
        match message {
            Message::Envelopes(envelopes) => {
                self.admit_from_peer(from, Account::Guest(from), envelopes);
            }
            Message::PassedOn(envelopes) => {
                self.admit_from_peer(from, Account::PassedOn(from), envelopes);
            }
            Message::Fetch(fetch) => self.on_fetch(from, fetch),
            Message::FinalizingWhat { nonce } => self.answer_barrier(from, nonce),
            Message::Finalizing { nonce, slot } => self.on_barrier_answer(from, nonce, slot),
            Message::Offer(offer) => self.on_offer(from, *offer),
            Message::Chunk { height, number, bytes } => {
                self.on_chunk(from, height, number, bytes);
            }
            message => self.events.push_back(Event::Message { from, message }),
        }
    }

    /// Answers are work: who asks more often than an honest server does is not answered.
    fn on_fetch(&mut self, from: NodeId, fetch: Fetch) {
        let now = self.now.instant;
        let rate = if self.method.is_closed() { ANSWERS } else { BODIES };
        let allowance = self.answers.entry(from).or_insert_with(|| Allowance::new(now, rate));
        if !allowance.take(now) {
            return;
        }
        match fetch {
            Fetch::Block(_) if !self.method.is_closed() && !self.all_answers.take(now) => {}
            Fetch::Block(id) => self.serve_block(from, id),
            Fetch::FinalAfter(height)
                if self.method.is_closed() && height >= self.chain.last().block.header.height =>
            {
                self.remember_question(from, height);
            }
            // Under `pow` nobody needs them, and anybody could ask.
            Fetch::FinalAfter(_) | Fetch::Chunk { .. } if !self.method.is_closed() => {}
            Fetch::FinalAfter(_) | Fetch::Chunk { .. } => {
                self.outputs.push(Output::Serve { to: from, fetch });
            }
            Fetch::CertificatesAfter(_) | Fetch::ProofsAfter(_) => {
                let message = Message::Fetch(fetch);
                self.events.push_back(Event::Message { from, message });
            }
        }
    }

    /// An answer of so many bytes was read from the log.
    pub fn served(&mut self, to: NodeId, bytes: usize) {
        let more = u32::try_from(bytes / ANSWER_BYTES).unwrap_or(u32::MAX);
        if !self.method.is_closed() {
            self.all_answers.spend(more);
            if let Some(own) = self.answers.get_mut(&to) {
                own.spend(more);
            }
        }
    }

    /// Writes a line to the log, unless a peer makes us write too many.
    fn report(&mut self, line: String) {
        if self.reports.take(self.now.instant) {
            self.outputs.push(Output::Report(line));
        }
    }

    fn serve_block(&mut self, to: NodeId, id: BlockId) {
        match self.chain.get(id) {
            Some(known) => {
                let message = Message::Pending(Arc::clone(&known.block));
                self.outputs.push(Output::Send { to: Recipient::One(to), message });
            }
            None => self.outputs.push(Output::Serve { to, fetch: Fetch::Block(id) }),
        }
    }

    /// Steps the method until it has nothing more to say, then looks after what depends on the
    /// time.
    fn run(&mut self) {
        self.step_method();
        self.look_after_barriers();
        self.look_after_downloads();
        self.step_method(); // a barrier may have admitted a transaction
        self.tell_notarized();
        self.forward_to_leaders();
        self.send_overdue_to_all();
        self.set_wake();
    }

    fn step_method(&mut self) {
        self.look_after_load();
        while let Some(event) = self.events.pop_front() {
            let actions = self.consensus.step(self.now, event);
            for action in actions {
                self.carry_out(action);
            }
            self.look_after_load();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Persist(record) => self.outputs.push(Output::Persist(record)),
            Action::Send { to, message } => self.send(to, message),
            Action::Validate(wanted) => self.validate(wanted),
            Action::Build(wanted) => self.build(wanted),
            Action::Known(block) => self.chain.insert(block),
            Action::Note(record) => self.outputs.push(Output::Note(record)),
            Action::Ahead(block) => self.outputs.push(Output::Ahead(block)),
            Action::Finalize { blocks, .. } => self.finalize(blocks),
            Action::Abandon(blocks) => self.abandon(&blocks),
            Action::Rewind { height } => self.outputs.push(Output::Rewind { height }),
            Action::Search(job) => self.outputs.push(Output::Search(job)),
            Action::Readable { nonce, height } => self.on_readable(nonce, height),
            Action::Punish { peer, why } => self.outputs.push(Output::Punish { peer, why }),
            Action::Outvoted { height, agreed, ours } => {
                self.outputs.push(Output::Diverged { height, agreed, ours });
            }
            Action::Report(line) => self.report(line),
        }
    }

    fn send(&mut self, to: Recipient, message: Message) {
        if let (Recipient::One(peer), Message::Fetch(Fetch::FinalAfter(_))) = (&to, &message)
            && !self.downloads.may_ask(*peer, self.now.instant)
        {
            return;
        }
        self.outputs.push(Output::Send { to, message });
    }

    fn look_after_load(&mut self) {
        if self.load != self.load_now() {
            self.tell_load();
        }
    }

    /// Tells the method what waits, since something else does, if not more.
    fn tell_load(&mut self) {
        self.load = self.load_now();
        self.events.push_back(Event::Load(self.load));
    }

    fn load_now(&self) -> Load {
        let confirmed = self.chain.last().block.header.applied.height;
        Load { waiting: self.mempool.transactions(), unconfirmed: confirmed < self.last_full }
    }

    fn set_wake(&mut self) {
        let barriers = self.barriers.wake(self.parameters.slot_timeout());
        let wake = self.consensus.wake().into_iter().chain(self.mempool.next_overdue());
        let wake = wake.chain(barriers).chain(self.downloads.wake()).min();
        if wake != self.woken_for
            && let Some(at) = wake
        {
            self.woken_for = wake;
            self.outputs.push(Output::Wake { at });
        }
    }
}

/// Envelopes wait for a turn, or where nobody knows whose it will be, for a block.
fn mempool(genesis: &Genesis, members: &Members) -> Mempool {
    match &genesis.pow {
        None => Mempool::new(members.len()),
        Some(pow) => {
            let spacing = Duration::from_secs(pow.spacing_s.into());
            Mempool::without_turns(MOST_NEIGHBOURS, spacing)
        }
    }
}

/// Our roots by height. Under `pow` those of the blocks below the executed state are needed as
/// well: the next blocks name them.
fn roots_told(recovered: &Recovered, applied: Applied) -> BTreeMap<Height, StateRoot> {
    let told = recovered.roots.iter().filter(|told| told.height < applied.height);
    told.chain([&applied]).map(|told| (told.height, told.root)).collect()
}

#[cfg(test)]
mod tests;
