//! `rota_told`: what stands in the blocks, for reads (step 1): to administrators all of it, to
//! everybody else what they have sent themselves. `chain.transactions` is made of it.
//!
//! ```text
//!   rota_told(height, position, 'signer' | 'user' | 'statements' | 'message')   NULL: not for you
//! ```
//! Who asks is looked at when it is called, not when the statement that calls it was prepared: a
//! prepared statement serves many.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rota_core::block::Block;
use rota_core::codec::decode;
use rota_core::message::MAX_MESSAGE_BYTES;
use rota_core::transaction::{Envelope, Parameters, Transaction, Value};
use rusqlite::functions::FunctionFlags;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, OptionalExtension};
use serde_json::{Map, Value as Json, json};

use super::open_files;
use crate::access::{Caller, text_of};

/// The longest text that `statements` gives: some are as long as a block, and an answer that is
/// refused for one of them would hide all others.
const MAX_STATEMENTS_BYTES: usize = 1 << 20;

/// A final block's bytes.
const FIND_BLOCK: &str = "SELECT block FROM chain.blocks f
    JOIN chain.rota_bodies b ON b.slot = f.slot AND b.id = unhex(f.id) WHERE f.height = ?1";

const FIND_MESSAGE: &str =
    "SELECT message FROM chain.rota_messages WHERE height = ?1 AND position = ?2";

pub(super) fn register(
    connection: &Connection,
    home: &Path,
    caller: &Caller,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let told = Told { caller: caller.clone(), blocks: Blocks::new(home) };
    connection.create_scalar_function(c"rota_told", 3, flags, move |call| {
        let (height, position) = (call.get::<Option<i64>>(0)?, call.get::<Option<i64>>(1)?);
        let part: Option<String> = call.get(2)?;
        let (Some(height), Some(position), Some(part)) = (height, position, part) else {
            return Ok(None);
        };
        told.tell(height, position, &part)
    })
}

struct Told {
    caller: Caller,
    blocks: Blocks,
}

impl Told {
    fn tell(&self, height: i64, position: i64, part: &str) -> rusqlite::Result<Option<String>> {
        self.blocks.transaction(height, position, |found| {
            let Some((envelope, transaction)) = found else { return Ok(None) };
            if !may_see(&self.caller, transaction) {
                return Ok(None);
            }
            match part {
                "signer" => Ok(Some(text_of(&envelope.signer))),
                "user" => Ok(Some(transaction.user.clone())),
                "statements" => Ok(Some(statements(transaction))),
                "message" => self.blocks.message(height, position),
                _ => Err(Error::UserFunctionError("rota_told() knows no such part".into())),
            }
        })
    }
}

/// Whether what is in a transaction, and why it failed, is for who asks.
fn may_see(caller: &Caller, transaction: &Transaction) -> bool {
    caller.rights().administrator || *caller.name() == *transaction.user
}

/// Final blocks, looked up on a connection of its own: a function cannot use the one that calls it.
pub(super) struct Blocks {
    home: PathBuf,
    connection: RefCell<Option<Connection>>,
    /// The last one that was asked for: its transactions are asked for one after the other.
    newest: RefCell<Option<Opened>>,
}

struct Opened {
    height: i64,
    block: Block,
    /// Of each transaction: its envelope, and its place in it.
    places: Vec<(usize, usize)>,
}

impl Blocks {
    pub(super) fn new(home: &Path) -> Self {
        Self { home: home.into(), connection: RefCell::default(), newest: RefCell::default() }
    }

    /// Why a transaction failed, if it is the caller's or the caller is an administrator.
    pub(super) fn message_for(
        &self,
        caller: &Caller,
        height: i64,
        position: i64,
    ) -> rusqlite::Result<Option<String>> {
        self.transaction(height, position, |found| match found {
            Some((_, transaction)) if may_see(caller, transaction) => {
                self.message(height, position)
            }
            _ => Ok(None),
        })
    }

    fn transaction<T>(
        &self,
        height: i64,
        position: i64,
        look: impl FnOnce(Option<(&Envelope, &Transaction)>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.newest.borrow().as_ref().is_none_or(|opened| opened.height != height) {
            *self.newest.borrow_mut() = self.open(height)?;
        }
        let newest = self.newest.borrow();
        let found = newest.as_ref().and_then(|opened| {
            let (envelope, place) = *opened.places.get(usize::try_from(position).ok()?)?;
            let envelope = opened.block.body.envelopes.get(envelope)?;
            Some((&**envelope, envelope.transactions.get(place)?))
        });
        look(found)
    }

    fn open(&self, height: i64) -> rusqlite::Result<Option<Opened>> {
        let bytes: Option<Vec<u8>> = self.with(|connection| {
            let mut find = connection.prepare_cached(FIND_BLOCK)?;
            find.query_row([height], |row| row.get(0)).optional()
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let block: Block = decode(&bytes, MAX_MESSAGE_BYTES)
            .map_err(|error| Error::UserFunctionError(error.into()))?;
        let envelopes = block.body.envelopes.iter().enumerate();
        let places = envelopes
            .flat_map(|(number, envelope)| {
                (0..envelope.transactions.len()).map(move |place| (number, place))
            })
            .collect();
        Ok(Some(Opened { height, block, places }))
    }

    fn message(&self, height: i64, position: i64) -> rusqlite::Result<Option<String>> {
        self.with(|connection| {
            let mut find = connection.prepare_cached(FIND_MESSAGE)?;
            find.query_row([height, position], |row| row.get(0)).optional()
        })
    }

    fn with<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut connection = self.connection.borrow_mut();
        let connection = match connection.as_mut() {
            Some(connection) => connection,
            None => {
                let opened = open_files(&self.home)?;
                // A block may be longer than any value of a client's.
                let most = i32::try_from(MAX_MESSAGE_BYTES).unwrap_or(i32::MAX);
                opened.set_limit(Limit::SQLITE_LIMIT_LENGTH, most)?;
                connection.insert(opened)
            }
        };
        run(connection)
    }
}

/// Statements with their parameters, as JSON.
fn statements(transaction: &Transaction) -> String {
    let all = transaction.statements.iter().map(|statement| {
        let parameters: Json = match &statement.parameters {
            Parameters::Positional(values) => values.iter().map(value).collect(),
            Parameters::Named(values) => {
                let named = values.iter().map(|(name, given)| (name.clone(), value(given)));
                Json::Object(named.collect::<Map<_, _>>())
            }
        };
        json!({ "sql": statement.sql, "parameters": parameters })
    });
    let text = all.collect::<Json>().to_string();
    if text.len() <= MAX_STATEMENTS_BYTES {
        return text;
    }
    json!([{ "left_out": format!("{} bytes; too long to be shown", text.len()) }]).to_string()
}

/// Bytes as `{"blob": "hex"}`, what JSON has no number for as text.
fn value(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) => json!(number),
        Value::Real(bits) => {
            let number = f64::from_bits(*bits);
            serde_json::Number::from_f64(number)
                .map_or_else(|| Json::from(number.to_string()), Json::Number)
        }
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "blob": hex::encode(bytes) }),
    }
}
