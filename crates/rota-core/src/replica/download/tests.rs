//! Fetching a snapshot: what is believed, whom it is asked of, and what becomes of false pieces.

use super::*;
use crate::block::{Applied, Block, Body, Finality, Header, Kind, Turn};
use crate::crypto::SecretKey;
use crate::four_members::{genesis, key};
use crate::journal::Recovered;
use crate::message::CHUNK_BYTES;
use crate::replica::Input;
use crate::time::{Now, Time};
use crate::types::{BlockId, Epoch, MemberIndex, Slot, StateRoot};
use std::sync::Arc;

/// A follower that asks members for a snapshot.
struct Bench {
    replica: Replica,
    now: Now,
    outputs: Vec<Output>,
}

fn member(number: u16) -> NodeId {
    key(number).public()
}

fn piece(number: u8) -> Vec<u8> {
    vec![number; 10]
}

/// A snapshot of this height with so many pieces. Its proof is `verify`'s business.
fn offer(height: u64, pieces: u8) -> Offer {
    let applied = Applied { height: Height(height), root: StateRoot([1; 32]) };
    let body = Body { parent_certificate: None, envelopes: Vec::new() };
    let header = Header {
        epoch: Epoch(0),
        slot: Slot(height),
        height: Height(height),
        kind: Kind::Ordinary,
        parent: BlockId::default(),
        leader: MemberIndex(0),
        turn: Turn::Scheduled,
        time: Time(1),
        applied: Applied::default(),
        body: body.digest(),
    };
    Offer {
        applied,
        block: Arc::new(Block { header, body }),
        headers: Vec::new(),
        finality: Finality::Snapshot,
        bytes: u64::from(pieces) * CHUNK_BYTES as u64,
        chunks: (0..pieces).map(|number| chunk_digest(&piece(number))).collect(),
    }
}

impl Bench {
    fn new(distrusted: Vec<NodeId>) -> Self {
        let now = Now { instant: Instant(1_000_000), clock: Time(5) };
        let recovered = Recovered { distrusted, ..Recovered::default() };
        let own = SecretKey::from_bytes([99; 32]);
        let (replica, outputs) =
            Replica::new(&genesis(), own, recovered, Applied::default(), now).unwrap();
        Self { replica, now, outputs }
    }

    fn hear(&mut self, from: NodeId, message: Message) {
        let news = self.replica.step(self.now, Input::Message { from, message });
        self.outputs.extend(news);
    }

    /// It asks this member for blocks, which has a snapshot instead.
    fn offered(&mut self, from: NodeId, offer: Offer) {
        self.replica.send(Recipient::One(from), Message::Fetch(Fetch::FinalAfter(Height(0))));
        self.hear(from, Message::Offer(Box::new(offer)));
    }

    fn give(&mut self, from: NodeId, number: u8, bytes: Vec<u8>) {
        let chunk = Message::Chunk { height: Height(50), number: number.into(), bytes };
        self.hear(from, chunk);
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant.plus(time);
        let news = self.replica.step(self.now, Input::Woken);
        self.outputs.extend(news);
    }

    /// What it asked of whom since this was last called, and what else it did about it.
    fn said(&mut self) -> Vec<String> {
        let name = |node: NodeId| (0..4).find(|&number| member(number) == node).unwrap();
        let outputs = std::mem::take(&mut self.outputs);
        outputs
            .into_iter()
            .filter_map(|output| match output {
                Output::Send {
                    to: Recipient::One(to),
                    message: Message::Fetch(Fetch::Chunk { number, .. }),
                } => Some(format!("{number} of {}", name(to))),
                Output::Chunk { number, .. } => Some(format!("keeps {number}")),
                Output::Punish { peer, .. } => Some(format!("punishes {}", name(peer))),
                Output::Restore { from, .. } => Some(format!("restores {}'s", name(from))),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn pieces_are_asked_for_some_at_a_time_and_taken_over_when_all_are_here() {
    let mut bench = Bench::new(Vec::new());
    bench.offered(member(0), offer(50, 6));
    assert_eq!(bench.said(), ["0 of 0", "1 of 0", "2 of 0", "3 of 0"]);
    bench.pass(PACE.every * 8);
    assert_eq!(bench.said(), [""; 0], "four are on their way");
    for number in 0..6 {
        bench.give(member(0), number, piece(number));
        bench.give(member(0), number, piece(number));
    }
    let said = bench.said();
    assert_eq!(said.iter().filter(|line| line.starts_with("keeps")).count(), 6, "{said:?}");
    assert_eq!(said.last().unwrap(), "restores 0's");
}

#[test]
fn an_offer_that_was_not_asked_for_or_is_not_ahead_or_is_a_liars_is_not_taken() {
    let mut bench = Bench::new(vec![member(3)]);
    bench.replica.downloads.asked.clear();
    bench.hear(member(0), Message::Offer(Box::new(offer(50, 6))));
    bench.offered(member(0), offer(1, 6));
    bench.offered(member(3), offer(50, 6));
    assert_eq!(bench.said(), [""; 0]);
    bench.offered(member(0), offer(2, 6));
    assert_eq!(bench.said().len(), 4);
}

#[test]
fn a_false_piece_costs_its_sender_and_another_peer_with_the_same_is_asked() {
    let mut bench = Bench::new(Vec::new());
    bench.offered(member(0), offer(50, 4));
    bench.replica.downloads.asked.insert(member(1));
    bench.hear(member(1), Message::Offer(Box::new(offer(50, 4))));
    bench.give(member(0), 0, piece(0));
    bench.said();
    bench.give(member(0), 1, piece(9));
    assert_eq!(bench.said()[..1], ["punishes 0"]);
    bench.give(member(0), 2, piece(2));
    bench.pass(PACE.every * 8);
    let said = bench.said();
    assert!(said.contains(&"1 of 1".to_owned()) && !said.contains(&"keeps 2".into()), "{said:?}");
}

#[test]
fn a_peer_that_is_gone_is_given_up_and_another_offer_taken_then_only() {
    let mut bench = Bench::new(Vec::new());
    bench.offered(member(0), offer(50, 4));
    bench.said();
    let mut other = offer(50, 5);
    other.applied.height = Height(60);
    bench.replica.downloads.asked.insert(member(1));
    bench.hear(member(1), Message::Offer(Box::new(other.clone())));
    assert_eq!(bench.said(), [""; 0], "one at a time");
    bench.pass(PATIENCE);
    assert_eq!(bench.said().len(), 4, "the only source is asked again");
    bench.replica.downloads.asked.insert(member(1));
    bench.hear(member(1), Message::Offer(Box::new(other)));
    assert_eq!(bench.said(), ["0 of 1", "1 of 1", "2 of 1", "3 of 1"]);
}

#[test]
fn the_methods_questions_are_rare_while_a_snapshot_is_fetched() {
    let mut bench = Bench::new(Vec::new());
    bench.offered(member(0), offer(50, 4));
    let asks = |bench: &mut Bench| {
        bench.outputs.clear();
        for _ in 0..50 {
            bench.pass(Duration::from_millis(100));
            if let Some(number) = bench.replica.downloads.current.as_ref().map(|d| d.kept) {
                bench.give(member(0), u8::try_from(number % 3).unwrap(), piece(0));
            }
        }
        let fetches = bench.outputs.iter().filter(|output| {
            matches!(output, Output::Send { message: Message::Fetch(Fetch::FinalAfter(_)), .. })
        });
        fetches.count()
    };
    assert!(asks(&mut bench) <= 2);
}
