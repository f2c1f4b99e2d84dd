//! Members that lie. A liar runs an honest server, and what that server says is twisted on its way
//! out: one behaviour, one function. It signs with its own key only; nobody can do more without
//! breaking Ed25519.
//!
//! ```text
//!   its replica ──► message ──► behaviour 1 ──► behaviour 2 ──► … ──► network
//! ```

mod work;

use std::sync::Arc;

use rota_core::block::{Block, Certificate, CertificateVote, Choice, Header, Proposal, Vote};
use rota_core::codec::{decode, encode};
use rota_core::crypto::{SecretKey, Signature};
use rota_core::message::{FinalBlocks, MAX_MESSAGE_BYTES, Message, Recipient};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Parameters, Settings, Statement, Transaction};
use rota_core::types::{BlockId, ChainId, Height, MemberIndex, NodeId, Slot, StateRoot};

use crate::clients::{KEYED, keyed};
use crate::random::Random;
use crate::scenario::DECADE_MS;

/// One way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// Proposes one block to some and another to the others, and votes for both.
    TwoBlocks,
    /// Votes for a second block, and to skip as well as to finalize.
    VotesTwice,
    /// Sends certificates that prove nothing.
    ForgesCertificates,
    /// Claims another state root in its headers.
    WrongRoot,
    /// Votes and asks for slots and heights that are nowhere near.
    FloodsFarAhead,
    /// Claims decades in its votes, and in its blocks.
    LiesAboutClock,
    /// Claims in its votes to have executed what does not exist.
    LiesAboutApplied,
    /// Says what it says to some only.
    Withholds,
    /// Says old things again.
    RepeatsOld,
    /// Breaks a rule of its block's header or body.
    SpoilsBlocks,
    /// Answers with final blocks that are not.
    FalseHistory,
    /// Answers readers' servers with slots that it did not vote for, and asks too often itself.
    LiesAboutFinalizing,
    /// Signs in the name of a user who has a key of its own, and says that others' words are that
    /// user's.
    SignsForOthers,
    /// Flips a bit.
    Garbles,
    /// Shows a proof with a hash above its target.
    TooLittleWork,
    /// Says that its block is of a far future.
    FarFuture,
    /// Says that its block is older than those before it.
    OldTime,
    /// Takes an easier target than the one that is due.
    WrongTarget,
    /// Claims another state root in a block that it has found.
    WrongRootMined,
    /// Breaks another rule of such a block's header.
    SpoilsMined,
    /// Shows proofs, and never their blocks.
    WithholdsBodies,
    /// Sends what no block will hold, and asks without end.
    Spams,
}

impl Behaviour {
    /// Every one of a voting member.
    pub const ALL: [Self; 14] = [
        Self::TwoBlocks,
        Self::VotesTwice,
        Self::ForgesCertificates,
        Self::WrongRoot,
        Self::FloodsFarAhead,
        Self::LiesAboutClock,
        Self::LiesAboutApplied,
        Self::Withholds,
        Self::RepeatsOld,
        Self::SpoilsBlocks,
        Self::FalseHistory,
        Self::LiesAboutFinalizing,
        Self::SignsForOthers,
        Self::Garbles,
    ];

    /// Every one of a miner.
    pub const POW: [Self; 12] = [
        Self::TooLittleWork,
        Self::FarFuture,
        Self::OldTime,
        Self::WrongTarget,
        Self::WrongRootMined,
        Self::SpoilsMined,
        Self::WithholdsBodies,
        Self::Spams,
        Self::Withholds,
        Self::RepeatsOld,
        Self::SignsForOthers,
        Self::Garbles,
    ];
}

/// How many transactions a liar forges: enough to fill the blocks of a run in which one holds a
/// single transaction, and not so many that nothing else is simulated.
const FORGERIES: u32 = 200;

/// In the name of the user that only its own key signs for.
fn forgery(salt: [u8; 16]) -> Transaction {
    let sql = "INSERT INTO forged VALUES (1)".into();
    Transaction {
        salt,
        user: KEYED.into(),
        statements: vec![Statement { sql, parameters: Parameters::Positional(Vec::new()) }],
        settings: Settings::default(),
        interactive: None,
    }
}

/// How many old messages a liar keeps to say again.
const KEPT: usize = 64;

type Outgoing = Vec<(Recipient, Message)>;

/// One lying member.
pub struct Liar {
    chain: ChainId,
    key: SecretKey,
    member: MemberIndex,
    others: Vec<NodeId>,
    behaviours: Vec<Behaviour>,
    old: Vec<Message>,
    forged: u32,
    random: Random,
}

impl Liar {
    /// The member with this key and place, who knows the others.
    pub fn new(
        chain: ChainId,
        key: SecretKey,
        member: MemberIndex,
        others: Vec<NodeId>,
        behaviours: Vec<Behaviour>,
        random: Random,
    ) -> Self {
        Self { chain, key, member, others, behaviours, old: Vec::new(), forged: 0, random }
    }

    /// What it sends instead of an honest message.
    pub fn twist(&mut self, to: Recipient, message: Message) -> Outgoing {
        self.overhear(&message);
        let mut outgoing = vec![(to, message)];
        for behaviour in self.behaviours.clone() {
            outgoing = outgoing
                .into_iter()
                .flat_map(|(to, message)| self.behave(behaviour, to, message))
                .collect();
        }
        outgoing
    }

    /// Keeps what it hears, to say it again later.
    pub fn overhear(&mut self, message: &Message) {
        if self.old.len() < KEPT {
            self.old.push(message.clone());
        } else {
            let place = self.random.index(KEPT);
            self.old[place] = message.clone();
        }
    }

    fn behave(&mut self, behaviour: Behaviour, to: Recipient, message: Message) -> Outgoing {
        match behaviour {
            Behaviour::TwoBlocks => self.two_blocks(to, message),
            Behaviour::VotesTwice => self.votes_twice(to, message),
            Behaviour::ForgesCertificates => self.forges_certificates(to, message),
            Behaviour::WrongRoot => self.wrong_root(to, message),
            Behaviour::FloodsFarAhead => self.floods_far_ahead(to, message),
            Behaviour::LiesAboutClock => self.lies_about_clock(to, message),
            Behaviour::LiesAboutApplied => self.lies_about_applied(to, message),
            Behaviour::Withholds => self.withholds(to, message),
            Behaviour::RepeatsOld => self.repeats_old(to, message),
            Behaviour::SpoilsBlocks => self.spoils_blocks(to, message),
            Behaviour::FalseHistory => self.false_history(to, message),
            Behaviour::LiesAboutFinalizing => self.lies_about_finalizing(to, message),
            Behaviour::SignsForOthers => self.signs_for_others(to, message),
            Behaviour::Garbles => self.garbles(to, message),
            Behaviour::TooLittleWork => self.too_little_work(to, message),
            Behaviour::FarFuture => self.far_future(to, message),
            Behaviour::OldTime => self.old_time(to, message),
            Behaviour::WrongTarget => self.wrong_target(to, message),
            Behaviour::WrongRootMined => self.wrong_root_mined(to, message),
            Behaviour::SpoilsMined => self.spoils_mined(to, message),
            Behaviour::WithholdsBodies => self.withholds_bodies(to, message),
            Behaviour::Spams => self.spams(to, message),
        }
    }

    fn two_blocks(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Proposal(proposal) = &message else { return vec![(to, message)] };
        let other = self.changed(&proposal.block, |header| header.time.0 += 1);
        let id = other.block.id(self.chain);
        let slot = other.block.header.slot;
        let mut outgoing = Vec::new();
        for &peer in &self.others.clone() {
            let second = self.random.per_mille(500);
            let said = if second { Message::Proposal(other.clone()) } else { message.clone() };
            outgoing.push((Recipient::One(peer), said));
            if second || self.random.per_mille(300) {
                let vote = self.vote(slot, Choice::Notarize(id), other.block.header.time);
                outgoing.push((Recipient::One(peer), Message::Vote(vote)));
            }
        }
        outgoing
    }

    fn signs_for_others(&mut self, to: Recipient, message: Message) -> Outgoing {
        let expiry = self.old.iter().find_map(|old| match old {
            Message::Envelopes(envelopes) => envelopes.first().map(|envelope| envelope.expiry),
            Message::Proposal(proposal) => {
                proposal.block.body.envelopes.first().map(|envelope| envelope.expiry)
            }
            _ => None,
        });
        let Some(expiry) = expiry.filter(|_| self.forged < FORGERIES) else {
            return vec![(to, message)];
        };
        self.forged += 1;
        let transaction = forgery(self.random.bytes());
        let mut envelope = Envelope::sign(self.chain, &self.key, expiry, vec![transaction]);
        if self.random.per_mille(300) {
            // Nobody's signature for these words: the whole message is thrown away.
            envelope.signer = keyed().public();
        }
        let mut forged = vec![Arc::new(envelope)];
        if let Message::Envelopes(envelopes) = &message {
            forged.extend(envelopes.iter().cloned());
        }
        vec![(to.clone(), Message::Envelopes(forged)), (to, message)]
    }

    fn votes_twice(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Vote(vote) = &message else { return vec![(to, message)] };
        let (slot, clock) = (vote.slot, vote.clock);
        let known = self.old.iter().find_map(|old| match old {
            Message::Proposal(p) if p.block.header.slot == slot => Some(p.block.id(self.chain)),
            _ => None,
        });
        let block = known.unwrap_or(BlockId(self.random.bytes()));
        let choices = [Choice::Notarize(block), Choice::Finalize(block), Choice::Nullify];
        let second = self.random.choose(&choices);
        let second = self.vote(slot, second, clock);
        vec![(to.clone(), Message::Vote(second)), (to, message)]
    }

    fn forges_certificates(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Certificate(certificate) = &message else { return vec![(to, message)] };
        let mut forged = certificate.clone();
        match self.random.below(8) {
            6 => self.alone(&mut forged, Choice::Nullify),
            7 => {
                let block = BlockId(self.random.bytes());
                self.alone(&mut forged, Choice::Finalize(block));
            }
            0 => forged.slot = Slot(forged.slot.0 + self.random.between(1, 3)),
            1 => forged.choice = Choice::Nullify,
            2 => {
                let (Choice::Notarize(id) | Choice::Finalize(id)) = forged.choice else {
                    return vec![(to, message)];
                };
                forged.choice = Choice::Finalize(id);
            }
            3 => drop(forged.votes.pop()),
            4 => {
                if let Some(first) = forged.votes.first().cloned() {
                    forged.votes = vec![first; forged.votes.len()];
                }
            }
            _ => self.only_own(&mut forged),
        }
        vec![(to.clone(), Message::Certificate(forged)), (to, message)]
    }

    /// A certificate of one vote, its own, which is well signed.
    fn alone(&mut self, certificate: &mut Certificate, choice: Choice) {
        let vote = self.vote(certificate.slot, choice, Time(0));
        let (voter, clock, applied, signature) =
            (vote.voter, vote.clock, vote.applied, vote.signature);
        certificate.choice = choice;
        certificate.votes = vec![CertificateVote { voter, clock, applied, signature }];
    }

    /// Its own signature under everybody's name.
    fn only_own(&mut self, certificate: &mut Certificate) {
        let (slot, choice) = (certificate.slot, certificate.choice);
        let own = self.vote(slot, choice, Time(0)).signature;
        for vote in &mut certificate.votes {
            vote.clock = Time(0);
            vote.applied = Height(0);
            vote.signature = own;
        }
    }

    fn wrong_root(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Proposal(proposal) = &message else { return vec![(to, message)] };
        let root = StateRoot(self.random.bytes());
        let wrong = self.changed(&proposal.block, |header| header.applied.root = root);
        vec![(to, Message::Proposal(wrong))]
    }

    fn floods_far_ahead(&mut self, to: Recipient, message: Message) -> Outgoing {
        let mut outgoing = Vec::new();
        if let Message::Vote(vote) = &message {
            for _ in 0..8 {
                let far = self.random.choose(&[1, 2, 20, 1_000, u64::MAX / 2]);
                let slot = Slot(vote.slot.0.saturating_add(self.random.between(1, far)));
                let block = BlockId(self.random.bytes());
                let choices = [Choice::Notarize(block), Choice::Finalize(block), Choice::Nullify];
                let choice = self.random.choose(&choices);
                let vote = self.vote(slot, choice, vote.clock);
                outgoing.push((to.clone(), Message::Vote(vote)));
            }
            let last = self.vote(Slot(u64::MAX), Choice::Nullify, vote.clock);
            outgoing.push((to.clone(), Message::Vote(last)));
        }
        outgoing.push((to, message));
        outgoing
    }

    fn lies_about_clock(&mut self, to: Recipient, message: Message) -> Outgoing {
        let wrong = self.random.choose(&[0, u64::MAX, 4 * DECADE_MS.unsigned_abs()]);
        match message {
            Message::Vote(mut vote) if vote.voter == self.member => {
                vote.clock = Time(wrong);
                vec![(to, Message::Vote(Vote::sign(self.chain, &self.key, vote)))]
            }
            Message::Proposal(proposal) if self.random.per_mille(500) => {
                // Twenty minutes pass no envelope's expiry: nothing but the time is wrong then.
                let near = Time(proposal.block.header.time.0.saturating_add(20 * 60_000));
                let wrong = self.random.choose(&[Time(wrong), near, near]);
                let wrong = self.changed(&proposal.block, |header| header.time = wrong);
                vec![(to, Message::Proposal(wrong))]
            }
            other => vec![(to, other)],
        }
    }

    fn lies_about_applied(&mut self, to: Recipient, message: Message) -> Outgoing {
        match message {
            Message::Vote(mut vote) if vote.voter == self.member => {
                vote.applied = Height(self.random.choose(&[0, 1, 1_000, u64::MAX]));
                vec![(to, Message::Vote(Vote::sign(self.chain, &self.key, vote)))]
            }
            other => vec![(to, other)],
        }
    }

    fn withholds(&mut self, to: Recipient, message: Message) -> Outgoing {
        let peers: Vec<NodeId> = match to {
            Recipient::One(peer) => vec![peer],
            Recipient::Members => self.others.clone(),
            Recipient::MembersBut(peer) => {
                self.others.iter().copied().filter(|&other| other != peer).collect()
            }
        };
        let told = |_: &NodeId| self.random.per_mille(500);
        let told: Vec<NodeId> = peers.into_iter().filter(told).collect();
        told.into_iter().map(|peer| (Recipient::One(peer), message.clone())).collect()
    }

    fn repeats_old(&mut self, to: Recipient, message: Message) -> Outgoing {
        let mut outgoing = vec![(to.clone(), message)];
        if !self.old.is_empty() && self.random.per_mille(300) {
            let old = self.old[self.random.index(self.old.len())].clone();
            outgoing.push((to, old));
        }
        outgoing
    }

    fn spoils_blocks(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Proposal(proposal) = &message else { return vec![(to, message)] };
        let mut block = Block::clone(&proposal.block);
        let header = &mut block.header;
        match self.random.below(9) {
            0 => header.height = header.height.next(),
            1 => header.parent = BlockId(self.random.bytes()),
            2 => header.slot = header.slot.next(),
            3 => header.leader = MemberIndex(header.leader.0.wrapping_add(1)),
            4 => header.time = Time(0),
            5 => header.applied.height = header.height,
            6 => block.body.parent_certificate = None,
            7 => {
                // What is in the chain already, once more.
                let first = |old: &Message| match old {
                    Message::Proposal(p) => p.block.body.envelopes.first().cloned(),
                    Message::Envelopes(envelopes) => envelopes.first().cloned(),
                    _ => None,
                };
                let known: Vec<_> = self.old.iter().filter_map(first).collect();
                let again =
                    (!known.is_empty()).then(|| known[self.random.index(known.len())].clone());
                block.body.envelopes.extend(again.iter().cloned());
                block.body.envelopes.extend(again);
            }
            _ => {
                if let Some(first) = block.body.envelopes.first_mut() {
                    Arc::make_mut(first).signature = Signature([7; 64]);
                }
            }
        }
        block.header.body = block.body.digest();
        let spoilt = Proposal::sign(self.chain, &self.key, Arc::new(block));
        vec![(to, Message::Proposal(spoilt))]
    }

    fn false_history(&mut self, to: Recipient, message: Message) -> Outgoing {
        let Message::Final(answer) = &message else { return vec![(to, message)] };
        let FinalBlocks { mut blocks, finality } = answer.clone();
        match self.random.below(4) {
            0 => drop(blocks.pop()),
            1 => blocks.reverse(),
            2 => drop(blocks.remove(0)),
            _ => {
                if let Some(first) = blocks.first_mut() {
                    Arc::make_mut(first).header.time.0 += 1;
                }
            }
        }
        vec![(to, Message::Final(FinalBlocks { blocks, finality }))]
    }

    fn lies_about_finalizing(&mut self, to: Recipient, message: Message) -> Outgoing {
        match message {
            Message::Finalizing { nonce, slot } => {
                let near = Slot(slot.0.saturating_add(self.random.between(1, 3)));
                let wrong = [Slot(0), Slot(u64::MAX), near, Slot(slot.0.saturating_add(1_000))];
                let slot = self.random.choose(&wrong);
                let other = self.random.choose(&[nonce, nonce, nonce ^ 1]);
                vec![(to, Message::Finalizing { nonce: other, slot })]
            }
            Message::Vote(_) if self.random.per_mille(200) => {
                let asks = |_| {
                    let nonce = u64::from_le_bytes(self.random.bytes());
                    (to.clone(), Message::FinalizingWhat { nonce })
                };
                let mut outgoing: Outgoing = (0..100).map(asks).collect();
                outgoing.push((to, message));
                outgoing
            }
            other => vec![(to, other)],
        }
    }

    fn garbles(&mut self, to: Recipient, message: Message) -> Outgoing {
        if !self.random.per_mille(200) {
            return vec![(to, message)];
        }
        let mut bytes = encode(&message);
        let place = self.random.index(bytes.len());
        bytes[place] ^= 1 << self.random.below(8);
        match decode(&bytes, MAX_MESSAGE_BYTES) {
            Ok(garbled) => vec![(to, garbled)],
            Err(_) => Vec::new(),
        }
    }

    fn changed(&self, block: &Block, change: impl FnOnce(&mut Header)) -> Proposal {
        let mut block = block.clone();
        change(&mut block.header);
        Proposal::sign(self.chain, &self.key, Arc::new(block))
    }

    fn vote(&self, slot: Slot, choice: Choice, clock: Time) -> Vote {
        let unsigned = Vote {
            epoch: rota_core::types::Epoch(0),
            slot,
            choice,
            voter: self.member,
            clock,
            applied: Height(0),
            signature: Signature([0; 64]),
        };
        Vote::sign(self.chain, &self.key, unsigned)
    }
}
