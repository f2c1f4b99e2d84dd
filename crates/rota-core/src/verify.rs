//! Checks of what peers send, before it reaches the replica: form, then signatures, many in one
//! batch. Stands between steps 5 and 6; runs on the node's workers, and in the simulator.
//!
//! What was verified once is remembered by its hash: votes come again inside certificates,
//! envelopes inside blocks.

use std::collections::{BTreeSet, VecDeque};

use crate::block::{Block, Certificate, Choice, Finality, Header, Proposal};
use crate::codec::encode;
use crate::crypto::{Signed, verify_batch};
use crate::error::Invalid;
use crate::genesis::{Genesis, Method};
use crate::members::Members;
use crate::message::{
    CHUNK_BYTES, Fetch, FinalBlocks, MAX_LOCATOR, MAX_PROOFS, MAX_RAFT_CONTEXT, Message, Mined,
    Offer, RaftMessage,
};
use crate::transaction::{Envelope, MAX_ENVELOPE_BYTES};
use crate::types::ChainId;
use crate::work::{Flaw, WorkProof, check_run};

/// How many verified signatures are remembered; 32 bytes each, twice.
const REMEMBERED: usize = 32_768;

/// Room for header and parent certificate beside a block's envelopes.
pub const MAX_BLOCK_OVERHEAD: usize = 64 << 10;

/// Checks messages of one epoch's members.
pub struct Verifier {
    chain: ChainId,
    method: Method,
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
            method: genesis.method,
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

    /// Whether this is a member's word under `raft`, well formed, which stands on no signature: of
    /// such words there are many and short ones.
    pub fn is_unsigned(&self, message: &Message) -> bool {
        matches!(message, Message::Raft(_)) && self.form(message).is_ok_and(|c| c.is_empty())
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
            Message::Fetch(fetch) => fetched(fetch).map(|()| Vec::new()),
            Message::FinalizingWhat { .. } | Message::Finalizing { .. } => Ok(Vec::new()),
            Message::Raft(message) => self.raft(message),
            Message::Mined(mined) => self.mined(mined),
            Message::Proofs(proofs) => linked(proofs).map(|()| Vec::new()),
            Message::Offer(offer) => self.offer(offer),
            Message::Chunk { bytes, .. } if bytes.len() > CHUNK_BYTES => {
                Err(Invalid::Rule("a piece of a snapshot larger than CHUNK_BYTES"))
            }
            Message::Chunk { .. } => Ok(Vec::new()),
            Message::Final(blocks) => self.final_blocks(blocks),
            Message::Pending(block) => self.pending(block),
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
        let claims = self.finality(&answer.finality, &last.header)?;
        for (parent, child) in answer.blocks.iter().zip(answer.blocks.iter().skip(1)) {
            let next = parent.header.height.0.checked_add(1) == Some(child.header.height.0);
            if child.header.parent != parent.id(self.chain) || !next {
                return Err(Invalid::Rule("blocks that do not follow one another"));
            }
        }
        for block in &answer.blocks {
            self.body(block)?;
        }
        Ok(claims)
    }

    /// What is to be verified before the block with this header is known to be final.
    fn finality(&self, finality: &Finality, header: &Header) -> Result<Vec<Signed>, Invalid> {
        match (self.method, finality) {
            (Method::Poa, Finality::Votes(certificate)) => {
                if certificate.choice != Choice::Finalize(header.id(self.chain))
                    || certificate.slot != header.slot
                {
                    return Err(Invalid::Certificate("not a finalization of the last block"));
                }
                self.certificate(certificate)
            }
            // Members take each other's word for it; nobody else is heard.
            (Method::Raft, Finality::Log { .. }) => Ok(Vec::new()),
            // It is the receiver's own chain of proofs that must have it.
            (Method::Pow, Finality::Work(_)) => Ok(Vec::new()),
            _ => Err(Invalid::Certificate("not of this database's method")),
        }
    }

    /// The leader has checked the envelopes: under `raft` members trust each other.
    fn raft(&self, message: &RaftMessage) -> Result<Vec<Signed>, Invalid> {
        if self.method != Method::Raft {
            return Err(Invalid::Rule("a message of another method"));
        }
        if message.context.len() > MAX_RAFT_CONTEXT {
            return Err(Invalid::Rule("a context larger than MAX_RAFT_CONTEXT"));
        }
        let mut blocks = message.entries.iter().filter_map(|entry| entry.block.as_ref());
        blocks.try_for_each(|block| self.body(block))?;
        Ok(Vec::new())
    }

    /// A body that was asked for. A quorum has checked a certified one's envelopes; behind a proof
    /// of work stands nobody's word.
    fn pending(&self, block: &Block) -> Result<Vec<Signed>, Invalid> {
        self.body(block)?;
        match self.method {
            Method::Pow => block.body.envelopes.iter().map(|e| self.envelope(e)).collect(),
            Method::Poa | Method::Raft => Ok(Vec::new()),
        }
    }

    fn mined(&self, mined: &Mined) -> Result<Vec<Signed>, Invalid> {
        let Mined { proof, block } = mined;
        if proof.block() != block.id(self.chain) {
            return Err(Invalid::Rule("a proof of work for another block"));
        }
        linked(&[*proof])?;
        self.pending(block)
    }

    fn offer(&self, offer: &Offer) -> Result<Vec<Signed>, Invalid> {
        self.body(&offer.block)?;
        let mut newest = &offer.block.header;
        for header in &offer.headers {
            let next = newest.height.0.checked_add(1) == Some(header.height.0);
            if header.parent != newest.id(self.chain) || !next {
                return Err(Invalid::Rule("headers that do not follow one another"));
            }
            newest = header;
        }
        let pieces = offer.bytes.div_ceil(CHUNK_BYTES as u64);
        let is_named = offer.headers.iter().any(|header| header.applied == offer.applied);
        if !is_named || offer.block.header.height != offer.applied.height {
            return Err(Invalid::Rule("an offer of which no header names its root"));
        }
        if pieces == 0 || pieces != offer.chunks.len() as u64 {
            return Err(Invalid::Rule("an offer with too few or too many hashes"));
        }
        self.finality(&offer.finality, newest)
    }
}

fn fetched(fetch: &Fetch) -> Result<(), Invalid> {
    match fetch {
        Fetch::ProofsAfter(known) if known.len() > MAX_LOCATOR => {
            Err(Invalid::Rule("a question with more than MAX_LOCATOR hashes"))
        }
        _ => Ok(()),
    }
}

/// Whether each proof is the child of the one before and has a hash below the target that it
/// states. Whether that target is the right one is for the chain to say (`consensus::nakamoto`).
fn linked(proofs: &[WorkProof]) -> Result<(), Invalid> {
    if proofs.len() > MAX_PROOFS {
        return Err(Invalid::Rule("more proofs than MAX_PROOFS"));
    }
    match check_run(proofs) {
        Ok(_) => Ok(()),
        Err(Flaw::Unlinked(_)) => Err(Invalid::Rule("proofs that do not follow one another")),
        Err(Flaw::TooLittleWork(_)) => Err(Invalid::Rule("too little work")),
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
