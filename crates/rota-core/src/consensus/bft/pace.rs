//! When a member acts without being spoken to: the slot timer, idling, silent leaders (R5).
//!
//! All of it is a local choice: only liveness depends on it, never safety. Only durations on this
//! machine's monotonic clock are compared.
//!
//! ```text
//! block due ─ half a time-out ─► leader repeats itself ─ half ─► members vote to skip (R5)
//! ```
//!
//! Nothing is due while all is quiet: the leader holds its proposal until an envelope comes or
//! `idle` has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Bft;
use super::slots::Kind;
use crate::block::Choice;
use crate::genesis::Parameters;
use crate::journal::Record;
use crate::message::{Message, Recipient};
use crate::time::Instant;
use crate::types::{MemberIndex, Slot};

/// How much later than our own measure a block's time may be, beyond the slot's time-out.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

/// How long after the last block an empty one follows, so that the state root of the last full one
/// becomes final.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// Time-outs double with each slot that fails, up to 2⁵ times the genesis' one, and recover by half
/// with each success.
const MAX_DOUBLINGS: u32 = 5;

/// A leader whose slot was skipped.
#[derive(Debug)]
struct Silence {
    until: Slot,
    heard: bool,
}

/// The running slot timer.
#[derive(Debug)]
struct Timer {
    started: Instant,
    next: Instant,
    nudged: bool,
}

/// What the timing of this member rests on.
#[derive(Debug)]
pub(super) struct Pace {
    base: Duration,
    idle: Duration,
    failures: u32,
    silent: BTreeMap<MemberIndex, Silence>,
    timer: Option<Timer>,
    entered_at: Instant,
    quiet_since: Instant,
    wake: Option<Instant>,
    /// Somebody came (back) during this slot: a block brings it up to date.
    newcomer: bool,
}

impl Pace {
    pub fn new(parameters: &Parameters, now: Instant) -> Self {
        Self {
            base: parameters.slot_timeout(),
            idle: parameters.idle(),
            failures: 0,
            silent: BTreeMap::new(),
            timer: None,
            entered_at: now,
            quiet_since: now,
            wake: None,
            newcomer: false,
        }
    }

    /// How long a slot may take now.
    pub fn timeout(&self) -> Duration {
        self.base.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS))
    }

    /// The genesis' slot time-out.
    pub fn base(&self) -> Duration {
        self.base
    }

    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    pub fn entered(&mut self, now: Instant) {
        self.entered_at = now;
        self.timer = None;
        self.newcomer = false;
    }

    pub fn newcomer(&mut self) {
        self.newcomer = true;
    }

    pub fn finalized(&mut self, now: Instant) {
        self.quiet_since = now;
    }

    /// A slot of this leader was notarized.
    pub fn succeeded(&mut self, leader: MemberIndex) {
        self.failures /= 2;
        self.silent.remove(&leader);
    }

    /// A slot of this leader was skipped: it counts as silent for the rest of its turn and until it
    /// is heard again. Only the first such slot says anything about how long slots should take.
    pub fn failed(&mut self, leader: MemberIndex, slot: Slot, turn_end: Slot) {
        if !self.is_silent(leader, slot) {
            self.failures = (self.failures + 1).min(MAX_DOUBLINGS);
        }
        self.silent.insert(leader, Silence { until: turn_end, heard: false });
    }

    pub fn heard(&mut self, member: MemberIndex) {
        if let Some(silence) = self.silent.get_mut(&member) {
            silence.heard = true;
        }
    }

    fn is_silent(&self, leader: MemberIndex, slot: Slot) -> bool {
        self.silent.get(&leader).is_some_and(|silence| slot <= silence.until || !silence.heard)
    }

    /// When an empty block is due though nothing waits.
    fn quiet_due(&self, unconfirmed: bool) -> Instant {
        self.quiet_since.plus(if unconfirmed { CONFIRM_AFTER } else { self.idle })
    }
}

impl Bft {
    pub(super) fn heard(&mut self, member: MemberIndex) {
        self.pace.heard(member);
    }

    /// Whether a notarized block waits to become final.
    fn is_unfinal(&self) -> bool {
        self.slots.values().any(|state| state.certified_block().is_some())
    }

    /// Whether the leader proposes an empty block if nothing waits.
    pub(super) fn is_block_due(&self) -> bool {
        let now = self.now.instant;
        let asked_for = self.slots.get(&self.slot).is_some_and(|state| state.has_nullify());
        let stuck = (self.is_unfinal() || self.load.waiting > 0) && now >= self.half_time();
        let newcomer = self.pace.newcomer;
        !self.live
            || asked_for
            || newcomer
            || stuck
            || now >= self.pace.quiet_due(self.load.unconfirmed)
    }

    fn half_time(&self) -> Instant {
        self.pace.entered_at.plus(self.pace.timeout() / 2)
    }

    /// Whether this member knows of anything unfinished, so that the slot's timer runs.
    fn is_unfinished(&self) -> bool {
        let begun = self
            .slots
            .get(&self.slot)
            .is_some_and(|state| state.proposal.is_some() || state.has_nullify());
        let due = self.now.instant >= self.pace.quiet_due(self.load.unconfirmed);
        self.load.waiting > 0 || begun || due || !self.live || self.is_unfinal()
    }

    /// Starts, stops and fires the slot timer.
    pub(super) fn keep_pace(&mut self) {
        let Some(me) = self.me else { return };
        let now = self.now.instant;
        let mut fired = false;
        loop {
            self.set_timer();
            let timeout = self.pace.timeout();
            let Some(timer) = &mut self.pace.timer else { break };
            if now >= timer.next && !fired {
                timer.next = now.plus(timeout);
                fired = true;
                self.time_out(me);
                self.advance();
                continue; // a quorum may have let us into the next slot, with a timer of its own
            }
            if !timer.nudged && now >= timer.started.plus(timeout / 2) {
                timer.nudged = true;
                if self.is_mine(self.slot) {
                    self.repeat();
                }
            }
            break;
        }
        self.pace.wake = self.next_wake();
    }

    fn set_timer(&mut self) {
        if !self.is_unfinished() {
            self.pace.timer = None;
        } else if self.pace.timer.is_none() {
            let started = self.now.instant;
            let leader = self.schedule.leader(self.slot);
            let given_up = self.me != Some(leader) && self.pace.is_silent(leader, self.slot);
            let next = if given_up { started } else { started.plus(self.pace.timeout()) };
            self.pace.timer = Some(Timer { started, next, nudged: false });
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let quiet = self.pace.quiet_due(self.load.unconfirmed);
        let Some(timer) = &self.pace.timer else { return Some(quiet) };
        let mut wake = timer.next;
        if !timer.nudged {
            wake = wake.min(timer.started.plus(self.pace.timeout() / 2));
        }
        if self.may_propose() {
            wake = [quiet, self.half_time()]
                .into_iter()
                .filter(|&at| at > self.now.instant)
                .fold(wake, Instant::min);
        }
        Some(wake)
    }

    /// R5: the slot took too long.
    fn time_out(&mut self, me: MemberIndex) {
        let slot = self.slot;
        let spoken = |kind| self.own_vote(slot, kind).is_some();
        if !spoken(Kind::Nullify) && !spoken(Kind::Finalize) {
            let vote = self.signed_vote(me, slot, Choice::Nullify);
            let record = Record::Nullified(vote.clone());
            self.cast(vote, record);
        }
        self.repeat();
    }

    /// R8: says again what concerns blocks that are not final: our votes, the certificate that let
    /// us in, our proposal.
    pub(super) fn repeat(&mut self) {
        for message in self.own_words() {
            self.send(Recipient::Members, message);
        }
    }

    /// What `repeat` says, and what a member hears first on a new stream.
    pub(super) fn own_words(&self) -> Vec<Message> {
        /// The newest slots that votes are repeated for: an older one's block becomes final with
        /// theirs.
        const REPEATED_SLOTS: usize = 8;
        let mut words = Vec::new();
        if let Some(certificate) = self.entering_certificate() {
            words.push(Message::Certificate(certificate.clone()));
        }
        if self.is_mine(self.slot)
            && let Some(proposal) =
                self.slots.get(&self.slot).and_then(|state| state.proposal.clone())
        {
            words.push(Message::Proposal(proposal));
        }
        let Some(me) = self.me else { return words };
        let newest = self.slots.range(..=self.slot).rev().take(REPEATED_SLOTS);
        for (_, state) in newest {
            for kind in [Kind::Notarize, Kind::Nullify, Kind::Finalize] {
                words.extend(state.vote(kind, me).cloned().map(Message::Vote));
            }
        }
        words
    }
}
