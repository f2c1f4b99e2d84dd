//! Functions that reads have beside SQLite's own: `now()`, what PostgreSQL's tools ask when they
//! connect, and `rota_transaction`.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rota_core::error::Refusal;
use rota_core::types::{Height, TransactionId};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error, OptionalExtension, Row};

use super::open_files;
use super::told::Blocks;
use crate::access::Caller;
use crate::catalog;
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

/// As where statements are executed: not for views and triggers.
const SPENDS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);

/// What a server knows beyond its files.
pub trait Beyond: Send + Sync {
    /// Whether it knows of a transaction that is not executed yet.
    fn knows(&self, id: &TransactionId) -> bool;

    /// How deep a final block is, and what that is worth, where its depth is what makes it final.
    fn depth(&self, height: Height) -> Option<String>;
}

/// Nothing.
pub(super) struct Files;

impl Beyond for Files {
    fn knows(&self, _: &TransactionId) -> bool {
        false
    }

    fn depth(&self, _: Height) -> Option<String> {
        None
    }
}

pub(super) fn register(
    connection: &Connection,
    home: &Path,
    beyond: Arc<dyn Beyond>,
    caller: &Caller,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function(c"now", 0, flags, |_| Ok(timestamp(unix_ms())))?;
    functions::register(connection, None)?;
    functions::register_random(connection, random)?;
    // So that an INSERT whose defaults ask for it can be described, and a transfer.
    connection.create_scalar_function(c"rota_nextval", 1, flags, |_| {
        let message = "a read may not change anything; numbers are for writes";
        Err::<i64, _>(Error::UserFunctionError(message.into()))
    })?;
    connection.create_scalar_function(c"rota_transfer", 2, SPENDS, |_| {
        let message = "a read may not change anything; rota_transfer is for writes";
        Err::<i64, _>(Error::UserFunctionError(message.into()))
    })?;
    let fixed = FunctionFlags::SQLITE_DETERMINISTIC | flags;
    for (name, text) in
        [(c"version", VERSION), (c"current_schema", "public"), (c"current_database", "rota")]
    {
        connection.create_scalar_function(name, 0, fixed, move |_| Ok(text))?;
    }
    register_user(connection, caller)?;
    connection.create_scalar_function(c"pg_backend_pid", 0, fixed, |_| Ok(std::process::id()))?;
    let (caller, blocks) = (caller.clone(), Blocks::new(home));
    let lookup = Lookup::new(home, beyond);
    connection.create_scalar_function(c"rota_transaction", 1, flags, move |call| {
        let id = call.get_raw(0);
        let id = id.as_str_or_null().map_err(|error| Error::UserFunctionError(error.into()))?;
        let Some(id) = id else { return Ok(None) };
        let Ok(id) = id.trim().parse::<TransactionId>() else {
            let message = "rota_transaction() takes the 64 hex digits of a transaction's id";
            return Err(Error::UserFunctionError(message.into()));
        };
        let depth = |height| lookup.beyond.depth(height);
        let message = |height, index| blocks.message_for(&caller, height, index);
        lookup.fate(&id)?.text(depth, message).map(Some)
    })
}

/// What a draft's connection has of a reader's, for questions about the schema.
pub(crate) fn prepare_draft(
    connection: &Connection,
    home: &Path,
    caller: &Caller,
) -> rusqlite::Result<()> {
    register(connection, home, Arc::new(Files), caller)?;
    catalog::register(connection)
}

/// In whose name a statement runs.
pub(crate) fn register_user(connection: &Connection, caller: &Caller) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    for name in [c"current_user", c"session_user"] {
        let caller = caller.clone();
        connection
            .create_scalar_function(name, 0, flags, move |_| Ok(caller.name().to_string()))?;
    }
    Ok(())
}

/// What became of a transaction, as far as a server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stood in a block that is executed.
    Executed(Outcome),
    /// It waits, or stands in a block that is not executed yet.
    OnItsWay,
    /// Nothing is known of it.
    Unknown,
}

/// What became of a transaction in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The block.
    pub height: Height,
    /// Its place among the block's transactions.
    pub index: u32,
    /// Why it did nothing, if so. The message may quote rows: it is for whoever sent it and for
    /// administrators; and empty for a moment, until it is in `chain.db`.
    pub refusal: Option<Refusal>,
}

impl Fate {
    /// As `rota_transaction` says it, with a message where there is one for who asks, and with the
    /// depth where that is what makes it final.
    fn text(
        &self,
        depth: impl FnOnce(Height) -> Option<String>,
        message: impl FnOnce(i64, i64) -> rusqlite::Result<Option<String>>,
    ) -> rusqlite::Result<String> {
        let outcome = match self {
            Self::Executed(outcome) => outcome,
            Self::OnItsWay => return Ok("pending".into()),
            Self::Unknown => return Ok("unknown".into()),
        };
        let Outcome { height, index, refusal } = outcome;
        let depth = depth(*height).map(|depth| format!(", {depth}")).unwrap_or_default();
        let Some(refusal) = refusal else {
            return Ok(format!("final at ({height}, {index}){depth}"));
        };
        let at = (i64::try_from(height.0).unwrap_or(i64::MAX), i64::from(*index));
        let message = match refusal.message.is_empty() {
            true => None,
            false => message(at.0, at.1)?,
        };
        let message = message.map(|message| format!(" {message}")).unwrap_or_default();
        Ok(format!("failed {}{message} at ({height}, {index}){depth}", refusal.code()))
    }
}

/// What became of transactions, looked up on a connection of its own: a function cannot use the one
/// that calls it.
pub(super) struct Lookup {
    home: PathBuf,
    connection: RefCell<Option<Connection>>,
    beyond: Arc<dyn Beyond>,
}

impl Lookup {
    pub(super) fn new(home: &Path, beyond: Arc<dyn Beyond>) -> Self {
        Self { home: home.into(), connection: RefCell::new(None), beyond }
    }

    pub(super) fn fate(&self, id: &TransactionId) -> rusqlite::Result<Fate> {
        let mut connection = self.connection.borrow_mut();
        let connection = match connection.as_mut() {
            Some(connection) => connection,
            None => connection.insert(open_files(&self.home)?),
        };
        if let Some(found) = executed(connection, id)? {
            return Ok(Fate::Executed(found));
        }
        if self.beyond.knows(id) {
            return Ok(Fate::OnItsWay);
        }
        // It may have been executed between the two questions.
        Ok(executed(connection, id)?.map_or(Fate::Unknown, Fate::Executed))
    }
}

fn executed(connection: &Connection, id: &TransactionId) -> rusqlite::Result<Option<Outcome>> {
    let receipt =
        connection.prepare_cached(FIND_RECEIPT)?.query_row([&id.0], outcome).optional()?;
    if receipt.is_some() {
        return Ok(receipt);
    }
    let remembered = connection
        .prepare_cached(FIND_TRANSACTION)?
        .query_row([&id.0], |row| Ok(remembered(id, row.get(0)?, row.get_ref(1)?.as_blob()?)))
        .optional()?;
    Ok(remembered.flatten())
}

/// The outcome of a transaction among those that its block added.
fn remembered(id: &TransactionId, height: i64, outcomes: &[u8]) -> Option<Outcome> {
    outcomes.chunks_exact(OUTCOME_BYTES).find_map(|outcome| {
        let rest = outcome.strip_prefix(&id.0)?;
        let (index, sqlstate) = rest.split_first_chunk::<4>()?;
        let sqlstate: [u8; 5] = sqlstate.try_into().ok()?;
        let failed = sqlstate != *SUCCESS;
        Some(Outcome {
            height: Height(u64::try_from(height).unwrap_or_default()),
            index: u32::from_le_bytes(*index),
            refusal: failed.then(|| Refusal { sqlstate, message: String::new() }),
        })
    })
}

/// From height, position, SQLSTATE and message.
fn outcome(row: &Row<'_>) -> rusqlite::Result<Outcome> {
    let sqlstate: Option<String> = row.get(2)?;
    let message: Option<String> = row.get(3)?;
    Ok(Outcome {
        height: Height(u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default()),
        index: row.get(1)?,
        refusal: sqlstate.and_then(|sqlstate| {
            let sqlstate = sqlstate.as_bytes().try_into().ok()?;
            Some(Refusal { sqlstate, message: message.unwrap_or_default() })
        }),
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
