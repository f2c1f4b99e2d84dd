//! The session's own statements, answered, and what a statement takes and gives, described. Steps 1
//! and 9.

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Settings, Value};
use rota_store::query::Description;
use rota_store::{Column, Rows, StatementKind};

use super::block::{aborted, outside};
use super::commands::Command;
use super::context::{Answer, Context, Position};
use super::cursors::no_cursor;
use super::encode::{self, Oid, Type, declared_type, oid, type_of_value};
use super::infer::{self, Guess};
use super::statement::{Described, Plan, Prepared, Shared, prepare};
use super::variables::switch;
use crate::driver::WriteError;

/// The columns of SHOW ALL.
const ALL_COLUMNS: [&str; 3] = ["name", "setting", "description"];

impl Context {
    /// Runs one of the session's own statements.
    pub(super) async fn command(
        &mut self,
        command: &Command,
        alone: bool,
    ) -> Result<Answer, WriteError> {
        let loose = self.block.is_idle() && alone;
        let answer = match command {
            Command::Begin(tag, modes) => self.begin_command(tag, *modes)?,
            Command::Commit { chain } => self.end_command(true, *chain).await?,
            Command::Rollback { chain } => self.end_command(false, *chain).await?,
            Command::Savepoint(name) => self.savepoint(name).await?,
            Command::Release(name) => self.release(name).await?,
            Command::RollbackTo(name) => self.rollback_to(name).await?,
            Command::SetTransaction(modes) => {
                if loose {
                    let message = "SET TRANSACTION can only be used in transaction blocks";
                    Answer::done("SET").warned("25P01", message)
                } else {
                    self.enter()?;
                    self.apply(*modes)?;
                    Answer::done("SET")
                }
            }
            Command::SetCharacteristics(modes) => {
                if let Some(only) = modes.read_only {
                    let value = if only { "on" } else { "off" };
                    self.variables.set("default_transaction_read_only", Some(value), false)?;
                }
                Answer::done("SET")
            }
            Command::Set(_, _, true) if loose => {
                let message = "SET LOCAL can only be used in transaction blocks";
                Answer::done("SET").warned("25P01", message)
            }
            Command::Set(name, value, local) => {
                self.set(name, value.as_deref(), *local)?;
                Answer::done("SET")
            }
            Command::SetConfig(name, value, local) => {
                let value = if *local && loose {
                    // It would be gone with this statement.
                    value.clone()
                } else {
                    self.set(name, Some(value), *local)?
                };
                Answer::rows(one("set_config", value), StatementKind::Select)
            }
            Command::Execute(..) => return Err(nested().into()),
            command => self.simple_command(command, loose)?,
        };
        Ok(answer)
    }

    /// Those that neither wait nor touch the transaction.
    fn simple_command(&mut self, command: &Command, loose: bool) -> Result<Answer, Refusal> {
        Ok(match command {
            Command::Reset(None) => {
                self.variables.reset_all();
                Answer::done("RESET")
            }
            Command::Reset(Some(name)) => {
                self.set(name, None, false)?;
                Answer::done("RESET")
            }
            Command::Show(Some(name)) => {
                let value = self.show(name)?;
                Answer { rows: Some(one(name, value)), ..Answer::done("SHOW") }
            }
            Command::CurrentSetting(name, missing) => {
                let value = match self.show(&name.to_ascii_lowercase()) {
                    Ok(value) => Value::Text(value),
                    Err(_) if *missing => Value::Null,
                    Err(refusal) => return Err(refusal),
                };
                let columns = vec![text_column("current_setting")];
                Answer::rows(Rows { columns, rows: vec![vec![value]] }, StatementKind::Select)
            }
            Command::Show(None) => {
                let all = self.variables.all();
                let rows = all.into_iter().map(|(name, value)| {
                    vec![Value::Text(name), Value::Text(value), Value::Text(String::new())]
                });
                let columns = ALL_COLUMNS.map(text_column).into();
                let rows = Rows { columns, rows: rows.collect() };
                Answer { rows: Some(rows), ..Answer::done("SHOW") }
            }
            Command::Prepare(name, types, text) => {
                if name.is_empty() || self.statements.contains(name) {
                    let message = format!("prepared statement \"{name}\" already exists");
                    return Err(Refusal::new("42P05", message));
                }
                let types = types.iter().map(|name| named_type(name)).collect();
                let prepared = prepare(text, types)?;
                if !prepared.can_be_executed() {
                    return Err(Refusal::new(
                        sqlstate::SYNTAX_ERROR,
                        "PREPARE takes a SELECT, INSERT, UPDATE, DELETE or VALUES",
                    ));
                }
                self.statements.insert(name.clone(), prepared, text.len())?;
                Answer::done("PREPARE")
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                Answer::done("DEALLOCATE ALL")
            }
            Command::Deallocate(Some(name)) => {
                self.statements.get(name)?;
                self.statements.remove(name);
                Answer::done("DEALLOCATE")
            }
            Command::Fetch(fetch) => self.portals.fetch(fetch)?,
            Command::Close(None) => {
                self.portals.close_all();
                Answer::done("CLOSE CURSOR ALL")
            }
            Command::Close(Some(name)) => {
                if !self.portals.close(name) {
                    return Err(no_cursor(name));
                }
                Answer::done("CLOSE CURSOR")
            }
            Command::Discard("DISCARD ALL") => {
                if !loose {
                    return Err(Refusal::new(
                        "25001",
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.variables.reset_all();
                self.statements.clear();
                self.portals.close_all();
                Answer::done("DISCARD ALL")
            }
            Command::Discard(tag) => Answer::done(*tag),
            Command::Lock if loose => return Err(outside("LOCK TABLE")),
            Command::Lock => Answer::done("LOCK TABLE"),
            Command::Nothing(tag) => Answer::done(*tag),
            Command::NothingSelected(name) => {
                Answer::rows(one(name, String::new()), StatementKind::Select)
            }
            _ => return Err(nested()),
        })
    }

    /// SET, of what is the transaction's as well as of what is the session's.
    fn set(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<String, Refusal> {
        match (name, value) {
            ("transaction_read_only", Some(value)) => {
                let only = switch(&value.to_ascii_lowercase()).ok_or_else(|| wrong(name, value))?;
                if !self.block.is_idle() {
                    self.block.set_read_only(only)?;
                }
                self.show(name)
            }
            ("transaction_isolation" | "transaction_deferrable", _) => self.show(name),
            _ => self.variables.set(name, value, local),
        }
    }

    fn show(&self, name: &str) -> Result<String, Refusal> {
        let on = |on: bool| Ok(if on { "on" } else { "off" }.to_owned());
        match name {
            "transaction_isolation" => Ok("serializable".into()),
            "transaction_deferrable" => on(false),
            "transaction_read_only" if self.block.is_idle() => {
                on(self.variables.meaning().read_only)
            }
            "transaction_read_only" => on(self.block.is_read_only()),
            "rota.transaction" => Ok(self.block.id().map(|id| id.to_string()).unwrap_or_default()),
            "rota.last" => {
                Ok(self.last.map_or_else(String::new, |Position { height, index, id }| {
                    let depth = self.driver.depth(height).map(|depth| format!(" {depth}"));
                    format!("{height} {index} {id}{}", depth.unwrap_or_default())
                }))
            }
            // The other door, where `/status` is.
            "rota.http" => Ok(self.driver.status().http.to_string()),
            _ => self.variables.get(name),
        }
    }
}

/// Describing.
impl Context {
    /// What a statement takes and gives. Where a column's type is in question (an expression), a
    /// read is run with its parameters NULL to look at a row; what remains open is a number if it
    /// looks like arithmetic, else text.
    pub(crate) async fn describe(&mut self, prepared: &Prepared) -> Result<Described, Refusal> {
        if let Plan::Command(Command::Execute(name, _)) = &prepared.plan {
            let target = self.statements.get(name)?;
            let columns = self.describe_plan(&target).await?.columns;
            return Ok(Described { parameters: Vec::new(), columns });
        }
        self.describe_plan(prepared).await
    }

    async fn describe_plan(&mut self, prepared: &Prepared) -> Result<Described, Refusal> {
        if let Some(told) = prepared.described.get() {
            return Ok(told.clone());
        }
        let nothing = Described { parameters: Vec::new(), columns: None };
        let described = match &prepared.plan {
            Plan::Read | Plan::Catalog | Plan::Write if needs_look(prepared) => {
                self.look(prepared).await?
            }
            Plan::Declare(_, query) => {
                let query = Shared::clone(query);
                let parameters = if query.parameters > 0 {
                    self.look(&query).await?.parameters
                } else {
                    Vec::new()
                };
                Described { parameters, columns: None }
            }
            Plan::Command(Command::Show(None)) => {
                let columns = ALL_COLUMNS.map(|name| (name.to_owned(), oid::TEXT.into()));
                Described { parameters: Vec::new(), columns: Some(columns.into()) }
            }
            Plan::Command(Command::Show(Some(name))) => one_text(name),
            Plan::Command(Command::SetConfig(..)) => one_text("set_config"),
            Plan::Command(Command::CurrentSetting(..)) => one_text("current_setting"),
            Plan::Command(Command::NothingSelected(name)) => one_text(name),
            // The cursor may be another one next time: nothing to remember.
            Plan::Command(Command::Fetch(fetch)) if !fetch.only_move => {
                let portal = self.portals.get(&fetch.name).ok_or_else(|| no_cursor(&fetch.name))?;
                let columns = portal.ran.as_ref().and_then(|ran| ran.answer.columns());
                return Ok(Described { parameters: Vec::new(), columns });
            }
            _ => nothing,
        };
        Ok(prepared.described.get_or_init(|| described).clone())
    }

    async fn look(&mut self, prepared: &Prepared) -> Result<Described, Refusal> {
        let described = self.description(prepared).await?;
        let parameters = parameters(prepared, &described);
        if described.columns.is_empty() {
            return Ok(Described { parameters, columns: None });
        }
        let count = described.columns.len();
        let guesses = infer::columns(&prepared.sql, count, &parameters, Some(&described.tables));
        let mut types: Vec<Option<Type>> = described
            .columns
            .iter()
            .zip(guesses.iter())
            .map(|(column, guess)| {
                let declared = column.declared.as_deref().map(declared_type);
                declared.or_else(|| guess.known())
            })
            .collect();
        if types.contains(&None) && matches!(prepared.plan, Plan::Read | Plan::Catalog) {
            // A statement that fails with NULLs will say so itself when it is run.
            let rows = self.with_nulls(prepared).await.map(|rows| rows.rows).unwrap_or_default();
            for (place, open) in types.iter_mut().enumerate().filter(|(_, open)| open.is_none()) {
                *open = rows.iter().find_map(|row| row.get(place).and_then(type_of_value));
            }
        }
        let columns = described
            .columns
            .into_iter()
            .zip(types)
            .zip(guesses)
            .map(|((column, known), guess)| {
                (column.name, known.unwrap_or_else(|| guess.otherwise().into()))
            })
            .collect();
        Ok(Described { parameters, columns: Some(columns) })
    }

    /// Finds the types of parameters that nobody says, for values that mean nothing without.
    pub(crate) async fn infer_parameters(&mut self, prepared: &Prepared) -> Result<(), Refusal> {
        if prepared.told().is_none() && prepared.inferred.get().is_none() {
            let described = self.description(prepared).await?;
            prepared.inferred.get_or_init(|| parameters(prepared, &described));
        }
        Ok(())
    }

    /// Says of what types an answer's columns are, where their declarations do not.
    pub(super) async fn announce(&mut self, prepared: &Prepared, answer: &mut Answer) {
        let Some(rows) = answer.rows.as_ref() else { return };
        if rows.columns.iter().all(|column| column.declared.is_some()) {
            return;
        }
        let count = rows.columns.len();
        let mut guesses = prepared.guesses.get().cloned();
        if guesses.is_none() {
            let said = &prepared.said;
            let mut found = infer::columns(&prepared.sql, count, said, None);
            if found.contains(&Guess::Asks)
                && let Ok(described) = self.description(prepared).await
            {
                found = infer::columns(&prepared.sql, count, said, Some(&described.tables));
            }
            guesses = Some(prepared.guesses.get_or_init(|| found).clone());
        }
        let guesses = guesses.unwrap_or_default();
        answer.types = Some(encode::types_by(rows, &guesses));
    }

    async fn description(&mut self, prepared: &Prepared) -> Result<Description, Refusal> {
        let sql = prepared.sql.clone();
        if self.block.is_failed() {
            return Err(aborted());
        }
        match self.block.transaction() {
            Some(transaction) => transaction.describe(sql).await,
            None => {
                let user = self.variables.user();
                self.driver.describe(user, sql, Settings::default()).await
            }
        }
    }

    async fn with_nulls(&mut self, prepared: &Prepared) -> Result<Rows, Refusal> {
        let statement = prepared.statement(vec![Value::Null; prepared.parameters]);
        let (inside, outside) = (self.run_options(), self.read_options());
        match self.block.transaction() {
            Some(transaction) => transaction.look(statement, &inside).await,
            None => {
                let user = self.variables.user();
                self.driver.read(user, statement, Settings::default(), &outside).await
            }
        }
    }
}

/// The types of a statement's parameters: what is said, else what is found.
fn parameters(prepared: &Prepared, described: &Description) -> Vec<Oid> {
    let said = |place: usize| prepared.said.get(place).copied();
    (0..prepared.parameters)
        .map(|place| match said(place) {
            Some(said) if said != oid::UNSPECIFIED => said,
            _ => infer::parameter(described, place),
        })
        .collect()
}

/// Whether the database has to be asked what a statement takes and gives.
fn needs_look(prepared: &Prepared) -> bool {
    prepared.only_reads() || prepared.returning || prepared.parameters > 0
}

/// The type that a PREPARE names.
fn named_type(name: &str) -> Oid {
    if name.eq_ignore_ascii_case("unknown") { oid::UNSPECIFIED } else { declared_type(name).oid }
}

fn text_column(name: &str) -> Column {
    Column { name: name.into(), declared: Some("TEXT".into()) }
}

fn one(name: &str, value: String) -> Rows {
    Rows { columns: vec![text_column(name)], rows: vec![vec![Value::Text(value)]] }
}

fn one_text(name: &str) -> Described {
    Described { parameters: Vec::new(), columns: Some(vec![(name.to_owned(), oid::TEXT.into())]) }
}

fn wrong(name: &str, value: &str) -> Refusal {
    Refusal::new(
        sqlstate::INVALID_PARAMETER,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
}

/// EXECUTE of an EXECUTE, which PREPARE does not let in.
fn nested() -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, "this statement cannot be executed here")
}
