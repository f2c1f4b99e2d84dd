//! From SQLite's result codes to who is to blame: the client (a [`Refusal`] with an SQLSTATE) or
//! this machine (a [`Fault`]).

use rota_core::error::{Fault, Refusal, sqlstate};
use rusqlite::ffi;

/// PostgreSQL's raise_exception: what a trigger says by RAISE.
const RAISED: &str = "P0001";

/// An error's text is part of the replicated state, and so of bounded size.
pub const MAX_MESSAGE_BYTES: usize = 400;

/// Why a statement of a client did not work.
#[derive(Debug)]
pub enum Trouble {
    /// Its own fault.
    Refusal(Refusal),
    /// This machine's.
    Fault(Fault),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Result codes that say nothing of the statement, and something of the machine.
fn is_fault(code: i32) -> bool {
    matches!(
        code & 0xff,
        ffi::SQLITE_NOMEM
            | ffi::SQLITE_IOERR
            | ffi::SQLITE_FULL
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_NOTADB
            | ffi::SQLITE_CANTOPEN
            | ffi::SQLITE_PROTOCOL
            | ffi::SQLITE_BUSY
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_PERM
            | ffi::SQLITE_NOLFS
            | ffi::SQLITE_INTERNAL
            | ffi::SQLITE_MISUSE
    )
}

/// Who is to blame for an error while running a client's statement.
pub fn judge(error: rusqlite::Error) -> Trouble {
    use rusqlite::Error as E;
    let (code, message) = match error {
        E::SqliteFailure(failure, message) => {
            (failure.extended_code, message.unwrap_or_else(|| failure.to_string()))
        }
        E::SqlInputError { error, msg, .. } => (error.extended_code, msg),
        E::MultipleStatement => (ffi::SQLITE_ERROR, "syntax error: more than one statement".into()),
        E::NulError(_) => (ffi::SQLITE_ERROR, "syntax error: a NUL character in SQL".into()),
        other => (ffi::SQLITE_ERROR, other.to_string()),
    };
    if is_fault(code) {
        return Trouble::Fault(Fault::storage(
            "running a statement",
            format!("{message} ({code})"),
        ));
    }
    Trouble::Refusal(refusal(sqlstate_of(code, &message), message))
}

/// A refusal with a message cut to its bound.
pub fn refusal(code: &'static str, mut message: String) -> Refusal {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or(0));
    }
    Refusal::new(code, message)
}

fn sqlstate_of(code: i32, message: &str) -> &'static str {
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => return sqlstate::UNIQUE_VIOLATION,
        ffi::SQLITE_CONSTRAINT_NOTNULL => return sqlstate::NOT_NULL_VIOLATION,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return sqlstate::FOREIGN_KEY_VIOLATION,
        ffi::SQLITE_CONSTRAINT_CHECK => return sqlstate::CHECK_VIOLATION,
        ffi::SQLITE_CONSTRAINT_TRIGGER => return RAISED,
        ffi::SQLITE_CONSTRAINT_DATATYPE => return sqlstate::DATA_EXCEPTION,
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_CONSTRAINT => sqlstate::INTEGRITY_VIOLATION,
        ffi::SQLITE_TOOBIG => sqlstate::TOO_COMPLEX,
        ffi::SQLITE_MISMATCH => sqlstate::DATA_EXCEPTION,
        ffi::SQLITE_RANGE => sqlstate::PROTOCOL_VIOLATION,
        ffi::SQLITE_INTERRUPT => sqlstate::STATEMENT_TOO_COMPLEX,
        ffi::SQLITE_AUTH => sqlstate::INSUFFICIENT_PRIVILEGE,
        _ => by_message(message),
    }
}

/// SQLite has one code for all errors in SQL; its messages are fixed by the version that the
/// genesis pins.
fn by_message(message: &str) -> &'static str {
    let known = [
        // What our own functions say (`functions`); a text that they repeat comes after it.
        ("invalid input syntax for type timestamp", "22007"),
        ("invalid input syntax for type date", "22007"),
        ("invalid input syntax for type time", "22007"),
        ("invalid input syntax for type interval", "22007"),
        ("invalid input syntax", "22P02"),
        ("field value out of range", "22008"),
        ("timestamp out of range", "22008"),
        ("invalid value \"", "22007"),
        ("division by zero", "22012"),
        ("cannot take square root", "2201F"),
        ("invalid regular expression", "2201B"),
        ("not recognized for type timestamp", sqlstate::INVALID_PARAMETER),
        ("field position must not be zero", sqlstate::INVALID_PARAMETER),
        ("requested length too large", sqlstate::TOO_COMPLEX),
        ("text too big", sqlstate::TOO_COMPLEX),
        ("value out of range", "22003"),
        ("bigint out of range", "22003"),
        ("requested character", sqlstate::TOO_COMPLEX),
        ("not supported: ", sqlstate::FEATURE_NOT_SUPPORTED),
        ("even number of elements", sqlstate::INVALID_PARAMETER),
        ("no such table", sqlstate::UNDEFINED_TABLE),
        ("no such view", sqlstate::UNDEFINED_TABLE),
        ("no such index", sqlstate::UNDEFINED_TABLE),
        ("no such trigger", sqlstate::UNDEFINED_TABLE),
        ("no such column", sqlstate::UNDEFINED_COLUMN),
        ("has no column named", sqlstate::UNDEFINED_COLUMN),
        ("no such function", sqlstate::UNDEFINED_FUNCTION),
        ("wrong number of arguments", sqlstate::UNDEFINED_FUNCTION),
        ("already exists", sqlstate::DUPLICATE_TABLE),
        ("there is already", sqlstate::DUPLICATE_TABLE),
        ("too many", sqlstate::TOO_COMPLEX),
        ("too big", sqlstate::TOO_COMPLEX),
        ("at most", sqlstate::TOO_COMPLEX),
        ("Expression tree is too large", sqlstate::TOO_COMPLEX),
        ("parser stack overflow", sqlstate::TOO_COMPLEX),
        ("variable number must be", sqlstate::TOO_COMPLEX),
        ("malformed JSON", sqlstate::DATA_EXCEPTION),
        ("integer overflow", sqlstate::DATA_EXCEPTION),
        ("not deterministic", sqlstate::FEATURE_NOT_SUPPORTED),
        ("non-deterministic", sqlstate::FEATURE_NOT_SUPPORTED),
    ];
    known
        .iter()
        .find(|(text, _)| message.contains(text))
        .map_or(sqlstate::SYNTAX_ERROR, |&(_, code)| code)
}
