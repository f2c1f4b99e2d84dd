//! Servers under `pow` that talk to each other by hand: what each finds, when, and who hears of it
//! is the test's choice. Blocks are real, so are proofs (at one hash in two); their content is for
//! the replica to judge, whose part is played here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::block::{Applied, Body, Header};
use crate::consensus::Build;
use crate::crypto::Signature;
use crate::genesis::{Administrator, FORMAT, Method, Parameters};
use crate::message::Recipient;
use crate::transaction::{Envelope, Expiry};
use crate::types::{Digest, StateRoot};
use crate::work::{Retarget, Search, SearchJob, Step};

const SPACING: u64 = 2;
const GENESIS_MS: u64 = 1_000_000_000;

fn genesis(depth: u32) -> Genesis {
    let pow = Pow {
        spacing_s: 2,
        bits: 0x207f_ffff,
        retarget: Retarget::Asert { halflife_s: 86_400 },
        depth,
        ..Pow::default()
    };
    Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: GENESIS_MS,
        method: Method::Pow,
        pow: Some(pow),
        seed: Digest::default(),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: String::new(),
        parameters: Parameters::default(),
        members: Vec::new(),
    }
}

fn key(server: usize) -> SecretKey {
    SecretKey::from_bytes([u8::try_from(server).unwrap() + 1; 32])
}

/// The root that every server has after a height.
fn root(height: Height) -> Applied {
    if height == Height(0) {
        return Applied::default();
    }
    Applied { height, root: StateRoot([u8::try_from(height.0 % 251).unwrap(); 32]) }
}

/// An envelope that may stand in no block.
fn expired() -> Arc<Envelope> {
    let expiry = Expiry { height: Height(0), time: Time(0) };
    let signature = Signature([0; 64]);
    Arc::new(Envelope { signer: NodeId::default(), expiry, transactions: Vec::new(), signature })
}

struct Server {
    method: Nakamoto,
    job: Option<SearchJob>,
    records: Vec<Record>,
    finals: Vec<Arc<Block>>,
    /// What an operator and the replica would notice.
    said: Vec<String>,
    /// Its log.
    reports: Vec<String>,
    /// Blocks that this server finds wrong.
    dislikes: Vec<BlockId>,
}

struct Net {
    genesis: Genesis,
    servers: Vec<Server>,
    queue: VecDeque<(usize, usize, Message)>,
    /// Which part each server is in; messages between parts are lost.
    part: Vec<usize>,
    seconds: u64,
    /// This server's blocks hold what has expired.
    spoils: Option<usize>,
    /// What has passed beside whole seconds.
    now_us: u64,
    bodies: BTreeMap<BlockId, Arc<Block>>,
}

impl Net {
    fn new(servers: usize, depth: u32) -> Self {
        let genesis = genesis(depth);
        let mut net = Self {
            servers: Vec::new(),
            queue: VecDeque::new(),
            part: vec![0; servers],
            seconds: 0,
            spoils: None,
            now_us: 0,
            bodies: BTreeMap::new(),
            genesis,
        };
        for number in 0..servers {
            let method = net.method(number, Recovered::default());
            net.servers.push(Server {
                method,
                job: None,
                records: Vec::new(),
                finals: Vec::new(),
                said: Vec::new(),
                reports: Vec::new(),
                dislikes: Vec::new(),
            });
        }
        for number in 0..servers {
            net.start(number);
        }
        net
    }

    fn now(&self) -> Now {
        let since = Duration::from_secs(self.seconds) + Duration::from_micros(self.now_us);
        Now { instant: Instant(1_000).plus(since), clock: Time(GENESIS_MS).plus(since) }
    }

    fn method(&self, number: usize, recovered: Recovered) -> Nakamoto {
        Nakamoto::new(&self.genesis, key(number), recovered, self.now())
    }

    fn start(&mut self, number: usize) {
        self.step(number, Event::Start);
        self.step(number, Event::Mine(true));
        for other in (0..self.servers.len()).filter(|&other| other != number) {
            let node = key(other).public();
            self.step(number, Event::Connected(node));
        }
        self.settle();
    }

    /// Server 1 tells this one so many proofs above its head, of blocks that nobody has; the last
    /// one's hash.
    fn withhold(&mut self, number: usize, proofs: u8) -> HeaderHash {
        let from = key(1).public();
        let mut tip = self.head(number);
        for turn in 1..=proofs {
            let tree = &self.servers[number].method.tree;
            let (bits, time) = (tree.bits_after(tip).unwrap(), tree.median_time(tip) + 1);
            let withheld = proof(tip, BlockId([turn; 32]), time, bits);
            tip = withheld.hash();
            self.step(number, Event::Message { from, message: Message::Proofs(vec![withheld]) });
        }
        tip
    }

    fn step(&mut self, number: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            let actions = self.servers[number].method.step(now, event);
            for action in actions {
                events.extend(self.carry_out(number, action));
            }
        }
    }

    /// Plays the replica, the host and the network.
    fn carry_out(&mut self, number: usize, action: Action) -> Option<Event> {
        let server = &mut self.servers[number];
        match action {
            Action::Persist(record) | Action::Note(record) => server.records.push(record),
            Action::Known(block) => {
                self.bodies.insert(block.id(self.genesis.chain_id()), block);
            }
            Action::Finalize { blocks, .. } => {
                server.finals.extend(blocks);
                let height = server.finals.last().unwrap().header.height;
                return Some(Event::Applied(root(height)));
            }
            Action::Validate(wanted) => {
                let id = wanted.block.id(self.genesis.chain_id());
                let named = wanted.block.header.applied;
                let right = Some(named.height) == wanted.applied && !server.dislikes.contains(&id);
                let wrong = || Verdict::Invalid("disliked".into());
                let verdict = if right { Verdict::Valid } else { wrong() };
                return Some(Event::Validated { block: id, verdict });
            }
            Action::Build(wanted) => {
                return Some(Event::Built {
                    slot: wanted.slot,
                    block: Some(self.fill(number, &wanted)),
                });
            }
            Action::Search(job) => server.job = job,
            Action::Send { to, message } => self.send(number, &to, &message),
            Action::Abandon(blocks) => server.said.push(format!("abandon {}", blocks.len())),
            Action::Rewind { height } => server.said.push(format!("rewind to {height}")),
            Action::Punish { why, .. } => server.said.push(format!("punish: {why}")),
            Action::Report(line) => server.reports.push(line),
            Action::Readable { .. } | Action::Outvoted { .. } | Action::Ahead(_) => {}
        }
        None
    }

    fn fill(&self, number: usize, wanted: &Build) -> Arc<Block> {
        let super::super::Naming::Exactly(height) = wanted.applied else { panic!("not exact") };
        let parent = &wanted.parent.header;
        let expired = self.spoils.filter(|spoils| *spoils == number).map(|_| expired());
        let body = Body { parent_certificate: None, envelopes: expired.into_iter().collect() };
        let header = Header {
            epoch: Epoch(0),
            slot: wanted.slot,
            height: parent.height.next(),
            kind: Kind::Ordinary,
            parent: parent.id(self.genesis.chain_id()),
            leader: MemberIndex(0),
            turn: wanted.turn,
            time: wanted.time,
            applied: root(height),
            body: body.digest(),
        };
        Arc::new(Block { header, body })
    }

    fn send(&mut self, from: usize, to: &Recipient, message: &Message) {
        for other in 0..self.servers.len() {
            let node = key(other).public();
            let is_meant = match to {
                Recipient::One(one) => *one == node,
                Recipient::Members => true,
                Recipient::MembersBut(one) => *one != node,
            };
            if is_meant && other != from && self.part[other] == self.part[from] {
                self.queue.push_back((from, other, message.clone()));
            }
        }
    }

    /// Delivers messages until there are no more.
    fn settle(&mut self) {
        while let Some((from, to, message)) = self.queue.pop_front() {
            if let Message::Fetch(Fetch::Block(id)) = message {
                // The replica answers that one, for the method.
                if let Some(block) = self.bodies.get(&id).cloned() {
                    self.send(to, &Recipient::One(key(from).public()), &Message::Pending(block));
                }
                continue;
            }
            self.step(to, Event::Message { from: key(from).public(), message });
        }
    }

    /// A spacing later this server finds a block.
    fn find(&mut self, number: usize) -> HeaderHash {
        self.seconds += SPACING;
        self.step(number, Event::Timer);
        let job = self.servers[number].job.expect("it searches");
        let mut search = Search::new(job);
        let proof = loop {
            match search.step(64) {
                Step::Found(proof) => break proof,
                Step::More => {}
                Step::Exhausted => panic!("one in two hashes is good"),
            }
        };
        self.step(number, Event::Found(proof));
        self.settle();
        assert_eq!(self.head(number), proof.hash(), "its own block is its head");
        proof.hash()
    }

    fn head(&self, number: usize) -> HeaderHash {
        self.servers[number].method.tree.head().0
    }

    /// All can reach each other again, and notice.
    fn heal(&mut self) {
        self.part.fill(0);
        self.seconds += 1;
        for number in 0..self.servers.len() {
            for other in (0..self.servers.len()).filter(|&other| other != number) {
                self.step(number, Event::Connected(key(other).public()));
            }
        }
        self.settle();
    }

    fn said(&mut self, number: usize) -> Vec<String> {
        std::mem::take(&mut self.servers[number].said)
    }

    /// Kills a server and starts it again from its records.
    fn restart(&mut self, number: usize) {
        let mut recovered = Recovered::default();
        for record in std::mem::take(&mut self.servers[number].records) {
            match record {
                Record::Finalized { blocks, finality } => {
                    let Finality::Work(proofs) = &finality else { panic!("not by work") };
                    recovered.proofs.extend(proofs);
                    recovered.last = Some((blocks.last().unwrap().clone(), finality));
                }
                other => recovered.tail.push(other),
            }
        }
        let last = recovered.last.as_ref().map_or(Slot(0), |(block, _)| block.header.slot);
        recovered.tail.retain(|record| record.slot() > last);
        self.servers[number].method = self.method(number, recovered);
        self.servers[number].job = None;
    }
}

#[test]
fn what_is_deep_enough_is_final_and_the_same_everywhere() {
    let net = &mut Net::new(3, 2);
    for turn in 0..9 {
        net.find(turn % 3);
    }
    for number in 0..3 {
        assert_eq!(net.head(number), net.head(0));
        let finals = &net.servers[number].finals;
        assert_eq!(finals.len(), 7, "two blocks are not deep enough");
        assert_eq!(finals, &net.servers[0].finals);
        assert!(net.said(number).is_empty());
    }
}

#[test]
fn the_heavier_branch_wins_and_the_other_ones_blocks_are_abandoned() {
    let net = &mut Net::new(4, 6);
    net.find(0);
    net.part = vec![0, 0, 1, 1];
    for turn in 0..3 {
        net.find(turn % 2);
    }
    for turn in 0..4 {
        net.find(2 + turn % 2);
    }
    assert_ne!(net.head(0), net.head(2));
    net.heal();
    assert!((0..4).all(|number| net.head(number) == net.head(3)));
    assert_eq!(net.said(0), ["abandon 3"]);
    assert_eq!(net.said(2), [""; 0]);
    assert_eq!(net.servers[0].method.mining(net.now()).deepest, 3);
}

#[test]
fn of_two_equal_branches_the_first_seen_stays() {
    let net = &mut Net::new(2, 6);
    net.part = vec![0, 1];
    net.find(0);
    net.find(1);
    let heads = [net.head(0), net.head(1)];
    net.heal();
    assert_eq!([net.head(0), net.head(1)], heads);
}

#[test]
fn a_heavier_branch_from_below_what_was_final_makes_the_server_go_back() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    for _ in 0..6 {
        net.find(0);
    }
    for _ in 0..8 {
        net.find(1);
    }
    assert_eq!(net.servers[0].finals.len(), 5);
    net.heal();
    assert_eq!(net.said(0), ["rewind to 1"]);
    assert_eq!(net.said(1), [""; 0]);
}

#[test]
fn nothing_is_given_up_for_a_heavier_branch_that_is_wrong_on_its_face() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    net.spoils = Some(1);
    net.find(1);
    net.spoils = None;
    for _ in 0..6 {
        net.find(0);
    }
    for _ in 0..8 {
        net.find(1);
    }
    let head = net.head(0);
    net.heal();
    assert_eq!(net.said(0), ["punish: a block that breaks a rule"]);
    assert_eq!((net.head(0), net.servers[0].finals.len()), (head, 5));
}

#[test]
fn a_server_that_has_deleted_what_a_heavier_branch_leaves_stays_and_acknowledges_nothing() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    for _ in 0..6 {
        net.find(0);
    }
    net.servers[0].method.lowest = Height(2);
    for _ in 0..8 {
        net.find(1);
    }
    let head = net.head(0);
    net.heal();
    assert_eq!(net.said(0), [""; 0]);
    assert_eq!(net.head(0), head);
    let paused = net.servers[0].method.mining(net.now()).paused;
    assert_eq!(paused.unwrap(), "a branch with more work leaves ours below what was final");
    // Where it leaves ours later, it is followed.
    net.servers[0].method.lowest = Height(1);
    net.step(0, Event::Timer);
    assert_eq!(net.said(0), ["rewind to 1"]);
}

#[test]
fn near_the_head_a_missing_block_is_asked_for_again_after_a_spacing() {
    let net = &mut Net::new(3, 6);
    net.withhold(0, 1);
    let mut asked = Vec::new();
    for second in 1..=12 {
        net.queue.clear();
        net.seconds += 1;
        net.step(0, Event::Timer);
        let asks = |(_, _, said): &(_, _, _)| matches!(said, Message::Fetch(Fetch::Block(_)));
        if net.queue.iter().any(asks) {
            asked.push(second);
        }
    }
    assert_eq!(asked, [1, 3, 5, 7, 9, 11]);
}

#[test]
fn a_restarted_server_has_the_same_head() {
    let net = &mut Net::new(2, 3);
    for turn in 0..8 {
        net.find(turn % 2);
    }
    let head = net.head(0);
    net.part = vec![0, 1];
    net.restart(0);
    assert_eq!(net.head(0), head);
    net.step(0, Event::Start);
    net.step(0, Event::Mine(true));
    net.find(0);
    assert_eq!(net.servers[0].finals.len(), 6, "one more, and none twice");
}

#[test]
fn a_server_that_comes_late_fetches_all() {
    let net = &mut Net::new(3, 2);
    net.part = vec![0, 0, 1];
    for turn in 0..60 {
        net.find(turn % 2);
    }
    net.heal();
    assert_eq!(net.head(2), net.head(0));
    assert_eq!(net.servers[2].finals, net.servers[0].finals);
}

#[test]
fn a_long_chain_is_fetched_proofs_first_and_said_how_far_it_is() {
    let net = &mut Net::new(2, 2);
    net.part = vec![0, 1];
    for _ in 0..4_500 {
        net.find(0);
    }
    net.servers[1].reports.clear();
    net.part = vec![0, 0];
    net.step(1, Event::Connected(key(0).public()));
    // Blocks are paid for as time passes, so that nobody is asked for more than it answers.
    let mut caught_up = 0;
    while net.head(1) != net.head(0) {
        net.settle();
        let standing = net.servers[1].method.standing(net.now());
        let Standing::Mining(mining) = standing else { panic!("not pow") };
        assert_eq!(mining.headers, Height(4_500));
        assert!((4_500..4_530).contains(&mining.due.0), "{}", mining.due);
        net.now_us += 20_000;
        net.step(1, Event::Timer);
        caught_up += 1;
        assert!(caught_up < 2_000, "{:?}", net.head(1));
    }
    let reports = net.servers[1].reports.join("\n");
    assert!(reports.contains("all headers are here, 4,500"), "{reports}");
    assert!(reports.contains("catching up: headers 4,500 of about 4,50"), "{reports}");
    assert!(reports.contains("caught up at height 4,4"), "{reports}");
}

#[test]
fn an_ancestor_beside_the_main_branch_is_found_by_its_height() {
    let net = &mut Net::new(1, 2);
    let tree = &mut net.servers[0].method.tree;
    let mut branch = vec![tree.head().0];
    for turn in 1..600_u32 {
        let tip = *branch.last().unwrap();
        let time = tree.median_time(tip) + 1;
        let proof = proof(tip, BlockId([1; 32]), time, tree.bits_after(tip).unwrap());
        assert_eq!(tree.admit(proof, Time(u64::MAX), None), Ok(true), "{turn}");
        branch.push(proof.hash());
    }
    for of in [1, 2, 63, 64, 65, 511, 512, 599] {
        for height in 0..=of {
            let found = tree.ancestor(branch[of], Height(height as u64));
            assert_eq!(found, Some(branch[height]), "{height} below {of}");
        }
        assert_eq!(tree.ancestor(branch[of], Height(of as u64 + 1)), None);
    }
}

/// A proof for this block on this parent that says what it is told to say.
fn proof(previous: HeaderHash, block: BlockId, time_s: u32, bits: u32) -> WorkProof {
    (0..)
        .map(|nonce| WorkProof::new(previous, block, time_s, bits, nonce))
        .find(WorkProof::meets_its_target)
        .unwrap()
}

#[test]
fn a_proof_that_breaks_a_rule_costs_its_sender() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    let head = net.head(0);
    let method = &net.servers[0].method;
    let bits = method.tree.bits_after(head).unwrap();
    let time = u32::try_from(net.now().clock.0 / 1_000).unwrap();
    let median = method.tree.median_time(head);
    let from = key(1).public();
    let far = time + 2 * 24 + 1;
    for (wrong, says) in [
        (proof(head, BlockId([1; 32]), time, bits - 1), "punish: another target than is due"),
        (
            proof(head, BlockId([1; 32]), median, bits),
            "punish: a time not after the median of the eleven before",
        ),
        (proof(head, BlockId([1; 32]), far, bits), "punish: a time far in the future"),
    ] {
        net.step(0, Event::Message { from, message: Message::Proofs(vec![wrong]) });
        assert_eq!(net.said(0), [says]);
        assert!(net.servers[0].method.tree.get(wrong.hash()).is_none());
    }
    // A clock that is somewhat ahead of ours is nobody's fault: not taken, not punished.
    let early = proof(head, BlockId([1; 32]), time + 30, bits);
    net.step(0, Event::Message { from, message: Message::Proofs(vec![early]) });
    assert!(net.said(0).is_empty() && net.servers[0].method.tree.get(early.hash()).is_none());
}

#[test]
fn a_wrong_block_is_left_and_its_sender_pays() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    let before = net.head(0);
    net.part = vec![0, 1];
    net.find(1);
    let (_, node) = net.servers[1].method.tree.head();
    let wrong = node.proof.block();
    net.servers[0].dislikes.push(wrong);
    net.heal();
    assert_eq!(net.head(0), before);
    assert_eq!(net.said(0), ["punish: a block that breaks a rule"]);
    // What is built on it is not wanted either.
    net.find(1);
    assert_eq!(net.said(0)[0], "punish: a proof that stands on a wrong block");
    assert_eq!(net.head(0), before);
}

#[test]
fn proofs_without_blocks_hold_nothing_up() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    let tip = net.withhold(0, 5);
    assert_eq!(net.servers[0].method.tree.heaviest(), tip);
    let own = net.find(0);
    assert_eq!(net.head(0), own);
}

#[test]
fn a_miner_that_catches_up_sleeps_between_its_questions() {
    let net = &mut Net::new(2, 2);
    net.find(0);
    net.part = vec![0, 1];
    net.withhold(0, 40);
    assert!(net.servers[0].method.tree.is_catching_up());
    for _ in 0..20 {
        net.seconds += 15;
        net.step(0, Event::Timer);
        assert!(net.servers[0].method.wake().unwrap() > net.now().instant);
    }
}

#[test]
fn slow_blocks_pause_acknowledgements() {
    let net = &mut Net::new(1, 2);
    for _ in 0..10 {
        net.find(0);
    }
    let paused = |net: &Net| net.servers[0].method.mining(net.now()).paused;
    assert_eq!(paused(net), None);
    net.seconds += 15;
    assert_eq!(paused(net).unwrap(), "no block for 15 s; one is due every 2 s");
    net.find(0);
    assert!(paused(net).unwrap().contains("less than half the pace"), "{:?}", paused(net));
    for _ in 0..4 {
        net.find(0);
    }
    assert_eq!(paused(net), None);
}
