//! A run: the queue of events, and what each does. One thread; virtual time jumps from event to
//! event.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rota_core::block::Block;
use rota_core::crypto::SecretKey;
use rota_core::error::Fault as RealFault;
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method};
use rota_core::members::Member;
use rota_core::message::{Message, Recipient};
use rota_core::replica::Input;
use rota_core::time::Time;
use rota_core::transaction::Envelope;
use rota_core::types::{ChainId, Digest, Height, MemberIndex, NodeId, TransactionId};
use rota_core::verify::Verifier;
use rota_store::sqlite::identity;
use rota_store::{AppliedBlock, DifferingRow};

use rusqlite::config::DbConfig;
use tempfile::TempDir;

use crate::check::{Broken, MOST_BACK_OFF, Monitor, time_is_near};
use crate::clients::{Clients, Fate, Over, PATIENCE, Write};
use crate::liar::{Behaviour, Liar};
use crate::network::Network;
use crate::random::Random;
use crate::readers::Readers;
use crate::scenario::{LiarPlan, Plan, Step};
use crate::server::{Effect, Sent, Server, Work};
use crate::trace::{Brief, Trace};
use crate::{Counters, Fault, Micros, SECOND};

/// More events than this in one run: something feeds itself.
const MAX_EVENTS: u64 = 3_000_000;

/// The date at which all runs begin: 2026-01-01.
const BEGINNING_MS: u64 = 1_767_225_600_000;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    Arrive { from: usize, to: usize, message: Rc<Sent> },
    Connected { server: usize, peer: usize },
    Turn { server: usize, life: u64 },
    Woken { server: usize, life: u64, timer: u64 },
    Execute { server: usize, life: u64 },
    Restart { server: usize, life: u64 },
    Client { number: usize, tries: u32 },
    Read { number: usize, tries: u64 },
    Befall(Step),
    DrawFault,
    FaultsEnd,
    Check,
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
    /// How often each fault was met.
    pub met: Counters,
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
    /// What became of each transaction: its block's height, and whether it did anything.
    pub(crate) became: BTreeMap<TransactionId, (Height, bool)>,
    pub(crate) diverged: Vec<(usize, Vec<DifferingRow>)>,
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

    fn new(plan: Plan, loud: bool) -> Self {
        let mut luck = Random::new(plan.seed);
        let keys: Vec<SecretKey> =
            (0..plan.servers).map(|_| SecretKey::from_bytes(luck.bytes())).collect();
        let genesis = genesis(&plan, &keys);
        let chain = genesis.chain_id();
        let members = genesis.check().expect("a plan makes a good genesis");
        let met: Rc<RefCell<Counters>> = Rc::default();
        let homes = homes();
        let servers = keys
            .iter()
            .enumerate()
            .map(|(i, key)| {
                let home = homes.path().join(format!("server-{i}"));
                std::fs::create_dir(&home).expect("a fresh folder");
                Server::new(key.clone(), home, plan.clocks[i], luck.fork(), met.clone())
            })
            .collect();
        let honest: Vec<bool> = (0..plan.servers).map(|i| !plan.is_liar(i)).collect();
        let signers: Vec<SecretKey> = keys
            .iter()
            .zip(&honest)
            .filter(|&(_, &honest)| honest)
            .map(|(k, _)| k.clone())
            .collect();
        let clients = Clients::new(chain, &plan.clients, &signers, &mut luck);
        let readers = Readers::new(&plan.readers, &mut luck);
        let mut world = Self {
            now: 0,
            network: Network::new(plan.servers, plan.weather.clone(), luck.fork()),
            liars: liars(&plan, chain, &keys, &mut luck),
            cut_off: vec![false; plan.servers],
            down_for: vec![SECOND; plan.servers],
            queue: BTreeMap::new(),
            scheduled: 0,
            clients,
            readers,
            monitor: Monitor::new(chain, honest),
            verifier: Verifier::new(&genesis, members),
            trace: Trace::new(loud),
            met,
            became: BTreeMap::new(),
            diverged: Vec::new(),
            clock_range: (i64::MAX, 0),
            over: false,
            homes,
            servers,
            genesis,
            luck,
            plan,
        };
        world.clocks_changed();
        world
    }

    fn begin(&mut self) {
        for server in 0..self.servers.len() {
            self.start(server);
        }
        for number in 0..self.clients.all.len() {
            let at = self.clients.all[number].plan.start + self.luck.below(1_000);
            self.schedule(at, Event::Client { number, tries: 0 });
        }
        for number in 0..self.readers.len() {
            let at = self.luck.below(SECOND);
            self.schedule(at, Event::Read { number, tries: 0 });
        }
        for (at, step) in self.plan.script.clone() {
            self.schedule(at, Event::Befall(step));
        }
        if !self.plan.faults.is_empty() {
            self.schedule(self.plan.fault_every, Event::DrawFault);
        }
        self.schedule(self.plan.faults_end, Event::FaultsEnd);
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
            Event::Turn { .. }
            | Event::Woken { .. }
            | Event::Execute { .. }
            | Event::Restart { .. } => {}
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
        match self.servers[server].start(self.now, &self.genesis) {
            Err(fault) => self.stopped_by(server, &fault),
            Ok((replayed, effects)) => {
                self.note(format_args!("server {server} starts, {} replayed", replayed.len()));
                for (block, applied) in replayed {
                    self.applied(server, &block, applied);
                }
                self.carry_out(server, effects);
                for other in 0..self.servers.len() {
                    if other != server && self.network.is_open(server, other) {
                        self.connect(server, other);
                    }
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
        let (now, genesis) = (self.now, &self.genesis);
        match self.servers[server].take(now, genesis, inputs) {
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

    fn carry_out(&mut self, server: usize, effects: Vec<Effect>) {
        let there = &self.servers[server];
        let life = there.life;
        let appended = there.running.as_ref().is_some_and(|running| running.appended.get() > 0);
        let cost = if appended { there.fsync } else { 0 } + 10;
        let leaves = self.now + cost;
        self.servers[server].busy_until = leaves.max(there.busy_until);
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send(server, leaves, to, message),
                Effect::Apply(block) => self.hand_over(server, leaves, block),
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
                Effect::Report(line) => self.note(format_args!("server {server} says: {line}")),
                Effect::Diverged(height, agreed, ours) => {
                    let what = format!("height {height}: {agreed:?} agreed, {ours:?} here");
                    self.diverge(server, what);
                }
            }
        }
    }

    // ---- network ----

    fn send(&mut self, from: usize, leaves: Micros, to: Recipient, message: Message) {
        let durable = self.servers[from].durable.clone();
        self.monitor.sends(from, &message, &durable.borrow());
        let outgoing = match self.liars.get_mut(&from) {
            None => vec![(to, message)],
            Some(liar) => {
                let outgoing = liar.twist(to.clone(), message.clone());
                if outgoing.len() != 1 || outgoing[0] != (to, message) {
                    self.met(Fault::Lie);
                }
                outgoing
            }
        };
        for (to, message) in outgoing {
            self.note(format_args!("{from} sends {to:?} {}", Brief(&message)));
            self.monitor.leaves(self.now, &message);
            let message = Rc::new(Sent { message, verdict: OnceCell::new() });
            let recipients: Vec<usize> = match to {
                Recipient::Members => (0..self.servers.len()).filter(|&to| to != from).collect(),
                Recipient::One(node) => self.number_of(node).into_iter().collect(),
                Recipient::MembersBut(node) => {
                    let but = self.number_of(node);
                    let others = (0..self.servers.len()).filter(|&to| to != from);
                    others.filter(|&to| Some(to) != but).collect()
                }
            };
            for to in recipients {
                let arrivals = self.network.arrivals(from, to, &mut self.met.borrow_mut());
                for delay in arrivals {
                    let message = message.clone();
                    self.schedule(leaves + delay, Event::Arrive { from, to, message });
                }
            }
        }
    }

    /// Two servers have a stream to each other (again).
    pub(crate) fn connect(&mut self, one: usize, other: usize) {
        for (server, peer) in [(one, other), (other, one)] {
            let delay = self.luck.between(500, 20_000);
            self.schedule(self.now + delay, Event::Connected { server, peer });
        }
    }

    fn number_of(&self, node: NodeId) -> Option<usize> {
        self.servers.iter().position(|server| server.node == node)
    }

    // ---- executor ----

    fn hand_over(&mut self, server: usize, leaves: Micros, block: Arc<Block>) {
        let height = block.header.height;
        if self.servers[server].durable.borrow().height < height {
            let detail = format!("server {server}: block {height}");
            self.monitor.breaks("durable before applying", detail);
        }
        let there = &mut self.servers[server];
        let (life, apply) = (there.life, there.apply);
        let Some(running) = &mut there.running else { return };
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
        match running.state.apply(&block) {
            Err(RealFault::Diverged(what)) => return self.diverge(server, what),
            Err(fault) => self.stopped_by(server, &fault),
            Ok(applied) => {
                running.chain_db.borrow_mut().save_receipts(applied.receipts.clone());
                there.keep_state();
                let reached = applied.applied;
                self.applied(server, &block, applied);
                self.give(server, Work::Input(Input::Applied(reached)));
            }
        }
        if more {
            self.schedule(self.now + apply, Event::Execute { server, life });
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
        for receipt in &applied.receipts {
            let did = receipt.outcome.is_ok();
            self.became.entry(receipt.id).or_insert((height, did));
            let Some(&number) = self.clients.waiting.get(&receipt.id) else { continue };
            if self.clients.all[number].waiting.as_ref().is_some_and(|(at, _)| *at == server) {
                if let Err(refusal) = &receipt.outcome {
                    self.note(format_args!("client {number} is told: {refusal}"));
                    self.must_not_fail(number, &refusal.to_string());
                }
                self.answer(number, if did { Fate::Applied } else { Fate::Failed });
            }
        }
    }

    fn must_not_fail(&mut self, number: usize, why: &str) {
        let must = self.clients.all[number].waiting.as_ref().filter(|(_, write)| write.must_apply);
        if let Some((_, write)) = must {
            let detail = format!("{}: {why}", write.key);
            self.monitor.breaks("a plain insert succeeds", detail);
        }
    }

    /// A block's time was near the clocks of the majority when it was proposed.
    fn check_time(&mut self, block: &Block) {
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

    // ---- clients ----

    fn client(&mut self, number: usize, tries: u32) {
        let waiting = self.clients.all[number].waiting.take();
        let tried = waiting.as_ref().map_or(0, |(_, write)| write.tries);
        if tried != tries {
            self.clients.all[number].waiting = waiting;
            return;
        }
        if number != 0 && !self.clients.ready {
            self.schedule(self.now + 20_000, Event::Client { number, tries });
            return;
        }
        let before = waiting.as_ref().map(|(server, _)| *server);
        let Some(server) = self.door(before) else {
            self.clients.all[number].waiting = waiting;
            self.schedule(self.now + 100_000, Event::Client { number, tries });
            return;
        };
        let write = match waiting {
            Some((_, write)) => Some(write),
            None => {
                let status = self.servers[server].status(self.now, &self.genesis);
                let Some(status) = status else { return };
                let drafts = self.servers[server].running.as_ref().map(|running| &running.drafts);
                self.clients.next_write(number, self.now, &status, drafts)
            }
        };
        if let Some(write) = write {
            self.submit(number, server, write);
        }
    }

    fn submit(&mut self, number: usize, server: usize, write: Write) {
        let Write { id, ref key, ref envelope, tries, .. } = write;
        let envelope = envelope.clone();
        self.note(format_args!("client {number} sends {key} to {server}, try {}", tries + 1));
        if tries > 0 {
            self.met(Fault::Retry);
        }
        self.clients.sent(number, server, write);
        let known = self.became.get(&id).copied();
        let reached = self.servers[server].running.as_ref().map(|r| r.state.applied().height);
        if let (Some((height, did)), Some(reached)) = (known, reached)
            && height <= reached
        {
            if !did {
                self.must_not_fail(number, "(asked later)");
            }
            self.answer(number, if did { Fate::Applied } else { Fate::Failed });
            return;
        }
        if self.has_expired_unseen(server, envelope.expiry.time) {
            self.note(format_args!("client {number} learns that it was never done"));
            self.answer(number, Fate::Failed);
            return;
        }
        self.give(server, Work::Input(Input::Submit(envelope)));
        self.schedule(self.now + PATIENCE, Event::Client { number, tries: tries + 1 });
    }

    /// Whether a transaction that this server has not seen can no longer happen: all it knows is
    /// executed, and later than the expiry.
    fn has_expired_unseen(&self, server: usize, expiry: Time) -> bool {
        self.servers[server]
            .status(self.now, &self.genesis)
            .is_some_and(|at| at.applied.height == at.height && at.block_time > expiry)
    }

    fn answer(&mut self, number: usize, fate: Fate) {
        self.clients.answered(number, fate, self.now);
        let next = self.now + 100 + self.clients.think(number);
        self.schedule(next, Event::Client { number, tries: 0 });
    }

    /// An honest server that runs, another than the one tried before if there is one.
    pub(crate) fn door(&mut self, before: Option<usize>) -> Option<usize> {
        let open: Vec<usize> = (0..self.servers.len())
            .filter(|&i| self.servers[i].running.is_some() && !self.plan.is_liar(i))
            .collect();
        let other: Vec<usize> = open.iter().copied().filter(|&i| Some(i) != before).collect();
        let from = if other.is_empty() { open } else { other };
        (!from.is_empty()).then(|| self.luck.choose(&from))
    }

    fn dropped(
        &mut self,
        server: usize,
        transactions: &[TransactionId],
        why: &rota_core::error::Refusal,
    ) {
        self.note(format_args!("server {server} drops {}: {why}", transactions.len()));
        for id in transactions {
            let Some(&number) = self.clients.waiting.get(id) else { continue };
            let Some((at, write)) = &self.clients.all[number].waiting else { continue };
            if *at == server {
                let tries = write.tries;
                self.schedule(self.now + 50_000, Event::Client { number, tries });
                self.met(Fault::Dropped);
            }
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

    /// Whoever leads, by the word of the first server that runs.
    pub(crate) fn leader(&self) -> Option<usize> {
        let status = (0..self.servers.len())
            .find_map(|server| self.servers[server].status(self.now, &self.genesis))?;
        self.number_of(status.leader?)
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

/// Whether this is what a server writes for a linearizable read: no client writes the like.
fn is_barrier(envelope: &Envelope) -> bool {
    let mut statements = envelope.transactions.iter().flat_map(|t| &t.statements);
    statements.any(|statement| statement.sql == "SELECT 1")
}

fn genesis(plan: &Plan, keys: &[SecretKey]) -> Genesis {
    Genesis {
        format: FORMAT,
        name: "simulated".into(),
        time_ms: BEGINNING_MS,
        method: Method::Poa,
        pow: None,
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: identity(),
        parameters: plan.parameters.clone(),
        members: keys.iter().map(|key| Member { key: key.public(), weight: 1 }).collect(),
    }
}

fn liars(
    plan: &Plan,
    chain: ChainId,
    keys: &[SecretKey],
    luck: &mut Random,
) -> BTreeMap<usize, Liar> {
    let mut liars = BTreeMap::new();
    for liar in &plan.liars {
        let key = keys[liar.server].clone();
        let member = MemberIndex(u16::try_from(liar.server).expect("few servers"));
        let others = keys.iter().map(SecretKey::public).filter(|&k| k != key.public()).collect();
        let behaviours = liar.behaviours.clone();
        let liar_there = Liar::new(chain, key, member, others, behaviours, luck.fork());
        liars.insert(liar.server, liar_there);
    }
    liars
}

/// A folder for the servers' homes, in memory where the system offers that: these disks lose what
/// we say they lose.
fn homes() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let builder = |at: &Path| tempfile::Builder::new().prefix("rota-sim-").tempdir_in(at);
    builder(&memory).or_else(|_| tempfile::tempdir()).expect("room for temporary files")
}
