//! Which transactions may not be applied again: their ids and outcomes, until they expire. Under
//! the root, like a user's table, so that no server applies twice what another one skips.
//!
//! One row holds what a block added, so that a transaction costs some bytes in it and not a row, an
//! index entry and a leaf of its own. Looking an id up is done in memory; the rows are read when
//! the file is opened.
//!
//! ```text
//!   rota_transactions(seq, height, expiry_time, outcomes)
//!                                               └─ (id 32, position 4, SQLSTATE 5) · n
//! ```

use std::collections::HashSet;

use rota_core::error::{Fault, Refusal};
use rota_core::time::Time;
use rota_core::types::{Height, TransactionId};
use rusqlite::Connection;

use crate::state::StateDb;
use crate::value::Receipt;

/// The bytes of one outcome.
pub(crate) const OUTCOME_BYTES: usize = 41;

/// The SQLSTATE of success.
pub(crate) const SUCCESS: &[u8; 5] = b"00000";

/// Outcomes in a row at the most: SQLite holds values of up to a megabyte here.
const OUTCOMES_PER_ROW: usize = 10_000;

/// Rows forgotten with each block: more than a block adds, so that they do not pile up, and so few
/// that no block pays for an hour of them.
const FORGOTTEN_PER_BLOCK: usize = 4;

/// What is remembered, and what the block that is being applied changes of it.
#[derive(Default)]
pub(crate) struct Remembered {
    known: HashSet<TransactionId>,
    added: HashSet<TransactionId>,
    forgotten: HashSet<TransactionId>,
    outcomes: Vec<u8>,
    expiry: Time,
}

impl Remembered {
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut known = HashSet::new();
        let mut statement = connection.prepare("SELECT outcomes FROM rota_transactions")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            known.extend(ids(row.get_ref(0)?.as_blob()?));
        }
        Ok(Self { known, ..Self::default() })
    }

    pub fn contains(&self, id: &TransactionId) -> bool {
        self.added.contains(id) || (self.known.contains(id) && !self.forgotten.contains(id))
    }

    pub fn add(&mut self, receipt: &Receipt, expiry: Time) {
        self.added.insert(receipt.id);
        self.expiry = self.expiry.max(expiry);
        self.outcomes.extend(receipt.id.0);
        self.outcomes.extend(receipt.index.to_le_bytes());
        let refusal = receipt.outcome.as_ref().err();
        self.outcomes.extend(refusal.map_or(SUCCESS, |refusal| &refusal.sqlstate));
    }

    /// The block is committed.
    fn settle(&mut self) {
        for id in self.forgotten.drain() {
            self.known.remove(&id);
        }
        self.known.extend(self.added.drain());
        self.abandon();
    }

    /// The block is rolled back.
    fn abandon(&mut self) {
        self.added.clear();
        self.forgotten.clear();
        self.outcomes.clear();
        self.expiry = Time::default();
    }
}

fn ids(outcomes: &[u8]) -> impl Iterator<Item = TransactionId> {
    outcomes
        .chunks_exact(OUTCOME_BYTES)
        .filter_map(|outcome| outcome.first_chunk::<32>().map(|id| TransactionId(*id)))
}

/// A row's outcomes as receipts, without results and messages, which are not remembered.
fn receipts(height: Height, outcomes: &[u8]) -> impl Iterator<Item = Receipt> {
    outcomes.chunks_exact(OUTCOME_BYTES).filter_map(move |outcome| {
        let (id, rest) = outcome.split_first_chunk::<32>()?;
        let (index, sqlstate) = rest.split_first_chunk::<4>()?;
        let sqlstate: [u8; 5] = sqlstate.try_into().ok()?;
        let refused = Refusal { sqlstate, message: String::new() };
        Some(Receipt {
            id: TransactionId(*id),
            height,
            index: u32::from_le_bytes(*index),
            outcome: if sqlstate == *SUCCESS { Ok(Vec::new()) } else { Err(refused) },
        })
    })
}

impl StateDb {
    /// What is still remembered of blocks after this height, by rising height: their receipts, but
    /// for results and messages.
    pub fn remembered_after(&self, height: Height) -> Result<Vec<Receipt>, Fault> {
        let after = i64::try_from(height.0).unwrap_or(i64::MAX);
        self.ours("reading rota_transactions", |connection| {
            let sql =
                "SELECT height, outcomes FROM rota_transactions WHERE height > ?1 ORDER BY seq";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([after])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let height = Height(u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0));
                found.extend(receipts(height, row.get_ref(1)?.as_blob()?));
            }
            Ok(found)
        })
    }

    /// The first thing in a block: rows are forgotten in the order in which they came, once all in
    /// them has expired.
    pub(crate) fn forget_expired(&mut self, time: Time) -> Result<(), Fault> {
        self.remembered.abandon();
        let time = i64::try_from(time.0).unwrap_or(i64::MAX);
        let connection = self.engine.database.connection();
        self.engine.context.trust();
        let expired = (|| {
            let mut oldest = connection.prepare_cached(
                "SELECT seq, expiry_time, outcomes FROM rota_transactions ORDER BY seq",
            )?;
            let mut rows = oldest.query([])?;
            let mut end = None;
            for _ in 0..FORGOTTEN_PER_BLOCK {
                match rows.next()? {
                    Some(row) if row.get::<_, i64>(1)? < time => {
                        end = Some(row.get::<_, i64>(0)?);
                        self.remembered.forgotten.extend(ids(row.get_ref(2)?.as_blob()?));
                    }
                    _ => break,
                }
            }
            Ok(end)
        })()
        .map_err(|error: rusqlite::Error| Fault::storage("forgetting expired ids", error))?;
        let Some(end) = expired else { return Ok(()) };
        self.under_root("forgetting expired ids", |connection| {
            let sql = "DELETE FROM rota_transactions WHERE seq <= ?1";
            connection.prepare_cached(sql)?.execute([end]).map(drop)
        })
    }

    /// The last thing in a block: what it added is written.
    pub(crate) fn write_remembered(&mut self, height: Height) -> Result<(), Fault> {
        let outcomes = std::mem::take(&mut self.remembered.outcomes);
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (height, expiry) = (number(height.0), number(self.remembered.expiry.0));
        for row in outcomes.chunks(OUTCOMES_PER_ROW * OUTCOME_BYTES) {
            let seq = self.next_transaction;
            self.under_root("remembering transactions", |connection| {
                connection
                    .prepare_cached("INSERT INTO rota_transactions VALUES (?1, ?2, ?3, ?4)")?
                    .execute((seq, height, expiry, row))
                    .map(drop)
            })?;
            self.next_transaction += 1;
        }
        Ok(())
    }

    /// What a block added and forgot holds from now on.
    pub(crate) fn settle_remembered(&mut self) {
        self.remembered.settle();
    }

    /// Changes rows of our own that are under the root.
    pub(crate) fn under_root(
        &mut self,
        doing: &str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Fault> {
        self.engine.context.trust();
        self.begin_capture(u64::MAX);
        let result = run(self.engine.database.connection());
        self.end_capture()?;
        result.map_err(|error| Fault::storage(doing, error))
    }
}
