//! The tables as the state root sees them: which columns of a row are stored, what its key is, and
//! under which number the table's rows are hashed. Read anew after each CREATE, DROP and ALTER, and
//! compared with what was there.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::error::{Fault, Refusal, sqlstate};
use rusqlite::Connection;

use crate::error::Trouble;
use crate::merkle::{Hash, TableId};
use crate::policy;

/// A table whose rows are hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its number.
    pub id: TableId,
    /// Its name now.
    pub name: String,
    /// What its rows are like.
    pub shape: Shape,
}

/// What a table's rows are like. While it stays the same, so do their leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The stored columns by rising number; generated columns that are not stored are left out.
    pub columns: Vec<StoredColumn>,
    /// The numbers of the declared key's columns, in its order; empty if rows are known by their
    /// rowid.
    pub key: Vec<i32>,
    /// Whether rows have a rowid.
    pub has_rowid: bool,
}

/// A column of [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredColumn {
    /// Its number among all columns of the table.
    pub number: i32,
    /// Whether its affinity is REAL: SQLite stores whole numbers in it as integers, and reads them
    /// as reals.
    pub real: bool,
}

/// All tables, and the digest of all that CREATE made.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// By the rowid of their row in `sqlite_schema`, which renaming keeps.
    tables: BTreeMap<i64, Arc<Table>>,
    /// Of (type, name, table, SQL) of everything, in row order.
    pub digest: Hash,
    /// Whether any table has AUTOINCREMENT.
    pub has_sequence: bool,
    /// How many tables, indexes, views and triggers there are.
    pub objects: u64,
}

/// What a change of the schema means for the state root.
pub enum SchemaChange {
    /// A table is gone, with its rows.
    Dropped(TableId),
    /// A table's rows are hashed differently now.
    Reshaped(Arc<Table>),
}

/// Tables whose rows are not part of the root: SQLite's own and ours that hold the root.
fn is_unhashed(name: &str) -> bool {
    name.starts_with("sqlite_")
        || (policy::is_system(name) && !crate::state::HASHED_NAMES.contains(&name))
}

impl Schema {
    /// All tables, by the rowid of their row in `sqlite_schema`.
    pub fn tables(&self) -> impl Iterator<Item = (i64, &Arc<Table>)> {
        self.tables.iter().map(|(&rowid, table)| (rowid, table))
    }

    /// The table of this name, as SQLite spells it.
    pub fn table(&self, name: &[u8]) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.name.as_bytes() == name)
    }

    /// The table of this number.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.id == id)
    }

    /// Reads the schema. `number` says which number the table with this rowid and name has.
    pub fn read(
        connection: &Connection,
        mut number: impl FnMut(i64, &str) -> TableId,
    ) -> rusqlite::Result<Self> {
        let mut hasher = rota_hash::Hasher::new("rota schema");
        let mut schema = Self::default();
        let mut statement = connection.prepare_cached(
            "SELECT rowid, type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        let mut buffer = Vec::new();
        while let Some(row) = rows.next()? {
            buffer.clear();
            for column in 1..5 {
                crate::merkle::encode_value(&mut buffer, row.get_ref(column)?, false);
            }
            hasher.update(&buffer);
            schema.objects += 1;
            let name: String = row.get(2)?;
            schema.has_sequence |= name == "sqlite_sequence";
            if row.get::<_, String>(1)? == "table" && !is_unhashed(&name) {
                let rowid = row.get(0)?;
                let shape = Shape::read(connection, &name)?;
                let id = number(rowid, &name);
                schema.tables.insert(rowid, Arc::new(Table { id, name, shape }));
            }
        }
        schema.digest = hasher.finish();
        Ok(schema)
    }

    /// What has changed since `before`.
    pub fn changes_since(&self, before: &Self) -> Vec<SchemaChange> {
        let mut changes = Vec::new();
        for old in before.tables.values() {
            match self.table_by_id(old.id) {
                None => changes.push(SchemaChange::Dropped(old.id)),
                Some(new) if new.shape != old.shape => {
                    changes.push(SchemaChange::Reshaped(Arc::clone(new)));
                }
                Some(_) => {}
            }
        }
        changes
    }

    /// Refuses what the authorizer is not asked about: names of the system's, by renaming; tables
    /// of modules; tables whose rowid no name reaches; foreign keys to system tables.
    pub fn check(&self, connection: &Connection) -> Result<(), Trouble> {
        let fault = |error| Fault::storage("reading the schema", error);
        let mut statement = connection
            .prepare_cached("SELECT name, type, coalesce(rootpage, 0) = 0 FROM main.sqlite_schema")
            .map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            let name: String = row.get(0).map_err(fault)?;
            let kind: String = row.get(1).map_err(fault)?;
            let virtual_table = kind == "table" && row.get(2).map_err(fault)?;
            let ours = crate::state::SYSTEM_NAMES.contains(&name.as_str());
            if (policy::is_system(&name) && !ours) || name.starts_with("sqlite_stat") {
                return Err(Refusal::new(
                    sqlstate::INSUFFICIENT_PRIVILEGE,
                    format!("{name}: names that start with rota_ are the system's"),
                )
                .into());
            }
            if virtual_table {
                return Err(unsupported(format!("{name}: virtual tables are not supported")).into());
            }
        }
        for table in self.tables.values().filter(|table| !policy::is_system(&table.name)) {
            table.check(connection)?;
        }
        Ok(())
    }
}

fn unsupported(message: String) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

impl Table {
    fn check(&self, connection: &Connection) -> Result<(), Trouble> {
        let fault = |error| Fault::storage("reading a table's foreign keys", error);
        if self.shape.has_rowid && self.rowid_name(connection).map_err(fault)?.is_none() {
            return Err(unsupported(format!(
                "{}: columns rowid, oid and _rowid_ together hide the row's own number; rename one",
                self.name
            ))
            .into());
        }
        let mut statement = connection
            .prepare_cached("SELECT \"table\" FROM pragma_foreign_key_list(?1)")
            .map_err(fault)?;
        let mut rows = statement.query([&self.name]).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            let parent: String = row.get(0).map_err(fault)?;
            if policy::is_system(&parent) {
                return Err(Refusal::new(
                    sqlstate::INSUFFICIENT_PRIVILEGE,
                    format!(
                        "{}: {parent} is a system table; no foreign key may name it",
                        self.name
                    ),
                )
                .into());
            }
        }
        Ok(())
    }

    /// A name for the rowid that no column has taken.
    fn rowid_name(&self, connection: &Connection) -> rusqlite::Result<Option<&'static str>> {
        let mut statement = connection
            .prepare_cached("SELECT count(*) FROM pragma_table_xinfo(?1) WHERE lower(name) = ?2")?;
        for name in ["rowid", "oid", "_rowid_"] {
            let taken: i64 = statement.query_row([self.name.as_str(), name], |row| row.get(0))?;
            if taken == 0 {
                return Ok(Some(name));
            }
        }
        // An INTEGER PRIMARY KEY is the rowid by its own name.
        let alias = "SELECT name FROM pragma_table_xinfo(?1) WHERE pk = 1 AND lower(name) = ?2";
        for name in ["rowid", "oid", "_rowid_"] {
            let found = connection.prepare_cached(alias)?.exists([self.name.as_str(), name])?;
            if found && self.shape.key.is_empty() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// A query for the rowid (0 where there is none) and the stored columns of every row.
    pub fn scan(&self, connection: &Connection) -> rusqlite::Result<String> {
        let mut sql = String::from("SELECT ");
        match self.rowid_name(connection)? {
            Some(name) if self.shape.has_rowid => sql.push_str(name),
            _ => sql.push('0'),
        }
        let mut columns = connection
            .prepare_cached("SELECT cid, name FROM pragma_table_xinfo(?1) ORDER BY cid")?;
        let mut rows = columns.query([&self.name])?;
        while let Some(row) = rows.next()? {
            let number: i32 = row.get(0)?;
            if self.shape.columns.iter().any(|column| column.number == number) {
                sql.push_str(", ");
                sql.push_str(&quote(&row.get::<_, String>(1)?));
            }
        }
        sql.push_str(" FROM main.");
        sql.push_str(&quote(&self.name));
        Ok(sql)
    }
}

/// A name in double quotes.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Shape {
    fn read(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        // A table's rowid is the last column of each of its indexes. (pragma_table_list would say
        // it too, but expands every view to do so, which a hostile schema makes endless.)
        let has_rowid = connection
            .prepare_cached(
                "SELECT count(*) = 0 OR max(x.cid = -1) FROM pragma_index_list(?1) i,
                     pragma_index_xinfo(i.name) x WHERE i.origin = 'pk'",
            )?
            .query_row([table], |row| row.get(0))?;
        let mut columns = Vec::new();
        let mut key = Vec::new();
        // hidden: 2 is a generated column that is not stored.
        let mut statement = connection.prepare_cached(
            "SELECT cid, type, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 2 ORDER BY cid",
        )?;
        let mut rows = statement.query([table])?;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            let declared: String = row.get(1)?;
            columns.push(StoredColumn { number, real: has_real_affinity(&declared) });
            let place: i64 = row.get(2)?;
            if place > 0 {
                key.push((place, number));
            }
        }
        key.sort_unstable();
        let mut key: Vec<i32> = key.into_iter().map(|(_, number)| number).collect();
        // An INTEGER PRIMARY KEY is the rowid itself, and the only key without an index of its own.
        let has_index = connection
            .prepare_cached("SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk'")?
            .exists([table])?;
        if has_rowid && !has_index {
            key.clear();
        }
        Ok(Self { columns, key, has_rowid })
    }
}

/// SQLite's rules of affinity ("Datatypes In SQLite", section 3.1), as far as REAL.
fn has_real_affinity(declared: &str) -> bool {
    let declared = declared.to_ascii_uppercase();
    let contains = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    !contains(&["INT", "CHAR", "CLOB", "TEXT", "BLOB"]) && contains(&["REAL", "FLOA", "DOUB"])
}
