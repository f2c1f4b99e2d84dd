//! What a session's statements run on, and running them: the server, the transaction, and what this
//! connection did, set and keeps. Steps 1 and 9.
//!
//! ```text
//!  Prepared ─ run() ─┬─► command              answered here
//!                    ├─► alone: read ───────► Driver::read    after its own last write
//!                    │          write ──────► Driver::write
//!                    └─► in a transaction ──► Transaction::run, then commit
//! ```

use std::time::Instant;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Settings, Statement, Value};
use rota_core::types::{Height, TransactionId};
use rota_store::access::{Change, no_user};
use rota_store::{Rows, StatementKind, StatementResult};

use super::block::{Block, LONGEST_SILENCE, Phase, aborted, expired, outside, read_only};
use super::commands::{Command, Declare, Modes};
use super::cursors::{Portal, Portals, Ran};
use super::encode::{self, Type, types_of};
use super::grants::{self, Warning};
use super::statement::{Plan, Prepared, Shared, Statements, announced, prepare};
use super::variables::{Identity, Variables};
use crate::auth::{Login, Proof};
use crate::driver::{
    BeginOptions, Cancel, Driver, ReadOptions, RunOptions, Wait, WriteError, WriteOptions, Written,
};

/// What running a statement gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Present if there is a result, even one without rows.
    pub(crate) rows: Option<Rows>,
    /// The columns' types, where the rows alone do not tell them.
    pub(crate) types: Option<Vec<Type>>,
    /// The command tag; empty for an empty statement.
    pub(crate) tag: String,
    pub(crate) notices: Vec<Notice>,
}

/// What a client is told beside its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) severity: &'static str,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) fn done(tag: impl Into<String>) -> Self {
        Self { tag: tag.into(), ..Self::default() }
    }

    pub(super) fn rows(rows: Rows, kind: StatementKind) -> Self {
        let tag = kind.tag(rows.rows.len() as u64);
        Self { rows: Some(rows), tag, ..Self::default() }
    }

    pub(super) fn warned(mut self, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        self.notices.push(Notice { severity: "WARNING", code, message });
        self
    }

    /// The columns with their types, if there are rows.
    pub(crate) fn columns(&self) -> Option<Vec<(String, Type)>> {
        let rows = self.rows.as_ref()?;
        Some(match &self.types {
            None => announced(rows),
            Some(types) => {
                let names = rows.columns.iter().map(|column| column.name.clone());
                names.zip(types.iter().copied()).collect()
            }
        })
    }
}

/// Where the connection's last write stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) height: Height,
    pub(super) index: u32,
    pub(super) id: TransactionId,
}

/// What statements run on.
pub(crate) struct Context {
    pub(super) driver: Driver,
    pub(super) last: Option<Position>,
    pub(crate) variables: Variables,
    pub(crate) block: Block,
    pub(crate) statements: Statements,
    pub(crate) portals: Portals,
    /// Calls off the statement that runs.
    pub(crate) cancel: Cancel,
    /// Who logged in.
    proof: Proof,
    own: Own,
}

/// What the session did to its own user's password or key, so that this does not end it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Own {
    #[default]
    Nothing,
    /// In the transaction that is open.
    Begun,
    /// Sent, and when it is done is not waited for.
    Sent,
}

impl Context {
    pub(crate) fn new(driver: Driver, cancel: Cancel, identity: Identity, proof: Proof) -> Self {
        Self {
            proof,
            own: Own::default(),
            driver,
            last: None,
            variables: Variables::new(identity),
            block: Block::default(),
            statements: Statements::default(),
            portals: Portals::default(),
            cancel,
        }
    }

    /// Makes sure that the session's user is still there, and still the one who logged in. What it
    /// may do is looked up for each statement anew, where that is run.
    pub(crate) fn recognize(&mut self) -> Result<(), Refusal> {
        let access = self.driver.access();
        let user = self.variables.user();
        let known = Login::of(&access, user).ok_or_else(|| no_user(user))?;
        if known.proof != self.proof {
            if self.own != Own::Sent {
                return Err(no_longer(user));
            }
            (self.proof, self.own) = (known.proof, Own::Nothing);
        }
        self.variables.set_administrator(known.administrator);
        Ok(())
    }

    /// Whether a statement gives the session's own user another password or key.
    fn is_own(&self, prepared: &Prepared, statements: &[Statement]) -> bool {
        prepared.kind == StatementKind::AlterUser
            && statements.iter().any(|statement| match Change::parse(&statement.sql) {
                Ok(Change::Alter(name, options)) => {
                    *name == **self.variables.user()
                        && (options.password.is_some() || options.key.is_some())
                }
                _ => false,
            })
    }

    /// After such a statement, or the transaction that it was in.
    fn own_change(&mut self, wait: Wait) {
        self.own = Own::Sent;
        if wait == Wait::Final
            && let Some(user) = self.driver.access().user(self.variables.user())
        {
            (self.proof, self.own) = (Proof::of(user), Own::Nothing);
        }
    }

    /// Runs a statement. `alone`: nothing else belongs to its transaction, if it is in none.
    pub(crate) async fn run(
        &mut self,
        prepared: &Prepared,
        values: Vec<Value>,
        alone: bool,
    ) -> Result<Answer, WriteError> {
        self.refuse_if_failed(prepared)?;
        if let Plan::Command(Command::Execute(name, arguments)) = &prepared.plan {
            let target = self.statements.get(name)?;
            let values = self.arguments(name, &target, arguments).await?;
            return self.dispatch(&target, values, alone).await;
        }
        self.dispatch(prepared, values, alone).await
    }

    async fn dispatch(
        &mut self,
        prepared: &Prepared,
        values: Vec<Value>,
        alone: bool,
    ) -> Result<Answer, WriteError> {
        match &prepared.plan {
            Plan::Empty => Ok(Answer::default()),
            Plan::Command(command) => self.command(command, alone).await,
            Plan::Nothing(tag, Warning { code, message }) => {
                Ok(Answer::done(*tag).warned(code, message.clone()))
            }
            Plan::Declare(declare, query) => self.declare(declare, query, values, alone).await,
            // `copy` runs it, which talks with the client.
            Plan::Copy(_) => Err(not_here().into()),
            Plan::Catalog => {
                let mut answer = self.ask(prepared, values).await?;
                self.announce(prepared, &mut answer).await;
                Ok(answer)
            }
            Plan::Read | Plan::Write => {
                if prepared.writes() {
                    self.refuse_write(prepared)?;
                }
                if !alone {
                    self.enter()?;
                }
                let mut answer = if !self.block.is_idle() {
                    self.inside(prepared, values).await?
                } else if prepared.writes() {
                    self.write(prepared, values).await?
                } else {
                    let options = self.read_options();
                    let (user, statement) = (self.variables.user(), prepared.statement(values));
                    let read = self.driver.read(user, statement, Settings::default(), &options);
                    Answer::rows(read.await?, prepared.kind)
                };
                self.announce(prepared, &mut answer).await;
                Ok(answer)
            }
        }
    }

    fn refuse_write(&self, prepared: &Prepared) -> Result<(), Refusal> {
        let only_reads = if self.block.is_idle() {
            self.variables.meaning().read_only
        } else {
            self.block.is_read_only()
        };
        if only_reads { Err(read_only(&prepared.verb())) } else { Ok(()) }
    }

    /// A read about the schema: in a transaction about the schema as it is there, and no part of
    /// what COMMIT checks, unless it reads users' rows too.
    async fn ask(&mut self, prepared: &Prepared, values: Vec<Value>) -> Result<Answer, WriteError> {
        let run = self.run_options();
        let rows = match self.block.transaction() {
            Some(transaction) => {
                let looked = transaction.look(prepared.statement(values.clone()), &run).await;
                match looked {
                    Err(refusal) if refusal.code() == sqlstate::INSUFFICIENT_PRIVILEGE => {
                        return self.inside(prepared, values).await;
                    }
                    looked => looked?,
                }
            }
            None => {
                let options = self.read_options();
                let statement = prepared.statement(values);
                let user = self.variables.user();
                self.driver.read(user, statement, Settings::default(), &options).await?
            }
        };
        Ok(Answer::rows(rows, prepared.kind))
    }

    /// A statement in a transaction.
    async fn inside(
        &mut self,
        prepared: &Prepared,
        values: Vec<Value>,
    ) -> Result<Answer, WriteError> {
        let options = self.run_options();
        let statements = self.statements_of(prepared, values);
        let own = self.is_own(prepared, &statements);
        let transaction = self.block.used().ok_or_else(aborted)?;
        let mut result = None;
        for statement in statements {
            result = Some(transaction.run(statement, &options).await?);
        }
        if own && self.own == Own::Nothing {
            self.own = Own::Begun;
        }
        Ok(answered(result, prepared))
    }

    /// A statement as it is sent: about users, with the session's in place of CURRENT_USER.
    fn statements_of(&self, prepared: &Prepared, values: Vec<Value>) -> Vec<Statement> {
        let mut statements = prepared.statements(values);
        if prepared.is_about_users() {
            for statement in &mut statements {
                statement.sql = grants::with_user(&statement.sql, self.variables.user());
            }
        }
        statements
    }

    /// A write that is a transaction of its own.
    async fn write(
        &mut self,
        prepared: &Prepared,
        values: Vec<Value>,
    ) -> Result<Answer, WriteError> {
        // Words that nobody knows shall not cost every server a transaction.
        if prepared.kind == StatementKind::Other {
            let (user, sql) = (self.variables.user(), prepared.sql.clone());
            self.driver.describe(user, sql, Settings::default()).await?;
        }
        let options = self.write_options();
        let asks = prepared.returning && prepared.kind != StatementKind::Select;
        if options.wait != Wait::Final && asks {
            return Err(Refusal::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "RETURNING needs rota.wait = final: what a write gives is known when it is done",
            )
            .into());
        }
        let (user, statements) = (self.variables.user(), self.statements_of(prepared, values));
        let own = self.is_own(prepared, &statements);
        let write = self.driver.write(user, statements, Settings::default(), &options);
        let written = write.await?;
        if own {
            self.own_change(options.wait);
        }
        let notice = self.note(&written, options.wait);
        let mut answer = answered(written.results.into_iter().next_back(), prepared);
        answer.notices.extend(notice);
        Ok(answer)
    }

    /// Remembers where a write stands; under `rota.wait` = `included` or `none` it is not known,
    /// and the client is told by what to ask.
    pub(super) fn note(&mut self, written: &Written, wait: Wait) -> Option<Notice> {
        let &Written { id, height, index, .. } = written;
        if wait == Wait::Final {
            self.last = Some(Position { height, index, id });
            return None;
        }
        Some(Notice { severity: "NOTICE", code: "00000", message: format!("transaction id: {id}") })
    }

    pub(super) fn height(&self) -> Height {
        self.last.map_or_else(Height::default, |position| position.height)
    }

    /// When the statement that begins now must be done.
    fn deadline(&self) -> Option<Instant> {
        let meaning = self.variables.meaning();
        let statement = meaning.statement.and_then(|time| Instant::now().checked_add(time));
        let transaction = self.transaction_deadline();
        match (statement, transaction) {
            (Some(statement), Some(transaction)) => Some(statement.min(transaction)),
            (one, other) => one.or(other),
        }
    }

    /// When the transaction must be over, by `transaction_timeout`.
    fn transaction_deadline(&self) -> Option<Instant> {
        self.block.since()?.checked_add(self.variables.meaning().transaction?)
    }

    /// Nothing but its end is heard of a transaction that has failed. Its client has been told why;
    /// one that was silent for too long has not, and must not take COMMIT's answer for success.
    pub(crate) fn refuse_if_failed(&mut self, prepared: &Prepared) -> Result<(), Refusal> {
        if !self.block.is_failed() {
            return Ok(());
        }
        if !prepared.is_rollback() && self.block.take_expired() {
            if prepared.ends_failure() && !prepared.is_empty() {
                self.rollback();
            }
            return Err(expired());
        }
        if prepared.ends_failure() { Ok(()) } else { Err(aborted()) }
    }

    /// When a transaction ends of which its client says nothing for too long.
    pub(crate) fn expiry(&self) -> Option<Instant> {
        let chosen = self.variables.meaning().idle_in_transaction.is_some();
        if chosen || !self.block.holds_draft() {
            return None;
        }
        let until = Instant::now().checked_add(LONGEST_SILENCE)?;
        self.transaction_deadline().is_none_or(|deadline| deadline > until).then_some(until)
    }

    /// Until when the client may be silent, and what it then hears.
    pub(crate) fn patience(&self) -> Option<(Instant, Refusal)> {
        let meaning = self.variables.meaning();
        let (time, code, why) = match self.block.phase() {
            Phase::Idle => (meaning.idle, "57P05", "idle-session timeout"),
            Phase::Implicit => (None, "", ""),
            Phase::Open | Phase::Failed => {
                (meaning.idle_in_transaction, "25P03", "idle-in-transaction timeout")
            }
        };
        let silence = time.and_then(|time| Instant::now().checked_add(time));
        let whole = self.transaction_deadline();
        let (until, code, why) = match (silence, whole) {
            (Some(silence), Some(whole)) if silence < whole => (silence, code, why),
            (Some(silence), None) => (silence, code, why),
            (_, Some(whole)) => (whole, "25P04", "transaction timeout"),
            (None, None) => return None,
        };
        Some((until, Refusal::new(code, format!("terminating connection due to {why}"))))
    }

    pub(super) fn read_options(&self) -> ReadOptions {
        ReadOptions {
            after: self.height(),
            level: self.variables.meaning().read,
            deadline: self.deadline(),
            cancel: self.cancel.clone(),
        }
    }

    pub(super) fn run_options(&self) -> RunOptions {
        RunOptions { deadline: self.deadline(), cancel: self.cancel.clone() }
    }

    pub(super) fn write_options(&self) -> WriteOptions {
        WriteOptions { wait: self.variables.meaning().wait, deadline: self.deadline() }
    }
}

/// Transactions.
impl Context {
    /// Several statements at once are one transaction, which begins with the first that needs it.
    pub(super) fn enter(&mut self) -> Result<(), Refusal> {
        if self.block.is_idle() { self.begin(Phase::Implicit, None) } else { Ok(()) }
    }

    fn begin(&mut self, phase: Phase, read_only: Option<bool>) -> Result<(), Refusal> {
        let meaning = self.variables.meaning();
        let read_only = read_only.unwrap_or(meaning.read_only);
        // Whether it may write is checked here, since SET TRANSACTION may still change it.
        let options = BeginOptions { read_only: false, after: self.height(), level: meaning.read };
        let user = self.variables.user();
        let transaction = self.driver.begin(user, Settings::default(), options)?;
        self.block.begin(transaction, phase, read_only);
        self.variables.begin();
        Ok(())
    }

    pub(super) fn begin_command(
        &mut self,
        tag: &'static str,
        modes: Modes,
    ) -> Result<Answer, Refusal> {
        let answer = Answer::done(tag);
        match self.block.phase() {
            Phase::Idle => {
                self.begin(Phase::Open, modes.read_only)?;
                return Ok(answer);
            }
            Phase::Implicit => self.block.make_explicit(),
            Phase::Open | Phase::Failed => {
                self.apply(modes)?;
                return Ok(answer.warned("25001", "there is already a transaction in progress"));
            }
        }
        self.apply(modes)?;
        Ok(answer)
    }

    pub(super) fn apply(&mut self, modes: Modes) -> Result<(), Refusal> {
        modes.read_only.map_or(Ok(()), |read_only| self.block.set_read_only(read_only))
    }

    /// COMMIT, and ROLLBACK, with AND CHAIN.
    pub(super) async fn end_command(
        &mut self,
        commit: bool,
        chain: bool,
    ) -> Result<Answer, WriteError> {
        let phase = self.block.phase();
        let tag = if commit && phase != Phase::Failed { "COMMIT" } else { "ROLLBACK" };
        let mut answer = Answer::done(tag);
        if matches!(phase, Phase::Idle | Phase::Implicit) {
            if chain {
                return Err(outside(&format!("{tag} AND CHAIN")).into());
            }
            answer = answer.warned("25P01", "there is no transaction in progress");
        }
        let read_only = self.block.is_read_only();
        if tag == "COMMIT" {
            answer.notices.extend(self.commit().await?);
        } else {
            self.rollback();
        }
        if chain {
            self.begin(Phase::Open, Some(read_only))?;
        }
        Ok(answer)
    }

    /// Commits what there is. Whatever comes of it, the session is in no transaction afterwards.
    pub(crate) async fn commit(&mut self) -> Result<Option<Notice>, WriteError> {
        let options = self.write_options();
        if !self.block.is_idle()
            && let Err(refusal) = self.recognize()
        {
            self.rollback();
            return Err(refusal.into());
        }
        let Some(transaction) = self.block.end() else { return Ok(None) };
        let committed = transaction.commit(&options).await;
        if self.own == Own::Begun {
            self.own = Own::Nothing;
            if committed.is_ok() {
                self.own_change(options.wait);
            }
        }
        self.variables.end(committed.is_ok());
        self.portals.end(committed.is_ok());
        Ok(committed?.and_then(|written| self.note(&written, options.wait)))
    }

    pub(crate) fn rollback(&mut self) {
        if self.block.is_idle() {
            return;
        }
        drop(self.block.end());
        if self.own == Own::Begun {
            self.own = Own::Nothing;
        }
        self.variables.end(false);
        self.portals.end(false);
    }

    /// After an error: what was implicit is over, what was begun has failed.
    pub(crate) fn fail(&mut self) {
        match self.block.phase() {
            Phase::Idle => {}
            Phase::Implicit => self.rollback(),
            Phase::Open | Phase::Failed => self.block.fail(),
        }
    }

    pub(super) async fn savepoint(&mut self, name: &str) -> Result<Answer, Refusal> {
        let options = self.run_options();
        self.block.savepoint(name, self.variables.mark(), &options).await?;
        Ok(Answer::done("SAVEPOINT"))
    }

    pub(super) async fn release(&mut self, name: &str) -> Result<Answer, Refusal> {
        let options = self.run_options();
        self.block.release(name, &options).await?;
        Ok(Answer::done("RELEASE"))
    }

    pub(super) async fn rollback_to(&mut self, name: &str) -> Result<Answer, Refusal> {
        let options = self.run_options();
        let (mark, depth) = self.block.rollback_to(name, &options).await?;
        self.variables.back_to(&mark);
        self.portals.back_to(depth);
        Ok(Answer::done("ROLLBACK"))
    }
}

/// Cursors, and EXECUTE.
impl Context {
    async fn declare(
        &mut self,
        declare: &Declare,
        query: &Shared,
        values: Vec<Value>,
        alone: bool,
    ) -> Result<Answer, WriteError> {
        if self.block.is_idle() && alone && !declare.hold {
            return Err(outside("DECLARE CURSOR").into());
        }
        let result = Box::pin(self.dispatch(query, values, alone)).await?;
        let types = result.types.clone().or_else(|| result.rows.as_ref().map(types_of));
        let portal = Portal {
            statement: Shared::clone(query),
            values: Vec::new(),
            result_formats: Vec::new(),
            told: None,
            ran: Some(Ran { answer: Answer { types, ..result }, place: 0 }),
            held: 0,
            no_scroll: declare.no_scroll,
            hold: declare.hold,
            depth: self.block.depth(),
        };
        self.portals.insert(declare.name.clone(), portal)?;
        self.portals.hold(&declare.name)?;
        if self.block.is_idle() {
            self.portals.end(true);
        }
        Ok(Answer::done("DECLARE CURSOR"))
    }

    /// What EXECUTE's arguments are: expressions, whose values SQLite tells.
    async fn arguments(
        &mut self,
        name: &str,
        target: &Prepared,
        arguments: &[String],
    ) -> Result<Vec<Value>, WriteError> {
        if arguments.len() != target.parameters {
            return Err(Refusal::new(
                sqlstate::SYNTAX_ERROR,
                format!(
                    "wrong number of parameters for prepared statement \"{name}\": expected {}, \
                     got {}",
                    target.parameters,
                    arguments.len()
                ),
            )
            .into());
        }
        if arguments.is_empty() {
            return Ok(Vec::new());
        }
        let query = prepare(&format!("SELECT {}", arguments.join(", ")), Vec::new())?;
        if query.parameters > 0 {
            return Err(Refusal::new("42P02", "there is no parameter $1").into());
        }
        let statement = query.statement(Vec::new());
        let (inside, outside) = (self.run_options(), self.read_options());
        let rows = match self.block.transaction() {
            Some(transaction) => transaction.look(statement, &inside).await?,
            None => {
                let user = self.variables.user();
                self.driver.read(user, statement, Settings::default(), &outside).await?
            }
        };
        let values = rows.rows.into_iter().next().unwrap_or_default();
        let typed = values.into_iter().enumerate().map(|(place, value)| match value {
            Value::Text(text) => {
                encode::parameter(text.as_bytes(), target.parameter_type(place), false)
            }
            value => Ok(value),
        });
        Ok(typed.collect::<Result<_, Refusal>>()?)
    }
}

/// A session whose user is another one by now, or has another password.
fn no_longer(user: &str) -> Refusal {
    let shown: String = user.chars().take(64).collect();
    let message = format!("role \"{shown}\" is not the one that logged in: log in again");
    Refusal::new(sqlstate::INVALID_AUTHORIZATION, message)
}

/// COPY where nothing can be said to its client.
fn not_here() -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, "COPY cannot be run here")
}

/// The answer to a statement that reads or writes.
fn answered(result: Option<StatementResult>, prepared: &Prepared) -> Answer {
    let mut answer = match result {
        None => Answer::done(prepared.kind.tag(0)),
        Some(result) => {
            // SQLite's ALTER TABLE … SET NOT NULL has columns of its own, and no rows.
            let gives = !result.rows.columns.is_empty()
                && result.kind != rota_store::StatementKind::AlterTable;
            let rows = gives.then_some(result.rows);
            let tag = result.kind.tag(result.rows_affected);
            Answer { rows, ..Answer::done(tag) }
        }
    };
    if let Some(tag) = prepared.tag {
        answer.tag = tag.into();
    }
    for notice in &prepared.notices {
        answer = answer.warned("01000", notice.clone());
    }
    answer
}
