//! Functions that reads have beside SQLite's own: `now()`, what PostgreSQL's tools ask when they
//! connect, and `rota_transaction`.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rota_core::types::TransactionId;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error, OptionalExtension, Row};

use super::open_files;
use crate::chain_db::FIND_RECEIPT;
use crate::determinism::timestamp;
use crate::functions;
use crate::remembered::{OUTCOME_BYTES, SUCCESS};

/// What a client that looks at versions should take us for: a PostgreSQL whose protocol and catalog
/// queries we know.
pub const VERSION: &str = concat!("PostgreSQL 16.0 (Rota ", env!("CARGO_PKG_VERSION"), ")");

/// The block of a transaction that is still remembered in the state, where it is not a receipt yet.
const FIND_TRANSACTION: &str =
    "SELECT height, outcomes FROM main.rota_transactions WHERE instr(outcomes, ?1) > 0";

/// Whether a server knows of a transaction that is not executed yet.
pub type OnItsWay = Arc<dyn Fn(&TransactionId) -> bool + Send + Sync>;

/// Where nobody knows of such transactions.
pub(super) fn nothing_known() -> OnItsWay {
    Arc::new(|_| false)
}

pub(super) fn register(
    connection: &Connection,
    home: &Path,
    on_its_way: &OnItsWay,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function(c"now", 0, flags, |_| Ok(timestamp(unix_ms())))?;
    functions::register(connection, None)?;
    functions::register_random(connection, random)?;
    // So that an INSERT whose defaults ask for it can be described.
    connection.create_scalar_function(c"rota_nextval", 1, flags, |_| {
        let message = "a read may not change anything; numbers are for writes";
        Err::<i64, _>(Error::UserFunctionError(message.into()))
    })?;
    let fixed = FunctionFlags::SQLITE_DETERMINISTIC | flags;
    for (name, text) in [
        (c"version", VERSION),
        (c"current_schema", "public"),
        (c"current_database", "rota"),
        (c"current_user", "rota"),
        (c"session_user", "rota"),
    ] {
        connection.create_scalar_function(name, 0, fixed, move |_| Ok(text))?;
    }
    connection.create_scalar_function(c"pg_backend_pid", 0, fixed, |_| Ok(std::process::id()))?;
    let on_its_way = Arc::clone(on_its_way);
    let lookup = Lookup { home: home.into(), connection: RefCell::new(None), on_its_way };
    connection.create_scalar_function(c"rota_transaction", 1, flags, move |call| {
        let id = call.get_raw(0);
        let id = id.as_str_or_null().map_err(|error| Error::UserFunctionError(error.into()))?;
        id.map(|id| lookup.tell(id)).transpose()
    })
}

/// What became of transactions, looked up on a connection of its own: a function cannot use the one
/// that calls it.
struct Lookup {
    home: PathBuf,
    connection: RefCell<Option<Connection>>,
    on_its_way: OnItsWay,
}

impl Lookup {
    fn tell(&self, id: &str) -> rusqlite::Result<String> {
        let Ok(id) = id.trim().parse::<TransactionId>() else {
            let message = "rota_transaction() takes the 64 hex digits of a transaction's id";
            return Err(Error::UserFunctionError(message.into()));
        };
        let mut connection = self.connection.borrow_mut();
        let connection = match connection.as_mut() {
            Some(connection) => connection,
            None => connection.insert(open_files(&self.home)?),
        };
        if let Some(found) = executed(connection, &id)? {
            return Ok(found);
        }
        if (self.on_its_way)(&id) {
            return Ok("pending".into());
        }
        // It may have been executed between the two questions.
        Ok(executed(connection, &id)?.unwrap_or_else(|| "unknown".into()))
    }
}

fn executed(connection: &Connection, id: &TransactionId) -> rusqlite::Result<Option<String>> {
    let receipt =
        connection.prepare_cached(FIND_RECEIPT)?.query_row([&id.0], outcome).optional()?;
    if receipt.is_some() {
        return Ok(receipt);
    }
    connection
        .prepare_cached(FIND_TRANSACTION)?
        .query_row([&id.0], |row| remembered(id, row.get(0)?, row.get_ref(1)?.as_blob()?))
        .optional()
}

/// The outcome of a transaction among those that its block added.
fn remembered(id: &TransactionId, height: i64, outcomes: &[u8]) -> rusqlite::Result<String> {
    for outcome in outcomes.chunks_exact(OUTCOME_BYTES) {
        let (found, rest) = outcome.split_at(id.0.len());
        if found == id.0
            && let Some((position, sqlstate)) = rest.split_first_chunk::<4>()
        {
            let position = u32::from_le_bytes(*position);
            return Ok(if sqlstate == SUCCESS {
                format!("final at ({height}, {position})")
            } else {
                let sqlstate = String::from_utf8_lossy(sqlstate);
                format!("failed {sqlstate} at ({height}, {position})")
            });
        }
    }
    Ok("unknown".into())
}

/// From height, position, SQLSTATE and message.
fn outcome(row: &Row<'_>) -> rusqlite::Result<String> {
    let (height, position): (i64, i64) = (row.get(0)?, row.get(1)?);
    let sqlstate: Option<String> = row.get(2)?;
    let message: Option<String> = row.get(3)?;
    Ok(match sqlstate {
        None => format!("final at ({height}, {position})"),
        Some(sqlstate) => {
            let message = message.unwrap_or_default();
            format!("failed {sqlstate} {message} at ({height}, {position})")
        }
    })
}

/// What a read draws need not be agreed: the operating system's keys for hash maps are random.
fn random() -> [u8; 16] {
    let mut drawn = [0; 16];
    for part in drawn.chunks_exact_mut(8) {
        part.copy_from_slice(&RandomState::new().hash_one(0_u8).to_ne_bytes());
    }
    drawn
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
