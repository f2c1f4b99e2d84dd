//! Transactions that are larger than an envelope: their statements arrive before them, in parts,
//! each in a transaction of its own, and wait in `rota_staged` (step 8). All of it then happens at
//! once, at the position of the transaction that names them.
//!
//! ```text
//!   ROTA STAGE    (id, part, expiry, bytes)   a part of the transaction that will have this id
//!   ROTA EXECUTE  (parts, digest)             the only statement of that transaction
//! ```
//! An id covers its signer, so nobody can name another's parts. What is not named is deleted when
//! it expires.

use rota_core::codec::{decode, encode};
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::time::Time;
use rota_core::transaction::{MAX_EXPIRY, Parameters, Statement, Transaction, Value};
use rota_core::types::TransactionId;

use crate::error::Trouble;
use crate::state::StateDb;
use crate::value::{StatementKind, StatementResult};

/// Brings a part.
const STAGE: &str = "ROTA STAGE";

/// Stands for the statements that the parts make.
const EXECUTE: &str = "ROTA EXECUTE";

/// The bytes of a part: with its frame less than the longest value.
pub const PART_BYTES: usize = 900_000;

/// The most parts of one transaction: 64 MB of statements, and a little more for their encoding.
const MOST_PARTS: i64 = 80;

/// All parts of a transaction.
const MOST_STAGED: usize = 80 * PART_BYTES;

/// All parts that wait, together: some transactions of the largest kind.
const MOST_BYTES: i64 = 512 << 20;

/// The statements of a transaction, as those that bring them in parts and the one that stands for
/// them.
pub fn stage(
    id: TransactionId,
    expiry: Time,
    statements: &[Statement],
) -> (Vec<Statement>, Statement) {
    let bytes = encode(&statements.to_vec());
    let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let parts: Vec<Statement> = (0..)
        .zip(bytes.chunks(PART_BYTES))
        .map(|(number, part)| Statement {
            sql: STAGE.into(),
            parameters: Parameters::Positional(vec![
                Value::Blob(id.0.to_vec()),
                integer(number),
                integer(expiry.0),
                Value::Blob(part.to_vec()),
            ]),
        })
        .collect();
    let count = integer(parts.len() as u64);
    let digest = Value::Blob(digest(&bytes).to_vec());
    let parameters = Parameters::Positional(vec![count, digest]);
    (parts, Statement { sql: EXECUTE.into(), parameters })
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    rota_hash::hash("rota staged", &[bytes])
}

/// Whether a transaction's only statement is this one; its parameters.
fn only<'a>(transaction: &'a Transaction, sql: &str) -> Option<&'a [Value]> {
    match transaction.statements.as_slice() {
        [Statement { sql: only, parameters: Parameters::Positional(values) }] if only == sql => {
            Some(values)
        }
        _ => None,
    }
}

impl StateDb {
    /// Takes a part, if that is what a transaction is about.
    pub(crate) fn take_part(
        &mut self,
        transaction: &Transaction,
    ) -> Option<Result<Vec<StatementResult>, Trouble>> {
        let values = only(transaction, STAGE)?;
        let [Value::Blob(id), Value::Integer(part), Value::Integer(expiry), Value::Blob(bytes)] =
            values
        else {
            return Some(Err(malformed().into()));
        };
        let taken = self.store_part(id, *part, *expiry, bytes);
        Some(taken.map(|()| vec![StatementResult::nothing(StatementKind::Other)]))
    }

    fn store_part(
        &mut self,
        id: &[u8],
        part: i64,
        expiry: i64,
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let now = self.engine.context.now();
        let latest = i64::try_from(MAX_EXPIRY.as_millis()).unwrap_or(i64::MAX);
        let fits = id.len() == 32
            && (0..MOST_PARTS).contains(&part)
            && (now..=now.saturating_add(latest)).contains(&expiry)
            && (1..=PART_BYTES).contains(&bytes.len());
        if !fits {
            return Err(malformed().into());
        }
        let waiting: i64 = self.ours("measuring what is staged", |connection| {
            connection
                .prepare_cached("SELECT ifnull(sum(length(bytes)), 0) FROM rota_staged")?
                .query_row([], |row| row.get(0))
        })?;
        if waiting > MOST_BYTES {
            let message = "too many large transactions are on their way: try again";
            return Err(Refusal::new(sqlstate::BUSY, message).into());
        }
        self.any_staged = true;
        self.captured("staging a part", |connection| {
            connection
                .prepare_cached("INSERT OR IGNORE INTO rota_staged VALUES (?1, ?2, ?3, ?4)")?
                .execute((id, part, expiry, bytes))
                .map(drop)
        })?;
        Ok(())
    }

    /// The statements that a transaction stands for, if it stands for staged ones.
    pub(crate) fn staged(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
    ) -> Option<Result<Transaction, Trouble>> {
        let values = only(transaction, EXECUTE)?;
        let [Value::Integer(parts), Value::Blob(expected)] = values else {
            return Some(Err(malformed().into()));
        };
        Some(self.assemble(transaction, id, *parts, expected))
    }

    fn assemble(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        parts: i64,
        expected: &[u8],
    ) -> Result<Transaction, Trouble> {
        let bytes = self.ours("reading staged parts", |connection| {
            let mut find = connection
                .prepare_cached("SELECT bytes FROM rota_staged WHERE id = ?1 AND part = ?2")?;
            let mut bytes = Vec::new();
            for part in 0..parts.min(MOST_PARTS) {
                let mut rows = find.query((&id.0, part))?;
                let Some(row) = rows.next()? else { break };
                bytes.extend_from_slice(row.get_ref(0)?.as_blob()?);
            }
            Ok(bytes)
        })?;
        if digest(&bytes) != expected {
            let message = "its parts are not there; send it again";
            return Err(Refusal::new(sqlstate::SERIALIZATION_FAILURE, message).into());
        }
        let statements: Vec<Statement> = decode(&bytes, MOST_STAGED).map_err(|_| malformed())?;
        if statements.is_empty() {
            return Err(malformed().into());
        }
        self.captured("deleting staged parts", |connection| {
            connection
                .prepare_cached("DELETE FROM rota_staged WHERE id = ?1")?
                .execute([&id.0])
                .map(drop)
        })?;
        Ok(Transaction { statements, ..transaction.clone() })
    }

    /// Parts that nobody named in time. Called when a block begins.
    pub(crate) fn forget_staged(&mut self, time: Time) -> Result<(), Fault> {
        if !self.any_staged {
            return Ok(());
        }
        let time = i64::try_from(time.0).unwrap_or(i64::MAX);
        self.under_root("deleting parts that have expired", |connection| {
            connection
                .prepare_cached("DELETE FROM rota_staged WHERE expiry < ?1")?
                .execute([time])
                .map(drop)
        })?;
        self.any_staged = self.has_staged()?;
        Ok(())
    }

    /// Whether any parts wait.
    pub(crate) fn has_staged(&self) -> Result<bool, Fault> {
        self.ours("looking for staged parts", |connection| {
            connection.prepare_cached("SELECT 1 FROM rota_staged")?.exists([])
        })
    }
}

fn malformed() -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, "this is no part of a large transaction")
}
