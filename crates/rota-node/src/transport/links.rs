//! The part of the transport that lives inside libp2p: who may connect, and the four streams of a
//! connection.
//!
//! ```text
//!   connection to a member    ours ── votes  ──►           each direction of each kind is
//!                             ours ── blocks ──►           one stream, opened by the side
//!                                  ◄── votes  ── theirs    that writes to it, for as long
//!                                  ◄── blocks ── theirs    as the connection lives
//! ```
//!
//! Whoever is not on the list is denied when its key is known and before any stream is accepted.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, swarm};

/// What travels on a stream: votes never wait behind a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Votes, certificates, and requests: all small.
    Votes,
    /// Blocks, envelopes, and answers: up to the largest message.
    Blocks,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Votes, Self::Blocks];

    /// Its name on the wire.
    pub fn protocol(self) -> StreamProtocol {
        match self {
            Self::Votes => StreamProtocol::new("/rota/votes/1"),
            Self::Blocks => StreamProtocol::new("/rota/blocks/1"),
        }
    }
}

/// Who writes to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We do.
    Outgoing,
    /// The peer does.
    Incoming,
}

/// What happened to a stream of a connection.
#[derive(Debug)]
pub enum StreamEvent {
    /// It is open.
    Opened(Kind, Direction, Stream),
    /// We could not open it: the connection is of no use.
    Failed(Kind),
}

/// Who asked to connect and is not on the list.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a member, or is cooling down")]
struct NotAllowed(PeerId);

/// The allow-list, and what the connections' streams report.
#[derive(Default)]
pub struct Links {
    allowed: BTreeSet<PeerId>,
    events: VecDeque<(PeerId, ConnectionId, StreamEvent)>,
}

impl Links {
    /// Only these may connect.
    pub fn new(allowed: impl IntoIterator<Item = PeerId>) -> Self {
        Self { allowed: allowed.into_iter().collect(), events: VecDeque::new() }
    }

    /// Lets a peer connect again.
    pub fn allow(&mut self, peer: PeerId) {
        self.allowed.insert(peer);
    }

    /// Lets a peer connect no more. Its connections are the caller's to close.
    pub fn deny(&mut self, peer: &PeerId) {
        self.allowed.remove(peer);
    }

    fn link(&self, peer: PeerId) -> Result<Link, ConnectionDenied> {
        if self.allowed.contains(&peer) {
            Ok(Link { to_open: Kind::ALL.into(), events: VecDeque::new() })
        } else {
            Err(ConnectionDenied::new(NotAllowed(peer)))
        }
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Link;
    type ToSwarm = (PeerId, ConnectionId, StreamEvent);

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.link(peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.link(peer)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.events.push_back((peer, connection, event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // No waker is kept: libp2p polls again after each call that can add an event.
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

/// One connection: opens its two outgoing streams, and reports each stream that is open.
pub struct Link {
    to_open: VecDeque<Kind>,
    events: VecDeque<StreamEvent>,
}

impl ConnectionHandler for Link {
    type FromBehaviour = Infallible;
    type ToBehaviour = StreamEvent;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Kind;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(Kind::ALL.into()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Kind, StreamEvent>> {
        if let Some(kind) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(Offer(vec![kind]), kind);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event)),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Kind>) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, kind),
                info: (),
            }) => StreamEvent::Opened(kind, Direction::Incoming, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, kind),
                ..
            }) => StreamEvent::Opened(kind, Direction::Outgoing, stream),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: kind, .. }) => {
                StreamEvent::Failed(kind)
            }
            _ => return,
        };
        self.events.push_back(event);
    }
}

/// The kinds of stream that one side offers; the plain stream is what both get.
pub struct Offer(Vec<Kind>);

/// A kind by its name on the wire.
#[derive(Clone)]
pub struct KindName(Kind, StreamProtocol);

impl AsRef<str> for KindName {
    fn as_ref(&self) -> &str {
        self.1.as_ref()
    }
}

impl UpgradeInfo for Offer {
    type Info = KindName;
    type InfoIter = std::vec::IntoIter<KindName>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names: Vec<_> = self.0.iter().map(|kind| KindName(*kind, kind.protocol())).collect();
        names.into_iter()
    }
}

impl InboundUpgrade<swarm::Stream> for Offer {
    type Output = (Stream, Kind);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: KindName) -> Self::Future {
        ready(Ok((stream, name.0)))
    }
}

impl OutboundUpgrade<swarm::Stream> for Offer {
    type Output = (Stream, Kind);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: KindName) -> Self::Future {
        ready(Ok((stream, name.0)))
    }
}
