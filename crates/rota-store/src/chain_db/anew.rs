//! Logs that do not begin with the first block, or that lose their newest ones (beside step 8): of
//! a server that was restored from a snapshot, of one whose log was lost, and of one that goes back
//! behind a reorganisation deeper than `k` (`pow`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rota_core::block::{Block, Finality};
use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::journal::Record;
use rota_core::transaction::Envelope;
use rota_core::types::{EnvelopeId, Height, Slot};
use rusqlite::OptionalExtension;

use super::writing::write_fault;
use super::{ChainDb, number, returned};
use crate::host::Journal;

/// What going back has undone.
#[derive(Debug)]
pub struct Rewound {
    /// The newest block that stays; 0 if none does.
    pub height: Height,
    /// How many transactions stood in the blocks that are gone, final ones and those on their way.
    /// They wait to be written again.
    pub transactions: usize,
    /// Nothing was changed: what is below this height is deleted here.
    pub too_deep_below: Option<Height>,
}

impl ChainDb {
    /// Opens `home/chain.db`. Where there is none, it is created as that of a server that does not
    /// know what it has said before: a member with such a log does not vote.
    pub fn open_existing(home: &Path, genesis: &Genesis) -> Result<Self, Fault> {
        Self::open_as(home, genesis, true)
    }

    /// A log in which nothing was ever written becomes this database's: it came with its home, and
    /// the genesis was changed before the first start. False where something was.
    pub(super) fn adopt(&self) -> rusqlite::Result<bool> {
        let sql = "UPDATE rota_about SET value = ?1 WHERE name = 'chain'
            AND NOT EXISTS (SELECT 1 FROM blocks) AND NOT EXISTS (SELECT 1 FROM rota_tail)
            AND NOT EXISTS (SELECT 1 FROM rota_about WHERE name NOT IN ('format', 'chain'))";
        Ok(self.connection.execute(sql, [self.chain.to_string()])? == 1)
    }

    /// Whether this log was created without knowing what was said before.
    pub fn is_wiped(&self) -> Result<bool, Fault> {
        let sql = "SELECT EXISTS (SELECT 1 FROM rota_about WHERE name = 'wiped')";
        self.read(sql, |statement| statement.query_row([], |row| row.get(0)))
    }

    /// Makes a log in `folder` that begins with this block and goes on with this log's promises for
    /// later slots.
    pub(crate) fn begin_anew(
        &mut self,
        folder: &Path,
        genesis: &Genesis,
        block: &Arc<Block>,
    ) -> Result<(), Fault> {
        let recovered = self.recover()?;
        let mut anew = Self::open_as(folder, genesis, recovered.is_wiped)?;
        let (height, slot) = (block.header.height, block.header.slot);
        let base = "INSERT OR REPLACE INTO rota_about VALUES ('base', ?1)";
        anew.connection.execute(base, [number(height.0)]).map_err(write_fault)?;
        // The record's own check: it follows the last one.
        anew.last = (Height(height.0.saturating_sub(1)), Slot(0));
        let base =
            Record::Finalized { blocks: vec![Arc::clone(block)], finality: Finality::Snapshot };
        let tail = recovered.tail.into_iter().filter(|record| record.slot() > slot);
        let hard_state = Record::HardState(recovered.hard_state);
        let records: Vec<Record> = [base, hard_state].into_iter().chain(tail).collect();
        anew.append(&records)?;
        // All of it into the file: there is no log beside it then.
        let fault = |error| Fault::storage("copying the log of a new chain.db", error);
        anew.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(fault)?;
        anew.connection.close().map_err(|(_, error)| fault(error))
    }

    /// The lowest height that this server can go back to: the blocks after it are here, and a state
    /// at or below it to execute them on.
    pub(crate) fn goes_back_to(&self) -> Height {
        let begins = crate::files::begins(self);
        if begins == Height(0) {
            return begins;
        }
        let snapshots = self.offers.snapshots.as_ref().map(|snapshots| snapshots.all());
        let heights = snapshots.iter().flatten().map(|own| own.applied.height);
        heights.filter(|height| *height >= begins).min().unwrap_or(Height(u64::MAX))
    }

    /// What stands in blocks that are not final yet.
    fn envelopes_in_tail(&mut self) -> Result<Vec<Arc<Envelope>>, Fault> {
        let records = self.recover()?.tail.into_iter();
        let blocks = records.filter_map(|record| match record {
            Record::Connected { block, .. } => Some(block),
            _ => None,
        });
        Ok(blocks.flat_map(|block| block.body.envelopes.clone()).collect())
    }

    /// Removes the final blocks above this height. What was in them is listed in `undone`, and the
    /// next [`ChainDb::recover`] tells what waits again. Until [`ChainDb::is_back`] is called,
    /// [`ChainDb::rewinding`] tells that it happened.
    pub fn rewind(&mut self, height: Height) -> Result<Rewound, Fault> {
        let mut envelopes = Vec::new();
        let mut undone = Vec::new();
        let on_their_way = self.envelopes_in_tail()?;
        let mut next = height;
        while next < self.last.0 {
            next = next.next();
            let block = self.final_block(next)?.ok_or_else(|| self.corrupt("blocks (missing)"))?;
            let id = block.id(self.chain);
            let mut position = 0_u32;
            for envelope in &block.body.envelopes {
                for transaction in &envelope.transactions {
                    undone.push((next, position, id, transaction.id(self.chain, envelope.signer)));
                    position = position.saturating_add(1);
                }
                envelopes.push(Arc::clone(envelope));
            }
        }
        let known: BTreeSet<EnvelopeId> = envelopes.iter().map(|envelope| envelope.id()).collect();
        let of_tail = on_their_way.into_iter().filter(|envelope| !known.contains(&envelope.id()));
        envelopes.extend(of_tail);
        let transaction = self.connection.transaction().map_err(write_fault)?;
        let write = || {
            returned::keep(&transaction, self.chain, &envelopes)?;
            let sql = "INSERT INTO undone (height, position, block, undone_at, key)
                VALUES (?1, ?2, ?3, strftime('%Y-%m-%d %H:%M:%f', 'now'), ?4)";
            let mut insert = transaction.prepare_cached(sql)?;
            for (height, position, block, id) in &undone {
                insert.execute((number(height.0), position, block.to_string(), id.0))?;
            }
            for sql in [
                "DELETE FROM rota_bodies
                    WHERE (slot, id) IN (SELECT slot, unhex(id) FROM blocks WHERE height > ?1)",
                "DELETE FROM blocks WHERE height > ?1",
                "DELETE FROM rota_certificates WHERE height > ?1",
                "DELETE FROM receipts WHERE height > ?1",
                "DELETE FROM rota_messages WHERE height > ?1",
                "DELETE FROM rota_receipt_runs
                    WHERE run IN (SELECT run FROM rota_runs WHERE last_height > ?1)",
                "DELETE FROM rota_runs WHERE last_height > ?1",
                "INSERT OR REPLACE INTO rota_about VALUES ('rewinding', ?1)",
            ] {
                transaction.execute(sql, [number(height.0)])?;
            }
            // What was beside the blocks that are gone, or above them.
            transaction.execute(
                "DELETE FROM rota_bodies WHERE (slot, id) IN (SELECT slot, body FROM rota_tail)",
                [],
            )?;
            transaction.execute("DELETE FROM rota_tail", [])
        };
        write().map_err(write_fault)?;
        transaction.commit().map_err(write_fault)?;
        self.fsyncs += 1;
        (self.receipts, self.unwritten, self.unsorted) = (Vec::new(), Vec::new(), None);
        self.load_ends().map_err(|error| Fault::storage("reading chain.db", error))?;
        let transactions = envelopes.iter().map(|envelope| envelope.transactions.len()).sum();
        Ok(Rewound { height: self.last.0, transactions, too_deep_below: None })
    }

    /// The height to which this server is on its way back, if it is.
    pub fn rewinding(&self) -> Result<Option<Height>, Fault> {
        let sql = "SELECT value FROM rota_about WHERE name = 'rewinding'";
        self.read(sql, |statement| {
            statement.query_row([], |row| super::count(row, 0).map(Height)).optional()
        })
    }

    /// `state.db` has gone back as well.
    pub fn is_back(&mut self) -> Result<(), Fault> {
        let sql = "DELETE FROM rota_about WHERE name = 'rewinding'";
        self.connection.execute(sql, []).map(drop).map_err(write_fault)
    }
}
