//! A statement as SQLite's own clients know it (step 1): one that fails leaves the transaction as
//! it was before, and open. PostgreSQL's would have to go back to a savepoint.
//!
//! ```text
//!   SAVEPOINT ─► statement ─┬─ worked ─► what it inserted, if that is shown ─► RELEASE
//!                           └─ failed ─► ROLLBACK TO ─► RELEASE
//! ```

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rota_store::draft::{Draft, Stop, Until};
use rota_store::{StatementKind, StatementResult};

use super::super::levels::RunOptions;
use super::{MOST_RESERVATIONS, Transaction, until};
use crate::auth::seal;

/// The savepoint of one statement.
const MARK: [&str; 3] = ["SAVEPOINT rota", "RELEASE rota", "ROLLBACK TO rota"];

impl Transaction {
    /// Runs a statement that is not about savepoints. If it fails, the transaction goes on as if it
    /// had not been tried. With `shows_rowid` its client is shown what it inserted, so COMMIT
    /// checks that it is the same then.
    pub async fn attempt(
        &mut self,
        statement: Statement,
        shows_rowid: bool,
        options: &RunOptions,
    ) -> Result<StatementResult, Refusal> {
        let mut statement = statement;
        if let Some(sealed) = seal(&statement.sql)? {
            statement.sql = sealed;
        }
        let mut is_marked = false;
        for _ in 0..MOST_RESERVATIONS {
            let until = until(options);
            let again = std::mem::replace(&mut is_marked, true);
            let ran = self.on_draft(move |draft| {
                if !again {
                    plain(draft, MARK[0], &until)?;
                }
                run(draft, statement, shows_rowid, &until)
            });
            match ran.await? {
                Ok(result) => return Ok(result),
                Err(Stop::Refused(refusal)) => return Err(refusal),
                Err(Stop::Numbers(wanted)) => {
                    if let Err(refusal) = self.driver.reserve(&self.user, &wanted).await {
                        let until = super::until(options);
                        self.on_draft(move |draft| plain(draft, MARK[1], &until)).await?.ok();
                        return Err(refusal);
                    }
                    statement = wanted.statement;
                }
            }
        }
        let message = "the statement takes more numbers from its sequences than can be reserved";
        Err(Refusal::new(sqlstate::TOO_COMPLEX, message))
    }
}

fn run(
    draft: &mut Draft,
    statement: Statement,
    shows_rowid: bool,
    until: &Until,
) -> Result<StatementResult, Stop> {
    let ran = draft.run(statement, until).and_then(|mut result| {
        if shows_rowid && result.kind == StatementKind::Insert {
            let rowid = plain(draft, "SELECT last_insert_rowid()", until)?;
            if let Some([Value::Integer(rowid)]) = rowid.rows.rows.first().map(Vec::as_slice) {
                result.last_insert_rowid = *rowid;
            }
        }
        Ok(result)
    });
    match &ran {
        Ok(_) => drop(plain(draft, MARK[1], until)?),
        Err(Stop::Numbers(_)) => {}
        // Where the whole transaction is lost, this says nothing new.
        Err(Stop::Refused(_)) => {
            let _ = plain(draft, MARK[2], until).and_then(|_| plain(draft, MARK[1], until));
        }
    }
    ran
}

fn plain(draft: &mut Draft, sql: &str, until: &Until) -> Result<StatementResult, Stop> {
    let parameters = Parameters::Positional(Vec::new());
    draft.run(Statement { sql: sql.to_owned(), parameters }, until)
}
