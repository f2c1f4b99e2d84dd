//! Following: whom it asks, what it believes, and when it says that it is up to date.

use super::*;
use crate::block::{Applied, Body, Certificate, Choice, Header, Kind, Turn};
use crate::four_members::{genesis, key};
use crate::time::Time;
use crate::types::{Epoch, MemberIndex};

/// A follower of four members, at a time that moves.
struct Bench {
    follow: Follow,
    now: Now,
    newest: Block,
}

impl Bench {
    fn new() -> Self {
        let genesis = genesis();
        let now = Now { instant: Instant(1_000_000), clock: Time(5) };
        let own = SecretKey::from_bytes([99; 32]);
        let members = genesis.check().unwrap();
        let follow = Follow::new(&genesis, members, own, Recovered::default(), now);
        Self { follow, now, newest: Block::genesis(&genesis) }
    }

    /// What it does, in words.
    fn event(&mut self, event: Event) -> Vec<String> {
        let said = |action: Action| match action {
            Action::Send { to: Recipient::One(to), message: Message::Fetch(fetch) } => {
                let member = (0..4).find(|&member| key(member).public() == to).unwrap();
                format!("asks {member} {fetch:?}")
            }
            Action::Persist(Record::Finalized { blocks, .. }) => format!("writes {}", blocks.len()),
            Action::Finalize { blocks, .. } => {
                format!("final {}", blocks.last().unwrap().header.height)
            }
            Action::Report(_) => "reports".into(),
            other => format!("{other:?}"),
        };
        self.follow.step(self.now, event).into_iter().map(said).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant.plus(time);
    }

    /// The next blocks of the chain, as a member sends them.
    fn blocks(&mut self, count: usize) -> FinalBlocks {
        let chain = self.follow.chain;
        let blocks: Vec<Arc<Block>> = (0..count)
            .map(|_| {
                let body = Body { parent_certificate: None, envelopes: Vec::new() };
                let parent = &self.newest;
                let header = Header {
                    epoch: Epoch(0),
                    slot: parent.header.slot.next(),
                    height: parent.header.height.next(),
                    kind: Kind::Ordinary,
                    parent: parent.id(chain),
                    leader: MemberIndex(0),
                    turn: Turn::Scheduled,
                    time: Time(9),
                    applied: Applied::default(),
                    body: body.digest(),
                };
                self.newest = Block { header, body };
                Arc::new(self.newest.clone())
            })
            .collect();
        let (slot, choice) = (self.newest.header.slot, Choice::Finalize(self.newest.id(chain)));
        let certificate = Certificate { epoch: Epoch(0), slot, choice, votes: Vec::new() };
        FinalBlocks { blocks, finality: Finality::Votes(certificate) }
    }

    fn answer(&mut self, from: NodeId, blocks: FinalBlocks) -> Vec<String> {
        self.event(Event::Message { from, message: Message::Final(blocks) })
    }
}

fn member(number: u16) -> NodeId {
    key(number).public()
}

#[test]
fn the_member_that_answers_is_asked_again_and_no_other() {
    let mut bench = Bench::new();
    assert_eq!(bench.event(Event::Connected(member(2))), ["asks 2 FinalAfter(Height(0))"]);
    assert_eq!(bench.event(Event::Connected(member(1))), [""; 0]);
    bench.pass(PACE);
    let one = bench.blocks(1);
    let said = bench.answer(member(2), one);
    assert_eq!(said, ["writes 1", "final 1", "asks 2 FinalAfter(Height(1))"]);
}

#[test]
fn questions_are_no_faster_than_members_answer() {
    let mut bench = Bench::new();
    bench.event(Event::Connected(member(2)));
    let one = bench.blocks(1);
    assert_eq!(bench.answer(member(2), one), ["writes 1", "final 1"]);
    assert_eq!(bench.follow.wake(), Some(bench.now.instant.plus(PACE)));
    bench.pass(PACE);
    assert_eq!(bench.event(Event::Timer), ["asks 2 FinalAfter(Height(1))"]);
}

#[test]
fn the_next_member_is_asked_when_no_answer_comes_each_time_with_more_patience() {
    let mut bench = Bench::new();
    bench.event(Event::Connected(member(1)));
    let mut patience = Vec::new();
    for _ in 0..6 {
        let until = bench.follow.wake().unwrap();
        patience.push(until.since(bench.now.instant).as_millis());
        bench.now.instant = until;
        assert!(bench.event(Event::Timer)[0].starts_with("asks"), "another one");
    }
    assert_eq!(patience, [300, 600, 1200, 2400, 4800, 4800]);
}

#[test]
fn it_is_live_when_news_comes_one_by_one_or_a_member_that_hears_it_has_none() {
    let mut bench = Bench::new();
    bench.event(Event::Start);
    bench.pass(Duration::from_secs(1));
    bench.event(Event::Timer);
    assert!(!bench.follow.is_live(), "nobody heard it");
    bench.event(Event::Connected(member(3)));
    let many = bench.blocks(50);
    bench.answer(member(3), many);
    assert!(!bench.follow.is_live(), "it was far behind");
    bench.event(Event::Applied(Applied { height: Height(50), ..Applied::default() }));
    bench.pass(PACE);
    bench.event(Event::Timer);
    let one = bench.blocks(1);
    bench.answer(member(3), one);
    assert!(bench.follow.is_live());
}

#[test]
fn only_a_members_word_counts_and_only_what_follows() {
    let mut bench = Bench::new();
    bench.event(Event::Connected(member(0)));
    let first = bench.blocks(1);
    let stranger = SecretKey::from_bytes([77; 32]).public();
    assert_eq!(bench.answer(stranger, first.clone()), [""; 0]);
    let second = bench.blocks(1);
    assert_eq!(bench.answer(member(0), second), ["reports"]);
    let mut leap = Block::clone(&first.blocks[0]);
    leap.header.height = Height(6);
    let leap = FinalBlocks { blocks: vec![Arc::new(leap)], ..first.clone() };
    assert_eq!(bench.answer(member(0), leap), ["reports"], "of a height that is not the next");
    let snapshot = FinalBlocks { finality: Finality::Snapshot, ..first.clone() };
    assert_eq!(bench.answer(member(0), snapshot), [""; 0]);
    assert_eq!(bench.answer(member(0), first)[..2], ["writes 1", "final 1"]);
}

#[test]
fn nothing_is_asked_for_that_cannot_be_executed_soon() {
    let mut bench = Bench::new();
    bench.event(Event::Connected(member(0)));
    let many = bench.blocks(65);
    bench.pass(PACE);
    assert_eq!(bench.answer(member(0), many), ["writes 65", "final 65"]);
    assert_eq!(bench.follow.wake(), None);
    let applied = Applied { height: Height(1), ..Applied::default() };
    assert_eq!(bench.event(Event::Applied(applied)), ["asks 0 FinalAfter(Height(65))"]);
}
