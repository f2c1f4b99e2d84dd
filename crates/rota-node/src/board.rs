//! Where this server stands: written by its threads, read by the driver and by whoever asks for its
//! status.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rota_core::block::Applied;
use rota_core::consensus::Standing;
use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::{Genesis, Method};
use rota_core::members::Members;
use rota_core::replica::Status;
use rota_core::time::Time;
use rota_core::types::{ChainId, Height, NodeId};
use tokio::sync::watch;

use crate::agenda::HELD_BLOCKS;
use crate::commit_gate::CommitGate;
use crate::config::ServerConfig;
use crate::miner::Meter;
use crate::status::{
    Depth, HeightRoot, Named, PeerStatus, ROOTS_TOLD, ServerStatus, State, WorkStatus,
};
use crate::transport::Observer;

/// With more final blocks than this not yet executed, a server says that it is catching up. Under
/// load some are always on their way.
const CATCHING_UP_LAG: u64 = 2 * HELD_BLOCKS as u64;

/// Of a server that has no name here, so many hex digits of its key are told.
const SHORT_KEY: usize = 8;

/// Under `raft`, who knows of no leader for so many times the time-out of one hears no majority:
/// by then another is elected, where it can be.
const LEADERLESS_TIMEOUTS: u32 = 2;

/// Where this server stands.
pub struct Board {
    /// Which database.
    pub chain: ChainId,
    /// Who this server is.
    pub key: NodeId,
    /// What this server hashes in a second (`pow`).
    pub(crate) mining: Meter,
    /// Passed by whoever is about to read `state.db`.
    pub(crate) commit_gate: CommitGate,
    method: Method,
    genesis: Genesis,
    members: Members,
    config: ServerConfig,
    /// Whether messages flow both ways: with each member; under `pow` with the peers that this
    /// server was told of and with those that are connected now.
    peers: Mutex<BTreeMap<NodeId, bool>>,
    replica: Mutex<(Status, Instant)>,
    /// Since when too few members are connected, and since when final blocks wait to be executed.
    cut_off: Mutex<Option<Instant>>,
    behind: Mutex<Option<Instant>>,
    /// `raft`: since when no leader is known.
    leaderless: Mutex<Option<Instant>>,
    applied: watch::Sender<Height>,
    live: watch::Sender<bool>,
    roots: Mutex<VecDeque<HeightRoot>>,
    diverged: Mutex<Option<String>>,
    transactions: AtomicU64,
    blocks: AtomicU64,
    fsyncs: AtomicU64,
    dropped: AtomicU64,
}

impl Board {
    /// For a server that is about to start; `status` is its replica's first.
    pub fn new(
        genesis: &Genesis,
        members: Members,
        key: NodeId,
        config: ServerConfig,
        status: Status,
    ) -> Self {
        let known: Vec<NodeId> = match genesis.method {
            Method::Poa | Method::Raft => members.iter().map(|(_, member)| member.key).collect(),
            Method::Pow => config.peers.iter().map(|peer| peer.key).collect(),
        };
        let others = known.into_iter().filter(|other| *other != key);
        let (applied, live) = (status.applied, status.live);
        Self {
            chain: genesis.chain_id(),
            key,
            mining: Meter::new(),
            commit_gate: CommitGate::default(),
            method: genesis.method,
            genesis: genesis.clone(),
            peers: Mutex::new(others.map(|other| (other, false)).collect()),
            members,
            config,
            replica: Mutex::new((status, Instant::now())),
            cut_off: Mutex::new(Some(Instant::now())),
            behind: Mutex::new(None),
            leaderless: Mutex::new((genesis.method == Method::Raft).then(Instant::now)),
            applied: watch::Sender::new(applied.height),
            live: watch::Sender::new(live),
            roots: Mutex::new(VecDeque::from([applied.into()])),
            diverged: Mutex::new(None),
            transactions: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// The replica's newest word on itself, and the flushes so far.
    pub fn replica_is(&self, status: Status, fsyncs: u64) {
        let live = status.live;
        if status.height > *self.applied.borrow() {
            lock(&self.behind).get_or_insert_with(Instant::now);
        }
        if self.method == Method::Raft {
            let mut leaderless = lock(&self.leaderless);
            match status.leader {
                Some(_) => *leaderless = None,
                None => drop(leaderless.get_or_insert_with(Instant::now)),
            }
        }
        *lock(&self.replica) = (status, Instant::now());
        self.fsyncs.store(fsyncs, Ordering::Relaxed);
        self.live.send_if_modified(|was| std::mem::replace(was, live) != live);
    }

    /// A final block is executed: it is committed before anybody reads again.
    pub fn executed(&self, applied: Applied, transactions: u64) {
        let mut roots = lock(&self.roots);
        if roots.len() == ROOTS_TOLD {
            roots.pop_front();
        }
        roots.push_back(applied.into());
        drop(roots);
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.applied.send_replace(applied.height);
        if lock(&self.replica).0.height <= applied.height {
            *lock(&self.behind) = None;
        }
    }

    /// This server's state is not the cluster's. Nothing undoes this but a repair and a restart.
    pub fn diverge(&self, why: String) {
        lock(&self.diverged).get_or_insert(why);
    }

    /// Refuses everything once this server has diverged.
    pub fn refuse_if_diverged(&self) -> Result<(), Refusal> {
        match &*lock(&self.diverged) {
            None => Ok(()),
            Some(why) => Err(Refusal::new(
                sqlstate::INTERNAL,
                format!("this server's state is not the cluster's ({why}): use another server"),
            )),
        }
    }

    /// Whether enough members are in reach for a write to become final: with this server itself
    /// more than two thirds of the weight (`poa`), or more than half of it (`raft`), where one that
    /// is connected and says nothing is not in reach: a leader that hears no majority leads no
    /// more, and no other is heard of. A server that only follows needs one member to hear from.
    /// Under `pow` nobody is needed.
    pub fn quorum_in_reach(&self) -> bool {
        self.cut_off_for().is_zero()
    }

    /// For how long no quorum has been in reach; zero if one is.
    pub fn cut_off_for(&self) -> Duration {
        let since = |at: &Mutex<Option<Instant>>| lock(at).map(|at| at.elapsed());
        if !self.quorum_is_connected() {
            let least = Duration::from_nanos(1);
            return since(&self.cut_off).unwrap_or_default().max(least);
        }
        let timeout = Duration::from_millis(self.genesis.parameters.election_ms);
        let silent = since(&self.leaderless).unwrap_or_default();
        if silent > timeout.saturating_mul(LEADERLESS_TIMEOUTS) && !self.follows() {
            return silent;
        }
        Duration::ZERO
    }

    fn quorum_is_connected(&self) -> bool {
        if self.method == Method::Pow {
            return true;
        }
        let follows = self.follows();
        let peers = lock(&self.peers);
        if follows {
            return peers.values().any(|connected| *connected);
        }
        let reached = self.members.iter().filter_map(|(index, member)| {
            let own = member.key == self.key;
            (own || peers.get(&member.key).is_some_and(|connected| *connected)).then_some(index)
        });
        let weight = self.members.weight_of(reached);
        match self.method {
            Method::Raft => self.members.is_majority(weight),
            Method::Poa | Method::Pow => self.members.is_quorum(weight),
        }
    }

    /// Whether this server takes part in deciding; one that does not takes no writes.
    pub fn follows(&self) -> bool {
        lock(&self.replica).0.standing == Standing::Following
    }

    /// Whether what is known of the method's standing is as new as this final block: under `pow`
    /// that says whether a write in it is acknowledged.
    pub fn tells_of(&self, height: Height) -> bool {
        self.method != Method::Pow || lock(&self.replica).0.height >= height
    }

    /// How deep a final block is, where that is what makes it final (`pow`).
    pub fn depth(&self, height: Height) -> Option<Depth> {
        match &lock(&self.replica).0.standing {
            Standing::Mining(mining) => Some(Depth::of(height, mining.head)),
            _ => None,
        }
    }

    /// What all servers of this database have in common.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// How it is found out whose turn it is.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Whose turn it is, as far as this server knows.
    pub fn leader(&self) -> Option<NodeId> {
        lock(&self.replica).0.leader
    }

    /// How long this server has had no quorum in reach; `strict`ly, how long it has had final
    /// blocks to execute, if that is longer.
    pub fn staleness(&self, strict: bool) -> Duration {
        let since =
            |at: &Mutex<Option<Instant>>| lock(at).map_or(Duration::ZERO, |at| at.elapsed());
        let cut_off = self.cut_off_for();
        if strict { cut_off.max(since(&self.behind)) } else { cut_off }
    }

    /// The newest final height here, and chain time: the newest block's and what has passed since.
    pub fn chain_now(&self) -> (Height, Time) {
        let (status, at) = &*lock(&self.replica);
        (status.height, status.chain_time.plus(at.elapsed()))
    }

    /// The newest executed height, and news of it.
    pub fn applied(&self) -> watch::Receiver<Height> {
        self.applied.subscribe()
    }

    /// Whether a block proposed since this server started is final here, and news of it. Before
    /// that chain time may be as old as the files, and nothing can be signed that would not have
    /// expired.
    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    /// In one word.
    pub fn state(&self) -> State {
        let (height, live) = {
            let (status, _) = &*lock(&self.replica);
            let behind = matches!(&status.standing, Standing::Mining(own) if own.catching_up);
            (status.height, status.live && !status.fetching && !behind)
        };
        let lag = height.0.saturating_sub(self.applied.borrow().0);
        if lock(&self.diverged).is_some() {
            State::Diverged
        } else if !self.quorum_in_reach() {
            State::NoQuorum
        } else if lag > CATCHING_UP_LAG || !live {
            State::CatchingUp
        } else {
            State::Ready
        }
    }

    /// All of it.
    pub fn status(&self) -> ServerStatus {
        let state = self.state();
        let roots: Vec<HeightRoot> = lock(&self.roots).iter().copied().collect();
        let applied = roots.last().copied().unwrap_or_default();
        let (status, at) = lock(&self.replica).clone();
        ServerStatus {
            name: self.config.name.clone(),
            key: self.key,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            pg: self.config.pg,
            http: self.config.http,
            chain: self.chain.to_string(),
            state,
            method: self.method,
            role: self.role(&status.standing).into(),
            term: match status.standing {
                Standing::Elected { term, .. } => Some(term),
                _ => None,
            },
            work: match &status.standing {
                Standing::Mining(mining) => {
                    let (threads, share) = (self.config.mine_threads, self.config.mine_share);
                    Some(WorkStatus::new(mining, self.mining.rate(), threads, share))
                }
                _ => None,
            },
            height: status.height.0,
            slot: status.slot.0,
            epoch: status.epoch.0,
            leader: status.leader.map(|key| self.named(key)),
            applied,
            agreed: status.agreed.into(),
            block_time: status.block_time.0,
            chain_time: status.chain_time.plus(at.elapsed()).0,
            lag: status.height.0.saturating_sub(applied.height),
            pending: u64::try_from(status.pending).unwrap_or(u64::MAX),
            peers: lock(&self.peers).iter().map(|(key, on)| self.peer(key, *on)).collect(),
            transactions: self.transactions.load(Ordering::Relaxed),
            blocks: self.blocks.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            roots,
        }
    }

    /// What this server does, in one word.
    fn role(&self, standing: &Standing) -> &'static str {
        match standing {
            Standing::Voting => "member",
            Standing::Following => "reader",
            Standing::Elected { role, .. } => role,
            Standing::Mining(_) if self.config.mine_threads > 0 => "miner",
            Standing::Mining(_) => "verifier",
        }
    }

    fn peer(&self, key: &NodeId, connected: bool) -> PeerStatus {
        let Named { name, number, key } = self.named(*key);
        let address = self.config.peers.iter().find(|peer| peer.key == key);
        PeerStatus {
            name,
            number,
            key,
            address: address.map(|peer| peer.address.clone()).unwrap_or_default(),
            http: address.and_then(|peer| peer.http.clone()),
            connected,
        }
    }

    /// Where peers, and over HTTP clients, reach this server, as far as its settings say so.
    pub fn own_addresses(&self) -> (String, Option<String>) {
        let own = self.config.peers.iter().find(|peer| peer.key == self.key);
        match own {
            Some(own) => (own.address.clone(), own.http.clone()),
            None => (self.config.peer.to_string(), None),
        }
    }

    /// The servers that have names: members in their order, or those that `server.toml` lists.
    pub fn servers(&self) -> Vec<Named> {
        match self.members.is_none() {
            false => self.members.iter().map(|(_, member)| self.named(member.key)).collect(),
            true => {
                let listed = self.config.peers.iter().map(|peer| peer.key);
                let own = listed.clone().all(|key| key != self.key).then_some(self.key);
                listed.chain(own).map(|key| self.named(key)).collect()
            }
        }
    }

    fn named(&self, key: NodeId) -> Named {
        let place = match self.members.is_none() {
            false => self.members.index_of(&key).map(|index| u64::from(index.0)),
            true => (0..).zip(&self.config.peers).find(|(_, p)| p.key == key).map(|(at, _)| at),
        };
        let number = place.map_or(0, |place| place + 1);
        let configured = self.config.peers.iter().find(|peer| peer.key == key);
        let name = match configured {
            _ if key == self.key => self.config.name.clone(),
            Some(peer) if !peer.name.is_empty() => peer.name.clone(),
            // A stranger, or a member whose name is not told here.
            _ if number == 0 => key.to_string().chars().take(SHORT_KEY).collect(),
            _ => format!("server-{number}"),
        };
        Named { name, number, key }
    }
}

impl Observer for Board {
    fn peer_is(&self, peer: &NodeId, connected: bool) {
        let mut peers = lock(&self.peers);
        let listed = self.config.peers.iter().any(|known| known.key == *peer);
        let open = self.method == Method::Pow;
        match peers.get_mut(peer) {
            // Strangers come and go: of who is gone nothing is kept.
            Some(_) if !connected && open && !listed => drop(peers.remove(peer)),
            Some(flag) => *flag = connected,
            None if open && connected => drop(peers.insert(*peer, true)),
            None => return,
        }
        let alone = open && !peers.values().any(|connected| *connected);
        drop(peers);
        if alone {
            tracing::warn!("no other server is connected: blocks found now may all be abandoned");
        }
        let connected = self.quorum_is_connected();
        let mut cut_off = lock(&self.cut_off);
        if connected {
            *cut_off = None;
        } else {
            cut_off.get_or_insert_with(Instant::now);
        }
    }

    fn dropped(&self, messages: usize) {
        self.dropped.fetch_add(u64::try_from(messages).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What a thread that panicked left behind is still the newest word.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rota_core::crypto::SecretKey;
    use rota_core::genesis::{Administrator, FORMAT, Parameters};
    use rota_core::journal::Recovered;
    use rota_core::members::Member;
    use rota_core::replica::Replica;
    use rota_core::time::Now;
    use rota_core::types::Digest;

    use super::*;

    #[test]
    fn a_member_that_knows_no_leader_has_no_quorum_in_reach_whoever_is_connected() {
        let keys = [1, 2, 3].map(|byte| SecretKey::from_bytes([byte; 32]));
        let members = keys.each_ref().map(|key| Member { key: key.public(), weight: 1 });
        let genesis = Genesis {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1,
            method: Method::Raft,
            seed: Digest::default(),
            trusted_servers: true,
            sqlite: String::new(),
            // Any time without a leader is too long.
            parameters: Parameters { election_ms: 0, heartbeat_ms: 0, ..Parameters::default() },
            pow: None,
            members: members.to_vec(),
            administrators: vec![Administrator::open("rota")],
        };
        let config = "name = 'one'\npg = '127.0.0.1:1'\nhttp = '127.0.0.1:2'\npeer = '127.0.0.1:3'";
        let config: ServerConfig = toml::from_str(config).unwrap();
        let members = Members::new(members.to_vec()).unwrap();
        let [me, other, _] = keys;
        let (key, other) = (me.public(), other.public());
        let (recovered, now) = (Recovered::default(), Now::default());
        let parameters = Parameters::default();
        let electing = Genesis { parameters, ..genesis.clone() };
        let (replica, _) = Replica::new(&electing, me, recovered, Applied::default(), now).unwrap();
        let leaderless = replica.status(now);
        let led = Status { leader: Some(other), ..leaderless.clone() };
        let board = Board::new(&genesis, members, key, config, leaderless.clone());
        board.replica_is(led.clone(), 0);
        assert!(!board.quorum_in_reach(), "nobody is connected");
        board.peer_is(&other, true);
        assert!(board.quorum_in_reach());
        board.replica_is(leaderless, 0);
        assert!(!board.quorum_in_reach());
        assert_eq!(board.state(), State::NoQuorum);
        board.replica_is(led, 0);
        assert_eq!(board.cut_off_for(), Duration::ZERO);
    }
}
