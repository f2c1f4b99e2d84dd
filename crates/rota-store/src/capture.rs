//! What the preupdate hook hears: each row's old and new leaf, buffered until the block ends.
//! SQLite says nothing of a rollback, so whoever rolls back takes the buffer back to its mark.

use std::sync::Arc;

use rusqlite::types::ValueRef;

use crate::merkle::{self, Entry, Key, TableId, encode_value};
use crate::schema::{Schema, Shape, Table};
use crate::sqlite::{Change, ChangeKind};

/// What happened to the rows of a table.
#[derive(Clone, Debug)]
pub enum Event {
    /// A row changed: its entry before and after.
    Row(TableId, Option<Entry>, Option<Entry>),
    /// All rows were read anew.
    Reset(TableId, Vec<Entry>),
    /// The table is gone.
    Dropped(TableId),
}

/// Why the rows that changed make their transaction fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// After the largest rowid SQLite draws rowids at random.
    LargestRowid,
    /// More bytes than the budget.
    Bytes,
    /// A table that is not in the schema, or a value that could not be read: this program is wrong.
    Unreadable(String),
}

/// What a changed row costs beside its bytes: its leaf and its place in indexes.
pub const ROW_BYTES: u64 = 100;

/// The hook's memory.
#[derive(Default)]
pub struct Capture {
    /// Whether rows are looked at; not while the root's own tables are written.
    pub on: bool,
    /// The tables as they are now.
    pub schema: Arc<Schema>,
    /// In order.
    pub events: Vec<Event>,
    /// Bytes of rows changed since they were set to zero.
    pub bytes: u64,
    /// How many of those are allowed.
    pub allowed_bytes: u64,
    /// The first thing that went wrong.
    pub problem: Option<Problem>,
    last: Option<Arc<Table>>,
    row: RowHasher,
}

impl Capture {
    /// Other tables from now on.
    pub fn set_schema(&mut self, schema: Arc<Schema>) {
        self.schema = schema;
        self.last = None;
    }

    /// Called by the hook. Returns whether the statement may go on.
    pub fn observe(&mut self, change: &Change<'_>) -> bool {
        if !self.on || change.table.starts_with(b"sqlite_") {
            return true;
        }
        if self.problem.is_some() {
            return false;
        }
        match self.event(change) {
            Ok(Some(event)) => self.events.push(event),
            Ok(None) => {}
            Err(problem) => self.problem = Some(problem),
        }
        self.problem.is_none()
    }

    fn event(&mut self, change: &Change<'_>) -> Result<Option<Event>, Problem> {
        if self.last.as_ref().is_none_or(|table| table.name.as_bytes() != change.table) {
            self.last = self.schema.table(change.table).cloned();
        }
        let Some(table) = self.last.clone() else {
            let name = String::from_utf8_lossy(change.table).into_owned();
            return Err(Problem::Unreadable(format!(
                "a row of {name}, which is not in the schema"
            )));
        };
        if change.kind != ChangeKind::Delete && change.new_rowid == i64::MAX {
            return Err(Problem::LargestRowid);
        }
        let old = match change.kind {
            ChangeKind::Insert => None,
            _ => Some(self.entry(&table, change.old_rowid, |column| change.before(column))?),
        };
        let new = match change.kind {
            ChangeKind::Delete => None,
            _ => Some(self.entry(&table, change.new_rowid, |column| change.after(column))?),
        };
        if self.bytes > self.allowed_bytes {
            return Err(Problem::Bytes);
        }
        Ok((old != new).then_some(Event::Row(table.id, old, new)))
    }

    fn entry<'v>(
        &mut self,
        table: &Table,
        rowid: i64,
        read: impl Fn(i32) -> Result<ValueRef<'v>, i32>,
    ) -> Result<Entry, Problem> {
        let entry =
            self.row.entry(&table.shape, rowid, |_, number| read(number)).map_err(|code| {
                Problem::Unreadable(format!("a row of {}: SQLite's code {code}", table.name))
            })?;
        self.bytes = self.bytes.saturating_add(self.row.bytes());
        Ok(entry)
    }
}

/// Hashes rows; keeps its memory from row to row.
#[derive(Default)]
pub struct RowHasher {
    values: Vec<u8>,
    key: Vec<u8>,
}

impl RowHasher {
    /// The entry of a row whose stored columns `read` gives, asked by position among them and by
    /// number.
    pub fn entry<'v, E>(
        &mut self,
        shape: &Shape,
        rowid: i64,
        read: impl Fn(usize, i32) -> Result<ValueRef<'v>, E>,
    ) -> Result<Entry, E> {
        let rowid = if shape.has_rowid { rowid } else { 0 };
        self.values.clear();
        self.key.clear();
        for (position, column) in shape.columns.iter().enumerate() {
            encode_value(&mut self.values, read(position, column.number)?, column.real);
        }
        let leaf = merkle::leaf(rowid, &self.values);
        if shape.key.is_empty() {
            return Ok(Entry { key: Key::of_rowid(rowid), leaf });
        }
        for number in &shape.key {
            let column =
                shape.columns.iter().enumerate().find(|(_, column)| column.number == *number);
            if let Some((position, column)) = column {
                encode_value(&mut self.key, read(position, column.number)?, column.real);
            }
        }
        Ok(Entry { key: Key { declared: merkle::declared_key(&self.key), rowid }, leaf })
    }

    /// What the last row costs.
    pub fn bytes(&self) -> u64 {
        ROW_BYTES.saturating_add(u64::try_from(self.values.len()).unwrap_or(u64::MAX))
    }
}
