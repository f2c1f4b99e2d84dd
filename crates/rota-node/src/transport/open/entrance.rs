//! The addresses that the operator gave: `bootstrap` and `[[peers]]` in `server.toml`. They are
//! never struck out, and tried whenever places are free: as long as one of them is honest, nobody
//! keeps this server from the network for good.

use std::net::SocketAddr;
use std::time::Duration;

use rota_core::types::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::{Order, Peer};

/// More are not looked at: nobody writes that many by hand.
const MOST: usize = 64;

/// Of a name's addresses, so many are tried.
const MOST_ADDRESSES: usize = 8;

/// An entrance that does not answer is tried again after this time, then after twice as long, up to
/// the next two.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A server that has nobody else to ask does not wait longer than this.
const LONGEST_ALONE: Duration = Duration::from_secs(5);

/// One that has neighbours can wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Doublings from the first pause to the last.
const MOST_DOUBLINGS: u32 = 8;

/// One of them.
#[derive(Debug)]
struct Entrance {
    address: String,
    /// Who is to answer there, in the operator's words; or who did.
    key: Option<NodeId>,
    /// Whether the operator said so. Otherwise the server there may have another key tomorrow.
    given: bool,
    /// What its name meant when it was dialled last.
    dialled: Vec<SocketAddr>,
    tries: u32,
    next: Instant,
    /// It is this server itself.
    own: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Entrances(Vec<Entrance>);

impl Entrances {
    /// From the settings.
    pub fn new(bootstrap: Vec<String>, peers: Vec<Peer>, own: &NodeId, now: Instant) -> Self {
        let entrance = |address, key: Option<NodeId>| Entrance {
            address,
            key,
            given: key.is_some(),
            dialled: Vec::new(),
            tries: 0,
            next: now,
            own: false,
        };
        let known = peers.into_iter().filter(|peer| peer.key != *own && !peer.address.is_empty());
        let known = known.map(|peer| entrance(peer.address, Some(peer.key)));
        let unknown = bootstrap.into_iter().map(|address| entrance(address, None));
        Self(known.chain(unknown).take(MOST).collect())
    }

    /// Those to look up and dial now; each is due again later.
    pub fn due(
        &mut self,
        now: Instant,
        alone: bool,
        connected: impl Fn(&NodeId) -> bool,
    ) -> Vec<(usize, String)> {
        let longest = if alone { LONGEST_ALONE } else { LONGEST };
        let mut due = Vec::new();
        for (number, one) in self.0.iter_mut().enumerate() {
            let latest = now + longest;
            one.next = one.next.min(latest);
            if one.own || now < one.next || one.key.as_ref().is_some_and(&connected) {
                continue;
            }
            if !one.given {
                one.key = None;
            }
            let pause = FIRST_PAUSE.saturating_mul(1 << one.tries.min(MOST_DOUBLINGS));
            one.tries = one.tries.saturating_add(1);
            one.next = now + pause.min(longest);
            due.push((number, one.address.clone()));
        }
        due
    }

    /// Who answers there, if that is known.
    pub fn key(&self, number: usize) -> Option<NodeId> {
        self.0.get(number).and_then(|one| one.key)
    }

    /// These are being dialled for it.
    pub fn dialled(&mut self, number: usize, addresses: &[SocketAddr]) {
        if let Some(one) = self.0.get_mut(number) {
            one.dialled = addresses.iter().take(MOST_ADDRESSES).copied().collect();
        }
    }

    /// Somebody answers at this address.
    pub fn answered(&mut self, at: SocketAddr, key: NodeId) {
        for one in self.0.iter_mut().filter(|one| !one.given && one.dialled.contains(&at)) {
            one.key = Some(key);
        }
    }

    /// It took us for a neighbour: if it is lost, it is tried again at once.
    pub fn welcomed(&mut self, key: &NodeId, now: Instant) {
        for one in self.0.iter_mut().filter(|one| one.key == Some(*key)) {
            one.tries = 0;
            one.next = now;
        }
    }

    /// This server itself answers there.
    pub fn is_own(&mut self, at: Option<SocketAddr>) {
        for one in self.0.iter_mut().filter(|one| at.is_some_and(|at| one.dialled == [at])) {
            one.own = true;
        }
    }

    /// It is not tried before then.
    pub fn not_before(&mut self, key: &NodeId, then: Instant) {
        for one in self.0.iter_mut().filter(|one| one.key == Some(*key)) {
            one.next = one.next.max(then);
        }
    }
}

/// Finds an entrance's addresses and orders a dial. A name may mean another address tomorrow, so
/// this is done each time.
pub(in super::super) fn look_up(number: usize, address: String, orders: mpsc::Sender<Order>) {
    tokio::spawn(async move {
        match tokio::net::lookup_host(&address).await {
            Ok(found) => {
                let found = found.take(MOST_ADDRESSES).collect();
                let _ = orders.send(Order::DialEntrance(number, found)).await;
            }
            Err(error) => tracing::warn!(address, %error, "no such address"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> NodeId {
        rota_core::types::PublicKey([byte; 32])
    }

    #[test]
    fn entrances_are_tried_again_and_again_unless_they_are_connected() {
        let mut now = Instant::now();
        let names = ["a:1".to_owned(), "b:1".to_owned()];
        let mut entrances = Entrances::new(names.into(), Vec::new(), &key(9), now);
        let at: SocketAddr = "8.8.8.8:1".parse().unwrap();
        let nobody = |_: &NodeId| false;
        assert_eq!(entrances.due(now, true, nobody).len(), 2);
        assert!(entrances.due(now, true, nobody).is_empty());
        for _ in 0..100 {
            now += LONGEST_ALONE;
            assert_eq!(entrances.due(now, true, nobody).len(), 2);
        }
        entrances.dialled(0, &[at]);
        entrances.answered(at, key(1));
        entrances.welcomed(&key(1), now);
        assert_eq!(
            entrances.due(now + LONGEST, false, |it| *it == key(1)),
            [(1, "b:1".to_owned())]
        );
        // Lost again: at once, and no later than a lone server waits.
        assert_eq!(entrances.due(now + LONGEST * 2, true, nobody).len(), 2);
    }

    #[test]
    fn another_key_may_answer_tomorrow_unless_the_operator_named_one() {
        let now = Instant::now();
        let known = Peer { key: key(5), address: "a:1".into(), follows: false };
        let mut entrances = Entrances::new(vec!["b:1".into()], vec![known], &key(9), now);
        let at: SocketAddr = "8.8.8.8:1".parse().unwrap();
        for number in 0..2 {
            entrances.dialled(number, &[at]);
        }
        entrances.answered(at, key(1));
        assert_eq!((entrances.key(0), entrances.key(1)), (Some(key(5)), Some(key(1))));
        assert_eq!(entrances.due(now + LONGEST, true, |_| false).len(), 2);
        assert_eq!((entrances.key(0), entrances.key(1)), (Some(key(5)), None));
    }

    #[test]
    fn a_server_does_not_go_on_dialling_itself() {
        let now = Instant::now();
        let mut entrances = Entrances::new(vec!["a:1".into()], Vec::new(), &key(9), now);
        let at: SocketAddr = "8.8.8.8:1".parse().unwrap();
        entrances.dialled(0, &[at]);
        entrances.is_own(Some(at));
        assert!(entrances.due(now + LONGEST, true, |_| false).is_empty());
    }
}
