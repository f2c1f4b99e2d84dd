//! Who stands for election again, and who gives way (step 4): what the `raft` crate leaves to
//! time-outs drawn at random, which here are constant.
//!
//! ```text
//!   the leader is missed ─► asks all (pre-vote) ─► stands in a new term ─► leads
//!                 ▲               │ no majority          │ votes were split
//!                 └── soon again ─┴──────────────────────┘
//! ```
//!
//! The time-outs of two members are 50 ms apart. On a busy machine they wake later than that, ask
//! each other at the same moment, both hear yes, and each votes for itself in the same term: nobody
//! is elected, and the crate would have both wait for their whole time-outs. So the one that comes
//! first in the order of time-outs does not answer the other while it asks itself; and who was not
//! elected asks again soon. A question changes nobody's term, so asking more often disturbs nobody,
//! and not to answer one is always safe (Ongaro 2014, section 9.6).

use std::collections::BTreeSet;
use std::time::Duration;

use raft::StateRole;

use super::ticks::TICK;
use super::{Raft, election_order};
use crate::genesis::Genesis;
use crate::members::Members;
use crate::message::{RaftKind, RaftMessage};
use crate::time::Instant;

/// Who has heard no majority asks again after this. For each election that it has stood in for
/// nothing it waits longer, by this much times its place in the order of time-outs: two members
/// part further each time.
const AGAIN: Duration = TICK.saturating_mul(2);

/// A member's standing for election, from when it misses the leader until one is known.
#[derive(Debug)]
pub(super) struct Candidacy {
    /// This member's place in the order of time-outs.
    order: u32,
    /// Who comes after it.
    later: BTreeSet<u64>,
    /// When it first asked the others.
    since: Option<Instant>,
    /// The elections that it stood in since.
    stood_in: u32,
    again_at: Option<Instant>,
    seen: Seen,
}

/// What of an election was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    term: u64,
    vote: u64,
    role: StateRole,
    leader: u64,
    /// This member stands, and somebody has refused it its vote.
    is_refused: bool,
}

impl Candidacy {
    pub fn new(genesis: &Genesis, members: &Members, id: u64) -> Self {
        let order = |id| election_order(genesis, members, id);
        let (own, ids) = (order(id), 1..=members.len() as u64);
        Self {
            order: u32::try_from(own).unwrap_or(u32::MAX),
            later: ids.filter(|&other| order(other) > own).collect(),
            since: None,
            stood_in: 0,
            again_at: None,
            seen: Seen::default(),
        }
    }

    /// A leader is known, or another candidate has this member's vote.
    fn end(&mut self) {
        (self.since, self.stood_in, self.again_at) = (None, 0, None);
    }

    /// When it asks again, having just failed.
    fn next(&self, now: Instant) -> Instant {
        let later = self.order.saturating_mul(self.stood_in);
        now.plus(AGAIN.saturating_mul(later.saturating_add(1)))
    }
}

impl Default for Seen {
    fn default() -> Self {
        let (role, nobody) = (StateRole::Follower, raft::INVALID_ID);
        Self { term: 0, vote: nobody, role, leader: nobody, is_refused: false }
    }
}

impl Raft {
    fn see(&self) -> Seen {
        let raft = &self.node.raft;
        let (term, vote, role, leader) = (raft.term, raft.vote, raft.state, raft.leader_id);
        let (_, refused, _) = raft.prs().tally_votes();
        Seen { term, vote, role, leader, is_refused: role == StateRole::Candidate && refused > 0 }
    }

    /// Looks at what the last step made of an election.
    pub(super) fn look_at_candidacy(&mut self) {
        let (seen, now) = (self.see(), self.now.instant);
        let before = std::mem::replace(&mut self.candidacy.seen, seen);
        if seen == before {
            return;
        }
        let has_voted = (seen.term, seen.vote) != (before.term, before.vote)
            && ![raft::INVALID_ID, self.id].contains(&seen.vote);
        let stands_anew = seen.role == StateRole::Candidate
            && (seen.term, seen.role) != (before.term, before.role);
        let candidacy = &mut self.candidacy;
        if seen.leader != raft::INVALID_ID || has_voted {
            candidacy.end();
        } else if stands_anew {
            candidacy.since.get_or_insert(now);
            candidacy.stood_in = candidacy.stood_in.saturating_add(1);
            candidacy.again_at = None; // the others' votes are on their way
        } else if seen.role == StateRole::PreCandidate || candidacy.since.is_some() {
            candidacy.since.get_or_insert(now);
            candidacy.again_at = Some(candidacy.next(now));
        }
        self.tell_of_election(before, seen, stands_anew);
    }

    fn tell_of_election(&mut self, before: Seen, seen: Seen, stands_anew: bool) {
        let Seen { term, leader, .. } = seen;
        if stands_anew {
            self.report(format!("term {term}: this server stands for election"));
        }
        if (term, leader) == (before.term, before.leader) {
            return;
        }
        match self.leader_key() {
            Some(_) if leader == self.id => self.report(format!("term {term}: this server leads")),
            Some(key) => self.report(format!("term {term}: {key} leads")),
            None if before.leader == self.id => {
                self.report(format!("term {}: this server leads no more", before.term));
            }
            None if term == before.term => self.report(format!("term {term}: no leader is heard")),
            None => {}
        }
    }

    /// Asks again whether the others would elect this member, if that is due.
    pub(super) fn stand_again(&mut self) {
        let now = self.now.instant;
        if self.candidacy.again_at.is_none_or(|at| at > now) {
            return;
        }
        self.candidacy.again_at = None;
        if self.steps_aside() {
            return;
        }
        self.candidacy.again_at = Some(self.candidacy.next(now));
        let _refused = self.node.campaign();
    }

    /// When it does.
    pub(super) fn next_candidacy(&self) -> Option<Instant> {
        self.candidacy.again_at
    }

    /// Whether a question is not answered since this member asks the same, is as good a leader, and
    /// comes first. For one time-out only: by then it leads, or something keeps it from leading.
    pub(super) fn comes_before(&self, other: u64, message: &RaftMessage) -> bool {
        let raft = &self.node.raft;
        let asks = raft.state == StateRole::PreCandidate
            && self.candidacy.since.is_some_and(|since| {
                let ticks = u32::try_from(raft.randomized_election_timeout()).unwrap_or(u32::MAX);
                self.now.instant.since(since) < TICK.saturating_mul(ticks)
            });
        let log = (raft.raft_log.last_term(), raft.raft_log.last_index());
        message.kind == RaftKind::PreVote
            && asks
            && self.candidacy.later.contains(&other)
            && log >= (message.log_term, message.index)
    }
}
