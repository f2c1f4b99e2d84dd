//! The addresses that a server knows of others, and which one to try next.
//!
//! Two kinds, as in Bitcoin's address book: *tried* ones, which answered when we dialled them, and
//! *heard* ones, of which somebody told. Half of the time one of each is tried, so that neither a
//! flood of heard addresses nor a stale file decides whom a server meets. Tried ones, and those of
//! neighbours that dialled us, are kept in `peers.json`: who restarts a server does not get to
//! introduce it to its neighbours anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rota_core::types::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::groups::{Group, Groups};

/// Addresses of either kind: some 200 KB.
pub const MOST_TRIED: usize = 256;
/// See [`MOST_TRIED`].
pub const MOST_HEARD: usize = 1_024;

/// Of those that dialled us, so many are written down, beside all that we reached ...
const MOST_MET: usize = 64;

/// ... so that in the file there are no more than these.
pub const MOST_KEPT: usize = MOST_TRIED + MOST_MET;

/// Of one network group, so that no network fills the book.
const TRIED_PER_GROUP: usize = 8;
/// See [`TRIED_PER_GROUP`].
const HEARD_PER_GROUP: usize = 16;

/// An address that does not answer is tried again after this time, then after twice as long, up to
/// the other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(1_800);

/// Doublings from one pause to the other.
const MOST_DOUBLINGS: u32 = 11;

/// After so many failures in a row a heard address is struck out; a tried one after
/// [`TRIED_FAILURES`]: some days.
const HEARD_FAILURES: u32 = 3;
/// See [`HEARD_FAILURES`].
const TRIED_FAILURES: u32 = 100;

/// An address, and how it went with it.
#[derive(Clone, Debug)]
struct Entry {
    at: SocketAddr,
    group: Group,
    tried: bool,
    failures: u32,
    next: Instant,
    /// When it last answered, or was a neighbour: seconds since 1970; 0: never.
    seen: u64,
}

/// An address as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Who answers there.
    pub key: NodeId,
    /// `IP:port` (UDP).
    pub address: SocketAddr,
    /// When it last did, or was a neighbour: seconds since 1970.
    pub seen: u64,
    /// Whether we dialled it; otherwise it dialled us, and this is where it says that it listens.
    pub tried: bool,
}

/// What is known.
#[derive(Debug)]
pub struct Book {
    groups: Groups,
    entries: BTreeMap<NodeId, Entry>,
    /// Whether the tried ones changed since they were last written down.
    changed: bool,
}

impl Book {
    /// Knows nobody.
    pub fn new(groups: Groups) -> Self {
        Self { groups, entries: BTreeMap::new(), changed: false }
    }

    /// What an earlier run found, and may be wrong by now.
    pub fn load(&mut self, kept: impl IntoIterator<Item = Kept>, now: Instant) {
        for Kept { key, address, seen, tried } in kept.into_iter().take(MOST_KEPT) {
            if self.heard(key, address, now) {
                match tried {
                    true => self.answered(key, address, seen, now),
                    false => self.met(&key, seen),
                }
            }
        }
        self.changed = false;
    }

    /// Somebody says that this server is there. True if that is news that is kept.
    pub fn heard(&mut self, key: NodeId, at: SocketAddr, now: Instant) -> bool {
        if !self.groups.is_sane(at) {
            return false;
        }
        let group = self.groups.of(at);
        if let Some(known) = self.entries.get(&key) {
            // Hearsay does not move somebody who answers where we know it to be.
            let doubtful = known.failures > 0 && !known.tried;
            if known.at == at || !doubtful {
                return false;
            }
        }
        self.entries.remove(&key);
        if !self.make_room(false, group) {
            return false;
        }
        let entry = Entry { at, group, tried: false, failures: 0, next: now, seen: 0 };
        self.entries.insert(key, entry);
        true
    }

    /// It is there: we dialled it and it showed its key. Whether it has a place for us is another
    /// question: see [`Book::welcomed`].
    pub fn answered(&mut self, key: NodeId, at: SocketAddr, seen: u64, now: Instant) {
        let group = self.groups.of(at);
        let known = self.entries.remove(&key);
        if known.as_ref().is_none_or(|known| !known.tried || known.group != group)
            && !self.make_room(true, group)
        {
            return;
        }
        let failures = known.map_or(0, |known| known.failures);
        let entry = Entry { at, group, tried: true, failures, next: now, seen };
        self.entries.insert(key, entry);
        self.changed = true;
    }

    /// It dialled us and is a neighbour now.
    pub fn met(&mut self, key: &NodeId, seen: u64) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.seen = seen;
            self.changed = true;
        }
    }

    /// It took us for a neighbour.
    pub fn welcomed(&mut self, key: &NodeId) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = 0;
        }
    }

    /// It did not answer, or somebody else did, or it has no place for us.
    pub fn failed(&mut self, key: &NodeId, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failures = entry.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(MOST_DOUBLINGS));
        entry.next = now + pause.min(LONGEST_PAUSE);
        let most = if entry.tried { TRIED_FAILURES } else { HEARD_FAILURES };
        if entry.failures >= most {
            self.forget(key);
        }
    }

    /// It is not dialled before then.
    pub fn not_before(&mut self, key: &NodeId, then: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.next = entry.next.max(then);
        }
    }

    /// It is none of ours, or not worth knowing.
    pub fn forget(&mut self, key: &NodeId) {
        if let Some(entry) = self.entries.remove(key) {
            self.changed |= entry.tried;
        }
    }

    /// Whether we ever reached it.
    pub fn is_tried(&self, key: &NodeId) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.tried)
    }

    /// Where it is.
    pub fn address(&self, key: &NodeId) -> Option<SocketAddr> {
        self.entries.get(key).map(|entry| entry.at)
    }

    /// How many are known, and how many of them answered.
    pub fn len(&self) -> (usize, usize) {
        let tried = self.entries.values().filter(|entry| entry.tried).count();
        (self.entries.len(), tried)
    }

    /// One to dial now: `draw` says which, and, by its lowest bit, of which kind if there are both.
    pub fn choose(
        &self,
        draw: u64,
        now: Instant,
        may: impl Fn(&NodeId, Group) -> bool,
    ) -> Option<(NodeId, SocketAddr)> {
        let due = |tried: bool| {
            let due = self.entries.iter().filter(move |(_, entry)| entry.tried == tried);
            due.filter(|(key, entry)| entry.next <= now && may(key, entry.group))
                .map(|(key, entry)| (*key, entry.at))
                .collect::<Vec<_>>()
        };
        let first = due(draw & 1 == 0);
        let chosen = if first.is_empty() { due(draw & 1 == 1) } else { first };
        let count = u64::try_from(chosen.len()).ok()?;
        let place = usize::try_from((draw >> 1).checked_rem(count)?).ok()?;
        chosen.get(place).copied()
    }

    /// One that never answered, to see whether it does.
    pub fn doubtful(
        &self,
        draw: u64,
        now: Instant,
        may: impl Fn(&NodeId, Group) -> bool,
    ) -> Option<(NodeId, SocketAddr)> {
        let is = |key: &NodeId, group| !self.is_tried(key) && may(key, group);
        self.choose(draw | 1, now, is)
    }

    /// What is to be written down, if that has changed.
    pub fn to_keep(&mut self) -> Option<Vec<Kept>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let kept = |(key, entry): (&NodeId, &Entry)| Kept {
            key: *key,
            address: entry.at,
            seen: entry.seen,
            tried: entry.tried,
        };
        let (tried, heard): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.tried || entry.seen > 0)
            .map(kept)
            .partition(|one| one.tried);
        let mut met = heard;
        met.sort_by_key(|one| std::cmp::Reverse(one.seen));
        met.truncate(MOST_MET);
        Some(tried.into_iter().chain(met).collect())
    }

    /// Room for one more of a kind and group. The worst of those that it competes with goes: which
    /// failed most, then which was not seen for the longest.
    fn make_room(&mut self, tried: bool, group: Group) -> bool {
        let (most, per_group) = match tried {
            true => (MOST_TRIED, TRIED_PER_GROUP),
            false => (MOST_HEARD, HEARD_PER_GROUP),
        };
        let of_kind = || self.entries.iter().filter(|(_, entry)| entry.tried == tried);
        let in_group = of_kind().filter(|(_, entry)| entry.group == group).count();
        let full = of_kind().count() >= most;
        if in_group < per_group && !full {
            return true;
        }
        let competes = |entry: &Entry| in_group < per_group || entry.group == group;
        let worst = of_kind()
            .filter(|(_, entry)| competes(entry))
            .max_by_key(|(key, entry)| (entry.failures, std::cmp::Reverse(entry.seen), **key))
            .map(|(key, entry)| (*key, entry.failures));
        // What has not failed is not given up for hearsay.
        match worst {
            Some((key, failures)) if tried || failures > 0 => {
                self.forget(&key);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn key(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        rota_core::types::PublicKey(bytes)
    }

    fn book() -> Book {
        Book::new(Groups::new("0.0.0.0".parse().unwrap()))
    }

    /// An address in a group of its own.
    fn apart(number: usize) -> SocketAddr {
        let [high, low] = u16::try_from(number + 0x0100).unwrap().to_be_bytes();
        at(&format!("{high}.{low}.1.1:7001"))
    }

    #[test]
    fn a_flood_of_hearsay_neither_grows_the_book_nor_pushes_out_who_answered() {
        let (mut book, now) = (book(), Instant::now());
        book.answered(key(1), at("8.8.8.8:1"), 5, now);
        for number in 100..20_000 {
            let [a, b, c, d] = u32::try_from(number * 65_537).unwrap().to_be_bytes();
            book.heard(key(number), at(&format!("{}.{b}.{c}.{d}:1", a % 200 + 1)), now);
        }
        let (all, tried) = book.len();
        assert!(all <= MOST_HEARD + 1 && tried == 1 && book.is_tried(&key(1)), "{all} {tried}");
    }

    #[test]
    fn one_network_does_not_fill_the_book() {
        let (mut book, now) = (book(), Instant::now());
        for number in 0..100 {
            book.heard(key(number), at(&format!("9.9.9.{number}:1")), now);
        }
        assert_eq!(book.len(), (HEARD_PER_GROUP, 0));
        for number in 200..300 {
            book.answered(key(number), at(&format!("9.9.1.{}:1", number - 200)), 1, now);
        }
        assert_eq!(book.len(), (HEARD_PER_GROUP + TRIED_PER_GROUP, TRIED_PER_GROUP));
    }

    #[test]
    fn hearsay_does_not_move_who_answers() {
        let (mut book, now) = (book(), Instant::now());
        book.answered(key(1), at("8.8.8.8:1"), 5, now);
        assert!(!book.heard(key(1), at("9.9.9.9:1"), now));
        book.heard(key(2), at("8.9.8.8:1"), now);
        assert!(!book.heard(key(2), at("9.9.9.9:1"), now));
        book.failed(&key(2), now);
        assert!(book.heard(key(2), at("9.9.9.9:1"), now));
        assert_eq!(book.address(&key(2)), Some(at("9.9.9.9:1")));
    }

    #[test]
    fn both_kinds_get_their_turn() {
        let (mut book, now) = (book(), Instant::now());
        book.answered(key(1), apart(1), 5, now);
        for number in 2..500 {
            book.heard(key(number), apart(number), now);
        }
        let chosen = |draw| book.choose(draw, now, |_, _| true).unwrap().0;
        assert_eq!(chosen(0), key(1));
        assert_ne!(chosen(1), key(1));
        assert!(book.doubtful(0, now, |_, _| true).unwrap().0 != key(1));
        assert!(book.choose(0, now, |_, _| false).is_none());
    }

    #[test]
    fn what_does_not_answer_is_tried_less_and_less_and_struck_out() {
        let (mut book, now) = (book(), Instant::now());
        book.heard(key(1), at("8.8.8.8:1"), now);
        book.failed(&key(1), now);
        assert!(book.choose(0, now, |_, _| true).is_none());
        assert!(book.choose(0, now + FIRST_PAUSE * 2, |_, _| true).is_some());
        book.failed(&key(1), now);
        assert!(book.choose(0, now + FIRST_PAUSE * 2, |_, _| true).is_none());
        book.failed(&key(1), now);
        assert_eq!(book.len(), (0, 0));
    }

    #[test]
    fn a_full_server_is_not_dialled_over_and_over() {
        let (mut book, now) = (book(), Instant::now());
        for _ in 0..5 {
            book.answered(key(1), at("8.8.8.8:1"), 5, now);
            book.failed(&key(1), now);
        }
        assert!(book.choose(0, now + FIRST_PAUSE * 31, |_, _| true).is_none());
        assert!(book.choose(0, now + FIRST_PAUSE * 32, |_, _| true).is_some());
        book.welcomed(&key(1));
        book.failed(&key(1), now);
        assert!(book.choose(0, now + FIRST_PAUSE * 2, |_, _| true).is_some());
    }

    #[test]
    fn what_is_kept_comes_back() {
        let (mut book, now) = (book(), Instant::now());
        book.answered(key(1), at("8.8.8.8:1"), 5, now);
        book.heard(key(2), at("8.9.8.8:1"), now);
        let kept = book.to_keep().unwrap();
        let [first, second] = [(1, "8.8.8.8:1", 5, true), (2, "8.9.8.8:1", 6, false)].map(
            |(number, text, seen, tried)| Kept { key: key(number), address: at(text), seen, tried },
        );
        assert_eq!(kept, std::slice::from_ref(&first));
        assert!(book.to_keep().is_none());
        book.met(&key(2), 6);
        let kept = book.to_keep().unwrap();
        assert_eq!(kept, [first, second]);
        let mut again = self::book();
        again.load(kept, now);
        assert!(again.is_tried(&key(1)) && again.len() == (2, 1));
        let local = Kept { key: key(3), address: at("10.0.0.1:1"), seen: 5, tried: true };
        again.load([local], now);
        assert_eq!(again.len(), (2, 1), "a local address in the file of a public server");
    }
}
