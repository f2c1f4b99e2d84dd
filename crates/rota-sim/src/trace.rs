//! What happened in a run: a hash over everything, and the last events in words for whoever reads a
//! failure.

use std::collections::VecDeque;
use std::fmt;

use rota_core::block::Choice;
use rota_core::message::{Fetch, Message, RaftMessage};

use crate::Micros;

/// How many events a failure shows: enough for the last slot or two.
pub const SHOWN: usize = 30;

/// FNV-1a's constants for 64 bits (RFC 9923).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The events of a run.
pub struct Trace {
    hash: u64,
    count: u64,
    last: VecDeque<String>,
    loud: bool,
}

impl Trace {
    /// Nothing has happened. A loud one prints every event as it comes.
    pub fn new(loud: bool) -> Self {
        Self { hash: FNV_OFFSET, count: 0, last: VecDeque::with_capacity(SHOWN), loud }
    }

    /// Something happened.
    pub fn event(&mut self, at: Micros, what: fmt::Arguments<'_>) {
        let line = format!("{:>11.6} s  {what}", at as f64 / 1e6);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        self.count += 1;
        if self.loud {
            eprintln!("{line}");
        }
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// Two runs of one seed have the same hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last [`SHOWN`] events in words, oldest first.
    pub fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

/// A message in a few words.
pub struct Brief<'a>(pub &'a Message);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Envelopes(envelopes) => write!(f, "{} envelopes", envelopes.len()),
            Message::PassedOn(envelopes) => write!(f, "{} envelopes passed on", envelopes.len()),
            Message::Proposal(proposal) => {
                let header = &proposal.block.header;
                let body = &header.body.0[..3];
                write!(f, "proposal s{} h{} {body:02x?}", header.slot, header.height)
            }
            Message::Vote(vote) => {
                let choice = Said(vote.choice);
                write!(f, "vote s{} {choice} by member {}", vote.slot, vote.voter)
            }
            Message::Certificate(certificate) => {
                write!(f, "certificate s{} {}", certificate.slot, Said(certificate.choice))
            }
            Message::Fetch(Fetch::FinalAfter(height)) => write!(f, "fetch after h{height}"),
            Message::Fetch(Fetch::Block(id)) => write!(f, "fetch block {id:?}"),
            Message::Final(answer) => {
                let first = answer.blocks.first().map_or(0, |block| block.header.height.0);
                write!(f, "final h{first} and on, {} blocks", answer.blocks.len())
            }
            Message::Pending(block) => write!(f, "pending s{}", block.header.slot),
            Message::FinalizingWhat { nonce } => write!(f, "finalizing what? {nonce:x}"),
            Message::Finalizing { nonce, slot } => write!(f, "finalizing s{slot} {nonce:x}"),
            Message::Raft(message) => {
                let RaftMessage { kind, term, index, log_term, commit, reject, .. } = &**message;
                let no = if *reject { " refused" } else { "" };
                write!(f, "{kind:?}{no} t{term} i{index}/t{log_term} c{commit}")?;
                for entry in &message.entries {
                    let height = entry.block.as_ref().map_or(0, |block| block.header.height.0);
                    write!(f, " [i{} t{} h{height}]", entry.index, entry.term)?;
                }
                Ok(())
            }
            Message::Mined(mined) => {
                write!(f, "mined h{} {:?}", mined.block.header.height, mined.proof.hash())
            }
            Message::Proofs(proofs) => {
                let last = proofs.last().map(|proof| proof.hash());
                write!(f, "{} proofs up to {last:?}", proofs.len())
            }
            Message::Fetch(fetch) => write!(f, "fetch {fetch:?}"),
            Message::Offer(offer) => write!(f, "offer h{}", offer.applied.height),
            Message::Chunk { height, number, .. } => write!(f, "chunk {number} of h{height}"),
        }
    }
}

struct Said(Choice);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Choice::Notarize(id) => write!(f, "notarize {id:?}"),
            Choice::Nullify => write!(f, "nullify"),
            Choice::Finalize(id) => write!(f, "finalize {id:?}"),
        }
    }
}
