//! Step 5 where nobody knows the members (`pow`): anybody may connect, and this task chooses its
//! neighbours.
//!
//! ```text
//!  bootstrap, [[peers]] ──┐                                       ┌─► 8 that we dial
//!  peers.json ────────────┼─► book ──chosen at random, by group──►┤
//!  identify, Kademlia ────┘    ▲                                  └─► a feeler now and then
//!                              └── answered, failed      gate: 24 more may dial us
//! ```
//! What the parts decide: `groups` what counts as one network, `places` who gets a place and who
//! has to go, `blame` who is kept out, `book` what is known and tried next, `gate` what libp2p is
//! told before any stream is opened, `discovery` how others are heard of. The argument why this
//! keeps an attacker from surrounding a server is in `docs/network.md`.

pub mod blame;
pub mod book;
pub mod discovery;
pub mod entrance;
pub mod gate;
pub mod groups;
pub mod kept;
pub mod places;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{PeerId, Swarm, identify};
use rota_core::crypto::SecretKey;
use rota_core::error::Invalid;
use rota_core::types::{ChainId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::frames::End;
use super::links::{Direction, Kind, StreamEvent};
use super::swarm::{Behaviour, BehaviourEvent, multiaddr};
use super::{Inboxes, Incoming, Order, Outboxes, Peer, Transport, peer_id};
use book::Book;
use entrance::Entrances;
use gate::{Dial, Gate, Purpose, node_id, socket};
use kept::File;
use places::{OUTBOUND_PER_GROUP, OUTBOUND_PER_GROUP_AT_NEED, Seat};

/// How often it is looked whether something is to be done: a place filled, a walk begun.
const TICK: Duration = Duration::from_millis(250);

/// A neighbour whose four streams are not open after this time has another database, or only wants
/// the place.
const STREAMS_WITHIN: Duration = Duration::from_secs(5);

/// A server of another database is not met again for this long.
const OTHER_DATABASE: Duration = Duration::from_secs(600);

/// A neighbour that was lost or turned away is dialled again this much later.
const REDIAL: Duration = Duration::from_secs(2);

/// While places are free, others are asked whom they know this often ...
const WALK: Duration = Duration::from_secs(5);

/// ... and when all are taken, this often, so that the book stays fresh.
const QUIET_WALK: Duration = Duration::from_secs(120);

/// When all places are taken, an address that was only heard of is tried this often (Bitcoin:
/// `FEELER_INTERVAL`): the book then knows who answers before it has to.
const FEELER: Duration = Duration::from_secs(120);

/// What was learnt is written down this often, if it changed.
const KEEP: Duration = Duration::from_secs(30);

/// How many connections are being made at a time.
const MOST_DIALS: usize = places::OUTBOUND;

/// So many that are gone are remembered, for what they sent is still being checked: of each of the
/// queues for that, a fraction.
const MOST_GONE: usize = 256;

/// Addresses that a peer says it listens on, of which the first good one counts.
const ADDRESSES_LOOKED_AT: usize = 16;

/// Where a server that may be met by anybody begins.
#[derive(Clone, Debug)]
pub struct Open {
    /// Which database.
    pub chain: ChainId,
    /// The largest block, in bytes.
    pub block_bytes: u32,
    /// `host:port` of servers whose keys are not known.
    pub bootstrap: Vec<String>,
    /// Servers that the operator knows by key.
    pub peers: Vec<Peer>,
    /// Where addresses are kept (`peers.json`), if anywhere.
    pub file: Option<PathBuf>,
}

/// A neighbour, or somebody who may become one.
struct Neighbour {
    connection: ConnectionId,
    peer: PeerId,
    at: SocketAddr,
    outbound: bool,
    since: Instant,
    open: Vec<(Kind, Direction)>,
    tasks: Vec<AbortHandle>,
}

impl Neighbour {
    fn is_complete(&self) -> bool {
        self.open.len() == 2 * Kind::ALL.len()
    }
}

/// The task that owns libp2p's swarm, where anybody may come.
pub(super) struct OpenNetwork {
    own: NodeId,
    swarm: Swarm<Behaviour>,
    neighbours: BTreeMap<NodeId, Neighbour>,
    /// Where those were that went last.
    gone: VecDeque<(NodeId, SocketAddr)>,
    book: Book,
    entrances: Entrances,
    file: File,
    transport: Transport,
    inboxes: Inboxes,
    next_walk: Instant,
    next_feeler: Instant,
    next_keep: Instant,
}

impl OpenNetwork {
    pub(super) fn new(
        key: &SecretKey,
        open: Open,
        swarm: Swarm<Behaviour>,
        transport: Transport,
        inboxes: Inboxes,
    ) -> Self {
        let now = Instant::now();
        let mut book = Book::new(groups::Groups::new(transport.address.ip()));
        let mut file = File::new(open.file);
        book.load(file.read(), now);
        Self {
            own: key.public(),
            swarm,
            neighbours: BTreeMap::new(),
            gone: VecDeque::new(),
            book,
            entrances: Entrances::new(open.bootstrap, open.peers, &key.public(), now),
            file,
            transport,
            inboxes,
            next_walk: now,
            next_feeler: now + FEELER,
            next_keep: now + KEEP,
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.happened(event),
                order = orders.recv() => match order {
                    Some(Order::Stop(done)) => return self.stop(done).await,
                    Some(order) => self.obey(order),
                    None => return,
                },
                _ = tick.tick() => self.tick(),
            }
        }
    }

    fn gate(&mut self) -> &mut Gate {
        self.swarm.behaviour_mut().links.gate()
    }

    // ---- what happens ----

    fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Links((peer, connection, event))) => {
                self.stream(&peer, connection, event);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.identified(&peer_id, connection_id, &info),
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let why = cause.map_or_else(|| "closed".into(), |cause| cause.to_string());
                self.closed(&peer_id, connection_id, &why);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.not_reached(connection_id, peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "a connection was refused");
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                tracing::error!(%error, "no longer listening for peers");
            }
            _ => {}
        }
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let dial = self.gate().dials.remove(&id);
        let (Some(key), Some(at)) = (node_id(&peer), socket(endpoint.get_remote_address())) else {
            self.swarm.close_connection(id);
            return;
        };
        let now = Instant::now();
        if dial.is_some() {
            self.entrances.answered(at, key);
            self.book.answered(key, at, since_1970(), now);
        }
        if dial.is_some_and(|dial| dial.purpose == Purpose::Feeler) || key == self.own {
            self.book.not_before(&key, now + FEELER);
            self.swarm.close_connection(id);
            return;
        }
        self.sit_down(key, peer, id, at, dial.is_some());
    }

    /// Gives it a place, if there is one for it: the gate said so a moment ago.
    fn sit_down(
        &mut self,
        key: NodeId,
        peer: PeerId,
        id: ConnectionId,
        at: SocketAddr,
        outbound: bool,
    ) {
        let now = Instant::now();
        let older = self.neighbours.get(&key).map(|older| (older.connection, older.outbound));
        if let Some((_, was_outbound)) = older
            && !replaces(&self.own, &key, was_outbound, outbound)
        {
            self.swarm.close_connection(id);
            return;
        }
        if !outbound {
            match self.gate().may_enter(&key, at) {
                Ok(Some(victim)) => self.part(&victim, "its place is needed"),
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(peer = %key, %why, "turned away");
                    self.swarm.close_connection(id);
                    return;
                }
            }
        }
        if let Some((older, _)) = older {
            self.forget(&key);
            self.swarm.close_connection(older);
        }
        let gate = self.gate();
        let group = gate.groups.of(at);
        gate.places.take(key, Seat { connection: id, group, outbound, since: now, news: None });
        let (open, tasks) = (Vec::new(), Vec::new());
        let fresh = Neighbour { connection: id, peer, at, outbound, since: now, open, tasks };
        self.neighbours.insert(key, fresh);
        let outboxes = Arc::new(Outboxes::of_anybody());
        self.transport.peers_mut(|peers| drop(peers.insert(key, outboxes)));
        if outbound {
            self.recommend(&peer, at);
        }
    }

    /// Where a neighbour listens, in its own words: the port is believed, and the address is the
    /// one that it comes from. So nobody can have this server send others to a third party.
    fn identified(&mut self, peer: &PeerId, id: ConnectionId, told: &identify::Info) {
        let Some(key) = node_id(peer) else { return };
        let Some(neighbour) = self.neighbours.get(&key).filter(|one| one.connection == id) else {
            return;
        };
        if neighbour.outbound {
            return; // we dialled it: nothing to learn
        }
        let listens = told.listen_addrs.iter().take(ADDRESSES_LOOKED_AT).filter_map(socket);
        let Some(port) = listens.map(|at| at.port()).find(|port| *port != 0) else { return };
        let at = SocketAddr::new(neighbour.at.ip(), port);
        let now = Instant::now();
        self.book.heard(key, at, now);
        if self.book.address(&key) == Some(at) {
            self.book.met(&key, since_1970());
            self.recommend(peer, at);
        }
    }

    fn recommend(&mut self, peer: &PeerId, at: SocketAddr) {
        self.swarm.behaviour_mut().discovery.recommend(peer, multiaddr(at));
    }

    fn stream(&mut self, peer: &PeerId, id: ConnectionId, event: StreamEvent) {
        let Some(key) = node_id(peer) else { return };
        let Some(neighbour) = self.neighbours.get_mut(&key).filter(|one| one.connection == id)
        else {
            return; // of an older connection, which is being closed
        };
        let (kind, direction, stream) = match event {
            StreamEvent::Opened(kind, direction, stream) => (kind, direction, stream),
            StreamEvent::Unknown(_) => return self.other_database(&key),
            StreamEvent::Failed(_) => {
                self.swarm.close_connection(id);
                return;
            }
        };
        if neighbour.open.contains(&(kind, direction)) {
            self.punish(&key, &Invalid::Rule("a second stream of the same kind"));
            return;
        }
        neighbour.open.push((kind, direction));
        let task = self.transport.streaming(key, id, kind, direction, stream, &self.inboxes);
        neighbour.tasks.push(task);
        if neighbour.is_complete() {
            let (from, outbound) = (neighbour.at, neighbour.outbound);
            tracing::info!(peer = %key, %from, outbound, "connected");
            self.transport.observer.peer_is(&key, true);
            let votes = self.inboxes.votes.queue.clone();
            let announce = tokio::spawn(async move {
                let _ = votes.send(Incoming::Connected(key)).await;
            });
            neighbour.tasks.push(announce.abort_handle());
            if outbound {
                let now = Instant::now();
                self.book.welcomed(&key);
                self.entrances.welcomed(&key, now);
                // It knows others, whom we may need.
                self.next_walk = self.next_walk.min(now);
            }
        }
    }

    fn other_database(&mut self, key: &NodeId) {
        let Some(neighbour) = self.neighbours.get(key) else { return };
        let at = neighbour.at;
        tracing::info!(peer = %key, %at, "has another database, or is no server of ours");
        let now = Instant::now();
        self.gate().blame.avoid(*key, at, OTHER_DATABASE, now);
        self.book.forget(key);
        self.entrances.not_before(key, now + OTHER_DATABASE);
        self.part(key, "another database");
    }

    fn closed(&mut self, peer: &PeerId, id: ConnectionId, why: &str) {
        let Some(key) = node_id(peer) else { return };
        let Some(neighbour) = self.neighbours.get(&key).filter(|one| one.connection == id) else {
            return;
        };
        let now = Instant::now();
        if neighbour.is_complete() {
            tracing::info!(peer = %key, why, "disconnected");
        } else {
            tracing::debug!(peer = %key, why, "not let in");
            self.book.failed(&key, now);
        }
        self.forget(&key);
        let then = now + REDIAL;
        self.book.not_before(&key, then);
        self.entrances.not_before(&key, then);
    }

    fn not_reached(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        let Some(dial) = self.gate().dials.remove(&id) else { return };
        let now = Instant::now();
        let key = dial.key.or_else(|| peer.as_ref().and_then(node_id));
        tracing::debug!(peer = ?key, %error, "dialling failed");
        if let DialError::LocalPeerId { address } = error {
            self.entrances.is_own(socket(address));
        }
        let Some(key) = key else { return };
        match error {
            DialError::DialPeerConditionFalse(_) | DialError::Denied { .. } => {
                self.book.not_before(&key, now + REDIAL);
            }
            _ => self.book.failed(&key, now),
        }
    }

    /// Closes a neighbour's connection; its place is free at once.
    fn part(&mut self, key: &NodeId, why: &str) {
        let Some(neighbour) = self.neighbours.get(key) else { return };
        let id = neighbour.connection;
        tracing::debug!(peer = %key, why, "parting");
        self.forget(key);
        self.book.not_before(key, Instant::now() + REDIAL);
        self.swarm.close_connection(id);
    }

    /// What there was of a neighbour that is gone.
    fn forget(&mut self, key: &NodeId) {
        let Some(gone) = self.neighbours.remove(key) else { return };
        for task in &gone.tasks {
            task.abort();
        }
        if self.gone.len() >= MOST_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back((*key, gone.at));
        self.gate().places.leave(key);
        self.transport.peers_mut(|peers| drop(peers.remove(key)));
        if !self.book.is_tried(key) {
            self.swarm.behaviour_mut().discovery.disown(&gone.peer);
        }
        if gone.is_complete() {
            self.transport.observer.peer_is(key, false);
            // Where the queue is full this is lost, and the replica finds out by asking in vain.
            let _ = self.inboxes.votes.queue.try_send(Incoming::Disconnected(*key));
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Punish(peer, why) => self.punish(&peer, &why),
            Order::News(peer) => self.gate().places.told_news(&peer, Instant::now()),
            Order::Ended(peer, _, End::Invalid(why)) => self.punish(&peer, &why),
            Order::Ended(peer, id, End::Closed) => {
                if self.neighbours.get(&peer).is_some_and(|one| one.connection == id) {
                    self.part(&peer, "a stream ended");
                }
            }
            Order::DialEntrance(number, addresses) => self.dial_entrance(number, &addresses),
            Order::Stop(_) => {}
        }
    }

    /// Going before the lie is found out does not help: what a peer sent is checked a little later.
    fn punish(&mut self, key: &NodeId, why: &Invalid) {
        let gone = || self.gone.iter().rev().find(|(one, _)| one == key).map(|(_, at)| *at);
        let Some(at) = self.neighbours.get(key).map(|one| one.at).or_else(gone) else { return };
        let now = Instant::now();
        if self.gate().blame.keeps_out(key, now) {
            return; // for what it sent before
        }
        let span = self.gate().blame.punish(*key, at, now);
        tracing::warn!(peer = %key, %at, %why, "sent something invalid; kept out for {span:?}");
        self.book.forget(key);
        self.entrances.not_before(key, now + span);
        self.part(key, "kept out");
    }

    // ---- what nobody asks for ----

    fn tick(&mut self) {
        let now = Instant::now();
        self.listen_to_discovery(now);
        let late: Vec<NodeId> = self
            .neighbours
            .iter()
            .filter(|(_, one)| !one.is_complete() && now >= one.since + STREAMS_WITHIN)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.book.failed(&key, now);
            self.part(&key, "its streams were not opened");
        }
        let gate = self.gate();
        let wanted = gate.places.outbound() + gate.dials.len() < places::OUTBOUND;
        gate.blame.forget(now);
        if wanted {
            self.dial_somebody(now);
        } else if now >= self.next_feeler {
            self.next_feeler = now + FEELER;
            self.feel(now);
        }
        if now >= self.next_walk && !self.neighbours.is_empty() {
            self.next_walk = now + if wanted { WALK } else { QUIET_WALK };
            let near = self.draw();
            self.swarm.behaviour_mut().discovery.walk(near);
        }
        if now >= self.next_keep {
            self.next_keep = now + KEEP;
            if let Some(kept) = self.book.to_keep() {
                self.file.write(kept);
            }
        }
    }

    fn listen_to_discovery(&mut self, now: Instant) {
        for (peer, addresses) in self.swarm.behaviour_mut().discovery.heard() {
            let Some(key) = node_id(&peer).filter(|key| *key != self.own) else { continue };
            for at in addresses.iter().filter_map(socket) {
                if self.book.heard(key, at, now) {
                    break;
                }
            }
        }
    }

    /// Dials the entrances that are due, and one address of the book.
    fn dial_somebody(&mut self, now: Instant) {
        let connected = |key: &NodeId| self.neighbours.contains_key(key);
        let alone = self.neighbours.is_empty();
        for (number, address) in self.entrances.due(now, alone, connected) {
            entrance::look_up(number, address, self.transport.orders.clone());
        }
        let draw = self.number();
        let chosen =
            [OUTBOUND_PER_GROUP, OUTBOUND_PER_GROUP_AT_NEED].into_iter().find_map(|most| {
                let dialling = self.dialling();
                let neighbours = &self.neighbours;
                let gate = self.swarm.behaviour_mut().links.gate();
                self.book.choose(draw, now, |key, group| {
                    !neighbours.contains_key(key)
                        && !gate.blame.keeps_out(key, now)
                        && gate.dials.values().all(|dial| dial.key != Some(*key))
                        && gate.places.may_dial(group, most, &dialling)
                })
            });
        if let Some((key, at)) = chosen {
            self.dial(Some(key), &[at], Purpose::Neighbour);
        }
    }

    /// Tries an address that was only heard of.
    fn feel(&mut self, now: Instant) {
        let draw = self.number();
        let neighbours = &self.neighbours;
        let chosen = self.book.doubtful(draw, now, |key, _| !neighbours.contains_key(key));
        if let Some((key, at)) = chosen {
            self.dial(Some(key), &[at], Purpose::Feeler);
        }
    }

    fn dialling(&mut self) -> Vec<groups::Group> {
        self.gate().dials.values().map(|dial| dial.group).collect()
    }

    /// The operator's own word: its group may have any of the outbound places.
    fn dial_entrance(&mut self, number: usize, addresses: &[SocketAddr]) {
        let key = self.entrances.key(number);
        if key.is_some_and(|key| self.neighbours.contains_key(&key)) {
            return;
        }
        self.entrances.dialled(number, addresses);
        let gate = self.gate();
        if gate.places.outbound() + gate.dials.len() >= places::OUTBOUND {
            return;
        }
        let connected =
            |at: &SocketAddr| self.neighbours.values().any(|one| one.outbound && one.at == *at);
        let fresh: Vec<SocketAddr> =
            addresses.iter().filter(|at| !connected(at)).copied().collect();
        self.dial(key, &fresh, Purpose::Neighbour);
    }

    fn dial(&mut self, key: Option<NodeId>, addresses: &[SocketAddr], purpose: Purpose) {
        let Some(first) = addresses.first() else { return };
        let gate = self.gate();
        if gate.dials.len() >= MOST_DIALS {
            return;
        }
        let group = gate.groups.of(*first);
        let options = match key.and_then(|key| peer_id(&key).ok()) {
            Some(peer) => DialOpts::peer_id(peer)
                .addresses(addresses.iter().copied().map(multiaddr).collect())
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build(),
            None => DialOpts::unknown_peer_id().address(multiaddr(*first)).build(),
        };
        let id = options.connection_id();
        gate.dials.insert(id, Dial { key, group, purpose });
        if let Err(error) = self.swarm.dial(options) {
            self.not_reached(id, None, &error);
        }
    }

    /// Whatever else this server draws, nobody is to foresee it.
    fn draw(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        if let Err(error) = getrandom::fill(&mut bytes) {
            tracing::warn!(%error, "no randomness: neighbours are chosen in order");
        }
        bytes
    }

    fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.draw();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Closes all connections and waits until that is done.
    async fn stop(mut self, done: oneshot::Sender<()>) {
        if let Some(kept) = self.book.to_keep() {
            self.file.write_now(&kept);
        }
        for neighbour in self.neighbours.values() {
            // Who waits to write holds a stream, and the stream our socket.
            neighbour.tasks.iter().for_each(AbortHandle::abort);
            let _ = self.swarm.disconnect_peer_id(neighbour.peer);
        }
        let farewell = async {
            while self.swarm.connected_peers().next().is_some() {
                let _ = self.swarm.next().await;
            }
        };
        let _ = tokio::time::timeout(super::GOODBYE, farewell).await;
        let _ = done.send(());
    }
}

/// Whether a new connection to a peer takes the place of the one that there is. A peer that
/// connects again has lost the other; and of two that dialled each other at the same time, both
/// keep the connection that the lower key dialled.
fn replaces(own: &NodeId, peer: &NodeId, was_outbound: bool, outbound: bool) -> bool {
    was_outbound == outbound || outbound == (own < peer)
}

fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
