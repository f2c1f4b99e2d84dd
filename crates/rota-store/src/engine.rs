//! One statement of a client's on one connection, within its budget: the same code on a draft (step
//! 1) and at apply (step 8), so that both come to the same.
//!
//! ```text
//!   text ── check ── prepare, the authorizer listening ── bind ── run, steps counted ── result
//! ```

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::Parameters;
use rota_core::time::Time;
use rota_core::transaction::{Settings, Statement, Value};
use rota_core::types::TransactionId;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, StatementStatus};

use crate::access::{self, Access, Need, Needs, Privilege, Rights};
use crate::bind;
use crate::determinism::{self, Context};
use crate::error::{Trouble, judge};
use crate::sql;
use crate::sqlite::Database;
use crate::texts::{Text, Texts, no_explain};
use crate::value::{Column, Rows, StatementKind, StatementResult};

/// What a statement costs beside its VM steps, in steps: for itself, and for this many bytes of its
/// text one more. Charged alike whether it has to be prepared or not.
const STATEMENT_STEPS: u64 = 20;
const BYTES_PER_STEP: u64 = 4;

/// A transaction's results are kept in memory and sent to its client.
pub(crate) const MAX_RESULT_BYTES: u64 = 4 << 20;

/// What an interactive transaction may be shown; at apply its rows are hashed and let go.
pub(crate) const MAX_SHOWN_BYTES: u64 = 64 << 20;

/// What no statement of ours begins with.
pub(crate) const CLIENT_MARK: &str = "/*client*/ ";

/// Longer statements are not kept prepared.
const MAX_CACHED_SQL: usize = 4_096;

/// Needs are kept for so many texts; with one more all are forgotten, and found anew.
const MOST_KEPT_NEEDS: usize = 1_024;

/// What is left of what a block, or a transaction, may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) steps: u64,
    pub(crate) bytes: u64,
}

impl Budget {
    /// Of a whole block.
    pub(crate) fn of_block(parameters: &Parameters) -> Self {
        Self { steps: parameters.block_steps, bytes: parameters.block_change_bytes }
    }

    pub(crate) fn of_transaction(parameters: &Parameters, block: &Self) -> Self {
        Self {
            steps: parameters.transaction_steps.min(block.steps),
            bytes: parameters.transaction_bytes.min(block.bytes),
        }
    }

    pub(crate) fn charge_steps(&mut self, steps: u64) -> Result<(), Refusal> {
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

/// What a transaction carries from statement to statement.
pub(crate) struct Running<'a> {
    pub(crate) id: TransactionId,
    /// In whose name.
    pub(crate) user: &'a str,
    /// Whether that user has signed it with its own key.
    pub(crate) own_key: bool,
    pub(crate) settings: &'a Settings,
    pub(crate) budget: Budget,
    /// What is left of the bytes that it may be shown.
    pub(crate) result_bytes: u64,
    /// Whether a statement that writes is refused, whatever its words look like (25006).
    pub(crate) read_only: bool,
    /// Whether one of its statements was one that writes, as SQLite says.
    pub(crate) wrote: bool,
}

/// A connection on which clients' statements run.
pub(crate) struct Engine {
    pub(crate) database: Database,
    pub(crate) context: Arc<Context>,
    /// Who there is and who may do what, in the state as it is here.
    pub(crate) access: Arc<Access>,
    /// What the prepared statements that are kept need, by their texts.
    needs: RefCell<HashMap<Box<str>, Arc<Needs>>>,
    /// Whether strings may be in double quotes now.
    quoting: bool,
    /// Whether violations of foreign keys count at the end of the running transaction only, ...
    defers: Cell<bool>,
    /// ... and what SQLite was told of it, if that still holds.
    told_to_defer: Cell<Option<bool>>,
    texts: Texts,
}

impl Engine {
    pub(crate) fn new(database: Database, context: Arc<Context>) -> Self {
        Self {
            database,
            context,
            access: Arc::default(),
            needs: RefCell::default(),
            quoting: false,
            defers: Cell::new(false),
            told_to_defer: Cell::new(Some(false)),
            texts: Texts::default(),
        }
    }

    /// Runs a statement that is not about savepoints.
    pub(crate) fn statement(
        &mut self,
        statement: &Statement,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let text = statement.sql.as_str();
        let found = self.texts.read(text)?;
        let Text { kind, double_quotes, .. } = found;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        running.budget.charge_steps(STATEMENT_STEPS.saturating_add(length / BYTES_PER_STEP))?;
        if kind == StatementKind::Empty {
            return Ok(StatementResult::nothing(kind));
        }
        let quoting = running.settings.double_quoted_strings && double_quotes;
        self.set_quoting(quoting)?;
        if kind == StatementKind::Pragma && is_deferral(text) {
            self.defers.set(true);
            return Ok(StatementResult::nothing(kind));
        }
        self.defer_keys()?;
        self.context.caller.set(running.user, &self.access)?;
        let result = match kind {
            StatementKind::Copy => self.copy(statement, running),
            StatementKind::CreateUser
            | StatementKind::AlterUser
            | StatementKind::DropUser
            | StatementKind::Grant
            | StatementKind::Revoke => self.change_access(text, kind, running),
            _ => self.execute(statement, found, running),
        };
        self.context.trust();
        result.map_err(|trouble| match (trouble, self.context.take_denied()) {
            (Trouble::Refusal(_), Some(denied)) => Trouble::Refusal(denied),
            (trouble, _) => trouble,
        })
    }

    /// A transaction begins: nothing of the one before it is to be seen.
    pub(crate) fn begin_transaction(&self) {
        if self.defers.replace(false) {
            // SQLite forgets it when the block ends, which may have been meanwhile.
            self.told_to_defer.set(None);
        }
        self.database.set_last_insert_rowid(0);
        self.context.set_changes(0);
    }

    /// What `now` and SQLite's own dates say: block time, or the time of BEGIN.
    pub(crate) fn set_time(&self, time: Time) {
        self.set_now(i64::try_from(time.0).unwrap_or(i64::MAX));
    }

    /// The same in milliseconds since 1970.
    pub(crate) fn set_now(&self, unix_ms: i64) {
        self.database.set_clock(unix_ms);
        self.context.set_now(unix_ms);
    }

    fn execute(
        &mut self,
        statement: &Statement,
        text: Text,
        running: &mut Running<'_>,
    ) -> Result<StatementResult, Trouble> {
        let kind = text.kind;
        let mut made = Vec::new();
        let mut result = self.run_one(statement, text, running, &mut made);
        if self.note_again(&statement.sql) && result.is_err() {
            // Prepared anew in the running, it was refused before its first step, by less than is
            // known of one that is prepared for the first time.
            self.forget_statements();
            result = self.run_one(statement, text, running, &mut made);
        }
        let result = result?;
        if is_schema_change(kind) {
            self.forget_statements();
            self.grants_follow(&statement.sql, kind, &made, running)?;
        }
        Ok(result)
    }

    fn run_one(
        &self,
        statement: &Statement,
        Text { kind, transfers, .. }: Text,
        running: &mut Running<'_>,
        made: &mut Vec<String>,
    ) -> Result<StatementResult, Trouble> {
        self.context.distrust(is_schema_change(kind));
        let mut prepared = self.permitted(&client_text(&statement.sql))?;
        *made = self.new_tables(is_schema_change(kind))?;
        let connection = self.database.connection();
        check(&prepared, running)?;
        bind::bind(&mut prepared, &statement.parameters)?;
        self.open_transfers(transfers, running)?;
        prepared.reset_status(StatementStatus::VmStep);
        self.context.allow_steps(running.budget.steps);
        let rows = collect(&mut prepared, &mut running.result_bytes);
        self.context.trust();
        let steps = prepared.get_status(StatementStatus::VmStep);
        if is_schema_change(kind) || statement.sql.len() > MAX_CACHED_SQL {
            prepared.discard();
        }
        // The counter has 32 bits and no sign.
        let steps = u64::from(steps.cast_unsigned()).saturating_add(self.context.charged());
        running.budget.charge_steps(steps)?;
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
        self.settle_transfers(running)?;
        Ok(StatementResult { kind, rows_affected, last_insert_rowid, rows })
    }

    /// A statement, prepared, that the caller may run: what it needs is known of old, or SQLite has
    /// just asked for it.
    pub(crate) fn permitted(&self, text: &str) -> Result<CachedStatement<'_>, Trouble> {
        let connection = self.database.connection();
        let prepared = connection.prepare_cached(text).map_err(judge)?;
        let rights = self.context.caller.rights();
        let mut needs = self.needs_of(text)?;
        if rights.administrator {
            self.context.run();
            return Ok(prepared);
        }
        let mut prepared = prepared;
        if needs.is_none() {
            prepared.discard();
            prepared = connection.prepare_cached(text).map_err(judge)?;
            needs = self.needs_of(text)?;
        }
        let needs = match needs {
            Some(needs) => needs,
            // DROP … IF EXISTS of nothing, CREATE INDEX IF NOT EXISTS of what is there.
            None if self.context.is_schema_change() => Arc::default(),
            // SQLite asks about all others; of one that it did not ask about nothing is known.
            None => return Err(unasked().into()),
        };
        let lacking = needs.iter().filter(|need| !rights.satisfies(need));
        for need in lacking {
            if !self.is_about_nothing(need)? && !self.is_of_its_own(need, &rights)? {
                return Err(need.refusal().into());
            }
        }
        self.context.run();
        Ok(prepared)
    }

    /// Whether what is needed is for an index of the very table that the statement makes, as UNIQUE
    /// has one, and its user may make tables.
    fn is_of_its_own(&self, need: &Need, rights: &Rights) -> Result<bool, Trouble> {
        let Need::On(Privilege::Create, name, _) = need else { return Ok(false) };
        Ok(rights.may_make_tables() && self.context.would_make(name) && !self.has_table(name)?)
    }

    /// What a statement needs that was prepared just now, or kept; `None`: nobody knows.
    fn needs_of(&self, text: &str) -> Result<Option<Arc<Needs>>, Trouble> {
        let Some(asked) = self.context.take_needs() else {
            return Ok(self.needs.borrow().get(text).cloned());
        };
        let mut needs = asked.with_replaced(text);
        if !self.context.is_schema_change() && needs.may_hide_reads(text) {
            let phase = self.context.phase();
            self.context.trust();
            let opened = access::opened(self.database.connection(), text);
            self.context.resume(phase);
            needs = needs.with_read(opened.map_err(judge)?);
        }
        let needs = Arc::new(needs);
        if text.len() <= MAX_CACHED_SQL {
            let mut kept = self.needs.borrow_mut();
            if kept.len() >= MOST_KEPT_NEEDS {
                kept.clear();
            }
            kept.insert(text.into(), Arc::clone(&needs));
        }
        Ok(Some(needs))
    }

    /// After a run: if SQLite has prepared the statement anew meanwhile, since the schema had
    /// changed, what it needed before says nothing any more.
    /// Says whether it has.
    pub(crate) fn note_again(&self, sql: &str) -> bool {
        let is_new = self.context.take_needs().is_some();
        if is_new {
            self.needs.borrow_mut().remove(client_text(sql).as_str());
        }
        is_new
    }

    /// Whether a name is a subquery's: SQLite does not say, and there is no such table.
    fn is_about_nothing(&self, need: &Need) -> Result<bool, Trouble> {
        let Need::On(_, name, true) = need else { return Ok(false) };
        Ok(!self.has_table(name)?)
    }

    /// Whether there is a table or view of that name. What runs is the client's again after it.
    fn has_table(&self, name: &str) -> Result<bool, Trouble> {
        let phase = self.context.phase();
        self.context.trust();
        let found = self
            .database
            .connection()
            .prepare_cached(
                "SELECT 1 FROM main.sqlite_schema
                 WHERE type IN ('table', 'view') AND lower(name) = lower(?1)",
            )
            .and_then(|mut find| find.exists([name]));
        self.context.resume(phase);
        found.map_err(judge)
    }

    /// The tables and views that the statement which was just prepared will make.
    fn new_tables(&self, schema_change: bool) -> Result<Vec<String>, Trouble> {
        let mut new = Vec::new();
        for name in self.context.take_made() {
            // The first AUTOINCREMENT makes a table of SQLite's own; nobody else can.
            if !schema_change || name == "sqlite_sequence" || self.has_table(&name)? {
                continue;
            }
            access::check_table(&name)?;
            new.push(name);
        }
        Ok(new)
    }

    /// Nothing that is prepared is used again.
    pub(crate) fn forget_statements(&self) {
        self.database.connection().flush_prepared_statement_cache();
        self.needs.borrow_mut().clear();
    }

    /// Tells SQLite what the transaction has said.
    fn defer_keys(&self) -> Result<(), Trouble> {
        let defers = self.defers.get();
        if self.told_to_defer.get() != Some(defers) {
            let connection = self.database.connection();
            connection.pragma_update(None, "defer_foreign_keys", defers).map_err(judge)?;
            self.told_to_defer.set(Some(defers));
            // With it SQLite expires all that is prepared: a server that has a statement must do
            // what one does that has not.
            self.forget_statements();
        }
        Ok(())
    }

    fn set_quoting(&mut self, allow: bool) -> Result<(), Trouble> {
        if self.quoting != allow {
            self.quoting = allow;
            let connection = self.database.connection();
            determinism::allow_double_quoted_strings(connection, allow).map_err(judge)?;
            self.forget_statements();
        }
        Ok(())
    }
}

/// `PRAGMA defer_foreign_keys = ON`, the one PRAGMA that a transaction may have: it is checked at
/// the transaction's end whether all keys are kept, as deferrable ones always are.
fn is_deferral(sql: &str) -> bool {
    let words: Vec<String> = sql::Lexer::new(sql)
        .map(|(_, token)| match token {
            sql::Token::Word(word) => word.to_ascii_lowercase(),
            sql::Token::Symbol(symbol) => symbol.to_string(),
            _ => String::new(),
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(words.as_slice(), ["pragma", "defer_foreign_keys", "=", "on" | "true" | "1"])
}

pub(crate) fn is_schema_change(kind: StatementKind) -> bool {
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

/// A client's text as it is prepared and kept. SQLite asks its authorizer while a statement is
/// prepared and not when it is run, and the connection keeps our own statements too: without the
/// mark a client that sends the very text of one of ours would be given ours.
pub(crate) fn client_text(sql: &str) -> String {
    [CLIENT_MARK, sql].concat()
}

/// Asks SQLite what the statement is: its words, which were read before, are not the last word.
fn check(prepared: &CachedStatement<'_>, running: &mut Running<'_>) -> Result<(), Refusal> {
    if prepared.is_explain() != 0 {
        return Err(no_explain());
    }
    let writes = !prepared.readonly();
    if writes && running.read_only {
        return Err(read_only());
    }
    running.wrote |= writes;
    Ok(())
}

/// Not to be run: nobody knows what it would touch.
pub(crate) fn unasked() -> Refusal {
    Refusal::new(sqlstate::INTERNAL, "SQLite did not say what the statement needs")
}

/// A write in a transaction that only reads.
pub(crate) fn read_only() -> Refusal {
    Refusal::new(sqlstate::READ_ONLY, "cannot write in a read-only transaction")
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
            let bytes = u64::try_from(length + 16).unwrap_or(u64::MAX);
            *result_bytes = result_bytes.checked_sub(bytes).ok_or_else(too_many_results)?;
            values.push(to_value(value));
        }
        collected.push(values);
    }
    Ok(Rows { columns, rows: collected })
}

fn too_many_results() -> Refusal {
    let message = "the transaction's results are too large; ask for less, or in parts";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

pub(crate) fn to_value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn sqlite_has_the_last_word_on_what_a_statement_is() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        for (sql, read_only, want, wrote) in [
            ("SELECT 1", true, None, false),
            ("SELECT 1", false, None, false),
            ("DELETE FROM t", true, Some("25006"), false),
            ("DELETE FROM t", false, None, true),
            ("EXPLAIN DELETE FROM t", false, Some("0A000"), false),
            ("EXPLAIN QUERY PLAN SELECT 1", true, Some("0A000"), false),
        ] {
            let mut running = Running {
                id: TransactionId::default(),
                settings: &Settings::default(),
                user: "rota",
                own_key: false,
                budget: Budget { steps: 0, bytes: 0 },
                result_bytes: 0,
                read_only,
                wrote: false,
            };
            let refused = check(&connection.prepare_cached(sql).unwrap(), &mut running).err();
            let code = refused.as_ref().map(Refusal::code);
            assert_eq!((code, running.wrote), (want, wrote), "{sql}");
        }
    }
}
