//! Running a chunk of COPY's lines: one INSERT, once per row, on the same budget as all else (steps
//! 1, on a draft, and 8).

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rusqlite::{CachedStatement, StatementStatus};

use super::{Column, Copy, Direction, Format, Records, Source, no_stdin};
use crate::bind::Bound;
use crate::engine::{Engine, Running, client_text};
use crate::error::{Trouble, judge};
use crate::value::{Rows, StatementKind, StatementResult};

/// How many bytes of lines cost a step: taking them apart is about as much work as running SQLite's
/// steps for the same number.
const BYTES_PER_STEP: u64 = 16;

/// The most columns of a table (SQLite's own limit is 2,000): each is looked at to run one chunk.
const STEPS_PER_COLUMN: u64 = 4;

impl Engine {
    /// Runs `COPY … FROM STDIN`, whose only parameter is whole lines. If it fails, nothing of it is
    /// left: on a draft it may be run again, with more numbers of a sequence.
    pub(crate) fn copy(
        &self,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        self.ours("SAVEPOINT rota_copy")?;
        let copied = self.copy_all(statement, running);
        // Out of steps, a row's INSERT has taken everything with it.
        if !self.database.connection().is_autocommit() {
            if copied.is_err() {
                self.ours("ROLLBACK TO rota_copy")?;
            }
            self.ours("RELEASE rota_copy")?;
        }
        copied
    }

    /// Clients' savepoints have other names: see `savepoints`.
    fn ours(&self, sql: &str) -> Result<(), Fault> {
        self.context.trust();
        let mut statement = self
            .database
            .connection()
            .prepare_cached(sql)
            .map_err(|error| Fault::storage("preparing a savepoint around a COPY", error))?;
        let ran = statement.execute([]);
        ran.map(drop).map_err(|error| Fault::storage("a savepoint around a COPY", error))
    }

    fn copy_all(
        &self,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let copy = Copy::parse(&statement.sql)?;
        if copy.direction == Direction::Out || copy.options.format == Format::Binary {
            return Err(no_stdin().into());
        }
        let lines = lines(&statement.parameters)?;
        let bytes = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        running.budget.charge_steps(bytes / BYTES_PER_STEP)?;
        let all = self.table_columns(&copy)?;
        let looked_at = u64::try_from(all.len()).unwrap_or(u64::MAX);
        running.budget.charge_steps(looked_at.saturating_mul(STEPS_PER_COLUMN))?;
        let columns = copy.columns(all)?;
        self.context.distrust(false);
        let sql = copy.insert_sql(&columns);
        let copied = self.copy_rows(&sql, &copy, (&columns, lines), running);
        self.note_again(&sql);
        let rows = copied?;
        self.context.set_changes(i64::try_from(rows).unwrap_or(i64::MAX));
        Ok(StatementResult {
            kind: StatementKind::Copy,
            rows_affected: rows,
            last_insert_rowid: self.database.connection().last_insert_rowid(),
            rows: Rows::default(),
        })
    }

    fn copy_rows(
        &self,
        sql: &str,
        copy: &Copy,
        (columns, lines): (&[Column], &[u8]),
        running: &mut Running<'_>,
    ) -> Result<u64, Trouble> {
        let mut insert = self.permitted(&client_text(sql))?;
        let mut records = Records::new(copy, columns, lines);
        let mut rows = 0;
        while let Some((line, values)) = records.row()? {
            match self.insert(&mut insert, &values, running) {
                Ok(()) => rows += 1,
                Err(Trouble::Refusal(refusal)) => {
                    return Err(records.in_line(refusal, line).into());
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(rows)
    }

    fn insert(
        &self,
        insert: &mut CachedStatement<'_>,
        values: &[Value],
        running: &mut Running<'_>,
    ) -> Result<(), Trouble> {
        for (place, value) in (1..).zip(values) {
            insert.raw_bind_parameter(place, Bound(value)).map_err(judge)?;
        }
        insert.reset_status(StatementStatus::VmStep);
        self.context.allow_steps(running.budget.steps);
        let outcome = insert.raw_execute().map_err(judge);
        let steps = insert.get_status(StatementStatus::VmStep);
        // The counter has 32 bits and no sign.
        let steps = u64::from(steps.cast_unsigned()).saturating_add(self.context.charged());
        running.budget.charge_steps(steps)?;
        outcome.map(drop)
    }

    /// All columns of the table, in its order.
    fn table_columns(&self, copy: &Copy) -> Result<Vec<Column>, Trouble> {
        let Source::Table { schema, name, .. } = &copy.source else {
            return Err(no_stdin().into());
        };
        self.context.trust();
        let mut columns = Vec::new();
        if schema.is_none() {
            let mut statement = self
                .database
                .connection()
                .prepare_cached("SELECT name, type, hidden FROM pragma_table_xinfo(?1, 'main')")
                .map_err(judge)?;
            let mut rows = statement.query([name]).map_err(judge)?;
            while let Some(row) = rows.next().map_err(judge)? {
                let column: String = row.get(0).map_err(judge)?;
                let declared: String = row.get(1).map_err(judge)?;
                let hidden: i64 = row.get(2).map_err(judge)?;
                columns.push(Column::new(column, &declared, hidden != 0));
            }
        }
        if columns.is_empty() {
            let message = format!("relation \"{name}\" does not exist");
            return Err(Refusal::new(sqlstate::UNDEFINED_TABLE, message).into());
        }
        Ok(columns)
    }
}

fn lines(parameters: &Parameters) -> Result<&[u8], Refusal> {
    match parameters {
        Parameters::Positional(values) => match values.as_slice() {
            [Value::Blob(lines)] => return Ok(lines),
            [Value::Text(lines)] => return Ok(lines.as_bytes()),
            _ => {}
        },
        Parameters::Named(_) => {}
    }
    Err(Refusal::new(
        sqlstate::PROTOCOL_VIOLATION,
        "COPY … FROM STDIN takes one parameter: the lines",
    ))
}
