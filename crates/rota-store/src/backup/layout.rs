//! What is in a database, as a backup needs it: which columns of a table can be written, by which
//! name its rows' numbers are reached, and what has to come after the rows.

use rota_core::error::{Refusal, sqlstate};
use rusqlite::Connection;

use super::keys::Key;
use crate::policy;
use crate::schema::quote;
use crate::sql::{Lexer, Token};

/// What CREATE made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// `table`, `index`, `view` or `trigger`.
    pub(super) kind: String,
    pub(super) name: String,
    /// The table or view that it belongs to; its own name if it is one.
    pub(super) table: String,
    pub(super) sql: String,
}

/// A table whose rows are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) object: Object,
    /// The columns that can be written: no generated ones.
    pub(super) columns: Vec<Column>,
    /// A name for the rowid, where there is one and no column holds it.
    pub(super) rowid: Option<&'static str>,
    /// Whether it has AUTOINCREMENT.
    pub(super) counts: bool,
}

/// A column of [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The text of its default.
    pub(super) default: Option<String>,
    /// Whether it is an INTEGER PRIMARY KEY: the rowid by another name.
    pub(super) is_rowid: bool,
}

/// All that users have made, each kind in the order in which it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) tables: Vec<Table>,
    indexes: Vec<Object>,
    views: Vec<Object>,
    triggers: Vec<Object>,
}

/// Whether a table is SQLite's or ours.
fn is_system(name: &str) -> bool {
    policy::is_system(name) || name.to_ascii_lowercase().starts_with("sqlite_")
}

impl Layout {
    /// Reads the schema of one of a connection's databases.
    pub(super) fn read(connection: &Connection, database: &str) -> rusqlite::Result<Self> {
        let sql = format!(
            "SELECT type, name, tbl_name, sql FROM {database}.sqlite_schema
             WHERE sql IS NOT NULL ORDER BY rowid"
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut layout = Self::default();
        while let Some(row) = rows.next()? {
            let (kind, name) = (row.get(0)?, row.get(1)?);
            let object = Object { kind, name, table: row.get(2)?, sql: row.get(3)? };
            if is_system(&object.name) || is_system(&object.table) {
                continue;
            }
            match object.kind.as_str() {
                "table" => layout.tables.push(Table::read(connection, database, object)?),
                "index" => layout.indexes.push(object),
                "view" => layout.views.push(object),
                _ => layout.triggers.push(object),
            }
        }
        Ok(layout)
    }

    /// What has to come after the rows, in an order in which each finds what it is about.
    pub(super) fn others(&self) -> impl Iterator<Item = &Object> {
        self.indexes.iter().chain(&self.views).chain(&self.triggers)
    }

    /// Only these tables and views with what belongs to them, if any are named.
    pub(super) fn only(mut self, names: &[String]) -> Result<Self, Refusal> {
        if names.is_empty() {
            return Ok(self);
        }
        let named = |name: &str| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
        let tables = self.tables.iter().map(|table| &table.object);
        let there: Vec<&Object> = tables.chain(&self.views).collect();
        for wanted in names {
            if !there.iter().any(|object| object.name.eq_ignore_ascii_case(wanted)) {
                let message = format!("no such table: {wanted:.200}");
                return Err(Refusal::new(sqlstate::UNDEFINED_TABLE, message));
            }
        }
        self.tables.retain(|table| named(&table.object.name));
        for others in [&mut self.indexes, &mut self.views, &mut self.triggers] {
            others.retain(|object| named(&object.table));
        }
        Ok(self)
    }
}

/// The foreign keys that tables declare, also to tables that are not there.
pub(super) fn keys(connection: &Connection, tables: &[Table]) -> rusqlite::Result<Vec<Key>> {
    let mut keys = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT id, \"table\", \"from\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )?;
    for table in tables {
        let child = &table.object.name;
        let mut rows = statement.query([child])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if last.replace(id) != Some(id) {
                let columns = Vec::new();
                keys.push(Key { child: child.clone(), parent: row.get(1)?, columns });
            }
            if let Some(key) = keys.last_mut() {
                key.columns.push(row.get(2)?);
            }
        }
    }
    Ok(keys)
}

impl Table {
    fn read(connection: &Connection, database: &str, object: Object) -> rusqlite::Result<Self> {
        // A table's rowid is the last column of each of its indexes; an INTEGER PRIMARY KEY is the
        // only key that needs no index of its own.
        let (has_key_index, has_rowid): (bool, bool) = connection
            .prepare_cached(
                "SELECT count(*) > 0, count(*) = 0 OR max(x.cid = -1)
                 FROM pragma_index_list(?1, ?2) i, pragma_index_xinfo(i.name, ?2) x
                 WHERE i.origin = 'pk'",
            )?
            .query_row([object.name.as_str(), database], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut statement = connection.prepare_cached(
            "SELECT name, hidden, pk, dflt_value FROM pragma_table_xinfo(?1, ?2) ORDER BY cid",
        )?;
        let mut rows = statement.query([object.name.as_str(), database])?;
        let (mut names, mut columns) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            names.push(name.to_ascii_lowercase());
            if row.get::<_, i64>(1)? == 0 {
                let is_rowid = has_rowid && !has_key_index && row.get::<_, i64>(2)? == 1;
                columns.push(Column { name, default: row.get(3)?, is_rowid });
            }
        }
        let is_free = |name: &&'static str| !names.iter().any(|taken| taken == name);
        let wants_rowid = has_rowid && !columns.iter().any(|column| column.is_rowid);
        let rowid = ["rowid", "oid", "_rowid_"].into_iter().find(is_free);
        let counts = has_autoincrement(&object.sql);
        Ok(Self { object, columns, rowid: rowid.filter(|_| wants_rowid), counts })
    }

    /// What a row is written by, quoted: its rowid, if that has no column, and its columns.
    pub(super) fn columns_with_rowid(&self) -> Vec<String> {
        let rowid = self.rowid.map(str::to_owned);
        rowid.into_iter().chain(self.columns.iter().map(|column| quote(&column.name))).collect()
    }
}

/// Whether the word stands in a CREATE TABLE, where nothing else can be called so unquoted.
fn has_autoincrement(sql: &str) -> bool {
    Lexer::new(sql).any(|(_, token)| match token {
        Token::Word(word) => word.eq_ignore_ascii_case("autoincrement"),
        _ => false,
    })
}
