//! Where leaves rest: written at once in the order in which they came, and into their buckets
//! later, in the order of the buckets.
//!
//! ```text
//!   block ──> rota_recent     a few rows of changes, one after another               every block
//!         └─> memory: Recent ──sweep──> rota_buckets, rota_hashes, from end to end   a piece
//! ```
//! Rows that change together are spread over all buckets, so writing each into its bucket at once
//! would write a page for each. The sweep follows with as many changes as come in; by the time it
//! reaches a bucket, several wait for it and for its neighbours. What is in `rota_recent` is read
//! again when the file is opened; it holds two rounds of the sweep at most.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use rusqlite::{Connection, OptionalExtension};

use crate::merkle::{self, Bucket, Entries, Hash, Key, TableId};
use crate::state::{join_key, split_key};

/// So many changes wait before the sweep begins: some 10 MB in memory and in the file, read in a
/// tenth of a second.
const WAITING: usize = 50_000;

/// Rows of `rota_recent` are about this long, and a bucket's part of one has this many changes at
/// most: SQLite's limit on rows is not far above.
const ROW_BYTES: usize = 200_000;
const CHANGES_PER_PART: usize = 2_000;

/// What a row's leaf has become; `None`: the row is gone.
type Change = (Hash, i64, Option<Hash>);

/// A part of a row of `rota_recent`.
#[derive(BorshSerialize, BorshDeserialize)]
enum Part {
    /// A table's buckets are all empty now.
    Emptied(TableId),
    /// Changes of a bucket, and its hash after them.
    Changed { table: TableId, bucket: Bucket, hash: Hash, changes: Vec<Change> },
}

/// A bucket's changes that are not in `rota_buckets` yet.
#[derive(Default)]
struct Waiting {
    hash: Hash,
    leaves: BTreeMap<Key, Option<Hash>>,
}

/// All changes that are not in `rota_buckets` yet.
#[derive(Default)]
pub(crate) struct Recent {
    buckets: BTreeMap<(TableId, Bucket), Waiting>,
    waiting: usize,
    row: Vec<u8>,
    incoming: usize,
    next_row: i64,
    round_began_at: i64,
    swept_to: Option<(TableId, Bucket)>,
}

impl Recent {
    /// Reads `rota_recent`.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut recent = Self::default();
        let mut statement =
            connection.prepare("SELECT seq, changes FROM rota_recent ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            recent.next_row = row.get::<_, i64>(0)?.saturating_add(1);
            let mut bytes = row.get_ref(1)?.as_blob().unwrap_or(&[u8::MAX]);
            while !bytes.is_empty() {
                match Part::deserialize(&mut bytes) {
                    Ok(Part::Emptied(table)) => recent.drop_table(table),
                    Ok(Part::Changed { table, bucket, hash, changes }) => {
                        let leaves = changes
                            .into_iter()
                            .map(|(declared, rowid, leaf)| (Key { declared, rowid }, leaf));
                        recent.wait(table, bucket, hash, leaves);
                    }
                    Err(_) => return Ok(None),
                }
            }
        }
        recent.round_began_at = recent.next_row;
        Ok(Some(recent))
    }

    /// The hashes of buckets that have changes waiting.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = (TableId, Bucket, Hash)> {
        self.buckets.iter().map(|(&(table, bucket), waiting)| (table, bucket, waiting.hash))
    }

    /// Which buckets of a table have changes waiting.
    pub(crate) fn buckets_of(&self, table: TableId) -> impl Iterator<Item = Bucket> {
        self.buckets.range((table, 0)..=(table, Bucket::MAX)).map(|(&(_, bucket), _)| bucket)
    }

    /// A bucket's entries; `None` if the file is damaged.
    pub(crate) fn entries(
        &self,
        connection: &Connection,
        table: TableId,
        bucket: Bucket,
    ) -> rusqlite::Result<Option<Entries>> {
        let settled = connection
            .prepare_cached("SELECT leaves FROM rota_buckets WHERE key = ?1")?
            .query_row([join_key(table, bucket)], |row| {
                Ok(row.get_ref(0)?.as_blob().ok().and_then(Entries::read))
            })
            .optional()?
            .unwrap_or_else(|| Some(Entries::default()));
        let Some(mut entries) = settled else { return Ok(None) };
        if let Some(waiting) = self.buckets.get(&(table, bucket)) {
            for (&key, &leaf) in &waiting.leaves {
                entries.set(key, leaf);
            }
        }
        Ok(Some(entries))
    }

    /// A table's buckets are all empty now.
    pub(crate) fn empty(
        &mut self,
        connection: &Connection,
        table: TableId,
    ) -> rusqlite::Result<()> {
        self.drop_table(table);
        self.note(&Part::Emptied(table));
        for sql in [
            "DELETE FROM rota_buckets WHERE key BETWEEN ?1 AND ?2",
            "DELETE FROM rota_hashes WHERE key BETWEEN ?1 AND ?2",
        ] {
            let range = [join_key(table, 0), join_key(table, Bucket::MAX)];
            connection.prepare_cached(sql)?.execute(range)?;
        }
        Ok(())
    }

    /// A bucket has changed.
    pub(crate) fn change(
        &mut self,
        connection: &Connection,
        table: TableId,
        bucket: Bucket,
        hash: Hash,
        leaves: &BTreeMap<Key, Option<Hash>>,
    ) -> rusqlite::Result<()> {
        self.incoming = self.incoming.saturating_add(leaves.len());
        let mut changes: Vec<Change> =
            leaves.iter().map(|(key, &leaf)| (key.declared, key.rowid, leaf)).collect();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(CHANGES_PER_PART));
            self.note(&Part::Changed { table, bucket, hash, changes });
            changes = rest;
            if self.row.len() > ROW_BYTES {
                self.write_row(connection)?;
            }
        }
        self.wait(table, bucket, hash, leaves.iter().map(|(&key, &leaf)| (key, leaf)));
        Ok(())
    }

    /// The block has no more changes: writes what came, and sweeps on.
    pub(crate) fn end_block(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.write_row(connection)?;
        let mut due = std::mem::take(&mut self.incoming).saturating_mul(5) / 4;
        while due > 0 && self.waiting > WAITING {
            due = due.saturating_sub(self.settle_next(connection)?.max(1));
        }
        Ok(())
    }

    fn note(&mut self, part: &Part) {
        part.serialize(&mut self.row).expect("writing to memory does not fail");
    }

    fn write_row(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if !self.row.is_empty() {
            connection
                .prepare_cached("INSERT INTO rota_recent VALUES (?1, ?2)")?
                .execute((self.next_row, &self.row))?;
            self.next_row = self.next_row.saturating_add(1);
            self.row.clear();
        }
        Ok(())
    }

    fn wait(
        &mut self,
        table: TableId,
        bucket: Bucket,
        hash: Hash,
        leaves: impl Iterator<Item = (Key, Option<Hash>)>,
    ) {
        let waiting = self.buckets.entry((table, bucket)).or_default();
        let before = waiting.leaves.len();
        waiting.hash = hash;
        waiting.leaves.extend(leaves);
        self.waiting += waiting.leaves.len() - before;
    }

    fn drop_table(&mut self, table: TableId) {
        let dropped: Vec<_> = self.buckets_of(table).collect();
        for bucket in dropped {
            if let Some(waiting) = self.buckets.remove(&(table, bucket)) {
                self.waiting -= waiting.leaves.len();
            }
        }
    }

    /// Writes the next bucket of the sweep; how many changes it had waiting.
    fn settle_next(&mut self, connection: &Connection) -> rusqlite::Result<usize> {
        let next = match self.swept_to {
            Some((table, Bucket::MAX)) => self.buckets.range((table.saturating_add(1), 0)..).next(),
            Some((table, bucket)) => self.buckets.range((table, bucket + 1)..).next(),
            None => self.buckets.iter().next(),
        };
        let Some((&(table, bucket), _)) = next else {
            // The round ends: nothing waits that was written before it began.
            connection
                .prepare_cached("DELETE FROM rota_recent WHERE seq < ?1")?
                .execute([self.round_began_at])?;
            self.round_began_at = self.next_row;
            self.swept_to = None;
            return Ok(0);
        };
        let entries = self.entries(connection, table, bucket)?.unwrap_or_default();
        write_bucket(connection, join_key(table, bucket), &entries)?;
        self.swept_to = Some((table, bucket));
        let settled =
            self.buckets.remove(&(table, bucket)).map_or(0, |waiting| waiting.leaves.len());
        self.waiting -= settled;
        Ok(settled)
    }
}

fn write_bucket(connection: &Connection, key: i64, entries: &Entries) -> rusqlite::Result<()> {
    if entries.is_empty() {
        connection.prepare_cached("DELETE FROM rota_buckets WHERE key = ?1")?.execute([key])?;
        connection.prepare_cached("DELETE FROM rota_hashes WHERE key = ?1")?.execute([key])?;
        return Ok(());
    }
    let bytes = entries.bytes();
    connection
        .prepare_cached("REPLACE INTO rota_buckets VALUES (?1, ?2)")?
        .execute((key, &bytes))?;
    connection
        .prepare_cached("REPLACE INTO rota_hashes VALUES (?1, ?2)")?
        .execute((key, merkle::bucket_hash(&bytes)))?;
    Ok(())
}

/// The settled buckets of a table.
pub(crate) fn settled_buckets(
    connection: &Connection,
    table: TableId,
) -> rusqlite::Result<Vec<Bucket>> {
    connection
        .prepare("SELECT key FROM rota_buckets WHERE key BETWEEN ?1 AND ?2")?
        .query_map([join_key(table, 0), join_key(table, Bucket::MAX)], |row| {
            Ok(split_key(row.get(0)?).1)
        })?
        .collect()
}
