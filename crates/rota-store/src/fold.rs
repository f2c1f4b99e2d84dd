//! The end of a block: what the hook heard becomes leaves, buckets and hashes, in memory and in the
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rota_core::error::Fault;
use rusqlite::Connection;
use rusqlite::limits::Limit;

use crate::capture::Event;
use crate::determinism::MAX_VALUE_BYTES;
use crate::merkle::{self, Bucket, Entry, Hash, Key, TableId};
use crate::recent::Recent;
use crate::state::StateDb;

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
        let emptied = std::mem::take(&mut steps.emptied);
        for &table in &emptied {
            self.trees.remove(&table);
        }
        self.with_recent("emptying a table's buckets", |recent, connection| {
            emptied.iter().try_for_each(|&table| recent.empty(connection, table))
        })?;
        self.follow_schema();
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
        self.with_recent("writing changed leaves", Recent::end_block)
    }

    /// There is a tree for each table, and no other.
    fn follow_schema(&mut self) {
        if Arc::ptr_eq(&self.schema, &self.folded) {
            return;
        }
        self.folded = Arc::clone(&self.schema);
        let there: BTreeSet<TableId> = self.schema.tables().map(|(_, table)| table.id).collect();
        self.trees.retain(|id, _| there.contains(id));
        for id in there {
            self.trees.entry(id).or_default();
        }
    }

    fn change_bucket(
        &mut self,
        table: TableId,
        bucket: Bucket,
        steps: Vec<Step>,
    ) -> Result<Hash, Fault> {
        let mut entries = self
            .with_recent("reading a bucket", |recent, connection| {
                recent.entries(connection, table, bucket)
            })?
            .ok_or_else(|| {
                Fault::Diverged(format!("bucket {bucket} of table {table} is damaged"))
            })?;
        let mut leaves = BTreeMap::new();
        for step in steps {
            if entries.set(step.key, step.new) != step.old {
                // As it was before this block, which may have deleted it.
                self.run_ours("ROLLBACK")?;
                let row = self.name_row(table, &step.key);
                return Err(Fault::Diverged(format!(
                    "table {}, row {}: not what this server had stored there. Stop it, delete \
                     state.db* from its home (never chain.db) and start it: it replays its blocks",
                    row.table, row.key
                )));
            }
            leaves.insert(step.key, step.new);
        }
        let hash = merkle::bucket_hash(&entries.bytes());
        self.with_recent("writing changes of a bucket", |recent, connection| {
            recent.change(connection, table, bucket, hash, &leaves)
        })?;
        Ok(hash)
    }

    /// Does something of our own with the leaves. Buckets have no limit but the disk: rows that a
    /// hostile client aims at one bucket make it large.
    fn with_recent<T>(
        &mut self,
        doing: &str,
        run: impl FnOnce(&mut Recent, &Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        let mut recent = std::mem::take(&mut self.recent);
        let result = self.ours(doing, |connection| {
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::MAX)?;
            let result = run(&mut recent, connection);
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
            result
        });
        self.recent = recent;
        result
    }
}
