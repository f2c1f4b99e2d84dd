//! Linearizable reads: which answers count, and what is done without them.

use super::*;
use crate::block::{Applied, Certificate, CertificateVote, Choice, Vote};
use crate::crypto::Signature;
use crate::four_members::{genesis, key};
use crate::journal::{Record, Recovered};
use crate::members::Member;
use crate::replica::Input;
use crate::time::{Now, Time};
use crate::types::{BlockId, Epoch, Height};

fn at(milliseconds: u64) -> Now {
    Now { instant: Instant(milliseconds * 1000), clock: Time(1_000_000 + milliseconds) }
}

fn member_zero(recovered: Recovered) -> Replica {
    Replica::new(&genesis(), key(0), recovered, Applied::default(), at(0)).unwrap().0
}

/// What a replica says of reads after an input, in words.
fn step(replica: &mut Replica, now: u64, input: Input) -> Vec<String> {
    let outputs = replica.step(at(now), input);
    let told = outputs.into_iter().filter_map(|output| match output {
        Output::BarrierReached { id, height } => Some(format!("read {id} at height {height}")),
        Output::BarrierFailed { id, why } => Some(format!("read {id} fails {}", why.code())),
        Output::Send { to, message: Message::FinalizingWhat { nonce } } => Some(match to {
            Recipient::Members => format!("ask all, {nonce}"),
            Recipient::One(_) => format!("ask one, {nonce}"),
            Recipient::MembersBut(_) => format!("ask all but one, {nonce}"),
        }),
        Output::Send { message: Message::Finalizing { nonce, slot }, .. } => {
            Some(format!("answer {nonce}: slot {slot}"))
        }
        _ => None,
    });
    told.collect()
}

fn answer(from: u16, nonce: u64, slot: u64) -> Input {
    let message = Message::Finalizing { nonce, slot: Slot(slot) };
    Input::Message { from: key(from).public(), message }
}

fn ask(from: u16, nonce: u64) -> Input {
    Input::Message { from: key(from).public(), message: Message::FinalizingWhat { nonce } }
}

/// Finds the slot for answers of members with these weights.
fn reach(weights: &[u64], answers: &[(u16, u64)]) -> Option<u64> {
    let list = weights.iter().zip(0..);
    let list = list.map(|(&weight, of)| Member { key: key(of).public(), weight }).collect();
    let members = Members::new(list).unwrap();
    let answers = answers.iter().map(|&(of, slot)| (MemberIndex(of), Slot(slot))).collect();
    slot_to_reach(&members, &answers).map(|slot| slot.0)
}

#[test]
fn the_highest_of_a_quorum_counts_and_of_all_answers_a_liar_s_is_left_out() {
    const EQUAL: &[u64] = &[1, 1, 1, 1];
    assert_eq!(reach(EQUAL, &[(0, 5), (1, 5)]), None, "half is no quorum");
    assert_eq!(reach(EQUAL, &[(0, 5), (1, 7), (2, 6)]), Some(7));
    assert_eq!(reach(EQUAL, &[(0, 5), (1, 7), (2, 6), (3, u64::MAX)]), Some(7));
    assert_eq!(reach(EQUAL, &[(0, 5), (1, 7), (2, 6), (3, 0)]), Some(6), "two voted for 6 or more");
    let one_is_heavy = &[10, 1, 1, 1];
    assert_eq!(reach(one_is_heavy, &[(0, 5)]), Some(5));
    assert_eq!(reach(one_is_heavy, &[(0, 5), (1, 9), (2, 9), (3, 9)]), Some(5));
    assert_eq!(reach(&[1], &[(0, 3)]), Some(3), "a server alone");
}

#[test]
fn a_read_waits_for_a_quorum_s_answers_to_a_question_asked_after_it_came() {
    let replica = &mut member_zero(Recovered::default());
    assert_eq!(step(replica, 1, Input::Barrier { id: 7 }), ["ask all, 7"]);
    assert!(step(replica, 2, answer(1, 7, 0)).is_empty());
    assert!(step(replica, 2, answer(1, 7, 0)).is_empty(), "each member counts once");
    assert!(step(replica, 2, answer(2, 6, 0)).is_empty(), "of another question");
    assert!(step(replica, 2, Input::Barrier { id: 8 }).is_empty(), "the next round is later");
    assert_eq!(step(replica, 2, answer(3, 7, 0)), ["read 7 at height 0"]);
    assert_eq!(step(replica, 3, Input::Woken), ["ask all, 8"]);
    assert!(step(replica, 3, answer(2, 7, 0)).is_empty(), "too late for 7, too early for 8");
    assert!(step(replica, 3, answer(1, 8, 0)).is_empty());
    assert_eq!(step(replica, 3, answer(2, 8, 0)), ["read 8 at height 0"]);
}

#[test]
fn reads_that_come_during_a_round_share_the_next_one() {
    let replica = &mut member_zero(Recovered::default());
    step(replica, 1, Input::Barrier { id: 1 });
    for id in 2..5 {
        assert!(step(replica, 1, Input::Barrier { id }).is_empty());
    }
    assert_eq!(step(replica, 3, Input::Woken), ["ask all, 2"]);
    step(replica, 3, answer(1, 2, 0));
    let served = ["read 2 at height 0", "read 3 at height 0", "read 4 at height 0"];
    assert_eq!(step(replica, 3, answer(2, 2, 0)), served);
}

#[test]
fn a_read_is_not_served_below_an_answer_unless_all_have_answered() {
    let replica = &mut member_zero(Recovered::default());
    step(replica, 1, Input::Barrier { id: 1 });
    assert!(step(replica, 1, answer(1, 1, 0)).is_empty());
    assert!(step(replica, 1, answer(2, 1, 40)).is_empty(), "slot 40 is not final here");
    assert_eq!(step(replica, 1, answer(3, 1, 0)), ["read 1 at height 0"]);
}

#[test]
fn without_answers_members_are_asked_again_and_then_the_read_is_refused() {
    let replica = &mut member_zero(Recovered::default());
    step(replica, 0, Input::Barrier { id: 1 });
    step(replica, 1, answer(1, 1, 0));
    assert_eq!(step(replica, 150, Input::Woken), ["ask one, 1", "ask one, 1"]);
    assert!(step(replica, 1_999, Input::Woken).iter().all(|line| line.starts_with("ask one")));
    assert_eq!(step(replica, 2_000, Input::Woken), ["read 1 fails 57P03"]);
    let slow = &mut member_zero(Recovered::default());
    step(slow, 0, Input::Barrier { id: 1 });
    step(slow, 1, answer(1, 1, 9));
    step(slow, 1, answer(2, 1, 9));
    assert!(step(slow, 9_999, Input::Woken).iter().all(|line| line.starts_with("ask one")));
    assert_eq!(step(slow, 10_000, Input::Woken), ["read 1 fails 57P03"], "slot 9 never came");
}

#[test]
fn too_many_reads_are_refused_at_once() {
    let replica = &mut member_zero(Recovered::default());
    let reads = 0..MAX_READS as u64;
    assert!(reads.clone().all(|id| {
        step(replica, 1, Input::Barrier { id }).iter().all(|line| line.starts_with("ask"))
    }));
    assert_eq!(step(replica, 1, Input::Barrier { id: reads.end }), ["read 4096 fails 53000"]);
}

#[test]
fn a_member_answers_so_many_questions_and_strangers_none() {
    let replica = &mut member_zero(Recovered::default());
    let answered = (0..200).filter(|&nonce| !step(replica, 1, ask(1, nonce)).is_empty());
    assert_eq!(answered.count(), 64);
    assert_eq!(step(replica, 1, ask(2, 9)), ["answer 9: slot 0"], "another member has its own");
    assert_eq!(step(replica, 2, ask(1, 9)), ["answer 9: slot 0"], "a moment later");
    assert!(step(replica, 2, ask(9, 9)).is_empty(), "no member");
}

#[test]
fn a_member_that_has_lost_its_log_answers_nothing() {
    let mut replica = member_zero(Recovered { is_wiped: true, ..Recovered::default() });
    assert_eq!(step(&mut replica, 1, ask(1, 4)), [""; 0]);
}

#[test]
fn a_restarted_member_answers_with_the_vote_that_it_wrote_down() {
    let chain = genesis().chain_id();
    let block = BlockId([7; 32]);
    let vote = |voter: u16, choice| {
        let unsigned = Vote {
            epoch: Epoch(0),
            slot: Slot(5),
            choice,
            voter: MemberIndex(voter),
            clock: Time(0),
            applied: Height(0),
            signature: Signature([0; 64]),
        };
        Vote::sign(chain, &key(voter), unsigned)
    };
    let votes = [0, 1, 2].map(|voter| {
        let Vote { voter, clock, applied, signature, .. } = vote(voter, Choice::Notarize(block));
        CertificateVote { voter, clock, applied, signature }
    });
    let choice = Choice::Notarize(block);
    let notarization =
        Certificate { epoch: Epoch(0), slot: Slot(5), choice, votes: votes.to_vec() };
    let record = Record::Finalizing { vote: vote(0, Choice::Finalize(block)), notarization };
    let replica = &mut member_zero(Recovered { tail: vec![record], ..Recovered::default() });
    assert_eq!(step(replica, 1, ask(1, 3)), ["answer 3: slot 5"]);
    // And takes its own word into account.
    step(replica, 2, Input::Barrier { id: 1 });
    step(replica, 2, answer(1, 1, 0));
    assert!(step(replica, 2, answer(2, 1, 0)).is_empty(), "slot 5 may be final elsewhere");
}

#[test]
fn a_read_begins_its_round_when_an_older_one_is_given_up() {
    let replica = &mut member_zero(Recovered::default());
    // Rounds that wait for a slot that is not final fill all places.
    for round in 0..MAX_ROUNDS as u64 {
        let now = 1 + round * 2;
        assert_eq!(step(replica, now, Input::Barrier { id: round }), [format!("ask all, {round}")]);
        step(replica, now, answer(1, round, 9));
        step(replica, now, answer(2, round, 9));
    }
    assert!(step(replica, 60, Input::Barrier { id: 99 }).is_empty());
    let ended = step(replica, 10_001, Input::Woken);
    assert!(ended.contains(&"read 0 fails 57P03".to_owned()), "{ended:?}");
    assert_eq!(ended.last().map(String::as_str), Some("ask all, 99"), "a place is free");
}
