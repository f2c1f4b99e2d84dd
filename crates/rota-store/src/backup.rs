//! Backups: what users have made, as a SQLite file or as SQL text, and the way back (step 1: reads
//! of this server's copy; the way back is a transaction as any).
//!
//! ```text
//!   state.db ──one read transaction──► copy   a file with tables, indexes, views and triggers
//!   (WAL: the executor goes on)        dump   the same as SQL text, as `sqlite3 .dump` writes it
//!   a file, from anybody ──given──► statements that make what is in it
//! ```
//! The `rota_*` tables stay behind: they hold verifiers of passwords, and belong to this chain.
//! Rows keep their rowids, values their types. A copy is written row by row into a new file, never
//! page by page: pages hold what was deleted, too.

pub mod dump;
pub mod given;
pub mod keys;
mod layout;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::types::Height;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::Trouble;
use crate::functions;
use crate::schema::quote;
use crate::sqlite;
use crate::state::STATE_FILE;
use layout::{Layout, Object};

/// How many VM steps between two looks whether the backup is still wanted: some ten microseconds.
const STEPS_PER_LOOK: i32 = 10_000;

/// How long to wait for a lock: only the recovery after a crash ever holds one.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Page cache of a connection that reads or writes everything once.
const CACHE_KIB: i64 = 4 * 1024;

/// What to leave out, and when to stop.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These tables and views only, with their indexes and triggers; none: everything.
    pub tables: Vec<String>,
    /// Once this is set, nobody waits for it any more (57014).
    pub cancelled: Arc<AtomicBool>,
}

/// Writes a SQLite file to `target`, which is not there yet: what users had made at one height,
/// which is returned. The file is in the journal mode DELETE, packed, without free pages.
pub fn copy(home: &Path, target: &Path, wanted: &Wanted) -> Result<Height, Trouble> {
    let fault = |error| judge(error, &wanted.cancelled);
    let connection = open_target(home, target, wanted).map_err(fault)?;
    connection.execute_batch("BEGIN").map_err(fault)?;
    // The first read: from here on the state stands still.
    let height = height(&connection, "state").map_err(fault)?;
    let layout = Layout::read(&connection, "state").map_err(fault)?.only(&wanted.tables)?;
    for table in &layout.tables {
        connection.execute_batch(&table.object.sql).map_err(fault)?;
        let (name, columns) = (quote(&table.object.name), table.columns_with_rowid().join(", "));
        let sql = format!(
            "INSERT INTO main.{name}({columns}) SELECT {columns} FROM state.{name} NOT INDEXED"
        );
        connection.execute(&sql, []).map_err(fault)?;
        if table.counts {
            let sql = "INSERT OR REPLACE INTO main.sqlite_sequence(rowid, name, seq)
                SELECT (SELECT rowid FROM main.sqlite_sequence WHERE name = ?1), name, seq
                FROM state.sqlite_sequence WHERE name = ?1";
            connection.execute(sql, [&table.object.name]).map_err(fault)?;
        }
    }
    for Object { sql, .. } in layout.others() {
        connection.execute_batch(sql).map_err(fault)?;
    }
    connection.execute_batch("COMMIT").map_err(fault)?;
    Ok(height)
}

fn open_target(home: &Path, target: &Path, wanted: &Wanted) -> rusqlite::Result<Connection> {
    sqlite::use_utc();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let mut connection = Connection::open_with_flags(target, flags)?;
    connection.busy_timeout(BUSY)?;
    // Generated columns and indexes may call any of our functions.
    functions::register(&connection, None)?;
    // A file that a crash leaves half written is thrown away.
    for (pragma, value) in [("journal_mode", "OFF"), ("synchronous", "OFF")] {
        connection.pragma_update(None, pragma, value)?;
    }
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // What is in the database has passed its checks already.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Schemas that were made through a door where double quotes may mean a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)?;
    connection.execute("ATTACH ?1 AS state", [read_only_uri(&home.join(STATE_FILE))])?;
    stop_when(&mut connection, &wanted.cancelled)?;
    Ok(connection)
}

/// `file:…?mode=ro`, with everything that means something in a URI escaped.
fn read_only_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri + "?mode=ro"
}

/// The newest block in the file.
fn height(connection: &Connection, database: &str) -> rusqlite::Result<Height> {
    let sql = format!("SELECT height FROM {database}.rota_meta");
    let height: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(Height(u64::try_from(height).unwrap_or_default()))
}

fn stop_when(connection: &mut Connection, cancelled: &Arc<AtomicBool>) -> rusqlite::Result<()> {
    let cancelled = Arc::clone(cancelled);
    let is_over = move || cancelled.load(Ordering::Relaxed);
    connection.progress_handler(STEPS_PER_LOOK, Some(is_over))
}

/// Nothing in a statement of ours is a client's fault.
fn judge(error: rusqlite::Error, cancelled: &AtomicBool) -> Trouble {
    if cancelled.load(Ordering::Relaxed) {
        let message = "the backup was called off";
        return Refusal::new(sqlstate::QUERY_CANCELED, message).into();
    }
    Fault::storage("making a backup", error).into()
}

#[cfg(test)]
mod tests;
