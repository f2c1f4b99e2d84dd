//! The rules that every run is held to. Some are checked as things happen: what a server says
//! (across its restarts), what it applies. The rest is checked when the run is over.

use std::collections::BTreeMap;
use std::path::Path;

use rota_core::block::{Block, Choice, Vote};
use rota_core::codec::encode;
use rota_core::message::Message;
use rota_core::time::Time;
use rota_core::types::{BlockId, ChainId, Height, MemberIndex, Slot, StateRoot};
use rota_store::Receipt;
use rusqlite::{Connection, OpenFlags};

use crate::Micros;
use crate::clients::{Fate, PURSE, PURSES};
use crate::disk::Durable;

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

/// What a member said about one slot, as far as anybody could see.
#[derive(Clone, Debug, Default)]
struct Said {
    proposal: Option<BlockId>,
    notarize: Option<BlockId>,
    finalize: Option<BlockId>,
    nullify: bool,
}

/// What the first server to apply a height came to.
struct AtHeight {
    id: BlockId,
    root: StateRoot,
    receipts: u64,
    time: Time,
    slot: Slot,
}

/// Sees everything.
pub struct Monitor {
    chain: ChainId,
    honest: Vec<bool>,
    said: BTreeMap<(usize, Slot), Said>,
    heights: BTreeMap<Height, AtHeight>,
    proposed_at: BTreeMap<BlockId, Micros>,
    broken: Option<Broken>,
}

impl Monitor {
    /// Watches servers of which these are honest; server and member have the same number.
    pub fn new(chain: ChainId, honest: Vec<bool>) -> Self {
        Self {
            chain,
            honest,
            said: BTreeMap::new(),
            heights: BTreeMap::new(),
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

    /// Something enters the network, as its receivers will see it.
    pub fn leaves(&mut self, at: Micros, message: &Message) {
        if let Message::Proposal(proposal) = message {
            let id = proposal.block.id(self.chain);
            self.proposed_at.entry(id).or_insert(at);
        }
    }

    /// A server says something, with this on its disk.
    pub fn sends(&mut self, server: usize, message: &Message, durable: &Durable) {
        if !self.honest[server] {
            return;
        }
        match message {
            Message::Proposal(proposal) if is(server, proposal.block.header.leader) => {
                let id = proposal.block.id(self.chain);
                if !durable.proposals.contains(&id) {
                    self.breaks("durable before sending", format!("server {server}: proposal"));
                }
                let said = self.said.entry((server, proposal.block.header.slot)).or_default();
                let before = *said.proposal.get_or_insert(id);
                if before != id {
                    self.breaks("one proposal a slot", format!("server {server}: {before} {id}"));
                }
            }
            Message::Vote(vote) if is(server, vote.voter) => {
                if !durable.votes.contains(&(vote.slot, vote.choice)) {
                    let detail =
                        format!("server {server}: {:?} in slot {}", vote.choice, vote.slot);
                    self.breaks("durable before sending", detail);
                }
                self.voted(vote);
            }
            Message::Certificate(certificate) => {
                for vote in certificate.votes() {
                    self.voted(&vote);
                }
            }
            _ => {}
        }
    }

    /// A signature of the voter's exists.
    fn voted(&mut self, vote: &Vote) {
        let member = vote.voter.position();
        if !self.honest.get(member).copied().unwrap_or(false) {
            return;
        }
        let said = self.said.entry((member, vote.slot)).or_default();
        let before = said.clone();
        match vote.choice {
            Choice::Notarize(id) => said.notarize = Some(id),
            Choice::Finalize(id) => said.finalize = Some(id),
            Choice::Nullify => said.nullify = true,
        }
        let after = said.clone();
        let detail = || format!("server {member}, slot {}: {before:?}, then {after:?}", vote.slot);
        if before.notarize.is_some() && before.notarize != after.notarize {
            self.breaks("one notarize vote a slot", detail());
        }
        if before.finalize.is_some() && before.finalize != after.finalize {
            self.breaks("one finalize vote a slot", detail());
        }
        if after.nullify && after.finalize.is_some() {
            self.breaks("never nullify and finalize", detail());
        }
    }

    /// A server says that a block is notarized, and its ancestors.
    pub fn told_notarized(&mut self, server: usize, block: &Block) {
        if !self.honest[server] {
            return;
        }
        let (id, slot) = (block.id(self.chain), block.header.slot);
        let voted = |&member: &usize| {
            let said = self.said.get(&(member, slot));
            !self.honest[member] || said.is_some_and(|said| said.notarize == Some(id))
        };
        let members = self.honest.len();
        if (0..members).filter(voted).count() * 3 <= members * 2 {
            let detail = format!("server {server}: slot {slot}, {id}");
            self.breaks("what is said to be notarized has a quorum's votes", detail);
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
        let Some(first) = self.heights.get(&height) else {
            let parent = height.previous().and_then(|below| self.heights.get(&below));
            if let Some(parent) = parent
                && (parent.time >= time || parent.slot >= block.header.slot)
            {
                let detail = format!("height {height}: {} ms, then {time}", parent.time);
                self.breaks("time and slot rise", detail);
            }
            let slot = block.header.slot;
            self.heights.insert(height, AtHeight { id, root, receipts, time, slot });
            return;
        };
        let (same_block, same_root) = (first.id == id, first.root == root);
        let same_receipts = first.receipts == receipts;
        if !same_block {
            let detail = format!("server {server}, height {height}: {id}, not {}", first.id);
            self.breaks("agreement", detail);
        } else if !same_root {
            self.breaks("equal roots", format!("server {server}, height {height}: {root}"));
        } else if !same_receipts {
            self.breaks("equal receipts", format!("server {server}, height {height}"));
        }
    }

    /// The block that servers applied at a height.
    pub fn block_at(&self, height: Height) -> Option<BlockId> {
        self.heights.get(&height).map(|at| at.id)
    }

    /// The highest slot and height that were applied.
    pub fn newest(&self) -> (Slot, Height) {
        self.heights.last_key_value().map_or_else(Default::default, |(&h, at)| (at.slot, h))
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

/// Whether every write is as often in this server's database as its client was told.
pub fn rows_are_as_told<'a>(
    home: &Path,
    fates: impl Iterator<Item = (&'a str, Fate)>,
) -> Result<BTreeMap<String, u64>, String> {
    let rows = ledger(home).map_err(|error| format!("reading ledger: {error}"))?;
    for (key, fate) in fates {
        let times = rows.get(key).copied().unwrap_or(0);
        let right = match fate {
            Fate::Applied => times == 1,
            Fate::Failed => times == 0,
            Fate::Unknown => times <= 1,
        };
        if !right {
            return Err(format!(
                "write {key} is there {times} times, its client was told {fate:?}"
            ));
        }
    }
    Ok(rows)
}

/// Whether the purses hold together what they held at first.
pub fn no_money_is_made_or_lost(home: &Path) -> Result<(), String> {
    let held = || -> rusqlite::Result<Option<i64>> {
        let database =
            Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'purse'";
        if database.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(None);
        }
        database.query_row("SELECT sum(v) FROM purse", [], |row| row.get(0))
    };
    let whole = i64::try_from(PURSES).unwrap_or(0) * PURSE;
    match held().map_err(|error| format!("reading purses: {error}"))? {
        Some(held) if held != whole => Err(format!("the purses hold {held}, not {whole}")),
        _ => Ok(()),
    }
}

/// Whether nothing was written in the name of a user that did not sign it.
pub fn nothing_was_forged(home: &Path) -> Result<(), String> {
    let count = || -> rusqlite::Result<i64> {
        let database =
            Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'forged'";
        if database.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(0);
        }
        database.query_row("SELECT count(*) FROM forged", [], |row| row.get(0))
    };
    match count().map_err(|error| format!("reading forged: {error}"))? {
        0 => Ok(()),
        rows => Err(format!("{rows} rows by a user that signed none of them")),
    }
}

fn ledger(home: &Path) -> rusqlite::Result<BTreeMap<String, u64>> {
    let database =
        Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let there: bool = database.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'",
        [],
        |row| row.get(0),
    )?;
    if !there {
        return Ok(BTreeMap::new());
    }
    let mut counted = database.prepare("SELECT k, count(*) FROM ledger GROUP BY k")?;
    let rows = counted.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| row.map(|(key, times)| (key, times.unsigned_abs()))).collect()
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

fn is(server: usize, member: MemberIndex) -> bool {
    member.position() == server
}
