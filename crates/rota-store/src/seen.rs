//! What a client was shown in an interactive transaction, as one hash: on the draft while it is
//! shown (step 1), and at apply (step 8), where it must come out the same. That makes BEGIN …
//! COMMIT serializable without a lock: a transaction that would be shown the same at its agreed
//! position could have run there.

use rota_core::codec::encode;
use rota_core::error::{Refusal, sqlstate};
use rota_core::types::Digest;

use crate::value::StatementResult;

/// The hash in the making.
pub(crate) struct Seen(rota_hash::Hasher);

impl Default for Seen {
    fn default() -> Self {
        Self(rota_hash::Hasher::new("rota seen"))
    }
}

impl Seen {
    /// One more statement: its command tag and its rows in order with their types, or its SQLSTATE.
    /// Error messages and column names may change with the program, and are not part of it.
    pub(crate) fn add(&mut self, shown: &Result<StatementResult, Refusal>) {
        match shown {
            Ok(result) => {
                let tag = result.kind.tag(result.rows_affected);
                let columns = result.rows.columns.len() as u64;
                self.0.update(&encode(&(1u8, tag, columns, result.rows.rows.len() as u64)));
                for row in &result.rows.rows {
                    self.0.update(&encode(row));
                }
            }
            Err(refusal) => {
                self.0.update(&encode(&(0u8, class(refusal))));
            }
        }
    }

    /// All of it.
    pub(crate) fn digest(self) -> Digest {
        Digest(self.0.finish())
    }
}

/// The SQLSTATE; one for all that say that something is not to be had. A draft knows functions and
/// tables of a reader's too, so it says "not allowed" where the executor says "not there".
fn class(refusal: &Refusal) -> [u8; 5] {
    let not_to_be_had = [
        sqlstate::FEATURE_NOT_SUPPORTED,
        sqlstate::INSUFFICIENT_PRIVILEGE,
        sqlstate::UNDEFINED_FUNCTION,
        sqlstate::UNDEFINED_TABLE,
    ];
    if not_to_be_had.contains(&refusal.code()) { *b"0A000" } else { refusal.sqlstate }
}
