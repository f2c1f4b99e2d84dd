//! A block: whose turn it was, what came before, and the envelopes that come next.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::encode;
use crate::crypto::{SecretKey, Signature, Signed};
use crate::genesis::{Genesis, Parameters};
use crate::members::Members;
use crate::time::Time;
use crate::transaction::Envelope;
use crate::types::{
    BlockId, ChainId, Digest, Epoch, Height, MemberIndex, PublicKey, Slot, StateRoot,
};
use crate::work::WorkProof;

/// An executed state that members with more than two thirds of the weight have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Applied {
    /// The height of the last block in it.
    pub height: Height,
    /// Its root.
    pub root: StateRoot,
}

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    /// Has a height and is applied.
    Ordinary,
    /// Empty, without a height of its own, not applied: finalizes the stop block that an epoch ends
    /// with.
    Closing,
}

/// By what right the leader had the turn, beyond the schedule. Methods to come add variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Turn {
    /// The schedule and the signature say it all (`poa`).
    Scheduled,
    /// A majority elected the leader (`raft`).
    Elected {
        /// For this term.
        term: u64,
    },
    /// Whoever finds the hash (`pow`); the header's `leader` is then 0 and means nothing.
    Found {
        /// Whose account is paid.
        miner: PublicKey,
    },
}

/// What a block's id covers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// The epoch whose members vote on it.
    pub epoch: Epoch,
    /// The turn it was proposed in.
    pub slot: Slot,
    /// Its place in the chain: the parent's plus one.
    pub height: Height,
    /// What it is for.
    pub kind: Kind,
    /// The block before.
    pub parent: BlockId,
    /// Whose turn it was.
    pub leader: MemberIndex,
    /// By what right.
    pub turn: Turn,
    /// The agreed time: later than the parent's.
    pub time: Time,
    /// The agreed executed state.
    pub applied: Applied,
    /// The hash of the body: the parent's certificate and the envelopes.
    pub body: Digest,
}

/// What follows the header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// The parent's notarization, or its finalization where a leader that was away knows no other:
    /// this block's time rests on its clocks. `None` only above genesis.
    pub parent_certificate: Option<Certificate>,
    /// What the leader put in, in order.
    pub envelopes: Vec<Arc<Envelope>>,
}

/// A header and its body.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// What the id covers.
    pub header: Header,
    /// What the header's `body` covers.
    pub body: Body,
}

impl Body {
    /// What stands in the header.
    pub fn digest(&self) -> Digest {
        Digest(rota_hash::hash("rota body", &[&encode(self)]))
    }
}

impl Header {
    /// The id of the block with this header.
    pub fn id(&self, chain: ChainId) -> BlockId {
        BlockId(rota_hash::hash("rota block", &[&chain.0, &encode(self)]))
    }
}

impl Block {
    /// Whether as many transactions may stand in it, at its height and time.
    pub fn check_transactions(&self, limits: &Parameters) -> Result<(), &'static str> {
        let Header { height, time, .. } = self.header;
        if self.transaction_count() > limits.block_transactions as usize {
            return Err("it holds too many transactions");
        }
        let out_of_time = |envelope: &Arc<Envelope>| {
            let expiry = envelope.expiry;
            expiry.has_passed(height, time) || expiry.is_too_far(height, time, limits.max_expiry())
        };
        // Anybody may have signed them: who has a key here, and may use it, is known at apply only,
        // the same on every server. A leader that fills its block with strangers' envelopes wastes
        // its own turn.
        match self.body.envelopes.iter().any(out_of_time) {
            true => Err("an envelope's expiry has passed, or lies too far ahead"),
            false => Ok(()),
        }
    }

    /// The block of height and slot 0, which everybody derives from the genesis and nobody
    /// proposes.
    pub fn genesis(genesis: &Genesis) -> Self {
        let body = Body { parent_certificate: None, envelopes: Vec::new() };
        let header = Header {
            epoch: Epoch(0),
            slot: Slot(0),
            height: Height(0),
            kind: Kind::Ordinary,
            parent: BlockId::default(),
            leader: MemberIndex(0),
            turn: Turn::Scheduled,
            time: genesis.time(),
            applied: Applied::default(),
            body: body.digest(),
        };
        Self { header, body }
    }

    /// Its id.
    pub fn id(&self, chain: ChainId) -> BlockId {
        self.header.id(chain)
    }

    /// How many transactions it holds.
    pub fn transaction_count(&self) -> usize {
        self.body.envelopes.iter().map(|envelope| envelope.transactions.len()).sum()
    }
}

/// What makes blocks final, by method.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Finality {
    /// A quorum's votes for the last of them: proof for anyone (`poa`).
    Votes(Certificate),
    /// A majority has them on disk (`raft`): members take each other's word for it.
    Log {
        /// The term of the last one's entry.
        term: u64,
        /// Its place in the log.
        index: u64,
    },
    /// Their depth (`pow`): the proof of each of them, by rising height.
    Work(Vec<WorkProof>),
    /// A snapshot ends with this block; what proves it was checked when it was taken over.
    Snapshot,
}

impl Finality {
    /// The certificate, if it is one.
    pub fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Votes(certificate) => Some(certificate),
            Self::Log { .. } | Self::Work(_) | Self::Snapshot => None,
        }
    }
}

/// A leader's signed block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// What is proposed.
    pub block: Arc<Block>,
    /// The leader's, over [`proposal_bytes`].
    pub signature: Signature,
}

/// What a leader signs: what it is, chain, epoch, and the block's id.
pub fn proposal_bytes(chain: ChainId, epoch: Epoch, block: BlockId) -> Vec<u8> {
    [b"rota proposal".as_slice(), &chain.0, &encode(&(epoch, block))].concat()
}

impl Proposal {
    /// Signs a block.
    pub fn sign(chain: ChainId, key: &SecretKey, block: Arc<Block>) -> Self {
        let signature = key.sign(&proposal_bytes(chain, block.header.epoch, block.id(chain)));
        Self { block, signature }
    }

    /// The leader's signature as a claim to check, if the leader is a member.
    pub fn claim(&self, chain: ChainId, members: &Members) -> Option<Signed> {
        Some(Signed {
            signer: members.get(self.block.header.leader)?.key,
            message: proposal_bytes(chain, self.block.header.epoch, self.block.id(chain)),
            signature: self.signature,
        })
    }
}

/// What a member can say about a slot.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub enum Choice {
    /// "This is the first valid block I saw in this slot."
    Notarize(BlockId),
    /// "This slot took too long": never together with `Finalize`.
    Nullify,
    /// "This block is notarized and I did not vote to skip its slot": never together with
    /// `Nullify`.
    Finalize(BlockId),
}

/// A member's signed word on a slot.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Which epoch's members.
    pub epoch: Epoch,
    /// About which turn.
    pub slot: Slot,
    /// What.
    pub choice: Choice,
    /// Who.
    pub voter: MemberIndex,
    /// The voter's wall clock: block time is made of these.
    pub clock: Time,
    /// What the voter has executed: a header's `applied` is made of these.
    pub applied: Height,
    /// Over [`vote_bytes`].
    pub signature: Signature,
}

fn vote_bytes(
    chain: ChainId,
    epoch: Epoch,
    slot: Slot,
    choice: Choice,
    clock: Time,
    applied: Height,
) -> Vec<u8> {
    [b"rota vote".as_slice(), &chain.0, &encode(&(epoch, slot, choice, clock, applied))].concat()
}

impl Vote {
    /// Signs it as the member `voter`; `unsigned.signature` is replaced.
    pub fn sign(chain: ChainId, key: &SecretKey, mut unsigned: Self) -> Self {
        unsigned.signature = key.sign(&unsigned.signed_bytes(chain));
        unsigned
    }

    /// The signature as a claim to check, if the voter is a member.
    pub fn claim(&self, chain: ChainId, members: &Members) -> Option<Signed> {
        Some(Signed {
            signer: members.get(self.voter)?.key,
            message: self.signed_bytes(chain),
            signature: self.signature,
        })
    }

    fn signed_bytes(&self, chain: ChainId) -> Vec<u8> {
        vote_bytes(chain, self.epoch, self.slot, self.choice, self.clock, self.applied)
    }
}

/// A quorum's votes for the same choice in the same slot: proof for anyone who knows the members.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// Which epoch's members.
    pub epoch: Epoch,
    /// About which turn.
    pub slot: Slot,
    /// What they all said: a notarization, a nullification or a finalization.
    pub choice: Choice,
    /// Who said so, by rising member index, no more than a quorum needs.
    pub votes: Vec<CertificateVote>,
}

/// One vote of a certificate, without what the certificate says already.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CertificateVote {
    /// Who.
    pub voter: MemberIndex,
    /// The voter's wall clock.
    pub clock: Time,
    /// What the voter had executed.
    pub applied: Height,
    /// As in [`Vote`].
    pub signature: Signature,
}

impl Certificate {
    /// The votes as they were cast.
    pub fn votes(&self) -> impl Iterator<Item = Vote> {
        self.votes.iter().map(|vote| Vote {
            epoch: self.epoch,
            slot: self.slot,
            choice: self.choice,
            voter: vote.voter,
            clock: vote.clock,
            applied: vote.applied,
            signature: vote.signature,
        })
    }

    /// Whether the voters are members in rising order, none twice, and a quorum. Signatures are
    /// checked apart, in batches (`verify`).
    pub fn has_quorum(&self, members: &Members) -> bool {
        let rising = self.votes.windows(2).all(|pair| pair[0].voter < pair[1].voter);
        let known = self.votes.iter().all(|vote| members.get(vote.voter).is_some());
        rising
            && known
            && members.is_quorum(members.weight_of(self.votes.iter().map(|vote| vote.voter)))
    }

    /// The lower weighted median of the voters' clocks: at least half of the weight says this or
    /// later, and more than half minus one voter says this or earlier. While liars are under a
    /// third of all, they are under half of a quorum, so it lies between two honest clocks.
    pub fn median_clock(&self, members: &Members) -> Time {
        let mut clocks: Vec<(Time, u64)> = self
            .votes
            .iter()
            .map(|vote| (vote.clock, members.get(vote.voter).map_or(0, |member| member.weight)))
            .collect();
        clocks.sort_unstable();
        let total: u128 = clocks.iter().map(|&(_, weight)| u128::from(weight)).sum();
        let mut below: u128 = 0;
        for (clock, weight) in clocks {
            below += u128::from(weight);
            if 2 * below >= total {
                return clock;
            }
        }
        Time::default()
    }
}
