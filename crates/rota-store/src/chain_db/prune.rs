//! Old blocks are deleted, where that is wanted, and the space that they took is given back
//! (beside step 8).
//!
//! ```text
//!   1 ………… lowest ………………………… floor ─── snapshot ──── snapshot ──── newest
//!   deleted   └ some of these    └ the older of the two newest certified ones
//!               with each append
//! ```
//! Nothing is deleted from the older of the two newest certified snapshots on: a server that is
//! sent one finds all blocks after it here, and this server itself, should it lose `state.db`, can
//! begin from it.

use rota_core::error::Fault;
use rota_core::types::Height;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{ChainDb, count, number};

/// So many blocks are deleted with an append for each that it makes final: more than one, so that a
/// server that is told to keep less catches up, and few enough that the append takes little longer.
const BLOCKS_FOR_ONE: u64 = 4;

/// So many free pages (4 MiB) are left in the file for what comes next; as long as as much is
/// deleted as is added, none are given back.
const SPARE_PAGES: i64 = 1_024;

/// So many pages (1 MiB) are given back with an append at the most: each may be one that has to be
/// moved.
const PAGES_AT_ONCE: i64 = 256;

/// How much is kept, and what is there.
#[derive(Default)]
pub(super) struct Prune {
    /// The newest blocks that are kept; 0 keeps all.
    keep: u64,
    /// From this height on all is kept.
    pub floor: Height,
    /// The lowest block that is here; 0 before the first.
    pub lowest: Height,
    /// The block of the snapshot that this log begins with, if it begins with one.
    pub base: Option<Height>,
    /// Whether proofs are kept for ever: under `pow` they are what makes a chain, and small.
    proofs_stay: bool,
}

impl ChainDb {
    /// Keeps so many of the newest blocks from now on; 0 keeps all.
    pub fn keep_blocks(&mut self, blocks: u64) {
        self.prune.keep = blocks;
        self.prune.proofs_stay = self.members.is_none();
    }

    /// The lowest block that is here; 0 before the first.
    pub fn lowest(&self) -> Height {
        self.prune.lowest
    }

    /// The block of the snapshot that this log was begun with, if it was.
    pub fn begins_with_snapshot(&self) -> Option<Height> {
        self.prune.base
    }

    /// Where the blocks begin.
    pub(super) fn load_beginning(&mut self) -> rusqlite::Result<()> {
        let sql = "SELECT height FROM blocks ORDER BY height LIMIT 1";
        let lowest = self.connection.query_row(sql, [], |row| count(row, 0)).optional()?;
        self.prune.lowest = lowest.map(Height).unwrap_or_default();
        let sql = "SELECT value FROM rota_about WHERE name = 'base'";
        let base = self.connection.query_row(sql, [], |row| count(row, 0)).optional()?;
        self.prune.base = base.map(Height);
        self.awaits_undone = self.has_undone()?;
        Ok(())
    }

    /// Free pages in the file, and all pages.
    pub fn pages(&self) -> Result<(i64, i64), Fault> {
        let read = |pragma: &str| self.connection.query_row(pragma, [], |row| row.get(0));
        let pages =
            read("PRAGMA freelist_count").and_then(|free| Ok((free, read("PRAGMA page_count")?)));
        pages.map_err(|error| Fault::storage("counting pages", error))
    }
}

impl Prune {
    /// The first height that is kept, with blocks up to `last`.
    fn kept_from(&self, last: Height) -> Height {
        if self.keep == 0 {
            return Height(0);
        }
        Height(last.0.saturating_sub(self.keep).saturating_add(1)).min(self.floor)
    }

    /// Deletes some of what is not wanted any more, and gives back some of what is free.
    pub fn some(
        &mut self,
        transaction: &Transaction<'_>,
        last: Height,
        added: usize,
    ) -> rusqlite::Result<()> {
        if self.lowest == Height(0) {
            // The first block that is ever written here.
            self.lowest = last;
            let sql = "SELECT height FROM blocks ORDER BY height LIMIT 1";
            self.lowest = Height(transaction.query_row(sql, [], |row| count(row, 0))?);
        }
        let many = u64::try_from(added).unwrap_or(u64::MAX).saturating_mul(BLOCKS_FOR_ONE);
        let until = self.kept_from(last).0.min(self.lowest.0.saturating_add(many));
        if until <= self.lowest.0 {
            return self.give_back(transaction);
        }
        while self.lowest.0 < until {
            self.delete(transaction, self.lowest)?;
            self.lowest = self.lowest.next();
        }
        self.delete_runs(transaction)?;
        self.give_back(transaction)
    }

    fn delete(&self, transaction: &Transaction<'_>, height: Height) -> rusqlite::Result<()> {
        let tables = [
            "DELETE FROM rota_bodies
                WHERE (slot, id) IN (SELECT slot, unhex(id) FROM blocks WHERE height = ?1)",
            "DELETE FROM blocks WHERE height = ?1",
            "DELETE FROM receipts WHERE height = ?1",
            "DELETE FROM rota_messages WHERE height = ?1",
        ];
        let certificates = "DELETE FROM rota_certificates WHERE height = ?1";
        let certificates = (!self.proofs_stay).then_some(certificates);
        for sql in tables.into_iter().chain(certificates) {
            transaction.prepare_cached(sql)?.execute([number(height.0)])?;
        }
        Ok(())
    }

    /// Runs of ids whose receipts are all gone: one at a time.
    fn delete_runs(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "SELECT run FROM rota_runs WHERE last_height < ?1 ORDER BY run LIMIT 1";
        let run: Option<i64> = transaction
            .prepare_cached(sql)?
            .query_row([number(self.lowest.0)], |row| row.get(0))
            .optional()?;
        let Some(run) = run else { return Ok(()) };
        for sql in
            ["DELETE FROM rota_receipt_runs WHERE run = ?1", "DELETE FROM rota_runs WHERE run = ?1"]
        {
            transaction.prepare_cached(sql)?.execute([run])?;
        }
        Ok(())
    }

    fn give_back(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.keep == 0 {
            return Ok(());
        }
        let free = transaction.prepare_cached("PRAGMA freelist_count")?;
        let free: i64 = { free }.query_row([], |row| row.get(0))?;
        if free <= SPARE_PAGES {
            return Ok(());
        }
        vacuum(transaction, (free - SPARE_PAGES).min(PAGES_AT_ONCE))
    }
}

/// Gives back so many pages; the file is cut when the write-ahead log is copied into it.
fn vacuum(connection: &Connection, pages: i64) -> rusqlite::Result<()> {
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // One row for each page.
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
