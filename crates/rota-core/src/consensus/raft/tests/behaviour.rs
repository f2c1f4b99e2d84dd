//! Elections, the log, reads, hand-over.

use super::cluster::Cluster;
use crate::consensus::{Consensus, Event, Standing};
use crate::message::RaftKind;

/// The other two of three, in their order.
fn others(who: usize) -> [usize; 2] {
    let mut others = [(who + 1) % 3, (who + 2) % 3];
    others.sort_unstable();
    others
}

#[test]
fn one_member_is_elected_and_its_blocks_are_final_on_all() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.write(leader, "b");
    cluster.deliver();
    assert_eq!(cluster.finals(leader), "a b", "the others hear of it a moment later");
    cluster.settle();
    for who in 0..3 {
        assert_eq!(cluster.finals(who), "a b");
        assert!(cluster.raft(who).is_live());
        assert_eq!(cluster.raft(who).leader(0), Some(cluster.key(leader)));
    }
    assert_eq!(
        cluster.raft(leader).standing(cluster.now),
        Standing::Elected { term: 1, role: "leader" }
    );
}

#[test]
fn a_single_member_leads_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.write(0, "a");
    assert_eq!(cluster.finals(0), "a");
    cluster.step(0, Event::Read { nonce: 7 });
    assert_eq!(cluster.servers[0].readable, [(7, cluster.height(0) as u64)]);
}

#[test]
fn members_stand_for_election_one_after_the_other() {
    let cluster = Cluster::new(5);
    let mut timeouts: Vec<usize> =
        (0..5).map(|who| cluster.raft(who).node.raft.randomized_election_timeout()).collect();
    timeouts.sort_unstable();
    assert_eq!(timeouts, [10, 12, 14, 16, 18]);
}

#[test]
fn a_dead_leader_is_replaced_within_a_third_of_a_second() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.deliver();
    cluster.crash(leader);
    cluster.pass(330);
    let next = cluster.leader().unwrap();
    assert_ne!(next, leader);
    cluster.write(next, "b");
    cluster.deliver();
    assert_eq!(cluster.finals(next), "a b");
    cluster.start(leader);
    cluster.pass(100);
    assert_eq!(cluster.finals(leader), "a b");
    assert_eq!(cluster.leader(), Some(next), "who comes back follows");
}

#[test]
fn who_hears_nobody_does_not_raise_the_term() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let alone = (leader + 1) % 3;
    cluster.isolate(alone);
    cluster.pass(10_000);
    assert_eq!(cluster.term(alone), 1, "pre-votes are answered by nobody");
    cluster.heal();
    cluster.pass(500);
    assert_eq!(cluster.leader(), Some(leader), "its coming back disturbs nobody");
    assert_eq!(cluster.term(leader), 1);
}

#[test]
fn a_leader_without_a_majority_steps_down() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.isolate(leader);
    cluster.pass(450);
    assert!(!cluster.raft(leader).is_leader());
    assert_eq!(cluster.raft(leader).leader(0), None);
}

#[test]
fn what_a_majority_has_not_is_replaced_and_waits_again() {
    let (mut cluster, old) = Cluster::with_leader(3);
    cluster.write(old, "a");
    cluster.deliver();
    cluster.isolate(old);
    cluster.write(old, "lost");
    cluster.deliver();
    assert_eq!(cluster.tail(old), "lost");
    cluster.pass(600);
    let new = cluster.leader().unwrap();
    assert_ne!(new, old);
    cluster.write(new, "b");
    cluster.deliver();
    cluster.heal();
    cluster.pass(600);
    for who in 0..3 {
        assert_eq!(cluster.finals(who), "a b");
    }
    assert_eq!(cluster.servers[old].abandoned, ["lost"]);
    assert!(cluster.tail(old).is_empty());
    assert!(!cluster.servers[old].disk.tail.iter().any(|entry| entry.term == 1));
}

#[test]
fn a_leaders_entries_travel_while_it_writes_them() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.fuse = Some(leader);
    cluster.servers[leader].waiting.push_back("a".into());
    cluster.step(leader, Event::Load(crate::consensus::Load { waiting: 1, unconfirmed: false }));
    let said = cluster.flying.iter().filter(|flying| flying.from == leader).count();
    assert_eq!(said, 2, "it has crashed before its append, its entries have left");
    let on_disk = cluster.servers[leader].disk.tail.len();
    // The members have the entry, the leader has not: it is final all the same, by their majority.
    let flying = std::mem::take(&mut cluster.flying);
    cluster.crash(leader);
    cluster.fuse = None;
    cluster.flying = flying;
    cluster.pass(1_000);
    let next = cluster.leader().unwrap();
    assert_eq!(cluster.finals(next), "a");
    assert_eq!(cluster.servers[leader].disk.tail.len(), on_disk);
    cluster.start(leader);
    cluster.pass(200);
    assert_eq!(cluster.finals(leader), "a");
}

#[test]
fn a_leader_executes_ahead_while_it_writes_and_the_others_after_they_have_answered() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.settle();
    cluster.servers.iter_mut().for_each(|server| server.ahead.clear());
    cluster.write(leader, "a");
    assert_eq!(cluster.servers[leader].ahead, ["a before it is written"]);
    cluster.deliver();
    for other in others(leader) {
        assert_eq!(cluster.servers[other].ahead, ["a after it is said"]);
        assert_eq!(cluster.finals(other), "", "it is not final there yet");
    }
    // What is final by now is not ahead: one that was away hears of both at once.
    let away = others(leader)[0];
    cluster.isolate(away);
    cluster.write(leader, "b");
    cluster.settle();
    cluster.heal();
    cluster.pass(200);
    assert_eq!(cluster.finals(away), "a b");
    let mut alone = Cluster::new(1);
    alone.servers[0].ahead.clear();
    alone.write(0, "a");
    assert_eq!(alone.servers[0].ahead, ["a before it is written"]);
}

#[test]
fn a_restart_decides_nothing_anew() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.settle();
    for who in 0..3 {
        let before = (cluster.term(who), cluster.servers[who].disk.hard_state.vote);
        cluster.crash(who);
        cluster.start(who);
        let after = (cluster.term(who), cluster.servers[who].disk.hard_state.vote);
        assert_eq!(before, after);
        assert!(cluster.flying.is_empty(), "it says nothing by itself");
        assert_eq!(cluster.finals(who), "a");
    }
    cluster.pass(1_000);
    let leader = cluster.leader().unwrap();
    cluster.write(leader, "b");
    cluster.settle();
    for who in 0..3 {
        assert_eq!(cluster.finals(who), "a b");
    }
}

#[test]
fn a_vote_outlives_a_crash() {
    let mut cluster = Cluster::new(3);
    // Members 1 and 2 answer the first candidate; then they crash before it hears them.
    let first = (0..3)
        .min_by_key(|&who| cluster.raft(who).node.raft.randomized_election_timeout())
        .unwrap();
    while !cluster
        .servers
        .iter()
        .any(|server| server.disk.hard_state.vote.is_some() && server.disk.hard_state.term == 1)
    {
        let at = cluster.raft(first).wake().unwrap();
        cluster.set_time(at);
        cluster.step(first, Event::Timer);
        while let Some(flying) = cluster.flying.pop_front() {
            cluster.arrive(flying);
            if cluster.servers.iter().filter(|s| s.disk.hard_state.vote.is_some()).count() == 3 {
                break;
            }
        }
    }
    cluster.flying.clear();
    for who in 0..3 {
        let vote = cluster.servers[who].disk.hard_state;
        assert_eq!(vote.vote, Some(cluster.key(first)));
        cluster.crash(who);
        cluster.start(who);
        assert_eq!(cluster.raft(who).node.raft.vote, first as u64 + 1);
    }
}

#[test]
fn a_read_is_answered_by_any_member_and_sees_what_was_acknowledged() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.deliver();
    let height = cluster.height(leader) as u64;
    for who in 0..3 {
        cluster.step(who, Event::Read { nonce: 10 + who as u64 });
        cluster.deliver();
        assert_eq!(cluster.servers[who].readable, [(10 + who as u64, height)]);
    }
}

#[test]
fn a_read_waits_until_this_server_has_what_it_must_see() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let reader = (leader + 1) % 3;
    // It learns that "a" is in the log, and not yet that it is final.
    cluster.write(leader, "a");
    while cluster.finals(leader).is_empty() {
        let flying = cluster.flying.pop_front().unwrap();
        cluster.arrive(flying);
    }
    cluster.flying.retain(|flying| flying.to != reader);
    assert_eq!(cluster.finals(reader), "");
    cluster.step(reader, Event::Read { nonce: 1 });
    cluster.deliver();
    assert_eq!(cluster.finals(reader), "a", "the answer says so");
    assert_eq!(cluster.servers[reader].readable, [(1, cluster.height(leader) as u64)]);
}

#[test]
fn a_deposed_leader_answers_no_read() {
    let (mut cluster, old) = Cluster::with_leader(3);
    cluster.isolate(old);
    cluster.step(old, Event::Read { nonce: 1 });
    // It is stopped while the others elect another leader, and does not know of it.
    let stopped = cluster.servers[old].raft.take();
    cluster.pass(1_000);
    let new = cluster.leader().unwrap();
    cluster.write(new, "b");
    cluster.deliver();
    cluster.heal();
    cluster.servers[old].raft = stopped;
    assert!(cluster.raft(old).is_leader(), "it still thinks so");
    cluster.step(old, Event::Read { nonce: 2 });
    assert!(cluster.servers[old].readable.is_empty());
    cluster.deliver();
    assert!(cluster.servers[old].readable.is_empty(), "{:?}", cluster.servers[old].readable);
    assert!(!cluster.raft(old).is_leader());
    cluster.pass(200);
    let height = cluster.height(new) as u64;
    assert!(cluster.servers[old].readable.iter().all(|(_, seen)| *seen == height));
}

#[test]
fn a_server_that_was_stopped_hears_what_waits_for_it_before_it_does_anything() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let stopped = (leader + 1) % 3;
    let raft = cluster.servers[stopped].raft.take();
    cluster.pass(10_000);
    cluster.servers[stopped].raft = raft;
    // The newest heartbeat waits for it.
    cluster.step(leader, Event::Timer);
    cluster.set_time(cluster.now.instant.plus(std::time::Duration::from_millis(50)));
    cluster.step(leader, Event::Timer);
    cluster.deliver();
    cluster.messages.clear();
    cluster.step(stopped, Event::Timer);
    cluster.deliver();
    assert!(!cluster.messages.contains_key("PreVote"), "{:?}", cluster.messages);
}

#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let (mut cluster, old) = Cluster::with_leader(3);
    cluster.write(old, "a");
    cluster.step(old, Event::Yield);
    cluster.deliver();
    let new = cluster.leader().unwrap();
    assert_ne!(new, old, "without any time passing");
    assert_eq!(cluster.term(new), 2);
    cluster.write(new, "b");
    cluster.settle();
    assert_eq!(cluster.finals(old), "a b");
    cluster.crash(new);
    cluster.pass(400);
    assert_eq!(cluster.leader(), Some(3 - old - new), "it stands aside, and votes");
}

#[test]
fn a_leader_whose_heir_is_gone_goes_on() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let begun = cluster.now.instant;
    cluster.step(leader, Event::Yield);
    cluster.flying.clear(); // the heir is not told
    cluster.write(leader, "a");
    cluster.deliver();
    assert_eq!(cluster.finals(leader), "", "it proposes nothing while it hands over");
    // Nor does the next one hear of it.
    while cluster.raft(leader).wake().unwrap().since(begun).as_millis() < 600 {
        cluster.set_time(cluster.raft(leader).wake().unwrap().max(cluster.now.instant));
        cluster.step(leader, Event::Timer);
        cluster.drop_kind(RaftKind::TimeoutNow);
        cluster.deliver();
    }
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.finals(leader), "a");
}

#[test]
fn a_dead_heir_is_not_waited_for_another_one_takes_over() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.settle();
    // Of two that have the same, the first is asked first: nobody knows that it has died.
    let [first, second] = others(leader);
    cluster.crash(first);
    cluster.step(leader, Event::Yield);
    cluster.pass(400);
    assert_eq!(cluster.leader(), Some(second));
    cluster.write(second, "b");
    cluster.deliver();
    assert_eq!(cluster.finals(second), "a b");
}

#[test]
fn who_has_handed_over_stands_again_where_nobody_else_can() {
    let (mut cluster, old) = Cluster::with_leader(3);
    let [new, late] = others(old);
    cluster.isolate(late);
    cluster.write(old, "a");
    cluster.pass(100);
    cluster.step(old, Event::Yield);
    cluster.deliver();
    assert_eq!(cluster.leader(), Some(new));
    // The third has not what the majority has, and cannot be elected.
    cluster.crash(new);
    cluster.heal();
    cluster.pass(1_500);
    assert_eq!(cluster.leader(), Some(old));
}

#[test]
fn a_leader_of_two_members_whose_word_was_lost_goes_on() {
    let (mut cluster, leader) = Cluster::with_leader(2);
    cluster.step(leader, Event::Yield);
    cluster.flying.clear();
    cluster.pass(2_000);
    cluster.write(leader, "a");
    cluster.deliver();
    assert_eq!(cluster.finals(leader), "a");
}

#[test]
fn a_leader_with_a_damaged_state_stops_and_another_one_leads() {
    let (mut cluster, damaged) = Cluster::with_leader(3);
    cluster.servers[damaged].damage = 100;
    cluster.write(damaged, "a");
    cluster.pass(300);
    assert!(cluster.servers[damaged].outvoted.is_some(), "its rows are not to be read");
    assert!(cluster.servers[damaged].reports.join("\n").contains("MOST MEMBERS"));
    let next = cluster.leader().unwrap();
    assert_ne!(next, damaged);
    for name in ["b", "c"] {
        cluster.write(next, name);
        cluster.pass(100);
    }
    assert!(cluster.servers[next].named.unwrap().0 >= 2, "headers name states again");
    assert!(others(damaged).iter().all(|&who| cluster.servers[who].outvoted.is_none()));
}

#[test]
fn three_states_tell_nobody_whose_is_right() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let [one, other] = others(leader);
    (cluster.servers[one].damage, cluster.servers[other].damage) = (100, 50);
    for name in ["a", "b", "c"] {
        cluster.write(leader, name);
        cluster.pass(100);
    }
    assert!(cluster.servers.iter().all(|server| server.outvoted.is_none()));
    let reports = cluster.servers[leader].reports.join("\n");
    assert!(reports.contains("another state than this server"), "{reports}");
}

#[test]
fn few_writes_wait_for_the_block_before_them_and_many_for_the_one_before_that() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let before = cluster.height(leader);
    cluster.write(leader, "0");
    cluster.write(leader, "1");
    assert_eq!(cluster.tail(leader), "0");
    for name in ["2", "3", "4"] {
        cluster.write_in_a_crowd(leader, name);
        assert_eq!(cluster.tail(leader), "0 1");
    }
    cluster.deliver();
    assert_eq!(cluster.finals(leader), "0 1 2 3 4");
    assert_eq!(cluster.height(leader), before + 5);
}

#[test]
fn writes_of_those_who_were_just_answered_are_gathered() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    for number in 0..10 {
        cluster.servers[leader].waiting.push_back(number.to_string());
        cluster
            .step(leader, Event::Load(crate::consensus::Load { waiting: 3, unconfirmed: false }));
        cluster.deliver();
    }
    cluster.write(leader, "a");
    assert_eq!(cluster.tail(leader), "", "three were there before");
    cluster.pass(2);
    assert!(cluster.finals(leader).ends_with("9 a"));
}

#[test]
fn another_root_is_not_named() {
    let (mut cluster, leader) = Cluster::with_leader(5);
    cluster.write(leader, "a");
    cluster.pass(100);
    cluster.write(leader, "b");
    cluster.pass(100);
    let reached = cluster.servers[leader].named.unwrap();
    assert!(reached.0 > 0, "all have the same");
    // Three states: no majority has any of them.
    for (who, damage) in [(1, 100), (2, 100), (3, 50)] {
        cluster.servers[(leader + who) % 5].damage = damage;
    }
    for name in ["c", "d", "e"] {
        cluster.write(leader, name);
        cluster.pass(10);
    }
    let named = cluster.servers[leader].named.unwrap();
    assert!(named.0 <= reached.0 + 1, "{named} after {reached}");
    let reports = cluster.servers[leader].reports.join("\n");
    assert!(reports.contains("another state than this server"), "{reports}");
}

#[test]
fn an_idle_cluster_says_little_and_writes_nothing() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.pass(1_000);
    let height = cluster.height(leader);
    cluster.messages.clear();
    cluster.pass(10_000);
    assert_eq!(cluster.height(leader), height);
    let heartbeats = cluster.messages["Heartbeat"];
    assert!(heartbeats <= 2 * 200, "{heartbeats} in ten seconds to two members");
    assert_eq!(cluster.messages.keys().collect::<Vec<_>>(), ["Heartbeat", "HeartbeatResponse"]);
    cluster.pass(60_000);
    assert_eq!(cluster.height(leader), height + 1, "a block now and then tells the date");
}

#[test]
fn lost_messages_delay_and_nothing_else() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    cluster.write(leader, "a");
    cluster.drop_kind(RaftKind::Append);
    cluster.deliver();
    assert_eq!(cluster.finals(leader), "");
    cluster.pass(200);
    for who in 0..3 {
        assert_eq!(cluster.finals(who), "a");
    }
}
