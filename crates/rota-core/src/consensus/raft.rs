//! `raft`: one leader, elected by a majority for a term, decides until the majority hears no more
//! of it (Ongaro and Ousterhout 2014). Members trust each other. Steps 4 to 7.
//!
//! The protocol is the `raft` crate's (TiKV's), with pre-vote and check-quorum; this is what is
//! around it. An entry of its log is a block, whose slot is the entry's index, or the empty entry
//! that a leader begins its term with.
//!
//! ```text
//!   leader ─ Append(block) ─► members: on disk ─ AppendResponse ─► leader: a majority has it
//!      └─ its own fsync, meanwhile                                    └─► final; the others hear
//! ```
//!
//! What is deliberately different from the crate's ways: time-outs are constant, and another for
//! each member, where the crate draws them (`ticks`); peers' bytes are ours, and are checked before
//! the crate sees them, which would panic (`speak`); who is too far behind fetches final blocks as
//! anybody does (`behind`); members are those of the genesis, and the crate's changes of
//! configuration are not used.
//!
//! Files: `log` is the log in memory, `ready` does what the crate wants done, `held` says less of
//! it, `lead` decides when a leader proposes, `gather` how long it waits for more writes,
//! `elections` who stands again, `reads` are linearizable reads, `roots` what members have
//! executed.

mod behind;
mod elections;
mod gather;
mod held;
mod lead;
mod log;
mod reads;
mod ready;
mod roots;
mod speak;
mod ticks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{HardState as WireState, Message as Wire};
use raft::{Config, RawNode, ReadOnlyOption};

use super::{Action, Consensus, Event, Head, Load, Reads, Standing};
use crate::block::{Applied, Block};
use crate::crypto::SecretKey;
use crate::genesis::Genesis;
use crate::journal::{Entry, HardState, Record, Recovered};
use crate::members::Members;
use crate::message::{MAX_ANSWER_BYTES, Message, RaftKind, RaftMessage};
use crate::time::{Instant, Now};
use crate::types::{BlockId, ChainId, NodeId, Slot};

use behind::{Behind, place_of};
use elections::Candidacy;
use gather::Gather;
use held::Held;
use lead::Pace;
use log::{Log, Place};
use roots::{Difference, Outvoted, Roots};
use speak::Objection;
use ticks::Timeouts;

/// So many messages with entries are on their way to a member at once: each is up to
/// `MAX_ANSWER_BYTES`, and a member that lags must not fill the leader's queue with them.
const MAX_INFLIGHT: usize = 8;

/// What was noted is written after this, with what is written then or by itself.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The last final block.
struct Last {
    block: Arc<Block>,
    id: BlockId,
}

/// A member of a `raft` cluster.
pub struct Raft {
    chain: ChainId,
    members: Members,
    /// The crate's name for this member.
    id: u64,
    lag: u64,
    node: RawNode<Log>,
    now: Now,
    last: Last,
    /// The blocks of this step whose ids the crate has not given back yet.
    fresh: BTreeMap<BlockId, Arc<Block>>,
    /// The blocks that have just come into the log.
    to_come: Vec<Arc<Block>>,
    /// Term and vote on disk.
    saved: (u64, u64),
    /// The end of the log that this server started with.
    recovered_end: u64,
    /// How far this term's leader has said that the log is committed.
    leader_commit: u64,
    live: bool,
    /// Term and leader, and whether it can answer reads, when that was last looked at.
    known_leader: (u64, u64, bool),
    load: Load,
    candidacy: Candidacy,
    pace: Pace,
    gather: Gather,
    ticked_at: Instant,
    roots: Roots,
    reads: reads::Reads,
    behind: Option<Behind>,
    snapshots_sent: BTreeMap<u64, Instant>,
    held: Held,
    /// The oldest record that was noted and may not be on disk.
    noted_at: Option<Instant>,
    reported: BTreeSet<(u64, &'static str)>,
    /// The state here is known to be the wrong one.
    gave_up: bool,
    actions: Vec<Action>,
}

impl Raft {
    /// A member that knows what its journal holds, or one that starts from genesis. Panics if the
    /// key is no member's.
    pub fn new(
        genesis: &Genesis,
        members: Members,
        key: SecretKey,
        recovered: Recovered,
        now: Now,
    ) -> Self {
        let chain = genesis.chain_id();
        let block = match recovered.last {
            Some((block, _)) => block,
            None => Arc::new(Block::genesis(genesis)),
        };
        let me = members.index_of(&key.public()).expect("only members take part");
        let id = u64::from(me.0) + 1;
        let place = place_of(&block);
        let last = Last { id: block.id(chain), block };
        let entries = usable(chain, &last, recovered.tail);
        let mut log = Log::new(chain, place, WireState::default(), members.len() as u64);
        let mut actions = Vec::new();
        for Entry { index, term, block } in entries {
            actions.extend(block.clone().map(Action::Known));
            log.append(Place { index, term }, block);
        }
        let recovered_end = log.last().index;
        let state = first_state(&members, recovered.hard_state, place, log.last());
        log.begin_with(state.clone());
        let config = config(genesis, &members, id, place.index);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, log, &logger).expect("the configuration is in range");
        Self {
            chain,
            id,
            lag: genesis.parameters.lag,
            node,
            now,
            last,
            fresh: BTreeMap::new(),
            to_come: Vec::new(),
            saved: (state.term, state.vote),
            recovered_end,
            leader_commit: 0,
            live: false,
            known_leader: (0, 0, false),
            load: Load::default(),
            candidacy: Candidacy::new(genesis, &members, id),
            pace: Pace::new(genesis.parameters.idle(), now.instant),
            gather: Gather::new(genesis.parameters.block_transactions, now.instant),
            ticked_at: now.instant,
            roots: Roots::default(),
            reads: reads::Reads::new(id),
            behind: None,
            snapshots_sent: BTreeMap::new(),
            held: Held::default(),
            noted_at: None,
            reported: BTreeSet::new(),
            gave_up: false,
            actions,
            members,
        }
    }

    fn report(&mut self, line: String) {
        self.actions.push(Action::Report(line));
    }

    fn leader_key(&self) -> Option<NodeId> {
        self.member(self.node.raft.leader_id)
    }

    /// Hands a message to the crate and does what follows. What it refuses, it refuses for good
    /// reasons: messages to a leader that was, and the like.
    fn give(&mut self, wire: Wire) {
        let _refused = self.node.step(wire);
        self.carry_out();
    }

    fn on_message(&mut self, from: NodeId, message: RaftMessage) {
        let Some(id) = self.id_of(from).filter(|&id| id != self.id) else { return };
        if let Some(difference) = self.roots.told(id, message.applied) {
            self.differs(difference);
        }
        self.give_up_if_outvoted();
        match self.check(id, &message) {
            Ok(()) => {}
            Err(Objection::Stale) => return,
            Err(Objection::Wrong(what)) => {
                if self.reported.insert((id, what)) {
                    self.report(format!("a message of {from} is not heard: {what}"));
                }
                return;
            }
        }
        if message.kind == RaftKind::Snapshot {
            self.on_snapshot(id, &message);
            return;
        }
        if self.comes_before(id, &message) {
            return;
        }
        let leads = matches!(message.kind, RaftKind::Append | RaftKind::Heartbeat);
        if leads && message.term >= self.node.raft.term {
            let same = message.term == self.node.raft.term;
            let before = if same { self.leader_commit } else { 0 };
            self.leader_commit = before.max(message.commit);
        }
        let wire = self.in_their_words(id, message);
        self.give(wire);
    }

    fn on_applied(&mut self, applied: Applied) {
        for difference in self.roots.executed(applied) {
            self.differs(difference);
        }
        self.give_up_if_outvoted();
        self.pace.look_again();
        self.ask_if_withheld();
        // What became of its transactions is written with the next record, too.
        self.noted_at.get_or_insert(self.now.instant);
    }

    /// Another member's state is not ours. Whose is wrong, most members' reports tell, or a final
    /// header later: one that a leader proposes whose state most members have.
    fn differs(&mut self, difference: Difference) {
        let Difference { member, height } = difference;
        let Some(member) = self.member(member) else { return };
        self.report(format!("{member} has another state than this server at height {height}"));
        if self.is_outvoted() {
            self.report(format!(
                "MOST MEMBERS HAVE ANOTHER STATE THAN THIS SERVER at height {height}: its \
                 database is damaged, or theirs are; it hands over, and does not lead"
            ));
            self.hand_over();
        }
    }

    /// A leader with the wrong state would name no newer state in its headers, so that no final
    /// header would ever tell it: it must not go on answering from these rows.
    fn give_up_if_outvoted(&mut self) {
        if self.gave_up {
            return;
        }
        if let Some(Outvoted { height, agreed, ours }) = self.roots.outvoted(self.members.len()) {
            self.gave_up = true;
            self.actions.push(Action::Outvoted { height, agreed, ours });
        }
    }

    /// What changes with the leader: reads are asked for again.
    fn look_at_leader(&mut self) {
        let raft = &self.node.raft;
        let answers = self.is_leader() && raft.commit_to_current_term();
        let leader = (raft.term, raft.leader_id, answers);
        if leader == self.known_leader {
            return;
        }
        if (leader.0, leader.1) != (self.known_leader.0, self.known_leader.1) {
            self.pace.begin_anew(self.now.instant);
        }
        self.known_leader = leader;
        self.read_again();
        self.carry_out();
    }

    /// What was noted waits no longer.
    fn flush(&mut self) {
        let Some(noted_at) = self.noted_at else { return };
        if self.now.instant.since(noted_at) >= FLUSH_AFTER {
            self.noted_at = None;
            self.save_hard_state();
        }
    }
}

/// The entries of the tail that follow the last final block and one another. Others are left from
/// before a block that was fetched since, and was final: they were replaced when it came, though
/// their term can be a later one than its own.
fn usable(chain: ChainId, last: &Last, tail: Vec<Record>) -> Vec<Entry> {
    let mut before = place_of(&last.block);
    let (mut parent, mut height) = (last.id, last.block.header.height);
    let entries = tail.into_iter().filter_map(|record| match record {
        Record::Entry(entry) => Some(entry),
        _ => None,
    });
    let follows = |entry: &Entry| {
        let fits = entry.index == before.index + 1 && entry.term >= before.term;
        before = Place { index: entry.index, term: entry.term };
        let Some(block) = &entry.block else { return fits };
        let has_parent = block.header.parent == parent && block.header.height == height.next();
        (parent, height) = (block.id(chain), block.header.height);
        fits && has_parent
    };
    entries.take_while(follows).collect()
}

/// What the crate starts with. A log that was fetched can be of a later term than the vote on disk:
/// in that term nothing was voted for here.
fn first_state(members: &Members, stored: HardState, base: Place, last: Place) -> WireState {
    let mut state = WireState { term: stored.term.max(last.term), ..WireState::default() };
    let vote = stored.vote.filter(|_| state.term == stored.term);
    let vote = vote.and_then(|key| members.index_of(&key));
    state.vote = vote.map_or(raft::INVALID_ID, |index| u64::from(index.0) + 1);
    state.commit = stored.commit.clamp(base.index, last.index);
    state
}

fn config(genesis: &Genesis, members: &Members, id: u64, applied: u64) -> Config {
    let timeouts = Timeouts::new(&genesis.parameters, election_order(genesis, members, id));
    Config {
        id,
        election_tick: timeouts.lease,
        heartbeat_tick: timeouts.heartbeat,
        // The crate draws from min..max: with one number in it, that is a constant.
        min_election_tick: timeouts.election,
        max_election_tick: timeouts.election + 1,
        applied,
        max_size_per_msg: MAX_ANSWER_BYTES as u64,
        max_inflight_msgs: MAX_INFLIGHT,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        ..Config::default()
    }
}

/// Which members wait how long, from the seed of the genesis: nobody chose it.
fn election_order(genesis: &Genesis, members: &Members, id: u64) -> usize {
    let rank = |key: &NodeId| rota_hash::hash("rota election", &[&genesis.seed.0, &key.0]);
    let ranks: Vec<[u8; 32]> = members.iter().map(|(_, member)| rank(&member.key)).collect();
    let own = usize::try_from(id - 1).ok().and_then(|position| ranks.get(position));
    ranks.iter().filter(|rank| Some(*rank) < own).count()
}

impl Consensus for Raft {
    fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.now = now;
        let is_timer = matches!(event, Event::Timer);
        self.tick(is_timer);
        match event {
            // Alone, there is nobody to wait for.
            Event::Start if self.members.len() == 1 => drop(self.node.campaign()),
            Event::Start => {}
            Event::Message { from, message: Message::Raft(message) } => {
                self.on_message(from, *message);
            }
            Event::Message { message: Message::Final(answer), .. } => self.on_final(answer),
            Event::Message { .. } => {}
            Event::Connected(_) => self.pace.newcomer(),
            Event::Timer => {
                self.pace.look_again();
                self.stand_again();
                self.repeat_snapshots();
                self.look_after_heir();
            }
            Event::Built { block, .. } => self.on_built(block),
            Event::Load(load) => {
                self.load = load;
                self.gather.saw(load.waiting);
                self.pace.look_again();
            }
            Event::Applied(applied) => self.on_applied(applied),
            Event::Read { nonce } => self.read(nonce),
            Event::Yield => self.hand_over(),
            Event::Validated { .. } | Event::Disconnected(_) | Event::Found(_) | Event::Mine(_) => {
            }
        }
        self.carry_out();
        self.look_at_candidacy();
        self.look_at_leader();
        self.answer_reads();
        self.fetch_missing();
        self.release();
        self.flush();
        std::mem::take(&mut self.actions)
    }

    fn drained(&mut self, now: Now) -> Vec<Action> {
        self.now = now;
        self.propose();
        std::mem::take(&mut self.actions)
    }

    fn wake(&self) -> Option<Instant> {
        let tick = self.aside_until().unwrap_or_else(|| self.next_tick());
        let flush = self.noted_at.map(|at| at.plus(FLUSH_AFTER));
        let others = [self.next_empty_block(), self.next_question(), flush, self.held.wake()];
        let others = others.into_iter().chain([self.next_candidacy(), self.next_block()]);
        others.flatten().chain([tick]).min()
    }

    fn slot(&self) -> Slot {
        Slot(self.node.raft.raft_log.last_index())
    }

    fn leader(&self, _slots_ahead: u64) -> Option<NodeId> {
        self.leader_key()
    }

    fn next_turn(&self) -> u64 {
        0
    }

    fn finalizing(&self) -> Slot {
        self.last.block.header.slot
    }

    /// What a majority has is final: nothing is known to be likelier than the rest of the log.
    fn head(&self) -> Head {
        let newest = self.node.store().newest_block(u64::MAX).map(|(id, _)| *id);
        Head { newest, notarized: None }
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn reads(&self) -> Reads {
        Reads::Index
    }

    fn standing(&self, _now: Now) -> Standing {
        Standing::Elected { term: self.node.raft.term, role: self.role() }
    }
}

#[cfg(test)]
mod tests;
