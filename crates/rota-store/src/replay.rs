//! Running an interactive transaction once more, which must show what it showed on the draft: at
//! apply (step 8), where it counts, and on drafts of blocks that are not final yet (step 1).

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::{Interactive, Statement, Transaction};

use crate::engine::Running;
use crate::error::Trouble;
use crate::savepoints::{Savepoints, Step};
use crate::seen::Seen;
use crate::sql;
use crate::value::{StatementKind, StatementResult};

/// Where it is run.
pub(crate) trait Stage {
    /// Runs a statement that is not about savepoints; the first has number 0. If it fails, nothing
    /// of it is left.
    fn statement(
        &mut self,
        number: u32,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble>;

    /// Sets a savepoint, or goes back to one.
    fn savepoint(&mut self, step: Step) -> Result<(), Fault>;

    /// Refuses to go on if the transaction around all this has ended in spite of everything.
    fn goes_on(&self) -> Result<(), Refusal>;

    /// Whether all numbers that were carried were asked for.
    fn is_spent(&self) -> bool;
}

/// Runs all statements. 40001 if they do not show what they showed.
pub(crate) fn replay(
    stage: &mut impl Stage,
    transaction: &Transaction,
    interactive: &Interactive,
    running: &mut Running<'_>,
) -> Result<(), Trouble> {
    let mut seen = Seen::default();
    let mut savepoints = Savepoints::default();
    let mut failed: Option<Refusal> = None;
    for (number, statement) in (0..).zip(&transaction.statements) {
        let kind = sql::classify(&statement.sql).kind;
        if let Some(refusal) = &failed
            && kind != StatementKind::RollbackTo
        {
            return Err(changed_or(refusal).into());
        }
        let shown = if Savepoints::concerns(kind) {
            match savepoints.step(&statement.sql, kind) {
                Err(refusal) => Err(refusal),
                Ok(step) => {
                    stage.savepoint(step)?;
                    Ok(StatementResult::nothing(kind))
                }
            }
        } else {
            match stage.statement(number, statement, running) {
                Err(Trouble::Fault(fault)) => return Err(fault.into()),
                Err(Trouble::Refusal(refusal)) => Err(refusal),
                Ok(result) => Ok(result),
            }
        };
        stage.goes_on()?;
        failed = shown.as_ref().err().cloned();
        seen.add(&shown);
    }
    if let Some(refusal) = &failed {
        return Err(changed_or(refusal).into());
    }
    if seen.digest() != interactive.seen || !stage.is_spent() {
        return Err(changed().into());
    }
    Ok(())
}

/// What a client was shown on its draft is no longer so.
fn changed() -> Refusal {
    let message = "what this transaction was shown has been changed by another one; try again";
    Refusal::new(sqlstate::SERIALIZATION_FAILURE, message)
}

/// Why a statement that was shown to succeed has failed: trying again helps, unless it costs too
/// much.
fn changed_or(refusal: &Refusal) -> Refusal {
    let costs = [sqlstate::TOO_COMPLEX, sqlstate::STATEMENT_TOO_COMPLEX];
    if costs.contains(&refusal.code()) { refusal.clone() } else { changed() }
}
