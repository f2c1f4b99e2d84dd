//! Protocol tests of one member: what it hears goes in, what it does comes out as text.
//!
//! Members are 0 to 3, the tested one is 2; `turn_length` is 4, so 0 leads slots 1 to 3, 1 leads 4
//! to 7, 2 leads 8 to 11. Blocks are named after their slot, with a letter where a slot has two.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::block::{Applied, Body, Header, Turn};
use crate::crypto::Signature;
use crate::four_members::{genesis, key};

const ME: u16 = 2;

/// One member under test, and names for the blocks around it.
struct Table {
    bft: Bft,
    now: Now,
    names: BTreeMap<BlockId, String>,
    blocks: BTreeMap<String, Arc<Block>>,
    records: Vec<Record>,
    /// Whether the replica has something for our blocks.
    pending: bool,
}

impl Table {
    fn new() -> Self {
        let now = Now { instant: Instant(1_000_000), clock: crate::time::Time(9) };
        let mut table = Self::with(Recovered::default(), now);
        table.event(Event::Start);
        table
    }

    fn with(recovered: Recovered, now: Now) -> Self {
        let genesis = genesis();
        let members = genesis.check().unwrap();
        let bft = Bft::new(&genesis, members, key(ME), recovered, now);
        let first = Arc::new(Block::genesis(&genesis));
        let names = BTreeMap::from([(first.id(genesis.chain_id()), "genesis".to_string())]);
        let blocks = BTreeMap::from([("genesis".to_string(), first)]);
        Self { bft, now, names, blocks, records: Vec::new(), pending: false }
    }

    /// Stops the member and starts it again from what it wrote down.
    fn restart(self) -> (Self, String) {
        let tail = self.records.clone();
        let mut again = Self::with(Recovered { tail, ..Recovered::default() }, self.now);
        again.names = self.names;
        again.blocks = self.blocks;
        let said = again.event(Event::Start);
        (again, said)
    }

    /// A block of `slot` on a named parent, carrying the parent's notarization by 0, 1 and 3.
    fn block(&mut self, name: &str, slot: u64, parent: &str) -> Arc<Block> {
        let parent = Arc::clone(&self.blocks[parent]);
        let id = parent.id(self.bft.chain);
        let parent_certificate = (parent.header.slot != Slot(0))
            .then(|| self.certificate(parent.header.slot, Choice::Notarize(id)));
        let body = Body { parent_certificate, envelopes: vec![] };
        let salt = u64::from(name.bytes().last().unwrap());
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(slot),
            height: parent.header.height.next(),
            kind: BlockKind::Ordinary,
            parent: id,
            leader: self.bft.schedule.leader(Slot(slot)),
            turn: Turn::Scheduled,
            time: parent.header.time.plus(Duration::from_millis(salt)),
            applied: Applied::default(),
            body: body.digest(),
        };
        let block = Arc::new(Block { header, body });
        self.names.insert(block.id(self.bft.chain), name.into());
        self.blocks.insert(name.into(), Arc::clone(&block));
        block
    }

    fn vote(&self, voter: u16, slot: Slot, choice: Choice) -> Vote {
        let unsigned = Vote {
            epoch: Epoch(0),
            slot,
            choice,
            voter: MemberIndex(voter),
            clock: crate::time::Time(5_000_000),
            applied: Height(0),
            signature: Signature([0; 64]),
        };
        Vote::sign(self.bft.chain, &key(voter), unsigned)
    }

    fn certificate(&self, slot: Slot, choice: Choice) -> Certificate {
        let mut state = SlotState::default();
        for voter in [0, 1, 3] {
            state.add(self.vote(voter, slot, choice));
        }
        state.form(&self.bft.members, Epoch(0), slot, choice).unwrap()
    }

    /// Lets the member hear one line: `propose NAME SLOT on PARENT`, `notarize|finalize NAME by 0
    /// 1`, `nullify SLOT by 0 1`, `wait MILLISECONDS`, `pending`; gives back what it does.
    fn hear(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["propose", name, slot, "on", parent] => {
                let block = self.block(name, slot.parse().unwrap(), parent);
                let leader = block.header.leader.0;
                let proposal = Proposal::sign(self.bft.chain, &key(leader), block);
                self.message(leader, Message::Proposal(proposal))
            }
            ["nullify", slot, "by", ..] => {
                self.votes(Slot(slot.parse().unwrap()), Choice::Nullify, &words[3..])
            }
            [kind, name, "by", ..] => {
                let block = &self.blocks[name];
                let (id, slot) = (block.id(self.bft.chain), block.header.slot);
                let choice =
                    if kind == "notarize" { Choice::Notarize(id) } else { Choice::Finalize(id) };
                self.votes(slot, choice, &words[3..])
            }
            ["wait", milliseconds] => {
                let duration = Duration::from_millis(milliseconds.parse().unwrap());
                self.now.instant = self.now.instant.plus(duration);
                self.event(Event::Timer)
            }
            ["pending"] => {
                self.pending = true;
                self.event(Event::Load(Load { waiting: 1, unconfirmed: false }))
            }
            _ => panic!("not understood: {line}"),
        }
    }

    fn votes(&mut self, slot: Slot, choice: Choice, voters: &[&str]) -> String {
        let said: Vec<String> = voters
            .iter()
            .map(|voter| {
                let voter = voter.parse().unwrap();
                let vote = self.vote(voter, slot, choice);
                self.message(voter, Message::Vote(vote))
            })
            .filter(|said| !said.is_empty())
            .collect();
        said.join("; ")
    }

    fn message(&mut self, from: u16, message: Message) -> String {
        self.event(Event::Message { from: key(from).public(), message })
    }

    /// Steps, plays the replica (every block's content is right), and puts what was done into
    /// words.
    fn event(&mut self, event: Event) -> String {
        let mut words = Vec::new();
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.bft.step(self.now, event) {
                match action {
                    Action::Validate(wanted) => {
                        let block = wanted.block.id(self.bft.chain);
                        events.push_back(Event::Validated { block, verdict: Verdict::Valid });
                    }
                    Action::Build(wanted) => {
                        let fill = wanted.may_be_empty || self.pending;
                        let parent = self.names[&wanted.parent.id(self.bft.chain)].clone();
                        let name = wanted.slot.to_string();
                        let block = fill.then(|| self.block(&name, wanted.slot.0, &parent));
                        events.push_back(Event::Built { slot: wanted.slot, block });
                    }
                    Action::Known(_) => {}
                    action => words.push(self.describe(action)),
                }
            }
        }
        words.join("; ")
    }

    fn describe(&mut self, action: Action) -> String {
        match action {
            Action::Persist(record) => {
                self.records.push(record.clone());
                match record {
                    Record::Entered(c) => format!("write entered {}", c.slot.next()),
                    Record::Proposed(p) => format!("write proposed {}", p.block.header.slot),
                    Record::Notarized { vote, .. } => format!("write {}", self.choice(&vote)),
                    Record::Nullified(vote) => format!("write {}", self.choice(&vote)),
                    Record::Finalizing { vote, .. } => format!("write {}", self.choice(&vote)),
                    Record::Fetched(block) => format!("write body {}", block.header.slot),
                    Record::Finalized { blocks, .. } => format!("write final ×{}", blocks.len()),
                    other => format!("{other:?}"),
                }
            }
            Action::Send { message, .. } => match message {
                Message::Vote(vote) => format!("say {}", self.choice(&vote)),
                Message::Proposal(p) => format!("say proposal {}", p.block.header.slot),
                Message::Certificate(c) => format!("pass on {:?} {}", Kind::of(c.choice), c.slot),
                Message::Fetch(fetch) => match fetch {
                    Fetch::FinalAfter(height) => format!("fetch final after {height}"),
                    Fetch::Block(id) => format!("fetch {}", self.names[&id]),
                    Fetch::CertificatesAfter(slot) => format!("fetch certificates after {slot}"),
                    other => format!("{other:?}"),
                },
                other => format!("{other:?}"),
            },
            Action::Finalize { blocks, .. } => {
                let names: Vec<&str> =
                    blocks.iter().map(|block| &*self.names[&block.id(self.bft.chain)]).collect();
                format!("final {}", names.join(" "))
            }
            Action::Report(line) => format!("report: {line}"),
            other => format!("{other:?}"),
        }
    }

    fn choice(&self, vote: &Vote) -> String {
        match vote.choice {
            Choice::Notarize(id) => format!("notarize {}", self.names[&id]),
            Choice::Nullify => format!("nullify {}", vote.slot),
            Choice::Finalize(id) => format!("finalize {}", self.names[&id]),
        }
    }

    /// Plays a script: `line => what is done`, one pair a line.
    fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (hear, expected) = line.split_once(" =>").unwrap();
            assert_eq!(self.hear(hear.trim()), expected.trim(), "after: {line}");
        }
    }
}

#[test]
fn a_block_is_notarized_then_final() {
    Table::new().play(
        "propose 1 1 on genesis => write notarize 1; say notarize 1
         notarize 1 by 0        =>
         notarize 1 by 1        => write finalize 1; say finalize 1
         finalize 1 by 0        =>
         finalize 1 by 3        => write final ×1; final 1",
    );
}

#[test]
fn the_next_proposal_carries_the_notarization_that_was_missed() {
    Table::new().play(
        "propose 1 1 on genesis => write notarize 1; say notarize 1
         propose 2 2 on 1       => \
             write finalize 1; say finalize 1; write notarize 2; say notarize 2",
    );
}

#[test]
fn a_second_proposal_in_a_slot_gets_no_vote_and_is_evidence() {
    Table::new().play(
        "propose 1 1 on genesis  => write notarize 1; say notarize 1
         propose 1b 1 on genesis => report: member 0 signed two blocks for slot 1",
    );
}

#[test]
fn two_votes_of_a_member_count_once_and_are_evidence() {
    Table::new().play(
        "propose 1 1 on genesis  => write notarize 1; say notarize 1
         propose 1b 1 on genesis => report: member 0 signed two blocks for slot 1
         notarize 1b by 3        =>
         notarize 1 by 3         => report: member 3 voted for two blocks in one slot (slot 1)
         notarize 1 by 0         =>
         notarize 1 by 1         => write finalize 1; say finalize 1",
    );
}

#[test]
fn a_slot_without_a_block_in_time_is_skipped_and_never_finalized() {
    let mut table = Table::new();
    table.play(
        "pending                =>
         wait 299               =>
         wait 1                 => write nullify 1; say nullify 1; say nullify 1
         propose 1 1 on genesis =>
         notarize 1 by 0 1 3    => write entered 2",
    );
    // What excludes `finalize` outlives a crash.
    let (mut again, said) = table.restart();
    assert_eq!(again.hear("finalize 1 by 0 1"), "", "no vote of ours to make it three: {said}");
    assert_eq!(again.bft.slot, Slot(2));
}

#[test]
fn notarize_then_nullify_is_allowed_and_enters_by_either_certificate() {
    let mut table = Table::new();
    table.play(
        "propose 1 1 on genesis => write notarize 1; say notarize 1
         wait 300               => write nullify 1; say nullify 1; say notarize 1; say nullify 1
         nullify 1 by 0         =>",
    );
    let said = table.hear("nullify 1 by 1");
    assert!(said.starts_with("pass on Nullify 1; write entered 2"), "{said}");
}

#[test]
fn who_voted_to_finalize_votes_to_skip_no_more() {
    let mut table = Table::new();
    table.play(
        "propose 1 1 on genesis => write notarize 1; say notarize 1
         notarize 1 by 0 1      => write finalize 1; say finalize 1
         nullify 1 by 0 1       => ",
    );
    assert!(table.bft.own_vote(Slot(1), Kind::Nullify).is_none());
}

#[test]
fn a_restart_says_the_same_again_and_decides_nothing() {
    let mut table = Table::new();
    table.play(
        "propose 1 1 on genesis => write notarize 1; say notarize 1
         notarize 1 by 0 1      => write finalize 1; say finalize 1",
    );
    let (mut again, said) = table.restart();
    assert_eq!(said, "pass on Notarize 1; say notarize 1; say finalize 1");
    again.play("propose 1c 1 on genesis =>");
}

#[test]
fn a_restarted_leader_repeats_its_proposal_instead_of_making_another() {
    let mut table = Table::new();
    table.hear("pending");
    for slot in 1..8 {
        table.hear(&format!("nullify {slot} by 0 1 3"));
    }
    assert_eq!(table.bft.slot, Slot(8));
    let proposed = |said: &str| said.contains("say proposal 8");
    assert!(table.records.iter().any(|record| matches!(record, Record::Proposed(_))));
    let before = table.bft.slots[&Slot(8)].proposal.clone();
    let (again, said) = table.restart();
    assert!(proposed(&said), "{said}");
    assert!(!said.contains("write"), "{said}");
    assert_eq!(again.bft.slots[&Slot(8)].proposal, before);
}

#[test]
fn only_a_block_whose_skipped_slots_are_known_gets_a_vote() {
    let mut table = Table::new();
    // Slot 3's certificate lets us in, but nothing is known of slot 2.
    table.hear("propose 1 1 on genesis");
    table.hear("notarize 1 by 0 1");
    assert_eq!(table.hear("nullify 3 by 0 1 3"), "pass on Nullify 3; write entered 4");
    assert_eq!(table.hear("propose 4 4 on 1"), "");
    assert_eq!(table.hear("wait 75"), "fetch certificates after 1");
    assert!(table.hear("nullify 2 by 0 1 3").contains("say notarize 4"));
}

#[test]
fn a_certified_body_that_is_missing_is_fetched_and_ancestors_become_final_first() {
    let mut table = Table::new();
    table.block("1", 1, "genesis");
    assert_eq!(table.hear("notarize 1 by 0 1 3"), "write finalize 1; say finalize 1");
    assert!(table.hear("propose 2 2 on 1").is_empty(), "its parent is not here");
    assert_eq!(table.hear("wait 75"), "fetch 1");
    let body = Arc::clone(&table.blocks["1"]);
    let said = table.message(0, Message::Pending(body));
    assert_eq!(said, "write body 1; write notarize 2; say notarize 2");
    table.hear("notarize 2 by 0 1");
    assert_eq!(table.hear("finalize 2 by 0 1"), "write final ×2; final 1 2");
}

#[test]
fn a_silent_leader_costs_no_second_timeout_until_it_is_heard() {
    let mut table = Table::new();
    table.hear("pending");
    table.hear("wait 300");
    // Slot 1 is skipped: 0 is silent for the rest of its turn.
    let said = table.hear("nullify 1 by 1 3");
    assert!(said.contains("write entered 2; write nullify 2; say nullify 2"), "{said}");
    let said = table.hear("nullify 2 by 1 3");
    assert!(said.contains("write nullify 3"), "{said}");
    // 1 leads slot 4 and has done nothing wrong: it gets its time.
    let said = table.hear("nullify 3 by 1 3");
    assert!(!said.contains("nullify 4"), "{said}");
}

#[test]
fn a_leader_with_nothing_to_do_holds_its_proposal() {
    let mut table = Table::new();
    // Something recent becomes final, so that nothing is due; then slots pass to our turn.
    table.hear("propose 1 1 on genesis");
    table.hear("notarize 1 by 0 1");
    table.hear("finalize 1 by 0 1");
    for slot in 2..8 {
        table.hear(&format!("nullify {slot} by 0 1 3"));
    }
    assert_eq!(table.bft.slot, Slot(8));
    assert_eq!(table.hear("wait 1000"), "");
    let said = table.hear("pending");
    assert_eq!(said, "write proposed 8; say proposal 8; write notarize 8; say notarize 8");
}

#[test]
fn a_leader_whose_waiting_envelopes_are_all_in_blocks_already_is_asked_once() {
    let mut table = Table::new();
    table.hear("pending");
    table.pending = false; // what waits stands in a pending block: there is nothing to fill ours
    table.hear("propose 1 1 on genesis");
    table.hear("notarize 1 by 0 1");
    table.hear("finalize 1 by 0 1");
    for slot in 2..8 {
        table.hear(&format!("nullify {slot} by 0 1 3"));
    }
    assert_eq!(table.bft.slot, Slot(8));
    assert!(!table.records.iter().any(|record| matches!(record, Record::Proposed(_))));
    // Members wait for us: after half a time-out an empty block is better than none.
    assert!(table.hear("wait 5000").contains("nullify 8"), "too late for a proposal");
    table.hear("nullify 8 by 0 1 3");
    assert!(table.hear("wait 1300").contains("say proposal 9"));
}

#[test]
fn a_member_far_behind_fetches_what_a_finalization_proves() {
    let mut table = Table::new();
    for (slot, parent) in [(1, "genesis"), (2, "1"), (3, "2"), (4, "3")] {
        table.block(&slot.to_string(), slot, parent);
    }
    let last = Arc::clone(&table.blocks["4"]);
    let certificate = table.certificate(Slot(4), Choice::Finalize(last.id(table.bft.chain)));
    table.message(0, Message::Certificate(certificate.clone()));
    assert_eq!(table.bft.slot, Slot(5));
    assert_eq!(table.hear("wait 75"), "fetch final after 0");
    let blocks = (1..=4).map(|slot| Arc::clone(&table.blocks[&slot.to_string()])).collect();
    let said = table
        .message(0, Message::Final(FinalBlocks { blocks, finality: Finality::Votes(certificate) }));
    assert_eq!(said, "write final ×4; final 1 2 3 4");
}

#[test]
fn votes_for_slots_far_ahead_are_not_kept() {
    let mut table = Table::new();
    table.hear("nullify 999 by 3");
    assert!(!table.bft.slots.contains_key(&Slot(999)));
}

#[test]
fn a_question_about_the_last_slot_there_can_be_is_answered_not_died_of() {
    let mut table = Table::new();
    table.hear("propose 1 1 on genesis");
    table.hear("notarize 1 by 0 1");
    let fetch = Fetch::CertificatesAfter(Slot(u64::MAX));
    assert_eq!(table.message(3, Message::Fetch(fetch)), "pass on Notarize 1");
}

#[test]
fn who_has_what_is_missing_is_asked_in_both_ways() {
    let mut table = Table::new();
    for (slot, parent) in [(1, "genesis"), (2, "1")] {
        table.block(&slot.to_string(), slot, parent);
    }
    let last = table.blocks["2"].id(table.bft.chain);
    let certificate = table.certificate(Slot(2), Choice::Finalize(last));
    table.message(0, Message::Certificate(certificate));
    let mut asked = Vec::new();
    for _ in 0..6 {
        table.now.instant = table.now.instant.plus(Duration::from_secs(10));
        for action in table.bft.step(table.now, Event::Timer) {
            if let Action::Send { to: Recipient::One(peer), message: Message::Fetch(fetch) } =
                action
            {
                let peer = table.bft.members.index_of(&peer).unwrap().0;
                asked.push((peer, matches!(fetch, Fetch::FinalAfter(_))));
            }
        }
    }
    assert_eq!(asked.len(), 6);
    for peer in [0, 1, 3] {
        assert!(asked.contains(&(peer, true)) && asked.contains(&(peer, false)), "{asked:?}");
    }
}

#[test]
fn many_blocks_of_one_slot_take_the_room_of_two() {
    let mut table = Table::new();
    for letter in 'a'..='z' {
        table.hear(&format!("propose 1{letter} 1 on genesis"));
    }
    assert_eq!(table.bft.slots[&Slot(1)].bodies.len(), 2);
}
