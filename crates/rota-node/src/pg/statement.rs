//! One statement of a PostgreSQL session, understood once: whose it is, what it takes, what it
//! gives. Step 1; it is run by `context`.
//!
//! ```text
//!  text ─ prepare() ─┬─► grants     CREATE USER, GRANT, …  who may do what
//!                    ├─► commands   BEGIN, SET, FETCH, …   the session's own
//!                    ├─► catalog    what tools ask about the schema
//!                    └─► dialect    reads and writes, in SQLite's words
//! ```

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Statement, Value};
use rota_store::copy::Copy;
use rota_store::sql::{Access, classify};
use rota_store::{Rows, StatementKind};

use super::catalog;
use super::commands::{Command, Declare, first_word};
use super::dialect::translate;
use super::encode::{Oid, Type, oid, types_of};
use super::grants::{self, Asked, Warning};
use super::infer::Guess;

/// A statement, understood once and run as often as its client likes.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) plan: Plan,
    /// Statements that have to run first, without parameters or rows.
    pub(super) before: Vec<String>,
    /// In SQLite's words.
    pub(super) sql: String,
    /// The command tag, where it is not what SQLite's statement says.
    pub(super) tag: Option<&'static str>,
    /// What to warn of when it has run.
    pub(super) notices: Vec<String>,
    pub(super) kind: StatementKind,
    pub(super) returning: bool,
    /// How many parameters it takes.
    pub(crate) parameters: usize,
    /// What the client or a cast in the text says of their types; 0 where nobody does.
    pub(super) said: Vec<Oid>,
    pub(super) described: OnceLock<Described>,
    /// The types of parameters that nobody says, by what they meet.
    pub(super) inferred: OnceLock<Vec<Oid>>,
    /// What its words tell of its columns, and the schema where they need it.
    pub(super) guesses: OnceLock<Vec<Guess>>,
}

/// Whose a statement is.
#[derive(Debug)]
pub(super) enum Plan {
    Empty,
    Command(Command),
    /// What does nothing: its tag, and why.
    Nothing(&'static str, Warning),
    /// DECLARE, with its query.
    Declare(Declare, Shared),
    /// A read about the schema.
    Catalog,
    /// COPY, whose data are the client's.
    Copy(Copy),
    Read,
    Write,
}

/// What a client was told of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The parameters' types.
    pub(crate) parameters: Vec<Oid>,
    /// The columns' names and types; `None` when there are no rows.
    pub(crate) columns: Option<Vec<(String, Type)>>,
}

/// Understands a statement's text.
pub(crate) fn prepare(text: &str, types: Vec<Oid>) -> Result<Prepared, Refusal> {
    let mut prepared = Prepared {
        plan: Plan::Empty,
        before: Vec::new(),
        sql: String::new(),
        tag: None,
        notices: Vec::new(),
        kind: StatementKind::Empty,
        returning: false,
        parameters: 0,
        said: types,
        described: OnceLock::new(),
        inferred: OnceLock::new(),
        guesses: OnceLock::new(),
    };
    match grants::asked(text)? {
        Some(Asked::Nothing(tag, warning)) => {
            prepared.plan = Plan::Nothing(tag, warning);
            return Ok(prepared);
        }
        Some(Asked::Change(mut statements, tag)) => {
            prepared.sql = statements.pop().unwrap_or_default();
            prepared.before = statements;
            prepared.kind = classify(&prepared.sql).kind;
            (prepared.plan, prepared.tag) = (Plan::Write, tag);
            return Ok(prepared);
        }
        None => {}
    }
    match Command::parse(text).transpose()? {
        Some(Command::Declare(declare)) => return declared(declare, prepared.said),
        Some(command) => {
            prepared.plan = Plan::Command(command);
            return Ok(prepared);
        }
        None => {}
    }
    if first_word(text).eq_ignore_ascii_case("copy") {
        prepared.plan = Plan::Copy(Copy::parse(text)?);
        return Ok(prepared);
    }
    let respelled = catalog::respelled(text);
    let mut translated = translate(respelled.as_deref().unwrap_or(text))?;
    let Some(sql) = translated.statements.pop() else {
        prepared.plan = Plan::Command(Command::Nothing(translated.tag.unwrap_or("OK")));
        return Ok(prepared);
    };
    let classified = classify(&sql);
    prepared.plan = match classified.access {
        Access::Empty => Plan::Empty,
        Access::Read if catalog::is_asked(&sql) => Plan::Catalog,
        Access::Read => Plan::Read,
        Access::Write => Plan::Write,
        Access::Session => {
            return Err(Refusal::new(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "this statement is not supported in a session",
            ));
        }
    };
    prepared.parameters = translated.parameters;
    prepared.said.resize(translated.parameters, oid::UNSPECIFIED);
    for (number, cast) in translated.casts {
        let place = number.checked_sub(1).and_then(|place| prepared.said.get_mut(place));
        if let Some(said) = place.filter(|said| **said == oid::UNSPECIFIED) {
            *said = cast;
        }
    }
    prepared.kind = classified.kind;
    // A SELECT that is a write calls `rota_transfer`.
    prepared.returning = translated.returning || classified.kind == StatementKind::Select;
    prepared.before = translated.statements;
    prepared.sql = sql;
    prepared.tag = translated.tag;
    prepared.notices = translated.notices;
    Ok(prepared)
}

/// A cursor takes what its query takes.
fn declared(declare: Declare, types: Vec<Oid>) -> Result<Prepared, Refusal> {
    let query = prepare(&declare.query, types)?;
    if !matches!(query.plan, Plan::Read | Plan::Catalog) {
        return Err(Refusal::new(sqlstate::SYNTAX_ERROR, "a cursor is for a SELECT or VALUES"));
    }
    let (parameters, said) = (query.parameters, query.said.clone());
    Ok(Prepared {
        plan: Plan::Declare(declare, Arc::new(query)),
        before: Vec::new(),
        sql: String::new(),
        tag: None,
        notices: Vec::new(),
        kind: StatementKind::Other,
        returning: false,
        parameters,
        said,
        described: OnceLock::new(),
        inferred: OnceLock::new(),
        guesses: OnceLock::new(),
    })
}

impl Prepared {
    /// The same once more, without what the schema told of it: that may be another one now.
    fn again(&self) -> Option<Self> {
        if self.is_about_users() {
            // There may be a password in it.
            return None;
        }
        let plan = match &self.plan {
            Plan::Command(command) => Plan::Command(command.clone()),
            Plan::Catalog => Plan::Catalog,
            Plan::Read => Plan::Read,
            Plan::Write => Plan::Write,
            Plan::Empty | Plan::Nothing(..) | Plan::Declare(..) | Plan::Copy(_) => return None,
        };
        Some(Self {
            plan,
            before: self.before.clone(),
            sql: self.sql.clone(),
            tag: self.tag,
            notices: self.notices.clone(),
            kind: self.kind,
            returning: self.returning,
            parameters: self.parameters,
            said: self.said.clone(),
            described: OnceLock::new(),
            inferred: OnceLock::new(),
            guesses: OnceLock::new(),
        })
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.plan, Plan::Empty)
    }

    /// Whether running it before its client says so is without effect, so that its rows can be
    /// described by looking.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self.plan, Plan::Read | Plan::Catalog)
            || matches!(self.plan, Plan::Command(Command::Show(_)))
    }

    /// Whether it is about users or grants.
    pub(crate) fn is_about_users(&self) -> bool {
        use StatementKind as K;
        matches!(self.kind, K::CreateUser | K::AlterUser | K::DropUser | K::Grant | K::Revoke)
    }

    /// Whether it writes, or may.
    pub(crate) fn writes(&self) -> bool {
        matches!(self.plan, Plan::Write)
    }

    /// Whether it is part of a transaction when it does not stand alone. What only reads can do
    /// without.
    pub(crate) fn wants_transaction(&self) -> bool {
        match &self.plan {
            Plan::Write | Plan::Declare(..) | Plan::Copy(_) => true,
            Plan::Command(command) => matches!(
                command,
                Command::Lock
                    | Command::Execute(..)
                    | Command::Set(_, _, true)
                    | Command::SetConfig(_, _, true)
                    | Command::SetTransaction(_)
            ),
            _ => false,
        }
    }

    /// The COPY that it is.
    pub(super) fn copy(&self) -> Option<&Copy> {
        match &self.plan {
            Plan::Copy(copy) => Some(copy),
            _ => None,
        }
    }

    /// Whether PREPARE takes it.
    pub(crate) fn can_be_executed(&self) -> bool {
        matches!(self.plan, Plan::Read | Plan::Write | Plan::Catalog)
    }

    /// What it does, in PostgreSQL's words: `INSERT`.
    pub(crate) fn verb(&self) -> String {
        let tag = self.tag.map_or_else(|| self.kind.tag(0), str::to_owned);
        tag.trim_end_matches([' ', '0']).to_owned()
    }

    /// Whether it is a ROLLBACK, TO a savepoint or not.
    pub(crate) fn is_rollback(&self) -> bool {
        matches!(self.plan, Plan::Command(Command::Rollback { .. } | Command::RollbackTo(_)))
    }

    /// Whether it may be heard in a transaction that has failed.
    pub(crate) fn ends_failure(&self) -> bool {
        match &self.plan {
            Plan::Empty => true,
            Plan::Command(command) => matches!(
                command,
                Command::Commit { .. } | Command::Rollback { .. } | Command::RollbackTo(_)
            ),
            _ => false,
        }
    }

    /// The type of the parameter at a place: what the client said, else what it was told.
    pub(crate) fn parameter_type(&self, place: usize) -> Oid {
        let said = self.said.get(place).copied().unwrap_or(oid::UNSPECIFIED);
        if said != oid::UNSPECIFIED {
            return said;
        }
        let told = self.described.get().map(|told| &told.parameters).or(self.inferred.get());
        told.and_then(|told| told.get(place)).copied().unwrap_or(oid::UNSPECIFIED)
    }

    /// What the client was told, if it asked.
    pub(crate) fn told(&self) -> Option<&Described> {
        self.described.get()
    }

    /// As the driver wants it.
    pub(super) fn statement(&self, values: Vec<Value>) -> Statement {
        Statement { sql: self.sql.clone(), parameters: Parameters::Positional(values) }
    }

    /// The same with what has to run first.
    pub(super) fn statements(&self, values: Vec<Value>) -> Vec<Statement> {
        let before = self.before.iter().map(|sql| Statement {
            sql: sql.clone(),
            parameters: Parameters::Positional(Vec::new()),
        });
        before.chain([self.statement(values)]).collect()
    }
}

/// Rows' columns with the types to announce.
pub(crate) fn announced(rows: &Rows) -> Vec<(String, Type)> {
    rows.columns.iter().map(|column| column.name.clone()).zip(types_of(rows)).collect()
}

/// A prepared statement that several portals and names share.
pub(crate) type Shared = Arc<Prepared>;

/// How many prepared statements a connection may have: drivers cache some hundreds.
const MAX_STATEMENTS: usize = 2_000;

/// How many bytes of SQL they may be, all together.
const MAX_STATEMENT_BYTES: usize = 8 << 20;

/// How many texts of nameless statements are remembered with what they mean: those of an
/// application's busy loop.
const MAX_UNDERSTOOD: usize = 64;

/// Longer texts are not remembered: they are seldom sent twice.
const MAX_UNDERSTOOD_BYTES: usize = 2_000;

/// The prepared statements of a connection, by name.
#[derive(Default)]
pub(crate) struct Statements {
    named: HashMap<String, (Shared, usize)>,
    /// Bytes of their SQL.
    held: usize,
    /// What nameless ones mean, by their text: many drivers send the same ones over and over.
    understood: HashMap<String, (Vec<Oid>, Prepared)>,
}

impl Statements {
    /// What a text means. A nameless one is remembered.
    pub(crate) fn understand(
        &mut self,
        name: &str,
        text: &str,
        types: Vec<Oid>,
    ) -> Result<Prepared, Refusal> {
        if !name.is_empty() || text.len() > MAX_UNDERSTOOD_BYTES {
            return prepare(text, types);
        }
        if let Some((said, known)) = self.understood.get(text)
            && *said == types
            && let Some(again) = known.again()
        {
            return Ok(again);
        }
        let prepared = prepare(text, types.clone())?;
        if let Some(again) = prepared.again() {
            if self.understood.len() >= MAX_UNDERSTOOD {
                self.understood.clear();
            }
            self.understood.insert(text.to_owned(), (types, again));
        }
        Ok(prepared)
    }

    pub(crate) fn get(&self, name: &str) -> Result<Shared, Refusal> {
        let found = self.named.get(name).map(|(statement, _)| Arc::clone(statement));
        found.ok_or_else(|| {
            Refusal::new("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// A new one, or another without a name. `bytes`: of its SQL.
    pub(crate) fn insert(
        &mut self,
        name: String,
        prepared: Prepared,
        bytes: usize,
    ) -> Result<(), Refusal> {
        if name.is_empty() {
            self.remove("");
        }
        if self.named.len() >= MAX_STATEMENTS || self.held + bytes > MAX_STATEMENT_BYTES {
            return Err(Refusal::new(
                sqlstate::TOO_COMPLEX,
                "this connection has too many prepared statements: DEALLOCATE some",
            ));
        }
        self.held += bytes;
        self.named.insert(name, (Arc::new(prepared), bytes));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some((_, bytes)) = self.named.remove(name) {
            self.held -= bytes;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nameless_text_is_remembered_for_the_types_that_were_said_with_it() {
        let mut statements = Statements::default();
        let text = "SELECT a FROM t WHERE a = $1";
        for types in [vec![], vec![oid::INT4], vec![oid::INT4], vec![oid::TEXT], vec![]] {
            let want = types.first().copied().unwrap_or(oid::UNSPECIFIED);
            let got = statements.understand("", text, types).unwrap();
            assert_eq!((got.parameters, got.parameter_type(0)), (1, want));
        }
        assert_eq!(statements.understood.len(), 1);
        for number in 0..=MAX_UNDERSTOOD {
            statements.understand("", &format!("SELECT {number}"), Vec::new()).unwrap();
        }
        statements.understand("named", "SELECT 'named'", Vec::new()).unwrap();
        assert!(statements.understood.len() <= MAX_UNDERSTOOD);
        assert!(!statements.understood.contains_key("SELECT 'named'"));
    }
}
