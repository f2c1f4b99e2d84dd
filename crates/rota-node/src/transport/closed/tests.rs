//! Members on real sockets, and what others who connect to them gain.

use std::sync::Arc;
use std::time::Duration;

use rota_core::message::{Fetch, Message, Recipient};
use rota_core::types::Height;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::transport::links::Kind;
use crate::transport::{Observer, frames};

/// No single step of these tests takes longer, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CHAIN: ChainId = ChainId([7; 32]);

const VOTES_OUT: Way = Way { kind: Kind::Votes, direction: Direction::Outgoing };
const BLOCKS_OUT: Way = Way { kind: Kind::Blocks, direction: Direction::Outgoing };

struct News(mpsc::UnboundedSender<(NodeId, bool)>);

impl Observer for News {
    fn peer_is(&self, peer: &NodeId, connected: bool) {
        let _ = self.0.send((*peer, connected));
    }

    fn dropped(&self, _: usize) {}
}

struct Server {
    transport: Transport,
    votes: mpsc::Receiver<Incoming>,
    blocks: mpsc::Receiver<Incoming>,
    news: mpsc::UnboundedReceiver<(NodeId, bool)>,
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn peer(key: &SecretKey, at: Option<SocketAddr>) -> Peer {
    let address = at.map(|at| at.to_string()).unwrap_or_default();
    Peer { key: key.public(), address, follows: false }
}

impl Server {
    async fn start(key: &SecretKey, chain: ChainId, peers: Vec<Peer>) -> Self {
        Self::listen("127.0.0.1:0".parse().unwrap(), key, chain, peers).await
    }

    async fn listen(at: SocketAddr, key: &SecretKey, chain: ChainId, peers: Vec<Peer>) -> Self {
        let (inboxes, votes, blocks) = Inboxes::new();
        let (news_in, news) = mpsc::unbounded_channel();
        let observer = Arc::new(News(news_in));
        let started = Transport::start(key, chain, at, peers, inboxes, observer).await;
        Self { transport: started.unwrap(), votes, blocks, news }
    }

    fn address(&self) -> SocketAddr {
        self.transport.address
    }

    /// Waits until it says that it is connected to that peer, or no longer.
    async fn is(&mut self, peer: &SecretKey, connected: bool) {
        let news = async { while self.news.recv().await != Some((peer.public(), connected)) {} };
        timeout(PATIENCE, news).await.expect("no news of the connection");
    }

    async fn hears(&mut self, kind: Kind) -> (NodeId, Message) {
        let inbox = match kind {
            Kind::Votes => &mut self.votes,
            Kind::Blocks => &mut self.blocks,
        };
        loop {
            match timeout(PATIENCE, inbox.recv()).await.expect("no message").unwrap() {
                Incoming::Message(from, message, _) => return (from, message),
                Incoming::Connected(_) | Incoming::Disconnected(_) => {}
            }
        }
    }
}

/// A server that nobody is connected to yet, and another member's key.
async fn alone() -> (Server, SecretKey) {
    let member = key(2);
    (Server::start(&key(1), CHAIN, vec![peer(&member, None)]).await, member)
}

fn vote(height: u64) -> Message {
    Message::Fetch(Fetch::FinalAfter(Height(height)))
}

/// What a program that has a key can connect with.
fn tls(own: &SecretKey) -> Tls {
    Tls::new(own, Allowed::new([])).unwrap()
}

async fn dials(own: &SecretKey, chain: ChainId, way: Way, to: &Server) -> Result<Wire, Refused> {
    let address = to.address().to_string();
    greeting::dial(&tls(own), key(1).public(), &address, chain, way).await
}

/// Returns when the other side has ended the connection.
async fn ended(mut wire: impl tokio::io::AsyncRead + Unpin) {
    let mut ignored = Vec::new();
    let reading = wire.read_to_end(&mut ignored);
    let _ = timeout(PATIENCE, reading).await.expect("the connection is kept");
}

async fn pair(a: &SecretKey, b: &SecretKey) -> (Server, Server) {
    let mut first = Server::start(a, CHAIN, vec![peer(b, None)]).await;
    let mut second = Server::start(b, CHAIN, vec![peer(a, Some(first.address()))]).await;
    first.is(b, true).await;
    second.is(a, true).await;
    (first, second)
}

#[tokio::test]
async fn members_hear_each_other_on_all_connections() {
    let (a, b) = (key(1), key(2));
    let (mut first, mut second) = pair(&a, &b).await;
    let envelopes = Message::Envelopes(Vec::new());
    first.transport.send(&Recipient::One(b.public()), &vote(1));
    first.transport.send(&Recipient::Members, &envelopes);
    second.transport.send(&Recipient::Members, &vote(2));
    second.transport.send(&Recipient::Members, &envelopes);
    assert_eq!(second.hears(Kind::Votes).await, (a.public(), vote(1)));
    assert_eq!(second.hears(Kind::Blocks).await, (a.public(), envelopes.clone()));
    assert_eq!(first.hears(Kind::Votes).await, (b.public(), vote(2)));
    assert_eq!(first.hears(Kind::Blocks).await, (b.public(), envelopes));
}

/// More than a connection takes at once, and in the order in which it was sent.
#[tokio::test]
async fn what_a_connection_does_not_take_at_once_follows_in_order() {
    let (a, b) = (key(1), key(2));
    let (first, mut second) = pair(&a, &b).await;
    let chunk = |number| Message::Chunk {
        height: Height(1),
        number,
        bytes: vec![0; if number % 2 == 0 { 2 << 20 } else { 9 }],
    };
    let all = 0..20;
    for number in all.clone() {
        first.transport.send(&Recipient::Members, &chunk(number));
    }
    for number in all {
        assert_eq!(second.hears(Kind::Blocks).await, (a.public(), chunk(number)));
    }
}

#[tokio::test]
async fn a_peer_that_stops_is_noticed_at_once_and_welcome_again() {
    let (a, b) = (key(1), key(2));
    let (mut first, second) = pair(&a, &b).await;
    second.transport.stop().await;
    first.is(&b, false).await;
    let mut again = Server::start(&b, CHAIN, vec![peer(&a, Some(first.address()))]).await;
    first.is(&b, true).await;
    again.is(&a, true).await;
    first.transport.send(&Recipient::Members, &vote(3));
    assert_eq!(again.hears(Kind::Votes).await, (a.public(), vote(3)));
}

#[tokio::test]
async fn a_stranger_is_refused_before_it_is_heard() {
    let (mut first, member) = alone().await;
    let refused = dials(&key(3), CHAIN, VOTES_OUT, &first).await;
    assert!(matches!(refused, Err(Refused::Broken(_))), "{:?}", refused.err());
    assert!(first.news.try_recv().is_err() && first.votes.try_recv().is_err());
    assert!(dials(&member, CHAIN, VOTES_OUT, &first).await.is_ok());
}

#[tokio::test]
async fn a_server_with_another_key_than_expected_is_not_spoken_to() {
    let (first, member) = alone().await;
    let address = first.address().to_string();
    let other = key(4).public();
    let refused = greeting::dial(&tls(&member), other, &address, CHAIN, VOTES_OUT).await;
    assert!(matches!(refused, Err(Refused::Broken(_))), "{:?}", refused.err());
}

#[tokio::test]
async fn a_server_of_another_database_is_told_so() {
    let (first, member) = alone().await;
    let refused = dials(&member, ChainId([8; 32]), VOTES_OUT, &first).await;
    let Err(Refused::Other(why)) = refused else { panic!("{:?}", refused.err()) };
    assert!(why.contains("database"), "{why}");
}

#[tokio::test]
async fn a_server_of_another_version_is_told_so() {
    let (first, member) = alone().await;
    let stream = TcpStream::connect(first.address()).await.unwrap();
    let connector = tls(&member).connector(key(1).public()).unwrap();
    let mut wire = connector.connect(keys::no_name().unwrap(), stream).await.unwrap();
    let mut hello = VOTES_OUT.hello(CHAIN);
    hello[4] += 1;
    wire.write_all(&hello).await.unwrap();
    assert_eq!(wire.read_u8().await.unwrap(), greeting::Answer::OtherVersion as u8);
    ended(wire).await;
}

#[tokio::test]
async fn a_program_that_speaks_no_tls_is_sent_away() {
    let (first, member) = alone().await;
    let mut stream = TcpStream::connect(first.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    ended(stream).await;
    assert!(dials(&member, CHAIN, VOTES_OUT, &first).await.is_ok());
}

#[tokio::test]
async fn whoever_says_nothing_is_sent_away() {
    let (first, member) = alone().await;
    let silent = TcpStream::connect(first.address()).await.unwrap();
    let stream = TcpStream::connect(first.address()).await.unwrap();
    let connector = tls(&member).connector(key(1).public()).unwrap();
    let greeted = connector.connect(keys::no_name().unwrap(), stream).await.unwrap();
    tokio::join!(ended(silent), ended(greeted));
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_no_member_out() {
    let (first, member) = alone().await;
    let mut crowd = JoinSet::new();
    for _ in 0..4 * STRANGERS {
        crowd.spawn(TcpStream::connect(first.address()));
    }
    let crowd = crowd.join_all().await;
    assert!(dials(&member, CHAIN, VOTES_OUT, &first).await.is_ok());
    // The oldest have given way, as soon as their tasks have heard of it.
    for _ in 0..8 * STRANGERS {
        tokio::task::yield_now().await;
    }
    let silent = crowd.into_iter().flatten().map(|stream| stream.into_std().unwrap());
    let is_open = |stream: &std::net::TcpStream| stream.peek(&mut [0]).is_err();
    let open = silent.filter(is_open).count();
    assert!(open <= 2 * STRANGERS, "{open} of them are kept");
}

async fn misbehaves(bytes: &'static [u8], kind: Kind) {
    let (a, b, liar) = (key(1), key(2), key(3));
    let mut first = Server::start(&a, CHAIN, vec![peer(&b, None), peer(&liar, None)]).await;
    let second = Server::start(&b, CHAIN, vec![peer(&a, Some(first.address()))]).await;
    first.is(&b, true).await;
    let way = Way { kind, direction: Direction::Outgoing };
    let mut wire = dials(&liar, CHAIN, way, &first).await.unwrap();
    wire.write_all(bytes).await.unwrap();
    wire.flush().await.unwrap();
    ended(wire).await;
    let again = dials(&liar, CHAIN, way, &first).await;
    assert!(matches!(again, Err(Refused::Broken(_))), "it is kept out: {:?}", again.err());
    second.transport.send(&Recipient::Members, &vote(4));
    assert_eq!(first.hears(Kind::Votes).await, (b.public(), vote(4)));
}

#[tokio::test]
async fn garbage_costs_the_member_that_sends_it_its_connections_and_nobody_else() {
    misbehaves(&[3, 0, 0, 0, 0xff, 0xff, 0xff], Kind::Votes).await;
}

#[tokio::test]
async fn a_frame_that_is_too_long_costs_the_same_before_it_is_there() {
    misbehaves(&[0xff, 0xff, 0xff, 0xff], Kind::Blocks).await;
}

#[tokio::test]
async fn a_word_on_a_connection_that_others_write_to_costs_the_same() {
    let (first, member) = alone().await;
    let theirs = Way { kind: Kind::Votes, direction: Direction::Incoming };
    let mut wire = dials(&member, CHAIN, theirs, &first).await.unwrap();
    wire.write_all(&[0; 4]).await.unwrap();
    wire.flush().await.unwrap();
    ended(wire).await;
    let again = dials(&member, CHAIN, VOTES_OUT, &first).await;
    assert!(matches!(again, Err(Refused::Broken(_))), "{:?}", again.err());
}

#[tokio::test]
async fn the_newest_connection_of_a_kind_wins() {
    let (mut first, member) = alone().await;
    let older = dials(&member, CHAIN, VOTES_OUT, &first).await.unwrap();
    let mut newer = dials(&member, CHAIN, VOTES_OUT, &first).await.unwrap();
    ended(older).await;
    newer.write_all(&frames::frame(&vote(5)).unwrap()).await.unwrap();
    newer.flush().await.unwrap();
    assert_eq!(first.hears(Kind::Votes).await, (member.public(), vote(5)));
}

#[tokio::test]
async fn a_message_in_small_pieces_and_empty_ones_between_are_read() {
    let (mut first, member) = alone().await;
    let mut wire = dials(&member, CHAIN, BLOCKS_OUT, &first).await.unwrap();
    let envelopes = Message::Envelopes(Vec::new());
    let frame = frames::frame(&envelopes).unwrap();
    for byte in [&[0; 4], &frame[..], &[0; 4], &frame[..]].concat() {
        wire.write_all(&[byte]).await.unwrap();
        wire.flush().await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(first.hears(Kind::Blocks).await, (member.public(), envelopes.clone()));
    }
}

#[tokio::test]
async fn two_that_dial_each_other_are_connected_and_stay_so() {
    let (a, b) = (key(1), key(2));
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut first = Server::start(&a, CHAIN, vec![peer(&b, Some(at))]).await;
    let known = vec![peer(&a, Some(first.address()))];
    let mut second = Server::listen(at, &b, CHAIN, known.clone()).await;
    first.is(&b, true).await;
    second.is(&a, true).await;
    second.transport.stop().await;
    first.is(&b, false).await;
    let mut again = Server::listen(at, &b, CHAIN, known).await;
    first.is(&b, true).await;
    again.is(&a, true).await;
    first.transport.send(&Recipient::Members, &vote(3));
    assert_eq!(again.hears(Kind::Votes).await, (a.public(), vote(3)));
    assert!(again.news.try_recv().is_err(), "connected once, and no more news");
}

/// A network between a server and those who dial it here, which can be cut: then nothing gets
/// through, and nobody is told.
struct Cut {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Cut {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(pass_on(from, to, is_cut.clone()));
            }
        });
        Self { address, cut }
    }
}

async fn pass_on(from: TcpStream, to: SocketAddr, is_cut: watch::Receiver<bool>) {
    let _ = is_cut.clone().wait_for(|cut| !cut).await;
    let Ok(to) = TcpStream::connect(to).await else { return };
    let ((mut from_read, mut from_write), (mut to_read, mut to_write)) =
        (from.into_split(), to.into_split());
    tokio::join!(
        pass(&mut from_read, &mut to_write, is_cut.clone()),
        pass(&mut to_read, &mut from_write, is_cut),
    );
}

async fn pass(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut is_cut: watch::Receiver<bool>,
) {
    loop {
        let over = tokio::select! {
            over = copy(from, to) => Some(over),
            _ = is_cut.wait_for(|cut| *cut) => None,
        };
        if over.is_some() || is_cut.wait_for(|cut| !cut).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

#[tokio::test]
async fn a_cut_is_noticed_by_both_sides_and_healed() {
    let (a, b) = (key(1), key(2));
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to_second = Cut::before(at).await;
    let mut first = Server::start(&a, CHAIN, vec![peer(&b, Some(to_second.address))]).await;
    let to_first = Cut::before(first.address()).await;
    let mut second = Server::listen(at, &b, CHAIN, vec![peer(&a, Some(to_first.address))]).await;
    first.is(&b, true).await;
    second.is(&a, true).await;
    for cut in [&to_first.cut, &to_second.cut] {
        cut.send_replace(true);
    }
    first.is(&b, false).await;
    second.is(&a, false).await;
    for cut in [&to_first.cut, &to_second.cut] {
        cut.send_replace(false);
    }
    first.is(&b, true).await;
    second.is(&a, true).await;
    first.transport.send(&Recipient::Members, &vote(9));
    assert_eq!(second.hears(Kind::Votes).await, (a.public(), vote(9)));
}

#[tokio::test]
async fn a_cut_in_one_direction_is_noticed_by_both_sides() {
    let (a, b) = (key(1), key(2));
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to_second = Cut::before(at).await;
    let mut first = Server::start(&a, CHAIN, vec![peer(&b, Some(to_second.address))]).await;
    let known = vec![peer(&a, Some(first.address()))];
    let mut second = Server::listen(at, &b, CHAIN, known).await;
    first.is(&b, true).await;
    second.is(&a, true).await;
    to_second.cut.send_replace(true);
    second.is(&a, false).await;
    first.is(&b, false).await;
}
