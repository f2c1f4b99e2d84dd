//! Replicas under an elected leader (`raft`): what becomes of a write whose block another leader's
//! entries have replaced.

use super::*;
use crate::transaction::{self, Expiry, Settings, Statement, Transaction};

/// A server of the cluster: its replica, when it wants to be woken, and what is final there.
struct Server {
    replica: Replica,
    wake: Option<Instant>,
    blocks: Vec<Arc<Block>>,
}

struct Cluster {
    servers: Vec<Server>,
    genesis: Genesis,
    flying: VecDeque<(usize, usize, Message)>,
    /// Nothing passes from and to this server.
    alone: Option<usize>,
    now: Now,
}

impl Cluster {
    fn new() -> Self {
        let mut genesis = genesis();
        genesis.method = Method::Raft;
        genesis.members.truncate(3);
        let now = Now { instant: Instant(1_000_000), clock: Time(2_000_000) };
        let (servers, flying) = (Vec::new(), VecDeque::new());
        let mut cluster = Self { servers, genesis, flying, alone: None, now };
        for who in 0..3 {
            let own = Applied { height: Height(0), root: root(1) };
            let recovered = Recovered::default();
            let (replica, outputs) =
                Replica::new(&cluster.genesis, key(who), recovered, own, now).unwrap();
            cluster.servers.push(Server { replica, wake: None, blocks: Vec::new() });
            cluster.carry_out(usize::from(who), outputs);
        }
        cluster
    }

    fn step(&mut self, who: usize, input: Input) {
        let replica = &mut self.servers[who].replica;
        let mut outputs = replica.step(self.now, input);
        outputs.extend(replica.drained(self.now));
        self.carry_out(who, outputs);
    }

    fn carry_out(&mut self, who: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to: Recipient::One(to), message } => {
                    let to = self.genesis.members.iter().position(|member| member.key == to);
                    self.flying.push_back((who, to.unwrap(), message));
                }
                Output::Send { message, .. } => {
                    let others = (0..3).filter(|&other| other != who);
                    self.flying.extend(others.map(|other| (who, other, message.clone())));
                }
                Output::Apply(block) => {
                    let applied = Applied { height: block.header.height, root: root(1) };
                    self.servers[who].blocks.push(block);
                    self.step(who, Input::Applied(applied));
                }
                Output::Wake { at } => self.servers[who].wake = Some(at),
                _ => {}
            }
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        let end = self.now.instant.plus(Duration::from_millis(milliseconds));
        loop {
            while let Some((from, to, message)) = self.flying.pop_front() {
                if self.alone.is_none_or(|alone| alone != from && alone != to) {
                    let from = self.genesis.members[from].key;
                    self.step(to, Input::Message { from, message });
                }
            }
            let wakes = (0..3).filter_map(|who| Some((self.servers[who].wake?, who)));
            let Some((at, who)) = wakes.min().filter(|(at, _)| *at <= end) else { break };
            self.now.instant = at.max(self.now.instant);
            self.servers[who].wake = None;
            self.step(who, Input::Woken);
        }
        self.now.instant = end;
    }

    fn leader(&self) -> usize {
        let leads = |&who: &usize| {
            let standing = self.servers[who].replica.status(self.now).standing;
            matches!(standing, Standing::Elected { role: "leader", .. })
        };
        (0..3).find(leads).expect("somebody leads")
    }

    fn has(&self, who: usize, envelope: &Arc<Envelope>) -> bool {
        self.servers[who].blocks.iter().any(|block| block.body.envelopes.contains(envelope))
    }

    fn envelope(&self, signer: usize) -> Arc<Envelope> {
        self.salted(signer, 7)
    }

    fn salted(&self, signer: usize, salt: u8) -> Arc<Envelope> {
        let parameters = transaction::Parameters::Positional(Vec::new());
        let transaction = Transaction {
            salt: [salt; 16],
            user: "rota".into(),
            statements: vec![Statement { sql: "DELETE FROM t".into(), parameters }],
            settings: Settings::default(),
            interactive: None,
        };
        let expiry = Expiry { height: Height(1_000), time: Time(3_000_000) };
        let key = key(u16::try_from(signer).unwrap());
        Arc::new(Envelope::sign(self.genesis.chain_id(), &key, expiry, vec![transaction]))
    }
}

#[test]
fn a_write_is_forwarded_to_the_leader_and_final_everywhere() {
    let mut cluster = Cluster::new();
    cluster.pass(1_000);
    let server = (cluster.leader() + 1) % 3;
    let envelope = cluster.envelope(server);
    cluster.step(server, Input::Submit(envelope.clone()));
    cluster.pass(50);
    assert!((0..3).all(|who| cluster.has(who, &envelope)));
}

#[test]
fn few_writes_wait_for_the_block_before_them_and_sixteen_for_none() {
    let mut cluster = Cluster::new();
    cluster.pass(1_000);
    let leader = cluster.leader();
    let mut on_their_way = Vec::new();
    for salt in 0..=16 {
        let envelope = cluster.salted(leader, salt);
        cluster.step(leader, Input::Submit(envelope));
        let tail = cluster.servers[leader].replica.tail();
        on_their_way = tail.iter().map(|block| block.body.envelopes.len()).collect();
        assert_eq!(on_their_way[0], 1, "the first waits for nobody");
        assert_eq!(on_their_way.len() == 2, salt == 16, "{salt}");
    }
    assert_eq!(on_their_way, [1, 16]);
}

#[test]
fn what_stood_in_a_replaced_block_is_told_to_the_new_leader() {
    let mut cluster = Cluster::new();
    cluster.pass(1_000);
    let old = cluster.leader();
    cluster.alone = Some(old);
    let envelope = cluster.envelope(old);
    cluster.step(old, Input::Submit(envelope.clone()));
    let tail = cluster.servers[old].replica.tail();
    assert!(tail.iter().any(|block| block.body.envelopes.contains(&envelope)));
    cluster.pass(1_000);
    assert!(!cluster.has(old, &envelope), "nobody else has it");
    cluster.alone = None;
    cluster.pass(200);
    assert_ne!(cluster.leader(), old);
    assert!((0..3).all(|who| cluster.has(who, &envelope)));
}

#[test]
fn what_the_log_says_was_undone_is_written_again_after_a_start() {
    let mut genesis = genesis();
    genesis.method = Method::Raft;
    genesis.members.truncate(1);
    let envelope = Cluster::new().envelope(0);
    let recovered = Recovered { waiting: vec![envelope.clone()], ..Recovered::default() };
    let own = Applied { height: Height(0), root: root(1) };
    let now = Now { instant: Instant(1_000_000), clock: Time(2_000_000) };
    let (replica, _) = Replica::new(&genesis, key(0), recovered, own, now).unwrap();
    assert_eq!(replica.waiting(), [envelope]);
}

/// A height of which snapshots are made was executed before a restart and named by no header: its
/// root is known by the snapshot.
#[test]
fn a_restarted_leader_passes_over_no_height_of_which_there_is_a_snapshot() {
    let mut genesis = genesis();
    genesis.method = Method::Raft;
    genesis.members.truncate(1);
    genesis.parameters.snapshot_blocks = 10;
    let parent = Block::genesis(&genesis).id(genesis.chain_id());
    let mut last = block(12, parent, None, Applied { height: Height(8), root: root(8) });
    last.header.turn = Turn::Elected { term: 1 };
    let recovered = Recovered {
        last: Some((Arc::new(last), Finality::Log { term: 1, index: 12 })),
        roots: vec![Applied { height: Height(10), root: root(10) }],
        ..Recovered::default()
    };
    let own = Applied { height: Height(12), root: root(12) };
    let now = Now { instant: Instant(1_000_000), clock: Time(2_000_000) };
    let (mut replica, mut outputs) = Replica::new(&genesis, key(0), recovered, own, now).unwrap();
    outputs.extend(replica.drained(now));
    let blocks = outputs.iter().filter_map(|output| match output {
        Output::Apply(block) => Some(block.header.applied),
        _ => None,
    });
    let named: Vec<Applied> = blocks.collect();
    assert_eq!(named, [Applied { height: Height(10), root: root(10) }]);
}
