//! One append to `chain.db` in the making: a record becomes rows, and what finality made useless is
//! deleted (steps 4 to 8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rota_core::block::{Block, Finality, Proposal, Turn};
use rota_core::codec::encode;
use rota_core::error::Fault;
use rota_core::journal::{Entry, HardState, Record};
use rota_core::members::Members;
use rota_core::types::{BlockId, ChainId, Height, Slot};
use rota_core::work::WorkProof;
use rusqlite::params;

use super::{RUN_RECEIPTS, Stored, number, seal};
use crate::value::Receipt;

/// One append in the making. What `ChainDb` holds in memory changes after the commit only.
pub(super) struct Writing<'a> {
    pub transaction: rusqlite::Transaction<'a>,
    pub chain: ChainId,
    pub members: &'a Members,
    /// Of the last final block, counted up as blocks are added.
    pub height: Height,
    /// Of the last block that is final when all this is written: older records are of no more use.
    pub final_slot: Slot,
    pub pending: &'a BTreeMap<BlockId, Slot>,
    pub new: BTreeMap<BlockId, Slot>,
    pub finalized: BTreeSet<BlockId>,
    /// The slot of the newest entry, or a later one (`raft`).
    pub tail_end: Slot,
    /// Bodies of entries that others have replaced.
    pub cut: BTreeSet<BlockId>,
}

impl Writing<'_> {
    /// Writes a record.
    pub fn record(&mut self, record: &Record) -> Result<(), Fault> {
        if let Record::Finalized { blocks, finality } = record {
            let proofs = match finality {
                Finality::Work(proofs) => proofs.as_slice(),
                _ => &[],
            };
            for (number, block) in blocks.iter().enumerate() {
                self.finalize(block, proofs.get(number))?;
                if let Some(proof) = proofs.get(number) {
                    self.certify(&Finality::Work(vec![*proof]))?;
                }
            }
            return if proofs.is_empty() { self.certify(finality) } else { Ok(()) };
        }
        if let Record::HardState(state) = record {
            return self.hard_state(state).map_err(write_fault);
        }
        if let Record::Entry(entry) = record {
            self.replace(Slot(entry.index)).map_err(write_fault)?;
        }
        if record.slot() <= self.final_slot {
            return Ok(());
        }
        let (stored, block) = match record {
            Record::Entered(certificate) => (Stored::Entered(certificate.clone()), None),
            Record::Proposed(Proposal { block, signature }) => {
                let id = block.id(self.chain);
                (Stored::Proposed { block: id, signature: *signature }, Some((id, block)))
            }
            Record::Notarized { vote, block } => {
                let id = block.id(self.chain);
                (Stored::Notarized { vote: vote.clone(), block: id }, Some((id, block)))
            }
            Record::Nullified(vote) => (Stored::Nullified(vote.clone()), None),
            Record::Finalizing { vote, notarization } => {
                let (vote, notarization) = (vote.clone(), notarization.clone());
                (Stored::Finalizing { vote, notarization }, None)
            }
            Record::Fetched(block) => {
                let id = block.id(self.chain);
                (Stored::Fetched { block: id }, Some((id, block)))
            }
            Record::Entry(Entry { index, term, block }) => {
                let block = block.as_ref().map(|block| (block.id(self.chain), block));
                let (index, term) = (*index, *term);
                (Stored::Entry { index, term, block: block.map(|(id, _)| id) }, block)
            }
            Record::Connected { proof, block } => {
                (Stored::Connected { proof: *proof }, Some((proof.block(), block)))
            }
            Record::Finalized { .. } | Record::HardState(_) => return Ok(()),
        };
        let body = block.map(|(id, _)| id.0);
        self.tail(record.slot(), body, &seal(&stored), block).map_err(write_fault)
    }

    fn tail(
        &mut self,
        slot: Slot,
        body: Option<[u8; 32]>,
        record: &[u8],
        block: Option<(BlockId, &Arc<Block>)>,
    ) -> rusqlite::Result<()> {
        if let Some((id, block)) = block {
            self.body(id, block)?;
        }
        self.transaction
            .prepare_cached("INSERT INTO rota_tail (slot, body, record) VALUES (?1, ?2, ?3)")?
            .execute(params![number(slot.0), body, record])?;
        Ok(())
    }

    /// Writes a body unless it is written, and says how long it is.
    fn body(&mut self, id: BlockId, block: &Arc<Block>) -> rusqlite::Result<()> {
        let is_pending = self.pending.contains_key(&id) && !self.cut.contains(&id);
        if is_pending || self.new.contains_key(&id) {
            return Ok(());
        }
        self.transaction
            .prepare_cached("INSERT INTO rota_bodies (slot, id, block) VALUES (?1, ?2, ?3)")?
            .execute(params![number(block.header.slot.0), id.0, encode(block)])?;
        self.new.insert(id, block.header.slot);
        Ok(())
    }

    fn finalize(&mut self, block: &Arc<Block>, proof: Option<&WorkProof>) -> Result<(), Fault> {
        let header = &block.header;
        if header.height != self.height.next() {
            return Err(Fault::storage(
                "writing to chain.db",
                format!("block {} was finalized after block {}", header.height, self.height),
            ));
        }
        let id = block.id(self.chain);
        let leader = match header.turn {
            Turn::Found { miner } => miner.to_string(),
            Turn::Scheduled | Turn::Elected { .. } => {
                self.members.get(header.leader).map_or_else(String::new, |m| m.key.to_string())
            }
        };
        self.body(id, block).map_err(write_fault)?;
        self.finalized.insert(id);
        self.height = header.height;
        let sql = "INSERT INTO blocks
            (height, slot, epoch, leader, turn, time, time_ms, transactions, bytes, id)
            SELECT ?1, ?2, ?3, ?4, ?9,
                strftime('%Y-%m-%d %H:%M:%S', ?5 / 1000, 'unixepoch') || printf('.%03d', ?5 % 1000),
                ?5, ?6, length(block), ?7 FROM rota_bodies WHERE slot = ?2 AND id = ?8";
        let row = params![
            number(header.height.0),
            number(header.slot.0),
            number(header.epoch.0),
            leader,
            number(header.time.0),
            i64::try_from(block.transaction_count()).unwrap_or(i64::MAX),
            id.to_string(),
            id.0,
            right(&header.turn, proof),
        ];
        self.transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(row))
            .map(drop)
            .map_err(write_fault)
    }

    fn hard_state(&self, state: &HardState) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rota_about VALUES ('hard_state', ?1)";
        self.transaction.prepare_cached(sql)?.execute([seal(state)]).map(drop)
    }

    fn certify(&self, finality: &Finality) -> Result<(), Fault> {
        self.transaction
            .prepare_cached("INSERT INTO rota_certificates (height, certificate) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![number(self.height.0), seal(finality)]))
            .map(drop)
            .map_err(write_fault)
    }

    /// Deletes what finality made useless: older records, and the bodies of abandoned blocks.
    /// Returns the ids that are no longer pending.
    pub fn empty_tail(&self, final_slot: Slot) -> rusqlite::Result<Vec<BlockId>> {
        if self.finalized.is_empty() {
            return Ok(Vec::new());
        }
        self.transaction
            .prepare_cached("DELETE FROM rota_tail WHERE slot <= ?1")?
            .execute([number(final_slot.0)])?;
        let mut delete = self
            .transaction
            .prepare_cached("DELETE FROM rota_bodies WHERE slot = ?1 AND id = ?2")?;
        let mut gone = Vec::new();
        for (&id, &slot) in self.pending.iter().chain(&self.new) {
            if slot > final_slot {
                continue;
            }
            if !self.finalized.contains(&id) {
                delete.execute(params![number(slot.0), id.0])?;
            }
            gone.push(id);
        }
        Ok(gone)
    }

    /// Gives back how many are in no run then.
    pub fn receipts(
        &self,
        receipts: &[Receipt],
        unsorted: Option<i64>,
    ) -> rusqlite::Result<Option<i64>> {
        let Some(newest) = receipts.last() else { return Ok(unsorted) };
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO receipts (height, position, key, sqlstate, tag)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut explain = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO rota_messages (height, position, message) VALUES (?1, ?2, ?3)",
        )?;
        for receipt in receipts {
            let (refusal, tag) = match &receipt.outcome {
                Ok(results) => {
                    (None, results.last().map(|result| result.kind.tag(result.rows_affected)))
                }
                Err(refusal) => (Some(refusal), None),
            };
            let (height, position) = (number(receipt.height.0), receipt.index);
            let sqlstate = refusal.map(|refusal| refusal.code());
            insert.execute(params![height, position, receipt.id.0, sqlstate, tag])?;
            if let Some(refusal) = refusal.filter(|refusal| !refusal.message.is_empty()) {
                explain.execute(params![height, position, refusal.message])?;
            }
        }
        let unsorted = match unsorted {
            Some(before) => before + i64::try_from(receipts.len()).unwrap_or(i64::MAX),
            None => self.count_unsorted()?,
        };
        if unsorted < RUN_RECEIPTS {
            return Ok(Some(unsorted));
        }
        self.sort_receipts(newest.height)?;
        Ok(Some(0))
    }

    fn count_unsorted(&self) -> rusqlite::Result<i64> {
        let sql = "SELECT count(*) FROM receipts
            WHERE height > (SELECT ifnull(max(last_height), 0) FROM rota_runs)";
        self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))
    }

    /// Makes a run of the receipts that are in none. `newest` is complete: a block's receipts are
    /// saved together.
    fn sort_receipts(&self, newest: Height) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rota_receipt_runs (run, key, height, position)
            SELECT (SELECT ifnull(max(run), 0) + 1 FROM rota_runs), key, height, position
            FROM receipts
            WHERE height > (SELECT ifnull(max(last_height), 0) FROM rota_runs)
            ORDER BY key, height, position";
        self.transaction.prepare_cached(sql)?.execute([])?;
        self.transaction
            .prepare_cached("INSERT INTO rota_runs (last_height) VALUES (?1)")?
            .execute([number(newest.0)])?;
        Ok(())
    }
}

/// By what right a block's leader had the turn, in `chain.blocks`: `scheduled`; `term 3`; or the
/// proof's hash and what target it is below, as `work 0000ab… 1e040000`.
fn right(turn: &Turn, proof: Option<&WorkProof>) -> String {
    match (turn, proof) {
        (Turn::Scheduled, _) => "scheduled".into(),
        (Turn::Elected { term }, _) => format!("term {term}"),
        (Turn::Found { .. }, Some(proof)) => format!("work {} {:08x}", proof.hash(), proof.bits()),
        (Turn::Found { .. }, None) => "work".into(),
    }
}

/// Trouble while writing.
pub(super) fn write_fault(error: rusqlite::Error) -> Fault {
    Fault::storage("writing to chain.db", error)
}
