//! Running one client transaction in its savepoint, statement by statement, within its budget.

use std::sync::Arc;

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::genesis::Parameters;
use rota_core::transaction::{Settings, Statement, Transaction, Value};
use rota_core::types::TransactionId;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, StatementStatus};

use crate::bind;
use crate::capture::{Event, Problem, RowHasher};
use crate::determinism::{self, MAX_SQL_BYTES};
use crate::error::{Trouble, judge};
use crate::merkle::Entry;
use crate::schema::{SchemaChange, Table};
use crate::sql;
use crate::state::StateDb;
use crate::value::{Column, Rows, StatementKind, StatementResult};

/// What a statement costs beside its VM steps, in steps: for itself, and for this many bytes of its
/// text one more. Charged alike whether it has to be prepared or not.
const STATEMENT_STEPS: u64 = 20;
const BYTES_PER_STEP: u64 = 4;

/// What a change of the schema costs, in steps for each table, index, view and trigger there is:
/// they are read again.
const STEPS_PER_OBJECT: u64 = 200;

/// A transaction's results are kept in memory and sent to its client.
const MAX_RESULT_BYTES: u64 = 4 << 20;

/// Longer statements are not kept prepared.
const MAX_CACHED_SQL: usize = 4_096;

/// Why a transaction did nothing.
pub(crate) enum Failure {
    /// It is rolled back; the block goes on.
    Refused(Refusal),
    /// It has taken the block's transaction with it.
    BrokeOut(Refusal),
}

/// What is left of what a block, or a transaction, may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    steps: u64,
    bytes: u64,
}

impl Budget {
    /// Of a whole block.
    pub(crate) fn of_block(parameters: &Parameters) -> Self {
        Self { steps: parameters.block_steps, bytes: parameters.block_change_bytes }
    }

    fn of_transaction(parameters: &Parameters, block: &Self) -> Self {
        Self {
            steps: parameters.transaction_steps.min(block.steps),
            bytes: parameters.transaction_bytes.min(block.bytes),
        }
    }

    fn charge_steps(&mut self, steps: u64) -> Result<(), Refusal> {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.map(drop).ok_or_else(too_many_steps)
    }
}

fn too_many_steps() -> Refusal {
    let message =
        "the transaction takes more steps than it, or its block, has left; do it in parts";
    Refusal::new(sqlstate::STATEMENT_TOO_COMPLEX, message)
}

fn too_many_bytes() -> Refusal {
    let message =
        "the transaction changes more bytes than it, or its block, has left; do it in parts";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

/// What a transaction carries from statement to statement.
struct Running<'a> {
    id: TransactionId,
    settings: &'a Settings,
    budget: Budget,
    result_bytes: u64,
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
        let mut running =
            Running { id, settings: &transaction.settings, budget: granted, result_bytes: 0 };
        let mark = self.mark();
        self.run_ours("SAVEPOINT rota")?;
        self.database.reset_last_insert_rowid();
        self.begin_capture(granted.bytes);
        let outcome = self.statements(transaction, &mut running);
        let bytes = self.capture().bytes;
        block.steps = block.steps.saturating_sub(granted.steps - running.budget.steps);
        block.bytes = block.bytes.saturating_sub(bytes);
        self.capture().on = false;
        let problem = self.capture().problem.take();
        let outcome = match problem {
            Some(problem) => Err(judge_problem(problem)),
            None => outcome,
        };
        let refusal = match outcome {
            Ok(results) => {
                self.run_ours("RELEASE rota")?;
                return Ok(Ok(results));
            }
            Err(Trouble::Fault(fault)) => return Err(fault),
            Err(Trouble::Refusal(refusal)) => refusal,
        };
        if self.database.connection().is_autocommit() {
            return Ok(Err(Failure::BrokeOut(refusal)));
        }
        self.run_ours("ROLLBACK TO rota")?;
        self.run_ours("RELEASE rota")?;
        self.restore(&mark)?;
        Ok(Err(Failure::Refused(refusal)))
    }

    fn statements(
        &mut self,
        transaction: &Transaction,
        running: &mut Running<'_>,
    ) -> Result<Vec<StatementResult>, Trouble> {
        let mut results = Vec::with_capacity(transaction.statements.len());
        for (number, statement) in (0..).zip(&transaction.statements) {
            self.context.begin_statement(running.id, number);
            results.push(self.statement(statement, running)?);
            if self.database.connection().is_autocommit() {
                let message = "the statement ended the block's transaction";
                return Err(Refusal::new(sqlstate::INVALID_TRANSACTION_STATE, message).into());
            }
        }
        if self.database.violates_deferred_keys() {
            let message = "FOREIGN KEY constraint failed: a deferred key is violated at the end";
            return Err(Refusal::new(sqlstate::FOREIGN_KEY_VIOLATION, message).into());
        }
        Ok(results)
    }

    fn statement(
        &mut self,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let text = statement.sql.as_str();
        let classified = sql::classify(text);
        let kind = classified.kind;
        check_text(text, classified)?;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        running.budget.charge_steps(STATEMENT_STEPS.saturating_add(length / BYTES_PER_STEP))?;
        if kind == StatementKind::Empty {
            return Ok(StatementResult::nothing(kind));
        }
        let quoting = running.settings.double_quoted_strings && sql::has_double_quotes(text);
        self.set_quoting(quoting)?;
        let result = self.execute(statement, kind, running);
        self.context.trust();
        let result = result.map_err(|trouble| match (trouble, self.context.take_denied()) {
            (Trouble::Refusal(_), Some(denied)) => Trouble::Refusal(denied),
            (trouble, _) => trouble,
        })?;
        if is_schema_change(kind) && self.capture().problem.is_none() {
            self.adopt_schema(running)?;
        }
        Ok(result)
    }

    fn execute(
        &self,
        statement: &Statement,
        kind: StatementKind,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let connection = self.database.connection();
        self.context.distrust(is_schema_change(kind));
        let mut prepared = connection.prepare_cached(&statement.sql).map_err(judge)?;
        bind::bind(&mut prepared, &statement.parameters)?;
        prepared.reset_status(StatementStatus::VmStep);
        self.context.allow_steps(running.budget.steps);
        let rows = collect(&mut prepared, &mut running.result_bytes);
        self.context.trust();
        let steps = prepared.get_status(StatementStatus::VmStep);
        if is_schema_change(kind) || statement.sql.len() > MAX_CACHED_SQL {
            prepared.discard();
        }
        // The counter has 32 bits and no sign.
        running.budget.charge_steps(u64::from(steps.cast_unsigned()))?;
        let rows = rows?;
        let writes =
            matches!(kind, StatementKind::Insert | StatementKind::Update | StatementKind::Delete);
        let rows_affected = match kind {
            _ if writes => connection.changes(),
            StatementKind::Select => u64::try_from(rows.rows.len()).unwrap_or(u64::MAX),
            _ => 0,
        };
        if writes {
            self.context.set_changes(i64::try_from(rows_affected).unwrap_or(i64::MAX));
        }
        let last_insert_rowid = connection.last_insert_rowid();
        Ok(StatementResult { kind, rows_affected, last_insert_rowid, rows })
    }

    fn set_quoting(&mut self, allow: bool) -> Result<(), Trouble> {
        if self.quoting != allow {
            self.quoting = allow;
            let connection = self.database.connection();
            determinism::allow_double_quoted_strings(connection, allow).map_err(judge)?;
            connection.flush_prepared_statement_cache();
        }
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

fn is_schema_change(kind: StatementKind) -> bool {
    use StatementKind as K;
    matches!(
        kind,
        K::CreateTable
            | K::CreateIndex
            | K::CreateView
            | K::CreateTrigger
            | K::DropTable
            | K::DropIndex
            | K::DropView
            | K::DropTrigger
            | K::AlterTable
    )
}

fn check_text(text: &str, classified: sql::Classified) -> Result<(), Refusal> {
    if text.len() > usize::try_from(MAX_SQL_BYTES).unwrap_or(0) {
        let message = format!("a statement of {} bytes; {MAX_SQL_BYTES} are possible", text.len());
        return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
    }
    if classified.access == sql::Access::Session {
        let message =
            "BEGIN, COMMIT, ROLLBACK, savepoints and SET are the session's, not a statement's";
        return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    if classified.kind == StatementKind::Explain {
        let message = "EXPLAIN shows how a statement is run, and is for reads only";
        return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    sql::forbidden(text, classified.kind)
}

/// Runs a bound statement to its end.
fn collect(prepared: &mut CachedStatement<'_>, result_bytes: &mut u64) -> Result<Rows, Trouble> {
    let width = prepared.column_count();
    if width == 0 {
        prepared.raw_execute().map_err(judge)?;
        return Ok(Rows::default());
    }
    let columns = prepared
        .columns()
        .map(|column| Column {
            name: column.name().to_owned(),
            declared: column.decl_type().map(str::to_owned),
        })
        .collect();
    let mut collected = Vec::new();
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(judge)? {
        let mut values = Vec::with_capacity(width);
        for index in 0..width {
            let value = row.get_ref(index).map_err(judge)?;
            let length = value.as_bytes_or_null().ok().flatten().map_or(0, <[u8]>::len);
            *result_bytes =
                result_bytes.saturating_add(u64::try_from(length + 16).unwrap_or(u64::MAX));
            values.push(to_value(value));
        }
        if *result_bytes > MAX_RESULT_BYTES {
            let message = "the transaction's results are too large; ask for less, or in parts";
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message).into());
        }
        collected.push(values);
    }
    Ok(Rows { columns, rows: collected })
}

fn to_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}
