//! One simulated server: a real replica, executor and log in a home folder, with clocks of its own.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rota_core::block::Block;
use rota_core::crypto::SecretKey;
use rota_core::error::{Fault, Invalid, Refusal};
use rota_core::genesis::{Genesis, Method};
use rota_core::journal::Recovered;
use rota_core::message::{Message, Offer, Recipient};
use rota_core::replica::{Input, Replica, Status};
use rota_core::time::{Instant, Now, Time};
use rota_core::transaction::{Envelope, Transaction};
use rota_core::types::{BlockId, Height, NodeId, StateRoot, TransactionId};
use rota_core::work::SearchJob;
use rota_store::chain_db::ChainDb;
use rota_store::draft::Drafts;
use rota_store::files::{self, Files};
use rota_store::host::{Host, Io};
use rota_store::snapshot::Snapshots;
use rota_store::snapshot::swap::{self, Incoming, Outcome};
use rota_store::{AppliedBlock, StateDb};
use rusqlite::{Connection, OpenFlags};

use crate::disk::{Copy, Durable, Fuse, SimJournal};
use crate::mining::Searching;
use crate::random::Random;
use crate::{Counters, Micros};

/// What comes out of one step, in order.
pub enum Effect {
    /// A message leaves.
    Send(Recipient, Message),
    /// A block goes to the executor.
    Apply(Arc<Block>),
    /// A block is about to become final.
    Ahead(Arc<Block>),
    /// A timer is set.
    Wake(Instant),
    /// Clients could be told that these are notarized.
    Notarized(Vec<Arc<Block>>),
    /// A linearizable read may go on, or not.
    Barrier(u64, Result<Height, Refusal>),
    /// Clients are told that these will not happen.
    Dropped(Vec<TransactionId>, Refusal),
    /// This is searched for from now on, or nothing.
    Search(Option<SearchJob>),
    /// A peer is kept out.
    Punish(NodeId, Invalid),
    /// A piece of a snapshot is kept.
    Chunk(Height, u32, Vec<u8>),
    /// A snapshot is taken over, and the server starts anew from it.
    Restore(Box<Offer>, NodeId),
    /// Final blocks above this height are removed, and the server starts anew without them.
    Rewind(Height),
    /// A line in the log.
    Report(String),
    /// The state is not the cluster's.
    Diverged(Height, StateRoot, StateRoot),
}

/// An effect, and whether it came before the turn's append: then it does not wait for the disk.
pub type Timed = (bool, Effect);

/// Hears what a server says, with what is on its disk at that moment.
pub type Ears<'a> = &'a mut dyn FnMut(&Recipient, &Message, &Durable);

/// A message on its way. Whoever receives it first checks it for all: the same bytes give the same
/// answer.
#[derive(Debug)]
pub struct Sent {
    /// What it says.
    pub message: Message,
    /// What the checks said.
    pub verdict: OnceCell<Result<(), Invalid>>,
}

/// What is to be done by a server, in the order of arrival.
pub enum Work {
    /// A peer's message.
    Message(usize, Rc<Sent>),
    /// Anything of its own.
    Input(Input),
}

/// What stays when a server is down.
pub struct Server {
    /// Who it is.
    pub node: NodeId,
    /// Its home folder.
    pub home: PathBuf,
    /// How far its wall clock is off, in milliseconds.
    pub clock_off: i64,
    /// Counts its starts: events of an earlier life are void.
    pub life: u64,
    /// What is in memory; `None` while it is down.
    pub running: Option<Running>,
    /// What it ever had on disk of its own word.
    pub durable: Rc<RefCell<Durable>>,
    /// Where it will crash.
    pub fuse: Fuse,
    /// Since when and until when it is doing nothing.
    pub busy_until: Micros,
    /// How long an append takes.
    pub fsync: Micros,
    /// How long executing a block takes.
    pub apply: Micros,
    /// How many nonces it tries in a second (`pow`); with 0 it does not mine.
    pub hash_rate: u64,
    /// Whether it found its own state to be wrong and serves no more.
    pub quarantined: bool,
    /// Older copies of `state.db`, newest last.
    pub old_states: Vec<Copy>,
    /// How many blocks it keeps; with 0 all.
    pub keep_blocks: u64,
    /// Whose snapshots were not what they were offered as.
    distrusted: Vec<NodeId>,
    key: SecretKey,
    origin: u64,
    random: Random,
    met: Rc<RefCell<Counters>>,
}

/// A block that the log had and the state lacked.
pub type Replayed = (Arc<Block>, AppliedBlock);

/// What is lost when a server stops.
pub struct Running {
    /// The deciding part, with its log.
    pub host: Host<SimJournal>,
    /// The log, shared with the host.
    pub chain_db: Rc<RefCell<ChainDb>>,
    /// The executor's database.
    pub state: StateDb,
    /// Its clients' transactions before they are sent.
    pub drafts: Arc<Drafts>,
    /// Blocks to execute.
    pub to_apply: VecDeque<Arc<Block>>,
    /// Blocks that are not final, by rising height.
    pub to_come: VecDeque<Arc<Block>>,
    /// What is executed and not committed.
    pub held: Vec<Replayed>,
    /// Which of them is executed.
    pub ahead: Option<BlockId>,
    /// What has arrived.
    pub inbox: Vec<Work>,
    /// Whether a turn is scheduled.
    pub scheduled: bool,
    /// Counts timers: only the newest counts.
    pub timer: u64,
    /// Records appended by the turn in progress.
    pub appended: Rc<Cell<u64>>,
    /// What is being searched for (`pow`).
    pub searching: Option<Searching>,
    /// Counts searches: only the newest counts.
    pub searches: u64,
    /// The last block that was handed to the executor.
    pub handed: Height,
    snapshots: Arc<Snapshots>,
    incoming: Incoming,
}

/// Collects effects until the fuse is out.
struct Outbox<'a> {
    effects: Vec<Timed>,
    fuse: Fuse,
    appended: Rc<Cell<u64>>,
    durable: Rc<RefCell<Durable>>,
    ears: Ears<'a>,
}

impl Outbox<'_> {
    fn push(&mut self, effect: Effect) {
        if self.fuse.burn() {
            self.effects.push((self.appended.get() == 0, effect));
        }
    }
}

impl Io for Outbox<'_> {
    fn send(&mut self, to: Recipient, message: Message) {
        if !self.fuse.is_out() {
            (self.ears)(&to, &message, &self.durable.borrow());
        }
        self.push(Effect::Send(to, message));
    }

    fn apply(&mut self, block: Arc<Block>) {
        self.push(Effect::Apply(block));
    }

    fn ahead(&mut self, block: Arc<Block>) {
        self.push(Effect::Ahead(block));
    }

    fn wake(&mut self, at: Instant) {
        self.push(Effect::Wake(at));
    }

    // Clients of the simulator wait for what is final.
    fn admitted(&mut self, _: Arc<Envelope>) {}

    fn notarized(&mut self, blocks: Vec<Arc<Block>>) {
        self.push(Effect::Notarized(blocks));
    }

    fn barrier(&mut self, id: u64, reached: Result<Height, Refusal>) {
        self.push(Effect::Barrier(id, reached));
    }

    fn dropped(&mut self, transactions: Vec<TransactionId>, why: Refusal) {
        self.push(Effect::Dropped(transactions, why));
    }

    fn search(&mut self, job: Option<SearchJob>) {
        self.push(Effect::Search(job));
    }

    fn punish(&mut self, peer: NodeId, why: Invalid) {
        self.push(Effect::Punish(peer, why));
    }

    fn chunk(&mut self, height: Height, number: u32, bytes: Vec<u8>) {
        self.push(Effect::Chunk(height, number, bytes));
    }

    fn restore(&mut self, offer: Offer, from: NodeId) {
        self.push(Effect::Restore(Box::new(offer), from));
    }

    fn rewind(&mut self, height: Height) {
        self.push(Effect::Rewind(height));
    }

    fn report(&mut self, line: String) {
        self.push(Effect::Report(line));
    }

    fn diverged(&mut self, height: Height, agreed: StateRoot, ours: StateRoot) {
        self.push(Effect::Diverged(height, agreed, ours));
    }
}

/// What going back undid.
pub struct Undone {
    /// How many final blocks.
    pub blocks: u64,
    /// The transactions in them, in order.
    pub gone: Vec<TransactionId>,
    /// All that the log ever listed as undone, in order.
    pub listed: Vec<TransactionId>,
}

/// What a log lists as undone.
fn undone(home: &Path) -> rusqlite::Result<Vec<TransactionId>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let log = Connection::open_with_flags(home.join("chain.db"), flags)?;
    let mut listed = log.prepare("SELECT key FROM undone ORDER BY rowid")?;
    let rows = listed.query_map([], |row| Ok(TransactionId(row.get(0)?)))?;
    rows.collect()
}

impl Server {
    /// A server that is down, with an empty home.
    pub fn new(
        key: SecretKey,
        home: PathBuf,
        clock_off: i64,
        mut random: Random,
        met: Rc<RefCell<Counters>>,
    ) -> Self {
        Self {
            node: key.public(),
            home,
            clock_off,
            life: 0,
            running: None,
            durable: Rc::default(),
            fuse: Fuse::default(),
            busy_until: 0,
            fsync: random.between(100, 600),
            apply: random.between(100, 600),
            hash_rate: 0,
            quarantined: false,
            old_states: Vec::new(),
            keep_blocks: 0,
            distrusted: Vec::new(),
            key,
            origin: 0,
            random,
            met,
        }
    }

    /// What its clocks say.
    pub fn now(&self, at: Micros, genesis: &Genesis) -> Now {
        let true_ms = genesis.time_ms.saturating_add(at / 1_000);
        let clock = Time(true_ms.saturating_add_signed(self.clock_off));
        Now { instant: Instant(self.origin + at), clock }
    }

    /// When one of its instants is, in the world's time.
    pub fn world_time(&self, instant: Instant) -> Micros {
        instant.0.saturating_sub(self.origin)
    }

    /// Starts from what is on disk. Blocks that its state lacked are executed first; they are
    /// returned with the step's effects.
    pub fn start(
        &mut self,
        at: Micros,
        genesis: &Genesis,
        ears: Ears<'_>,
    ) -> Result<(Vec<Replayed>, Vec<Timed>), Fault> {
        self.life += 1;
        self.fuse.put_out();
        self.busy_until = at;
        // A monotonic clock begins anew with the machine.
        self.origin = self.random.below(1 << 40);
        if self.life == 1 {
            // The home is made: from now on a log that is missing was lost.
            drop(ChainDb::open(&self.home, genesis)?);
        }
        let files = Files::open(&self.home, genesis)?;
        let Files { mut state, chain: mut chain_db, snapshots, incoming } = files;
        chain_db.keep_blocks(self.keep_blocks);
        let distrusted = self.distrusted.clone();
        let recovered = Recovered { distrusted, ..chain_db.recover()? };
        let height = recovered.last.as_ref().map_or(Height(0), |(block, _)| block.header.height);
        if state.applied().height > height {
            return Err(Fault::WrongFiles("state.db is ahead of chain.db".into()));
        }
        let mut replayed = Vec::new();
        while state.applied().height < height {
            let next = state.applied().height.next();
            let block = chain_db
                .final_block(next)?
                .ok_or_else(|| Fault::WrongFiles(format!("no block at height {next}")))?;
            let applied = state.apply(&block)?;
            replayed.push((block, applied));
        }
        let roots = [snapshots.states(), state.recent_roots()?].concat();
        let recovered = Recovered { roots, ..recovered };
        let now = self.now(at, genesis);
        let (replica, outputs) =
            Replica::new(genesis, self.key.clone(), recovered, state.applied(), now)?;
        let chain_db = Rc::new(RefCell::new(chain_db));
        let appended = Rc::new(Cell::new(0));
        let journal = SimJournal {
            chain_db: chain_db.clone(),
            durable: self.durable.clone(),
            appended: appended.clone(),
            fuse: self.fuse.clone(),
            chain: genesis.chain_id(),
            atomic: genesis.method == Method::Raft,
            noted: Vec::new(),
            random: self.random.fork(),
            met: self.met.clone(),
        };
        let mut outbox = Outbox {
            effects: Vec::new(),
            fuse: self.fuse.clone(),
            appended: appended.clone(),
            durable: self.durable.clone(),
            ears,
        };
        let mut host = Host::new(replica, journal);
        host.carry_out(outputs, &mut outbox)?;
        let drafts = Drafts::new(&self.home, genesis, state.access());
        self.running = Some(Running {
            host,
            chain_db,
            state,
            drafts,
            to_apply: VecDeque::new(),
            to_come: VecDeque::new(),
            held: Vec::new(),
            ahead: None,
            inbox: Vec::new(),
            scheduled: false,
            timer: 0,
            appended,
            searching: None,
            searches: 0,
            handed: height,
            snapshots,
            incoming,
        });
        // Where the log begins with a snapshot, this is what is left when `state.db` is lost.
        self.make_snapshot(height)?;
        Ok((replayed, outbox.effects))
    }

    /// Lets the replica take some inputs. When the fuse burns out on the way, the effects before
    /// that are returned and the server is dead.
    pub fn take(
        &mut self,
        at: Micros,
        genesis: &Genesis,
        inputs: Vec<Input>,
        ears: Ears<'_>,
    ) -> Result<Vec<Timed>, Fault> {
        let now = self.now(at, genesis);
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        running.appended.set(0);
        let mut outbox = Outbox {
            effects: Vec::new(),
            fuse: self.fuse.clone(),
            appended: running.appended.clone(),
            durable: self.durable.clone(),
            ears,
        };
        match running.host.handle(now, inputs, &mut outbox) {
            Err(fault) if !self.fuse.is_out() => Err(fault),
            _ => Ok(outbox.effects),
        }
    }

    /// Where it stands, if it runs.
    pub fn status(&self, at: Micros, genesis: &Genesis) -> Option<Status> {
        let now = self.now(at, genesis);
        self.running.as_ref().map(|running| running.host.replica().status(now))
    }

    /// Stops without a word. What the files lose by it is drawn.
    pub fn crash(&mut self) -> std::io::Result<Option<crate::Fault>> {
        let killed = self.random.per_mille(500).then(|| Copy::of_all(&self.home));
        self.running = None;
        self.fuse.put_out();
        if let Some(files) = &killed {
            files.restore(&self.home)?;
        }
        let lost = match self.random.below(10) {
            0 => Some((Copy::no_state(), crate::Fault::NoState)),
            1..=3 if !self.old_states.is_empty() => {
                let which = self.random.index(self.old_states.len());
                self.old_states.truncate(which + 1);
                Some((self.old_states[which].clone(), crate::Fault::OldState))
            }
            _ => None,
        };
        match lost {
            Some((state, fault)) => state.restore(&self.home).map(|()| Some(fault)),
            None => Ok(killed.map(|_| crate::Fault::Killed)),
        }
    }

    /// Whether a snapshot is made after this height.
    pub fn is_snapshot_due(&self, height: Height) -> bool {
        self.running.as_ref().is_some_and(|running| running.snapshots.is_due(height))
    }

    /// Makes a snapshot, if one is due.
    pub fn make_snapshot(&self, height: Height) -> Result<(), Fault> {
        match &self.running {
            Some(running) if running.snapshots.is_due(height) => {
                running.snapshots.make(running.snapshots.pin()?, || false)
            }
            _ => Ok(()),
        }
    }

    /// Keeps a piece of a snapshot that is being fetched.
    pub fn keep_chunk(&mut self, height: Height, number: u32, bytes: &[u8]) -> Result<(), Fault> {
        match &mut self.running {
            Some(running) => running.incoming.keep(height, number, bytes),
            None => Ok(()),
        }
    }

    /// Stops, and puts a snapshot in place of its files; false if it is not what was offered.
    pub fn take_over(
        &mut self,
        genesis: &Genesis,
        offer: &Offer,
        from: NodeId,
    ) -> Result<bool, Fault> {
        self.running = None;
        self.old_states.clear();
        match swap::take_over(&self.home, genesis, offer)? {
            Outcome::Taken => {
                self.distrusted.clear();
                let mut durable = self.durable.borrow_mut();
                durable.height = durable.height.max(offer.applied.height);
                durable.slot = durable.slot.max(offer.block.header.slot);
                Ok(true)
            }
            Outcome::Refused(_) => {
                self.distrusted.push(from);
                Ok(false)
            }
        }
    }

    /// Stops, and removes its final blocks above a height. Gives back what was in them, by the log
    /// before and by what it lists as undone.
    pub fn go_back(&mut self, genesis: &Genesis, height: Height) -> Result<Undone, Fault> {
        let mut gone = Vec::new();
        let mut blocks = 0;
        if let Some(running) = self.running.take() {
            let mut chain_db = running.chain_db.borrow_mut();
            let mut next = height.next();
            while let Some(block) = chain_db.final_block(next)? {
                gone.extend(block.body.envelopes.iter().flat_map(|envelope| {
                    let id = |t: &Transaction| t.id(genesis.chain_id(), envelope.signer);
                    envelope.transactions.iter().map(id)
                }));
                blocks += 1;
                next = next.next();
            }
        }
        self.old_states.clear();
        files::undo(&self.home, genesis, height)?;
        self.durable.borrow_mut().height = height;
        let listed = undone(&self.home).map_err(|error| Fault::storage("reading undone", error))?;
        Ok(Undone { blocks, gone, listed })
    }

    /// Now and then keeps a copy of `state.db`, for a crash to bring back.
    pub fn keep_state(&mut self) {
        if self.random.per_mille(30) {
            if self.old_states.len() == 3 {
                self.old_states.remove(0);
            }
            self.old_states.push(Copy::of_state(&self.home));
        }
    }
}
