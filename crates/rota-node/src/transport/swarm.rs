//! Step 5's ground where anybody may come: libp2p over QUIC, with discovery (Kademlia), limits, our
//! own links, and identify.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, connection_limits, identify, identity};
use rota_core::crypto::SecretKey;
use rota_core::types::ChainId;

use super::TransportError;
use super::links::{self, Links};
use super::open::discovery::Discovery;

/// A quiet connection sends a packet this often: twice between two servers, some 40 bytes each.
const KEEP_ALIVE: Duration = Duration::from_millis(800);

/// A connection on which nothing came for this long is dead: three keep-alives missed. A killed
/// process says no goodbye, and this is how soon others refuse writes for want of a quorum instead
/// of sending what may never be final. Much shorter, and a machine that is busy with a large
/// transaction for a second would be taken for dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that no stream was opened on for this long is closed.
const NO_STREAMS: Duration = Duration::from_secs(6);

/// A connection is made within this time or tried again: one round trip and two signatures, and one
/// lost packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Strangers that knock at the same time; their keys are checked before anything else.
const MAX_HANDSHAKES: u32 = 64;

/// The connection in use, the one that replaces it, and old ones that are closing.
const MAX_CONNECTIONS_PER_PEER: u32 = 4;

/// Streams that a peer may open on a connection: the two it needs for us, and those for what
/// identify and Kademlia say.
const MAX_STREAMS: u32 = 32;

/// A connection makes us hold so many bytes that were not read yet, at most: 32 neighbours fill
/// 128 MB. On a path of 100 ms it still allows 40 MB a second.
const WINDOW: u32 = 4 << 20;

/// What libp2p does for us.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // Before `links`, which refuses what this one only listens to.
    pub(super) discovery: Discovery,
    limits: connection_limits::Behaviour,
    pub(super) links: Links,
    identify: identify::Behaviour,
}

fn keypair(key: &SecretKey) -> Result<identity::Keypair, TransportError> {
    identity::Keypair::ed25519_from_bytes(key.to_bytes())
        .map_err(|_| TransportError::Key(key.public()))
}

/// Among whoever has the same database.
pub(super) fn open_swarm(
    key: &SecretKey,
    chain: ChainId,
    links: Links,
) -> Result<Swarm<Behaviour>, TransportError> {
    let keypair = keypair(key)?;
    let (own, family) = (keypair.public(), links::family(chain));
    // Not where it listens: strangers need not know the addresses of a house.
    let told = identify::Config::new(format!("{family}/1"), own.clone())
        .with_agent_version(concat!("rota/", env!("CARGO_PKG_VERSION")).into())
        .with_hide_listen_addrs(true)
        .with_cache_size(0);
    let discovery = Discovery::new(own.to_peer_id(), links::name(&format!("{family}/kad/1")));
    let identify = identify::Behaviour::new(told);
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_HANDSHAKES))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER));
    let limits = connection_limits::Behaviour::new(limits);
    let behaviour = Behaviour { discovery, limits, links, identify };
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let built = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic_config(|mut quic| {
            quic.keep_alive_interval = KEEP_ALIVE;
            quic.max_idle_timeout = millis(IDLE_TIMEOUT);
            quic.handshake_timeout = HANDSHAKE_TIMEOUT;
            quic.max_concurrent_stream_limit = MAX_STREAMS;
            quic.max_stream_data = WINDOW;
            quic.max_connection_data = WINDOW;
            quic
        })
        .with_behaviour(|_| behaviour);
    let Ok(built) = built;
    let swarm = built.with_swarm_config(|config| {
        config
            .with_idle_connection_timeout(NO_STREAMS)
            .with_max_negotiating_inbound_streams(usize::try_from(MAX_STREAMS).unwrap_or(8))
    });
    Ok(swarm.build())
}

/// Starts listening; returns where, with the port that the system chose if `listen` says 0.
pub(super) async fn listening(
    swarm: &mut Swarm<Behaviour>,
    listen: SocketAddr,
) -> Result<SocketAddr, TransportError> {
    let failed = |error: String| TransportError::Listen(listen, error);
    swarm.listen_on(multiaddr(listen)).map_err(|error| failed(error.to_string()))?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let port = address.iter().find_map(|part| match part {
                    Protocol::Udp(port) => Some(port),
                    _ => None,
                });
                return Ok(SocketAddr::new(listen.ip(), port.unwrap_or(listen.port())));
            }
            SwarmEvent::ListenerError { error, .. } => return Err(failed(error.to_string())),
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                return Err(failed(error.to_string()));
            }
            _ => {}
        }
    }
}

/// libp2p's way to write an address over QUIC.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::QuicV1)
}
