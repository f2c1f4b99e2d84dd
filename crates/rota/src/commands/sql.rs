//! `rota sql`: statements from the command line, a pipe or a terminal; rows to standard output,
//! everything else to standard error.

mod script;
mod shell;
pub mod show;

use std::io::{BufRead, IsTerminal};
use std::time::Instant;

use futures::{StreamExt, pin_mut};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::args::{Mode, Sql};
use crate::failure::{Failure, database};
use crate::postgres::Postgres;
use crate::print::out;
use crate::trust::Trust;
use script::Script;
use show::{Kind, Printer};

/// A connection with the way its answers are printed.
pub struct Session {
    server: Postgres,
    client: Client,
    mode: Mode,
    timer: bool,
}

/// Runs what was asked for, or a shell.
pub async fn run(asked: Sql) -> Result<(), Failure> {
    let (server, client) = asked.server.postgres(&Trust::new(&asked.authority)).await?;
    let mut session = Session { server, client, mode: asked.mode, timer: asked.timer };
    if !asked.command.is_empty() {
        for text in &asked.command {
            for statement in Script::whole(text) {
                session.run(&statement).await?;
            }
        }
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        return shell::run(session).await;
    }
    from_pipe(&mut session).await
}

/// Runs a script while it comes in. Stops at the first statement that fails: the next may rely on
/// it.
async fn from_pipe(session: &mut Session) -> Result<(), Failure> {
    let mut script = Script::default();
    let mut number: u64 = 0;
    let mut begun: u64 = 1;
    loop {
        let mut line = String::new();
        let read = tokio::task::block_in_place(|| std::io::stdin().lock().read_line(&mut line));
        let read = read.map_err(Failure::doing("reading standard input"))?;
        number += 1;
        let statements = match read {
            0 => script.rest().into_iter().collect(),
            _ if script.is_empty() && matches!(line.trim(), ".quit" | ".exit") => return Ok(()),
            _ if script.is_empty() && line.starts_with('.') => {
                shell::dot(session, line.trim()).await?;
                Vec::new()
            }
            _ => {
                if script.is_empty() {
                    begun = number;
                }
                script.push(&line)
            }
        };
        for statement in statements {
            let failed = |failure: Failure| match failure.is_quiet() {
                true => failure,
                false => Failure::new(format!("line {begun}: {failure}")),
            };
            session.run(&statement).await.map_err(failed)?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

impl Session {
    /// Runs one statement and prints what it answers.
    pub async fn run(&self, statement: &str) -> Result<(), Failure> {
        let begun = Instant::now();
        let said = |error| Failure::new(database(&error));
        let kinds = match self.mode {
            Mode::Json => self.kinds(statement).await,
            _ => Vec::new(),
        };
        let mut printer = Printer::new(self.mode, kinds);
        let messages = self.client.simple_query_raw(statement).await.map_err(said)?;
        pin_mut!(messages);
        while let Some(message) = messages.next().await {
            out(&match message.map_err(said)? {
                SimpleQueryMessage::RowDescription(columns) => {
                    printer.begin(columns.iter().map(|column| column.name().to_owned()).collect())
                }
                SimpleQueryMessage::Row(row) => {
                    printer.row((0..row.len()).map(|i| row.get(i)).collect())
                }
                SimpleQueryMessage::CommandComplete(count) => printer.end(count),
                _ => String::new(),
            })?;
        }
        if self.timer {
            eprintln!("{:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(())
    }

    /// Which columns are numbers or booleans, so that JSON shows them as such. Values come as text
    /// in the simple protocol; a statement that cannot be prepared has texts only.
    async fn kinds(&self, statement: &str) -> Vec<Kind> {
        match self.client.prepare(statement).await {
            Ok(prepared) => prepared.columns().iter().map(|c| Kind::of(c.type_())).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Runs a query of one column and prints its texts as they are, each with a semicolon.
    pub async fn print_lines(&self, query: &str) -> Result<(), Failure> {
        let messages = self.client.simple_query(query).await;
        for message in messages.map_err(|error| Failure::new(database(&error)))? {
            if let SimpleQueryMessage::Row(row) = message {
                out(&format!("{};\n", row.get(0).unwrap_or_default()))?;
            }
        }
        Ok(())
    }

    /// A new connection in place of a lost one.
    pub async fn reconnect(&mut self) -> Result<(), Failure> {
        self.client = self.server.connect().await?;
        Ok(())
    }

    /// Whether the server is gone.
    pub fn is_lost(&self) -> bool {
        self.client.is_closed()
    }
}
