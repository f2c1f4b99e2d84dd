//! Who is kept out, and for how long: peers that sent what an honest server would not.
//!
//! The key pays, and since a new key costs nothing, so does the address that it came from; and a
//! network group with several such addresses gets fewer places (`places`). All of it is forgotten:
//! addresses change hands, and a server whose memory flipped a bit is a good one again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rota_core::types::NodeId;
use tokio::time::Instant;

use super::super::COOL_DOWN;
use super::groups::{Group, Groups};

/// Each further time costs twice as long, up to this: somebody who goes on is heard for a moment in
/// an hour.
const LONGEST: Duration = Duration::from_secs(3_600);

/// So long after the last of it, it never happened.
const FORGOTTEN: Duration = Duration::from_secs(6 * 3_600);

/// More keys, and more addresses, are not remembered: some 400 KB. Whoever fills this with keys has
/// paid an address for each few, and pushes out what would have been forgotten first.
const MOST_MARKS: usize = 4_096;

/// A group with so many addresses that misbehaved gets one place only.
const DISTRUST: usize = 3;

/// Doublings of the cool-down until it is longer than any.
const MOST_DOUBLINGS: u32 = 12;

/// What is held against a key or an address.
#[derive(Clone, Copy, Debug)]
struct Mark {
    times: u32,
    until: Instant,
    forgotten: Instant,
    group: Group,
}

/// What is held against whom.
#[derive(Debug)]
pub struct Blame {
    groups: Groups,
    keys: BTreeMap<NodeId, Mark>,
    addresses: BTreeMap<IpAddr, Mark>,
}

impl Blame {
    /// Nothing against anybody.
    pub fn new(groups: Groups) -> Self {
        Self { groups, keys: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// This peer sent something invalid from there. Returns how long it is kept out.
    pub fn punish(&mut self, key: NodeId, at: std::net::SocketAddr, now: Instant) -> Duration {
        let group = self.groups.of(at);
        if let Some(address) = self.groups.blamed(at) {
            mark(&mut self.addresses, address, group, now);
        }
        mark(&mut self.keys, key, group, now)
    }

    /// This peer is of no use for a while, and not to blame.
    pub fn avoid(&mut self, key: NodeId, at: std::net::SocketAddr, span: Duration, now: Instant) {
        let until = now + span;
        let group = self.groups.of(at);
        let fresh = Mark { times: 0, until, forgotten: until, group };
        let mark = self.keys.entry(key).or_insert(fresh);
        mark.until = mark.until.max(until);
        mark.forgotten = mark.forgotten.max(until);
        bound(&mut self.keys);
    }

    /// Whether this key is kept out.
    pub fn keeps_out(&self, key: &NodeId, now: Instant) -> bool {
        self.keys.get(key).is_some_and(|mark| now < mark.until)
    }

    /// Whether all that comes from this address is kept out.
    pub fn shuns(&self, at: std::net::SocketAddr, now: Instant) -> bool {
        let address = self.groups.blamed(at);
        let mark = address.and_then(|address| self.addresses.get(&address));
        mark.is_some_and(|mark| now < mark.until)
    }

    /// Whether so much came from this group that it gets one place only.
    pub fn distrusts(&self, group: Group, now: Instant) -> bool {
        let bad = |mark: &&Mark| mark.group == group && now < mark.forgotten;
        self.addresses.values().filter(bad).take(DISTRUST).count() == DISTRUST
    }

    /// Forgets what is long ago.
    pub fn forget(&mut self, now: Instant) {
        self.keys.retain(|_, mark| now < mark.forgotten);
        self.addresses.retain(|_, mark| now < mark.forgotten);
    }
}

fn mark<K: Ord + Copy>(
    marks: &mut BTreeMap<K, Mark>,
    who: K,
    group: Group,
    now: Instant,
) -> Duration {
    let times = match marks.get(&who) {
        Some(mark) if now < mark.forgotten => mark.times,
        _ => 0,
    };
    let span = COOL_DOWN.saturating_mul(1 << times.min(MOST_DOUBLINGS)).min(LONGEST);
    let until = now + span;
    let times = times.saturating_add(1);
    marks.insert(who, Mark { times, until, forgotten: until + FORGOTTEN, group });
    bound(marks);
    span
}

/// The one that would be forgotten first goes.
fn bound<K: Ord + Copy>(marks: &mut BTreeMap<K, Mark>) {
    if marks.len() > MOST_MARKS
        && let Some(first) =
            marks.iter().min_by_key(|(_, mark)| mark.forgotten).map(|(who, _)| *who)
    {
        marks.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn blame(listen: &str) -> Blame {
        Blame::new(Groups::new(listen.parse().unwrap()))
    }

    fn key(number: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        rota_core::types::PublicKey(bytes)
    }

    #[test]
    fn whoever_does_it_again_stays_out_twice_as_long_up_to_an_hour() {
        let (mut blame, now) = (blame("0.0.0.0"), Instant::now());
        let spans: Vec<u64> =
            (0..12).map(|_| blame.punish(key(1), at("8.8.8.8:1"), now).as_secs()).collect();
        assert_eq!(spans[..4], [10, 20, 40, 80]);
        assert_eq!(spans[9..], [3_600, 3_600, 3_600]);
        assert!(blame.keeps_out(&key(1), now + Duration::from_secs(3_599)));
        assert!(!blame.keeps_out(&key(1), now + Duration::from_secs(3_601)));
    }

    #[test]
    fn a_new_key_from_the_same_address_is_kept_out_too() {
        let (mut blame, now) = (blame("0.0.0.0"), Instant::now());
        blame.punish(key(1), at("8.8.8.8:1"), now);
        assert!(blame.shuns(at("8.8.8.8:2"), now) && !blame.shuns(at("8.8.8.9:1"), now));
        assert!(!blame.keeps_out(&key(2), now));
    }

    #[test]
    fn servers_of_one_machine_do_not_pay_for_each_other() {
        let (mut blame, now) = (blame("127.0.0.1"), Instant::now());
        blame.punish(key(1), at("127.0.0.1:1"), now);
        assert!(blame.keeps_out(&key(1), now) && !blame.shuns(at("127.0.0.1:1"), now));
    }

    #[test]
    fn a_group_is_distrusted_after_several_of_its_addresses_and_for_a_while() {
        let (mut blame, now) = (blame("0.0.0.0"), Instant::now());
        let group = Groups::new("0.0.0.0".parse().unwrap()).of(at("8.8.8.8:1"));
        for last in 1..=3 {
            assert!(!blame.distrusts(group, now));
            blame.punish(key(last), at(&format!("8.8.8.{last}:1")), now);
        }
        assert!(blame.distrusts(group, now));
        let later = now + COOL_DOWN + FORGOTTEN;
        assert!(!blame.distrusts(group, later));
        blame.forget(later);
        assert!(blame.keys.is_empty() && blame.addresses.is_empty());
    }

    #[test]
    fn marks_are_bounded() {
        let (mut blame, now) = (blame("127.0.0.1"), Instant::now());
        for number in 0..=u64::try_from(MOST_MARKS).unwrap() {
            blame.punish(key(number), at("127.0.0.1:1"), now + Duration::from_millis(number));
        }
        assert_eq!(blame.keys.len(), MOST_MARKS);
        assert!(!blame.keeps_out(&key(0), now) && blame.keeps_out(&key(1), now));
    }
}
