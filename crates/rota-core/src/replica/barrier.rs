//! Linearizable reads (step 1): how far this server must have executed before a read may be served
//! that sees every write acknowledged anywhere before it began.
//!
//! ```text
//! read ─► round: "for which slot did you last vote finalize?" ─► all members
//!                 answers of a quorum ─► slot S ─► a final block at or above S ─► executed ─► read
//!                 no such block in time ─► a transaction of our own that changes nothing, final
//! ```
//!
//! A block is final only once a quorum has voted `finalize` for it or a descendant, and votes are
//! on disk before they are sent. Two quorums share an honest member: one of those that answer after
//! the read began names a slot at or above that of every write that was acknowledged before
//! (docs/decisions/0008). A round serves the reads that waited when it began, never later ones: its
//! nonce tells its answers from those of earlier rounds and earlier lives of this server.
//!
//! Liars can name any slot. As answers come in beyond a quorum, the highest are left out as far as
//! an honest one is sure to remain; and what does not become final in time is not waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::allowance::{Allowance, Rate};
use super::{Output, Replica};
use crate::consensus::{Event, Reads};
use crate::error::{Refusal, sqlstate};
use crate::members::Members;
use crate::message::{Message, Recipient};
use crate::time::Instant;
use crate::transaction::{Envelope, Expiry, Parameters, Settings, Statement, Transaction};
use crate::types::{EnvelopeId, Height, MemberIndex, NodeId, Slot};

/// The least time between two rounds: reads that come meanwhile share the next one.
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// More rounds than this do not wait at once: later reads wait for the next round.
const MAX_ROUNDS: usize = 16;

/// More reads than this do not wait at once: a client hears "busy".
const MAX_READS: usize = 4_096;

/// How long a round waits for a quorum's answers before its reads are refused: some lost messages,
/// and the pause of a garbage-collecting hypervisor.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// How long a read waits in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// An own transaction that did not enter the chain by then never will.
const EXPIRY: Duration = Duration::from_secs(60);

/// The same in blocks.
const EXPIRY_BLOCKS: u64 = 100_000;

/// So many questions of one member at once, and one more every so often: more than [`ROUND_PAUSE`]
/// allows an honest one.
const ANSWERS: Rate = Rate { burst: 64, every: Duration::from_millis(1) };

/// All reads that wait, and what is known for them.
#[derive(Debug)]
pub(super) struct Barriers {
    /// Reads for which no round has begun, with their arrival.
    waiting: Vec<(u64, Instant)>,
    rounds: Vec<Round>,
    next_round: Instant,
    answers: BTreeMap<NodeId, Allowance>,
}

/// One question to all members.
#[derive(Debug)]
struct Round {
    nonce: u64,
    reads: Vec<u64>,
    began: Instant,
    ask_again: Instant,
    answers: BTreeMap<MemberIndex, Slot>,
    /// When a quorum had answered.
    quorum_at: Option<Instant>,
    /// Our own transaction that this round waits for too.
    own: Option<EnvelopeId>,
    /// The height to execute.
    target: Option<Height>,
}

impl Barriers {
    pub fn new(now: Instant) -> Self {
        Self { waiting: Vec::new(), rounds: Vec::new(), next_round: now, answers: BTreeMap::new() }
    }

    /// When there is something to do that no event will tell.
    pub fn wake(&self, slot_timeout: Duration) -> Option<Instant> {
        let next_round =
            (!self.waiting.is_empty() && self.rounds.len() < MAX_ROUNDS).then_some(self.next_round);
        let rounds = self.rounds.iter().map(|round| round.wake(slot_timeout));
        let oldest = self.waiting.first().map(|&(_, arrived)| arrived.plus(PATIENCE));
        rounds.chain(next_round).chain(oldest).min()
    }

    /// A block of this height with these envelopes is final.
    pub fn finalized(&mut self, height: Height, envelopes: &[EnvelopeId]) {
        for round in &mut self.rounds {
            if round.target.is_none() && round.own.is_some_and(|own| envelopes.contains(&own)) {
                round.target = Some(height);
            }
        }
    }
}

impl Round {
    fn wake(&self, slot_timeout: Duration) -> Instant {
        let end = self.began.plus(PATIENCE);
        let give_up = match self.quorum_at {
            None => self.began.plus(ANSWER_PATIENCE),
            Some(_) if self.own.is_some() || self.target.is_some() => end,
            Some(at) => at.plus(slot_timeout * 2),
        };
        let ask_again = if self.target.is_some() { end } else { self.ask_again };
        give_up.min(ask_again).min(end)
    }
}

/// The slot that a final block must reach, if a quorum has answered.
///
/// Of the members that voted `finalize` for a block acknowledged before the round began (more than
/// 2/3 of the weight *W*), those that answered (weight *A*) and do not lie (less than 1/3 do) weigh
/// more than *A* − 2*W*/3. So answers of that weight may be left out, the highest first: one of
/// those members' remains.
fn slot_to_reach(members: &Members, answers: &BTreeMap<MemberIndex, Slot>) -> Option<Slot> {
    let weight = members.weight_of(answers.keys().copied());
    if !members.is_quorum(weight) {
        return None;
    }
    let (answered, total) = (u128::from(weight.0), u128::from(members.total().0));
    let spare = (answered * 3).saturating_sub(total * 2);
    let mut by_slot: Vec<(Slot, u128)> = answers
        .iter()
        .map(|(&member, &slot)| (slot, members.get(member).map_or(0, |m| u128::from(m.weight))))
        .collect();
    by_slot.sort_unstable_by(|a, b| b.cmp(a));
    let mut left_out = 0_u128;
    by_slot.into_iter().find_map(|(slot, weight)| {
        left_out += weight;
        (left_out * 3 > spare).then_some(slot)
    })
}

impl Replica {
    /// A client wants to read what is acknowledged by now.
    pub(super) fn await_barrier(&mut self, id: u64) {
        if let Reads::Refused(why) = self.consensus.reads() {
            let why = Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, why);
            self.outputs.push(Output::BarrierFailed { id, why });
            return;
        }
        let reads = self.barriers.rounds.iter().map(|round| round.reads.len());
        if reads.sum::<usize>() + self.barriers.waiting.len() >= MAX_READS {
            let why = Refusal::new(sqlstate::BUSY, "too many reads are waiting: try again");
            self.outputs.push(Output::BarrierFailed { id, why });
            return;
        }
        self.barriers.waiting.push((id, self.now.instant));
    }

    /// A member asks for the newest slot that we voted to finalize: the answer is on disk, and of
    /// the question's size. A server that has lost its log has forgotten what it voted for.
    pub(super) fn answer_barrier(&mut self, from: NodeId, nonce: u64) {
        let now = self.now.instant;
        if self.members.index_of(&from).is_none() || self.member.is_none() {
            return;
        }
        let allowance = self.barriers.answers.entry(from);
        if allowance.or_insert_with(|| Allowance::new(now, ANSWERS)).take(now) {
            let message = Message::Finalizing { nonce, slot: self.consensus.finalizing() };
            self.outputs.push(Output::Send { to: Recipient::One(from), message });
        }
    }

    /// A member answers.
    pub(super) fn on_barrier_answer(&mut self, from: NodeId, nonce: u64, slot: Slot) {
        let Some(member) = self.members.index_of(&from) else { return };
        let asked = self.barriers.rounds.iter_mut().find(|round| round.nonce == nonce);
        if let Some(round) = asked {
            // Doubled or repeated: the first was as good.
            round.answers.entry(member).or_insert(slot);
        }
    }

    /// Begins rounds, ends rounds, and asks again.
    pub(super) fn look_after_barriers(&mut self) {
        if self.barriers.waiting.is_empty() && self.barriers.rounds.is_empty() {
            return;
        }
        self.end_rounds();
        let now = self.now.instant;
        let too_late = |&(_, arrived): &(u64, Instant)| now.since(arrived) >= PATIENCE;
        let late = self.barriers.waiting.iter().take_while(|read| too_late(read)).count();
        let reads = self.barriers.waiting.drain(..late).map(|(id, _)| id).collect();
        self.fail(reads);
        if self.begin_round() {
            self.end_rounds(); // a server alone has its answer already
        }
    }

    fn end_rounds(&mut self) {
        let mut rounds = std::mem::take(&mut self.barriers.rounds);
        for round in &mut rounds {
            self.aim(round);
        }
        self.write_instead(&mut rounds);
        rounds.retain_mut(|round| self.go_on(round));
        self.barriers.rounds = rounds;
    }

    /// All reads that wait share a round, if it is time for one. Its answers count for none that
    /// come later.
    fn begin_round(&mut self) -> bool {
        let now = self.now.instant;
        let busy = self.barriers.rounds.len() >= MAX_ROUNDS || now < self.barriers.next_round;
        let Some(&(nonce, _)) = self.barriers.waiting.first().filter(|_| !busy) else {
            return false;
        };
        let reads = std::mem::take(&mut self.barriers.waiting);
        let mut answers = BTreeMap::new();
        if let Some(me) = self.member {
            answers.insert(me, self.consensus.finalizing());
        }
        self.barriers.next_round = now.plus(ROUND_PAUSE);
        self.barriers.rounds.push(Round {
            nonce,
            reads: reads.into_iter().map(|(id, _)| id).collect(),
            began: now,
            ask_again: now.plus(self.parameters.slot_timeout() / 2),
            answers,
            quorum_at: None,
            own: None,
            target: None,
        });
        self.ask(nonce, None);
        true
    }

    /// Asks for a round: the members that have not answered, all at first, or the method.
    fn ask(&mut self, nonce: u64, silent: Option<Vec<NodeId>>) {
        if self.consensus.reads() == Reads::Index {
            self.events.push_back(Event::Read { nonce });
            return;
        }
        let message = Message::FinalizingWhat { nonce };
        match silent {
            None if self.members.len() > 1 => {
                self.outputs.push(Output::Send { to: Recipient::Members, message });
            }
            None => {}
            Some(silent) => self.send_to(&silent, &message),
        }
    }

    /// The method says how far a round's reads must go.
    pub(super) fn on_readable(&mut self, nonce: u64, height: Height) {
        let now = self.now.instant;
        let asked = self.barriers.rounds.iter_mut().find(|round| round.nonce == nonce);
        if let Some(round) = asked {
            round.quorum_at.get_or_insert(now);
            round.target.get_or_insert(height);
        }
    }

    /// Sets a round's height once it is known: that of the newest final block, if it has the slot.
    fn aim(&self, round: &mut Round) {
        if round.target.is_some() || self.consensus.reads() != Reads::Ask {
            return;
        }
        let Some(slot) = slot_to_reach(&self.members, &round.answers) else { return };
        round.quorum_at.get_or_insert(self.now.instant);
        let last = &self.chain.last().block.header;
        if last.slot >= slot {
            round.target = Some(last.height);
        }
    }

    /// Rounds whose slot does not become final in time wait for a transaction of our own as well:
    /// it is signed after their reads began, so that what was final then stands before it.
    fn write_instead(&mut self, rounds: &mut [Round]) {
        let (now, patience) = (self.now.instant, self.parameters.slot_timeout() * 2);
        let stuck = |round: &&mut Round| round.target.is_none() && round.own.is_none();
        let is_due = |round: &Round| round.quorum_at.is_some_and(|at| now.since(at) >= patience);
        let due = rounds
            .iter()
            .find(|round| round.target.is_none() && round.own.is_none() && is_due(round));
        let Some(nonce) = due.map(|round| round.nonce) else { return };
        if self.member.is_none() || !self.consensus.is_live() {
            // Looked at again as late once more, not at once and for ever.
            for round in rounds.iter_mut().filter(|round| is_due(round)) {
                round.quorum_at = Some(now);
            }
            return;
        }
        let envelope = Arc::new(self.own_transaction(nonce));
        let id = envelope.id();
        for round in rounds.iter_mut().filter(stuck) {
            round.own = Some(id);
        }
        self.report("a linearizable read waits for a transaction of its own".into());
        self.admit_own(envelope);
    }

    /// A transaction that changes nothing, in the name of this server.
    fn own_transaction(&self, nonce: u64) -> Envelope {
        let parameters = Parameters::Positional(Vec::new());
        let salt = rota_hash::hash("rota barrier", &[&self.me.0, &nonce.to_le_bytes()]);
        let salt = salt.first_chunk().copied().unwrap_or_default();
        let transaction = Transaction {
            salt,
            user: "rota".into(),
            statements: vec![Statement { sql: "SELECT 1".into(), parameters }],
            settings: Settings::default(),
            interactive: None,
        };
        let last = &self.chain.last().block.header;
        let expiry = Expiry {
            height: Height(last.height.0.saturating_add(EXPIRY_BLOCKS)),
            time: last.time.plus(self.now.instant.since(self.final_at)).plus(EXPIRY),
        };
        Envelope::sign(self.chain_id, &self.key, expiry, vec![transaction])
    }

    /// Answers a round's reads if they can be answered; says whether it goes on.
    fn go_on(&mut self, round: &mut Round) -> bool {
        let (now, applied) = (self.now.instant, self.applied.height);
        if round.target.is_some_and(|target| target <= applied) {
            for id in std::mem::take(&mut round.reads) {
                self.outputs.push(Output::BarrierReached { id, height: applied });
            }
            return false;
        }
        let waited = now.since(round.began);
        if waited >= PATIENCE || (round.quorum_at.is_none() && waited >= ANSWER_PATIENCE) {
            self.fail(std::mem::take(&mut round.reads));
            return false;
        }
        if round.target.is_none() && now >= round.ask_again {
            round.ask_again = now.plus(self.parameters.slot_timeout() / 2);
            let silent = self.members.iter().filter(|(index, member)| {
                member.key != self.me && !round.answers.contains_key(index)
            });
            let silent: Vec<NodeId> = silent.map(|(_, member)| member.key).collect();
            self.ask(round.nonce, Some(silent));
        }
        true
    }

    fn fail(&mut self, reads: Vec<u64>) {
        for id in reads {
            let why = Refusal::new(
                sqlstate::CANNOT_CONNECT_NOW,
                "too few servers answered in time to make sure that this read is the newest state: \
                 try again, or read with rota.read = local",
            );
            self.outputs.push(Output::BarrierFailed { id, why });
        }
    }
}

#[cfg(test)]
mod tests;
