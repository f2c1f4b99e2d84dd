//! Searching a nonce (step 4), a bounded number of tries at a time, so that whoever searches can
//! stop for a new parent, or rest to take only its share of the machine.

use bitcoin::Target;
use rota_hash::Midstate;

use super::proof::{HeaderHash, WorkProof, target_of};
use crate::types::BlockId;

/// What to search: a header but for its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchJob {
    /// The header without its last four bytes.
    pub prefix: [u8; 76],
    /// The first nonce to try.
    pub first: u32,
    /// How many nonces to try from there, at most 2³²; past the last one 0 follows.
    pub tries: u64,
}

impl SearchJob {
    /// All nonces for the header that says this, in order.
    pub fn new(previous: HeaderHash, block: BlockId, time_s: u32, bits: u32) -> Self {
        let WorkProof(header) = WorkProof::new(previous, block, time_s, bits, 0);
        let [prefix @ .., _, _, _, _] = header;
        Self { prefix, first: 0, tries: 1 << 32 }
    }

    /// The `index`th of `of` parts of this job, for as many threads: each takes as many nonces,
    /// the last one a few more.
    pub fn part(&self, index: u32, of: u32) -> Self {
        let each = self.tries / u64::from(of.max(1));
        let before = each * u64::from(index);
        let tries = if index + 1 >= of { self.tries.saturating_sub(before) } else { each };
        Self { prefix: self.prefix, first: self.first.wrapping_add(before as u32), tries }
    }

    /// The header with this nonce.
    pub fn proof(&self, nonce: u32) -> WorkProof {
        let mut header = [0; 80];
        let (prefix, tail) = header.split_at_mut(76);
        prefix.copy_from_slice(&self.prefix);
        tail.copy_from_slice(&nonce.to_le_bytes());
        WorkProof(header)
    }
}

/// How a [`Search`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A proof.
    Found(WorkProof),
    /// Nothing yet.
    More,
    /// All nonces of the job are tried: it takes another time, or another block.
    Exhausted,
}

/// A search on its way.
#[derive(Clone, Debug)]
pub struct Search {
    job: SearchJob,
    midstate: Midstate,
    target: [u8; 32],
    next: u32,
    left: u64,
}

impl Search {
    /// The search for `job`, nothing tried yet.
    pub fn new(job: SearchJob) -> Self {
        let header = job.proof(0);
        // Bits that are no target are never met.
        let target = target_of(header.bits()).unwrap_or(Target::ZERO).to_le_bytes();
        let midstate = Midstate::of(&job.prefix);
        Self { job, midstate, target, next: job.first, left: job.tries }
    }

    /// Tries at most `count` nonces more, and no further than to the first that is good.
    pub fn step(&mut self, count: u32) -> Step {
        let count = u32::try_from(self.left).map_or(count, |left| count.min(left));
        let found = self.midstate.search(self.next, count, &self.target);
        let tried = found.map_or(count, |nonce| nonce.wrapping_sub(self.next).saturating_add(1));
        self.next = self.next.wrapping_add(tried);
        self.left = self.left.saturating_sub(u64::from(tried));
        match found {
            Some(nonce) => Step::Found(self.job.proof(nonce)),
            None if self.left == 0 => Step::Exhausted,
            None => Step::More,
        }
    }

    /// How many nonces have been tried.
    pub fn tried(&self) -> u64 {
        self.job.tries.saturating_sub(self.left)
    }
}
