//! Servers that anybody may join, on real sockets: who finds whom, who gets in, how many, and what
//! it costs to send garbage.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt, StreamExt};
use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identity};
use rota_core::crypto::SecretKey;
use rota_core::error::Invalid;
use rota_core::message::{Fetch, Message, Recipient};
use rota_core::types::{ChainId, Height, NodeId};
use rota_node::transport::links::{Direction, Kind, Links, StreamEvent};
use rota_node::transport::open::Open;
use rota_node::transport::open::gate::{Dial, Gate, Purpose};
use rota_node::transport::open::groups::Groups;
use rota_node::transport::open::places::INBOUND;
use rota_node::transport::{Inboxes, Incoming, Observer, Transport};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// No single step of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct News(mpsc::UnboundedSender<(NodeId, bool)>);

impl Observer for News {
    fn peer_is(&self, peer: &NodeId, connected: bool) {
        let _ = self.0.send((*peer, connected));
    }

    fn dropped(&self, _: usize) {}
}

struct Endpoint {
    key: NodeId,
    transport: Transport,
    votes: mpsc::Receiver<Incoming>,
    _blocks: mpsc::Receiver<Incoming>,
    news: mpsc::UnboundedReceiver<(NodeId, bool)>,
    neighbours: BTreeSet<NodeId>,
    most: usize,
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn chain(byte: u8) -> ChainId {
    ChainId([byte; 32])
}

impl Endpoint {
    async fn start(number: u8, of: u8, bootstrap: &[&Endpoint], file: Option<PathBuf>) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        let (inboxes, votes, blocks) = Inboxes::new();
        let (news_in, news) = mpsc::unbounded_channel();
        let open = Open {
            chain: chain(of),
            block_bytes: 1 << 20,
            bootstrap: bootstrap.iter().map(|one| one.transport.address.to_string()).collect(),
            peers: Vec::new(),
            file,
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let (key, observer) = (key(number), Arc::new(News(news_in)));
        let transport = Transport::start_open(&key, listen, open, inboxes, observer).await.unwrap();
        let (key, neighbours) = (key.public(), BTreeSet::new());
        Self { key, transport, votes, _blocks: blocks, news, neighbours, most: 0 }
    }

    /// Takes notice of one change.
    async fn hear(&mut self) {
        let (peer, connected) = self.news.recv().await.unwrap();
        match connected {
            true => self.neighbours.insert(peer),
            false => self.neighbours.remove(&peer),
        };
        self.most = self.most.max(self.neighbours.len());
    }

    async fn until(&mut self, what: &str, so: impl Fn(&BTreeSet<NodeId>) -> bool) {
        let hearing = async {
            while !so(&self.neighbours) {
                self.hear().await;
            }
        };
        timeout(PATIENCE, hearing).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn message(&mut self) -> (NodeId, Message) {
        loop {
            let heard = timeout(PATIENCE, self.votes.recv()).await.expect("no message").unwrap();
            if let Incoming::Message(from, message, _) = heard {
                return (from, message);
            }
        }
    }
}

fn question(height: u64) -> Message {
    Message::Fetch(Fetch::FinalAfter(Height(height)))
}

#[tokio::test]
async fn servers_that_know_one_address_find_each_other() {
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let mut others = Vec::new();
    for number in 2..=4 {
        others.push(Endpoint::start(number, 1, &[&first], None).await);
    }
    let all: BTreeSet<NodeId> = (1..=4).map(|number| key(number).public()).collect();
    for one in others.iter_mut().chain([&mut first]) {
        let wanted: BTreeSet<NodeId> = all.iter().filter(|key| **key != one.key).copied().collect();
        one.until("all others", |neighbours| *neighbours == wanted).await;
    }
    others[0].transport.send(&Recipient::MembersBut(first.key), &question(7));
    assert_eq!(others[1].message().await, (others[0].key, question(7)));
    assert_eq!(others[2].message().await, (others[0].key, question(7)));
}

#[tokio::test]
async fn a_server_of_another_database_is_left_at_once_and_tells_nothing() {
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let mut stranger = Endpoint::start(9, 2, &[&first], None).await;
    let mut second = Endpoint::start(2, 1, &[&first], None).await;
    second.until("the first", |neighbours| neighbours.contains(&key(1).public())).await;
    first.until("the second", |neighbours| neighbours.contains(&key(2).public())).await;
    first.transport.send(&Recipient::Members, &question(1));
    assert_eq!(second.message().await, (first.key, question(1)));
    assert!(stranger.news.try_recv().is_err() && stranger.votes.try_recv().is_err());
    assert!(!first.neighbours.contains(&stranger.key));
}

#[tokio::test]
async fn who_answered_is_remembered_across_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let file = Some(home.path().join("peers.json"));
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let mut second = Endpoint::start(2, 1, &[&first], file.clone()).await;
    second.until("the first", |neighbours| neighbours.contains(&key(1).public())).await;
    second.transport.stop().await;
    drop(second);
    first.until("the goodbye", |neighbours| neighbours.is_empty()).await;
    let mut again = Endpoint::start(2, 1, &[], file).await;
    again.until("the first, by heart", |neighbours| !neighbours.is_empty()).await;
}

/// A program that speaks our protocols and is not a server.
struct Program {
    swarm: Swarm<Links>,
    /// A stream that is dropped is closed.
    streams: Vec<libp2p::Stream>,
}

impl Program {
    fn new(key: &SecretKey) -> Self {
        let keypair = identity::Keypair::ed25519_from_bytes(key.to_bytes()).unwrap();
        let links = Links::open(chain(1), Gate::new(Groups::new([127, 0, 0, 1].into())));
        let built = SwarmBuilder::with_existing_identity(keypair).with_tokio().with_quic();
        let swarm = built.with_behaviour(|_| links).unwrap().build();
        Self { swarm, streams: Vec::new() }
    }

    fn dial(&mut self, to: &Endpoint) {
        let address = to.transport.address;
        let to: Multiaddr = Multiaddr::empty()
            .with(address.ip().into())
            .with(Protocol::Udp(address.port()))
            .with(Protocol::QuicV1);
        let options = DialOpts::unknown_peer_id().address(to).build();
        let gate = self.swarm.behaviour_mut().gate();
        let group = gate.groups.of(address);
        let dial = Dial { key: None, group, purpose: Purpose::Neighbour };
        gate.dials.insert(options.connection_id(), dial);
        self.swarm.dial(options).unwrap();
    }

    /// Says goodbye.
    fn leave(&mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Goes on until a stream to the server is open.
    async fn stream(&mut self) -> libp2p::Stream {
        let opened = async {
            loop {
                if let SwarmEvent::Behaviour((_, _, StreamEvent::Opened(kind, direction, stream))) =
                    self.swarm.select_next_some().await
                {
                    if (kind, direction) == (Kind::Votes, Direction::Outgoing) {
                        return stream;
                    }
                    self.streams.push(stream);
                }
            }
        };
        timeout(PATIENCE, opened).await.expect("no stream")
    }

    /// Goes on until the connection is closed; whether it was ever made.
    async fn until_closed(&mut self) {
        let closed = async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::ConnectionClosed { .. } => return,
                    SwarmEvent::OutgoingConnectionError { .. } => return,
                    SwarmEvent::Behaviour((_, _, StreamEvent::Opened(_, _, stream))) => {
                        self.streams.push(stream);
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, closed).await.expect("the connection stays open");
    }
}

#[tokio::test]
async fn garbage_costs_its_sender_the_connection_and_the_way_back() {
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let mut second = Endpoint::start(2, 1, &[&first], None).await;
    first.until("the second", |neighbours| !neighbours.is_empty()).await;
    second.until("the first", |neighbours| !neighbours.is_empty()).await;
    let mut liar = Program::new(&key(66));
    liar.dial(&first);
    let mut stream = liar.stream().await;
    let garbage = tokio::spawn(async move {
        let _ = stream.write_all(&[0xff; 64]).await;
        let _ = stream.flush().await;
        stream
    });
    liar.until_closed().await;
    let _ = garbage.await;
    liar.dial(&first);
    liar.until_closed().await;
    first.until("the liar is gone", |neighbours| !neighbours.contains(&key(66).public())).await;
    second.transport.send(&Recipient::Members, &question(4));
    assert_eq!(first.message().await, (second.key, question(4)));
}

#[tokio::test]
async fn going_before_the_lie_is_found_out_does_not_help() {
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let (mut liar, name) = (Program::new(&key(66)), key(66).public());
    liar.dial(&first);
    tokio::select! {
        () = first.until("the liar", |neighbours| neighbours.contains(&name)) => {}
        () = liar.until_closed() => panic!("not let in"),
    }
    liar.leave();
    tokio::join!(liar.until_closed(), first.until("it left", |neighbours| neighbours.is_empty()));
    first.transport.punish(name, Invalid::Rule("what it sent, checked a little later"));
    liar.dial(&first);
    liar.until_closed().await;
}

#[tokio::test]
async fn whoever_opens_no_streams_keeps_no_place() {
    let first = Endpoint::start(1, 1, &[], None).await;
    let keypair = identity::Keypair::ed25519_from_bytes([77; 32]).unwrap();
    let built = SwarmBuilder::with_existing_identity(keypair).with_tokio().with_quic();
    let silent = libp2p::swarm::dummy::Behaviour;
    let mut swarm = built
        .with_behaviour(|_| silent)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE * 2))
        .build();
    let address = first.transport.address;
    let to: Multiaddr = Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::QuicV1);
    swarm.dial(to).unwrap();
    let closed = async {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = swarm.select_next_some().await {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("the connection stays open");
}

#[tokio::test]
async fn there_are_so_many_places_and_no_more() {
    let mut first = Endpoint::start(1, 1, &[], None).await;
    let (closed_in, mut closed) = mpsc::unbounded_channel();
    let programs = INBOUND + 6;
    for number in 0..programs {
        let mut program = Program::new(&key(100 + u8::try_from(number).unwrap()));
        program.dial(&first);
        let closed = closed_in.clone();
        tokio::spawn(async move {
            // Streams are kept, so that the connection is.
            let mut streams = Vec::new();
            loop {
                match program.swarm.select_next_some().await {
                    SwarmEvent::Behaviour((_, _, StreamEvent::Opened(_, _, stream))) => {
                        streams.push(stream);
                    }
                    SwarmEvent::ConnectionClosed { .. }
                    | SwarmEvent::OutgoingConnectionError { .. } => {
                        let _ = closed.send(());
                    }
                    _ => {}
                }
            }
        });
    }
    first.until("all places taken", |neighbours| neighbours.len() == INBOUND).await;
    for _ in 0..programs - INBOUND {
        timeout(PATIENCE, closed.recv()).await.expect("nobody has to go").unwrap();
    }
    assert!(first.most <= INBOUND, "{}", first.most);
}
