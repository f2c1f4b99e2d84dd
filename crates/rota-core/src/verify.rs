//! Checks of what peers send, before it reaches the replica: form, then signatures, many in one
//! batch. Stands between steps 5 and 6; runs on the node's workers, and in the simulator.
//!
//! What was verified once is remembered by its hash: votes come again inside certificates,
//! envelopes inside blocks.

use std::collections::{BTreeSet, VecDeque};

use crate::block::{Block, Certificate, Choice, Proposal};
use crate::codec::encode;
use crate::crypto::{Signed, verify_batch};
use crate::error::Invalid;
use crate::genesis::Genesis;
use crate::members::Members;
use crate::message::{FinalBlocks, Message};
use crate::transaction::{Envelope, MAX_ENVELOPE_BYTES};
use crate::types::ChainId;

/// How many verified signatures are remembered; 32 bytes each, twice.
const REMEMBERED: usize = 32_768;

/// Room for header and parent certificate beside a block's envelopes.
pub const MAX_BLOCK_OVERHEAD: usize = 64 << 10;

/// Checks messages of one epoch's members.
pub struct Verifier {
    chain: ChainId,
    members: Members,
    block_bytes: usize,
    seen: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Verifier {
    /// For the first epoch of this genesis, which has been checked.
    pub fn new(genesis: &Genesis, members: Members) -> Self {
        Self {
            chain: genesis.chain_id(),
            members,
            block_bytes: genesis.parameters.block_bytes as usize,
            seen: BTreeSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Checks messages; the answers stand in the same order. `entropy` is for the batch equation
    /// (`crypto`).
    pub fn check(&mut self, messages: &[Message], entropy: [u8; 32]) -> Vec<Result<(), Invalid>> {
        let mut claims = Vec::new();
        let mut owners = Vec::new();
        let mut answers: Vec<Result<(), Invalid>> = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let answer = self.form(message).map(|wanted| {
                for claim in wanted {
                    let key = fingerprint(&claim);
                    if !self.seen.contains(&key) {
                        claims.push(claim);
                        owners.push((index, key));
                    }
                }
            });
            answers.push(answer);
        }
        if verify_batch(&claims, entropy).is_ok() {
            for (_, key) in owners {
                self.remember(key);
            }
            return answers;
        }
        for (claim, (index, key)) in claims.iter().zip(owners) {
            match claim.verify() {
                Ok(()) => self.remember(key),
                Err(invalid) => {
                    if let Some(answer) = answers.get_mut(index) {
                        *answer = Err(invalid);
                    }
                }
            }
        }
        answers
    }

    fn remember(&mut self, key: [u8; 32]) {
        if self.seen.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// Whether the message is well formed, and the signatures that it stands on.
    fn form(&self, message: &Message) -> Result<Vec<Signed>, Invalid> {
        match message {
            Message::Envelopes(envelopes) | Message::PassedOn(envelopes) => {
                envelopes.iter().map(|envelope| self.envelope(envelope)).collect()
            }
            Message::Proposal(proposal) => self.proposal(proposal),
            Message::Vote(vote) => {
                let claim = vote.claim(self.chain, &self.members);
                Ok(vec![claim.ok_or_else(|| Invalid::NotAMember(format!("voter {}", vote.voter)))?])
            }
            Message::Certificate(certificate) => self.certificate(certificate),
            // Questions and answers without signatures: the stream says whose they are, and any
            // number is possible in them.
            Message::Fetch(_) | Message::FinalizingWhat { .. } | Message::Finalizing { .. } => {
                Ok(Vec::new())
            }
            Message::Final(blocks) => self.final_blocks(blocks),
            Message::Pending(block) => self.body(block).map(|()| Vec::new()),
        }
    }

    fn envelope(&self, envelope: &Envelope) -> Result<Signed, Invalid> {
        envelope.check()?;
        if encode(envelope).len() > MAX_ENVELOPE_BYTES {
            return Err(Invalid::Rule("an envelope larger than MAX_ENVELOPE_BYTES"));
        }
        Ok(envelope.claim(self.chain))
    }

    fn proposal(&self, proposal: &Proposal) -> Result<Vec<Signed>, Invalid> {
        let block = &proposal.block;
        self.body(block)?;
        let leader = proposal.claim(self.chain, &self.members);
        let mut claims =
            vec![leader.ok_or_else(|| Invalid::NotAMember("a proposal's leader".into()))?];
        for envelope in &block.body.envelopes {
            claims.push(self.envelope(envelope)?);
        }
        if let Some(certificate) = &block.body.parent_certificate {
            if !certifies(certificate, block) {
                return Err(Invalid::Certificate("not for the block's parent"));
            }
            claims.extend(self.certificate(certificate)?);
        }
        Ok(claims)
    }

    fn body(&self, block: &Block) -> Result<(), Invalid> {
        if encode(&block.body).len() > self.block_bytes + MAX_BLOCK_OVERHEAD {
            return Err(Invalid::Rule("a block larger than the genesis allows"));
        }
        if block.body.digest() != block.header.body {
            return Err(Invalid::Rule("a body that is not the header's"));
        }
        Ok(())
    }

    fn certificate(&self, certificate: &Certificate) -> Result<Vec<Signed>, Invalid> {
        if !certificate.has_quorum(&self.members) {
            return Err(Invalid::Certificate("no quorum of members, each once"));
        }
        certificate
            .votes()
            .map(|vote| {
                let claim = vote.claim(self.chain, &self.members);
                claim.ok_or(Invalid::Certificate("a voter that is no member"))
            })
            .collect()
    }

    /// Only the last block's certificate is checked: the others hang on it by their hashes, and a
    /// quorum that finalized them has checked their envelopes.
    fn final_blocks(&self, answer: &FinalBlocks) -> Result<Vec<Signed>, Invalid> {
        let Some(last) = answer.blocks.last() else {
            return Err(Invalid::Rule("an answer without blocks"));
        };
        if answer.certificate.choice != Choice::Finalize(last.id(self.chain))
            || answer.certificate.slot != last.header.slot
        {
            return Err(Invalid::Certificate("not a finalization of the last block"));
        }
        for (parent, child) in answer.blocks.iter().zip(answer.blocks.iter().skip(1)) {
            let next = parent.header.height.0.checked_add(1) == Some(child.header.height.0);
            if child.header.parent != parent.id(self.chain) || !next {
                return Err(Invalid::Rule("blocks that do not follow one another"));
            }
        }
        for block in &answer.blocks {
            self.body(block)?;
        }
        self.certificate(&answer.certificate)
    }
}

/// Whether a certificate is a notarization or finalization of the block's parent.
fn certifies(certificate: &Certificate, block: &Block) -> bool {
    let parent = block.header.parent;
    certificate.epoch == block.header.epoch
        && certificate.slot < block.header.slot
        && (certificate.choice == Choice::Notarize(parent)
            || certificate.choice == Choice::Finalize(parent))
}

fn fingerprint(claim: &Signed) -> [u8; 32] {
    rota_hash::hash("rota verified", &[&claim.signer.0, &claim.signature.0, &claim.message])
}
