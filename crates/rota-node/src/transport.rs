//! Step 5 of a transaction's life: messages travel between the members, over libp2p and QUIC.
//!
//! ```text
//!              replica ── send ──► outbox per peer and kind ──► writer ══► stream ══► peer
//!   votes checker  ◄── inbox ◄── decoded, canonical ◄── reader ◄══ stream ◄══ peer
//!   blocks checker ◄── inbox ◄──────┘
//! ```
//!
//! Any trouble with a stream closes its connection, and a new one is made.
//!
//! A server's identity is its Ed25519 key. Where membership is closed only members may connect, and
//! this file has the task that sees to it; where it is open, `open` has. Between two servers there
//! is one connection; if a second one appears the older is closed, since a peer that connects again
//! has lost the other. Of two servers the one with the lower key dials at once and the other a
//! little later, so that they rarely dial each other at the same time.

pub mod frames;
pub mod links;
pub mod open;
pub mod outbox;
mod swarm;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identity};
use rota_core::crypto::SecretKey;
use rota_core::error::Invalid;
use rota_core::message::{MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, Message, Recipient};
use rota_core::types::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use frames::End;
use links::{Direction, Kind, Links, StreamEvent};
use open::gate::Gate;
use open::groups::Groups;
use open::{Open, OpenNetwork};
use outbox::Outbox;
use swarm::{Behaviour, BehaviourEvent, closed_swarm, listening, multiaddr, open_swarm};

use crate::queues;

/// How long the server with the higher key waits before it dials.
const POLITE_WAIT: Duration = Duration::from_millis(300);

/// After a failed dial the next one comes after this time, then twice as long, up to
/// [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// A server that comes back is connected at most this much later, if it does not dial itself.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a peer that sent invalid bytes is kept out: long enough that it costs nothing, short
/// enough that a member whose memory flipped a bit returns.
const COOL_DOWN: Duration = Duration::from_secs(10);

/// How long a stopping server waits for its goodbyes to leave.
const GOODBYE: Duration = Duration::from_millis(200);

/// Where anybody may connect, a message that has begun is here, or has left, within this time: the
/// largest at half a megabit a second. Whoever is slower only holds memory.
const MESSAGE_WITHIN: Duration = Duration::from_secs(120);

/// What a message is longer than the blocks in it.
const FRAMING: usize = 64 << 10;

/// Orders to the transport that wait: one for each peer and reason at most, as a rule.
const ORDERS: usize = 256;

/// Another member and where it is (`host:port`; empty: it dials us).
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who.
    pub key: NodeId,
    /// Where.
    pub address: String,
    /// Whether it only follows: it hears what it asks for, and nothing else.
    pub follows: bool,
}

/// What comes in.
#[derive(Debug)]
pub enum Incoming {
    /// A peer's message: canonical, not otherwise checked.
    Message(NodeId, Message, Room),
    /// Streams to this peer were opened (again): it may have missed everything.
    Connected(NodeId),
    /// This peer is gone; where anybody may come, it may be for good.
    Disconnected(NodeId),
}

/// What a message takes of [`queues::CHECKS_BYTES`], until this is dropped.
pub type Room = OwnedSemaphorePermit;

/// Where messages go, one queue per kind of stream, so that no vote waits behind a body.
#[derive(Clone)]
pub struct Inboxes {
    /// Votes, certificates, requests, and `Connected`.
    votes: Inbox,
    /// Blocks, envelopes, answers.
    blocks: Inbox,
}

#[derive(Clone)]
struct Inbox {
    queue: mpsc::Sender<Incoming>,
    bytes: Arc<Semaphore>,
}

impl Inboxes {
    /// Both, and the other ends: votes, then blocks.
    pub fn new() -> (Self, mpsc::Receiver<Incoming>, mpsc::Receiver<Incoming>) {
        let (votes, votes_out) = Inbox::new();
        let (blocks, blocks_out) = Inbox::new();
        (Self { votes, blocks }, votes_out, blocks_out)
    }

    fn of(&self, kind: Kind) -> &Inbox {
        match kind {
            Kind::Votes => &self.votes,
            Kind::Blocks => &self.blocks,
        }
    }
}

impl Inbox {
    fn new() -> (Self, mpsc::Receiver<Incoming>) {
        let (queue, out) = mpsc::channel(queues::CHECKS);
        (Self { queue, bytes: Arc::new(Semaphore::new(queues::CHECKS_BYTES)) }, out)
    }

    /// Waits for room. False when nobody wants messages any more.
    async fn put(&self, from: NodeId, message: Message, bytes: u32) -> bool {
        let Ok(room) = Arc::clone(&self.bytes).acquire_many_owned(bytes).await else {
            return false;
        };
        self.queue.send(Incoming::Message(from, message, room)).await.is_ok()
    }
}

/// Who hears how the connections are.
pub trait Observer: Send + Sync + 'static {
    /// Messages flow both ways between this server and a peer, or no longer.
    fn peer_is(&self, peer: &NodeId, connected: bool);
    /// Messages were dropped, oldest first, since an outbox was full.
    fn dropped(&self, messages: usize);
}

/// The transport, as the replica's thread and the checkers see it.
#[derive(Clone)]
pub struct Transport {
    peers: Arc<RwLock<BTreeMap<NodeId, Arc<Outboxes>>>>,
    observer: Arc<dyn Observer>,
    orders: mpsc::Sender<Order>,
    limits: Limits,
    /// Where it listens; the port is the real one.
    pub address: SocketAddr,
}

/// What a peer may make this server hold.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The largest message on a blocks stream.
    message: usize,
    /// How long one may take.
    within: Option<Duration>,
}

impl Limits {
    /// Members do not do such things on purpose.
    const MEMBERS: Self = Self { message: MAX_MESSAGE_BYTES, within: None };

    /// An answer holds whole blocks up to a size, and at least one.
    fn of_anybody(block_bytes: u32) -> Self {
        let block = usize::try_from(block_bytes).unwrap_or(MAX_MESSAGE_BYTES);
        let message = MAX_ANSWER_BYTES.saturating_add(block).saturating_add(FRAMING);
        Self { message: message.min(MAX_MESSAGE_BYTES), within: Some(MESSAGE_WITHIN) }
    }

    fn of(&self, kind: Kind) -> usize {
        self.message.min(frames::limit(kind))
    }
}

struct Outboxes {
    votes: Arc<Outbox>,
    blocks: Arc<Outbox>,
    /// Whether it is nobody's member: what is said to all is not for it.
    follows: bool,
}

impl Outboxes {
    fn new(most_bytes: usize, follows: bool) -> Self {
        Self {
            follows,
            votes: Arc::new(Outbox::new(Kind::Votes, most_bytes)),
            blocks: Arc::new(Outbox::new(Kind::Blocks, most_bytes)),
        }
    }

    fn of_anybody() -> Self {
        Self::new(queues::OPEN_OUTBOX_BYTES, false)
    }

    fn of(&self, kind: Kind) -> &Arc<Outbox> {
        match kind {
            Kind::Votes => &self.votes,
            Kind::Blocks => &self.blocks,
        }
    }
}

enum Order {
    /// Disconnect a peer that sent something invalid, and keep it out for a while.
    Punish(NodeId, Invalid),
    /// A stream of this connection came to its end.
    Ended(NodeId, ConnectionId, End),
    /// A peer's address was looked up.
    Dial(NodeId, Vec<Multiaddr>),
    /// The addresses of an entrance were looked up.
    DialEntrance(usize, Vec<SocketAddr>),
    /// A peer was the first to tell of a block that became the head.
    News(NodeId),
    /// Say goodbye to all.
    Stop(oneshot::Sender<()>),
}

/// The transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A key that is no Ed25519 key.
    #[error("{0} is not an Ed25519 public key")]
    Key(NodeId),
    /// The address is taken, or not this machine's.
    #[error("cannot listen for peers on {0} (UDP): {1}")]
    Listen(SocketAddr, String),
}

impl Transport {
    /// Listens for the members and connects to them. Must be called within a tokio runtime.
    pub async fn start(
        key: &SecretKey,
        listen: SocketAddr,
        peers: Vec<Peer>,
        inboxes: Inboxes,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, TransportError> {
        let own = key.public();
        let (mut connections, mut outboxes) = (BTreeMap::new(), BTreeMap::new());
        for peer in peers.into_iter().filter(|peer| peer.key != own) {
            let id = peer_id(&peer.key)?;
            let own_boxes = Outboxes::new(queues::OUTBOX_BYTES, peer.follows);
            outboxes.insert(peer.key, Arc::new(own_boxes));
            connections.insert(peer.key, Connection::new(id, peer.address, own < peer.key));
        }
        let links = Links::new(connections.values().map(|peer| peer.id));
        let mut swarm = closed_swarm(key, links)?;
        let address = listening(&mut swarm, listen).await?;
        let (orders, incoming_orders) = mpsc::channel(ORDERS);
        let peers = Arc::new(RwLock::new(outboxes));
        let transport = Self { peers, observer, orders, limits: Limits::MEMBERS, address };
        let network = Network {
            names: connections.iter().map(|(key, peer)| (peer.id, *key)).collect(),
            connections,
            swarm,
            transport: transport.clone(),
            inboxes,
        };
        tokio::spawn(network.run(incoming_orders));
        Ok(transport)
    }

    /// Listens for whoever has the same database, and looks for others. Must be called within a
    /// tokio runtime.
    pub async fn start_open(
        key: &SecretKey,
        listen: SocketAddr,
        open: Open,
        inboxes: Inboxes,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, TransportError> {
        let gate = Gate::new(Groups::new(listen.ip()));
        let mut swarm = open_swarm(key, open.chain, Links::open(open.chain, gate))?;
        let address = listening(&mut swarm, listen).await?;
        // What identify tells others: of this, they believe the port.
        swarm.add_external_address(multiaddr(address));
        let (orders, incoming_orders) = mpsc::channel(ORDERS);
        let limits = Limits::of_anybody(open.block_bytes);
        let transport = Self { peers: Arc::default(), observer, orders, limits, address };
        let network = OpenNetwork::new(key, open, swarm, transport.clone(), inboxes);
        tokio::spawn(network.run(incoming_orders));
        Ok(transport)
    }

    /// Sends a message, best effort: never waits.
    pub fn send(&self, to: &Recipient, message: &Message) {
        let Some(frame) = frames::frame(message) else {
            tracing::error!("a message of ours is larger than peers accept; it is not sent");
            return;
        };
        let kind = frames::kind(message);
        let push = |outboxes: &Arc<Outboxes>| outboxes.of(kind).push(frame.clone());
        let hears = |outboxes: &&Arc<Outboxes>| !outboxes.follows;
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let dropped = match to {
            Recipient::One(peer) => peers.get(peer).map_or(0, push),
            Recipient::Members => peers.values().filter(hears).map(push).sum(),
            Recipient::MembersBut(peer) => {
                let others = peers.iter().filter(|(key, _)| *key != peer);
                others.map(|(_, outboxes)| outboxes).filter(hears).map(push).sum()
            }
        };
        drop(peers);
        if let (Recipient::MembersBut(peer), Message::Mined(_)) = (to, message) {
            // The replica tells everybody else of a head that it found right: this peer was first.
            let _ = self.orders.try_send(Order::News(*peer));
        }
        if dropped > 0 {
            self.observer.dropped(dropped);
        }
    }

    /// Disconnects a peer that sent something invalid, and keeps it out for [`COOL_DOWN`].
    pub fn punish(&self, peer: NodeId, why: Invalid) {
        // When so many orders wait, this peer is being dealt with already.
        let _ = self.orders.try_send(Order::Punish(peer, why));
    }

    fn outbox(&self, key: &NodeId, kind: Kind) -> Option<Arc<Outbox>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(key).map(|outboxes| Arc::clone(outboxes.of(kind)))
    }

    fn peers_mut(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Arc<Outboxes>>)) {
        change(&mut self.peers.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Closes all connections, so that peers know at once that this server is gone.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _ = tokio::time::timeout(GOODBYE, stopped).await;
        }
    }
}

/// libp2p's name for a server.
pub fn peer_id(key: &NodeId) -> Result<PeerId, TransportError> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0)
        .map_err(|_| TransportError::Key(*key))?;
    Ok(identity::PublicKey::from(key).to_peer_id())
}

/// What the transport knows of one peer.
struct Connection {
    id: PeerId,
    address: String,
    /// The connection in use.
    current: Option<Current>,
    /// When to dial, if we are not connected.
    dial_at: Instant,
    backoff: Duration,
    /// Until when it is kept out.
    kept_out: Option<Instant>,
}

struct Current {
    id: ConnectionId,
    /// Which of the four streams are open.
    open: Vec<(Kind, Direction)>,
    tasks: Vec<AbortHandle>,
}

impl Connection {
    fn new(id: PeerId, address: String, dials_first: bool) -> Self {
        let wait = if dials_first { Duration::ZERO } else { POLITE_WAIT };
        Self {
            id,
            address,
            current: None,
            dial_at: Instant::now() + wait,
            backoff: MIN_BACKOFF,
            kept_out: None,
        }
    }

    /// When something is to be done about this peer that no event will tell.
    fn next(&self) -> Option<Instant> {
        match (&self.current, self.kept_out) {
            (_, Some(until)) => Some(until),
            (None, None) if !self.address.is_empty() => Some(self.dial_at),
            _ => None,
        }
    }

    /// Sets the time of the next dial, and doubles the wait after it.
    fn dial_later(&mut self) {
        self.dial_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }
}

/// The task that owns libp2p's swarm.
struct Network {
    swarm: Swarm<Behaviour>,
    connections: BTreeMap<NodeId, Connection>,
    names: BTreeMap<PeerId, NodeId>,
    transport: Transport,
    inboxes: Inboxes,
}

impl Network {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let next = self.connections.values().filter_map(Connection::next).min();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.happened(event),
                order = orders.recv() => match order {
                    Some(Order::Stop(done)) => return self.stop(done).await,
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = timer => self.due(),
            }
        }
    }

    fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.established(peer_id, connection_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Links((peer, connection, event))) => {
                self.stream(peer, connection, event);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let why = cause.map_or_else(|| "closed".into(), |cause| cause.to_string());
                self.closed(peer_id, connection_id, &why);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                if let Some(peer) = self.names.get(&peer) {
                    tracing::debug!(%peer, %error, "dialling failed");
                }
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

    /// The newest connection is the one in use: a peer that connects again has lost the other.
    fn established(&mut self, peer: PeerId, id: ConnectionId) {
        let Some(key) = self.names.get(&peer) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.backoff = MIN_BACKOFF;
        let current = Current { id, open: Vec::new(), tasks: Vec::new() };
        if let Some(old) = connection.current.replace(current) {
            let key = *key;
            self.forget(key, &old);
            self.swarm.close_connection(old.id);
        }
    }

    fn stream(&mut self, peer: PeerId, id: ConnectionId, event: StreamEvent) {
        let Some(key) = self.names.get(&peer).copied() else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(current) = connection.current.as_mut().filter(|current| current.id == id) else {
            return; // of an older connection, which is being closed
        };
        let (kind, direction, stream) = match event {
            StreamEvent::Opened(kind, direction, stream) => (kind, direction, stream),
            StreamEvent::Failed(kind) | StreamEvent::Unknown(kind) => {
                tracing::debug!(peer = %key, ?kind, "a stream could not be opened");
                self.swarm.close_connection(id);
                return;
            }
        };
        if current.open.contains(&(kind, direction)) {
            self.punish(key, &Invalid::Rule("a second stream of the same kind"));
            return;
        }
        current.open.push((kind, direction));
        let complete = current.open.len() == 2 * Kind::ALL.len();
        let task = self.transport.streaming(key, id, kind, direction, stream, &self.inboxes);
        current.tasks.push(task);
        if complete {
            tracing::info!(peer = %key, "connected");
            self.transport.observer.peer_is(&key, true);
            let votes = self.inboxes.votes.queue.clone();
            let announce = tokio::spawn(async move {
                let _ = votes.send(Incoming::Connected(key)).await;
            });
            current.tasks.push(announce.abort_handle());
        }
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId, why: &str) {
        let Some(key) = self.names.get(&peer).copied() else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(current) = connection.current.take_if(|current| current.id == id) else { return };
        connection.dial_later();
        tracing::info!(peer = %key, why, "disconnected");
        self.forget(key, &current);
    }

    /// What was to go over a connection that is gone.
    fn forget(&self, key: NodeId, gone: &Current) {
        for task in &gone.tasks {
            task.abort();
        }
        for kind in Kind::ALL {
            if let Some(outbox) = self.transport.outbox(&key, kind) {
                outbox.close();
            }
        }
        self.transport.observer.peer_is(&key, false);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Punish(peer, why) => self.punish(peer, &why),
            Order::Ended(peer, id, end) => {
                let current = self.connections.get(&peer).and_then(|peer| peer.current.as_ref());
                if current.is_some_and(|current| current.id == id) {
                    match end {
                        End::Closed => drop(self.swarm.close_connection(id)),
                        End::Invalid(why) => self.punish(peer, &why),
                    }
                }
            }
            Order::Dial(peer, addresses) => self.dial(peer, addresses),
            Order::DialEntrance(..) | Order::News(_) | Order::Stop(_) => {}
        }
    }

    fn punish(&mut self, key: NodeId, why: &Invalid) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.kept_out.is_some() {
            return;
        }
        tracing::warn!(peer = %key, %why, "sent something invalid; disconnected for {COOL_DOWN:?}");
        connection.kept_out = Some(Instant::now() + COOL_DOWN);
        let id = connection.id;
        self.swarm.behaviour_mut().links.deny(&id);
        // Not connected any more is as good.
        let _ = self.swarm.disconnect_peer_id(id);
    }

    /// Does what no event asks for: dials, and lets peers in again.
    fn due(&mut self) {
        let now = Instant::now();
        for (key, connection) in &mut self.connections {
            if connection.kept_out.is_some_and(|until| until <= now) {
                connection.kept_out = None;
                self.swarm.behaviour_mut().links.allow(connection.id);
            }
            let wanted = connection.current.is_none() && connection.kept_out.is_none();
            if wanted && !connection.address.is_empty() && connection.dial_at <= now {
                connection.dial_later();
                look_up(*key, connection.address.clone(), self.transport.orders.clone());
            }
        }
    }

    fn dial(&mut self, key: NodeId, addresses: Vec<Multiaddr>) {
        let Some(connection) = self.connections.get(&key) else { return };
        let options = DialOpts::peer_id(connection.id)
            .addresses(addresses)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(peer = %key, %error, "not dialled");
        }
    }

    /// Closes all connections and waits until that is done.
    async fn stop(mut self, done: oneshot::Sender<()>) {
        for connection in self.connections.values_mut() {
            // Who waits to write holds a stream, and the stream our socket.
            for task in connection.current.take().into_iter().flat_map(|current| current.tasks) {
                task.abort();
            }
            let _ = self.swarm.disconnect_peer_id(connection.id);
        }
        let farewell = async {
            while self.swarm.connected_peers().next().is_some() {
                let _ = self.swarm.next().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, farewell).await;
        let _ = done.send(());
    }
}

impl Transport {
    /// Starts reading from or writing to a stream.
    fn streaming(
        &self,
        key: NodeId,
        id: ConnectionId,
        kind: Kind,
        direction: Direction,
        mut stream: libp2p::Stream,
        inboxes: &Inboxes,
    ) -> AbortHandle {
        let (orders, limits) = (self.orders.clone(), self.limits);
        let task = match direction {
            Direction::Incoming => {
                let inbox = inboxes.of(kind).clone();
                tokio::spawn(async move {
                    let end = receive(&mut stream, kind, limits, key, &inbox).await;
                    let _ = orders.send(Order::Ended(key, id, end)).await;
                })
            }
            Direction::Outgoing => {
                let Some(outbox) = self.outbox(&key, kind) else {
                    return tokio::spawn(async {}).abort_handle();
                };
                outbox.open();
                tokio::spawn(async move {
                    let end = frames::write_all(&mut stream, &outbox, limits.within).await;
                    let _ = orders.send(Order::Ended(key, id, end)).await;
                })
            }
        };
        task.abort_handle()
    }
}

/// Passes a stream's messages on. When the inbox is full this waits, and through QUIC's flow
/// control so does the peer.
async fn receive(
    stream: &mut libp2p::Stream,
    kind: Kind,
    limits: Limits,
    from: NodeId,
    inbox: &Inbox,
) -> End {
    let mut stream = futures::io::BufReader::new(stream);
    loop {
        match frames::read(&mut stream, kind, limits.of(kind), limits.within).await {
            Err(end) => return end,
            Ok((message, bytes)) => {
                if !inbox.put(from, message, bytes).await {
                    return End::Closed;
                }
            }
        }
    }
}

/// Finds a peer's IP addresses and orders a dial. A name may mean another address tomorrow, so this
/// is done each time.
fn look_up(key: NodeId, address: String, orders: mpsc::Sender<Order>) {
    tokio::spawn(async move {
        match tokio::net::lookup_host(&address).await {
            Ok(found) => {
                let _ = orders.send(Order::Dial(key, found.map(multiaddr).collect())).await;
            }
            Err(error) => tracing::warn!(peer = %key, address, %error, "no such address"),
        }
    });
}
