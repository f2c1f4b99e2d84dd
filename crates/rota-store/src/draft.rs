//! Drafts: private copy-on-write copies of the newest final state, on which interactive
//! transactions run before they are sent. Step 1 of a transaction's nine.
//!
//! ```text
//!   BEGIN ── begin() ─► Draft ── run() ─► rows, at once; statement and what it showed are kept
//!                         │               (64 MB of pages of its own, nothing shared, no lock)
//!   COMMIT ─ finish() ─► statements, `begun`, `seen`, numbers drawn ─► a transaction as any
//! ```
//! The file behind a draft's connection is [`pages`]: nothing that is written there is ever seen by
//! anybody else. Statements run through the same `engine` as at apply, with the same functions,
//! limits and seeds, so what is shown here comes out the same there if nothing else has changed.
//!
//! Connections are kept from draft to draft with their prepared statements: opening one costs some
//! hundred microseconds, beginning a draft on a kept one some ten.

mod foresee;
mod pages;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rota_core::block::Block;
use rota_core::codec::encode;
use rota_core::error::{Fault, Refusal, sqlstate};
use rota_core::genesis::{Genesis, Parameters};
use rota_core::time::Time;
use rota_core::transaction::{Interactive, Settings, Statement};
use rota_core::types::{ChainId, Height, TransactionId};
use rusqlite::Connection;

use crate::access::{self, View};
use crate::catalog;
use crate::determinism::{self, Context, Watch};
use crate::engine::{Budget, Engine, MAX_SHOWN_BYTES, Running, is_schema_change, read_only};
use crate::error::Trouble;
use crate::query::{self, Description};
use crate::savepoints::{Savepoints, Step};
use crate::schema::Schema;
use crate::seen::Seen;
use crate::sequences::{Drawing, Ranges, Source};
use crate::sql::{self, Access};
use crate::sqlite::Database;
use crate::value::{Rows, StatementKind, StatementResult};
use pages::{Base, Bases, OwnPages};

/// How many drafts there may be at once: each holds some MB, and the log of `state.db` cannot be
/// shortened behind the oldest.
pub const MOST_DRAFTS: usize = 256;

/// Connections that are kept for the next drafts.
const IDLE_DRAFTS: usize = 64;

/// Prepared statements kept per connection: the forms that an application uses.
const CACHED_STATEMENTS: usize = 128;

/// From so many pages on, the log of `state.db` is to be copied and begun anew, 64 MB; ...
const LONG_LOG: u64 = 16_384;

/// ... with so many, 512 MB, the drafts that keep it from that are given up.
const LONGEST_LOG: u64 = 131_072;

/// How long drafts that would begin wait for those that are there to end, so that the log can begin
/// anew. Most transactions take less.
const PAUSE: Duration = Duration::from_millis(100);

/// The most bytes of statements and parameters that one transaction may have.
const MOST_STATEMENT_BYTES: usize = 64 << 20;

/// The most that all open transactions together may have.
const MOST_HELD_BYTES: usize = 512 << 20;

/// The most numbers of sequences that a transaction carries: with less than 3 MB they fit in an
/// envelope, which cannot be in parts.
const MOST_VALUES: usize = 300_000;

/// Transactions with more bytes of statements than this take a while to end.
const LARGE: usize = 256 << 10;

/// What each statement costs beside its own bytes.
const STATEMENT_OVERHEAD: usize = 64;

/// A server's drafts.
pub struct Drafts {
    home: PathBuf,
    chain: ChainId,
    parameters: Parameters,
    bases: Arc<Bases>,
    /// Bases that may still be in use, the newest last.
    open: Mutex<Vec<Weak<Base>>>,
    pause: Mutex<Pause>,
    idle: Mutex<Vec<Session>>,
    count: AtomicUsize,
    /// Bytes of statements that all drafts together hold.
    held: AtomicUsize,
    ranges: Arc<Ranges>,
    access: View,
}

/// When drafts wait for others to end.
#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    /// The length of the log at which there is the next pause; 0: [`LONG_LOG`].
    next: u64,
}

/// A connection that drafts use, one after the other.
struct Session {
    engine: Engine,
    pages: Arc<Mutex<OwnPages>>,
}

/// How a draft begins.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The transaction that it will be; `random()` depends on it.
    pub id: TransactionId,
    /// In whose name.
    pub user: String,
    /// The time of BEGIN: `now()`.
    pub begun: Time,
    /// What the statements' meaning depends on.
    pub settings: Settings,
    /// Whether writes are refused (25006).
    pub read_only: bool,
    /// The state that it sees has this height at least, if this server has it.
    pub at_least: Height,
    /// Blocks after that state, not final yet, which it sees too.
    pub unfinal: Vec<Arc<Block>>,
}

/// How long a statement may run.
#[derive(Clone, Debug, Default)]
pub struct Until {
    /// When to stop (57014).
    pub deadline: Option<Instant>,
    /// Or as soon as this is set.
    pub cancelled: Arc<AtomicBool>,
}

/// An interactive transaction's private copy of the database. Dropped, it leaves nothing.
pub struct Draft {
    drafts: Arc<Drafts>,
    /// Present until it is dropped.
    session: Option<Session>,
    begin: Begin,
    height: Height,
    /// Users and grants as it began.
    access: Arc<access::Access>,
    budget: Budget,
    shown_bytes: u64,
    statements: Vec<Statement>,
    statement_bytes: usize,
    seen: Seen,
    savepoints: Savepoints,
    wrote: bool,
    /// Whether the last statement was stopped by the clock or by its client.
    called_off: bool,
    broken: Option<Refusal>,
}

/// Why a statement has no result.
#[derive(Debug)]
pub enum Stop {
    /// It failed; the client hears why. Only ROLLBACK TO may follow.
    Refused(Refusal),
    /// It needs more numbers of a sequence: reserve them, then run it again.
    Numbers(Box<Wanted>),
}

/// A statement that could not be run for lack of numbers.
#[derive(Debug)]
pub struct Wanted {
    /// The sequence.
    pub name: String,
    /// How many it has had; it needs more.
    pub had: usize,
    /// The statement, to be run again.
    pub statement: Statement,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a draft has become.
#[derive(Debug)]
pub struct Finished {
    /// All that was run, failed and rolled back included.
    pub statements: Vec<Statement>,
    /// What it was shown.
    pub interactive: Interactive,
}

impl Drafts {
    /// For the server whose files are in `home`, and whose users and grants `access` shows.
    pub fn new(home: &Path, genesis: &Genesis, access: View) -> Arc<Self> {
        Arc::new(Self {
            home: home.into(),
            chain: genesis.chain_id(),
            parameters: genesis.parameters.clone(),
            bases: Bases::new(home),
            open: Mutex::default(),
            pause: Mutex::default(),
            idle: Mutex::default(),
            count: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            ranges: Arc::default(),
            access,
        })
    }

    /// Numbers of sequences that this server has reserved.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Begins a draft of the newest state. 53000: there are too many.
    pub fn begin(self: &Arc<Self>, begin: Begin) -> Result<Draft, Refusal> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= MOST_DRAFTS {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let message = "this server has too many transactions open: try again";
            return Err(Refusal::new(sqlstate::BUSY, message));
        }
        let budget = Budget::of_block(&self.parameters);
        let mut draft = Draft {
            drafts: Arc::clone(self),
            session: None,
            height: Height::default(),
            access: Arc::default(),
            budget: Budget::of_transaction(&self.parameters, &budget),
            shown_bytes: MAX_SHOWN_BYTES,
            statements: Vec::new(),
            statement_bytes: 0,
            seen: Seen::default(),
            savepoints: Savepoints::default(),
            wrote: false,
            called_off: false,
            broken: None,
            begin,
        };
        draft.open().map_err(internal)?;
        Ok(draft)
    }

    /// The newest state's pages: shared by all drafts that begin at one height.
    fn base(&self, at_least: Height) -> Result<Arc<Base>, Fault> {
        let mut open = lock(&self.open);
        let newest = open.last().and_then(Weak::upgrade);
        if let Some(base) = newest.filter(|base| base.height >= at_least) {
            return Ok(base);
        }
        let base = self.bases.newest()?;
        open.retain(|base| base.strong_count() > 0);
        open.push(Arc::downgrade(&base));
        Ok(base)
    }

    /// The home that they read.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The executor tells how long the log of `state.db` is. Whether it should try to have it begin
    /// anew.
    pub fn log_is(&self, pages: u64) -> bool {
        let mut pause = lock(&self.pause);
        if pages < LONG_LOG {
            *pause = Pause::default();
            return false;
        }
        if pages >= pause.next {
            *pause = Pause { until: Some(Instant::now() + PAUSE), next: pages + pages / 4 };
        }
        if pages >= LONGEST_LOG {
            for base in lock(&self.open).drain(..).filter_map(|base| base.upgrade()) {
                base.give_up();
            }
        }
        pause.until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether a draft should wait a moment before it begins.
    pub fn is_paused(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && lock(&self.pause).until.is_some_and(|until| Instant::now() < until)
    }

    fn session(&self) -> Result<Session, Fault> {
        if let Some(session) = lock(&self.idle).pop() {
            return Ok(session);
        }
        let fault = |error| Fault::storage("opening a draft", error);
        let pages = Arc::new(Mutex::new(OwnPages::default()));
        // Something to read while the connection is prepared.
        lock(&pages).begin(self.base(Height::default())?);
        let mut database = Database::over(Arc::clone(&pages) as _).map_err(fault)?;
        let context = Arc::new(Context::default());
        query::prepare_draft(database.connection(), &self.home, &context.caller).map_err(fault)?;
        determinism::prepare_draft(&mut database, &context).map_err(fault)?;
        database.connection().set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        Ok(Session { engine: Engine::new(database, context), pages })
    }
}

impl Session {
    /// Does something of our own.
    fn ours(&self, sql: &str) -> Result<(), Fault> {
        self.engine.context.trust();
        let run = self.engine.database.connection().prepare_cached(sql);
        let run = run.and_then(|mut statement| statement.execute([]));
        run.map(drop).map_err(|error| Fault::storage(format!("on a draft: {sql}"), error))
    }

    /// Whether the transaction that everything runs in has ended in spite of everything.
    fn is_lost(&self) -> bool {
        self.engine.database.connection().is_autocommit()
    }
}

impl Draft {
    /// The height of the state that it began from.
    pub fn height(&self) -> Height {
        self.height
    }

    /// Whether ending it takes milliseconds.
    pub fn is_large(&self) -> bool {
        self.statement_bytes > LARGE
    }

    /// Whether there is anything to send.
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    fn open(&mut self) -> Result<(), Fault> {
        let base = self.drafts.base(self.begin.at_least)?;
        self.height = base.height;
        let mut session = self.drafts.session()?;
        lock(&session.pages).begin(Arc::clone(&base));
        session.ours("BEGIN")?;
        self.access = self.drafts.access.current();
        session.engine.access = Arc::clone(&self.access);
        for block in std::mem::take(&mut self.begin.unfinal) {
            if block.header.height > base.height {
                let drafts = &self.drafts;
                if !session.foresee(&block, drafts.chain, &drafts.parameters)? {
                    break;
                }
            }
        }
        self.access = Arc::clone(&session.engine.access);
        if !self.begin.read_only {
            session.pay_least(&self.begin.user)?;
        }
        session.engine.begin_transaction();
        session.engine.set_time(self.begin.begun);
        let drawing = Drawing::new(Arc::clone(&self.drafts.ranges), base);
        session.engine.context.sequences().source = Source::Draft(drawing);
        self.session = Some(session);
        Ok(())
    }

    /// Runs a statement; savepoints are statements too. It becomes part of what is sent, whether it
    /// succeeds or not.
    pub fn run(&mut self, statement: Statement, until: &Until) -> Result<StatementResult, Stop> {
        let classified = sql::classify(&statement.sql);
        let bytes = STATEMENT_OVERHEAD + encode(&statement).len();
        self.check(bytes, classified.access)?;
        let before = (self.budget, self.shown_bytes);
        let result = match self.run_next(&statement, classified.kind, until) {
            Ok(result) => Ok(result),
            Err(Trouble::Fault(_)) if self.base_is_gone() => {
                return Err(self.lose(too_old()).into());
            }
            Err(Trouble::Fault(_)) if self.is_full() => {
                return Err(self.lose(too_large()).into());
            }
            Err(Trouble::Fault(fault)) => return Err(self.lose(internal(fault)).into()),
            Err(Trouble::Refusal(refusal)) => Err(refusal),
        };
        if let Err(refusal) = &result {
            let lost = self.session.as_ref().is_none_or(Session::is_lost);
            if let Some((name, had)) = self.lacks_numbers() {
                (self.budget, self.shown_bytes) = before;
                return Err(Stop::Numbers(Box::new(Wanted { name, had, statement })));
            }
            if self.called_off {
                self.forget_numbers();
                // Time is nothing that another server could repeat.
                let refusal = cancelled();
                return Err(if lost { self.lose(refusal) } else { refusal }.into());
            }
            if lost {
                return Err(self.lose(refusal.clone()).into());
            }
        }
        self.wrote |= classified.access == Access::Write;
        self.statement_bytes = self.statement_bytes.saturating_add(bytes);
        self.drafts.held.fetch_add(bytes, Ordering::Relaxed);
        self.statements.push(statement);
        self.seen.add(&result);
        Ok(result?)
    }

    /// What is refused before it is run, and is no part of what is sent.
    fn check(&self, bytes: usize, access: Access) -> Result<(), Refusal> {
        if let Some(refusal) = &self.broken {
            return Err(refusal.clone());
        }
        if access == Access::Write && self.begin.read_only {
            return Err(read_only());
        }
        let most = MOST_STATEMENT_BYTES;
        if self.statement_bytes.saturating_add(bytes) > most {
            let message = format!("a transaction of more than {most} bytes; use several");
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
        }
        if self.drafts.held.load(Ordering::Relaxed) > MOST_HELD_BYTES {
            let message = "this server's open transactions are too large together: try again";
            return Err(Refusal::new(sqlstate::BUSY, message));
        }
        Ok(())
    }

    fn run_next(
        &mut self,
        statement: &Statement,
        kind: StatementKind,
        until: &Until,
    ) -> Result<StatementResult, Trouble> {
        let Some(session) = &mut self.session else { return Err(gone().into()) };
        self.called_off = false;
        if Savepoints::concerns(kind) {
            let step = self.savepoints.step(&statement.sql, kind)?;
            session.ours(&step.sql())?;
            if matches!(step, Step::Back(_)) {
                session.engine.forget_statements();
                if !Arc::ptr_eq(&session.engine.access, &self.access) {
                    session.engine.read_access()?;
                }
            }
            return Ok(StatementResult::nothing(kind));
        }
        let context = Arc::clone(&session.engine.context);
        let number = u32::try_from(self.statements.len()).unwrap_or(u32::MAX);
        context.begin_statement(self.begin.id, number);
        if let Some(drawing) = context.sequences().drawing() {
            drawing.begin();
        }
        context.watch(Some(until.into()));
        let settings = &self.begin.settings;
        let (id, budget) = (self.begin.id, self.budget);
        let (result_bytes, read_only) = (self.shown_bytes, self.begin.read_only);
        let (user, wrote) = (self.begin.user.as_str(), false);
        let own_key = session.engine.access.signs_itself(user);
        let mut running =
            Running { id, user, own_key, settings, budget, result_bytes, read_only, wrote };
        let result = session.engine.statement(statement, &mut running);
        self.called_off = result.is_err() && context.is_called_off();
        // What was called off is not sent.
        self.wrote |= running.wrote && !self.called_off;
        context.watch(None);
        (self.budget, self.shown_bytes) = (running.budget, running.result_bytes);
        let result = result?;
        if is_schema_change(result.kind) {
            context.trust();
            let connection = session.engine.database.connection();
            let fault = |error| Fault::storage("reading a draft's schema", error);
            Schema::read(connection, |_, _| 0).map_err(fault)?.check(connection)?;
        }
        Ok(result)
    }

    fn base_is_gone(&self) -> bool {
        self.session.as_ref().is_none_or(|session| lock(&session.pages).base_is_gone())
    }

    fn is_full(&self) -> bool {
        self.session.as_ref().is_some_and(|session| lock(&session.pages).is_full())
    }

    /// The sequence of which the statement wanted more numbers, and how many it had.
    fn lacks_numbers(&self) -> Option<(String, usize)> {
        let mut sequences = self.session.as_ref()?.engine.context.sequences();
        let drawing = sequences.drawing()?;
        let name = drawing.wanted.take()?;
        Some((name, drawing.put_back()))
    }

    /// What the last statement drew is drawn again by the next one: it is no part of what is sent.
    fn forget_numbers(&self) {
        let Some(session) = &self.session else { return };
        if let Some(drawing) = session.engine.context.sequences().drawing() {
            drawing.put_back();
        }
    }

    /// From now on everything is refused.
    fn lose(&mut self, refusal: Refusal) -> Refusal {
        self.broken = Some(Refusal::new(
            "25P02",
            "the transaction was rolled back when its last statement was stopped: begin again",
        ));
        refusal
    }

    /// Runs a read about the schema, which another server may answer differently: it is no part of
    /// what is sent, and may not be about the users' rows.
    pub fn look(&mut self, statement: &Statement, until: &Until) -> Result<Rows, Refusal> {
        self.fill_catalog(&statement.sql, until)?;
        self.aside(until, |connection| query::look(connection, statement))
    }

    /// What a statement takes and gives, in the schema as it is here.
    pub fn describe(&mut self, sql: &str, until: &Until) -> Result<Description, Refusal> {
        self.fill_catalog(sql, until)?;
        self.aside(until, |connection| query::describe_on(connection, sql))
    }

    /// Makes the catalog tell of the schema as it is here, if the statement mentions it.
    fn fill_catalog(&mut self, sql: &str, until: &Until) -> Result<(), Refusal> {
        if let Some(session) = &self.session {
            session.engine.context.caller.set(&self.begin.user, &session.engine.access)?;
        }
        let is_wanted = self.broken.is_none() && catalog::is_mentioned(sql);
        let Some(session) = self.session.as_ref().filter(|_| is_wanted) else { return Ok(()) };
        let context = &session.engine.context;
        context.trust();
        context.watch(Some(until.into()));
        let filled = query::fill_draft(session.engine.database.connection(), &context.caller);
        let called_off = context.is_called_off();
        context.watch(None);
        let is_lost = session.is_lost();
        filled.map_err(|refusal| {
            let refusal = if called_off { cancelled() } else { refusal };
            if is_lost { self.lose(refusal) } else { refusal }
        })
    }

    fn aside<T>(
        &mut self,
        until: &Until,
        run: impl FnOnce(&Connection) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Some(refusal) = &self.broken {
            return Err(refusal.clone());
        }
        let session = self.session.as_ref().ok_or_else(gone)?;
        let context = &session.engine.context;
        context.look();
        context.watch(Some(until.into()));
        let result = run(session.engine.database.connection());
        let called_off = context.is_called_off();
        context.watch(None);
        context.trust();
        match result {
            Err(_) if called_off => Err(cancelled()),
            Err(refusal) => Err(context.take_denied().unwrap_or(refusal)),
            Ok(answer) => Ok(answer),
        }
    }

    /// What is to be sent; nothing if nothing was written.
    pub fn finish(mut self) -> Result<Option<Finished>, Refusal> {
        if let Some(refusal) = &self.broken {
            return Err(refusal.clone());
        }
        if !self.wrote {
            return Ok(None);
        }
        let session = self.session.as_ref().ok_or_else(gone)?;
        let values = match session.engine.context.sequences().drawing() {
            Some(drawing) => std::mem::take(&mut drawing.drawn),
            None => Vec::new(),
        };
        if values.len() > MOST_VALUES {
            let message =
                format!("a transaction that draws more than {MOST_VALUES} numbers from sequences");
            return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
        }
        let seen = std::mem::take(&mut self.seen).digest();
        let interactive = Interactive { begun: self.begin.begun, seen, values };
        Ok(Some(Finished { statements: std::mem::take(&mut self.statements), interactive }))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.drafts.count.fetch_sub(1, Ordering::Relaxed);
        self.drafts.held.fetch_sub(self.statement_bytes, Ordering::Relaxed);
        let Some(session) = self.session.take() else { return };
        session.engine.context.watch(None);
        session.engine.context.sequences().source = Source::Nothing;
        let kept = session.is_lost() || session.ours("ROLLBACK").is_ok();
        lock(&session.pages).end();
        let mut idle = lock(&self.drafts.idle);
        if kept && idle.len() < IDLE_DRAFTS {
            idle.push(session);
        }
    }
}

impl From<&Until> for Watch {
    fn from(until: &Until) -> Self {
        Self { deadline: until.deadline, cancelled: Arc::clone(&until.cancelled) }
    }
}

fn cancelled() -> Refusal {
    Refusal::new(sqlstate::QUERY_CANCELED, "the statement was cancelled, or took too long")
}

fn too_large() -> Refusal {
    let message = "the transaction changes more than 64 MB of pages: use several";
    Refusal::new(sqlstate::TOO_COMPLEX, message)
}

fn too_old() -> Refusal {
    Refusal::new(
        sqlstate::SERIALIZATION_FAILURE,
        "the transaction was open for too long while much was written: try again",
    )
}

fn gone() -> Refusal {
    Refusal::new(sqlstate::INTERNAL, "this draft has ended")
}

fn internal(fault: Fault) -> Refusal {
    Refusal::new(sqlstate::INTERNAL, fault.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
