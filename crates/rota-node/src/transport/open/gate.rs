//! Who is let in where anybody may come: asked by libp2p before a handshake, and after it, before
//! any stream. The task beside it (`super`) gives and takes places; this only says no.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identity};
use rota_core::types::{NodeId, PublicKey};
use tokio::time::Instant;

use super::blame::Blame;
use super::groups::{Group, Groups};
use super::places::{NoPlace, PER_GROUP, Places};

/// Handshakes of one group at a time: of 64, so that one network
/// cannot have them all.
const HANDSHAKES_PER_GROUP: usize = 8;

/// What a connection that we dial is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A neighbour.
    Neighbour,
    /// To see whether the address is right; then it is closed.
    Feeler,
}

/// A connection that is being made by us.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// To whom, if that is known.
    pub key: Option<NodeId>,
    /// Its group.
    pub group: Group,
    /// For what.
    pub purpose: Purpose,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has no Ed25519 key.
    #[error("its key is not an Ed25519 key")]
    Key,
    /// It sent something invalid before, or its address did.
    #[error("it is kept out for a while")]
    KeptOut,
    /// No place for it.
    #[error("there is no place for it")]
    NoPlace,
    /// Too many of its network are at the door.
    #[error("too many handshakes from its network")]
    Handshakes,
    /// Kademlia wants to dial; we choose for ourselves.
    #[error("not dialled: heard only")]
    NotChosen,
    /// Not IP and UDP.
    #[error("not an address of ours")]
    Address,
}

/// What decides who is let in.
#[derive(Debug)]
pub struct Gate {
    /// How addresses are seen.
    pub groups: Groups,
    /// Who is kept out.
    pub blame: Blame,
    /// Who is in.
    pub places: Places,
    /// Whom we dial.
    pub dials: BTreeMap<ConnectionId, Dial>,
    /// Who is shaking hands.
    knocking: BTreeMap<ConnectionId, Group>,
}

impl Gate {
    /// Of a server that listens there.
    pub fn new(groups: Groups) -> Self {
        Self {
            groups,
            blame: Blame::new(groups),
            places: Places::default(),
            dials: BTreeMap::new(),
            knocking: BTreeMap::new(),
        }
    }

    /// Somebody knocks: nothing but the address is known.
    pub fn knock(&mut self, id: ConnectionId, from: &Multiaddr) -> Result<(), Refused> {
        let at = socket(from).ok_or(Refused::Address)?;
        if self.blame.shuns(at, Instant::now()) {
            return Err(Refused::KeptOut);
        }
        let group = self.groups.of(at);
        let waiting = self.knocking.values().filter(|other| **other == group).count();
        if waiting >= HANDSHAKES_PER_GROUP {
            return Err(Refused::Handshakes);
        }
        self.knocking.insert(id, group);
        Ok(())
    }

    /// It has shown its key.
    pub fn enter(&self, peer: &PeerId, from: &Multiaddr) -> Result<(), Refused> {
        let key = node_id(peer).ok_or(Refused::Key)?;
        let at = socket(from).ok_or(Refused::Address)?;
        self.may_enter(&key, at).map(drop)
    }

    /// Whether there is a place, and who has to go for it.
    pub fn may_enter(&self, key: &NodeId, at: SocketAddr) -> Result<Option<NodeId>, Refused> {
        let (group, now) = (self.groups.of(at), Instant::now());
        if self.blame.keeps_out(key, now) {
            return Err(Refused::KeptOut);
        }
        let most = if self.blame.distrusts(group, now) { 1 } else { PER_GROUP };
        let place = self.places.newcomer(key, group, most);
        place.map_err(|(NoPlace::Group | NoPlace::Full)| Refused::NoPlace)
    }

    /// Whether this connection is one that we chose to make.
    pub fn leave(&self, id: ConnectionId) -> Result<(), Refused> {
        if self.dials.contains_key(&id) { Ok(()) } else { Err(Refused::NotChosen) }
    }

    /// Somebody whom we dialled has shown its key.
    pub fn arrive(&self, id: ConnectionId, peer: &PeerId) -> Result<(), Refused> {
        let key = node_id(peer).ok_or(Refused::Key)?;
        self.leave(id)?;
        if self.blame.keeps_out(&key, Instant::now()) {
            return Err(Refused::KeptOut);
        }
        Ok(())
    }

    /// This handshake is over, one way or the other.
    pub fn settled(&mut self, id: ConnectionId) {
        self.knocking.remove(&id);
    }
}

/// The server behind a libp2p name: its Ed25519 key is in it (an identity multihash of the key's
/// protobuf form, peer-id specification). Other kinds of keys are not servers.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(PublicKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The UDP address in a libp2p address over QUIC.
pub fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    let Protocol::QuicV1 = parts.next()? else { return None };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Groups::new("0.0.0.0".parse().unwrap()))
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_tells_its_key_and_names_without_one_are_refused() {
        let key = rota_core::crypto::SecretKey::from_bytes([7; 32]).public();
        let peer = super::super::super::peer_id(&key).unwrap();
        assert_eq!(node_id(&peer), Some(key));
        // A hash of a larger key, as RSA keys have, tells no key.
        let hashed = [&[0x12, 32][..], &[9; 32]].concat();
        let rsa = PeerId::from_bytes(&hashed).unwrap();
        assert_eq!(node_id(&rsa), None);
        let from = address("/ip4/8.8.8.8/udp/1/quic-v1");
        assert_eq!(gate().enter(&rsa, &from), Err(Refused::Key));
        assert_eq!(gate().enter(&peer, &from), Ok(()));
    }

    #[test]
    fn addresses_other_than_quic_over_ip_are_none() {
        let good = address("/ip4/8.8.8.8/udp/7001/quic-v1");
        assert_eq!(socket(&good), Some("8.8.8.8:7001".parse().unwrap()));
        for bad in ["/ip4/8.8.8.8/tcp/1", "/dns/example.org/udp/1/quic-v1", "/ip4/8.8.8.8/udp/1"] {
            assert_eq!(socket(&address(bad)), None, "{bad}");
        }
    }

    #[test]
    fn one_network_does_not_get_all_handshakes() {
        let mut gate = gate();
        let mut knock = |number: usize, from: &str| {
            gate.knock(ConnectionId::new_unchecked(number), &address(from))
        };
        for number in 0..HANDSHAKES_PER_GROUP {
            assert_eq!(knock(number, "/ip4/8.8.8.8/udp/1/quic-v1"), Ok(()));
        }
        assert_eq!(knock(100, "/ip4/8.8.9.9/udp/1/quic-v1"), Err(Refused::Handshakes));
        assert_eq!(knock(101, "/ip4/8.9.9.9/udp/1/quic-v1"), Ok(()));
        gate.settled(ConnectionId::new_unchecked(0));
        let again =
            gate.knock(ConnectionId::new_unchecked(102), &address("/ip4/8.8.9.9/udp/1/quic-v1"));
        assert_eq!(again, Ok(()));
    }

    #[test]
    fn a_distrusted_network_gets_one_place() {
        let mut gate = gate();
        let key = |byte| rota_core::crypto::SecretKey::from_bytes([byte; 32]).public();
        let now = Instant::now();
        let at = |last: u8| SocketAddr::from(([8, 8, 8, last], 1));
        for bad in 1..=3 {
            gate.blame.punish(key(bad), at(bad), now);
        }
        assert_eq!(gate.may_enter(&key(9), at(9)), Ok(None));
        let seat = super::super::places::Seat {
            connection: ConnectionId::new_unchecked(1),
            group: gate.groups.of(at(9)),
            outbound: false,
            since: now,
            news: None,
        };
        gate.places.take(key(9), seat);
        assert_eq!(gate.may_enter(&key(10), at(10)), Err(Refused::NoPlace));
        assert_eq!(
            gate.may_enter(&key(1), SocketAddr::from(([9, 9, 9, 9], 1))),
            Err(Refused::KeptOut)
        );
    }
}
