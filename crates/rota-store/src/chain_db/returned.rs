//! What stood in blocks that were undone waits to be written again (`pow`, beside step 8): it is
//! kept here until it stands in a final block once more or can stand in none, since a server that
//! is killed on its way back has it nowhere else.

use std::sync::Arc;

use rota_core::error::Fault;
use rota_core::time::Time;
use rota_core::transaction::Envelope;
use rota_core::types::{ChainId, Height};
use rusqlite::Transaction;

use super::writing::write_fault;
use super::{ChainDb, number, seal, unseal};
use crate::value::Receipt;

/// An envelope's key is its first transaction's: in a block all of an envelope stands, or nothing.
pub(super) const RETURNED: &str = "CREATE TABLE IF NOT EXISTS rota_returned (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, envelope BLOB NOT NULL
)";

/// Keeps envelopes, those that are kept already as well.
pub(super) fn keep(
    transaction: &Transaction<'_>,
    chain: ChainId,
    envelopes: &[Arc<Envelope>],
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO rota_returned (key, envelope) VALUES (?1, ?2)";
    let mut insert = transaction.prepare_cached(sql)?;
    for envelope in envelopes {
        if let Some(first) = envelope.transactions.first() {
            insert.execute((first.id(chain, envelope.signer).0, seal(envelope)))?;
        }
    }
    Ok(())
}

impl ChainDb {
    /// What waits to be written again after a final block of this height and time, oldest first.
    /// What has expired is forgotten.
    pub(super) fn returned(
        &mut self,
        height: Height,
        time: Time,
    ) -> Result<Vec<Arc<Envelope>>, Fault> {
        let sql = "SELECT number, envelope FROM rota_returned ORDER BY number";
        let kept: Vec<(i64, Vec<u8>)> = self.read(sql, |statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let mut waiting = Vec::new();
        for (number, bytes) in kept {
            let envelope: Envelope = unseal(&bytes).ok_or_else(|| self.corrupt("rota_returned"))?;
            if envelope.expiry.has_passed(height, time) {
                let sql = "DELETE FROM rota_returned WHERE number = ?1";
                self.connection.execute(sql, [number]).map_err(write_fault)?;
            } else {
                waiting.push(Arc::new(envelope));
            }
        }
        Ok(waiting)
    }

    /// Whether something that was undone has not been applied again.
    pub(super) fn has_undone(&self) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM undone WHERE again IS NULL)
            OR EXISTS (SELECT 1 FROM rota_returned)";
        self.connection.query_row(sql, [], |row| row.get(0))
    }
}

impl super::Writing<'_> {
    /// Of what was undone some is applied again: where, is told beside it.
    pub(super) fn applied_again(&self, receipts: &[Receipt]) -> rusqlite::Result<()> {
        let sql = "UPDATE undone SET again = ?1 WHERE key = ?2 AND again IS NULL";
        let mut update = self.transaction.prepare_cached(sql)?;
        let sql = "DELETE FROM rota_returned WHERE key = ?1";
        let mut delete = self.transaction.prepare_cached(sql)?;
        for receipt in receipts {
            update.execute((number(receipt.height.0), receipt.id.0))?;
            delete.execute([receipt.id.0])?;
        }
        Ok(())
    }
}
