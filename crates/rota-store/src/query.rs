//! Reads: step 1 of a transaction's nine answers them from this server's copy, on as many threads
//! as there are readers.
//!
//! ```text
//!   statement ──► authorizer: what is public ──► prepared once, kept ──► rows, within limits
//!                   main    state.db, written by the executor meanwhile (WAL: neither waits)
//!                   chain   chain.db: `blocks`, `receipts`, `transactions` (one's own) only
//!                   pg_catalog, information_schema   in memory, see `catalog`
//! ```
//!
//! Each connection is opened read-only: whatever gets past the checks in front of it cannot write.
//! A server's functions mean here what they mean anywhere, `now()` the time on this server's clock;
//! in a write they are agreed (`determinism`).

mod describe;
mod functions;
mod told;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::transaction::{Settings, Statement, Value};
use rota_core::types::{Height, TransactionId};
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags, Row, StatementStatus};

use crate::access::{self, Access as Users, Caller, Need, Needs, View};
use crate::bind;
use crate::catalog;
use crate::chain_db;
use crate::determinism::MAX_SQL_BYTES;
use crate::engine::unasked;
use crate::error::{Trouble, judge};
use crate::policy;
use crate::sql::{Access, classify};
use crate::sqlite;
use crate::value::{Column, Rows, StatementKind};

/// The users' database in a server's home.
const STATE_FILE: &str = "state.db";

/// Prepared statements kept per connection: some 10 KB each, and more than the forms that an
/// application uses.
const CACHED_STATEMENTS: usize = 256;

/// How many VM steps between two looks at the clock: some tens of microseconds.
const STEPS_PER_LOOK: i32 = 2_000;

/// The longest value that a read may make, as by `group_concat`. A single function call is not
/// interrupted: this is what bounds its time, to some tens of milliseconds.
const MAX_READ_VALUE_BYTES: i32 = 16 << 20;

/// Page cache per connection; the operating system's cache is behind it.
const CACHE_KIB: i64 = 8 * 1024;

/// How often a statement is begun anew because the schema has changed.
const MOST_RUNS: usize = 5;

/// What each value costs beside its own bytes when an answer's size is counted.
const VALUE_OVERHEAD: usize = 24;

/// The databases of the catalog.
const CATALOG: i32 = 2;

/// They, and `chain`.
const ATTACHED: i32 = CATALOG + 1;

/// How long to wait for a lock: only the recovery after a crash ever holds one.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// PRAGMAs that only tell about the schema; tools use them, as statements or as `pragma_…()`
/// tables.
const PRAGMAS: [&str; 9] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "function_list",
    "collation_list",
];

/// The most rows of an answer about the schema, on a draft, ...
const MOST_LOOKED_AT: usize = 100_000;

/// ... and the most bytes.
const MOST_BYTES_LOOKED_AT: usize = 16 << 20;

/// Where `state.db` says which block is the newest in it.
const HEIGHT: &str = "SELECT height FROM main.rota_meta";

/// How much one read may take.
#[derive(Clone, Debug)]
pub struct ReadLimits {
    /// When to stop (57014).
    pub deadline: Instant,
    /// Or once this is set.
    pub cancelled: Arc<AtomicBool>,
    /// The most rows (54000).
    pub max_rows: usize,
    /// The most bytes of all rows together (54000).
    pub max_bytes: usize,
}

/// What a statement takes and gives, found without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// In the order of their numbers.
    pub parameters: Vec<Parameter>,
    /// What it returns; none for a write without RETURNING.
    pub columns: Vec<Column>,
    /// The tables that it names, by name and by alias, with their columns and declared types; where
    /// neither a parameter nor an expression among the columns needs them, none.
    pub tables: Vec<(String, Vec<(String, String)>)>,
    /// Whether a reader may run it.
    pub read_only: bool,
    /// What it is.
    pub kind: StatementKind,
}

/// A parameter of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameter {
    /// Its name without the prefix, if it has one.
    pub name: Option<String>,
    /// The declared type of the column that it is compared with or stored in, where that can be
    /// told.
    pub declared: Option<String>,
}

pub use functions::{Beyond, Fate, Outcome};
pub(crate) use functions::{prepare_draft, register_user};

/// Read-only connections to one server's files. One per thread.
pub struct Reader {
    home: PathBuf,
    plain: Session,
    /// Another connection, for clients that put strings in double quotes: a prepared statement
    /// keeps the meaning that the setting had, and takes on another when the schema changes.
    quoting: Option<Session>,
    beyond: Arc<dyn Beyond>,
    access: View,
    lookup: functions::Lookup,
}

impl Reader {
    /// Opens the files that the executor and the log have created in `home`. `access`: who there is
    /// and who may read what.
    pub fn open(home: &Path, access: View) -> Result<Self, Fault> {
        Self::informed(home, Arc::new(functions::Files), access)
    }

    /// The same for a server that knows more than its files tell.
    pub fn informed(home: &Path, beyond: Arc<dyn Beyond>, access: View) -> Result<Self, Fault> {
        let plain = Session::open(home, false, &beyond)?;
        let lookup = functions::Lookup::new(home, Arc::clone(&beyond));
        Ok(Self { home: home.into(), plain, quoting: None, beyond, access, lookup })
    }

    /// Runs one statement that only reads, in the name of a user. Refuses writes (25006), what is
    /// not public or not granted (42501), and answers beyond `limits`.
    pub fn query(
        &mut self,
        user: &str,
        statement: &Statement,
        settings: &Settings,
        limits: &ReadLimits,
    ) -> Result<Rows, Refusal> {
        let access = self.access.current();
        self.session(settings)?.query((user, &access), statement, limits)
    }

    /// What a statement takes and gives, also for one that writes.
    pub fn describe(
        &mut self,
        user: &str,
        sql: &str,
        settings: &Settings,
    ) -> Result<Description, Refusal> {
        let access = self.access.current();
        let session = self.session(settings)?;
        session.caller.set(user, &access)?;
        session.describe(sql)
    }

    /// What became of a transaction. Why it failed is for its sender and for administrators.
    pub fn fate(&self, id: &TransactionId) -> Result<Fate, Refusal> {
        self.lookup.fate(id).map_err(refuse)
    }

    /// The newest block in `state.db`.
    pub fn height(&self) -> Result<Height, Refusal> {
        let height: i64 = self
            .plain
            .connection
            .prepare_cached(HEIGHT)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(refuse)?;
        Ok(Height(u64::try_from(height).unwrap_or_default()))
    }

    fn session(&mut self, settings: &Settings) -> Result<&mut Session, Refusal> {
        if !settings.double_quoted_strings {
            return Ok(&mut self.plain);
        }
        if self.quoting.is_none() {
            let opened = Session::open(&self.home, true, &self.beyond);
            let opened = opened.map_err(|fault| internal(fault.to_string()))?;
            self.quoting = Some(opened);
        }
        self.quoting.as_mut().ok_or_else(|| internal("no connection".into()))
    }
}

/// What the callbacks of a connection know of the statement that runs.
#[derive(Default)]
struct Watch {
    /// When it has to stop, and what stops it before.
    until: Mutex<Option<(Instant, Arc<AtomicBool>)>>,
    denied: Mutex<Option<Refusal>>,
    /// Whether what runs is ours: the catalog being filled.
    trusted: AtomicBool,
    /// What SQLite has asked for since a statement began to be prepared, if it was.
    needs: Mutex<Option<Needs>>,
    /// Whether the statement is being run: what SQLite asks for then is answered at once.
    running: AtomicBool,
}

impl Watch {
    /// From now on the statement runs: it is prepared, and its user may.
    fn run(&self) {
        *lock(&self.needs) = None;
        self.running.store(true, Ordering::Relaxed);
    }

    /// What SQLite asks for is noted while it prepares a statement; while it runs one, which it
    /// then prepares anew since the schema has changed, it is refused at once.
    fn note(&self, asked: &AuthContext<'_>, caller: &Caller) -> Result<(), Refusal> {
        let is_running = self.running.load(Ordering::Relaxed);
        // A function such as pragma_table_info() prepares its PRAGMA while its statement runs.
        if is_running && matches!(asked.action, AuthAction::Pragma { .. }) {
            return Ok(());
        }
        lock(&self.needs).get_or_insert_default().note(asked, false);
        if !is_running {
            return Ok(());
        }
        let mut needs = Needs::default();
        needs.note(asked, false);
        caller.rights().lacks(&needs).map_or(Ok(()), |need| Err(need.refusal()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    connection: Connection,
    watch: Arc<Watch>,
    caller: Caller,
    /// What the prepared statements that are kept need, by their texts.
    needs: RefCell<HashMap<Box<str>, Arc<Needs>>>,
}

impl Session {
    fn open(
        home: &Path,
        double_quoted_strings: bool,
        beyond: &Arc<dyn Beyond>,
    ) -> Result<Self, Fault> {
        let fault =
            |error| Fault::storage(format!("reading the files in {}", home.display()), error);
        let mut connection = open_files(home).map_err(fault)?;
        let caller = Caller::default();
        functions::register(&connection, home, Arc::clone(beyond), &caller).map_err(fault)?;
        catalog::register(&connection).map_err(fault)?;
        told::register(&connection, home, &caller).map_err(fault)?;
        for setting in [DbConfig::SQLITE_DBCONFIG_DQS_DML, DbConfig::SQLITE_DBCONFIG_DQS_DDL] {
            connection.set_db_config(setting, double_quoted_strings).map_err(fault)?;
        }
        let watch = Arc::new(Watch::default());
        let (authorizer, asks) = (Arc::clone(&watch), caller.clone());
        let answer = move |asked: &AuthContext<'_>| {
            authorize(asked)?;
            authorizer.note(asked, &asks)
        };
        let authorizer = Arc::clone(&watch);
        connection
            .authorizer(Some(move |asked: AuthContext<'_>| match answer(&asked) {
                Ok(()) => Authorization::Allow,
                Err(_) if authorizer.trusted.load(Ordering::Relaxed) => Authorization::Allow,
                Err(refusal) => {
                    lock(&authorizer.denied).get_or_insert(refusal);
                    Authorization::Deny
                }
            }))
            .map_err(fault)?;
        let clock = Arc::clone(&watch);
        let is_over = move || {
            lock(&clock.until).as_ref().is_some_and(|(deadline, cancelled)| {
                cancelled.load(Ordering::Relaxed) || Instant::now() >= *deadline
            })
        };
        connection.progress_handler(STEPS_PER_LOOK, Some(is_over)).map_err(fault)?;
        Ok(Self { connection, watch, caller, needs: RefCell::default() })
    }

    fn query(
        &self,
        (user, access): (&str, &Arc<Users>),
        statement: &Statement,
        limits: &ReadLimits,
    ) -> Result<Rows, Refusal> {
        self.caller.set(user, access)?;
        match classify(&statement.sql).access {
            Access::Empty => return Ok(Rows::default()),
            Access::Session => {
                return Err(Refusal::new(
                    sqlstate::INVALID_TRANSACTION_STATE,
                    "BEGIN, COMMIT and their like are the session's, not a read's",
                ));
            }
            Access::Write if is_select(statement) => return Err(not_a_read()),
            Access::Read | Access::Write => {}
        }
        if limits.cancelled.load(Ordering::Relaxed) {
            return Err(cancelled());
        }
        *lock(&self.watch.until) = Some((limits.deadline, Arc::clone(&limits.cancelled)));
        let rows = self.run_settled(statement, limits);
        *lock(&self.watch.until) = None;
        match rows {
            Err(refusal)
                if refusal.code() == sqlstate::QUERY_CANCELED
                    && limits.cancelled.load(Ordering::Relaxed) =>
            {
                Err(cancelled())
            }
            rows => rows,
        }
    }

    /// Runs a statement until SQLite has not prepared it anew meanwhile, since the schema had
    /// changed: what it needed before says nothing of that, and not all is asked about.
    fn run_settled(&self, statement: &Statement, limits: &ReadLimits) -> Result<Rows, Refusal> {
        for _ in 0..MOST_RUNS {
            let rows = self.run(statement, limits);
            let ran = self.watch.running.swap(false, Ordering::Relaxed);
            if lock(&self.watch.needs).take().is_none() || !ran {
                return rows;
            }
            self.needs.borrow_mut().remove(statement.sql.as_str());
            if let Ok(stale) = self.connection.prepare_cached(&statement.sql) {
                stale.discard();
            }
            self.look_at_schema()?;
        }
        let message = "the schema changes too often for this statement: try again";
        Err(Refusal::new(sqlstate::SERIALIZATION_FAILURE, message))
    }

    fn run(&self, statement: &Statement, limits: &ReadLimits) -> Result<Rows, Refusal> {
        self.fill_catalog(&statement.sql)?;
        let mut prepared = self.permitted(&statement.sql)?;
        if !prepared.readonly() {
            return Err(not_a_read());
        }
        bind::bind(&mut prepared, &statement.parameters)?;
        let mut answer = Answer::new(limits.max_rows, limits.max_bytes);
        let mut columns = None;
        prepared.reset_status(StatementStatus::RePrepare);
        let mut found = prepared.raw_query();
        while let Some(row) = found.next().map_err(|error| self.refuse(error))? {
            // Only now: the first step prepares anew what a changed schema has made stale.
            let columns = columns.get_or_insert_with(|| columns_of(row.as_ref()));
            answer.add(row, columns.len())?;
        }
        drop(found);
        if prepared.get_status(StatementStatus::RePrepare) == 0 {
            // What SQLite asked for then was for a PRAGMA that the statement uses as a table.
            lock(&self.watch.needs).take();
        }
        answer.rows.columns = columns.unwrap_or_else(|| columns_of(&prepared));
        Ok(answer.rows)
    }

    /// Makes the catalog tell of the newest schema if the statement mentions it.
    fn fill_catalog(&self, sql: &str) -> Result<(), Refusal> {
        if !catalog::is_mentioned(sql) {
            return Ok(());
        }
        self.watch.trusted.store(true, Ordering::Relaxed);
        let filled = catalog::prepare(&self.connection, &self.caller);
        self.watch.trusted.store(false, Ordering::Relaxed);
        filled.map_err(|error| self.refuse(error))
    }

    /// A statement, prepared, that the caller may run: what it needs is known of old, or SQLite has
    /// just asked for it. What is known may be of an older schema: then it is asked once more.
    fn permitted(&self, sql: &str) -> Result<CachedStatement<'_>, Refusal> {
        let prepared = self.prepare(sql)?;
        let rights = self.caller.rights();
        let needs = self.needs_of(sql)?;
        if rights.administrator {
            self.watch.run();
            return Ok(prepared);
        }
        let mut prepared = prepared;
        let mut needs = needs.filter(|needs| rights.lacks(needs).is_none());
        if needs.is_none() {
            prepared.discard();
            self.look_at_schema()?;
            prepared = self.prepare(sql)?;
            needs = self.needs_of(sql)?;
        }
        let needs = needs.ok_or_else(unasked)?;
        for need in needs.iter().filter(|need| !rights.satisfies(need)) {
            if !self.is_about_nothing(need)? {
                return Err(need.refusal());
            }
        }
        self.watch.run();
        Ok(prepared)
    }

    /// What a statement needs that was prepared just now, or kept; `None`: nobody knows.
    fn needs_of(&self, sql: &str) -> Result<Option<Arc<Needs>>, Refusal> {
        let asked = lock(&self.watch.needs).take();
        let Some(mut needs) = asked else {
            return Ok(self.needs.borrow().get(sql).cloned());
        };
        if needs.may_hide_reads(sql) {
            self.watch.trusted.store(true, Ordering::Relaxed);
            let opened = access::opened(&self.connection, sql);
            self.watch.trusted.store(false, Ordering::Relaxed);
            lock(&self.watch.needs).take();
            needs = needs.with_read(opened.map_err(|error| self.refuse(error))?);
        }
        let needs = Arc::new(needs);
        let mut kept = self.needs.borrow_mut();
        if kept.len() >= CACHED_STATEMENTS {
            kept.clear();
        }
        kept.insert(sql.into(), Arc::clone(&needs));
        Ok(Some(needs))
    }

    /// Whether a name is a subquery's: SQLite does not say, and there is no such table.
    fn is_about_nothing(&self, need: &Need) -> Result<bool, Refusal> {
        let Need::On(_, name, true) = need else { return Ok(false) };
        let found = self
            .connection
            .prepare_cached(
                "SELECT 1 FROM main.sqlite_schema
                 WHERE type IN ('table', 'view') AND lower(name) = lower(?1)",
            )
            .and_then(|mut find| find.exists([name]));
        found.map(|found| !found).map_err(|error| self.refuse(error))
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, Refusal> {
        lock(&self.watch.denied).take();
        lock(&self.watch.needs).take();
        self.watch.running.store(false, Ordering::Relaxed);
        self.connection.prepare_cached(sql).map_err(|error| self.refuse(error))
    }

    fn describe(&self, sql: &str) -> Result<Description, Refusal> {
        self.look_at_schema()?;
        self.fill_catalog(sql)?;
        lock(&self.watch.denied).take();
        self.watch.running.store(false, Ordering::Relaxed);
        describe_on(&self.connection, sql).map_err(|refusal| self.denied(refusal))
    }

    /// Preparing looks at the schema in memory; running this compares it with the file's.
    fn look_at_schema(&self) -> Result<(), Refusal> {
        self.connection
            .prepare_cached("SELECT 1 FROM main.sqlite_schema LIMIT 0")
            .and_then(|mut fresh| fresh.raw_query().next().map(drop))
            .map_err(|error| self.refuse(error))
    }

    /// The authorizer's reason, if it has one.
    fn denied(&self, refusal: Refusal) -> Refusal {
        lock(&self.watch.denied).take().unwrap_or(refusal)
    }

    /// Why SQLite said no: the authorizer knows better than its error does.
    fn refuse(&self, error: rusqlite::Error) -> Refusal {
        lock(&self.watch.denied).take().unwrap_or_else(|| refuse(error))
    }
}

/// Whether SQLite would take a statement for a read, whatever the functions in it do.
fn is_select(statement: &Statement) -> bool {
    classify(&statement.sql).kind == StatementKind::Select
}

fn not_a_read() -> Refusal {
    let message = "a read may not change anything; send this statement as a write";
    Refusal::new(sqlstate::READ_ONLY, message)
}

/// What a statement takes and gives, on any connection.
pub(crate) fn describe_on(connection: &Connection, sql: &str) -> Result<Description, Refusal> {
    let classified = classify(sql);
    if matches!(classified.access, Access::Empty | Access::Session) {
        return Ok(Description {
            parameters: Vec::new(),
            columns: Vec::new(),
            tables: Vec::new(),
            read_only: true,
            kind: classified.kind,
        });
    }
    let prepared = connection.prepare(sql).map_err(refuse)?;
    let columns = columns_of(&prepared);
    let has_expression = columns.iter().any(|column| column.declared.is_none());
    let told = describe::told(connection, sql, has_expression).map_err(refuse)?;
    Ok(Description {
        parameters: parameters_of(&prepared, &told.parameters),
        columns,
        tables: told.tables,
        read_only: prepared.readonly() && classified.access == Access::Read,
        kind: classified.kind,
    })
}

/// Makes the catalog of a draft's connection tell of the draft's schema.
pub(crate) fn fill_draft(connection: &Connection, caller: &Caller) -> Result<(), Refusal> {
    let limit = Limit::SQLITE_LIMIT_ATTACHED;
    connection.set_limit(limit, CATALOG).map_err(refuse)?;
    let filled = catalog::prepare(connection, caller);
    connection.set_limit(limit, 0).map_err(refuse)?;
    filled.map_err(refuse)
}

/// Whether SQLite's program for a statement opens a table or index of `main`: its schema excepted,
/// which is the one that begins on the first page.
fn reads_rows(connection: &Connection, sql: &str) -> Result<bool, Refusal> {
    let mut program = connection.prepare(&format!("EXPLAIN {sql}")).map_err(refuse)?;
    let mut steps = program.raw_query();
    while let Some(step) = steps.next().map_err(refuse)? {
        let opens = matches!(step.get_ref(1), Ok(ValueRef::Text(b"OpenRead" | b"ReopenIdx")));
        let page: i64 = step.get(3).map_err(refuse)?;
        let database: i64 = step.get(4).map_err(refuse)?;
        if opens && database == 0 && page != 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Answers a question about the schema on a draft's connection.
/// Refuses what reads users' rows (42501): nobody would check at COMMIT that they are still so.
pub(crate) fn look(connection: &Connection, statement: &Statement) -> Result<Rows, Refusal> {
    if reads_rows(connection, &statement.sql)? {
        return Err(denied("a question about the schema may not be about users' rows too"));
    }
    let mut prepared = connection.prepare(&statement.sql).map_err(refuse)?;
    if !prepared.readonly() || classify(&statement.sql).access == Access::Write {
        return Err(Refusal::new(sqlstate::READ_ONLY, "a question may not change anything"));
    }
    bind::bind(&mut prepared, &statement.parameters)?;
    let columns = columns_of(&prepared);
    let mut answer = Answer::new(MOST_LOOKED_AT, MOST_BYTES_LOOKED_AT);
    let mut found = prepared.raw_query();
    while let Some(row) = found.next().map_err(refuse)? {
        answer.add(row, columns.len())?;
    }
    drop(found);
    Ok(Rows { columns, ..answer.rows })
}

/// An answer in the making.
struct Answer {
    max_rows: usize,
    max_bytes: usize,
    rows: Rows,
    bytes: usize,
}

impl Answer {
    fn new(max_rows: usize, max_bytes: usize) -> Self {
        Self { max_rows, max_bytes, rows: Rows::default(), bytes: 0 }
    }

    fn add(&mut self, row: &Row<'_>, columns: usize) -> Result<(), Refusal> {
        if self.rows.rows.len() >= self.max_rows {
            let most = self.max_rows;
            return Err(too_much(format!("the answer has more than {most} rows; ask for fewer")));
        }
        let mut values = Vec::with_capacity(columns);
        for column in 0..columns {
            let value = read_value(row.get_ref(column).map_err(refuse)?)?;
            self.bytes = self.bytes.saturating_add(size_of_value(&value));
            values.push(value);
        }
        if self.bytes > self.max_bytes {
            let most = self.max_bytes;
            return Err(too_much(format!("the answer has more than {most} bytes; ask for less")));
        }
        self.rows.rows.push(values);
        Ok(())
    }
}

fn size_of_value(value: &Value) -> usize {
    VALUE_OVERHEAD
        + match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        }
}

fn read_value(value: ValueRef<'_>) -> Result<Value, Refusal> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::real(number),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    })
}

fn columns_of(statement: &rusqlite::Statement<'_>) -> Vec<Column> {
    statement
        .columns()
        .map(|column| Column {
            name: column.name().into(),
            declared: column.decl_type().map(str::to_owned),
        })
        .collect()
}

/// By number: `declared` is by SQLite's index.
fn parameters_of(
    statement: &rusqlite::Statement<'_>,
    declared: &BTreeMap<usize, String>,
) -> Vec<Parameter> {
    let mut parameters = vec![Parameter::default(); bind::values_wanted(statement)];
    for (index, parameter) in bind::parameters(statement) {
        let (number, name) = match parameter {
            bind::Parameter::Number(number) => (number, None),
            bind::Parameter::Name(name) => (index, Some(name.to_owned())),
        };
        let place = number.checked_sub(1).and_then(|place| parameters.get_mut(place));
        if let Some(place) = place {
            place.name = name;
            place.declared = place.declared.take().or_else(|| declared.get(&index).cloned());
        }
    }
    parameters
}

/// Both files, read-only. Also for functions that look something up.
fn open_files(home: &Path) -> rusqlite::Result<Connection> {
    sqlite::use_utc();
    // The catalog's databases are attached by URI: see `catalog`.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(home.join(STATE_FILE), flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    let chain = home.join(chain_db::FILE);
    connection.execute("ATTACH ?1 AS chain", [chain.to_string_lossy()])?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_READ_VALUE_BYTES),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES),
        (Limit::SQLITE_LIMIT_ATTACHED, ATTACHED),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000), // matching is not interrupted
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
    ] {
        connection.set_db_config(setting, on)?;
    }
    Ok(connection)
}

/// What a client's statement may be about. Writes may be prepared, to describe them; `query`
/// refuses to run them, and the files are open for reading only.
pub(crate) fn authorize(asked: &AuthContext<'_>) -> Result<(), Refusal> {
    use AuthAction as A;
    let in_chain = asked.database_name.is_some_and(|name| name.eq_ignore_ascii_case("chain"));
    let in_catalog = asked.database_name.is_some_and(catalog::is_schema);
    match asked.action {
        A::Select | A::Recursive => Ok(()),
        A::Read { table_name, .. } if in_chain => public(table_name),
        A::Read { table_name, .. } => not_raw(table_name),
        A::Function { function_name } if policy::is_of_a_module(function_name) => {
            Err(denied(format!("function {function_name}() is not for clients")))
        }
        A::Function { .. } => Ok(()),
        A::Pragma { pragma_name, .. } if is_harmless(pragma_name) => Ok(()),
        A::Pragma { pragma_name, .. } => Err(denied(format!(
            "PRAGMA {pragma_name} is not for clients; allowed are {}",
            PRAGMAS.join(", ")
        ))),
        A::Attach { .. } | A::Detach { .. } => Err(denied("ATTACH and DETACH are not for clients")),
        A::Transaction { .. } | A::Savepoint { .. } => {
            Err(denied("BEGIN, COMMIT, ROLLBACK and savepoints are the session's"))
        }
        A::CreateVtable { .. } | A::DropVtable { .. } => {
            Err(denied("virtual tables are not supported"))
        }
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. } => {
            Err(denied("temporary tables, views and triggers are not supported"))
        }
        _ if in_chain => Err(denied("the tables of chain cannot be changed by SQL")),
        _ if in_catalog => Err(denied("the catalog cannot be changed by SQL")),
        _ => Ok(()),
    }
}

fn public(table: &str) -> Result<(), Refusal> {
    if chain_db::PUBLIC_TABLES.iter().any(|public| public.eq_ignore_ascii_case(table)) {
        return Ok(());
    }
    let public = chain_db::PUBLIC_TABLES.join(", chain.");
    Err(denied(format!("chain.{table} is not for clients; chain.{public} are")))
}

/// Not tables of SQLite's that show bytes of pages, whatever is in them, nor the log's own by a
/// short name.
fn not_raw(table: &str) -> Result<(), Refusal> {
    let raw = policy::RAW_TABLES;
    if raw.iter().chain(&chain_db::PRIVATE_TABLES).any(|name| name.eq_ignore_ascii_case(table)) {
        return Err(denied(format!("{table} is not for clients")));
    }
    Ok(())
}

fn is_harmless(pragma: &str) -> bool {
    PRAGMAS.iter().any(|name| name.eq_ignore_ascii_case(pragma))
}

fn denied(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
}

fn too_much(message: String) -> Refusal {
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

fn internal(message: String) -> Refusal {
    Refusal::new(sqlstate::INTERNAL, message)
}

fn refuse(error: rusqlite::Error) -> Refusal {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
        return Refusal::new(
            sqlstate::QUERY_CANCELED,
            "canceling statement: it took longer than statement_timeout, or than a read may run \
             here; ask for less, or add an index",
        );
    }
    match judge(error) {
        Trouble::Refusal(refusal) => refusal,
        Trouble::Fault(fault) => internal(fault.to_string()),
    }
}

/// In PostgreSQL's words, by which clients may know it.
fn cancelled() -> Refusal {
    Refusal::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request")
}

#[cfg(test)]
mod tests;
