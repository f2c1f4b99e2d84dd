//! A cluster in memory, as the host would run it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{Applied, Block, Body, Finality, Header, Kind};
use crate::consensus::raft::Raft;
use crate::consensus::raft::gather::ENOUGH;
use crate::consensus::{Action, Build, Consensus, Event, Load, Naming};
use crate::four_members;
use crate::genesis::{Genesis, Method};
use crate::journal::{Entry, HardState, Record, Recovered};
use crate::members::Member;
use crate::message::{Fetch, FinalBlocks, Message, RaftKind, RaftMessage, Recipient};
use crate::time::{Instant, Now, Time};
use crate::types::{BlockId, Height, MemberIndex, NodeId, StateRoot};

/// So many final blocks fit an answer.
pub const ANSWER: usize = 500;

/// What `chain.db` would hold.
#[derive(Clone, Default)]
pub struct Disk {
    pub finals: Vec<Arc<Block>>,
    finality: Option<Finality>,
    pub tail: Vec<Entry>,
    pub hard_state: HardState,
}

impl Disk {
    fn append(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::HardState(state) => self.hard_state = state,
                Record::Entry(entry) => {
                    self.tail.retain(|other| other.index < entry.index);
                    self.tail.push(entry);
                }
                Record::Finalized { blocks, finality } => {
                    let height = self.finals.len() as u64;
                    let news = blocks.into_iter().filter(|block| block.header.height.0 > height);
                    self.finals.extend(news);
                    self.finality = Some(finality);
                }
                _ => panic!("not raft's"),
            }
        }
        let last = self.finals.last().map_or(0, |block| block.header.slot.0);
        self.tail.retain(|entry| entry.index > last);
    }

    /// As `ChainDb::settle`: what is executed was final.
    fn settle(&mut self, executed: Height) {
        let blocks = self.tail.iter().filter_map(|entry| entry.block.clone());
        let blocks: Vec<_> = blocks.take_while(|block| block.header.height <= executed).collect();
        if let Some(last) = blocks.last() {
            let finality = super::super::behind::place_of(last).finality();
            self.append(vec![Record::Finalized { blocks, finality }]);
        }
        assert_eq!(self.finals.len() as u64, executed.0, "state.db is ahead of chain.db");
    }

    fn has(&self, block: &Block) -> bool {
        let in_tail = self.tail.iter().filter_map(|entry| entry.block.as_deref());
        in_tail.chain(self.finals.iter().map(|block| &**block)).any(|other| other == block)
    }
}

/// One member.
pub struct Server {
    pub raft: Option<Raft>,
    pub disk: Disk,
    notes: Vec<Record>,
    /// Writes that wait.
    pub waiting: VecDeque<String>,
    /// What `state.db` holds.
    pub executed: Height,
    /// The executor is stopped.
    pub stalled: bool,
    /// Added to every root.
    pub damage: u8,
    pub known: BTreeSet<BlockId>,
    pub readable: Vec<(u64, u64)>,
    pub reports: Vec<String>,
    pub abandoned: Vec<String>,
    /// What it may have executed before it was final, and when it was told so.
    pub ahead: Vec<String>,
    /// The height that the last block it built names.
    pub named: Option<Height>,
    /// It was told that its state is the wrong one, after this height: it runs no more.
    pub outvoted: Option<Height>,
    /// Final blocks that it was asked for by others.
    pub asked: usize,
    finalized: Vec<Arc<Block>>,
    load: Load,
}

/// A message on its way.
pub struct Flying {
    pub from: usize,
    pub to: usize,
    pub message: Message,
}

/// Several of them.
pub struct Cluster {
    pub genesis: Genesis,
    pub servers: Vec<Server>,
    pub flying: VecDeque<Flying>,
    /// Pairs between which nothing passes, one way.
    pub cut: BTreeSet<(usize, usize)>,
    pub now: Now,
    names: BTreeMap<BlockId, String>,
    /// Every final block, by height: all must agree.
    agreed: Vec<Arc<Block>>,
    /// The next crash of this server comes before its append.
    pub fuse: Option<usize>,
    pub messages: BTreeMap<String, usize>,
    /// A member lies: what is final may differ.
    pub has_liar: bool,
}

impl Cluster {
    pub fn new(members: u16) -> Self {
        let mut genesis = four_members::genesis();
        genesis.method = Method::Raft;
        let member = |i| Member { key: four_members::key(i).public(), weight: 1 };
        genesis.members = (0..members).map(member).collect();
        let now = Now { instant: Instant(5_000_000), clock: Time(2_000_000) };
        let mut cluster = Self {
            genesis,
            servers: Vec::new(),
            flying: VecDeque::new(),
            cut: BTreeSet::new(),
            now,
            names: BTreeMap::new(),
            agreed: Vec::new(),
            fuse: None,
            messages: BTreeMap::new(),
            has_liar: false,
        };
        for _ in 0..members {
            cluster.servers.push(Server::new());
        }
        for server in 0..cluster.servers.len() {
            cluster.start(server);
        }
        cluster
    }

    /// A cluster that has a leader, which is returned.
    pub fn with_leader(members: u16) -> (Self, usize) {
        let mut cluster = Self::new(members);
        cluster.pass(1_000);
        let leader = cluster.leader().expect("somebody leads after a second");
        (cluster, leader)
    }

    pub fn key(&self, server: usize) -> NodeId {
        self.genesis.members[server].key
    }

    fn server_of(&self, key: NodeId) -> usize {
        self.genesis.members.iter().position(|member| member.key == key).unwrap()
    }

    pub fn start(&mut self, who: usize) {
        let server = &mut self.servers[who];
        server.disk.settle(server.executed);
        server.finalized = server.disk.finals.clone();
        server.known.clear();
        server.notes.clear();
        server.load = Load::default();
        let recovered = Recovered {
            last: server.disk.finals.last().cloned().zip(server.disk.finality.clone()),
            tail: server.disk.tail.iter().cloned().map(Record::Entry).collect(),
            hard_state: server.disk.hard_state,
            ..Recovered::default()
        };
        let members = self.genesis.check().unwrap();
        let key = four_members::key(u16::try_from(who).unwrap());
        let raft = Raft::new(&self.genesis, members, key, recovered, self.now);
        self.servers[who].raft = Some(raft);
        let applied = self.servers[who].applied();
        self.step(who, Event::Applied(applied));
        self.step(who, Event::Start);
    }

    pub fn crash(&mut self, who: usize) {
        self.servers[who].raft = None;
        self.flying.retain(|flying| flying.to != who);
    }

    pub fn raft(&self, who: usize) -> &Raft {
        self.servers[who].raft.as_ref().expect("it runs")
    }

    /// Who leads in the newest term.
    pub fn leader(&self) -> Option<usize> {
        let leads = |&who: &usize| self.servers[who].raft.as_ref().is_some_and(Raft::is_leader);
        let leaders = (0..self.servers.len()).filter(leads);
        leaders.max_by_key(|&who| self.raft(who).node.raft.term)
    }

    /// One event, and all inputs that came with it, as the host has it.
    pub fn step(&mut self, who: usize, event: Event) {
        let Some(raft) = &mut self.servers[who].raft else { return };
        let mut actions: VecDeque<Action> = raft.step(self.now, event).into();
        let mut records = Vec::new();
        let mut drained = false;
        loop {
            while let Some(action) = actions.pop_front() {
                let more = self.carry_out(who, action, &mut records);
                actions.extend(more);
            }
            if drained {
                break;
            }
            drained = true;
            let Some(raft) = &mut self.servers[who].raft else { return };
            actions.extend(raft.drained(self.now));
        }
        if self.servers[who].outvoted.is_none() {
            self.look_after_load(who);
        }
        // A batch is on disk as a whole. Here it is before what follows its records, in the order
        // of actions; what comes before them has left already.
        let server = &mut self.servers[who];
        if !records.is_empty() {
            let records = [std::mem::take(&mut server.notes), records].concat();
            server.disk.append(records);
        }
        if server.outvoted.is_some() {
            server.raft = None;
        }
    }

    fn carry_out(&mut self, who: usize, action: Action, records: &mut Vec<Record>) -> Vec<Action> {
        if self.fuse == Some(who) && !records.is_empty() {
            return Vec::new(); // it has crashed before its append
        }
        match action {
            Action::Persist(record) => records.push(record),
            Action::Note(record) => self.servers[who].notes.push(record),
            Action::Send { to: Recipient::One(key), message } => {
                let to = self.server_of(key);
                self.count(&message);
                if let Message::Raft(message) = &message {
                    self.servers[who].may_say(message, self.key(who), key, records);
                }
                self.flying.push_back(Flying { from: who, to, message });
            }
            Action::Build(build) => return self.build(who, build),
            Action::Known(block) => {
                let id = block.id(self.genesis.chain_id());
                self.servers[who].known.insert(id);
            }
            Action::Ahead(block) => self.ahead(who, &block, records),
            Action::Finalize { blocks, .. } => return self.finalize(who, blocks, records),
            Action::Abandon(blocks) => {
                let names = blocks.iter().map(|block| self.name(block)).collect::<Vec<_>>();
                self.servers[who].abandoned.extend(names);
            }
            Action::Readable { nonce, height } => {
                self.servers[who].readable.push((nonce, height.0));
            }
            Action::Report(line) => self.servers[who].reports.push(line),
            Action::Outvoted { height, agreed, ours } => {
                assert_ne!(agreed, ours);
                self.servers[who].outvoted = Some(height);
            }
            other => panic!("unexpected: {other:?}"),
        }
        Vec::new()
    }

    /// A member may execute a block that it has, or is about to have, in its log.
    fn ahead(&mut self, who: usize, block: &Arc<Block>, records: &[Record]) {
        let is_entry = |record: &Record| match record {
            Record::Entry(entry) => entry.block.as_ref() == Some(block),
            _ => false,
        };
        let is_written = records.iter().any(is_entry) || self.servers[who].disk.has(block);
        let is_answer = |flying: &Flying| {
            let Message::Raft(message) = &flying.message else { return false };
            flying.from == who && message.kind == RaftKind::AppendResponse
        };
        let when = match self.flying.iter().any(is_answer) {
            _ if !is_written => "before it is written",
            false => "before it is said",
            true => "after it is said",
        };
        assert!(!self.servers[who].finalized.contains(block), "what is final is not ahead");
        let name = self.name(block);
        self.servers[who].ahead.push(format!("{name} {when}"));
    }

    fn count(&mut self, message: &Message) {
        let kind = match message {
            Message::Raft(message) => format!("{:?}", message.kind),
            _ => "other".into(),
        };
        *self.messages.entry(kind).or_default() += 1;
    }

    fn build(&mut self, who: usize, build: Build) -> Vec<Action> {
        let write = self.servers[who].waiting.pop_front();
        let block = (write.is_some() || build.may_be_empty).then(|| {
            let parent = &build.parent.header;
            let Naming::Reached(reached) = build.applied else { panic!("raft names what it has") };
            self.servers[who].named = Some(reached);
            let applied = Applied { height: reached, root: self.servers[who].root(reached) };
            let body = Body { parent_certificate: None, envelopes: Vec::new() };
            let header = Header {
                epoch: parent.epoch,
                slot: build.slot,
                height: parent.height.next(),
                kind: Kind::Ordinary,
                parent: parent.id(self.genesis.chain_id()),
                leader: MemberIndex(u16::try_from(who).unwrap()),
                turn: build.turn,
                time: build.time,
                applied,
                body: body.digest(),
            };
            assert!(header.time > parent.time, "time goes back");
            let block = Arc::new(Block { header, body });
            let name = write.unwrap_or_else(|| ".".into());
            self.names.insert(block.id(self.genesis.chain_id()), name);
            block
        });
        let raft = self.servers[who].raft.as_mut().unwrap();
        raft.step(self.now, Event::Built { slot: build.slot, block })
    }

    /// What is final is on a majority's disks, and the same everywhere.
    fn finalize(&mut self, who: usize, blocks: Vec<Arc<Block>>, records: &[Record]) -> Vec<Action> {
        for block in blocks {
            let height = usize::try_from(block.header.height.0).unwrap();
            assert_eq!(height, self.servers[who].finalized.len() + 1, "finalized out of order");
            let parent = self.servers[who].finalized.last().map(|parent| self.id(parent));
            assert_eq!(block.header.parent, parent.unwrap_or_else(|| self.first()));
            self.servers[who].finalized.push(block.clone());
            if self.has_liar {
                continue;
            }
            let in_batch = records.iter().any(|record| match record {
                Record::Entry(entry) => entry.block.as_ref() == Some(&block),
                Record::Finalized { blocks, .. } => blocks.contains(&block),
                _ => false,
            });
            let disks = self.servers.iter().filter(|server| server.disk.has(&block)).count();
            let own = usize::from(in_batch && !self.servers[who].disk.has(&block));
            match self.agreed.get(height - 1) {
                Some(agreed) => assert_eq!(*agreed, block, "two blocks at height {height}"),
                None => {
                    assert!(
                        (disks + own) * 2 > self.servers.len(),
                        "{} is acknowledged, and on {} disks only",
                        self.name(&block),
                        disks + own
                    );
                    self.agreed.push(block);
                }
            }
        }
        self.execute(who)
    }

    fn execute(&mut self, who: usize) -> Vec<Action> {
        let server = &mut self.servers[who];
        let mut actions = Vec::new();
        while !server.stalled && server.executed.0 < server.finalized.len() as u64 {
            server.executed = server.executed.next();
            let applied = server.applied();
            actions.extend(server.raft.as_mut().unwrap().step(self.now, Event::Applied(applied)));
        }
        actions
    }

    /// The executor of a server that was stalled goes on.
    pub fn resume(&mut self, who: usize) {
        self.servers[who].stalled = false;
        while self.servers[who].executed.0 < self.servers[who].finalized.len() as u64 {
            self.servers[who].executed = self.servers[who].executed.next();
            let applied = self.servers[who].applied();
            self.step(who, Event::Applied(applied));
        }
    }

    fn look_after_load(&mut self, who: usize) {
        let server = &mut self.servers[who];
        let load = Load { waiting: server.waiting.len(), unconfirmed: false };
        if load != server.load {
            server.load = load;
            self.step(who, Event::Load(load));
        }
    }

    /// A client's write, which reaches this server.
    pub fn write(&mut self, who: usize, name: &str) {
        self.servers[who].waiting.push_back(name.into());
        let load = Load { waiting: self.servers[who].waiting.len(), unconfirmed: false };
        self.servers[who].load = load;
        self.step(who, Event::Load(load));
    }

    /// The same where so many wait that a block is put beside the one on its way.
    pub fn write_in_a_crowd(&mut self, who: usize, name: &str) {
        self.servers[who].waiting.push_back(name.into());
        self.step(who, Event::Load(Load { waiting: ENOUGH, unconfirmed: false }));
    }

    /// Delivers what is under way, and what comes of it, until nothing is.
    pub fn deliver(&mut self) {
        while let Some(flying) = self.flying.pop_front() {
            self.arrive(flying);
        }
    }

    /// The same, and what is held back for a moment is said.
    pub fn settle(&mut self) {
        self.deliver();
        self.pass(10);
    }

    pub fn arrive(&mut self, Flying { from, to, message }: Flying) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        if let Message::Fetch(Fetch::FinalAfter(Height(height))) = message {
            return self.serve(to, from, usize::try_from(height).unwrap());
        }
        let from = self.key(from);
        self.step(to, Event::Message { from, message });
    }

    /// The host answers from disk.
    fn serve(&mut self, who: usize, to: usize, height: usize) {
        self.servers[who].asked += 1;
        if self.servers[who].raft.is_none() {
            return;
        }
        let disk = &self.servers[who].disk;
        let end = disk.finals.len().min(height + ANSWER);
        let Some(blocks) = disk.finals.get(height..end).filter(|blocks| !blocks.is_empty()) else {
            return;
        };
        let finality = super::super::behind::place_of(blocks.last().unwrap()).finality();
        let answer = FinalBlocks { blocks: blocks.to_vec(), finality };
        self.flying.push_back(Flying { from: who, to, message: Message::Final(answer) });
    }

    /// Lets so many milliseconds pass; messages take no time.
    pub fn pass(&mut self, milliseconds: u64) {
        let end = self.now.instant.plus(Duration::from_millis(milliseconds));
        self.deliver();
        loop {
            let wakes = (0..self.servers.len()).filter_map(|who| {
                let raft = self.servers[who].raft.as_ref()?;
                Some((raft.wake()?, who))
            });
            let Some((at, who)) = wakes.min().filter(|(at, _)| *at <= end) else { break };
            self.set_time(at.max(self.now.instant));
            let before = self.raft(who).wake();
            self.step(who, Event::Timer);
            self.deliver();
            let after = self.servers[who].raft.as_ref().and_then(Consensus::wake);
            assert!(after > before || after.is_none(), "it would be woken for ever");
        }
        self.set_time(end);
    }

    pub fn set_time(&mut self, at: Instant) {
        let passed = at.since(self.now.instant);
        self.now = Now { instant: at, clock: self.now.clock.plus(passed) };
    }

    /// Nothing passes between the two sides.
    pub fn part(&mut self, one: &[usize], other: &[usize]) {
        for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.cut.extend([(a, b), (b, a)]);
        }
    }

    /// One server is cut off from all others.
    pub fn isolate(&mut self, who: usize) {
        let others: Vec<usize> = (0..self.servers.len()).filter(|&other| other != who).collect();
        self.part(&[who], &others);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    fn id(&self, block: &Block) -> BlockId {
        block.id(self.genesis.chain_id())
    }

    fn first(&self) -> BlockId {
        self.id(&Block::genesis(&self.genesis))
    }

    fn name(&self, block: &Block) -> String {
        self.names.get(&block.id(self.genesis.chain_id())).cloned().unwrap_or_else(|| "?".into())
    }

    /// The writes that are final at a server, in order; empty blocks left out.
    pub fn finals(&self, who: usize) -> String {
        let names = self.servers[who].finalized.iter().map(|block| self.name(block));
        names.filter(|name| name != ".").collect::<Vec<_>>().join(" ")
    }

    /// The writes in its log that are not final.
    pub fn tail(&self, who: usize) -> String {
        let mut names = String::new();
        let log = self.raft(who).node.store();
        let last = self.raft(who).last.block.header.slot.0;
        for index in last + 1..=log.last().index {
            if let Some((_, block)) = log.get(index).and_then(|kept| kept.block.as_ref()) {
                let name = self.name(block);
                let space = if names.is_empty() { "" } else { " " };
                write!(names, "{space}{name}").unwrap();
            }
        }
        names
    }

    pub fn height(&self, who: usize) -> usize {
        self.servers[who].finalized.len()
    }

    pub fn term(&self, who: usize) -> u64 {
        self.raft(who).node.raft.term
    }

    /// Messages of this kind that fly between two servers are dropped.
    pub fn drop_kind(&mut self, kind: RaftKind) {
        self.flying.retain(|flying| match &flying.message {
            Message::Raft(message) => message.kind != kind,
            _ => true,
        });
    }
}

impl Server {
    fn new() -> Self {
        Self {
            raft: None,
            disk: Disk::default(),
            notes: Vec::new(),
            waiting: VecDeque::new(),
            executed: Height(0),
            stalled: false,
            damage: 0,
            known: BTreeSet::new(),
            readable: Vec::new(),
            reports: Vec::new(),
            abandoned: Vec::new(),
            ahead: Vec::new(),
            named: None,
            outvoted: None,
            asked: 0,
            finalized: Vec::new(),
            load: Load::default(),
        }
    }

    /// What a message promises is on disk, or is written before it.
    fn may_say(&self, message: &RaftMessage, me: NodeId, to: NodeId, records: &[Record]) {
        let written = |record: &Record| match record {
            Record::HardState(state) => Some(*state),
            _ => None,
        };
        let state = records.iter().rev().find_map(written).unwrap_or(self.disk.hard_state);
        match message.kind {
            RaftKind::AppendResponse if !message.reject && message.index > 0 => {
                let end = |record: &Record| match record {
                    Record::Entry(entry) => Some(entry.index),
                    Record::Finalized { blocks, .. } => Some(blocks.last()?.header.slot.0),
                    _ => None,
                };
                let finals = self.disk.finals.last().map_or(0, |block| block.header.slot.0);
                let last = self.disk.tail.last().map_or(finals, |entry| entry.index);
                let last = records.iter().rev().find_map(end).unwrap_or(last);
                assert!(last >= message.index, "it has {last}, and says {}", message.index);
                assert!(state.term >= message.term);
            }
            RaftKind::VoteResponse if !message.reject => {
                assert_eq!((state.term, state.vote), (message.term, Some(to)));
            }
            RaftKind::Vote => {
                assert_eq!((state.term, state.vote), (message.term, Some(me)));
            }
            _ => {}
        }
    }

    fn root(&self, height: Height) -> StateRoot {
        StateRoot([self.damage + u8::try_from(height.0 % 50).unwrap(); 32])
    }

    fn applied(&self) -> Applied {
        Applied { height: self.executed, root: self.root(self.executed) }
    }
}
