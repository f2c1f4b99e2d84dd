//! Why a request failed, as Hrana says it (step 9): a message, and a code by SQLite's or libSQL's
//! names, which clients look at. What Rota knows by an SQLSTATE keeps it beside the code.

use rota_core::error::{Refusal, sqlstate};
use serde::Serialize;

use crate::driver::WriteError;

/// An error of Hrana's, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// `SQLITE_CONSTRAINT_UNIQUE`, `SQLITE_BUSY` (nothing was done: try again), `ARGS_INVALID`, ….
    pub(crate) code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sqlstate: Option<String>,
}

impl Failure {
    /// One of the protocol's own.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { message: message.into(), code, sqlstate: None }
    }

    /// Whether this is the error with that SQLSTATE.
    pub(crate) fn is(&self, sqlstate: &str) -> bool {
        self.sqlstate.as_deref() == Some(sqlstate)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = code(refusal.code(), &refusal.message);
        Self { code, sqlstate: Some(refusal.code().to_owned()), message: refusal.message }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        error.refusal.into()
    }
}

/// What SQLite would call it. `SQLITE_BUSY` always means that nothing was done and that trying
/// again may help; an unknown outcome is never called so.
fn code(state: &str, message: &str) -> &'static str {
    match state {
        sqlstate::UNIQUE_VIOLATION => "SQLITE_CONSTRAINT_UNIQUE",
        sqlstate::NOT_NULL_VIOLATION => "SQLITE_CONSTRAINT_NOTNULL",
        sqlstate::FOREIGN_KEY_VIOLATION => "SQLITE_CONSTRAINT_FOREIGNKEY",
        sqlstate::CHECK_VIOLATION => "SQLITE_CONSTRAINT_CHECK",
        "P0001" => "SQLITE_CONSTRAINT_TRIGGER",
        sqlstate::INTEGRITY_VIOLATION => "SQLITE_CONSTRAINT",
        sqlstate::DATA_EXCEPTION if message.starts_with("cannot store ") => {
            "SQLITE_CONSTRAINT_DATATYPE"
        }
        sqlstate::DATA_EXCEPTION if message.contains("mismatch") => "SQLITE_MISMATCH",
        sqlstate::SERIALIZATION_FAILURE | sqlstate::BUSY | sqlstate::CANNOT_CONNECT_NOW => {
            "SQLITE_BUSY"
        }
        sqlstate::READ_ONLY => "SQLITE_READONLY",
        sqlstate::INSUFFICIENT_PRIVILEGE => "SQLITE_AUTH",
        sqlstate::TOO_COMPLEX => "SQLITE_TOOBIG",
        sqlstate::STATEMENT_TOO_COMPLEX | sqlstate::QUERY_CANCELED => "SQLITE_INTERRUPT",
        sqlstate::PROTOCOL_VIOLATION => "ARGS_INVALID",
        sqlstate::OUTCOME_UNKNOWN => "OUTCOME_UNKNOWN",
        sqlstate::INTERNAL => "SQLITE_INTERNAL",
        "25P02" => "SQLITE_ABORT",
        _ => "SQLITE_ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_did_nothing_is_called_busy() {
        let told = |state| Failure::from(Refusal::new(state, "x")).code;
        for state in ["40001", "53000", "57P03"] {
            assert_eq!(told(state), "SQLITE_BUSY", "{state}");
        }
        for state in ["40003", "57014", "XX000", "25P02", "23505", "42501"] {
            assert_ne!(told(state), "SQLITE_BUSY", "{state}");
        }
    }
}
