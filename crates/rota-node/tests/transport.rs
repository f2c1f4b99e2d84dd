//! Servers' connections on real sockets: who gets in, what arrives, and what a peer that sends
//! garbage gains.

use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt, StreamExt};
use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identity};
use rota_core::crypto::SecretKey;
use rota_core::message::{Fetch, Message, Recipient};
use rota_core::types::{Height, NodeId};
use rota_node::transport::links::{Direction, Kind, Links, StreamEvent};
use rota_node::transport::{Inboxes, Incoming, Observer, Peer, Transport, peer_id};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// No single step of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Links2(mpsc::UnboundedSender<(NodeId, bool)>);

impl Observer for Links2 {
    fn peer_is(&self, peer: &NodeId, connected: bool) {
        let _ = self.0.send((*peer, connected));
    }

    fn dropped(&self, _: usize) {}
}

struct Endpoint {
    transport: Transport,
    votes: mpsc::Receiver<Incoming>,
    blocks: mpsc::Receiver<Incoming>,
    links: mpsc::UnboundedReceiver<(NodeId, bool)>,
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn peer(key: &SecretKey, at: Option<&Endpoint>) -> Peer {
    let address = at.map(|at| at.transport.address.to_string()).unwrap_or_default();
    Peer { key: key.public(), address, follows: false }
}

impl Endpoint {
    async fn start(key: &SecretKey, peers: Vec<Peer>) -> Self {
        let (inboxes, votes, blocks) = Inboxes::new();
        let (links_in, links) = mpsc::unbounded_channel();
        let observer = Arc::new(Links2(links_in));
        let listen = "127.0.0.1:0".parse().unwrap();
        let transport = Transport::start(key, listen, peers, inboxes, observer).await.unwrap();
        Self { transport, votes, blocks, links }
    }

    /// Waits until this end says that it is connected to that peer, or no longer.
    async fn is(&mut self, peer: &SecretKey, connected: bool) {
        let news = async { while self.links.recv().await != Some((peer.public(), connected)) {} };
        timeout(PATIENCE, news).await.expect("no news of the connection");
    }

    /// The next message on a stream; `Connected` is passed over.
    async fn message(inbox: &mut mpsc::Receiver<Incoming>) -> (NodeId, Message) {
        loop {
            match timeout(PATIENCE, inbox.recv()).await.expect("no message").unwrap() {
                Incoming::Message(from, message, _) => return (from, message),
                Incoming::Connected(_) | Incoming::Disconnected(_) => {}
            }
        }
    }
}

fn vote(height: u64) -> Message {
    Message::Fetch(Fetch::FinalAfter(Height(height)))
}

async fn pair(a: &SecretKey, b: &SecretKey) -> (Endpoint, Endpoint) {
    let mut first = Endpoint::start(a, vec![peer(b, None)]).await;
    let mut second = Endpoint::start(b, vec![peer(a, Some(&first))]).await;
    first.is(b, true).await;
    second.is(a, true).await;
    (first, second)
}

#[tokio::test]
async fn members_hear_each_other_on_both_streams() {
    let (a, b) = (key(1), key(2));
    let (mut first, mut second) = pair(&a, &b).await;
    first.transport.send(&Recipient::One(b.public()), &vote(1));
    first.transport.send(&Recipient::Members, &Message::Envelopes(Vec::new()));
    second.transport.send(&Recipient::Members, &vote(2));
    assert_eq!(Endpoint::message(&mut second.votes).await, (a.public(), vote(1)));
    let envelopes = Message::Envelopes(Vec::new());
    assert_eq!(Endpoint::message(&mut second.blocks).await, (a.public(), envelopes));
    assert_eq!(Endpoint::message(&mut first.votes).await, (b.public(), vote(2)));
}

#[tokio::test]
async fn a_peer_that_stops_is_noticed_at_once_and_welcome_again() {
    let (a, b) = (key(1), key(2));
    let (mut first, second) = pair(&a, &b).await;
    second.transport.stop().await;
    first.is(&b, false).await;
    let mut again = Endpoint::start(&b, vec![peer(&a, Some(&first))]).await;
    first.is(&b, true).await;
    again.is(&a, true).await;
    first.transport.send(&Recipient::Members, &vote(3));
    assert_eq!(Endpoint::message(&mut again.votes).await, (a.public(), vote(3)));
}

/// A program that speaks libp2p and is not a server of ours.
fn program(key: &SecretKey, knows: &NodeId) -> Swarm<Links> {
    let keypair = identity::Keypair::ed25519_from_bytes(key.to_bytes()).unwrap();
    let links = Links::new([peer_id(knows).unwrap()]);
    let built = SwarmBuilder::with_existing_identity(keypair).with_tokio().with_quic();
    built.with_behaviour(|_| links).unwrap().build()
}

fn dial<B: NetworkBehaviour>(swarm: &mut Swarm<B>, to: &Endpoint) {
    let address = to.transport.address;
    let address: Multiaddr = Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::QuicV1);
    swarm.dial(address).unwrap();
}

async fn until_closed<B: NetworkBehaviour>(swarm: &mut Swarm<B>) {
    let closed = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionClosed { .. } => return,
                SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("the connection stays open");
}

#[tokio::test]
async fn a_stranger_is_refused_before_any_stream() {
    let (a, b, stranger) = (key(1), key(2), key(3));
    let mut first = Endpoint::start(&a, vec![peer(&b, None)]).await;
    let mut swarm = program(&stranger, &a.public());
    dial(&mut swarm, &first);
    let closed = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour((_, _, StreamEvent::Opened(..))) => panic!("a stream"),
                SwarmEvent::ConnectionClosed { .. } => return,
                SwarmEvent::OutgoingConnectionError { .. } => return,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("the stranger's connection stays open");
    assert!(first.links.try_recv().is_err() && first.votes.try_recv().is_err());
    let _second = Endpoint::start(&b, vec![peer(&a, Some(&first))]).await;
    first.is(&b, true).await;
}

#[tokio::test]
async fn garbage_costs_the_member_that_sends_it_its_connection_and_nobody_else() {
    let (a, b, liar) = (key(1), key(2), key(3));
    let mut first = Endpoint::start(&a, vec![peer(&b, None), peer(&liar, None)]).await;
    let second = Endpoint::start(&b, vec![peer(&a, Some(&first))]).await;
    first.is(&b, true).await;
    let mut swarm = program(&liar, &a.public());
    dial(&mut swarm, &first);
    let mut streams = Vec::new();
    let opened = async {
        while streams.is_empty() {
            if let SwarmEvent::Behaviour((_, _, StreamEvent::Opened(kind, direction, stream))) =
                swarm.select_next_some().await
                && (kind, direction) == (Kind::Votes, Direction::Outgoing)
            {
                streams.push(stream);
            }
        }
    };
    timeout(PATIENCE, opened).await.expect("no stream");
    let mut stream = streams.pop().unwrap();
    let garbage = tokio::spawn(async move {
        let _ = stream.write_all(&[0xff; 64]).await;
        let _ = stream.flush().await;
        stream
    });
    until_closed(&mut swarm).await;
    let _ = garbage.await;
    dial(&mut swarm, &first); // still cooling down
    until_closed(&mut swarm).await;
    second.transport.send(&Recipient::Members, &vote(4));
    assert_eq!(Endpoint::message(&mut first.votes).await, (b.public(), vote(4)));
}
