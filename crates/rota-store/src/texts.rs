//! What was found in the texts of statements, kept for those that come again: applications send the
//! same few forms all the time. Steps 1 and 8.

use std::collections::HashMap;

use rota_core::error::{Refusal, sqlstate};

use crate::accounts;
use crate::determinism::MAX_SQL_BYTES;
use crate::sql::{self, Access};
use crate::value::StatementKind;

/// How many texts are kept; with one more all are forgotten.
const KEPT: usize = 1_024;

/// The longest that is kept.
const LONGEST_KEPT: usize = 4_096;

/// What a statement's text says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    pub(crate) kind: StatementKind,
    /// Whether there is anything in double quotes.
    pub(crate) double_quotes: bool,
    /// Whether it mentions `rota_transfer`.
    pub(crate) transfers: bool,
}

/// Texts that nothing is wrong with.
#[derive(Default)]
pub(crate) struct Texts(HashMap<Box<str>, Text>);

impl Texts {
    /// What a text says, or why it is refused.
    pub(crate) fn read(&mut self, sql: &str) -> Result<Text, Refusal> {
        if let Some(text) = self.0.get(sql) {
            return Ok(*text);
        }
        let text = read(sql)?;
        if sql.len() <= LONGEST_KEPT {
            if self.0.len() >= KEPT {
                self.0.clear();
            }
            self.0.insert(sql.into(), text);
        }
        Ok(text)
    }
}

fn read(text: &str) -> Result<Text, Refusal> {
    if text.len() > usize::try_from(MAX_SQL_BYTES).unwrap_or(0) {
        let message = format!("a statement of {} bytes; {MAX_SQL_BYTES} are possible", text.len());
        return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
    }
    let classified = sql::classify(text);
    if classified.access == Access::Session {
        let message =
            "BEGIN, COMMIT, ROLLBACK, savepoints and SET are the session's, not a statement's";
        return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    if classified.kind == StatementKind::Explain {
        return Err(no_explain());
    }
    sql::forbidden(text, classified.kind)?;
    let double_quotes = sql::has_double_quotes(text);
    let transfers = sql::calls(text, accounts::FUNCTION);
    Ok(Text { kind: classified.kind, double_quotes, transfers })
}

/// Plans differ from server to server.
pub(crate) fn no_explain() -> Refusal {
    let message = "EXPLAIN shows how a statement is run, and is for reads only";
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}
