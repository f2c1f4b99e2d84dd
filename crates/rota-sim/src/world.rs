//! A run: the queue of events, and what each does. One thread; virtual time jumps from event to
//! event.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rota_core::block::Block;
use rota_core::consensus::Standing;
use rota_core::error::Fault as RealFault;
use rota_core::genesis::{Genesis, Method};
use rota_core::message::Message;
use rota_core::replica::Input;
use rota_core::time::Time;
use rota_core::transaction::Envelope;
use rota_core::types::{BlockId, ChainId, Height, TransactionId};
use rota_core::verify::Verifier;
use rota_store::{AppliedBlock, DifferingRow};

use rusqlite::config::DbConfig;
use tempfile::TempDir;

use crate::anew::Rewound;
use crate::check::{Broken, MOST_BACK_OFF, Monitor, time_is_near};
use crate::clients::{Clients, Fate, Over};
use crate::liar::{Behaviour, Liar};
use crate::mining::FoundBlock;
use crate::network::Network;
use crate::random::Random;
use crate::readers::Readers;
use crate::scenario::{LiarPlan, Plan, Step};
use crate::server::{Ears, Effect, Sent, Server, Timed, Work};
use crate::trace::{Brief, Trace};
use crate::{Counters, Fault, Micros};

/// So many executed blocks are committed at once.
const MOST_HELD: usize = 8;

/// More events than this in one run: something feeds itself.
const MAX_EVENTS: u64 = 10_000_000;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive {
        from: usize,
        to: usize,
        message: Rc<Sent>,
    },
    Connected {
        server: usize,
        peer: usize,
    },
    Turn {
        server: usize,
        life: u64,
    },
    Woken {
        server: usize,
        life: u64,
        timer: u64,
    },
    Execute {
        server: usize,
        life: u64,
    },
    Restart {
        server: usize,
        life: u64,
    },
    Client {
        number: usize,
        tries: u32,
    },
    Read {
        number: usize,
        tries: u64,
    },
    Befall(Step),
    DrawFault,
    FaultsEnd,
    Check,
    /// A search has come to its end.
    Found {
        server: usize,
        life: u64,
        number: u64,
    },
    /// A punishment is over.
    Reopened {
        one: usize,
        other: usize,
    },
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its scenario.
    pub scenario: &'static str,
    /// Its seed.
    pub seed: u64,
    /// The first rule that was broken.
    pub broken: Option<Broken>,
    /// The last events in words.
    pub last: Vec<String>,
    /// The same for the same plan.
    pub trace_hash: u64,
    /// How many events there were.
    pub events: u64,
    /// How long it took in virtual time.
    pub virtual_time: Micros,
    /// The highest block.
    pub height: Height,
    /// How many slots below it have no block.
    pub skipped: u64,
    /// Every write that was answered.
    pub writes: Vec<Over>,
    /// How long each linearizable read took.
    pub reads: Vec<Micros>,
    /// Servers that found their own state to be wrong, and the rows.
    pub diverged: Vec<(usize, Vec<DifferingRow>)>,
    /// Blocks that were found, in that order (`pow`).
    pub found: Vec<FoundBlock>,
    /// What deep reorganisations undid (`pow`).
    pub rewound: Vec<Rewound>,
    /// Every server's final blocks, by rising height from 1 on.
    pub chains: Vec<Vec<BlockId>>,
    /// Where the servers that were up at the end stood.
    pub standings: Vec<(usize, Standing)>,
    /// How often each fault was met.
    pub met: Counters,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Became {
    pub height: Height,
    pub block: BlockId,
    /// Whether it did anything.
    pub did: bool,
}

/// A run in progress.
pub struct World {
    pub(crate) now: Micros,
    pub(crate) plan: Plan,
    pub(crate) servers: Vec<Server>,
    pub(crate) network: Network,
    pub(crate) luck: Random,
    pub(crate) cut_off: Vec<bool>,
    pub(crate) down_for: Vec<Micros>,
    pub(crate) genesis: Genesis,
    pub(crate) queue: BTreeMap<(Micros, u64), Event>,
    pub(crate) scheduled: u64,
    pub(crate) clients: Clients,
    pub(crate) readers: Readers,
    pub(crate) liars: BTreeMap<usize, Liar>,
    pub(crate) monitor: Monitor,
    pub(crate) verifier: Verifier,
    pub(crate) trace: Trace,
    pub(crate) met: Rc<RefCell<Counters>>,
    /// What became of each transaction; more than once only where branches differ.
    pub(crate) became: BTreeMap<TransactionId, Vec<Became>>,
    pub(crate) diverged: Vec<(usize, Vec<DifferingRow>)>,
    /// Blocks that were found (`pow`).
    pub(crate) found: Vec<FoundBlock>,
    /// What deep reorganisations undid (`pow`).
    pub(crate) rewound: Vec<Rewound>,
    /// The least and the most that a clock of the majority, or the genesis, has been off.
    pub(crate) clock_range: (i64, i64),
    pub(crate) over: bool,
    pub(crate) homes: TempDir,
}

impl World {
    /// Runs a plan to its end. `loud` prints every event.
    pub fn run(plan: Plan, loud: bool) -> Outcome {
        let mut world = Self::new(plan, loud);
        world.begin();
        while !world.over {
            let Some(((at, _), event)) = world.queue.pop_first() else { break };
            world.now = at;
            world.happen(event);
            if world.monitor.broken().is_some() {
                break;
            }
            if world.scheduled > MAX_EVENTS {
                world.monitor.breaks("a bounded number of events", "");
            }
        }
        if world.monitor.broken().is_none() {
            world.final_checks();
        }
        world.outcome()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, message } => {
                if let Some(liar) = self.liars.get_mut(&to) {
                    liar.overhear(&message.message);
                }
                self.give(to, Work::Message(from, message));
            }
            Event::Connected { server, peer } => {
                if self.servers[peer].running.is_some() {
                    let peer = self.servers[peer].node;
                    self.give(server, Work::Input(Input::Connected(peer)));
                }
            }
            Event::Turn { server, life } if self.servers[server].life == life => self.turn(server),
            Event::Woken { server, life, timer } if self.servers[server].life == life => {
                let running = self.servers[server].running.as_ref();
                if running.is_some_and(|running| running.timer == timer) {
                    self.give(server, Work::Input(Input::Woken));
                }
            }
            Event::Execute { server, life } if self.servers[server].life == life => {
                self.execute(server);
            }
            Event::Restart { server, life } if self.servers[server].life == life => {
                self.start(server);
            }
            Event::Found { server, life, number } if self.servers[server].life == life => {
                self.found(server, number);
            }
            Event::Turn { .. }
            | Event::Woken { .. }
            | Event::Execute { .. }
            | Event::Restart { .. }
            | Event::Found { .. } => {}
            Event::Reopened { one, other } => {
                if self.are_linked(one, other) {
                    self.connect(one, other);
                }
            }
            Event::Client { number, tries } => self.client(number, tries),
            Event::Read { number, tries } => self.read(number, tries),
            Event::Befall(step) => self.befall(step),
            Event::DrawFault => self.draw_fault(),
            Event::FaultsEnd => self.faults_end(),
            Event::Check => self.check_for_end(),
        }
    }

    // ---- servers ----

    pub(crate) fn start(&mut self, server: usize) {
        if self.servers[server].running.is_some() || self.servers[server].quarantined {
            return;
        }
        let monitor = &mut self.monitor;
        let ears: Ears<'_> =
            &mut |to, message, durable| monitor.sends(server, to, message, durable);
        match self.servers[server].start(self.now, &self.genesis, ears) {
            Err(fault) => self.stopped_by(server, &fault),
            Ok((replayed, effects)) => {
                self.note(format_args!("server {server} starts, {} replayed", replayed.len()));
                for (block, applied) in replayed {
                    self.applied(server, &block, applied);
                }
                self.carry_out(server, effects);
                for other in 0..self.servers.len() {
                    if other != server && self.are_linked(server, other) {
                        self.connect(server, other);
                    }
                }
                if self.servers[server].hash_rate > 0 {
                    self.give(server, Work::Input(Input::Mine(true)));
                }
            }
        }
    }

    /// Stops a server at once; it comes back after `down`.
    pub(crate) fn stop(&mut self, server: usize, down: Micros) {
        if self.servers[server].running.is_none() {
            return;
        }
        self.note(format_args!("server {server} stops"));
        match self.servers[server].crash() {
            Ok(lost) => lost.into_iter().for_each(|fault| self.met(fault)),
            Err(error) => self.monitor.breaks("the simulator's disk works", error.to_string()),
        }
        let life = self.servers[server].life;
        self.schedule(self.now + down, Event::Restart { server, life });
    }

    pub(crate) fn stopped_by(&mut self, server: usize, fault: &RealFault) {
        let detail = format!("server {server}: {fault}");
        self.monitor.breaks("no server stops by itself", detail);
    }

    /// Something arrives at a server, which takes its turn as soon as it is free.
    pub(crate) fn give(&mut self, server: usize, work: Work) {
        let at = self.now.max(self.servers[server].busy_until);
        let there = &mut self.servers[server];
        let life = there.life;
        let Some(running) = &mut there.running else { return };
        running.inbox.push(work);
        if !std::mem::replace(&mut running.scheduled, true) {
            self.schedule(at + 10, Event::Turn { server, life });
        }
    }

    fn turn(&mut self, server: usize) {
        let busy_until = self.servers[server].busy_until;
        let life = self.servers[server].life;
        if busy_until > self.now {
            self.schedule(busy_until, Event::Turn { server, life });
            return;
        }
        let Some(running) = &mut self.servers[server].running else { return };
        running.scheduled = false;
        let work = std::mem::take(&mut running.inbox);
        let inputs = self.checked(server, work);
        let (now, genesis, monitor) = (self.now, &self.genesis, &mut self.monitor);
        let ears: Ears<'_> =
            &mut |to, message, durable| monitor.sends(server, to, message, durable);
        match self.servers[server].take(now, genesis, inputs, ears) {
            Ok(effects) => self.carry_out(server, effects),
            Err(fault) => self.stopped_by(server, &fault),
        }
        if self.servers[server].fuse.is_out() {
            self.met(Fault::CrashAtOutput);
            self.stop(server, self.down_for[server]);
        }
    }

    /// Refuses messages that are badly formed or signed; an honest server sends none.
    fn checked(&mut self, server: usize, work: Vec<Work>) -> Vec<Input> {
        let unchecked: Vec<&Rc<Sent>> = work
            .iter()
            .filter_map(|work| match work {
                Work::Message(_, sent) if sent.verdict.get().is_none() => Some(sent),
                _ => None,
            })
            .collect();
        let messages: Vec<Message> = unchecked.iter().map(|sent| sent.message.clone()).collect();
        let answers = self.verifier.check(&messages, self.luck.bytes());
        for (sent, answer) in unchecked.into_iter().zip(answers) {
            sent.verdict.get_or_init(|| answer);
        }
        let mut inputs = Vec::with_capacity(work.len());
        for work in work {
            match work {
                Work::Input(input) => inputs.push(input),
                Work::Message(from, sent) => match sent.verdict.get() {
                    Some(Ok(())) => {
                        let from = self.servers[from].node;
                        inputs.push(Input::Message { from, message: sent.message.clone() });
                    }
                    Some(Err(invalid)) if self.plan.is_liar(from) => {
                        self.note(format_args!("server {server} refuses {from}: {invalid}"));
                        self.met(Fault::Refused);
                        if self.plan.method == Method::Pow {
                            self.punish(server, self.servers[from].node, &invalid.to_string());
                        }
                    }
                    answer => {
                        let detail = format!("from {from}: {} {answer:?}", Brief(&sent.message));
                        self.monitor.breaks("an honest server's messages are accepted", detail);
                    }
                },
            }
        }
        inputs
    }

    fn carry_out(&mut self, server: usize, effects: Vec<Timed>) {
        let there = &self.servers[server];
        let life = there.life;
        let appended = there.running.as_ref().is_some_and(|running| running.appended.get() > 0);
        let cost = if appended { there.fsync } else { 0 } + 10;
        let after = self.now + cost;
        self.servers[server].busy_until = after.max(there.busy_until);
        for (early, effect) in effects {
            let leaves = if early { self.now + 10 } else { after };
            match effect {
                Effect::Send(to, message) => self.send(server, leaves, to, message),
                Effect::Apply(block) => self.hand_over(server, leaves, block),
                Effect::Ahead(block) => self.expect(server, block),
                Effect::Wake(instant) => {
                    let at = self.servers[server].world_time(instant).max(leaves);
                    let Some(running) = &mut self.servers[server].running else { continue };
                    running.timer += 1;
                    let timer = running.timer;
                    self.schedule(at, Event::Woken { server, life, timer });
                }
                Effect::Notarized(blocks) => {
                    blocks.iter().for_each(|block| self.monitor.told_notarized(server, block));
                }
                Effect::Barrier(id, reached) => self.barrier(server, id, reached),
                Effect::Dropped(transactions, why) => self.dropped(server, &transactions, &why),
                Effect::Search(job) => self.search(server, leaves, job),
                Effect::Punish(peer, why) => self.punish(server, peer, &why.to_string()),
                Effect::Chunk(height, number, bytes) => self.chunk(server, height, number, &bytes),
                Effect::Restore(offer, from) => return self.restore(server, &offer, from),
                Effect::Rewind(height) => return self.rewind(server, height),
                Effect::Report(line) => self.note(format_args!("server {server} says: {line}")),
                Effect::Diverged(height, agreed, ours) => {
                    let what = format!("height {height}: {agreed:?} agreed, {ours:?} here");
                    self.diverge(server, what);
                }
            }
        }
    }

    // ---- executor ----

    fn hand_over(&mut self, server: usize, leaves: Micros, block: Arc<Block>) {
        let (height, slot) = (block.header.height, block.header.slot);
        let id = block.id(self.genesis.chain_id());
        if !self.servers[server].durable.borrow().has(height, slot, id) {
            let detail = format!("server {server}: block {height}");
            self.monitor.breaks("durable before applying", detail);
        }
        let there = &mut self.servers[server];
        let (life, apply) = (there.life, there.apply);
        let Some(running) = &mut there.running else { return };
        let handed = std::mem::replace(&mut running.handed, height);
        if height != handed.next() {
            let detail = format!("server {server}: height {height} after {handed}");
            self.monitor.breaks("each block once, parents first", detail);
        }
        running.to_apply.push_back(block);
        if running.to_apply.len() == 1 {
            self.schedule(leaves + apply, Event::Execute { server, life });
        }
    }

    fn execute(&mut self, server: usize) {
        let there = &mut self.servers[server];
        let (life, apply) = (there.life, there.apply);
        let Some(running) = &mut there.running else { return };
        let Some(block) = running.to_apply.pop_front() else { return };
        let more = !running.to_apply.is_empty();
        let id = block.id(self.genesis.chain_id());
        if running.ahead.take().is_some_and(|ahead| ahead != id) {
            self.met.borrow_mut().count(Fault::Replaced);
        }
        let height = block.header.height;
        match running.state.hold(&block) {
            Err(RealFault::Diverged(what)) => return self.diverge(server, what),
            Err(fault) => self.stopped_by(server, &fault),
            Ok(applied) => {
                running.held.push((block, applied));
                let is_full = running.held.len() >= MOST_HELD;
                if is_full || !more || there.is_snapshot_due(height) {
                    self.commit(server, height);
                } else {
                    self.met(Fault::Held);
                }
            }
        }
        if more {
            self.schedule(self.now + apply, Event::Execute { server, life });
        } else {
            self.look_ahead(server);
        }
    }

    /// Commits what is executed, and tells of it.
    fn commit(&mut self, server: usize, height: Height) {
        let there = &mut self.servers[server];
        let Some(running) = &mut there.running else { return };
        let held = std::mem::take(&mut running.held);
        if held.is_empty() {
            return;
        }
        let committed = running.state.commit();
        for (_, applied) in &held {
            running.chain_db.borrow_mut().save_receipts(applied.receipts.clone());
        }
        there.keep_state();
        if let Err(fault) = committed.and_then(|()| there.make_snapshot(height)) {
            return self.stopped_by(server, &fault);
        }
        for (block, applied) in held {
            let reached = applied.applied;
            self.applied(server, &block, applied);
            self.give(server, Work::Input(Input::Applied(reached)));
        }
    }

    /// A block has come that is not final. Those that were expected after it are not any more.
    fn expect(&mut self, server: usize, block: Arc<Block>) {
        let Some(running) = &mut self.servers[server].running else { return };
        running.to_come.retain(|other| other.header.height < block.header.height);
        running.to_come.push_back(block);
        self.look_ahead(server);
    }

    /// Executes the block that would be next, if nothing final waits.
    fn look_ahead(&mut self, server: usize) {
        let Some(running) = &mut self.servers[server].running else { return };
        if !running.to_apply.is_empty() || running.state.holds() {
            return;
        }
        let next = running.state.applied().height.next();
        running.to_come.retain(|block| block.header.height >= next);
        let Some(block) = running.to_come.pop_front_if(|block| block.header.height == next) else {
            return;
        };
        let block = guess(&block, self.genesis.chain_id());
        let before = running.ahead.replace(block.id(self.genesis.chain_id()));
        let done = running.state.ahead(&block);
        self.met(Fault::Ahead);
        if before.is_some() {
            self.met(Fault::Replaced);
        }
        self.note(format_args!("server {server} executes h{next} ahead"));
        match done {
            Err(RealFault::Diverged(what)) => self.diverge(server, what),
            Err(fault) => self.stopped_by(server, &fault),
            Ok(()) => {}
        }
    }

    fn applied(&mut self, server: usize, block: &Block, applied: AppliedBlock) {
        let (height, root) = (applied.applied.height, applied.applied.root);
        self.note(format_args!("server {server} applied h{height} {root:?}"));
        if self.plan.is_liar(server) || self.servers[server].quarantined {
            return;
        }
        if !self.plan.script.iter().any(|(_, step)| *step == Step::FlipRow { server }) {
            self.monitor.applies(server, block, root, &applied.receipts);
        }
        self.check_time(block);
        if block.body.envelopes.iter().any(|envelope| is_barrier(envelope)) {
            self.met(Fault::ReadByWrite);
        }
        let paused = self.is_paused(server);
        let id = block.id(self.genesis.chain_id());
        for receipt in &applied.receipts {
            let did = receipt.outcome.is_ok();
            let became = self.became.entry(receipt.id).or_default();
            if became.is_empty() || self.plan.may_rewind {
                became.push(Became { height, block: id, did });
            }
            let Some(&number) = self.clients.waiting.get(&receipt.id) else { continue };
            let Some((at, write)) = &self.clients.all[number].waiting else { continue };
            if *at != server {
                continue;
            }
            let tries = write.tries;
            if paused {
                self.ask_when_resumed(number, tries);
            } else {
                if let Err(refusal) = &receipt.outcome {
                    self.note(format_args!("client {number} is told: {refusal}"));
                    self.must_not_fail(number, &refusal.to_string());
                }
                self.answer(number, if did { Fate::Applied } else { Fate::Failed });
            }
        }
    }

    /// A block's time was near the clocks of the majority when it was proposed.
    fn check_time(&mut self, block: &Block) {
        if self.plan.method != Method::Poa {
            // `raft`: its leader's clock, whatever that says. `pow`: checked with the proofs.
            return;
        }
        let id = block.id(self.genesis.chain_id());
        let Some(proposed) = self.monitor.proposed_at(id) else { return };
        let lies = |liar: &LiarPlan| liar.behaviours.contains(&Behaviour::LiesAboutClock);
        let lied_to = self.plan.name == "swarm" && self.plan.liars.iter().any(lies);
        let at_ms = self.genesis.time_ms + proposed / 1_000;
        let earliest = Time(at_ms.saturating_add_signed(self.clock_range.0));
        // A voter that learnt late of the parent measures by its own clock when it votes: before it
        // knew the block to be final, so before now.
        let known_ms = self.genesis.time_ms + self.now / 1_000;
        let latest_ms = if lied_to { known_ms } else { at_ms };
        let latest = Time(latest_ms.saturating_add_signed(self.clock_range.1));
        // Whoever was cut off, frozen or down may lead with a certificate as old as the run.
        let late = if self.plan.weather_is_calm() { 0 } else { self.now };
        let back_off = MOST_BACK_OFF * self.plan.parameters.slot_timeout_ms;
        let ahead = if lied_to { back_off } else { 0 };
        let near = time_is_near(block.header.time, earliest, latest, late, ahead);
        if block.header.height > Height(1) && !near {
            let time = block.header.time;
            let detail =
                format!("height {}: {time}, not {earliest} to {latest}", block.header.height);
            self.monitor.breaks("block time stays with the majority's clocks", detail);
        }
    }

    /// The range of the majority's clocks widens; it never shrinks, since medians and elapsed time
    /// look back.
    pub(crate) fn clocks_changed(&mut self) {
        for (server, &is_true) in self.servers.iter().zip(&self.plan.true_clocks) {
            if is_true {
                let (low, high) = self.clock_range;
                self.clock_range = (low.min(server.clock_off), high.max(server.clock_off));
            }
        }
    }

    fn diverge(&mut self, server: usize, what: String) {
        self.note(format_args!("server {server} diverged: {what}"));
        let flipped = self.plan.script.iter().any(|(_, step)| *step == Step::FlipRow { server });
        if !flipped && !self.plan.is_liar(server) {
            self.monitor.breaks("no state diverges", format!("server {server}, {what}"));
            return;
        }
        if let Some(running) = &mut self.servers[server].running {
            match running.state.rescan() {
                Ok(rescan) => self.diverged.push((server, rescan.differing)),
                Err(fault) => self.stopped_by(server, &fault),
            }
        }
        let there = &mut self.servers[server];
        there.quarantined = true;
        there.running = None;
        there.life += 1;
    }

    /// Changes two rows behind the server's back: one that clients will update, one that they will
    /// not.
    pub(crate) fn flip_row(&mut self, server: usize) {
        // An open transaction would keep it out.
        if let Some(running) = &mut self.servers[server].running {
            let height = running.state.executed().height;
            if let Err(fault) = running.state.forget_ahead() {
                self.stopped_by(server, &fault);
            }
            self.commit(server, height);
        }
        let path = self.servers[server].home.join("state.db");
        let flipped = rusqlite::Connection::open(path).and_then(|database| {
            database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            database.execute("UPDATE account SET balance = balance + 1e6 WHERE id = 1", [])?;
            database.execute("UPDATE ledger SET n = -1 WHERE rowid = 1", [])
        });
        if let Err(error) = flipped {
            self.monitor.breaks("the simulator can flip a row", error.to_string());
        }
    }

    // ---- small things ----

    pub(crate) fn schedule(&mut self, at: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at.max(self.now), self.scheduled), event);
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.event(self.now, what);
    }

    pub(crate) fn met(&mut self, fault: Fault) {
        self.met.borrow_mut().count(fault);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(broken) = &self.broken else {
            return write!(f, "{} seed {}: height {}", self.scenario, self.seed, self.height);
        };
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "BROKEN: {}: {}", broken.rule, broken.detail)?;
        let (seed, scenario) = (self.seed, self.scenario);
        write!(f, "again: cargo run -p rota-sim --release -- --seed {seed} --scenario {scenario}")
    }
}

/// What is taken for the next block: of eight once another one, as if a new leader were about to
/// replace it, which is rare.
fn guess(block: &Block, chain: ChainId) -> Block {
    let mut guess = block.clone();
    if block.id(chain).0[0].is_multiple_of(8) {
        guess.header.time.0 += 1;
    }
    guess
}

/// Whether this is what a server writes for a linearizable read: no client writes the like.
fn is_barrier(envelope: &Envelope) -> bool {
    let mut statements = envelope.transactions.iter().flat_map(|t| &t.statements);
    statements.any(|statement| statement.sql == "SELECT 1")
}
