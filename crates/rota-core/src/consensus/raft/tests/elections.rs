//! Members that miss the leader at the same moment: on a busy machine they wake late, together.

use std::time::Duration;

use super::cluster::Cluster;
use crate::consensus::Event;
use crate::message::{Message, RaftKind, RaftMessage};

/// The leader is gone; its followers wake late, all at the same moment, each before it hears of
/// the other. Returns them in the order of their time-outs.
fn wake_together(cluster: &mut Cluster, leader: usize) -> Vec<usize> {
    cluster.crash(leader);
    let mut others: Vec<usize> =
        (0..cluster.servers.len()).filter(|&other| other != leader).collect();
    others.sort_by_key(|&other| cluster.raft(other).node.raft.randomized_election_timeout());
    cluster.set_time(cluster.now.instant.plus(Duration::from_millis(600)));
    for &other in &others {
        cluster.step(other, Event::Timer);
    }
    others
}

#[test]
fn of_two_that_ask_at_the_same_moment_the_first_in_order_is_elected() {
    for members in [3, 5] {
        let (mut cluster, leader) = Cluster::with_leader(members);
        let others = wake_together(&mut cluster, leader);
        cluster.deliver();
        assert_eq!(cluster.leader(), Some(others[0]), "of {members}");
        assert_eq!(cluster.term(others[0]), 2, "in one election");
    }
}

#[test]
fn the_first_in_order_gives_way_to_a_longer_log() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.pass(200);
    let mut others = [(leader + 1) % 3, (leader + 2) % 3];
    others.sort_by_key(|&other| cluster.raft(other).node.raft.randomized_election_timeout());
    cluster.cut.insert((leader, others[0]));
    cluster.write(leader, "a");
    cluster.deliver();
    cluster.heal();
    let others = wake_together(&mut cluster, leader);
    cluster.deliver();
    cluster.pass(100);
    assert_eq!(cluster.leader(), Some(others[1]));
    assert_eq!(cluster.finals(others[1]), "a");
}

#[test]
fn after_split_votes_the_next_election_comes_at_once() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    // Both are told to take over, without asking first: the votes are split.
    cluster.crash(leader);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        let (from, message) = (cluster.key(leader), take_over());
        cluster.step(other, Event::Message { from, message });
    }
    cluster.deliver();
    assert_eq!(cluster.leader(), None);
    cluster.pass(120);
    assert!(cluster.leader().is_some(), "nobody waits for its whole time-out");
}

/// What a leader says to its heir.
fn take_over() -> Message {
    Message::Raft(Box::new(RaftMessage::new(RaftKind::TimeoutNow, 1)))
}

#[test]
fn a_question_that_was_lost_is_asked_again_soon() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let others = wake_together(&mut cluster, leader);
    cluster.drop_kind(RaftKind::PreVote);
    cluster.pass(60);
    assert_eq!(cluster.leader(), Some(others[0]));
}

/// It may be that nobody can hear the first in order but those who are not enough.
#[test]
fn who_comes_first_and_is_not_elected_gives_way_in_the_end() {
    let (mut cluster, leader) = Cluster::with_leader(4);
    let mut others: Vec<usize> = (0..4).filter(|&other| other != leader).collect();
    others.sort_by_key(|&other| cluster.raft(other).node.raft.randomized_election_timeout());
    // Three of four are needed: the last two in order, and the first, which the last cannot hear.
    cluster.cut.insert((others[0], others[2]));
    cluster.cut.insert((others[2], others[0]));
    cluster.crash(leader);
    cluster.pass(1_500);
    assert_eq!(cluster.leader(), Some(others[1]));
}

#[test]
fn who_has_voted_waits_for_whom_it_has_elected() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let others = wake_together(&mut cluster, leader);
    // Until the votes are on their way, which take long to arrive.
    let is_vote = |message: &Message| match message {
        Message::Raft(message) => message.kind == RaftKind::VoteResponse,
        _ => false,
    };
    while !cluster.flying.iter().any(|flying| is_vote(&flying.message)) {
        let flying = cluster.flying.pop_front().expect("a vote comes");
        cluster.arrive(flying);
    }
    let late = std::mem::take(&mut cluster.flying);
    cluster.pass(150);
    cluster.flying = late;
    cluster.deliver();
    assert_eq!((cluster.leader(), cluster.term(others[0])), (Some(others[0]), 2));
}
