//! Transactions that are larger than an envelope: their statements arrive before them, in parts,
//! each in a transaction of its own, and wait in `rota_staged` (step 8). All of it then happens at
//! once, at the position of the transaction that names them.
//!
//! ```text
//!   ROTA STAGE    (salt, part, expiry, bytes)   a part of this signer's transaction of that salt
//!   ROTA EXECUTE  (parts, digest)               the only statement of that transaction
//! ```
//! A transaction's id covers its signer, so nobody can add to another's parts or name them. What is
//! not named is deleted when it expires.

use rota_core::codec::{decode, encode};
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::time::Time;
use rota_core::transaction::{Parameters, Statement, Transaction, Value};
use rota_core::types::{PublicKey, TransactionId};

use crate::engine::Budget;
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
const MOST_BYTES: u64 = 512 << 20;

/// How many parts may wait, however small.
const MOST_WAITING: u64 = 2_000;

/// Storing and reading a part costs a step of SQLite's for so many of its bytes: it is hashed and
/// written.
const BYTES_PER_STEP: u64 = 16;

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Staged {
    parts: u64,
    bytes: u64,
}

/// Whether a text is one of the two, which no client may send.
pub fn is_reserved(sql: &str) -> bool {
    [STAGE, EXECUTE].iter().any(|ours| sql.trim().eq_ignore_ascii_case(ours))
}

/// The statements of a transaction, as those that bring them in parts and the one that stands for
/// them.
pub fn stage(
    salt: &[u8; 16],
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
                Value::Blob(salt.to_vec()),
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
        signer: PublicKey,
        budget: &mut Budget,
    ) -> Option<Result<Vec<StatementResult>, Trouble>> {
        let values = only(transaction, STAGE)?;
        let rights = self.engine.access.rights_of(&transaction.user);
        if !rights.is_some_and(|rights| rights.may_write()) {
            let message = "a user without any right to write has nothing to stage";
            return Some(Err(Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message).into()));
        }
        let [Value::Blob(salt), Value::Integer(part), Value::Integer(expiry), Value::Blob(bytes)] =
            values
        else {
            return Some(Err(malformed().into()));
        };
        let Ok(salt) = salt.as_slice().try_into() else { return Some(Err(malformed().into())) };
        let id = Transaction::id_of(self.chain, signer, &salt);
        let taken = self.store_part(id, *part, *expiry, bytes, budget);
        Some(taken.map(|()| vec![StatementResult::nothing(StatementKind::Other)]))
    }

    fn store_part(
        &mut self,
        id: TransactionId,
        part: i64,
        expiry: i64,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> Result<(), Trouble> {
        let now = self.engine.context.now();
        let latest = i64::try_from(self.parameters.max_expiry_ms).unwrap_or(i64::MAX);
        let fits = (0..MOST_PARTS).contains(&part)
            && (now..=now.saturating_add(latest)).contains(&expiry)
            && (1..=PART_BYTES).contains(&bytes.len());
        if !fits {
            return Err(malformed().into());
        }
        let length = bytes.len() as u64;
        budget.charge_steps(length / BYTES_PER_STEP)?;
        if self.staged.parts >= MOST_WAITING || self.staged.bytes + length > MOST_BYTES {
            let message = "too many large transactions are on their way: try again";
            return Err(Refusal::new(sqlstate::BUSY, message).into());
        }
        let mut added = 0;
        self.captured("staging a part", |connection| {
            added = connection
                .prepare_cached("INSERT OR IGNORE INTO rota_staged VALUES (?1, ?2, ?3, ?4)")?
                .execute((id.0, part, expiry, bytes))?;
            Ok(())
        })?;
        if added > 0 {
            self.staged.parts += 1;
            self.staged.bytes += length;
        }
        Ok(())
    }

    /// The statements that a transaction stands for, if it stands for staged ones.
    pub(crate) fn staged(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        budget: &mut Budget,
    ) -> Option<Result<Transaction, Trouble>> {
        let values = only(transaction, EXECUTE)?;
        let [Value::Integer(parts), Value::Blob(expected)] = values else {
            return Some(Err(malformed().into()));
        };
        Some(self.assemble(transaction, id, *parts, expected, budget))
    }

    fn assemble(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        parts: i64,
        expected: &[u8],
        budget: &mut Budget,
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
        budget.charge_steps(bytes.len() as u64 / BYTES_PER_STEP)?;
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
        // By the file: a server that starts later counts the same.
        self.staged = self.read_staged()?;
        Ok(Transaction { statements, ..transaction.clone() })
    }

    /// Parts that nobody named in time. Called when a block begins.
    pub(crate) fn forget_staged(&mut self, time: Time) -> Result<(), Fault> {
        if self.staged.parts == 0 {
            return Ok(());
        }
        let time = i64::try_from(time.0).unwrap_or(i64::MAX);
        let mut deleted = 0;
        self.under_root("deleting parts that have expired", |connection| {
            deleted = connection
                .prepare_cached("DELETE FROM rota_staged WHERE expiry < ?1")?
                .execute([time])?;
            Ok(())
        })?;
        if deleted > 0 {
            self.staged = self.read_staged()?;
        }
        Ok(())
    }

    /// What waits, by the file.
    pub(crate) fn read_staged(&self) -> Result<Staged, Fault> {
        self.ours("measuring what is staged", |connection| {
            let sql = "SELECT count(*), ifnull(sum(length(bytes)), 0) FROM rota_staged";
            connection.prepare_cached(sql)?.query_row([], |row| {
                let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                Ok(Staged { parts: count(0)?, bytes: count(1)? })
            })
        })
    }
}

fn malformed() -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, "this is no part of a large transaction")
}
