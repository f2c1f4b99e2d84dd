//! Step 5 among members: a connection for each kind of message and each direction, over TCP and
//! TLS, and the task that sees to it that they are there.
//!
//! ```text
//!   outbox (votes)  ──► writer ══════ TCP ══════► reader ──► inbox (votes)
//!   outbox (blocks) ──► writer ══════ TCP ══════► reader ──► inbox (blocks)
//!   inbox (votes)   ◄── reader ◄═════ TCP ═══════ writer ◄── outbox (votes)
//!   inbox (blocks)  ◄── reader ◄═════ TCP ═══════ writer ◄── outbox (blocks)
//! ```
//!
//! Each side dials the two that it writes to. Where the other two do not come, since the peer has
//! no address of this server or no way to it, this one dials them as well. Of two connections for
//! the same purpose the one that its writer dialled stays, and then the newest: a peer that
//! connects again has lost the other.

mod greeting;
mod keys;
mod line;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rota_core::crypto::SecretKey;
use rota_core::error::Invalid;
use rota_core::types::{ChainId, NodeId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::links::Direction;
use super::{COOL_DOWN, Inboxes, Incoming, Order, Peer, Transport, TransportError};
use crate::porch::{self, Guest, Places, Porch};
use greeting::{Refused, Way, Wire};
use keys::{Allowed, Tls};
use line::Over;

/// After a failed dial the next one comes after this time, then twice as long, up to
/// [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// A server that comes back is connected at most this much later, if it does not dial itself.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// How long a server waits for a peer to dial those connections that the peer writes to, before it
/// dials them itself.
const CALL_BACK: Duration = Duration::from_millis(500);

/// A dial that is older than this is given up for a new one when the peer shows that it is there:
/// it may wait for an answer to a packet that was lost while the peer was not.
const STALE_DIAL: Duration = Duration::from_millis(300);

/// All four connections to a peer are there this long after the first, or all are made anew: one of
/// them may lead nowhere.
const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// Connections of those that have not proven their key yet: some 40 KB each. When there are more,
/// the oldest of the address with most of them gives way.
const STRANGERS: usize = 128;

/// Connections of one peer that are counted at a time: those in use, and those that replace them.
const PER_PEER: usize = 2 * Way::ALL.len();

/// What the tasks of connections tell the task that keeps them, and may wait.
const EVENTS: usize = 256;

/// The listener and what is known of it.
pub(super) struct Door {
    listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl Door {
    pub(super) async fn open(listen: SocketAddr) -> Result<Self, TransportError> {
        let failed = |error: io::Error| TransportError::Listen(listen, error.to_string());
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        porch::adjust(&listener);
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }
}

/// What the tasks of connections tell.
enum Event {
    /// A connection has been made.
    Made { peer: NodeId, way: Way, ours: bool, wire: Wire, guest: Option<Guest> },
    /// A dial came to nothing, or has told of what it made.
    Dialled(NodeId, u64),
    /// A connection in use came to its end.
    Over(NodeId, u64, Over),
}

/// What is known of one peer.
struct Member {
    address: String,
    lines: Vec<Line>,
    dials: Vec<Dial>,
    /// Whether all four connections are there.
    connected: bool,
    /// When to dial, if something is missing.
    dial_at: Instant,
    backoff: Duration,
    /// From when on those connections are dialled that the peer should have dialled.
    call_back: Instant,
    /// Until when the connections have to be complete.
    complete_by: Option<Instant>,
    /// Until when it is kept out.
    kept_out: Option<Instant>,
}

/// A connection in use.
struct Line {
    number: u64,
    way: Way,
    /// Whether its writer dialled it.
    regular: bool,
    task: AbortHandle,
    /// Its place among those that were accepted.
    _guest: Option<Guest>,
}

/// A connection that is being made.
struct Dial {
    number: u64,
    way: Way,
    since: Instant,
    task: AbortHandle,
}

impl Member {
    fn new(address: String) -> Self {
        let now = Instant::now();
        Self {
            address,
            lines: Vec::new(),
            dials: Vec::new(),
            connected: false,
            dial_at: now,
            backoff: MIN_BACKOFF,
            call_back: now,
            complete_by: None,
            kept_out: None,
        }
    }

    fn has(&self, way: Way) -> bool {
        self.lines.iter().any(|line| line.way == way)
    }

    /// Whether all connections in a direction are there.
    fn has_all(&self, direction: Direction) -> bool {
        Way::ALL.into_iter().filter(|way| way.direction == direction).all(|way| self.has(way))
    }

    /// When something is to be done about this peer that no event will tell.
    fn next(&self) -> Option<Instant> {
        if self.kept_out.is_some() {
            return self.kept_out;
        }
        [self.next_dial(), self.complete_by].into_iter().flatten().min()
    }

    /// When to dial.
    fn next_dial(&self) -> Option<Instant> {
        match self.has_all(Direction::Outgoing) {
            _ if self.address.is_empty() || self.kept_out.is_some() => None,
            false => Some(self.dial_at),
            true if self.has_all(Direction::Incoming) => None,
            true => Some(self.dial_at.max(self.call_back)),
        }
    }

    /// What is to be dialled now.
    fn to_dial(&self) -> Vec<Way> {
        let direction = match self.has_all(Direction::Outgoing) {
            true => Direction::Incoming,
            false => Direction::Outgoing,
        };
        let missing = Way::ALL.into_iter().filter(|way| way.direction == direction);
        let missing = missing.filter(|way| !self.has(*way));
        missing.filter(|way| self.dials.iter().all(|dial| dial.way != *way)).collect()
    }

    /// Sets the time of the next dial, and doubles the wait after it.
    fn dial_later(&mut self) {
        self.dial_at = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }

    /// The same after a loss. Those of four connections that are lost together count as one.
    fn dial_soon(&mut self) {
        if self.dial_at <= Instant::now() {
            self.dial_later();
        }
    }

    /// The peer is there: what is missing is dialled now.
    fn is_there(&mut self) {
        if self.has_all(Direction::Outgoing) {
            return;
        }
        let now = Instant::now();
        (self.dial_at, self.backoff) = (now, MIN_BACKOFF);
        let stale = |dial: &mut Dial| now.duration_since(dial.since) >= STALE_DIAL;
        for dial in self.dials.extract_if(.., stale) {
            dial.task.abort();
        }
    }
}

/// The task that keeps the connections.
pub(super) struct Network {
    tls: Tls,
    allowed: Allowed,
    chain: ChainId,
    door: Door,
    porch: Porch,
    members: BTreeMap<NodeId, Member>,
    transport: Transport,
    inboxes: Inboxes,
    events: mpsc::Sender<Event>,
    happened: mpsc::Receiver<Event>,
    /// The next connection's number.
    next: u64,
}

impl Network {
    pub(super) fn new(
        key: &SecretKey,
        chain: ChainId,
        door: Door,
        peers: Vec<Peer>,
        transport: Transport,
        inboxes: Inboxes,
    ) -> Result<Self, TransportError> {
        let allowed = Allowed::new(peers.iter().map(|peer| peer.key));
        let tls = Tls::new(key, allowed.clone()).map_err(|_| TransportError::Key(key.public()))?;
        let members: BTreeMap<_, _> =
            peers.into_iter().map(|peer| (peer.key, Member::new(peer.address))).collect();
        let admitted = members.len().saturating_mul(PER_PEER);
        let places = Places {
            all: STRANGERS.saturating_add(admitted),
            admitted,
            reserved: 0,
            per_address: admitted,
        };
        let (events, happened) = mpsc::channel(EVENTS);
        let porch = Porch::new(places);
        let next = 0;
        Ok(Self {
            tls,
            allowed,
            chain,
            door,
            porch,
            members,
            transport,
            inboxes,
            events,
            happened,
            next,
        })
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let next = self.members.values().filter_map(Member::next).min();
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (stream, from) = self.porch.accept(&self.door.listener) => {
                    self.accepted(stream, from);
                }
                Some(event) = self.happened.recv() => self.happened(event),
                order = orders.recv() => match order {
                    Some(Order::Punish(peer, why)) => self.punish(peer, &why),
                    Some(Order::Stop(done)) => {
                        self.close_all();
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    Some(_) => {}
                    None => return,
                },
                () = timer => self.due(),
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Somebody has connected: who it is, and what for, is found out in a task of its own.
    fn accepted(&self, stream: TcpStream, from: SocketAddr) {
        let (tls, chain, events) = (self.tls.clone(), self.chain, self.events.clone());
        self.porch.welcome(from.ip(), |guest| async move {
            match greeting::answer(&tls, stream, chain).await {
                Ok((peer, way, wire)) => {
                    let guest = Some(guest);
                    let made = Event::Made { peer, way, ours: false, wire, guest };
                    let _ = events.send(made).await;
                }
                Err(why) => tracing::debug!(%from, %why, "a connection was refused"),
            }
        });
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Made { peer, way, ours, wire, guest } => self.made(peer, way, ours, wire, guest),
            Event::Dialled(peer, number) => {
                if let Some(member) = self.members.get_mut(&peer) {
                    member.dials.retain(|dial| dial.number != number);
                }
            }
            Event::Over(peer, number, over) => self.over(peer, number, &over),
        }
    }

    fn made(&mut self, peer: NodeId, way: Way, ours: bool, wire: Wire, guest: Option<Guest>) {
        let number = self.number();
        let Some(member) = self.members.get_mut(&peer) else { return };
        if member.kept_out.is_some() {
            return;
        }
        let regular = ours == (way.direction == Direction::Outgoing);
        let old = member.lines.iter().position(|line| line.way == way);
        if let Some(old) = old {
            if member.lines.get(old).is_some_and(|line| line.regular && !regular) {
                return;
            }
            let old = member.lines.swap_remove(old);
            old.task.abort();
            closed(&self.transport, peer, old.way);
            lost(&self.transport, peer, member, "connected again");
        }
        if guest.as_ref().is_some_and(|guest| guest.admit(false).is_err()) {
            return;
        }
        let Some(task) = using(&self.transport, &self.inboxes, (peer, way, number), wire, {
            let events = self.events.clone();
            move |over| async move { drop(events.send(Event::Over(peer, number, over)).await) }
        }) else {
            return;
        };
        member.lines.push(Line { number, way, regular, task, _guest: guest });
        if !ours {
            member.is_there();
        }
        if member.has_all(Direction::Outgoing) && member.has_all(Direction::Incoming) {
            member.connected = true;
            member.complete_by = None;
            member.backoff = MIN_BACKOFF;
            tracing::info!(%peer, "connected");
            self.transport.observer.peer_is(&peer, true);
            let votes = self.inboxes.votes.queue.clone();
            tokio::spawn(async move { drop(votes.send(Incoming::Connected(peer)).await) });
            return;
        }
        let now = Instant::now();
        member.complete_by.get_or_insert(now + COMPLETE_WITHIN);
        if member.has_all(Direction::Outgoing) {
            member.call_back = now + CALL_BACK;
        }
    }

    fn over(&mut self, peer: NodeId, number: u64, over: &Over) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let Some(line) = member.lines.iter().position(|line| line.number == number) else { return };
        let line = member.lines.swap_remove(line);
        closed(&self.transport, peer, line.way);
        match over {
            Over::Invalid(why) => self.punish(peer, why),
            Over::Broken(error) => {
                lost(&self.transport, peer, member, &error.to_string());
                member.dial_soon();
            }
            // Whoever says nothing on one connection hears nothing on the others.
            Over::Silent => {
                lost(&self.transport, peer, member, "nothing came any more");
                disconnect(&self.transport, peer, member);
                member.dial_soon();
            }
        }
    }

    fn punish(&mut self, peer: NodeId, why: &Invalid) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if member.kept_out.is_some() {
            return;
        }
        tracing::warn!(%peer, %why, "sent something invalid; disconnected for {COOL_DOWN:?}");
        member.kept_out = Some(Instant::now() + COOL_DOWN);
        self.allowed.deny(&peer);
        lost(&self.transport, peer, member, "punished");
        disconnect(&self.transport, peer, member);
    }

    /// Does what no event asks for: dials, and lets peers in again.
    fn due(&mut self) {
        let now = Instant::now();
        for (peer, member) in &mut self.members {
            if member.kept_out.is_some_and(|until| until <= now) {
                member.kept_out = None;
                self.allowed.allow(*peer);
            }
            if member.complete_by.is_some_and(|until| until <= now) {
                tracing::debug!(%peer, "not all connections came about: once more");
                disconnect(&self.transport, *peer, member);
            }
            if member.next_dial().is_none_or(|at| at > now) {
                continue;
            }
            member.dial_later();
            for way in member.to_dial() {
                self.next = self.next.wrapping_add(1);
                let number = self.next;
                let (tls, events, chain) = (self.tls.clone(), self.events.clone(), self.chain);
                let task = dial(tls, *peer, member.address.clone(), chain, way, number, events);
                member.dials.push(Dial { number, way, since: now, task });
            }
        }
    }

    fn close_all(&mut self) {
        for (peer, member) in &mut self.members {
            disconnect(&self.transport, *peer, member);
        }
    }
}

/// Tells that not all connections to a peer are there any more.
fn lost(transport: &Transport, peer: NodeId, member: &mut Member, why: &str) {
    let now = Instant::now();
    member.call_back = now + CALL_BACK;
    member.complete_by.get_or_insert(now + COMPLETE_WITHIN);
    if std::mem::take(&mut member.connected) {
        tracing::info!(%peer, why, "disconnected");
        transport.observer.peer_is(&peer, false);
    }
}

/// Ends all that there is between this server and a peer.
fn disconnect(transport: &Transport, peer: NodeId, member: &mut Member) {
    member.complete_by = None;
    for line in member.lines.drain(..) {
        line.task.abort();
    }
    for dial in member.dials.drain(..) {
        dial.task.abort();
    }
    Way::ALL.into_iter().for_each(|way| closed(transport, peer, way));
}

/// What was to go over a connection goes nowhere.
fn closed(transport: &Transport, peer: NodeId, way: Way) {
    if way.direction == Direction::Outgoing
        && let Some(outbox) = transport.outbox(&peer, way.kind)
    {
        outbox.close();
    }
}

/// Makes a connection in a task of its own.
fn dial(
    tls: Tls,
    peer: NodeId,
    address: String,
    chain: ChainId,
    way: Way,
    number: u64,
    events: mpsc::Sender<Event>,
) -> AbortHandle {
    let task = tokio::spawn(async move {
        match greeting::dial(&tls, peer, &address, chain, way).await {
            Ok(wire) => {
                let made = Event::Made { peer, way, ours: true, wire, guest: None };
                let _ = events.send(made).await;
            }
            Err(Refused::Broken(error)) if error.kind() != io::ErrorKind::InvalidData => {
                tracing::debug!(%peer, address, %error, "dialling failed");
            }
            // Somebody has to see to it: another key, another database, or something else answers.
            Err(why) => tracing::warn!(%peer, address, %why, "dialled in vain"),
        }
        let _ = events.send(Event::Dialled(peer, number)).await;
    });
    task.abort_handle()
}

/// Starts reading from or writing to a connection.
fn using<F: Future<Output = ()> + Send>(
    transport: &Transport,
    inboxes: &Inboxes,
    (peer, way, number): (NodeId, Way, u64),
    wire: Wire,
    then: impl FnOnce(Over) -> F + Send + 'static,
) -> Option<AbortHandle> {
    let limits = transport.limits;
    let task = match way.direction {
        Direction::Incoming => {
            let inbox = inboxes.of(way.kind).clone();
            tokio::spawn(async move {
                then(line::read(wire, way.kind, limits, peer, &inbox).await).await;
            })
        }
        Direction::Outgoing => {
            let outbox = transport.outbox(&peer, way.kind)?;
            outbox.connect(number, wire);
            tokio::spawn(async move { then(line::write(&outbox, number).await).await })
        }
    };
    Some(task.abort_handle())
}
