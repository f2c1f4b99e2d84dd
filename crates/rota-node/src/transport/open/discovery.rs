//! Kademlia, used to hear of other servers and for nothing else.
//!
//! A walk asks for the servers nearest to a random key; neighbours answer with those they know.
//! libp2p's Kademlia would now dial all of them at once. Here it does not: what it wants to dial is
//! *heard* (`book`), and this server dials whom it chooses, when it chooses. So a peer that answers
//! with addresses of its own making can neither fill a server's places nor turn it against others.
//! No records are kept for anybody.

use std::num::NonZeroUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, BucketInserts, Mode, StoreInserts};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};

/// A walk that takes longer has met silent neighbours; the next one meets others.
const WALK_TIMEOUT: Duration = Duration::from_secs(10);

/// Neighbours asked at a time.
const PARALLEL: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// What was heard and is not in the book yet: more than one walk brings.
const MOST_HEARD: usize = 256;

/// Addresses of one server that are looked at.
const ADDRESSES_EACH: usize = 4;

type Kademlia = kad::Behaviour<MemoryStore>;

/// Kademlia that only listens.
pub struct Discovery {
    inner: Kademlia,
    heard: Vec<(PeerId, Vec<Multiaddr>)>,
}

impl Discovery {
    /// For one database: servers of others do not take part.
    pub fn new(own: PeerId, protocol: StreamProtocol) -> Self {
        let mut config = kad::Config::new(protocol);
        config
            .set_query_timeout(WALK_TIMEOUT)
            .set_parallelism(PARALLEL)
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_caching(kad::Caching::Disabled)
            .set_periodic_bootstrap_interval(None);
        let nothing = MemoryStoreConfig {
            max_records: 0,
            max_value_bytes: 0,
            max_providers_per_key: 0,
            max_provided_keys: 0,
        };
        let store = MemoryStore::with_config(own, nothing);
        let mut inner = Kademlia::with_config(own, store, config);
        inner.set_mode(Some(Mode::Server));
        Self { inner, heard: Vec::new() }
    }

    /// Asks neighbours who is near this key.
    pub fn walk(&mut self, near: [u8; 32]) {
        self.inner.get_closest_peers(near.to_vec());
    }

    /// This server is there: others may be told.
    pub fn recommend(&mut self, peer: &PeerId, at: Multiaddr) {
        self.inner.remove_peer(peer);
        self.inner.add_address(peer, at);
    }

    /// Others are not told of it any more.
    pub fn disown(&mut self, peer: &PeerId) {
        self.inner.remove_peer(peer);
    }

    /// What was heard since this was last asked.
    pub fn heard(&mut self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        std::mem::take(&mut self.heard)
    }
}

impl NetworkBehaviour for Discovery {
    type ConnectionHandler = <Kademlia as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut known = self.inner.handle_pending_outbound_connection(id, peer, addresses, role)?;
        known.truncate(ADDRESSES_EACH);
        if let Some(peer) = peer
            && self.heard.len() < MOST_HEARD
        {
            self.heard.push((peer, known));
        }
        // To dial or not is decided elsewhere (`gate`).
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}
