//! What a server's database holds when a run is over, against what clients were told.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::clients::{Fate, PURSE, PURSES};

/// Whether every write is as often in this server's database as its client was told.
pub fn rows_are_as_told<'a>(
    home: &Path,
    fates: impl Iterator<Item = (&'a str, Fate)>,
) -> Result<BTreeMap<String, u64>, String> {
    let rows = ledger(home).map_err(|error| format!("reading ledger: {error}"))?;
    for (key, fate) in fates {
        let times = rows.get(key).copied().unwrap_or(0);
        let right = match fate {
            Fate::Applied => times == 1,
            Fate::Failed => times == 0,
            Fate::Unknown | Fate::Undone => times <= 1,
        };
        if !right {
            return Err(format!(
                "write {key} is there {times} times, its client was told {fate:?}"
            ));
        }
    }
    Ok(rows)
}

/// Whether the purses hold together what they held at first.
pub fn no_money_is_made_or_lost(home: &Path) -> Result<(), String> {
    let held = || -> rusqlite::Result<Option<i64>> {
        let database =
            Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'purse'";
        if database.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(None);
        }
        database.query_row("SELECT sum(v) FROM purse", [], |row| row.get(0))
    };
    let whole = i64::try_from(PURSES).unwrap_or(0) * PURSE;
    match held().map_err(|error| format!("reading purses: {error}"))? {
        Some(held) if held != whole => Err(format!("the purses hold {held}, not {whole}")),
        _ => Ok(()),
    }
}

/// Whether nothing was written in the name of a user that did not sign it.
pub fn nothing_was_forged(home: &Path) -> Result<(), String> {
    let count = || -> rusqlite::Result<i64> {
        let database =
            Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'forged'";
        if database.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(0);
        }
        database.query_row("SELECT count(*) FROM forged", [], |row| row.get(0))
    };
    match count().map_err(|error| format!("reading forged: {error}"))? {
        0 => Ok(()),
        rows => Err(format!("{rows} rows by a user that signed none of them")),
    }
}

fn ledger(home: &Path) -> rusqlite::Result<BTreeMap<String, u64>> {
    let database =
        Connection::open_with_flags(home.join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let there: bool = database.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'",
        [],
        |row| row.get(0),
    )?;
    if !there {
        return Ok(BTreeMap::new());
    }
    let mut counted = database.prepare("SELECT k, count(*) FROM ledger GROUP BY k")?;
    let rows = counted.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| row.map(|(key, times)| (key, times.unsigned_abs()))).collect()
}
