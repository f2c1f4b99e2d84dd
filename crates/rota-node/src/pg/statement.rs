//! One statement of a PostgreSQL session: what it is, what it takes and gives, and running it.
//! Steps 1 and 9.
//!
//! ```text
//!  text ─ prepare() ─► Prepared ─ run() ─► session command        answered here
//!                        │                 catalog query          answered here, from the schema
//!                        │                 read  ──► Driver::read   after its last write
//!                        └ describe()      write ──► Driver::write
//! ```

use std::sync::{Arc, OnceLock};

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Settings, Statement, Value};
use rota_core::types::{Height, TransactionId};
use rota_store::sql::{Access, classify};
use rota_store::{Column, Rows, StatementKind};

use super::catalog::{self, CatalogQuery};
use super::commands::{Command, Variables};
use super::dialect::translate;
use super::encode::{Oid, declared_type, oid, type_of_value, types_of};
use super::infer;
use crate::driver::{Driver, ReadOptions, WriteError, WriteOptions, Written};

/// In whose name everything happens until there are users.
pub(crate) const USER: &str = "rota";

/// A statement, understood once and run as often as its client likes.
#[derive(Debug)]
pub(crate) struct Prepared {
    plan: Plan,
    /// Statements that have to run first, without parameters or rows.
    before: Vec<String>,
    /// In SQLite's words.
    sql: String,
    /// The command tag, where it is not what SQLite's statement says.
    tag: Option<&'static str>,
    /// What to warn of when it has run.
    notices: Vec<String>,
    kind: StatementKind,
    returning: bool,
    /// How many parameters it takes.
    pub(crate) parameters: usize,
    /// What the client or a cast in the text says of their types; 0 where nobody does.
    said: Vec<Oid>,
    described: OnceLock<Described>,
}

#[derive(Debug)]
enum Plan {
    Empty,
    Command(Command),
    Catalog(CatalogQuery),
    Read,
    Write,
}

/// What a client was told of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// The parameters' types.
    pub(crate) parameters: Vec<Oid>,
    /// The columns' names and types; `None` when there are no rows.
    pub(crate) columns: Option<Vec<(String, Oid)>>,
}

/// What running a statement gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Present if there is a result, even one without rows.
    pub(crate) rows: Option<Rows>,
    /// The command tag; empty for an empty statement.
    pub(crate) tag: String,
    /// A warning: code and text.
    pub(crate) warning: Option<(&'static str, String)>,
    /// Prepared statements to forget: one by name, or all.
    pub(crate) deallocate: Option<Option<String>>,
}

impl Answer {
    fn done(tag: impl Into<String>) -> Self {
        Self { tag: tag.into(), ..Self::default() }
    }

    fn rows(rows: Rows, kind: StatementKind) -> Self {
        let tag = kind.tag(rows.rows.len() as u64);
        Self { rows: Some(rows), tag, ..Self::default() }
    }
}

/// Where the connection's last write stands.
#[derive(Clone, Copy, Debug)]
struct Position {
    height: Height,
    index: u32,
    id: TransactionId,
}

/// What statements run on: the server, and what this connection did and set.
pub(crate) struct Context {
    driver: Driver,
    last: Option<Position>,
    pub(crate) variables: Variables,
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
    };
    if let Some(command) = Command::parse(text) {
        prepared.plan = Plan::Command(command?);
        return Ok(prepared);
    }
    if let Some(query) = catalog::recognise(text) {
        prepared.plan = Plan::Catalog(query?);
        return Ok(prepared);
    }
    let mut translated = translate(text)?;
    let Some(sql) = translated.statements.pop() else {
        prepared.plan = Plan::Command(Command::Nothing(translated.tag.unwrap_or("OK")));
        return Ok(prepared);
    };
    let classified = classify(&sql);
    prepared.plan = match classified.access {
        Access::Empty => Plan::Empty,
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
    prepared.returning = translated.returning;
    prepared.before = translated.statements;
    prepared.sql = sql;
    prepared.tag = translated.tag;
    prepared.notices = translated.notices;
    Ok(prepared)
}

impl Prepared {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.plan, Plan::Empty)
    }

    /// Whether running it before its client says so is without effect, so that its rows can be
    /// described by looking.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self.plan, Plan::Read | Plan::Catalog(_))
            || matches!(self.plan, Plan::Command(Command::Show(_)))
    }

    /// Whether it may give rows.
    pub(crate) fn gives_rows(&self) -> bool {
        match &self.plan {
            Plan::Empty => false,
            Plan::Command(command) => matches!(
                command,
                Command::Show(_) | Command::SetConfig(..) | Command::NothingSelected(_)
            ),
            Plan::Catalog(_) | Plan::Read => true,
            Plan::Write => self.returning,
        }
    }

    /// The type of the parameter at a place: what the client said, else what it was told.
    pub(crate) fn parameter_type(&self, place: usize) -> Oid {
        let said = self.said.get(place).copied().unwrap_or(oid::UNSPECIFIED);
        if said != oid::UNSPECIFIED {
            return said;
        }
        let told = self.described.get().and_then(|told| told.parameters.get(place));
        told.copied().unwrap_or(oid::UNSPECIFIED)
    }

    /// What the client was told, if it asked.
    pub(crate) fn told(&self) -> Option<&Described> {
        self.described.get()
    }

    fn statement(&self, values: Vec<Value>) -> Statement {
        Statement { sql: self.sql.clone(), parameters: Parameters::Positional(values) }
    }
}

impl Context {
    pub(crate) fn new(driver: Driver) -> Self {
        Self { driver, last: None, variables: Variables::default() }
    }

    /// Runs a statement.
    pub(crate) async fn run(
        &mut self,
        prepared: &Prepared,
        values: Vec<Value>,
    ) -> Result<Answer, WriteError> {
        match &prepared.plan {
            Plan::Empty => Ok(Answer::default()),
            Plan::Command(command) => Ok(self.command(command)?),
            Plan::Catalog(query) => {
                let rows = catalog::answer(query, &self.driver, self.height()).await?;
                Ok(Answer::rows(rows, StatementKind::Select))
            }
            Plan::Read => {
                let statement = prepared.statement(values);
                let options = ReadOptions::after(self.height());
                let read = self.driver.read(statement, Settings::default(), &options);
                Ok(Answer::rows(read.await?, prepared.kind))
            }
            Plan::Write => {
                // Words that nobody knows shall not cost every server a transaction.
                if prepared.kind == StatementKind::Other {
                    self.driver.describe(prepared.sql.clone(), Settings::default()).await?;
                }
                let before = prepared.before.iter().map(|sql| Statement {
                    sql: sql.clone(),
                    parameters: Parameters::Positional(Vec::new()),
                });
                let statements = before.chain([prepared.statement(values)]).collect();
                let options = WriteOptions::default();
                let write = self.driver.write(USER, statements, Settings::default(), &options);
                let written = write.await?;
                Ok(self.written(written, prepared))
            }
        }
    }

    fn written(&mut self, written: Written, prepared: &Prepared) -> Answer {
        let Written { id, height, index, mut results } = written;
        self.last = Some(Position { height, index, id });
        let Some(result) = results.pop() else {
            return Answer::done(prepared.kind.tag(0));
        };
        let rows = (!result.rows.columns.is_empty()).then_some(result.rows);
        let tag = prepared.tag.map(str::to_owned);
        let tag = tag.unwrap_or_else(|| result.kind.tag(result.rows_affected));
        let warning = prepared.notices.first().map(|notice| ("01000", notice.clone()));
        Answer { rows, tag, warning, ..Answer::default() }
    }

    fn height(&self) -> Height {
        self.last.map_or_else(Height::default, |position| position.height)
    }

    fn command(&mut self, command: &Command) -> Result<Answer, Refusal> {
        let answer = match command {
            Command::EndNothing(tag) => Answer {
                warning: Some(("25P01", "there is no transaction in progress".into())),
                ..Answer::done(*tag)
            },
            Command::Set(name, value) => {
                self.variables.set(name, value)?;
                Answer::done("SET")
            }
            Command::SetConfig(name, value) => {
                self.variables.set(name, value)?;
                Answer::rows(one("set_config", value.clone()), StatementKind::Select)
            }
            Command::Reset(name) => {
                self.variables.reset(name.as_deref())?;
                Answer::done("RESET")
            }
            Command::Show(Some(name)) => {
                let value = self.show(name)?;
                Answer { rows: Some(one(name, value)), ..Answer::done("SHOW") }
            }
            Command::Show(None) => {
                let all = self.variables.all();
                let rows = all.into_iter().map(|(name, value)| {
                    vec![Value::Text(name), Value::Text(value), Value::Text(String::new())]
                });
                let columns = ["name", "setting", "description"].map(text_column).into();
                Answer {
                    rows: Some(Rows { columns, rows: rows.collect() }),
                    ..Answer::done("SHOW")
                }
            }
            Command::Deallocate(name) => {
                let tag = if name.is_none() { "DEALLOCATE ALL" } else { "DEALLOCATE" };
                Answer { deallocate: Some(name.clone()), ..Answer::done(tag) }
            }
            Command::Discard(tag) => {
                self.variables.reset(None)?;
                Answer { deallocate: Some(None), ..Answer::done(*tag) }
            }
            Command::Nothing(tag) => Answer::done(*tag),
            Command::NothingSelected(name) => {
                Answer::rows(one(name, String::new()), StatementKind::Select)
            }
        };
        Ok(answer)
    }

    fn show(&self, name: &str) -> Result<String, Refusal> {
        match name {
            "rota.last" => {}
            // The other door, where `/status` is.
            "rota.http" => return Ok(self.driver.status().http.to_string()),
            _ => return self.variables.get(name),
        }
        Ok(self.last.map_or_else(String::new, |Position { height, index, id }| {
            format!("{height} {index} {id}")
        }))
    }

    /// What a statement takes and gives. Where a column's type is in question (an expression), a
    /// read is run with its parameters NULL to look at a row; what remains open is a number if it
    /// looks like arithmetic, else text.
    pub(crate) async fn describe(&self, prepared: &Prepared) -> Result<Described, Refusal> {
        if let Some(told) = prepared.described.get() {
            return Ok(told.clone());
        }
        let described = match &prepared.plan {
            Plan::Read | Plan::Write if needs_look(prepared) => self.look(prepared).await?,
            Plan::Catalog(query) => {
                let rows = catalog::answer(query, &self.driver, self.height()).await?;
                Described { parameters: Vec::new(), columns: Some(announced(&rows)) }
            }
            Plan::Command(Command::Show(None)) => {
                let columns = ["name", "setting", "description"];
                let columns = columns.map(|name| (name.to_owned(), oid::TEXT));
                Described { parameters: Vec::new(), columns: Some(columns.into()) }
            }
            Plan::Command(Command::Show(Some(name))) => one_text(name),
            Plan::Command(Command::SetConfig(..)) => one_text("set_config"),
            Plan::Command(Command::NothingSelected(name)) => one_text(name),
            _ => Described { parameters: Vec::new(), columns: None },
        };
        Ok(prepared.described.get_or_init(|| described).clone())
    }

    async fn look(&self, prepared: &Prepared) -> Result<Described, Refusal> {
        let described = self.driver.describe(prepared.sql.clone(), Settings::default()).await?;
        let parameters = (0..prepared.parameters)
            .map(|place| match prepared.said.get(place).copied() {
                Some(said) if said != oid::UNSPECIFIED => said,
                _ => infer::parameter(&described, place),
            })
            .collect();
        if described.columns.is_empty() {
            return Ok(Described { parameters, columns: None });
        }
        let guesses = infer::columns(&prepared.sql, described.columns.len());
        let mut types: Vec<Option<Oid>> = described
            .columns
            .iter()
            .zip(guesses.iter())
            .map(|(column, guess)| column.declared.as_deref().map(declared_type).or(guess.known()))
            .collect();
        if types.contains(&None) && matches!(prepared.plan, Plan::Read) {
            let nulls = vec![Value::Null; prepared.parameters];
            let options = ReadOptions::after(self.height());
            let read = self.driver.read(prepared.statement(nulls), Settings::default(), &options);
            // A statement that fails with NULLs will say so itself when it is run.
            let rows = read.await.map(|rows| rows.rows).unwrap_or_default();
            for (place, open) in types.iter_mut().enumerate().filter(|(_, open)| open.is_none()) {
                *open = rows.iter().find_map(|row| row.get(place).and_then(type_of_value));
            }
        }
        let columns = described
            .columns
            .into_iter()
            .zip(types)
            .zip(guesses)
            .map(|((column, known), guess)| (column.name, known.unwrap_or(guess.otherwise())))
            .collect();
        Ok(Described { parameters, columns: Some(columns) })
    }
}

/// Whether the database has to be asked what a statement takes and gives.
fn needs_look(prepared: &Prepared) -> bool {
    prepared.gives_rows() || prepared.parameters > 0
}

/// Rows' columns with the types to announce.
pub(crate) fn announced(rows: &Rows) -> Vec<(String, Oid)> {
    rows.columns.iter().map(|column| column.name.clone()).zip(types_of(rows)).collect()
}

fn text_column(name: &str) -> Column {
    Column { name: name.into(), declared: Some("TEXT".into()) }
}

fn one(name: &str, value: String) -> Rows {
    Rows { columns: vec![text_column(name)], rows: vec![vec![Value::Text(value)]] }
}

fn one_text(name: &str) -> Described {
    Described { parameters: Vec::new(), columns: Some(vec![(name.to_owned(), oid::TEXT)]) }
}

/// A prepared statement that several portals and names share.
pub(crate) type Shared = Arc<Prepared>;
