//! A backup as SQL text, as `sqlite3 .dump` writes it: tables with their rows, then what is about
//! them, all in one transaction.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use rota_core::error::Fault;
use rota_core::types::Height;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::layout::{Layout, Object, Table};
use super::{BUSY, CACHE_KIB, Wanted, height, judge, stop_when};
use crate::error::Trouble;
use crate::schema::quote;
use crate::sqlite;
use crate::state::STATE_FILE;

/// Writes SQL that makes what users had made at one height, which is returned.
pub fn dump(home: &Path, out: &mut dyn Write, wanted: &Wanted) -> Result<Height, Trouble> {
    let fault = |error| judge(error, &wanted.cancelled);
    sqlite::use_utc();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(home.join(STATE_FILE), flags).map_err(fault)?;
    connection.busy_timeout(BUSY).map_err(fault)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(fault)?;
    stop_when(&mut connection, &wanted.cancelled).map_err(fault)?;
    connection.execute_batch("BEGIN").map_err(fault)?;
    let height = height(&connection, "main").map_err(fault)?;
    let layout = Layout::read(&connection, "main").map_err(fault)?.only(&wanted.tables)?;
    let mut dump = Dump { connection: &connection, out, wanted };
    dump.text("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")?;
    for table in &layout.tables {
        dump.create(&table.object)?;
        dump.rows(table)?;
    }
    dump.counters(&layout.tables)?;
    for object in layout.others() {
        dump.create(object)?;
    }
    dump.text("COMMIT;\n")?;
    Ok(height)
}

struct Dump<'a> {
    connection: &'a Connection,
    out: &'a mut dyn Write,
    wanted: &'a Wanted,
}

impl Dump<'_> {
    fn text(&mut self, text: &str) -> Result<(), Fault> {
        let written = self.out.write_all(text.as_bytes());
        written.map_err(|error: io::Error| Fault::storage("writing a backup", error))
    }

    fn create(&mut self, object: &Object) -> Result<(), Fault> {
        self.text(&object.sql)?;
        // A comment may reach to the end of the text.
        self.text(if object.sql.contains("--") { "\n;\n" } else { ";\n" })
    }

    fn rows(&mut self, table: &Table) -> Result<(), Trouble> {
        let wanted = self.wanted;
        let fault = |error| judge(error, &wanted.cancelled);
        let name = quote(&table.object.name);
        let with_rowid = self.has_gaps(table).map_err(fault)?;
        let columns: Vec<String> = if with_rowid {
            table.columns_with_rowid()
        } else {
            table.columns.iter().map(|column| quote(&column.name)).collect()
        };
        if columns.is_empty() {
            return Ok(());
        }
        let columns = columns.join(",");
        let mut start = format!("INSERT INTO {name}");
        if with_rowid {
            start = format!("{start}({columns})");
        }
        let connection = self.connection;
        let sql = format!("SELECT {columns} FROM {name} NOT INDEXED");
        let mut statement = connection.prepare(&sql).map_err(fault)?;
        let width = statement.column_count();
        let mut rows = statement.query([]).map_err(fault)?;
        let mut line = String::new();
        while let Some(row) = rows.next().map_err(fault)? {
            line.clear();
            line.push_str(&start);
            values(&mut line, row, width).map_err(fault)?;
            self.text(&line)?;
        }
        Ok(())
    }

    /// Whether rows would not get the rowids that they have by being inserted in their order.
    fn has_gaps(&self, table: &Table) -> rusqlite::Result<bool> {
        let Some(rowid) = table.rowid else { return Ok(false) };
        let name = quote(&table.object.name);
        let sql = format!(
            "SELECT coalesce(min({rowid}), 1) <> 1 OR coalesce(max({rowid}), 0) <> count(*)
             FROM {name}"
        );
        self.connection.query_row(&sql, [], |row| row.get(0))
    }

    /// Where AUTOINCREMENT stands.
    fn counters(&mut self, tables: &[Table]) -> Result<(), Trouble> {
        let wanted = self.wanted;
        let fault = |error| judge(error, &wanted.cancelled);
        if !tables.iter().any(|table| table.counts) {
            return Ok(());
        }
        self.text("DELETE FROM sqlite_sequence;\n")?;
        for table in tables.iter().filter(|table| table.counts) {
            let connection = self.connection;
            let sql = "SELECT name, seq FROM main.sqlite_sequence WHERE name = ?1";
            let mut statement = connection.prepare_cached(sql).map_err(fault)?;
            let mut rows = statement.query([&table.object.name]).map_err(fault)?;
            while let Some(row) = rows.next().map_err(fault)? {
                let mut line = String::from("INSERT INTO sqlite_sequence");
                values(&mut line, row, 2).map_err(fault)?;
                self.text(&line)?;
            }
        }
        Ok(())
    }
}

/// ` VALUES(1,'a');` and the end of the line.
fn values(line: &mut String, row: &Row<'_>, width: usize) -> rusqlite::Result<()> {
    line.push_str(" VALUES(");
    for column in 0..width {
        if column > 0 {
            line.push(',');
        }
        literal(line, row.get_ref(column)?);
    }
    line.push_str(");\n");
    Ok(())
}

/// A value as SQL that gives it back bit by bit.
fn literal(line: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => line.push_str("NULL"),
        ValueRef::Integer(number) => drop(write!(line, "{number}")),
        // SQLite's own word for what no literal can be.
        ValueRef::Real(number) if number.is_infinite() => {
            line.push_str(if number > 0.0 { "9.0e+999" } else { "-9.0e+999" });
        }
        ValueRef::Real(number) => drop(write!(line, "{number:?}")),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            // SQL ends at a NUL.
            Ok(text) if !text.contains('\0') => {
                line.push('\'');
                line.push_str(&text.replace('\'', "''"));
                line.push('\'');
            }
            _ => {
                line.push_str("CAST(");
                blob(line, bytes);
                line.push_str(" AS TEXT)");
            }
        },
        ValueRef::Blob(bytes) => blob(line, bytes),
    }
}

fn blob(line: &mut String, bytes: &[u8]) {
    line.push_str("X'");
    line.push_str(&hex::encode_upper(bytes));
    line.push('\'');
}
