//! The rules that every run is held to. Some are checked as things happen: what a server says
//! (across its restarts), what it applies. The rest is checked when the run is over.
//!
//! ```text
//!   sends ──► poa: votes │ raft: terms, votes, the log │ pow: found blocks     one file each
//!   applies ──► agreement, equal roots, equal receipts, time and slot rise     the same for all
//!   the end ──► rows against what clients were told (`rows`), proofs of work (`pow`)
//! ```

mod poa;
pub mod pow;
mod raft;
mod rows;

use std::collections::BTreeMap;

use rota_core::block::Block;
use rota_core::codec::encode;
use rota_core::genesis::Method;
use rota_core::message::{Message, Recipient};
use rota_core::time::Time;
use rota_core::types::{BlockId, ChainId, Height, NodeId, Slot, StateRoot};
use rota_store::Receipt;

use crate::Micros;
use crate::disk::Durable;

pub use rows::{no_money_is_made_or_lost, nothing_was_forged, rows_are_as_told};

/// How far block time may leave the range of the majority's clocks: a slot's time-out and two
/// seconds, twice (a liar can move it by that, docs/methods/poa.md).
pub const TIME_TOLERANCE_MS: u64 = 6_000;

/// How many times the genesis' time-out a slot may take at the most after failures: a lying leader
/// may be so much ahead of its voters' clocks (docs/decisions/0002).
pub const MOST_BACK_OFF: u64 = 32;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub rule: &'static str,
    /// By whom and how.
    pub detail: String,
}

fn broken(rule: &'static str, detail: impl Into<String>) -> Result<(), Broken> {
    Err(Broken { rule, detail: detail.into() })
}

/// What the first server to apply a block came to.
struct AtHeight {
    root: StateRoot,
    receipts: u64,
    time: Time,
    slot: Slot,
}

/// What is particular to a method.
enum Words {
    Poa(poa::Words),
    Raft(raft::Words),
    Pow,
}

/// Sees everything.
pub struct Monitor {
    chain: ChainId,
    nodes: Vec<NodeId>,
    honest: Vec<bool>,
    words: Words,
    blocks: BTreeMap<BlockId, AtHeight>,
    /// What is final at each height; the newest word where it was undone.
    heights: BTreeMap<Height, BlockId>,
    /// The same for each server.
    chains: Vec<BTreeMap<Height, BlockId>>,
    /// Whether what is final may be undone: the scenario is stronger than the depth.
    may_rewind: bool,
    proposed_at: BTreeMap<BlockId, Micros>,
    broken: Option<Broken>,
}

impl Monitor {
    /// Watches servers with these keys, of which some are honest. The first `members` of them are
    /// the members; server and member have the same number.
    pub fn new(
        chain: ChainId,
        method: Method,
        nodes: Vec<NodeId>,
        honest: Vec<bool>,
        members: usize,
        may_rewind: bool,
    ) -> Self {
        let words = match method {
            Method::Poa => Words::Poa(poa::Words::new(chain, honest[..members].to_vec())),
            Method::Raft => Words::Raft(raft::Words::default()),
            Method::Pow => Words::Pow,
        };
        Self {
            chain,
            chains: vec![BTreeMap::new(); nodes.len()],
            nodes,
            honest,
            words,
            blocks: BTreeMap::new(),
            heights: BTreeMap::new(),
            may_rewind,
            proposed_at: BTreeMap::new(),
            broken: None,
        }
    }

    /// The first rule that was broken.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Notes a broken rule, if it is the first.
    pub fn breaks(&mut self, rule: &'static str, detail: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(Broken { rule, detail: detail.into() });
        }
    }

    fn held_to(&mut self, answer: Result<(), Broken>) {
        if let Err(Broken { rule, detail }) = answer {
            self.breaks(rule, detail);
        }
    }

    /// Something enters the network, as its receivers will see it.
    pub fn leaves(&mut self, at: Micros, message: &Message) {
        if let Message::Proposal(proposal) = message {
            let id = proposal.block.id(self.chain);
            self.proposed_at.entry(id).or_insert(at);
        }
    }

    /// A server says something, with this on its disk.
    pub fn sends(&mut self, server: usize, to: &Recipient, message: &Message, durable: &Durable) {
        if !self.honest[server] {
            return;
        }
        let me = self.nodes[server];
        let answer = match (&mut self.words, message) {
            (Words::Poa(words), message) => words.sends(server, message, durable),
            (Words::Raft(words), Message::Raft(message)) => {
                words.sends(server, me, to, message, durable)
            }
            (Words::Raft(_) | Words::Pow, _) => Ok(()),
        };
        self.held_to(answer);
    }

    /// A server says that a block is notarized, and its ancestors.
    pub fn told_notarized(&mut self, server: usize, block: &Block) {
        if let Words::Poa(words) = &self.words
            && self.honest[server]
        {
            let answer = words.told_notarized(server, block);
            self.held_to(answer);
        }
    }

    /// When a block was first seen.
    pub fn proposed_at(&self, id: BlockId) -> Option<Micros> {
        self.proposed_at.get(&id).copied()
    }

    /// An honest server applied a block.
    pub fn applies(&mut self, server: usize, block: &Block, root: StateRoot, receipts: &[Receipt]) {
        let height = block.header.height;
        let id = block.id(self.chain);
        let time = block.header.time;
        let receipts = fingerprint(receipts);
        if block.body.envelopes.iter().any(|envelope| envelope.expiry.has_passed(height, time)) {
            self.breaks("nothing enters a block after its expiry", format!("height {height}"));
        }
        self.follows_its_parent(block);
        self.names_the_right_root(server, block);
        if let Words::Raft(words) = &mut self.words {
            words.applies(height, block.header.slot, id);
        }
        let own = self.chains[server].insert(height, id);
        if own.is_some_and(|own| own != id) {
            let detail = format!("server {server}, height {height}: {own:?}, then {id}");
            return self.breaks("nothing final changes", detail);
        }
        let before = *self.heights.entry(height).or_insert(id);
        if before != id && !self.may_rewind {
            let detail = format!("server {server}, height {height}: {id}, not {before}");
            return self.breaks("agreement", detail);
        }
        self.heights.insert(height, id);
        let slot = block.header.slot;
        let first = self.blocks.entry(id).or_insert(AtHeight { root, receipts, time, slot });
        let (same_root, same_receipts) = (first.root == root, first.receipts == receipts);
        if !same_root {
            self.breaks("equal roots", format!("server {server}, height {height}: {root}"));
        } else if !same_receipts {
            self.breaks("equal receipts", format!("server {server}, height {height}"));
        }
    }

    /// The state that a final header names is the one that this server had.
    fn names_the_right_root(&mut self, server: usize, block: &Block) {
        let named = block.header.applied;
        let there = self.chains[server].get(&named.height).and_then(|id| self.blocks.get(id));
        if let Some(there) = there.filter(|there| there.root != named.root) {
            let detail = format!("server {server}, height {}: {}", named.height, there.root);
            self.breaks("a final header names the right root", detail);
        }
    }

    fn follows_its_parent(&mut self, block: &Block) {
        let header = &block.header;
        let Some(parent) = self.blocks.get(&header.parent) else { return };
        // Under `pow` it is a median of whole seconds, which may stand still.
        let time_rises = match self.words {
            Words::Pow => parent.time <= header.time,
            _ => parent.time < header.time,
        };
        if !time_rises || parent.slot >= header.slot {
            let detail = format!("height {}: {}, then {}", header.height, parent.time, header.time);
            self.breaks("time and slot rise", detail);
        }
    }

    /// A server goes back to this height: what was final after it is undone.
    pub fn rewinds(&mut self, server: usize, height: Height) {
        if !self.may_rewind && self.honest[server] {
            let detail = format!("server {server} goes back to height {height}");
            self.breaks("nothing final changes", detail);
        }
        self.chains[server].split_off(&height.next());
    }

    /// What a server has applied, by rising height.
    pub fn chain_of(&self, server: usize) -> Vec<BlockId> {
        self.chains[server].values().copied().collect()
    }

    /// The block that a server has applied at a height.
    pub fn block_at(&self, server: usize, height: Height) -> Option<BlockId> {
        self.chains[server].get(&height).copied()
    }

    /// The highest slot and height that were applied.
    pub fn newest(&self) -> (Slot, Height) {
        let newest = self.heights.last_key_value();
        newest.map_or_else(Default::default, |(&height, id)| {
            (self.blocks.get(id).map_or(Slot(0), |block| block.slot), height)
        })
    }
}

/// Whether block time is near the clocks of the majority, which lie between these two. `late` is
/// how much later than the clocks of a certificate its leader may have heard of it: so much may
/// block time fall back, until the next one. `ahead_ms` is what a liar may add where too few voters
/// remember the parent.
pub fn time_is_near(time: Time, earliest: Time, latest: Time, late: Micros, ahead_ms: u64) -> bool {
    let behind = TIME_TOLERANCE_MS.saturating_add(late / 1_000);
    time.0.saturating_add(behind) >= earliest.0
        && time.0 <= latest.0.saturating_add(TIME_TOLERANCE_MS + ahead_ms)
}

/// A number that differs where two servers' answers do.
fn fingerprint(receipts: &[Receipt]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for receipt in receipts {
        mix(&encode(&(receipt.id, receipt.height, receipt.index)));
        match &receipt.outcome {
            Err(refusal) => mix(&encode(refusal)),
            Ok(results) => {
                for result in results {
                    mix(&encode(&(result.rows_affected, result.last_insert_rowid)));
                    for row in &result.rows.rows {
                        mix(&encode(row));
                    }
                }
            }
        }
    }
    hash
}
