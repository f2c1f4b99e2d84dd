//! Step 5 of a transaction's life: messages travel between the servers.
//!
//! ```text
//!              replica ── send ──► outbox per peer and kind ──► writer ══► stream ══► peer
//!   votes checker  ◄── inbox ◄── decoded, canonical ◄── reader ◄══ stream ◄══ peer
//!   blocks checker ◄── inbox ◄──────┘
//! ```
//!
//! A server's identity is its Ed25519 key. Where membership is closed only members may connect, and
//! `closed` sees to it, over TCP; where it is open, `open` does, over libp2p and QUIC. What both
//! have in common is here.

mod closed;
pub mod frames;
pub mod links;
pub mod open;
pub mod outbox;
mod swarm;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{PeerId, identity};
use rota_core::crypto::SecretKey;
use rota_core::error::Invalid;
use rota_core::genesis::Method;
use rota_core::message::{MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, Message, Recipient};
use rota_core::types::{ChainId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use closed::{Door, Network};
use frames::End;
use links::{Direction, Kind, Links};
use open::gate::Gate;
use open::groups::Groups;
use open::{Open, OpenNetwork};
use outbox::Outbox;
use swarm::{listening, multiaddr, open_swarm};

use crate::queues;

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
    shortcut: Option<Shortcut>,
}

/// A way around the checkers for what they have little to do with; what cannot go it comes back.
pub type Shortcut = Arc<dyn Fn(Incoming) -> Result<(), Incoming> + Send + Sync>;

impl Inboxes {
    /// Both, and the other ends: votes, then blocks.
    pub fn new() -> (Self, mpsc::Receiver<Incoming>, mpsc::Receiver<Incoming>) {
        let (votes, votes_out) = Inbox::new();
        let (blocks, blocks_out) = Inbox::new();
        (Self { votes, blocks }, votes_out, blocks_out)
    }

    /// The same inboxes with a shortcut.
    #[must_use]
    pub fn with(mut self, shortcut: Shortcut) -> Self {
        self.votes.shortcut = Some(Arc::clone(&shortcut));
        self.blocks.shortcut = Some(shortcut);
        self
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
        let bytes = Arc::new(Semaphore::new(queues::CHECKS_BYTES));
        (Self { queue, bytes, shortcut: None }, out)
    }

    /// Waits for room. False when nobody wants messages any more.
    async fn put(&self, from: NodeId, message: Message, bytes: u32) -> bool {
        let Ok(room) = Arc::clone(&self.bytes).acquire_many_owned(bytes).await else {
            return false;
        };
        let mut incoming = Incoming::Message(from, message, room);
        if let Some(shortcut) = &self.shortcut {
            match shortcut(incoming) {
                Ok(()) => return true,
                Err(back) => incoming = back,
            }
        }
        self.queue.send(incoming).await.is_ok()
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
    /// Disconnect a peer that sent something invalid, and keep it out for [`COOL_DOWN`], or longer.
    Punish(NodeId, Invalid),
    /// A stream of this connection came to its end.
    Ended(NodeId, ConnectionId, End),
    /// The addresses of an entrance were looked up.
    DialEntrance(usize, Vec<SocketAddr>),
    /// A peer was the first to tell of a block that became the head.
    News(NodeId),
    /// Say goodbye to all.
    Stop(oneshot::Sender<()>),
}

/// What the ports are that servers of such a database listen on for each other.
pub fn ports(method: Method) -> &'static str {
    match method.is_closed() {
        true => "TCP",
        false => "UDP",
    }
}

/// The transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A key that is no Ed25519 key.
    #[error("{0} is not an Ed25519 public key")]
    Key(NodeId),
    /// The address is taken, or not this machine's.
    #[error("cannot listen for peers on {0}: {1}")]
    Listen(SocketAddr, String),
}

impl Transport {
    /// Listens for the members and connects to them. Must be called within a tokio runtime.
    pub async fn start(
        key: &SecretKey,
        chain: ChainId,
        listen: SocketAddr,
        peers: Vec<Peer>,
        inboxes: Inboxes,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, TransportError> {
        let own = key.public();
        let peers: Vec<Peer> = peers.into_iter().filter(|peer| peer.key != own).collect();
        let boxes = |peer: &Peer| Outboxes::new(queues::OUTBOX_BYTES, peer.follows);
        let outboxes = peers.iter().map(|peer| (peer.key, Arc::new(boxes(peer)))).collect();
        let door = Door::open(listen).await?;
        let (orders, incoming_orders) = mpsc::channel(ORDERS);
        let transport = Self {
            peers: Arc::new(RwLock::new(outboxes)),
            observer,
            orders,
            limits: Limits::MEMBERS,
            address: door.address,
        };
        let network = Network::new(key, chain, door, peers, transport.clone(), inboxes)?;
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

    /// Disconnects a peer that sent something invalid, and keeps it out for a while.
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
