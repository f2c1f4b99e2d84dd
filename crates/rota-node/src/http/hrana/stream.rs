//! One stream of Hrana's: what SQLite would call a connection. Steps 1 and 9 of a transaction's
//! life.
//!
//! ```text
//!  request ─ prepare() ─► run() ─┬─► BEGIN, COMMIT, SAVEPOINT, …   the stream's own
//!                                ├─► in a transaction ──► Transaction::attempt
//!                                └─► alone: read ───────► Driver::read
//!                                           write ──────► Driver::write
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Settings, Statement};
use rota_store::sql::{Access, classify, split};
use rota_store::{Rows, StatementKind, StatementResult};

use super::answers::{Answered, Done, Response};
use super::failure::Failure;
use super::keys;
use super::requests::{Request, Sql, Stmt};
use super::streams::{Limits, Place, Text, Waits};
use super::words;
use super::{describe, steps};
use crate::driver::{
    BeginOptions, Cancel, Driver, ReadOptions, RunOptions, Transaction, WriteOptions,
};

/// How many texts a stream keeps. libSQL's own client asks for 30.
const TEXTS: usize = 50;

/// How long one of them is: libSQL's own client sends longer ones anew each time.
const TEXT_BYTES: usize = 8 << 10;

/// About how many bytes of rows one request is answered with: they are all in memory at once, more
/// than one time. More of them come in several requests.
const ANSWER_BYTES: usize = 64 << 20;

/// A stream.
pub(crate) struct Stream {
    pub(super) driver: Driver,
    pub(super) user: Arc<str>,
    limits: Arc<Limits>,
    texts: HashMap<i32, Text>,
    open: Option<Open>,
    /// After PRAGMA foreign_keys = off.
    keys_off: bool,
    is_closed: bool,
    /// How many bytes of rows the request may still be answered with.
    room: usize,
    cancel: Cancel,
}

/// The transaction that a stream is in.
struct Open {
    transaction: Transaction,
    /// The savepoints of its client, by their names in lower case, the oldest first.
    savepoints: Vec<String>,
    /// It began with a SAVEPOINT outside of any transaction, and ends with its RELEASE.
    is_by_savepoint: bool,
    _place: Place,
}

/// A statement that can be run.
pub(crate) struct Prepared {
    pub(super) statement: Statement,
    pub(super) kind: StatementKind,
    pub(super) access: Access,
    wants_rows: bool,
}

impl Drop for Stream {
    /// Its client has gone: what runs for it need not go on.
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Waits for Stream {
    fn is_in_transaction(&self) -> bool {
        self.open.is_some()
    }
}

impl Prepared {
    /// A statement by its text alone.
    pub(crate) fn of(sql: String) -> Result<Self, Failure> {
        Self::new(&sql, Parameters::Positional(Vec::new()), true)
    }

    fn new(sql: &str, parameters: Parameters, wants_rows: bool) -> Result<Self, Failure> {
        let sql = match split(sql).as_slice() {
            [sql] => (*sql).to_owned(),
            [] => return Err(Failure::new("SQL_NO_STATEMENT", "no statement in the SQL text")),
            _ => {
                let message = "more than one statement in the SQL text: use sequence or batch";
                return Err(Failure::new("SQL_MANY_STATEMENTS", message));
            }
        };
        let found = classify(&sql);
        let statement = Statement { sql, parameters };
        Ok(Self { statement, kind: found.kind, access: found.access, wants_rows })
    }

    /// Whether this BEGIN is of a transaction that only reads.
    pub(crate) fn only_reads(&self) -> bool {
        words::has(&self.statement.sql, "READONLY")
    }
}

impl Stream {
    pub(crate) fn new(driver: Driver, user: Arc<str>, limits: Arc<Limits>) -> Self {
        Self {
            driver,
            user,
            limits,
            texts: HashMap::new(),
            open: None,
            keys_off: false,
            is_closed: false,
            room: ANSWER_BYTES,
            cancel: Cancel::default(),
        }
    }

    /// Before the first request of several that are answered together.
    pub(crate) fn begin_answer(&mut self) {
        self.room = ANSWER_BYTES;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(crate) fn is_autocommit(&self) -> bool {
        self.open.is_none()
    }

    /// Does what a request asks for.
    pub(crate) async fn answer(&mut self, request: Request) -> Answered {
        match self.try_answer(request).await {
            Ok(response) => Answered::Ok { response },
            Err(error) => Answered::Error { error },
        }
    }

    async fn try_answer(&mut self, request: Request) -> Result<Response, Failure> {
        if self.is_closed {
            return Err(Failure::new("STREAM_CLOSED", "this stream was closed"));
        }
        Ok(match request {
            Request::Close => {
                self.open = None;
                self.texts.clear();
                self.is_closed = true;
                Response::Close
            }
            Request::Execute { stmt } => {
                let prepared = self.prepare(stmt)?;
                Response::Execute { result: self.run(prepared).await? }
            }
            Request::Batch { batch } => {
                Response::Batch { result: steps::run(self, batch.steps).await? }
            }
            Request::Sequence(sql) => {
                let text = self.text(&sql)?.to_owned();
                steps::sequence(self, &text).await?;
                Response::Sequence
            }
            Request::Describe(sql) => {
                let text = self.text(&sql)?.to_owned();
                Response::Describe { result: describe::describe(self, text).await? }
            }
            Request::StoreSql { sql_id, sql } => {
                self.store(sql_id, sql)?;
                Response::StoreSql
            }
            Request::CloseSql { sql_id } => {
                self.texts.remove(&sql_id);
                Response::CloseSql
            }
            Request::GetAutocommit => {
                Response::GetAutocommit { is_autocommit: self.is_autocommit() }
            }
        })
    }

    fn store(&mut self, sql_id: i32, sql: String) -> Result<(), Failure> {
        if self.texts.contains_key(&sql_id) {
            let message = format!("there is an SQL text {sql_id} already");
            return Err(Failure::new("SQL_EXISTS", message));
        }
        if self.texts.len() >= TEXTS {
            let message = format!("a stream keeps {TEXTS} SQL texts: close some");
            return Err(Failure::new("SQL_STORE_TOO_MANY", message));
        }
        if sql.len() > TEXT_BYTES {
            let message = format!("an SQL text of more than {TEXT_BYTES} bytes is not kept");
            return Err(Failure::new("SQL_STORE_TOO_LARGE", message));
        }
        let text = self.limits.text(sql)?;
        self.texts.insert(sql_id, text);
        Ok(())
    }

    fn text<'a>(&'a self, sql: &'a Sql) -> Result<&'a str, Failure> {
        let invalid = |message: &str| Failure::new("SQL_INVALID", message);
        match (&sql.sql, sql.sql_id) {
            (Some(text), None) => Ok(text),
            (None, Some(id)) => match self.texts.get(&id) {
                Some(text) => Ok(&text.sql),
                None => Err(Failure::new("SQL_NOT_FOUND", format!("there is no SQL text {id}"))),
            },
            (None, None) => Err(invalid("neither sql nor sql_id")),
            (Some(_), Some(_)) => Err(invalid("sql and sql_id at once")),
        }
    }

    /// Makes a statement ready to be run.
    pub(crate) fn prepare(&self, mut stmt: Stmt) -> Result<Prepared, Failure> {
        let parameters = stmt.parameters()?;
        let wants_rows = stmt.want_rows.unwrap_or(true);
        let sql = Sql { sql: stmt.sql.take(), sql_id: stmt.sql_id };
        Prepared::new(self.text(&sql)?, parameters, wants_rows)
    }

    /// Runs a statement.
    pub(crate) async fn run(&mut self, prepared: Prepared) -> Result<Done, Failure> {
        if self.room == 0 {
            return Err(too_large());
        }
        let began = Instant::now();
        let (wants_rows, access) = (prepared.wants_rows, prepared.access);
        let ran = match self.dispatch(prepared).await {
            Err(failure) if failure.is(sqlstate::UNIQUE_VIOLATION) => {
                Err(keys::named(self, failure).await)
            }
            ran => ran,
        };
        let done = self.done(ran?, wants_rows, began);
        match self.room.checked_sub(done.bytes()) {
            Some(room) => self.room = room,
            None if access == Access::Read => return Err(too_large()),
            // What was written is told in any case, and nothing after it.
            None => self.room = 0,
        }
        Ok(done)
    }

    fn done(&self, mut result: StatementResult, wants_rows: bool, began: Instant) -> Done {
        if !wants_rows {
            result.rows.rows.clear();
        }
        Done { result, took: began.elapsed() }
    }

    async fn dispatch(&mut self, prepared: Prepared) -> Result<StatementResult, Failure> {
        let (kind, sql) = (prepared.kind, prepared.statement.sql.as_str());
        match kind {
            StatementKind::Begin => self.begin(&prepared)?,
            StatementKind::Commit => self.commit().await?,
            StatementKind::Rollback => {
                self.open.take().ok_or_else(|| outside("rollback"))?;
            }
            StatementKind::Savepoint | StatementKind::Release | StatementKind::RollbackTo => {
                self.savepoint(kind, sql).await?;
            }
            StatementKind::Pragma if keys::is_meant(sql) => return self.foreign_keys(sql),
            _ if prepared.access == Access::Session => {
                let message = "SET, SHOW and the like are PostgreSQL's: not over Hrana";
                return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
            }
            _ => return self.statement(prepared).await,
        }
        Ok(StatementResult::nothing(kind))
    }

    fn begin(&mut self, prepared: &Prepared) -> Result<(), Failure> {
        if self.open.is_some() {
            let message = "cannot start a transaction within a transaction";
            return Err(Refusal::new("25001", message).into());
        }
        words::check_begin(&prepared.statement.sql)?;
        self.open(prepared.only_reads(), false)
    }

    fn open(&mut self, read_only: bool, is_by_savepoint: bool) -> Result<(), Failure> {
        let place = self.limits.begin(&self.user)?;
        let options = BeginOptions { read_only, ..BeginOptions::default() };
        let transaction = self.driver.begin(&self.user, settings(), options)?;
        let savepoints = Vec::new();
        self.open = Some(Open { transaction, savepoints, is_by_savepoint, _place: place });
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let open = self.open.take().ok_or_else(|| outside("commit"))?;
        open.transaction.commit(&WriteOptions::default()).await?;
        Ok(())
    }

    /// SAVEPOINT, RELEASE and ROLLBACK TO, with SQLite's names: letters are the same in both cases.
    async fn savepoint(&mut self, kind: StatementKind, sql: &str) -> Result<(), Failure> {
        let name = words::savepoint(sql)?;
        if kind == StatementKind::Savepoint && self.open.is_none() {
            self.open(false, true)?;
        }
        let options = self.run_options();
        let absent = || Refusal::new("3B001", format!("no such savepoint: {name}"));
        let open = self.open.as_mut().ok_or_else(absent)?;
        if kind == StatementKind::Savepoint {
            let sql = format!("SAVEPOINT s{}", open.savepoints.len());
            open.transaction.run(plain(sql), &options).await?;
            open.savepoints.push(name);
            return Ok(());
        }
        let place = open.savepoints.iter().rposition(|open| *open == name).ok_or_else(absent)?;
        if kind == StatementKind::RollbackTo {
            open.transaction.run(plain(format!("ROLLBACK TO s{place}")), &options).await?;
            open.savepoints.truncate(place.saturating_add(1));
            return Ok(());
        }
        open.transaction.run(plain(format!("RELEASE s{place}")), &options).await?;
        open.savepoints.truncate(place);
        if open.savepoints.is_empty() && open.is_by_savepoint {
            self.commit().await?;
        }
        Ok(())
    }

    /// PRAGMA foreign_keys.
    fn foreign_keys(&mut self, sql: &str) -> Result<StatementResult, Failure> {
        match keys::wanted(sql)? {
            None => return Ok(keys::state(!self.keys_off)),
            // As in SQLite, it means nothing inside of a transaction.
            Some(_) if self.open.is_some() => {}
            Some(is_on) => self.keys_off = !is_on,
        }
        Ok(StatementResult::nothing(StatementKind::Pragma))
    }

    /// A statement of SQLite's.
    async fn statement(&mut self, prepared: Prepared) -> Result<StatementResult, Failure> {
        if self.keys_off {
            keys::refuse_cascade(self, &prepared).await?;
        }
        let Prepared { statement, kind, access, .. } = prepared;
        let run = self.run_options();
        let inserts = kind == StatementKind::Insert && self.open.is_some();
        let shows_rowid = inserts && keys::shows_rowid(self, &statement.sql).await;
        if let Some(open) = &mut self.open {
            let mut result = open.transaction.attempt(statement, shows_rowid, &run).await?;
            if !shows_rowid {
                result.last_insert_rowid = 0;
            }
            return Ok(result);
        }
        if access == Access::Read {
            let rows = self.read(statement).await?;
            return Ok(StatementResult { rows, ..StatementResult::nothing(kind) });
        }
        if kind == StatementKind::Other {
            // Words that nobody knows shall not cost every server a transaction.
            self.driver.describe(&self.user, statement.sql.clone(), settings()).await?;
        }
        let options = WriteOptions::default();
        let written = self.driver.write(&self.user, vec![statement], settings(), &options).await?;
        let result = written.results.into_iter().next();
        Ok(result.unwrap_or_else(|| StatementResult::nothing(kind)))
    }

    /// Sends statements as one transaction. `None`: it failed and changed nothing, and which of
    /// them it was is found by running them one by one.
    pub(crate) async fn together(
        &mut self,
        prepared: Vec<&Prepared>,
    ) -> Option<Result<Vec<Done>, Failure>> {
        let may_cascade = |prepared: &&Prepared| keys::may_cascade(prepared.kind);
        if self.room == 0 || (self.keys_off && prepared.iter().any(may_cascade)) {
            return None;
        }
        let began = Instant::now();
        let statements = prepared.iter().map(|prepared| prepared.statement.clone()).collect();
        let options = WriteOptions::default();
        let written = self.driver.write(&self.user, statements, settings(), &options).await;
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                let found_out = [
                    sqlstate::BUSY,
                    sqlstate::CANNOT_CONNECT_NOW,
                    sqlstate::OUTCOME_UNKNOWN,
                    sqlstate::INTERNAL,
                ];
                let says_all = found_out.contains(&error.refusal.code());
                return says_all.then(|| Err(error.into()));
            }
        };
        let results = written.results.into_iter().zip(&prepared);
        let done: Vec<Done> =
            results.map(|(result, of)| self.done(result, of.wants_rows, began)).collect();
        let bytes = done.iter().fold(0usize, |sum, done| sum.saturating_add(done.bytes()));
        self.room = self.room.saturating_sub(bytes);
        Some(Ok(done))
    }

    /// A read outside of any transaction.
    pub(super) async fn read(&mut self, statement: Statement) -> Result<Rows, Refusal> {
        let options = ReadOptions { cancel: self.cancel.clone(), ..ReadOptions::default() };
        self.driver.read(&self.user, statement, settings(), &options).await
    }

    /// A read about the schema, as the stream sees it now.
    pub(super) async fn look(&mut self, statement: Statement) -> Result<Rows, Refusal> {
        let options = self.run_options();
        match &mut self.open {
            Some(open) => open.transaction.look(statement, &options).await,
            None => self.read(statement).await,
        }
    }

    /// The transaction that the stream is in.
    pub(super) fn transaction(&mut self) -> Option<&mut Transaction> {
        self.open.as_mut().map(|open| &mut open.transaction)
    }

    fn run_options(&self) -> RunOptions {
        RunOptions { deadline: None, cancel: self.cancel.clone() }
    }
}

/// As SQLite has it, and libSQL's clients know it.
pub(super) fn settings() -> Settings {
    Settings { double_quoted_strings: true, ..Settings::default() }
}

/// A statement without parameters.
fn plain(sql: String) -> Statement {
    Statement { sql, parameters: Parameters::Positional(Vec::new()) }
}

/// COMMIT or ROLLBACK where there is no transaction, in SQLite's words.
fn outside(what: &str) -> Refusal {
    Refusal::new("25P01", format!("cannot {what} - no transaction is active"))
}

fn too_large() -> Failure {
    let message = format!(
        "the answers to one request are more than {} MB: use several requests",
        ANSWER_BYTES >> 20
    );
    Failure::new("RESPONSE_TOO_LARGE", message)
}
