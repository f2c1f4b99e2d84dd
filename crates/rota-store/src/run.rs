//! Running one client transaction in its savepoint, statement by statement, within its budget.

use std::sync::Arc;

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::{Interactive, Statement, Transaction};
use rota_core::types::TransactionId;

use crate::apply::Mark;
use crate::capture::{Event, Problem, RowHasher};
use crate::engine::{Budget, MAX_RESULT_BYTES, MAX_SHOWN_BYTES, Running, is_schema_change};
use crate::error::Trouble;
use crate::merkle::Entry;
use crate::savepoints::{Savepoints, Step};
use crate::schema::{SchemaChange, Table};
use crate::seen::Seen;
use crate::sequences::{self, Sequence, Source};
use crate::sql;
use crate::state::StateDb;
use crate::value::{StatementKind, StatementResult};

/// What a change of the schema costs, in steps for each table, index, view and trigger there is:
/// they are read again.
const STEPS_PER_OBJECT: u64 = 200;

/// Why a transaction did nothing.
pub(crate) enum Failure {
    /// It is rolled back; the block goes on.
    Refused(Refusal),
    /// It has taken the block's transaction with it.
    BrokeOut(Refusal),
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

fn too_many_bytes() -> Refusal {
    let message =
        "the transaction changes more bytes than it, or its block, has left; do it in parts";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

impl StateDb {
    /// Runs a transaction. What it cost is taken from the block's budget, whatever became of it.
    pub(crate) fn run(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        block: &mut Budget,
    ) -> Result<Result<Vec<StatementResult>, Failure>, Fault> {
        if block.steps == 0 || block.bytes == 0 {
            let message = "not run: the block has no budget left; send it again";
            return Ok(Err(Failure::Refused(Refusal::new(
                sqlstate::STATEMENT_TOO_COMPLEX,
                message,
            ))));
        }
        let granted = Budget::of_transaction(&self.parameters, block);
        let mark = self.mark();
        self.run_ours("SAVEPOINT rota")?;
        self.engine.database.reset_last_insert_rowid();
        self.begin_capture(granted.bytes);
        let (outcome, left) = self.outcome(transaction, id, granted);
        let bytes = self.capture().bytes;
        block.steps = block.steps.saturating_sub(granted.steps - left.steps);
        block.bytes = block.bytes.saturating_sub(bytes);
        self.capture().on = false;
        let problem = self.capture().problem.take();
        let outcome = match problem {
            Some(problem) => Err(judge_problem(problem)),
            None => outcome,
        };
        let refusal = match outcome {
            Ok(results) => {
                self.write_sequences()?;
                self.run_ours("RELEASE rota")?;
                return Ok(Ok(results));
            }
            Err(Trouble::Fault(fault)) => return Err(fault),
            Err(Trouble::Refusal(refusal)) => refusal,
        };
        self.engine.context.sequences().restore();
        if self.engine.database.connection().is_autocommit() {
            return Ok(Err(Failure::BrokeOut(refusal)));
        }
        self.run_ours("ROLLBACK TO rota")?;
        self.run_ours("RELEASE rota")?;
        self.restore(&mark)?;
        Ok(Err(Failure::Refused(refusal)))
    }

    /// Runs all statements; what became of them, and what is left of the budget.
    fn outcome(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        budget: Budget,
    ) -> (Result<Vec<StatementResult>, Trouble>, Budget) {
        let settings = &transaction.settings;
        let result_bytes = match transaction.interactive {
            None => MAX_RESULT_BYTES,
            Some(_) => MAX_SHOWN_BYTES,
        };
        let mut running = Running { id, settings, budget, result_bytes };
        let Some(interactive) = &transaction.interactive else {
            self.engine.context.sequences().source = Source::State;
            let outcome = self.statements(transaction, &mut running);
            return (outcome, running.budget);
        };
        let values = interactive.values.iter().copied().collect();
        self.engine.context.sequences().source = Source::Carried(values);
        let now = self.engine.context.now();
        self.engine.set_time(interactive.begun);
        let outcome = self.replay(transaction, interactive, &mut running);
        self.engine.set_now(now);
        (outcome, running.budget)
    }

    fn statements(
        &mut self,
        transaction: &Transaction,
        running: &mut Running<'_>,
    ) -> Result<Vec<StatementResult>, Trouble> {
        let mut results = Vec::with_capacity(transaction.statements.len());
        for (number, statement) in (0..).zip(&transaction.statements) {
            self.engine.context.begin_statement(running.id, number);
            results.push(self.statement(statement, running)?);
            self.still_in_block()?;
        }
        self.check_deferred_keys()?;
        Ok(results)
    }

    /// Runs the statements of an interactive transaction, which must show what they showed on the
    /// draft; otherwise 40001. Its client has the results already.
    fn replay(
        &mut self,
        transaction: &Transaction,
        interactive: &Interactive,
        running: &mut Running<'_>,
    ) -> Result<Vec<StatementResult>, Trouble> {
        let mut seen = Seen::default();
        let mut savepoints = Savepoints::default();
        let mut marks: Vec<Mark> = Vec::new();
        let mut failed: Option<Refusal> = None;
        for (number, statement) in (0..).zip(&transaction.statements) {
            self.engine.context.begin_statement(running.id, number);
            let kind = sql::classify(&statement.sql).kind;
            if let Some(refusal) = &failed
                && kind != StatementKind::RollbackTo
            {
                return Err(changed_or(refusal).into());
            }
            let events = self.capture().events.len();
            let shown = if Savepoints::concerns(kind) {
                self.savepoint(&statement.sql, kind, &mut savepoints, &mut marks)
            } else {
                self.statement(statement, running)
            };
            let shown = match shown {
                Err(Trouble::Fault(fault)) => return Err(fault.into()),
                Err(Trouble::Refusal(refusal)) => Err(refusal),
                Ok(result) => Ok(result),
            };
            self.still_in_block()?;
            failed = shown.as_ref().err().cloned();
            if failed.is_some() {
                self.capture().events.truncate(events);
            }
            seen.add(&shown);
        }
        if let Some(refusal) = &failed {
            return Err(changed_or(refusal).into());
        }
        if seen.digest() != interactive.seen || !self.engine.context.sequences().is_spent() {
            return Err(changed().into());
        }
        self.check_deferred_keys()?;
        Ok(Vec::new())
    }

    fn savepoint(
        &mut self,
        sql: &str,
        kind: StatementKind,
        savepoints: &mut Savepoints,
        marks: &mut Vec<Mark>,
    ) -> Result<StatementResult, Trouble> {
        let step = savepoints.step(sql, kind)?;
        self.run_ours(&step.sql())?;
        match step {
            Step::Set(_) => marks.push(self.mark()),
            Step::Back(number) => {
                marks.truncate(number + 1);
                if let Some(mark) = marks.pop() {
                    self.restore(&mark)?;
                    marks.push(mark);
                }
            }
            Step::Release(number) => marks.truncate(number),
        }
        Ok(StatementResult::nothing(kind))
    }

    fn still_in_block(&self) -> Result<(), Refusal> {
        if self.engine.database.connection().is_autocommit() {
            let message = "the statement ended the block's transaction";
            return Err(Refusal::new(sqlstate::INVALID_TRANSACTION_STATE, message));
        }
        Ok(())
    }

    fn check_deferred_keys(&self) -> Result<(), Refusal> {
        if self.engine.database.violates_deferred_keys() {
            let message = "FOREIGN KEY constraint failed: a deferred key is violated at the end";
            return Err(Refusal::new(sqlstate::FOREIGN_KEY_VIOLATION, message));
        }
        Ok(())
    }

    fn statement(
        &mut self,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let result = self.engine.statement(statement, running)?;
        if is_schema_change(result.kind) && self.capture().problem.is_none() {
            self.adopt_schema(running)?;
        }
        Ok(result)
    }

    /// The sequences that the transaction has advanced or dropped, into their table.
    fn write_sequences(&mut self) -> Result<(), Fault> {
        let changed = self.engine.context.sequences().changed();
        if changed.is_empty() {
            return Ok(());
        }
        self.under_root("writing sequences", |connection| {
            for (name, sequence) in changed {
                match sequence {
                    Some(Sequence { next, born }) => connection
                        .prepare_cached(
                            "INSERT INTO rota_sequences VALUES (?1, ?2, ?3)
                             ON CONFLICT (name) DO UPDATE SET next = ?2, born = ?3",
                        )?
                        .execute((name, next, born))?,
                    None => connection
                        .prepare_cached("DELETE FROM rota_sequences WHERE name = ?1")?
                        .execute([name])?,
                };
            }
            Ok(())
        })?;
        self.engine.context.sequences().settle();
        Ok(())
    }

    /// After a CREATE, DROP or ALTER: which tables there are now, and whose rows are hashed
    /// differently.
    fn adopt_schema(&mut self, running: &mut Running<'_>) -> Result<(), Trouble> {
        running.budget.charge_steps(self.schema.objects.saturating_mul(STEPS_PER_OBJECT))?;
        let after = Arc::new(self.renumber()?);
        let changes = after.changes_since(&self.schema);
        self.set_schema(Arc::clone(&after))?;
        self.ours("checking the schema", |connection| Ok(after.check(connection)))??;
        for change in changes {
            let event = match change {
                SchemaChange::Dropped(table) => Event::Dropped(table),
                SchemaChange::Reshaped(table) => Event::Reset(table.id, self.reread(&table)?),
            };
            self.capture().events.push(event);
        }
        self.forget_sequences()
    }

    /// Sequences that no default names any more go with their table.
    fn forget_sequences(&mut self) -> Result<(), Trouble> {
        if self.engine.context.sequences().is_empty() {
            return Ok(());
        }
        let named = self.ours("reading the schema's sequences", sequences::named)?;
        self.engine.context.sequences().keep_only(&named);
        Ok(())
    }

    /// All entries of a table whose rows are hashed differently now, at the transaction's cost.
    fn reread(&self, table: &Table) -> Result<Vec<Entry>, Trouble> {
        let (mut bytes, allowed) = {
            let capture = self.capture();
            (capture.bytes, capture.allowed_bytes)
        };
        let entries = self.ours("reading a changed table", |connection| {
            let mut statement = connection.prepare(&table.scan(connection)?)?;
            let mut rows = statement.query([])?;
            let mut hasher = RowHasher::default();
            let mut entries = Vec::new();
            while let Some(row) = rows.next()? {
                let read = |position: usize, _| row.get_ref(position + 1);
                entries.push(hasher.entry(&table.shape, row.get(0)?, read)?);
                bytes = bytes.saturating_add(hasher.bytes());
                if bytes > allowed {
                    return Ok(None);
                }
            }
            Ok(Some(entries))
        })?;
        self.capture().bytes = bytes;
        entries.ok_or_else(|| too_many_bytes().into())
    }

    pub(crate) fn begin_capture(&self, allowed_bytes: u64) {
        let mut capture = self.capture();
        capture.on = true;
        capture.bytes = 0;
        capture.allowed_bytes = allowed_bytes;
        capture.problem = None;
    }

    /// After statements of ours, with which nothing can be wrong but this program.
    pub(crate) fn end_capture(&self) -> Result<(), Fault> {
        let mut capture = self.capture();
        capture.on = false;
        match capture.problem.take() {
            Some(problem) => Err(Fault::Diverged(format!("{problem:?}"))),
            None => Ok(()),
        }
    }
}

fn judge_problem(problem: Problem) -> Trouble {
    match problem {
        Problem::LargestRowid => Refusal::new(
            sqlstate::DATA_EXCEPTION,
            "rowid 9223372036854775807 is not allowed: SQLite would draw the next ones at random",
        )
        .into(),
        Problem::Bytes => too_many_bytes().into(),
        Problem::Unreadable(what) => Fault::Diverged(what).into(),
    }
}
