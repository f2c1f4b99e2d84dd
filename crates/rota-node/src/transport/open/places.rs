//! The places among a server's neighbours: how many there are, for whom, and who has to go when
//! there are none left.
//!
//! ```text
//!   8 outbound: we chose and dialled them, each in another network group where that can be had;
//!               nobody who dials us can take one of these
//!  24 inbound:  they dialled us; a newcomer may take the place of one that nothing speaks for
//! ```
//! Whoever surrounds a server with its own (an eclipse) decides what it sees of the chain. With
//! this an attacker must be the one that is dialled, eight times, in several groups. Which inbound
//! neighbour goes is decided as in Bitcoin Core (`SelectNodeToEvict` in `src/node/eviction.cpp`):
//! some are kept for each of several properties that an attacker cannot have all at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Values;
use std::hash::{BuildHasher, RandomState};

use libp2p::swarm::ConnectionId;
use rota_core::types::NodeId;
use tokio::time::Instant;

use super::groups::Group;

/// So many neighbours are chosen and dialled by ourselves: Bitcoin's number. An attacker that has
/// half of all known addresses then has all eight with a probability of 1/256.
pub const OUTBOUND: usize = 8;

/// So many more may dial us. With the above: 32, each of which can make this server hold some
/// megabytes (`queues::OPEN_OUTBOX_BYTES`, and the message that is being read).
pub const INBOUND: usize = 24;

/// Of one network group, both ways together.
pub const PER_GROUP: usize = 4;

/// Of one group, outbound, where addresses of other groups are known ...
pub const OUTBOUND_PER_GROUP: usize = 1;

/// ... and where none are, so that servers of one provider find each other: then still only a
/// quarter of them.
pub const OUTBOUND_PER_GROUP_AT_NEED: usize = 2;

/// So many inbound neighbours are kept for their groups, one for each: which groups, is drawn with
/// a secret, so nobody can choose a network to be among them.
const KEPT_FOR_GROUP: usize = 4;

/// So many are kept for having been first with a new head lately: that has cost work.
const KEPT_FOR_NEWS: usize = 4;

/// One of these of the rest is kept for having stayed the longest: to get there costs time.
const KEPT_FOR_TIME: usize = 2;

/// A neighbour, as far as its place goes.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// By which connection.
    pub connection: ConnectionId,
    /// Where it is.
    pub group: Group,
    /// Whether we dialled.
    pub outbound: bool,
    /// Since when.
    pub since: Instant,
    /// When it last was the first to tell of a new head.
    pub news: Option<Instant>,
}

/// Who has which place.
#[derive(Debug, Default)]
pub struct Places {
    seats: BTreeMap<NodeId, Seat>,
    secret: RandomState,
}

/// There is no place, and nobody who has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// Its group has all that it gets.
    Group,
    /// All others have more that speaks for them.
    Full,
}

impl Places {
    /// Whose place is whose.
    pub fn get(&self, key: &NodeId) -> Option<&Seat> {
        self.seats.get(key)
    }

    /// All of them.
    pub fn seats(&self) -> Values<'_, NodeId, Seat> {
        self.seats.values()
    }

    /// Gives a place; the other functions say whether there is one.
    pub fn take(&mut self, key: NodeId, seat: Seat) -> Option<Seat> {
        self.seats.insert(key, seat)
    }

    /// A place is free again.
    pub fn leave(&mut self, key: &NodeId) {
        self.seats.remove(key);
    }

    /// A neighbour was the first to tell of a new head.
    pub fn told_news(&mut self, key: &NodeId, now: Instant) {
        if let Some(seat) = self.seats.get_mut(key) {
            seat.news = Some(now);
        }
    }

    /// How many we dialled.
    pub fn outbound(&self) -> usize {
        self.seats.values().filter(|seat| seat.outbound).count()
    }

    /// Whether a peer of this group may be dialled, with so many outbound in a group, beside those
    /// that are being dialled.
    pub fn may_dial(&self, group: Group, per_group: usize, dialling: &[Group]) -> bool {
        let mine = |seat: &&Seat| seat.group == group;
        let soon = dialling.iter().filter(|other| **other == group).count();
        let outbound = self.seats.values().filter(|seat| seat.outbound).filter(mine).count();
        self.outbound() + dialling.len() < OUTBOUND
            && outbound + soon < per_group
            && self.seats.values().filter(mine).count() + soon < PER_GROUP
    }

    /// Whether somebody who dials us gets a place, and who has to go for it.
    pub fn newcomer(
        &self,
        key: &NodeId,
        group: Group,
        per_group: usize,
    ) -> Result<Option<NodeId>, NoPlace> {
        let others: Vec<(&NodeId, &Seat)> =
            self.seats.iter().filter(|(other, _)| *other != key).collect();
        let of_group = |group: Group| others.iter().filter(|(_, seat)| seat.group == group).count();
        if of_group(group) >= per_group {
            return Err(NoPlace::Group);
        }
        let inbound: Vec<_> = others.iter().filter(|(_, seat)| !seat.outbound).copied().collect();
        if inbound.len() < INBOUND {
            return Ok(None);
        }
        let (victim, seat) = self.weakest(inbound).ok_or(NoPlace::Full)?;
        // A group's only neighbour does not go for a second one of another group.
        if of_group(seat.group) <= of_group(group) {
            return Err(NoPlace::Full);
        }
        Ok(Some(*victim))
    }

    /// Of those for whom nothing speaks, the youngest of the largest group.
    fn weakest<'a>(
        &self,
        mut seats: Vec<(&'a NodeId, &'a Seat)>,
    ) -> Option<(&'a NodeId, &'a Seat)> {
        let mut kept: Vec<Group> = Vec::new();
        seats.sort_by_key(|(_, seat)| (self.secret.hash_one(seat.group), seat.since));
        seats.retain(|(_, seat)| {
            let keep = kept.len() < KEPT_FOR_GROUP && !kept.contains(&seat.group);
            if keep {
                kept.push(seat.group);
            }
            !keep
        });
        seats.sort_by_key(|(_, seat)| std::cmp::Reverse(seat.news));
        let news = seats.iter().take_while(|(_, seat)| seat.news.is_some()).count();
        seats.drain(..news.min(KEPT_FOR_NEWS));
        seats.sort_by_key(|(_, seat)| seat.since);
        seats.drain(..seats.len() / KEPT_FOR_TIME);
        let size = |group: Group| seats.iter().filter(|(_, seat)| seat.group == group).count();
        seats.iter().max_by_key(|(_, seat)| (size(seat.group), seat.since)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        rota_core::types::PublicKey(bytes)
    }

    fn group(number: usize) -> Group {
        Group::V4(u16::try_from(number).unwrap().to_be_bytes())
    }

    /// Inbound neighbours, one second after the other, in these groups.
    fn inbound(groups: impl IntoIterator<Item = usize>) -> Places {
        let start = Instant::now();
        let mut places = Places::default();
        for (number, of) in groups.into_iter().enumerate() {
            let seat = Seat {
                connection: ConnectionId::new_unchecked(number),
                group: group(of),
                outbound: false,
                since: start + Duration::from_secs(u64::try_from(number).unwrap()),
                news: None,
            };
            places.take(key(number), seat);
        }
        places
    }

    const STRANGER: usize = 1_000;

    #[test]
    fn a_group_gets_no_more_than_its_places() {
        let places = inbound([7; PER_GROUP]);
        let asked = |of| places.newcomer(&key(STRANGER), group(of), PER_GROUP);
        assert_eq!(asked(7), Err(NoPlace::Group));
        assert_eq!(asked(8), Ok(None));
        // Who has a place already does not count against itself.
        assert_eq!(places.newcomer(&key(0), group(7), PER_GROUP), Ok(None));
    }

    #[test]
    fn who_has_to_go_is_of_the_largest_group_and_young() {
        // 20 groups of one, then one of four.
        let places = inbound((0..INBOUND - 4).chain([99; 4]));
        let victim = places.newcomer(&key(STRANGER), group(500), PER_GROUP).unwrap().unwrap();
        assert_eq!(places.get(&victim).unwrap().group, group(99));
        assert_eq!(victim, key(INBOUND - 1));
    }

    #[test]
    fn nobody_alone_in_its_group_goes_for_one_of_a_group_that_is_there() {
        let places = inbound(0..INBOUND);
        assert_eq!(places.newcomer(&key(STRANGER), group(0), PER_GROUP), Err(NoPlace::Full));
    }

    #[test]
    fn an_attacker_with_many_groups_does_not_push_out_the_old_the_useful_and_the_drawn() {
        let mut places = inbound(0..INBOUND);
        for (number, at) in [(20, 1), (21, 2), (22, 3), (23, 4)] {
            places.told_news(&key(number), Instant::now() + Duration::from_secs(at));
        }
        let start = Instant::now() + Duration::from_secs(1_000);
        for number in 0..200_usize {
            let newcomer = key(STRANGER + number);
            let of = group(STRANGER + number);
            let Ok(Some(victim)) = places.newcomer(&newcomer, of, PER_GROUP) else { continue };
            places.leave(&victim);
            let since = start + Duration::from_secs(u64::try_from(number).unwrap());
            let connection = ConnectionId::new_unchecked(STRANGER + number);
            let seat = Seat { connection, group: of, outbound: false, since, news: None };
            places.take(newcomer, seat);
        }
        let first: Vec<usize> =
            (0..INBOUND).filter(|number| places.get(&key(*number)).is_some()).collect();
        // Four by group, four by news, and half of the other sixteen; the four by group may change
        // with the groups that come, so they are not counted on.
        assert!(first.len() >= 8 + KEPT_FOR_NEWS, "{first:?}");
        assert!((20..24).all(|number| first.contains(&number)), "{first:?}");
        assert!((0..8).all(|number| first.contains(&number)), "{first:?}");
    }

    #[test]
    fn inbound_neighbours_never_take_outbound_places() {
        let mut places = inbound([]);
        for number in 0..OUTBOUND {
            assert!(places.may_dial(group(number), OUTBOUND_PER_GROUP, &[]));
            let seat = Seat {
                connection: ConnectionId::new_unchecked(number),
                group: group(number),
                outbound: true,
                since: Instant::now(),
                news: None,
            };
            places.take(key(number), seat);
            assert!(!places.may_dial(group(number), OUTBOUND_PER_GROUP, &[]));
        }
        assert!(!places.may_dial(group(99), OUTBOUND_PER_GROUP, &[]));
        for number in 0..200 {
            let newcomer = places.newcomer(&key(STRANGER + number), group(number), PER_GROUP);
            let Ok(victim) = newcomer else { continue };
            if let Some(victim) = victim {
                assert!(!places.get(&victim).unwrap().outbound);
                places.leave(&victim);
            }
            let seat = Seat {
                connection: ConnectionId::new_unchecked(STRANGER + number),
                group: group(number),
                outbound: false,
                since: Instant::now(),
                news: None,
            };
            places.take(key(STRANGER + number), seat);
            assert!(places.seats().count() <= OUTBOUND + INBOUND);
        }
        assert_eq!(places.outbound(), OUTBOUND);
    }

    #[test]
    fn those_that_are_being_dialled_count() {
        let places = inbound([1, 1, 1]);
        let dialling: Vec<Group> = (10..10 + OUTBOUND).map(group).collect();
        assert!(!places.may_dial(group(99), OUTBOUND_PER_GROUP, &dialling));
        assert!(!places.may_dial(group(10), OUTBOUND_PER_GROUP, &dialling[..1]));
        assert!(places.may_dial(group(10), OUTBOUND_PER_GROUP_AT_NEED, &dialling[..1]));
        assert!(places.may_dial(group(1), OUTBOUND_PER_GROUP, &[]));
        assert!(!places.may_dial(group(1), OUTBOUND_PER_GROUP_AT_NEED, &[group(1)]));
    }
}
