//! What must not differ between servers, and how it is kept from differing (SQLite's own list of
//! such functions, and what was measured).
//!
//! | hazard | closed by |
//! |---|---|
//! | `CURRENT_*`, `date('now')`, also in defaults | the VFS's clock is the block's time |
//! | `localtime`, `utc` | the time zone is UTC (`sqlite`) |
//! | `random()`, `randomblob()` | drawn from (transaction id, statement, call) |
//! | `changes()`, `last_insert_rowid()` | begin at 0 in each transaction |
//! | `sqlite_version()` and all that is not listed | refused by the authorizer (`policy`) |
//! | rowids after 2^63 − 1 | that rowid is refused (`capture`) |
//! | plans | no statistics, stable plans on, one SQLite for all (`sqlite::identity`) |
//! | runaway statements | VM steps, counted from 0 for each run of a statement |
//! | slow functions | charged as steps by the bytes they are given (`functions::metered`) |
//! | strings in double quotes | a flag of the transaction |

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rota_core::error::{Refusal, sqlstate};
use rota_core::types::TransactionId;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext};
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error};

use crate::access::{Caller, Needs, Privilege};
use crate::accounts::{self, Transfers};
use crate::datetime::Timestamp;
use crate::engine;
use crate::functions::Meter;
use crate::policy;
use crate::query;
use crate::sequences::{Sequence, Sequences};
use crate::sqlite::Database;

/// The longest string, blob or row. VM steps do not count what one function costs, so that is
/// bounded instead: the slowest of them take some milliseconds for as much.
pub const MAX_VALUE_BYTES: i32 = 1_000_000;

/// The longest statement. As long as the longest row, or a schema could hold SQL that it cannot
/// read again.
pub const MAX_SQL_BYTES: i32 = 1_000_000;

/// How many VM steps between two looks at the budget: some microseconds.
pub const STEPS_PER_CHECK: u64 = 1_000;

/// How often preparing one statement may be looked at, each time after [`STEPS_PER_CHECK`] steps of
/// the parser: a view of views of views grows without bound before a single VM step.
const CHECKS_PER_PREPARE: u64 = 20;

/// What a question about the schema may take on a draft: some ten million steps.
const LOOK_CHECKS: u64 = 10_000;

/// Pages of 4 KB in memory.
const CACHE_KIB: i64 = 64 * 1024;

/// The same for a draft: what does not fit is in its own file, which is in memory too.
const DRAFT_CACHE_KIB: i64 = 1024;

/// Drawing so many random bytes costs a step: 14 ms were measured for a million, and a step is
/// about 30 ns.
const RANDOM_BYTES_PER_STEP: u64 = 2;

/// What the callbacks of a connection know of the statement that runs.
#[derive(Default)]
pub struct Context {
    trusted: AtomicBool,
    looking: AtomicBool,
    schema_change: AtomicBool,
    steps_left: AtomicU64,
    /// What functions have cost since the statement began.
    charged: AtomicU64,
    changes: AtomicI64,
    now_ms: AtomicI64,
    draw: Mutex<Draw>,
    denied: Mutex<Option<Refusal>>,
    /// In whose name statements run.
    pub(crate) caller: Caller,
    /// What SQLite has asked for since a statement began to be prepared, if it was.
    needs: Mutex<Option<Needs>>,
    /// The tables and views that the statement would make.
    made: Mutex<Vec<String>>,
    /// Whether the statement is being run: what SQLite asks for then is answered at once.
    running: AtomicBool,
    sequences: Mutex<Sequences>,
    /// What the running statement transfers.
    transfers: Mutex<Transfers>,
    /// Drafts only: at apply wall time decides nothing.
    watch: Mutex<Option<Watch>>,
}

/// When a statement on a draft has to stop, whatever it has cost.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When, if ever.
    pub deadline: Option<Instant>,
    /// Or once this is set.
    pub cancelled: Arc<AtomicBool>,
}

impl Watch {
    fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

#[derive(Default)]
struct Draw {
    transaction: TransactionId,
    statement: u32,
    call: u64,
}

impl Draw {
    fn next(&mut self) -> [u8; 32] {
        let call = self.call.to_le_bytes();
        self.call = self.call.wrapping_add(1);
        rota_hash::hash("rota random", &[&self.transaction.0, &self.statement.to_le_bytes(), &call])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// From now on statements are ours: everything is allowed, nothing is counted.
    pub fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
        self.steps_left.store(u64::MAX, Ordering::Relaxed);
    }

    /// From now on a client's question about the schema runs, on a draft.
    pub fn look(&self) {
        self.trusted.store(false, Ordering::Relaxed);
        self.looking.store(true, Ordering::Relaxed);
        self.steps_left.store(LOOK_CHECKS * STEPS_PER_CHECK, Ordering::Relaxed);
        *lock(&self.denied) = None;
    }

    /// From now on a client's statement is prepared.
    pub fn distrust(&self, schema_change: bool) {
        self.trusted.store(false, Ordering::Relaxed);
        self.looking.store(false, Ordering::Relaxed);
        self.schema_change.store(schema_change, Ordering::Relaxed);
        self.steps_left.store(CHECKS_PER_PREPARE * STEPS_PER_CHECK, Ordering::Relaxed);
        self.running.store(false, Ordering::Relaxed);
        *lock(&self.denied) = None;
        *lock(&self.needs) = None;
        // Of a statement that could not be prepared.
        lock(&self.made).clear();
    }

    /// From now on it runs: it is prepared, and its user may.
    pub(crate) fn run(&self) {
        *lock(&self.needs) = None;
        self.running.store(true, Ordering::Relaxed);
    }

    /// Whether what is prepared is a CREATE, DROP or ALTER.
    pub(crate) fn is_schema_change(&self) -> bool {
        self.schema_change.load(Ordering::Relaxed)
    }

    /// Whose statement it is and how far it is, to come back to.
    pub(crate) fn phase(&self) -> (bool, u64) {
        let trusted = self.trusted.load(Ordering::Relaxed);
        (trusted, self.steps_left.load(Ordering::Relaxed))
    }

    /// Comes back from something of our own.
    pub(crate) fn resume(&self, (trusted, steps_left): (bool, u64)) {
        self.trusted.store(trusted, Ordering::Relaxed);
        self.steps_left.store(steps_left, Ordering::Relaxed);
    }

    /// What SQLite asked for, if it prepared the statement; else it was prepared before.
    pub(crate) fn take_needs(&self) -> Option<Needs> {
        lock(&self.needs).take()
    }

    /// The tables and views that the statement would make.
    pub(crate) fn take_made(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.made))
    }

    /// Whether a table or view of that name is among them.
    pub(crate) fn would_make(&self, name: &str) -> bool {
        lock(&self.made).iter().any(|made| made.eq_ignore_ascii_case(name))
    }

    /// Notes what SQLite asks for while it prepares a statement; while it runs one, which it then
    /// prepares anew, it is refused at once.
    fn note(&self, asked: &AuthContext<'_>) -> Result<(), Refusal> {
        let schema_change = self.is_schema_change();
        if let AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateView { view_name: name } = asked.action
        {
            lock(&self.made).push(name.to_owned());
        }
        lock(&self.needs).get_or_insert_default().note(asked, schema_change);
        if !self.running.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut needs = Needs::default();
        needs.note(asked, schema_change);
        let rights = self.caller.rights();
        rights.lacks(&needs).map_or(Ok(()), |need| Err(need.refusal()))
    }

    /// From now on the prepared statement runs, with this many VM steps at most. It is stopped only
    /// when it has taken more for certain; the exact count is compared after it.
    pub fn allow_steps(&self, steps: u64) {
        self.steps_left.store(steps, Ordering::Relaxed);
        self.charged.store(0, Ordering::Relaxed);
    }

    /// Takes what a function costs from the running statement's steps, and remembers it for the
    /// exact count. False: it has taken more than it may for certain.
    pub fn charge(&self, steps: u64) -> bool {
        let charged = self.charged.load(Ordering::Relaxed).saturating_add(steps);
        self.charged.store(charged, Ordering::Relaxed);
        self.take(steps)
    }

    /// What functions have cost since [`Context::allow_steps`].
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    fn take(&self, steps: u64) -> bool {
        let left = self.steps_left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return true;
        }
        self.steps_left.store(left.saturating_sub(steps), Ordering::Relaxed);
        left >= steps
    }

    /// Stops the running statement at the next look.
    pub fn stop(&self) {
        self.steps_left.store(0, Ordering::Relaxed);
    }

    /// Why the authorizer said no, if it did.
    pub fn take_denied(&self) -> Option<Refusal> {
        lock(&self.denied).take()
    }

    /// Which statement `random()` is asked in.
    pub fn begin_statement(&self, transaction: TransactionId, statement: u32) {
        *lock(&self.draw) = Draw { transaction, statement, call: 0 };
        if statement == 0 {
            self.set_changes(0);
        }
    }

    /// What `changes()` says in the next statement.
    pub fn set_changes(&self, changes: i64) {
        self.changes.store(changes, Ordering::Relaxed);
    }

    /// What `now()` says, in milliseconds since 1970.
    pub fn set_now(&self, unix_ms: i64) {
        self.now_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// What `now()` says.
    pub fn now(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn sequences(&self) -> MutexGuard<'_, Sequences> {
        lock(&self.sequences)
    }

    pub(crate) fn transfers(&self) -> MutexGuard<'_, Transfers> {
        lock(&self.transfers)
    }

    /// Statements stop when this says so.
    pub fn watch(&self, watch: Option<Watch>) {
        *lock(&self.watch) = watch;
    }

    /// Whether the watch, and not the budget, has stopped the statement.
    pub fn is_called_off(&self) -> bool {
        lock(&self.watch).as_ref().is_some_and(Watch::is_over)
    }

    /// The reason for an error, which SQLite cannot carry: it replaces SQLite's own.
    pub(crate) fn deny(&self, refusal: Refusal) -> Error {
        let message = refusal.message.clone();
        lock(&self.denied).get_or_insert(refusal);
        Error::UserFunctionError(message.into())
    }

    fn goes_on(&self) -> bool {
        if self.is_called_off() {
            return false;
        }
        self.take(STEPS_PER_CHECK)
    }
}

/// Settings, limits, functions and callbacks of the executor's connection.
pub fn prepare_connection(database: &mut Database, context: &Arc<Context>) -> rusqlite::Result<()> {
    settings(database.connection())?;
    database.connection().pragma_update(None, "journal_mode", "WAL")?;
    database.connection().pragma_update(None, "synchronous", "NORMAL")?;
    database.connection().pragma_update(None, "cache_size", -CACHE_KIB)?;
    // See StateDb::copy_log.
    database.connection().pragma_update(None, "wal_autocheckpoint", 0)?;
    callbacks(database, context)
}

/// The same for a draft's connection, whose file is in memory, its own and for once.
pub fn prepare_draft(database: &mut Database, context: &Arc<Context>) -> rusqlite::Result<()> {
    settings(database.connection())?;
    // OFF could undo nothing, not even a statement that failed.
    database.connection().pragma_update(None, "journal_mode", "MEMORY")?;
    database.connection().pragma_update(None, "cache_size", -DRAFT_CACHE_KIB)?;
    callbacks(database, context)
}

fn callbacks(database: &mut Database, context: &Arc<Context>) -> rusqlite::Result<()> {
    context.trust();
    limits(database.connection())?;
    functions(database.connection(), context)?;
    let authorizer = Arc::clone(context);
    database.connection_mut().authorizer(Some(
        move |asked: rusqlite::hooks::AuthContext<'_>| {
            if authorizer.trusted.load(Ordering::Relaxed) {
                return rusqlite::hooks::Authorization::Allow;
            }
            let answer = if authorizer.looking.load(Ordering::Relaxed) {
                query::authorize(&asked)
            } else {
                policy::authorize(&asked, authorizer.is_schema_change())
                    .and_then(|()| authorizer.note(&asked))
            };
            match answer {
                Ok(()) => rusqlite::hooks::Authorization::Allow,
                Err(refusal) => {
                    lock(&authorizer.denied).get_or_insert(refusal);
                    rusqlite::hooks::Authorization::Deny
                }
            }
        },
    ))?;
    let progress = Arc::clone(context);
    let interval = i32::try_from(STEPS_PER_CHECK).unwrap_or(i32::MAX);
    database.connection_mut().progress_handler(interval, Some(move || !progress.goes_on()))
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // In memory, every RELEASE walks the whole sub-journal.
    connection.pragma_update(None, "temp_store", 1)?;
    connection.pragma_update(None, "recursive_triggers", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    Ok(())
}

fn limits(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
    // Clients' statements are that long at most, before they get their mark.
    let mark = i32::try_from(engine::CLIENT_MARK.len()).unwrap_or(0);
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES + mark)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    // Patterns like '%a%a%a%…' take time that grows with every %, and no VM steps.
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 250)?;
    connection.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100)?;
    connection.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 500)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    Ok(())
}

/// Whether strings may be in double quotes. Statements that are cached must be forgotten when this
/// changes.
pub fn allow_double_quoted_strings(connection: &Connection, allow: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, allow)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, allow)?;
    Ok(())
}

fn functions(connection: &Connection, context: &Arc<Context>) -> rusqlite::Result<()> {
    // Innocuous: also for defaults, triggers and views.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let draw = Arc::clone(context);
    connection.create_scalar_function(c"random", 0, flags, move |_| {
        let [a, b, c, d, e, f, g, h, ..] = lock(&draw.draw).next();
        Ok(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
    })?;
    let draw = Arc::clone(context);
    connection.create_scalar_function(c"randomblob", 1, flags, move |call| {
        let wanted = usize::try_from(call.get::<Option<i64>>(0)?.unwrap_or(1).max(1))
            .ok()
            .filter(|&wanted| i32::try_from(wanted).is_ok_and(|wanted| wanted <= MAX_VALUE_BYTES))
            .ok_or_else(|| Error::UserFunctionError("string or blob too big".into()))?;
        if !draw.charge(u64::try_from(wanted).unwrap_or(u64::MAX) / RANDOM_BYTES_PER_STEP) {
            return Err(Error::UserFunctionError("out of steps".into()));
        }
        let mut blob = Vec::with_capacity(wanted + 32);
        let mut draw = lock(&draw.draw);
        while blob.len() < wanted {
            blob.extend_from_slice(&draw.next());
        }
        blob.truncate(wanted);
        Ok(blob)
    })?;
    let changes = Arc::clone(context);
    connection.create_scalar_function(c"changes", 0, flags, move |_| {
        Ok(changes.changes.load(Ordering::Relaxed))
    })?;
    let numbers = Arc::clone(context);
    connection.create_scalar_function(c"rota_nextval", 1, flags, move |call| {
        let name: String = call.get(0)?;
        let next = may_draw(&numbers, &name).and_then(|()| numbers.sequences().next(&name));
        next.map_err(|refusal| numbers.deny(refusal))
    })?;
    let numbers = Arc::clone(context);
    connection.create_scalar_function(c"rota_reserve", 2, flags, move |call| {
        let (name, count): (String, i64) = (call.get(0)?, call.get(1)?);
        let reserved =
            may_draw(&numbers, &name).and_then(|()| numbers.sequences().reserve(&name, count));
        let Sequence { next, born } = reserved.map_err(|refusal| numbers.deny(refusal))?;
        Ok(format!("{next} {born}"))
    })?;
    let numbers = Arc::clone(context);
    connection.create_scalar_function(c"rota_setval", 2, flags, move |call| {
        let (name, value): (String, i64) = (call.get(0)?, call.get(1)?);
        let raised = match numbers.caller.rights().may_everywhere(Privilege::Create) {
            true => numbers.sequences().raise(&name, value),
            false => Err(no_sequence(&name)),
        };
        raised.map(|()| value).map_err(|refusal| numbers.deny(refusal))
    })?;
    accounts::register(connection, context)?;
    let now = Arc::clone(context);
    connection.create_scalar_function(c"now", 0, flags, move |_| {
        Ok(timestamp(now.now_ms.load(Ordering::Relaxed)))
    })?;
    let draw = Arc::clone(context);
    query::register_user(connection, &context.caller)?;
    crate::functions::register_random(connection, move || {
        let drawn = lock(&draw.draw).next();
        drawn.first_chunk().copied().unwrap_or_default()
    })?;
    let charged = Arc::clone(context);
    let meter: Meter = Arc::new(move |steps| charged.charge(steps));
    crate::functions::register(connection, Some(meter))
}

/// Sequences belong to no table, and a column's default draws from them: whoever may write anything
/// may draw.
fn may_draw(context: &Context, name: &str) -> Result<(), Refusal> {
    if context.caller.rights().may_write() { Ok(()) } else { Err(no_sequence(name)) }
}

fn no_sequence(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    let message = format!("permission denied for sequence {name}");
    Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
}

/// `2026-11-20 23:52:00.125`: as CURRENT_TIMESTAMP, with what there is of a second's parts.
pub fn timestamp(unix_ms: i64) -> String {
    let at = unix_ms.checked_mul(1_000).and_then(Timestamp::new);
    at.unwrap_or(Timestamp::FUTURE).to_string()
}
