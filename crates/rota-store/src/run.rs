//! Running one client transaction in its savepoint, statement by statement, within its budget.

use std::sync::Arc;

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::{Statement, Transaction};
use rota_core::types::{PublicKey, TransactionId};

use crate::apply::Mark;
use crate::capture::{Event, Problem, RowHasher};
use crate::engine::{Budget, MAX_RESULT_BYTES, MAX_SHOWN_BYTES, Running, is_schema_change};
use crate::error::Trouble;
use crate::merkle::Entry;
use crate::replay::{Stage, replay};
use crate::savepoints::Step;
use crate::schema::{SchemaChange, Table};
use crate::sequences::{self, Sequence, Source};
use crate::sql;
use crate::state::StateDb;
use crate::value::StatementResult;

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

fn too_many_bytes() -> Refusal {
    let message =
        "the transaction changes more bytes than it, or its block, has left; do it in parts";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

/// An interactive transaction's stage: the state, and what to restore at each of its savepoints.
struct Savepointed<'a> {
    state: &'a mut StateDb,
    marks: Vec<Mark>,
}

impl Stage for Savepointed<'_> {
    fn statement(
        &mut self,
        number: u32,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        self.state.engine.context.begin_statement(running.id, number);
        let events = self.state.capture().events.len();
        let result = self.state.statement(statement, running);
        if result.is_err() {
            // SQLite has undone its changes, and says nothing of that to the hook.
            self.state.capture().events.truncate(events);
        }
        result
    }

    fn savepoint(&mut self, step: Step) -> Result<(), Fault> {
        self.state.run_ours(&step.sql())?;
        match step {
            Step::Set(_) => self.marks.push(self.state.mark()),
            Step::Back(number) => {
                self.marks.truncate(number + 1);
                if let Some(mark) = self.marks.last() {
                    self.state.restore(mark)?;
                }
            }
            Step::Release(number) => self.marks.truncate(number),
        }
        Ok(())
    }

    fn goes_on(&self) -> Result<(), Refusal> {
        self.state.still_in_block()
    }

    fn is_spent(&self) -> bool {
        self.state.engine.context.sequences().is_spent()
    }
}

impl StateDb {
    /// Runs a transaction. What it cost is taken from the block's budget, whatever became of it.
    pub(crate) fn run(
        &mut self,
        transaction: &Transaction,
        id: TransactionId,
        (signer, own_key): (PublicKey, bool),
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
        self.engine.begin_transaction();
        self.begin_capture(granted.bytes);
        let (outcome, left) = self.outcome(transaction, id, (signer, own_key), granted);
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
        (signer, own_key): (PublicKey, bool),
        mut budget: Budget,
    ) -> (Result<Vec<StatementResult>, Trouble>, Budget) {
        if let Some(taken) = self.take_part(transaction, signer, &mut budget) {
            return (taken, budget);
        }
        let assembled;
        let transaction = match self.staged(transaction, id, &mut budget) {
            None => transaction,
            Some(Err(trouble)) => return (Err(trouble), budget),
            Some(Ok(whole)) => {
                assembled = whole;
                &assembled
            }
        };
        let settings = &transaction.settings;
        let result_bytes = match transaction.interactive {
            None => MAX_RESULT_BYTES,
            Some(_) => MAX_SHOWN_BYTES,
        };
        let (read_only, wrote) = (false, false);
        let user = transaction.user.as_str();
        let mut running =
            Running { id, user, own_key, settings, budget, result_bytes, read_only, wrote };
        let Some(interactive) = &transaction.interactive else {
            self.engine.context.sequences().source = Source::State;
            let outcome = self.statements(transaction, &mut running);
            return (outcome, running.budget);
        };
        let values = interactive.values.iter().copied().collect();
        self.engine.context.sequences().source = Source::Carried(values);
        let now = self.engine.context.now();
        self.engine.set_time(interactive.begun);
        let mut stage = Savepointed { state: self, marks: Vec::new() };
        let outcome = replay(&mut stage, transaction, interactive, &mut running);
        let outcome = outcome.and_then(|()| Ok(self.check_deferred_keys()?));
        self.engine.set_now(now);
        // Its client has the results already.
        (outcome.map(|()| Vec::new()), running.budget)
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
        self.schema_touched |= is_schema_change(sql::classify(&statement.sql).kind);
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
