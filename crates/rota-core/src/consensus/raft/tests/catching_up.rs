//! Members that are far behind.

use std::sync::Arc;

use super::cluster::Cluster;
use crate::block::{Block, Finality, Turn};
use crate::consensus::raft::log::KEPT_ENTRIES;
use crate::consensus::{Consensus, Event};
use crate::journal::Entry;
use crate::message::{FinalBlocks, Message};
use crate::types::{Height, Slot};

fn many(cluster: &mut Cluster, leader: usize, count: usize) {
    for number in 0..count {
        cluster.write(leader, &number.to_string());
        cluster.deliver();
    }
}

#[test]
fn the_log_in_memory_is_bounded() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    many(&mut cluster, leader, KEPT_ENTRIES + 100);
    for who in 0..3 {
        let log = cluster.raft(who).node.store();
        let kept = (1..=log.last().index).filter(|&index| log.get(index).is_some()).count();
        assert!(kept <= KEPT_ENTRIES + 1, "{kept}");
    }
}

#[test]
fn who_is_behind_the_leaders_log_fetches_final_blocks_and_goes_on() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let late = (leader + 1) % 3;
    cluster.write(leader, "first");
    cluster.deliver();
    cluster.isolate(late);
    many(&mut cluster, leader, KEPT_ENTRIES + 500);
    cluster.heal();
    cluster.pass(2_000);
    assert_eq!(cluster.height(late), cluster.height(leader));
    cluster.write(leader, "last");
    cluster.settle();
    assert!(cluster.finals(late).ends_with("last"));
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn what_was_fetched_outlives_a_restart_without_the_old_tail() {
    let (mut cluster, old) = Cluster::with_leader(3);
    cluster.write(old, "first");
    cluster.deliver();
    cluster.isolate(old);
    cluster.write(old, "lost");
    cluster.write_in_a_crowd(old, "lost too");
    cluster.pass(600);
    let new = cluster.leader().unwrap();
    many(&mut cluster, new, KEPT_ENTRIES + 500);
    cluster.heal();
    cluster.pass(2_000);
    assert_eq!(cluster.height(old), cluster.height(new));
    cluster.crash(old);
    cluster.start(old);
    assert_eq!(cluster.tail(old), "");
    cluster.write(new, "last");
    cluster.pass(200);
    assert!(cluster.finals(old).ends_with("last"));
    assert_eq!(cluster.servers[old].abandoned, ["lost", "lost too"]);
}

#[test]
fn entries_of_an_older_term_after_a_fetched_block_are_not_recovered() {
    let (mut cluster, old) = Cluster::with_leader(3);
    cluster.isolate(old);
    let before = cluster.servers[old].disk.clone();
    for name in ["x", "y"] {
        cluster.write(old, name);
    }
    let stale = cluster.servers[old].disk.tail.clone();
    assert!(stale.len() > before.tail.len());
    cluster.pass(600);
    let new = cluster.leader().unwrap();
    cluster.write(new, "b");
    cluster.heal();
    cluster.pass(300);
    // On disk the old entries stand after a final block of a later term: as if it had been fetched.
    cluster.crash(old);
    let mut entries = stale.clone();
    let last = cluster.servers[old].disk.finals.last().unwrap().header.slot.0;
    for (entry, index) in entries.iter_mut().zip(last + 1..) {
        entry.index = index;
    }
    cluster.servers[old].disk.tail = entries;
    cluster.start(old);
    assert_eq!(cluster.raft(old).node.store().last().index, last);
    assert_eq!(cluster.raft(old).node.raft.raft_log.last_term(), 2);
    // Nor if their term is a later one, of a leader that did not know the block.
    cluster.crash(old);
    let tail = &mut cluster.servers[old].disk.tail;
    tail.clear();
    tail.extend(stale.iter().zip(last + 1..).map(|(entry, index)| Entry {
        index,
        term: 3,
        ..entry.clone()
    }));
    cluster.start(old);
    assert_eq!(cluster.raft(old).node.store().last().index, last);
}

#[test]
fn a_word_that_is_lost_is_said_again() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let late = (leader + 1) % 3;
    cluster.isolate(late);
    many(&mut cluster, leader, KEPT_ENTRIES + 500);
    cluster.heal();
    // The first word that the log has no entries for it is lost.
    for _ in 0..40 {
        let wake = cluster.raft(leader).wake().unwrap();
        cluster.set_time(wake.max(cluster.now.instant));
        cluster.step(leader, crate::consensus::Event::Timer);
        while let Some(flying) = cluster.flying.pop_front() {
            cluster.drop_kind(crate::message::RaftKind::Snapshot);
            cluster.arrive(flying);
        }
        if cluster.messages.contains_key("Snapshot") {
            break;
        }
    }
    assert!(cluster.messages.contains_key("Snapshot"));
    cluster.drop_kind(crate::message::RaftKind::Snapshot);
    cluster.pass(3_000);
    assert_eq!(cluster.height(late), cluster.height(leader));
}

#[test]
fn nothing_is_fetched_that_the_executor_could_not_keep_up_with() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let late = (leader + 1) % 3;
    cluster.isolate(late);
    many(&mut cluster, leader, 2 * KEPT_ENTRIES);
    cluster.servers[late].stalled = true;
    cluster.heal();
    cluster.pass(10_000);
    let height = cluster.height(late);
    assert!(height < cluster.height(leader), "it fetched all {height} blocks");
    assert!(height > 0);
}

#[test]
fn one_answer_is_asked_for_at_a_time_and_not_of_the_leader_first() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let [late, other] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.isolate(late);
    many(&mut cluster, leader, 2 * KEPT_ENTRIES);
    cluster.pass(200);
    cluster.heal();
    cluster.pass(2_000);
    assert_eq!(cluster.height(late), cluster.height(leader));
    // What it executes meanwhile is no reason to ask for the same again.
    let answers = 2 * KEPT_ENTRIES / super::cluster::ANSWER + 2;
    let asked = cluster.servers[other].asked;
    assert!(asked <= answers, "{asked} questions for {answers} answers");
    assert_eq!(cluster.servers[leader].asked, 0);
}

#[test]
fn a_question_that_waited_for_the_executor_is_asked_once_it_has_caught_up() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let [late, other] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.isolate(late);
    many(&mut cluster, leader, 2 * KEPT_ENTRIES);
    cluster.pass(200);
    cluster.servers[late].stalled = true;
    cluster.heal();
    cluster.pass(300);
    assert_eq!(cluster.servers[other].asked, 1, "the first answer is being executed");
    cluster.pass(500);
    cluster.resume(late);
    cluster.deliver();
    assert_eq!(cluster.height(late), cluster.height(leader), "without any time passing");
    let asked = cluster.servers[other].asked;
    assert!(asked <= 2 * KEPT_ENTRIES / super::cluster::ANSWER + 2, "{asked} questions");
}

#[test]
fn who_does_not_answer_is_not_asked_again_at_once() {
    let (mut cluster, leader) = Cluster::with_leader(5);
    let others = [1, 2, 3, 4].map(|more| (leader + more) % 5);
    let [late, dead, gone, _] = others;
    cluster.isolate(late);
    many(&mut cluster, leader, KEPT_ENTRIES + 500);
    cluster.pass(200);
    cluster.crash(dead);
    cluster.crash(gone);
    cluster.heal();
    cluster.pass(4_000);
    assert_eq!(cluster.height(late), cluster.height(leader));
    assert!(cluster.servers[dead].asked <= 1 && cluster.servers[gone].asked <= 1);
}

#[test]
fn a_final_block_of_another_height_is_not_taken() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let late = (leader + 1) % 3;
    cluster.isolate(late);
    many(&mut cluster, leader, KEPT_ENTRIES + 500);
    let last = cluster.raft(late).last.block.clone();
    let mut block = Block::clone(&last);
    block.header.parent = last.id(cluster.genesis.chain_id());
    block.header.height = Height(last.header.height.0 + 5);
    block.header.slot = Slot(cluster.raft(late).node.raft.raft_log.committed + 1);
    block.header.turn = Turn::Elected { term: 1 };
    let finality = Finality::Log { term: 1, index: block.header.slot.0 };
    let answer = FinalBlocks { blocks: vec![Arc::new(block)], finality };
    cluster.heal();
    // It hears that it is behind, and no answer.
    while cluster.raft(late).behind.is_none() {
        let wake = cluster.raft(leader).wake().unwrap();
        cluster.set_time(wake.max(cluster.now.instant));
        cluster.step(leader, Event::Timer);
        while let Some(flying) = cluster.flying.pop_front() {
            if !matches!(flying.message, Message::Final(_)) {
                cluster.arrive(flying);
            }
        }
    }
    let height = cluster.height(late);
    let from = cluster.key(leader);
    cluster.step(late, Event::Message { from, message: Message::Final(answer) });
    assert_eq!(cluster.height(late), height);
    assert!(cluster.servers[late].reports.iter().any(|line| line.contains("does not follow")));
}
