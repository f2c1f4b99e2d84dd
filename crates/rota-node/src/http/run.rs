//! Running what a request to rqlite's data API asks for, and what its results are: steps 1 and 9 of
//! a transaction's life.
//!
//! Every element of a request is a transaction of its own, one after the other, each whatever
//! became of those before; with `?transaction` all are one. Writes that stand next to each other
//! are tried as one first: if all of them work, nobody can tell, but that nothing came in between
//! (which rqlite promises) and that they took one block rather than many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Settings, Statement};
use rota_core::types::{Height, TransactionId};
use rota_store::sql::{Access, Lexer, Token, classify};
use rota_store::{Rows, StatementKind, StatementResult};

use super::answer::{Answer, Outcome};
use super::asked::Asked;
use super::hrana::keys;
use super::levels::{Freshness, Levels};
use crate::driver::{
    BeginOptions, Driver, ReadOptions, RunOptions, Wait, WriteError, WriteOptions, Written,
};
use crate::status::Depth;

/// Of how many users it is remembered what they last inserted; then all is forgotten.
const MOST_USERS: usize = 1024;

/// How SQLite refuses a statement that ends too early. It used to name the last word, as rqlite's
/// documentation shows, which says more.
const ENDS_EARLY: &str = "incomplete input";

/// Classes of SQLSTATEs of writes that were prepared, and then failed.
const FAILED_WHILE_RUNNING: [&str; 2] = ["22", "23"];

/// What may stand in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `/db/execute`. Reads may stand there, but their rows are not shown.
    Writes,
    /// `/db/query`.
    Reads,
    /// `/db/request`.
    Both,
}

/// Why a request has no results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nothing was done; trying again is right, here or at another server.
    Unavailable(String),
    /// This server's copy is older than the request wants it.
    Stale,
}

/// What every user's writes last inserted and changed. SQLite keeps that of a connection, and
/// rqlite shows it for every statement that writes, whatever that did itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<HashMap<Box<str>, Newest>>>);

#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    rowid: i64,
    changes: u64,
}

impl Memory {
    fn of(&self, user: &str) -> Newest {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(user).copied().unwrap_or_default()
    }

    fn keep(&self, user: &str, newest: Newest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get_mut(user) {
            *kept = newest;
            return;
        }
        if known.len() >= MOST_USERS {
            known.clear();
        }
        known.insert(user.into(), newest);
    }
}

impl Newest {
    fn observe(&mut self, result: &StatementResult) {
        if result.last_insert_rowid != 0 {
            self.rowid = result.last_insert_rowid;
        }
        if is_counted(result.kind) {
            self.changes = result.rows_affected;
        }
    }

    /// A write that began and failed counts nothing.
    fn observe_failure(&mut self, refusal: &Refusal) {
        if FAILED_WHILE_RUNNING.iter().any(|class| refusal.code().starts_with(class)) {
            self.changes = 0;
        }
    }

    fn outcome(self) -> Outcome {
        Outcome::Done { last_insert_id: self.rowid, rows_affected: self.changes }
    }
}

fn is_counted(kind: StatementKind) -> bool {
    matches!(kind, StatementKind::Insert | StatementKind::Update | StatementKind::Delete)
}

/// An element of a request.
enum Unit {
    /// Comments only.
    Empty,
    Refused(Refusal),
    Reads(Vec<Statement>),
    Writes(Vec<Statement>),
    /// A write where only reads may stand.
    Misplaced(Vec<Statement>),
    /// `PRAGMA foreign_keys`, asked for or switched on: they are on always.
    ForeignKeys(Rows),
}

impl Unit {
    fn of(asked: Asked, takes: Takes) -> Self {
        let statements = match asked.statements() {
            Ok(statements) => statements,
            Err(refusal) => return Self::Refused(refusal),
        };
        if let [statement] = statements.as_slice()
            && let Some(unit) = foreign_keys(&statement.sql)
        {
            return unit;
        }
        let mut all = Access::Empty;
        for statement in &statements {
            match classify(&statement.sql).access {
                Access::Session => {
                    let message = "BEGIN, COMMIT, SET and the like have no meaning over HTTP: use \
                                   ?transaction";
                    return Self::Refused(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
                }
                Access::Write => all = Access::Write,
                Access::Read if all == Access::Empty => all = Access::Read,
                Access::Read | Access::Empty => {}
            }
        }
        match all {
            Access::Write if takes == Takes::Reads => Self::Misplaced(statements),
            Access::Write => Self::Writes(statements),
            Access::Read => Self::Reads(statements),
            Access::Empty | Access::Session => Self::Empty,
        }
    }
}

/// One request.
pub(crate) struct Run<'a> {
    driver: &'a Driver,
    user: &'a str,
    takes: Takes,
    levels: Levels,
    deadline: Option<Instant>,
    shows: Shows,
    memory: &'a Memory,
    newest: Newest,
    /// Where the newest write is.
    position: (Option<Height>, Option<TransactionId>),
}

/// What results tell beside what they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shows {
    /// How long each took.
    pub(crate) timings: bool,
    /// Positions and SQLSTATEs.
    pub(crate) more: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        driver: &'a Driver,
        user: &'a str,
        (takes, levels, shows): (Takes, Levels, Shows),
        memory: &'a Memory,
    ) -> Self {
        let (deadline, newest) = (levels.deadline(), memory.of(user));
        let position = (None, None);
        Self { driver, user, takes, levels, deadline, shows, memory, newest, position }
    }

    /// The height and the id of the newest write.
    pub(crate) fn position(&self) -> (Option<Height>, Option<TransactionId>) {
        self.position
    }

    /// Runs all of a request.
    pub(crate) async fn all(
        &mut self,
        asked: Vec<Asked>,
        together: bool,
    ) -> Result<Vec<Answer>, Stopped> {
        let asked = asked.into_iter().filter(|asked| !asked.sql.is_empty());
        let units: Vec<Unit> = asked.map(|asked| Unit::of(asked, self.takes)).collect();
        let reads = units.iter().any(|unit| matches!(unit, Unit::Reads(_)));
        if let Some(Freshness { within, strict }) = self.levels.freshness.filter(|_| reads) {
            self.driver.check_freshness(within, strict).map_err(|_| Stopped::Stale)?;
        }
        let writes = units.iter().any(|unit| matches!(unit, Unit::Writes(_)));
        match (together, writes) {
            (true, true) => self.together(units).await,
            // One read sees one state anyway: clients that always say `transaction` need no draft.
            (true, false) if units.len() > 1 => self.snapshot(units).await,
            (_, _) => self.each(units).await,
        }
    }

    /// Every element for itself.
    async fn each(&mut self, units: Vec<Unit>) -> Result<Vec<Answer>, Stopped> {
        let mut answers = Vec::with_capacity(units.len());
        let mut units = units.into_iter().peekable();
        while let Some(unit) = units.next() {
            if let Unit::Writes(first) = unit {
                let mut group = vec![first];
                while let Some(Unit::Writes(next)) =
                    units.next_if(|next| matches!(next, Unit::Writes(_)))
                {
                    group.push(next);
                }
                self.writes(group, &mut answers).await?;
            } else {
                let answer = self.one(unit, answers.is_empty()).await?;
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// An element that writes nothing.
    async fn one(&self, unit: Unit, is_first: bool) -> Result<Answer, Stopped> {
        let started = Instant::now();
        match unit {
            Unit::Empty => Ok(self.read_answer(Rows::default(), started)),
            Unit::ForeignKeys(rows) => Ok(self.read_answer(rows, started)),
            Unit::Refused(refusal) => Ok(self.failed(&refusal.into(), None)),
            Unit::Misplaced(statements) => Ok(self.misplaced(&statements).await),
            Unit::Reads(statements) | Unit::Writes(statements) => {
                let mut rows = Rows::default();
                for statement in statements {
                    let sql = statement.sql.clone();
                    match self.read(statement).await {
                        Ok(read) => rows = read,
                        Err(refusal) => return self.settle(refusal.into(), Some(&sql), is_first),
                    }
                }
                Ok(self.read_answer(rows, started))
            }
        }
    }

    async fn read(&self, statement: Statement) -> Result<Rows, Refusal> {
        // What this server has acknowledged it has executed: no height to wait for.
        let options = ReadOptions {
            level: self.levels.read,
            deadline: self.deadline,
            ..ReadOptions::default()
        };
        self.driver.read(self.user, statement, settings(), &options).await
    }

    /// What is wrong with a write as SQLite sees it, or that it is a write.
    async fn misplaced(&self, statements: &[Statement]) -> Answer {
        for Statement { sql, .. } in statements {
            let described = self.driver.describe(self.user, sql.clone(), settings()).await;
            if let Err(refusal) = described {
                return self.failed(&refusal.into(), Some(sql));
            }
        }
        let message = "attempt to change database via query operation";
        self.failed(&Refusal::new(sqlstate::READ_ONLY, message).into(), None)
    }

    /// Elements that write, next to each other.
    async fn writes(
        &mut self,
        group: Vec<Vec<Statement>>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Stopped> {
        if group.len() > 1 && self.levels.wait == Wait::Final {
            let started = Instant::now();
            match self.write(group.concat()).await {
                Ok(written) => {
                    let counts = group.iter().map(Vec::len);
                    answers.extend(self.written(written, counts, started));
                    return Ok(());
                }
                Err(error) if is_about_the_server(&error) => {
                    for _ in &group {
                        let answer = self.settle(error.clone(), None, answers.is_empty())?;
                        answers.push(answer);
                    }
                    return Ok(());
                }
                // One of them does not work: which, and what the others do, shows one by one.
                Err(_) => {}
            }
        }
        for statements in group {
            let started = Instant::now();
            let (count, sql) = (statements.len(), statements.last().map(|last| last.sql.clone()));
            match self.write(statements).await {
                Ok(written) => answers.extend(self.written(written, [count], started)),
                Err(error) => {
                    self.newest.observe_failure(&error.refusal);
                    self.memory.keep(self.user, self.newest);
                    let answer = self.settle(error, sql.as_deref(), answers.is_empty())?;
                    answers.push(answer);
                }
            }
        }
        Ok(())
    }

    /// All elements as one transaction, or none.
    async fn together(&mut self, units: Vec<Unit>) -> Result<Vec<Answer>, Stopped> {
        let started = Instant::now();
        let (mut elements, mut refused) = (Vec::with_capacity(units.len()), None);
        for unit in units {
            match unit {
                Unit::Reads(statements) | Unit::Writes(statements) => elements.push(statements),
                Unit::Empty | Unit::Misplaced(_) | Unit::ForeignKeys(_) => {
                    elements.push(Vec::new());
                }
                Unit::Refused(refusal) => {
                    refused = Some(WriteError::from(refusal));
                    break;
                }
            }
        }
        if let Some(error) = refused {
            return Ok(self.rolled_back(elements, error).await);
        }
        match self.write(elements.concat()).await {
            Ok(written) => Ok(self.written(written, elements.iter().map(Vec::len), started)),
            Err(error) if is_about_the_server(&error) => Ok(vec![self.settle(error, None, true)?]),
            Err(error) => Ok(self.rolled_back(elements, error).await),
        }
    }

    /// The results up to the one that failed, which rqlite shows too: nothing is kept of them, so
    /// they are found out once more, on a draft.
    async fn rolled_back(&self, elements: Vec<Vec<Statement>>, error: WriteError) -> Vec<Answer> {
        let mut answers = Vec::new();
        let begun = self.driver.begin(self.user, settings(), BeginOptions::default());
        let Ok(mut draft) = begun else { return vec![self.failed(&error, None)] };
        let mut newest = self.newest;
        let options = RunOptions { deadline: self.deadline, ..RunOptions::default() };
        for statements in elements {
            let started = Instant::now();
            let mut results = Vec::with_capacity(statements.len());
            for statement in statements {
                let sql = statement.sql.clone();
                match draft.run(statement, &options).await {
                    Ok(result) => results.push(result),
                    Err(_) => {
                        answers.push(self.failed(&error, Some(&sql)));
                        return answers;
                    }
                }
            }
            answers.push(self.write_answer(results, &mut newest, String::new(), started));
        }
        // It was refused before anything ran, or would work by now.
        if answers.iter().any(|answer| matches!(answer.outcome, Outcome::Failed(_))) {
            answers.clear();
        }
        answers.push(self.failed(&error, None));
        answers
    }

    /// Elements that only read, in one state.
    async fn snapshot(&self, units: Vec<Unit>) -> Result<Vec<Answer>, Stopped> {
        let options =
            BeginOptions { read_only: true, level: self.levels.read, ..BeginOptions::default() };
        let begun = self.driver.begin(self.user, settings(), options);
        let mut state = begun.ok();
        let mut answers = Vec::with_capacity(units.len());
        for unit in units {
            let (Some(draft), Unit::Reads(statements)) = (state.as_mut(), &unit) else {
                let answer = self.one(unit, answers.is_empty()).await?;
                answers.push(answer);
                continue;
            };
            let started = Instant::now();
            let options = RunOptions { deadline: self.deadline, ..RunOptions::default() };
            let mut rows = Ok(Rows::default());
            for statement in statements {
                rows = draft.run(statement.clone(), &options).await.map(|result| result.rows);
                if rows.is_err() {
                    break;
                }
            }
            let answer = match rows {
                Ok(rows) => self.read_answer(rows, started),
                Err(refusal) => {
                    // A draft takes no more after an error.
                    state = None;
                    self.settle(refusal.into(), last_sql(statements), answers.is_empty())?
                }
            };
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Written, WriteError> {
        let options = WriteOptions { wait: self.levels.wait, deadline: self.deadline };
        self.driver.write(self.user, statements, settings(), &options).await
    }

    /// The results of a transaction, `counts` of its statements to an element.
    fn written(
        &mut self,
        written: Written,
        counts: impl IntoIterator<Item = usize>,
        started: Instant,
    ) -> Vec<Answer> {
        let wait = self.levels.wait;
        let height = (wait != Wait::None).then_some(written.height);
        self.position = (height, Some(written.id));
        let place = (wait != Wait::None).then_some((written.height, written.index));
        let more = if self.shows.more || wait != Wait::Final {
            position_json(place, written.id, self.driver.depth(written.height))
        } else {
            String::new()
        };
        let mut results = written.results.into_iter();
        let mut answers = Vec::new();
        let mut newest = if wait == Wait::Final { self.newest } else { Newest::default() };
        for count in counts {
            let own: Vec<_> = results.by_ref().take(count).collect();
            answers.push(self.write_answer(own, &mut newest, more.clone(), started));
        }
        if wait == Wait::Final {
            self.newest = newest;
            self.memory.keep(self.user, newest);
        }
        answers
    }

    /// What an element gave that may have written: what its last statement gave.
    fn write_answer(
        &self,
        results: Vec<StatementResult>,
        newest: &mut Newest,
        more: String,
        started: Instant,
    ) -> Answer {
        // Comments only.
        let nothing = results.is_empty() && self.takes == Takes::Both;
        let mut rows = nothing.then(Rows::default);
        for result in results {
            newest.observe(&result);
            let shown = is_counted(result.kind) || self.takes == Takes::Both;
            rows = (shown && !result.rows.columns.is_empty()).then_some(result.rows);
        }
        let outcome = rows.map_or_else(|| newest.outcome(), Outcome::Rows);
        Answer { outcome, time: self.time(started), more }
    }

    fn read_answer(&self, rows: Rows, started: Instant) -> Answer {
        let outcome = match self.takes {
            Takes::Writes => self.newest.outcome(),
            Takes::Reads | Takes::Both => Outcome::Rows(rows),
        };
        Answer { outcome, time: self.time(started), more: String::new() }
    }

    fn time(&self, started: Instant) -> Option<f64> {
        self.shows.timings.then(|| started.elapsed().as_secs_f64())
    }

    /// An error as a result; or, before anything was done, that trying again is right.
    fn settle(
        &self,
        error: WriteError,
        sql: Option<&str>,
        is_first: bool,
    ) -> Result<Answer, Stopped> {
        if is_first && is_unavailable(&error.refusal) {
            return Err(Stopped::Unavailable(error.refusal.message));
        }
        Ok(self.failed(&error, sql))
    }

    fn failed(&self, error: &WriteError, sql: Option<&str>) -> Answer {
        let refusal = &error.refusal;
        let message = match (refusal.code(), refusal.message.as_str()) {
            (sqlstate::QUERY_CANCELED, _) if self.deadline.is_some() => "query timeout".into(),
            (_, ENDS_EARLY) => sql.and_then(near_end).unwrap_or_else(|| ENDS_EARLY.into()),
            (_, message) => message.to_owned(),
        };
        let mut more = String::new();
        if self.shows.more {
            more = format!("\"sqlstate\":\"{}\"", refusal.code());
            if let Some(id) = error.id {
                more.push(',');
                more.push_str(&position_json(None, id, None));
            }
        }
        Answer { outcome: Outcome::Failed(message), time: None, more }
    }
}

/// rqlite's clients write strings in double quotes.
pub(crate) fn settings() -> Settings {
    Settings { double_quoted_strings: true, ..Settings::default() }
}

/// What becomes of `PRAGMA foreign_keys`, if that is what it is.
fn foreign_keys(sql: &str) -> Option<Unit> {
    if classify(sql).kind != StatementKind::Pragma || !keys::is_meant(sql) {
        return None;
    }
    Some(match keys::wanted(sql) {
        Err(refusal) => Unit::Refused(refusal),
        Ok(None) => Unit::ForeignKeys(keys::state(true).rows),
        Ok(Some(true)) => Unit::ForeignKeys(Rows::default()),
        Ok(Some(false)) => {
            let message = "foreign keys are enforced always: every server has to come to the same";
            Unit::Refused(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message))
        }
    })
}

/// Whether nothing was done and trying again is right, here or at another server.
pub(crate) fn is_unavailable(refusal: &Refusal) -> bool {
    matches!(refusal.code(), sqlstate::BUSY | sqlstate::CANNOT_CONNECT_NOW)
}

/// Whether it is not the statements' fault.
pub(crate) fn is_about_the_server(error: &WriteError) -> bool {
    is_unavailable(&error.refusal) || error.refusal.code() == sqlstate::OUTCOME_UNKNOWN
}

fn last_sql(statements: &[Statement]) -> Option<&str> {
    statements.last().map(|statement| statement.sql.as_str())
}

/// A write's position, where it has one, and how deep that is, where depth makes it final.
fn position_json(place: Option<(Height, u32)>, id: TransactionId, depth: Option<Depth>) -> String {
    let mut position = serde_json::Map::new();
    if let Some((Height(height), index)) = place {
        position.insert("height".into(), height.into());
        position.insert("index".into(), index.into());
    }
    position.insert("id".into(), id.to_string().into());
    if place.is_some() {
        position.extend(depth.map(Depth::members).unwrap_or_default());
    }
    format!("\"rota\":{}", serde_json::Value::Object(position))
}

/// `near "word": syntax error`, of the last word.
fn near_end(sql: &str) -> Option<String> {
    let word = match Lexer::new(sql).last()?.1 {
        Token::Word(text) | Token::Quoted(text) | Token::Text(text) | Token::Parameter(text) => {
            text.to_owned()
        }
        Token::Symbol(symbol) => symbol.to_string(),
    };
    Some(format!("near \"{word}\": syntax error"))
}
