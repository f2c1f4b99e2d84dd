//! Whole servers of an open database: one that joins with nothing but the genesis and an address
//! has everything soon, one of another database learns nothing, and liars gain nothing.

mod support;

use std::path::Path;

use futures::{AsyncWriteExt, StreamExt};
use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identity};
use rota_core::block::Block;
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters, Pow};
use rota_core::message::Message;
use rota_core::types::{BlockId, ChainId, Digest, Height};
use rota_core::work::{HeaderHash, Retarget, WorkProof, check_run};
use rota_node::config::{PEERS_FILE, ServerConfig, create_home};
use rota_node::status::ServerStatus;
use rota_node::transport::frames;
use rota_node::transport::links::{Direction, Links, StreamEvent};
use rota_node::transport::open::gate::{Dial, Gate, Purpose};
use rota_node::transport::open::groups::Groups;
use rota_node::{RunOptions, Server};
use support::{LOOK, PATIENCE, count, key, write};

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Blocks as soon as they are looked for; the first server's operator may do everything.
fn genesis(name: &str) -> Genesis {
    Genesis {
        format: FORMAT,
        name: name.into(),
        time_ms: now_ms(),
        method: Method::Pow,
        seed: Digest([0; 32]),
        trusted_servers: false,
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        pow: Some(Pow {
            spacing_s: 1,
            bits: 0x207f_ffff,
            retarget: Retarget::Asert { halflife_s: 60 },
            depth: 3,
            reward: 1_000,
            fee_per_kb: 0,
        }),
        members: Vec::new(),
        administrators: vec![Administrator {
            key: Some(key(0).public()),
            ..Administrator::open("rota")
        }],
    }
}

async fn start(home: &Path, number: usize, genesis: &Genesis, bootstrap: &[&Server]) -> Server {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    let any = "127.0.0.1:0".parse().unwrap();
    let config = ServerConfig {
        open: true,
        mine_threads: u32::from(number == 0),
        mine_share: 5,
        bootstrap: bootstrap.iter().map(|server| server.peer.to_string()).collect(),
        ..ServerConfig::new(format!("server-{}", number + 1), any, any, any)
    };
    create_home(home, genesis, &key(number), &config).unwrap();
    Server::start(home, RunOptions::default()).await.unwrap()
}

async fn until(server: &Server, what: &str, so: impl Fn(&ServerStatus) -> bool) -> ServerStatus {
    let look = async {
        let mut again = tokio::time::interval(LOOK);
        loop {
            again.tick().await;
            let status = server.driver.status();
            if so(&status) {
                return status;
            }
        }
    };
    let looked = tokio::time::timeout(PATIENCE, look).await;
    looked.unwrap_or_else(|_| panic!("never {what}: {:#?}", server.driver.status()))
}

fn neighbours(status: &ServerStatus) -> usize {
    status.peers.iter().filter(|peer| peer.connected).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_with_one_address_has_everything_soon() {
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let genesis = genesis("open");
    let first = start(homes[0].path(), 0, &genesis, &[]).await;
    write(&first.driver, "CREATE TABLE t(a)").await.unwrap();
    let written = write(&first.driver, "INSERT INTO t VALUES (1), (2), (3)").await.unwrap();
    let second = start(homes[1].path(), 1, &genesis, &[&first]).await;
    let third = start(homes[2].path(), 2, &genesis, &[&first]).await;
    for server in [&first, &second, &third] {
        until(server, "met the two others", |status| neighbours(status) == 2).await;
    }
    for server in [&second, &third] {
        let reached =
            |status: &ServerStatus| status.roots.iter().any(|at| at.height == written.height.0);
        until(server, "caught up", reached).await;
        assert_eq!(count(&server.driver, written.height).await, 3);
    }
    // The one that was first goes away; the two others still have each other.
    first.stop().await;
    until(&second, "lost the first", |status| neighbours(status) == 1).await;
    // And a server that was stopped finds them by what it wrote down.
    third.stop().await;
    let known = std::fs::read_to_string(homes[2].path().join(PEERS_FILE)).unwrap();
    assert!(known.contains(&key(1).public().to_string()), "{known}");
    let again = Server::start(homes[2].path(), RunOptions::default()).await.unwrap();
    until(&again, "met the second again", |status| neighbours(status) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_database_stays_alone() {
    let homes: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let ours = genesis("open");
    let first = start(homes[0].path(), 0, &ours, &[]).await;
    let stranger = start(homes[1].path(), 1, &genesis("another"), &[&first]).await;
    let second = start(homes[2].path(), 2, &ours, &[&first]).await;
    until(&second, "met the first", |status| neighbours(status) == 1).await;
    until(&second, "has blocks", |status| status.height > 3).await;
    assert_eq!(neighbours(&stranger.driver.status()), 0);
    assert_eq!(neighbours(&first.driver.status()), 1);
    assert_eq!(stranger.driver.status().height, 0);
}

/// A proof that stands on the genesis and has the work that it says.
fn found(genesis: &Genesis, bits: u32, time_s: u64) -> WorkProof {
    let id = Block::genesis(genesis).id(genesis.chain_id());
    let [began, time] = [genesis.time_ms / 1_000, time_s].map(|s| u32::try_from(s).unwrap());
    let first = genesis.pow.as_ref().unwrap().bits;
    let root = WorkProof::new(HeaderHash::default(), id, began, first, 0).hash();
    let tried = (0..).map(|nonce| WorkProof::new(root, BlockId([7; 32]), time, bits, nonce));
    tried.into_iter().find(|proof| check_run(&[*proof]).is_ok()).unwrap()
}

/// A liar: sends this over a stream of its kind, and waits for what it gets for it.
async fn lie(number: u8, chain: ChainId, to: &Server, message: &Message) {
    let keypair = identity::Keypair::ed25519_from_bytes([number; 32]).unwrap();
    let links = Links::open(chain, Gate::new(Groups::new([127, 0, 0, 1].into())));
    let built = SwarmBuilder::with_existing_identity(keypair).with_tokio().with_quic();
    let mut swarm: Swarm<Links> = built.with_behaviour(|_| links).unwrap().build();
    let at: Multiaddr = Multiaddr::empty()
        .with(to.peer.ip().into())
        .with(Protocol::Udp(to.peer.port()))
        .with(Protocol::QuicV1);
    let options = DialOpts::unknown_peer_id().address(at).build();
    let gate = swarm.behaviour_mut().gate();
    let group = gate.groups.of(to.peer);
    gate.dials
        .insert(options.connection_id(), Dial { key: None, group, purpose: Purpose::Neighbour });
    swarm.dial(options).unwrap();
    let (frame, kind) = (frames::frame(message).unwrap(), frames::kind(message));
    let mut kept = Vec::new();
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour((_, _, StreamEvent::Opened(of, direction, mut stream))) => {
                if (of, direction) == (kind, Direction::Outgoing) {
                    let frame = frame.clone();
                    tokio::spawn(async move {
                        let _ = stream.write_all(&frame).await;
                        let _ = stream.flush().await;
                        // Kept open: it is the other side that is to end it.
                        std::future::pending::<()>().await;
                    });
                } else {
                    kept.push(stream);
                }
            }
            SwarmEvent::ConnectionClosed { .. } => return,
            SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_are_left_and_the_server_goes_on() {
    let homes: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let genesis = genesis("open");
    let first = start(homes[0].path(), 0, &genesis, &[]).await;
    let second = start(homes[1].path(), 1, &genesis, &[&first]).await;
    until(&second, "has blocks", |status| status.height > 0).await;
    let future = now_ms() / 1_000 + 100_000;
    let lies = [
        ("no work", Message::Proofs(vec![WorkProof([0xff; 80])])),
        ("a wrong target", Message::Proofs(vec![found(&genesis, 0x200f_ffff, now_ms() / 1_000)])),
        ("a time in the future", Message::Proofs(vec![found(&genesis, 0x207f_ffff, future)])),
        (
            "too large a piece",
            Message::Chunk { height: Height(1), number: 0, bytes: vec![0; 2 << 20] },
        ),
    ];
    for (number, (what, message)) in (100..).zip(&lies) {
        let told = lie(number, genesis.chain_id(), &first, message);
        let ended = tokio::time::timeout(PATIENCE, told).await;
        assert!(ended.is_ok(), "it cost nothing: {what}");
    }
    let height = first.driver.status().height;
    until(&second, "went on", |status| status.height > height).await;
    assert_eq!(neighbours(&first.driver.status()), 1);
}
