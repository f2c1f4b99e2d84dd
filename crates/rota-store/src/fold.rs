//! The end of a block: what the hook heard becomes leaves, buckets and hashes, in memory and in the file.

use std::collections::{BTreeMap, BTreeSet};

use rota_core::error::Fault;

use crate::capture::Event;
use crate::merkle::{self, Bucket, Entries, Entry, Hash, Key, TableId};
use crate::state::{StateDb, join_key};

/// A leaf that must be there, and what it becomes.
struct Step {
    key: Key,
    old: Option<Hash>,
    new: Option<Hash>,
}

/// What happened to the buckets of all tables.
#[derive(Default)]
struct Steps {
    /// Tables whose buckets begin empty again.
    emptied: BTreeSet<TableId>,
    buckets: BTreeMap<(TableId, Bucket), Vec<Step>>,
}

impl Steps {
    fn add(&mut self, event: Event) {
        match event {
            Event::Row(table, old, new) => self.change(table, old, new),
            Event::Reset(table, entries) => {
                self.empty(table);
                for entry in entries {
                    self.change(table, None, Some(entry));
                }
            }
            Event::Dropped(table) => self.empty(table),
        }
    }

    fn empty(&mut self, table: TableId) {
        self.emptied.insert(table);
        self.buckets.retain(|&(of, _), _| of != table);
    }

    fn change(&mut self, table: TableId, old: Option<Entry>, new: Option<Entry>) {
        match (old, new) {
            (Some(old), Some(new)) if old.key == new.key => {
                self.push(table, Step { key: new.key, old: Some(old.leaf), new: Some(new.leaf) });
            }
            (old, new) => {
                if let Some(old) = old {
                    self.push(table, Step { key: old.key, old: Some(old.leaf), new: None });
                }
                if let Some(new) = new {
                    self.push(table, Step { key: new.key, old: None, new: Some(new.leaf) });
                }
            }
        }
    }

    fn push(&mut self, table: TableId, step: Step) {
        let bucket = step.key.bucket();
        self.buckets.entry((table, bucket)).or_default().push(step);
    }
}

impl StateDb {
    /// Brings trees and file up to what happened since the block began.
    pub(crate) fn fold(&mut self) -> Result<(), Fault> {
        let events = std::mem::take(&mut self.capture().events);
        if !events.is_empty() && self.schema.has_sequence {
            self.sequence = self.read_sequence()?;
        }
        let mut steps = Steps::default();
        events.into_iter().for_each(|event| steps.add(event));
        for &table in &steps.emptied {
            self.empty_table(table)?;
        }
        let gone: Vec<TableId> = self
            .trees
            .keys()
            .copied()
            .filter(|&id| self.schema.table_by_id(id).is_none())
            .collect();
        for table in gone {
            self.trees.remove(&table);
        }
        for (_, table) in self.schema.tables() {
            self.trees.entry(table.id).or_default();
        }
        let mut hashes: BTreeMap<TableId, Vec<(Bucket, Hash)>> = BTreeMap::new();
        for ((table, bucket), steps) in steps.buckets {
            if self.schema.table_by_id(table).is_some() {
                let hash = self.change_bucket(table, bucket, steps)?;
                hashes.entry(table).or_default().push((bucket, hash));
            }
        }
        for (table, hashes) in hashes {
            self.trees.entry(table).or_default().set(&hashes);
        }
        Ok(())
    }

    fn empty_table(&mut self, table: TableId) -> Result<(), Fault> {
        self.trees.remove(&table);
        let range = [join_key(table, 0), join_key(table, Bucket::MAX)];
        self.ours("emptying a table's buckets", |connection| {
            for sql in [
                "DELETE FROM rota_buckets WHERE key BETWEEN ?1 AND ?2",
                "DELETE FROM rota_hashes WHERE key BETWEEN ?1 AND ?2",
            ] {
                connection.prepare_cached(sql)?.execute(range)?;
            }
            Ok(())
        })
    }

    fn change_bucket(
        &self,
        table: TableId,
        bucket: Bucket,
        steps: Vec<Step>,
    ) -> Result<Hash, Fault> {
        let key = join_key(table, bucket);
        let mut entries: Entries = self
            .ours("reading a bucket", |connection| Self::read_bucket(connection, key))?
            .ok_or_else(|| Fault::Diverged(format!("bucket {key} of rota_buckets is damaged")))?;
        for step in steps {
            if entries.set(step.key, step.new) != step.old {
                // As it was before this block, which may have deleted it.
                self.run_ours("ROLLBACK")?;
                let row = self.name_row(table, &step.key);
                return Err(Fault::Diverged(format!(
                    "table {}, row {}: not what this server had stored there",
                    row.table, row.key
                )));
            }
        }
        let bytes = entries.bytes();
        let hash = merkle::bucket_hash(&bytes);
        self.ours("writing a bucket", |connection| {
            if bytes.is_empty() {
                connection
                    .prepare_cached("DELETE FROM rota_buckets WHERE key = ?1")?
                    .execute([key])?;
                connection.prepare_cached("DELETE FROM rota_hashes WHERE key = ?1")?.execute([key])
            } else {
                connection
                    .prepare_cached("REPLACE INTO rota_buckets VALUES (?1, ?2)")?
                    .execute((key, &bytes))?;
                connection
                    .prepare_cached("REPLACE INTO rota_hashes VALUES (?1, ?2)")?
                    .execute((key, hash))
            }
        })?;
        Ok(hash)
    }
}
