//! The part of the transport that lives inside libp2p, where anybody may come: who may connect, and
//! the four streams of a connection. What kinds of stream there are holds among members too.
//!
//! ```text
//!   connection to a server    ours ── votes  ──►           each direction of each kind is
//!                             ours ── blocks ──►           one stream, opened by the side
//!                                  ◄── votes  ── theirs    that writes to it, for as long
//!                                  ◄── blocks ── theirs    as the connection lives
//! ```
//!
//! The gate says who has no place; and the streams' names say which database they are for, so that
//! servers of different ones part at once.

use std::collections::VecDeque;
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
    NetworkBehaviour, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, swarm};
use rota_core::types::ChainId;

use super::open::gate::Gate;

/// So many hex digits of the chain's id are in names: no two databases have them in common by
/// chance, and by design only those that want to be refused a little later.
const NAME_DIGITS: usize = 16;

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

    fn word(self) -> &'static str {
        match self {
            Self::Votes => "votes",
            Self::Blocks => "blocks",
        }
    }
}

/// What our protocols are called on the wire.
#[derive(Clone, Debug)]
pub struct Names {
    votes: StreamProtocol,
    blocks: StreamProtocol,
}

impl Names {
    /// Of one database among many.
    pub fn new(chain: ChainId) -> Self {
        let family = family(chain);
        let [votes, blocks] = Kind::ALL.map(|kind| name(&format!("{family}/{}/1", kind.word())));
        Self { votes, blocks }
    }

    fn of(&self, kind: Kind) -> StreamProtocol {
        match kind {
            Kind::Votes => self.votes.clone(),
            Kind::Blocks => self.blocks.clone(),
        }
    }
}

/// What the names of all of a database's protocols begin with.
pub fn family(chain: ChainId) -> String {
    let id = chain.to_string();
    format!("/rota/{}", id.get(..NAME_DIGITS).unwrap_or(&id))
}

/// A protocol's name from what is known to begin with a slash.
pub fn name(name: &str) -> StreamProtocol {
    StreamProtocol::try_from_owned(name.into()).expect("our names begin with a slash")
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
    /// The other side does not know its name.
    Unknown(Kind),
    /// We could not open it for another reason: the connection is of no use.
    Failed(Kind),
}

/// The gate, and what the connections' streams report.
pub struct Links {
    gate: Gate,
    names: Names,
    events: VecDeque<(PeerId, ConnectionId, StreamEvent)>,
}

impl Links {
    /// Anybody may connect who has the same database, as far as there are places.
    pub fn open(chain: ChainId, gate: Gate) -> Self {
        Self { gate, names: Names::new(chain), events: VecDeque::new() }
    }

    /// Who is in.
    pub fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn link(&self) -> Link {
        let names = self.names.clone();
        Link { names, to_open: Kind::ALL.into(), events: VecDeque::new() }
    }
}

impl NetworkBehaviour for Links {
    type ConnectionHandler = Link;
    type ToSwarm = (PeerId, ConnectionId, StreamEvent);

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.gate.knock(id, from).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gate.enter(&peer, from).map(|()| self.link()).map_err(ConnectionDenied::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.gate.leave(id).map(|()| Vec::new()).map_err(ConnectionDenied::new)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gate.arrive(id, &peer).map(|()| self.link()).map_err(ConnectionDenied::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.gate.settled(event.connection_id),
            FromSwarm::ListenFailure(event) => self.gate.settled(event.connection_id),
            _ => {}
        }
    }

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
    names: Names,
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
        SubstreamProtocol::new(Offer(self.names.clone(), Kind::ALL.into()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Kind, StreamEvent>> {
        if let Some(kind) = self.to_open.pop_front() {
            let protocol = SubstreamProtocol::new(Offer(self.names.clone(), vec![kind]), kind);
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
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: kind,
                error: StreamUpgradeError::NegotiationFailed,
            }) => StreamEvent::Unknown(kind),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: kind, .. }) => {
                StreamEvent::Failed(kind)
            }
            _ => return,
        };
        self.events.push_back(event);
    }
}

/// The kinds of stream that one side offers; the plain stream is what both get.
pub struct Offer(Names, Vec<Kind>);

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
        let names: Vec<_> = self.1.iter().map(|kind| KindName(*kind, self.0.of(*kind))).collect();
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
