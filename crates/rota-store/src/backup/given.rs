//! A SQLite file that somebody gave, as the statements that make what is in it. The file is hostile
//! until it has shown otherwise: it is read and never written, nothing that its schema says is run,
//! and its statements are its giver's own, with its giver's rights.
//!
//! ```text
//!   header ─► schema, no modules ─► integrity check ─► CREATE TABLE …; INSERT … (?, ?), (?, ?) …;
//!                                                      then indexes, views and triggers
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::keys::{Indexes, children_first};
use super::layout::{self, Column, Layout, Object, Table};
use super::{CACHE_KIB, stop_when};
use crate::determinism::{MAX_SQL_BYTES, MAX_VALUE_BYTES};
use crate::schema::quote;
use crate::sequences;
use crate::sql::classify;
use crate::value::StatementKind;

/// How every SQLite file begins.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Where the header says how the file is written and read: 1 a rollback journal, 2 a log (SQLite's
/// "Database File Format", 1.3.3).
const JOURNAL_BYTES: u64 = 18;

/// How many bytes of a statement's text its rows may make: statements as long are kept prepared.
const ROWS_TEXT: usize = 3_500;

/// The most rows in one statement, ...
const ROWS: usize = 500;

/// ... and the most bytes of their values.
const ROWS_BYTES: usize = 256 << 10;

/// Longer values are not read at all. Ours are shorter, so that their lengths can be told.
const LONGEST_READ: i32 = 256 << 20;

/// A file that can be read.
pub struct Given {
    connection: Connection,
    layout: Layout,
}

/// Takes a statement; `false`: no more are wanted.
pub type Take<'a> = &'a mut dyn FnMut(Statement) -> bool;

impl Given {
    /// Opens and checks a file of ours, which nobody else has open. It takes as long as reading all
    /// of it; `cancelled` stops it (57014).
    pub fn open(path: &Path, cancelled: &Arc<AtomicBool>) -> Result<Self, Refusal> {
        refuse_log_mode(path)?;
        let connection = connect(path, cancelled).map_err(refuse)?;
        refuse_modules(&connection)?;
        check_integrity(&connection)?;
        let layout = Layout::read(&connection, "main").map_err(refuse)?;
        for object in layout.tables.iter().map(|table| &table.object).chain(layout.others()) {
            check_object(object)?;
        }
        Ok(Self { connection, layout })
    }

    /// Gives statements that make what is in the file, in an empty database in which violations of
    /// foreign keys count at the end of the transaction. No name begins with `prefix`.
    pub fn statements(&self, prefix: &str, take: Take<'_>) -> Result<(), Refusal> {
        let tables = &self.layout.tables;
        for table in tables {
            if !take(plain(&table.object.sql)) {
                return Ok(());
            }
        }
        let keys = layout::keys(&self.connection, tables).map_err(refuse)?;
        let names: Vec<&str> = tables.iter().map(|table| table.object.name.as_str()).collect();
        let mut indexes = Indexes::new(prefix);
        let parents_first: Vec<_> = children_first(&names, &keys).into_iter().rev().collect();
        let in_the_way = parents_first.iter().flat_map(|turn| &turn.referred);
        if !in_the_way.map(|key| indexes.create(key)).all(&mut *take) {
            return Ok(());
        }
        for table in parents_first.iter().filter_map(|turn| tables.get(turn.table)) {
            if !self.rows(table, take)? {
                return Ok(());
            }
        }
        let others = self.layout.others().map(|object| plain(&object.sql));
        indexes.drop().chain(others).all(take);
        Ok(())
    }

    fn rows(&self, table: &Table, take: Take<'_>) -> Result<bool, Refusal> {
        let columns = table.columns_with_rowid();
        if columns.is_empty() {
            return Ok(true);
        }
        for statement in self.counter(table)? {
            if !take(statement) {
                return Ok(false);
            }
        }
        let (name, listed) = (quote(&table.object.name), columns.join(","));
        let sql = format!("SELECT {listed} FROM {name} NOT INDEXED");
        let mut prepared = self.connection.prepare(&sql).map_err(refuse)?;
        let mut found = prepared.query([]).map_err(refuse)?;
        let mut rows = Rows::new(format!("INSERT INTO {name}({listed}) VALUES"), columns.len());
        while let Some(row) = found.next().map_err(refuse)? {
            rows.add(row, &table.object.name)?;
            if rows.is_full() && !take(rows.statement()) {
                return Ok(false);
            }
        }
        if rows.count > 0 && !take(rows.statement()) {
            return Ok(false);
        }
        Ok(sequences_of(table).into_iter().all(take))
    }

    /// AUTOINCREMENT counts on from where it stood, also if the last rows are deleted: a row with
    /// that number comes first, and goes at once.
    fn counter(&self, table: &Table) -> Result<Vec<Statement>, Refusal> {
        let key = table.columns.iter().position(|column| column.is_rowid);
        let Some(key) = key.filter(|_| table.counts) else { return Ok(Vec::new()) };
        let name = quote(&table.object.name);
        let columns = table.columns_with_rowid();
        let sql = format!(
            "SELECT seq FROM sqlite_sequence WHERE name = ?1 AND typeof(seq) = 'integer'
             AND seq > (SELECT coalesce(max(rowid), 0) FROM {name})"
        );
        let stands = self.connection.query_row(&sql, [&table.object.name], |row| row.get(0));
        let stands: i64 = match stands {
            Ok(i64::MAX) | Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(Vec::new()),
            stands => stands.map_err(refuse)?,
        };
        let listed = columns.join(",");
        let sql = format!("SELECT {listed} FROM {name} NOT INDEXED LIMIT 1");
        let mut prepared = self.connection.prepare(&sql).map_err(refuse)?;
        let mut found = prepared.query([]).map_err(refuse)?;
        let insert = match found.next().map_err(refuse)? {
            Some(row) => {
                let start = format!("INSERT OR IGNORE INTO {name}({listed}) VALUES");
                let mut like_the_first = Rows::new(start, columns.len());
                like_the_first.add(row, &table.object.name)?;
                if let Some(number) = like_the_first.values.get_mut(key) {
                    *number = Value::Integer(stands);
                }
                like_the_first.statement()
            }
            None => {
                let key = columns.get(key).map_or("rowid", String::as_str);
                let sql = format!("INSERT OR IGNORE INTO {name}({key}) VALUES (?)");
                let parameters = Parameters::Positional(vec![Value::Integer(stands)]);
                Statement { sql, parameters }
            }
        };
        Ok(vec![insert, plain(&format!("DELETE FROM {name}"))])
    }
}

fn sequences_of(table: &Table) -> Vec<Statement> {
    let of_column = |column: &Column| {
        let default = column.default.as_deref().unwrap_or_default();
        count_on(&table.object.name, &column.name, default)
    };
    table.columns.iter().flat_map(of_column).collect()
}

/// Makes the sequences that a column's default names count on from the largest number in it.
pub fn count_on(table: &str, column: &str, default: &str) -> Vec<Statement> {
    let (table, column) = (quote(table), quote(column));
    let sql = format!(
        "SELECT rota_setval(?, max({column})) FROM {table}
         WHERE typeof({column}) = 'integer' HAVING count(*) > 0"
    );
    let named = sequences::named_in(default).into_iter();
    let named = named.map(|name| Parameters::Positional(vec![Value::Text(name)]));
    named.map(|parameters| Statement { sql: sql.clone(), parameters }).collect()
}

fn plain(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), parameters: Parameters::Positional(Vec::new()) }
}

/// Rows on their way into one INSERT.
struct Rows {
    start: String,
    width: usize,
    /// The text so far.
    text: String,
    values: Vec<Value>,
    bytes: usize,
    count: usize,
}

impl Rows {
    fn new(start: String, width: usize) -> Self {
        Self { text: start.clone(), start, width, values: Vec::new(), bytes: 0, count: 0 }
    }

    fn add(&mut self, row: &Row<'_>, table: &str) -> Result<(), Refusal> {
        let mut length = 0usize;
        for column in 0..self.width {
            self.text.push(if column > 0 { ',' } else { '(' });
            let value = row.get_ref(column).map_err(refuse)?;
            let (text, value) = parameter(value);
            self.text.push_str(text);
            length = length.saturating_add(length_of(&value));
            self.values.push(value);
        }
        self.text.push_str("),");
        if i32::try_from(length).is_ok_and(|length| length <= MAX_VALUE_BYTES) {
            self.bytes = self.bytes.saturating_add(length + self.width);
            self.count += 1;
            return Ok(());
        }
        let message = format!(
            "table {table} has a row of {length} bytes; a row may have {MAX_VALUE_BYTES} at most: \
             cut it into pieces before"
        );
        Err(Refusal::new(sqlstate::TOO_COMPLEX, message))
    }

    fn is_full(&self) -> bool {
        let text = self.text.len().saturating_sub(self.start.len());
        let next = 2 * self.width + 2;
        self.count >= ROWS || self.bytes >= ROWS_BYTES || text + next > ROWS_TEXT
    }

    /// The rows so far; the next ones begin anew.
    fn statement(&mut self) -> Statement {
        let mut sql = std::mem::replace(&mut self.text, self.start.clone());
        // The last comma.
        sql.pop();
        let parameters = Parameters::Positional(std::mem::take(&mut self.values));
        (self.bytes, self.count) = (0, 0);
        Statement { sql, parameters }
    }
}

/// A value as a parameter, and what stands for it in the text.
fn parameter(value: ValueRef<'_>) -> (&'static str, Value) {
    match value {
        ValueRef::Null => ("?", Value::Null),
        ValueRef::Integer(number) => ("?", Value::Integer(number)),
        ValueRef::Real(number) => ("?", Value::real(number)),
        ValueRef::Blob(bytes) => ("?", Value::Blob(bytes.to_vec())),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => ("?", Value::Text(text.to_owned())),
            // SQLite keeps any bytes as text; only a blob can carry them.
            Err(_) => ("CAST(? AS TEXT)", Value::Blob(bytes.to_vec())),
        },
    }
}

fn length_of(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        Value::Null | Value::Integer(_) | Value::Real(_) => 8,
    }
}

/// A file whose newest rows, or all of them, may be in a log that is not here.
fn refuse_log_mode(path: &Path) -> Result<(), Refusal> {
    let modes = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(JOURNAL_BYTES))?;
        let mut modes = [0; 2];
        file.read_exact(&mut modes).map(|()| modes)
    });
    if modes.map_err(|error| unreadable(&error.to_string()))?.contains(&2) {
        // rqlite's words.
        return Err(unsupported(
            "SQLite database file is in WAL mode - convert it to DELETE mode via 'PRAGMA \
             journal_mode=DELETE'"
                .into(),
        ));
    }
    Ok(())
}

fn connect(path: &Path, cancelled: &Arc<AtomicBool>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, LONGEST_READ),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    // What its rows must be is checked when they are written; here it would run what it likes.
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    stop_when(&mut connection, cancelled)?;
    Ok(connection)
}

/// Before anything asks for a table's columns, which would start its module.
fn refuse_modules(connection: &Connection) -> Result<(), Refusal> {
    let sql = "SELECT name, lower(name) LIKE 'rota\\_%' ESCAPE '\\' FROM sqlite_schema
        WHERE lower(name) LIKE 'rota\\_%' ESCAPE '\\' OR type = 'table'
        AND (coalesce(rootpage, 0) = 0 OR sql LIKE 'create virtual%')";
    let mut prepared = connection.prepare(sql).map_err(refuse)?;
    let mut found = prepared.query([]).map_err(refuse)?;
    let Some(row) = found.next().map_err(refuse)? else { return Ok(()) };
    let (name, is_system): (String, bool) =
        (row.get(0).map_err(refuse)?, row.get(1).map_err(refuse)?);
    if is_system {
        let message = format!(
            "{name:.200}: names that start with rota_ are the system's; rename it (a backup that \
             GET /db/backup gives has none)"
        );
        return Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message));
    }
    Err(unsupported(format!("{name:.200}: virtual tables are not supported; drop it in the file")))
}

fn check_integrity(connection: &Connection) -> Result<(), Refusal> {
    let found: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(refuse)?;
    if found == "ok" { Ok(()) } else { Err(unreadable(&found)) }
}

/// The schema's own text is what is run: it must be what it says that it is.
fn check_object(object: &Object) -> Result<(), Refusal> {
    let name = &object.name;
    let wanted = match object.kind.as_str() {
        "table" => StatementKind::CreateTable,
        "index" => StatementKind::CreateIndex,
        "view" => StatementKind::CreateView,
        "trigger" => StatementKind::CreateTrigger,
        kind => return Err(unreadable(&format!("{name} is a {kind:.20}"))),
    };
    if classify(&object.sql).kind != wanted {
        return Err(unreadable(&format!("{name} is not what its schema says")));
    }
    Ok(())
}

fn unsupported(message: String) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

fn unreadable(why: &str) -> Refusal {
    let message = format!("this SQLite file cannot be read: {why:.300}");
    Refusal::new(sqlstate::DATA_EXCEPTION, message)
}

fn refuse(error: rusqlite::Error) -> Refusal {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
        return Refusal::new(sqlstate::QUERY_CANCELED, "reading the file took too long");
    }
    unreadable(&error.to_string())
}
