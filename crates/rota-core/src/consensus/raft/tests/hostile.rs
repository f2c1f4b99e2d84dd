//! No word of a peer's makes a member panic: the crate would take it at its word. Beside that, a
//! member of a `raft` cluster is trusted.

use std::sync::Arc;

use super::cluster::{Cluster, Flying};
use crate::block::{Applied, Block, Turn};
use crate::consensus::Event;
use crate::journal::Entry;
use crate::message::{FinalBlocks, Message, RaftKind, RaftMessage};
use crate::types::{BlockId, Height, Slot};

const KINDS: [RaftKind; 13] = [
    RaftKind::Append,
    RaftKind::AppendResponse,
    RaftKind::PreVote,
    RaftKind::PreVoteResponse,
    RaftKind::Vote,
    RaftKind::VoteResponse,
    RaftKind::Heartbeat,
    RaftKind::HeartbeatResponse,
    RaftKind::Snapshot,
    RaftKind::TimeoutNow,
    RaftKind::ReadIndex,
    RaftKind::ReadIndexResponse,
    RaftKind::TransferLeader,
];

/// Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number near those that matter, mostly.
    fn number(&mut self, near: u64) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX - self.next() % 3,
            2 => 1 << 62,
            3 => self.next() % 100_000,
            _ => near.saturating_add(self.next() % 4).saturating_sub(2),
        }
    }
}

/// What a member could say, true or not.
fn word(cluster: &Cluster, to: usize, dice: &mut Dice) -> RaftMessage {
    let log = cluster.raft(to).node.store().last();
    let term = cluster.term(to);
    let kind = KINDS[dice.below(KINDS.len())];
    let index = dice.number(log.index);
    let mut entries = Vec::new();
    if dice.below(3) > 0 {
        let mut parent = cluster.raft(to).last.block.clone();
        for number in 1..=dice.below(4) as u64 {
            let entry_term = dice.number(term);
            let at = index.wrapping_add(if dice.below(10) == 0 { 2 } else { number });
            let block = (dice.below(3) > 0).then(|| {
                let mut block = Block::clone(&parent);
                block.header.parent = parent.id(cluster.genesis.chain_id());
                block.header.height = Height(parent.header.height.0.wrapping_add(1));
                block.header.slot = Slot(at);
                block.header.turn = Turn::Elected { term: entry_term };
                if dice.below(5) == 0 {
                    block.header.parent = BlockId([dice.next() as u8; 32]);
                }
                Arc::new(block)
            });
            parent = block.clone().unwrap_or(parent);
            entries.push(Entry { index: at, term: entry_term, block });
        }
    }
    let context = match dice.below(4) {
        0 => Vec::new(),
        1 => b"CampaignTransfer".to_vec(),
        2 => [(1 + dice.next() % 3).to_le_bytes(), (dice.next() % 3).to_le_bytes()].concat(),
        _ => vec![7; dice.below(64)],
    };
    let mut message = RaftMessage {
        kind,
        term: dice.number(term),
        log_term: if dice.below(2) == 0 { log.term } else { dice.number(term) },
        index,
        commit: dice.number(log.index),
        commit_term: dice.number(term),
        entries,
        reject: dice.below(2) == 0,
        reject_hint: dice.number(log.index),
        context,
        snapshot: (dice.below(2) == 0).then(|| (dice.number(log.index), dice.number(term))),
        applied: Applied { height: Height(dice.number(5)), ..Applied::default() },
    };
    if dice.below(4) > 0 {
        // Well formed, so that what comes after the first checks is tried as well.
        if kind != RaftKind::Append {
            message.entries.clear();
        }
        if kind == RaftKind::ReadIndex {
            message.term = 0;
        }
        let place = message.snapshot.unwrap_or((log.index + 1, term));
        message.snapshot = (kind == RaftKind::Snapshot).then_some(place);
    }
    message
}

fn final_blocks(cluster: &Cluster, to: usize, dice: &mut Dice) -> Message {
    let mut parent = Arc::clone(&cluster.raft(to).last.block);
    let mut blocks = Vec::new();
    for _ in 0..=dice.below(3) {
        let mut block = Block::clone(&parent);
        block.header.parent = parent.id(cluster.genesis.chain_id());
        block.header.height = Height(parent.header.height.0.wrapping_add(1));
        block.header.slot = Slot(dice.number(parent.header.slot.0.saturating_add(2)));
        block.header.turn = Turn::Elected { term: dice.number(cluster.term(to)) };
        parent = Arc::new(block);
        blocks.push(parent.clone());
    }
    let finality = cluster.raft(to).node.store().last().finality();
    Message::Final(FinalBlocks { blocks, finality })
}

fn restart(cluster: &mut Cluster, who: usize) {
    cluster.servers[who].executed = Height(cluster.servers[who].disk.finals.len() as u64);
    cluster.start(who);
}

fn attack(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut cluster = Cluster::new(3);
    cluster.has_liar = true;
    // Some begin with empty logs.
    if !seed.is_multiple_of(4) {
        cluster.pass(1_000);
        let leader = cluster.leader().expect("somebody leads after a second");
        cluster.write(leader, "a");
    }
    for _ in 0..300 {
        let to = dice.below(3);
        let from = dice.below(3);
        if cluster.servers[to].outvoted.take().is_some() {
            restart(&mut cluster, to); // lies about roots stop a server
        }
        match dice.below(12) {
            0 => cluster.pass(dice.next() % 400),
            1 => cluster.write(to, "w"),
            2 => cluster.step(to, Event::Read { nonce: dice.next() % 3 }),
            3 => {
                let message = final_blocks(&cluster, to, &mut dice);
                cluster.arrive(Flying { from, to, message });
            }
            4 => {
                if let Some(flying) = cluster.flying.pop_front() {
                    cluster.arrive(flying);
                }
            }
            5 => {
                cluster.crash(to);
                restart(&mut cluster, to);
            }
            _ => {
                let message = Message::Raft(Box::new(word(&cluster, to, &mut dice)));
                cluster.arrive(Flying { from, to, message });
            }
        }
        cluster.flying.truncate(64);
    }
}

#[test]
fn no_word_of_a_members_makes_another_panic() {
    for seed in 1..400 {
        attack(seed);
    }
}

#[test]
fn an_entry_without_a_term_is_not_taken_for_one_that_is_there() {
    let mut cluster = Cluster::new(3);
    cluster.has_liar = true;
    let mut message = word(&cluster, 0, &mut Dice(1));
    message.kind = RaftKind::Append;
    (message.term, message.commit, message.commit_term) = (1, 1, 0);
    (message.log_term, message.index, message.reject_hint) = (0, 0, 0);
    (message.reject, message.snapshot, message.context) = (false, None, Vec::new());
    message.entries = vec![Entry { index: 1, term: 0, block: None }];
    let message = Message::Raft(Box::new(message));
    cluster.arrive(Flying { from: 1, to: 0, message });
    assert_eq!(cluster.raft(0).node.store().last().index, 0);
    assert!(cluster.servers[0].reports[0].contains("do not follow"));
}

#[test]
fn what_an_honest_member_would_not_say_is_told_once() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let to = (leader + 1) % 3;
    let mut message = word(&cluster, to, &mut Dice(1));
    message.kind = RaftKind::Heartbeat;
    message.entries.clear();
    message.snapshot = None;
    message.term = cluster.term(to);
    message.commit = cluster.raft(to).node.store().last().index + 1;
    (message.log_term, message.index, message.commit_term, message.reject_hint) = (0, 0, 0, 0);
    for _ in 0..3 {
        let message = Message::Raft(Box::new(message.clone()));
        cluster.arrive(Flying { from: leader, to, message });
    }
    let told = cluster.servers[to].reports.iter().filter(|line| line.contains("on disk"));
    assert_eq!(told.count(), 1, "{:?}", cluster.servers[to].reports);
    let matched = |cluster: &Cluster| {
        cluster.raft(leader).node.raft.prs().get(to as u64 + 1).unwrap().matched
    };
    let before = matched(&cluster);
    message.kind = RaftKind::AppendResponse;
    (message.index, message.commit, message.reject) = (before + 1, 0, false);
    let message = Message::Raft(Box::new(message));
    cluster.arrive(Flying { from: to, to: leader, message });
    assert_eq!(matched(&cluster), before, "nobody has sent it that entry");
}

/// A block as this term's leader would put it after `parent`, told from others by its time.
fn child(cluster: &Cluster, parent: &Block, at: u64, time: u64) -> Arc<Block> {
    let mut block = parent.clone();
    block.header.parent = parent.id(cluster.genesis.chain_id());
    block.header.height = parent.header.height.next();
    block.header.slot = Slot(at);
    block.header.turn = Turn::Elected { term: 1 };
    block.header.time.0 += time;
    Arc::new(block)
}

fn append(index: u64, blocks: &[Arc<Block>]) -> Message {
    let entries = blocks.iter().zip(index + 1..);
    let entries = entries
        .map(|(block, index)| Entry { index, term: 1, block: Some(Arc::clone(block)) })
        .collect();
    Message::Raft(Box::new(RaftMessage {
        log_term: 1,
        index,
        entries,
        ..RaftMessage::new(RaftKind::Append, 1)
    }))
}

#[test]
fn entries_that_do_not_fit_our_log_are_not_taken() {
    let (mut cluster, leader) = Cluster::with_leader(3);
    let to = (leader + 1) % 3;
    // It has an entry that is not final.
    cluster.write(leader, "a");
    let flying = cluster.flying.iter().position(|flying| flying.to == to).unwrap();
    let flying = cluster.flying.remove(flying).unwrap();
    cluster.arrive(flying);
    cluster.flying.clear();
    let last = cluster.raft(to).node.store().last().index;
    assert_eq!(cluster.tail(to), "a");
    let (_, a) = cluster.raft(to).node.store().newest_block(last).cloned().unwrap();
    let before = Block::clone(&cluster.raft(to).last.block);
    let orphan = child(&cluster, &before, last + 1, 5);
    let mut late = Block::clone(&child(&cluster, &a, last + 1, 5));
    late.header.slot = Slot(last + 2);
    let other = child(&cluster, &before, last, 9);
    let on_other = child(&cluster, &other, last + 1, 5);
    for (index, blocks) in
        [(last, vec![orphan]), (last, vec![Arc::new(late)]), (last - 1, vec![other, on_other])]
    {
        let reports = cluster.servers[to].reports.len();
        let message = append(index, &blocks);
        cluster.arrive(Flying { from: leader, to, message });
        assert_eq!(cluster.raft(to).node.store().last().index, last);
        assert_eq!(cluster.servers[to].reports.len(), reports + 1);
    }
    let message = append(last, &[child(&cluster, &a, last + 1, 5)]);
    cluster.arrive(Flying { from: leader, to, message });
    assert_eq!(cluster.raft(to).node.store().last().index, last + 1, "this one does");
}
