//! What a member knows of one slot: proposals, votes, certificates, and its own word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block::{Block, Certificate, CertificateVote, Choice, Proposal, Vote};
use crate::members::Members;
use crate::time::Instant;
use crate::types::{BlockId, Epoch, MemberIndex, Slot, Weight};

/// A leader that signs more than one block for a slot is remembered with two of them: enough for
/// evidence.
const MAX_BODIES: usize = 2;

/// Where the content check of the slot's proposal stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    /// Not asked.
    #[default]
    No,
    /// Asked, or to be asked again.
    Asked,
    /// It is right.
    Valid,
    /// It is wrong.
    Invalid,
}

/// The three kinds of votes, and of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `notarize`.
    Notarize,
    /// `nullify`.
    Nullify,
    /// `finalize`.
    Finalize,
}

impl Kind {
    pub(super) fn of(choice: Choice) -> Self {
        match choice {
            Choice::Notarize(_) => Self::Notarize,
            Choice::Nullify => Self::Nullify,
            Choice::Finalize(_) => Self::Finalize,
        }
    }
}

/// What became of a vote that was added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is new.
    New,
    /// It was known: the sender repeats itself, and so lacks something.
    Repeated,
    /// It contradicts an earlier vote of the same member.
    Contradiction(&'static str),
}

/// One slot.
#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// The first proposal by the slot's leader, the only one that may get our vote.
    pub proposal: Option<Proposal>,
    /// The bodies proposed for this slot, by block id.
    pub bodies: BTreeMap<BlockId, Arc<Block>>,
    /// Each member's first vote of each kind.
    votes: BTreeMap<(Kind, MemberIndex), Vote>,
    /// A quorum's votes.
    pub notarization: Option<Certificate>,
    /// A quorum's votes.
    pub nullification: Option<Certificate>,
    /// A quorum's votes.
    pub finalization: Option<Certificate>,
    /// The content check of `proposal`.
    pub check: Check,
    /// When this server first knew of the notarization.
    pub notarized_at: Option<Instant>,
    /// Whether the notarization was made of votes that came in one by one in this run, so that its
    /// clocks are recent.
    pub notarized_live: bool,
    /// When our `notarize` vote was cast in this run.
    pub voted_at: Option<Instant>,
    /// The members of whom it is in the log already that they contradicted themselves here.
    pub reported: BTreeSet<MemberIndex>,
    /// Whether a block was asked for and not given yet.
    pub building: bool,
}

impl SlotState {
    /// Adds a vote whose signature is good.
    pub fn add(&mut self, vote: Vote) -> Added {
        let kind = Kind::of(vote.choice);
        if let Some(first) = self.votes.get(&(kind, vote.voter)) {
            if first.choice == vote.choice {
                return Added::Repeated;
            }
            return Added::Contradiction("voted for two blocks in one slot");
        }
        let excluded = match kind {
            Kind::Notarize => None,
            Kind::Nullify => Some(Kind::Finalize),
            Kind::Finalize => Some(Kind::Nullify),
        };
        let both = excluded.is_some_and(|other| self.votes.contains_key(&(other, vote.voter)));
        self.votes.insert((kind, vote.voter), vote);
        if both {
            return Added::Contradiction("voted both to finalize and to skip one slot");
        }
        Added::New
    }

    /// A member's first vote of a kind.
    pub fn vote(&self, kind: Kind, voter: MemberIndex) -> Option<&Vote> {
        self.votes.get(&(kind, voter))
    }

    /// The choices that anyone voted for, each once.
    pub fn choices(&self) -> BTreeSet<Choice> {
        self.votes.values().map(|vote| vote.choice).collect()
    }

    /// Whether anyone voted to skip this slot.
    pub fn has_nullify(&self) -> bool {
        self.votes.keys().any(|(kind, _)| *kind == Kind::Nullify)
    }

    /// The certificate of a kind.
    pub fn certificate(&self, kind: Kind) -> Option<&Certificate> {
        match kind {
            Kind::Notarize => self.notarization.as_ref(),
            Kind::Nullify => self.nullification.as_ref(),
            Kind::Finalize => self.finalization.as_ref(),
        }
    }

    /// Makes a certificate of the votes for a choice, if they are a quorum: by rising index, no
    /// more than needed.
    pub fn form(
        &self,
        members: &Members,
        epoch: Epoch,
        slot: Slot,
        choice: Choice,
    ) -> Option<Certificate> {
        let kind = Kind::of(choice);
        let agreeing = self
            .votes
            .range((kind, MemberIndex(0))..=(kind, MemberIndex(u16::MAX)))
            .filter(|(_, vote)| vote.choice == choice);
        let mut votes = Vec::new();
        let mut weight = 0;
        for (_, vote) in agreeing {
            weight += members.get(vote.voter).map_or(0, |member| member.weight);
            votes.push(CertificateVote {
                voter: vote.voter,
                clock: vote.clock,
                applied: vote.applied,
                signature: vote.signature,
            });
            if members.is_quorum(Weight(weight)) {
                return Some(Certificate { epoch, slot, choice, votes });
            }
        }
        None
    }

    /// The block that a notarization or finalization names.
    pub fn certified_block(&self) -> Option<BlockId> {
        let certificate = self.finalization.as_ref().or(self.notarization.as_ref())?;
        match certificate.choice {
            Choice::Notarize(block) | Choice::Finalize(block) => Some(block),
            Choice::Nullify => None,
        }
    }

    /// Keeps a body: the certified block's always, others while there is room.
    /// Says whether it was kept.
    pub fn keep_body(&mut self, id: BlockId, block: Arc<Block>) -> bool {
        let keep = self.bodies.len() < MAX_BODIES || self.certified_block() == Some(id);
        if keep {
            self.bodies.insert(id, block);
        }
        keep
    }
}
