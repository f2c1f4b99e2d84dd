//! The shell: lines with history, and the commands that begin with a dot.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::Session;
use super::script::Script;
use crate::args::Mode;
use crate::failure::Failure;

/// What `.help` says.
const HELP: &str = "\
.tables [LIKE]           the tables and views; those of the system begin with rota_
.schema [TABLE]          the statements that made them
.mode table|csv|json|line
.timer on|off            how long each statement took
.help                    this
.quit                    leave; so does Ctrl-D
A statement ends with `;`. SHOW rota.last gives the position of your last write.";

/// How long an answer may take after Ctrl-C before the connection is given up.
const AFTER_CTRL_C: Duration = Duration::from_millis(200);

/// Reads and runs until the user leaves.
pub async fn run(mut session: Session) -> Result<(), Failure> {
    let mut editor = DefaultEditor::new().map_err(Failure::doing("starting the shell"))?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    eprintln!("rota {} on {}; .help for help", env!("CARGO_PKG_VERSION"), session.server.at());
    let mut script = Script::default();
    loop {
        let prompt = if script.is_empty() { "rota> " } else { "  ..> " };
        let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                script.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::new(format!("reading the terminal: {error}"))),
        };
        if !line.trim().is_empty() && !may_tell_a_password(&line) {
            // A history that cannot be kept is no reason to stop.
            let _ = editor.add_history_entry(line.as_str());
        }
        if script.is_empty() && line.starts_with('.') {
            if matches!(line.trim(), ".quit" | ".exit") {
                break;
            }
            report(dot(&mut session, line.trim()).await);
            continue;
        }
        for statement in script.push(&line) {
            if !run_statement(&mut session, &statement).await {
                break;
            }
        }
    }
    if let Some(file) = &history {
        let _ = editor.save_history(file);
    }
    Ok(())
}

/// Runs a statement until it is done or Ctrl-C is pressed. Whether it worked.
async fn run_statement(session: &mut Session, statement: &str) -> bool {
    if session.is_lost() {
        match session.reconnect().await {
            Ok(()) => eprintln!("connected again; settings of the old session are gone"),
            Err(failure) => {
                report(Err(failure));
                return false;
            }
        }
    }
    let outcome = {
        let running = session.run(statement);
        tokio::pin!(running);
        tokio::select! {
            outcome = &mut running => Some(outcome),
            _ = tokio::signal::ctrl_c() => {
                let told = session.server.cancel(&session.client);
                // A server that cannot be told is given up below.
                let _ = tokio::time::timeout(AFTER_CTRL_C, told).await;
                tokio::time::timeout(AFTER_CTRL_C, &mut running).await.ok()
            }
        }
    };
    match outcome {
        Some(outcome) => report(outcome),
        None => {
            eprintln!("not waiting any longer; a write may still take effect");
            report(session.reconnect().await)
        }
    }
}

/// Whether a line is better not kept in a file.
fn may_tell_a_password(line: &str) -> bool {
    line.to_ascii_lowercase().contains("password")
}

fn report(outcome: Result<(), Failure>) -> bool {
    if let Err(failure) = &outcome
        && !failure.is_quiet()
    {
        eprintln!("{failure}");
    }
    outcome.is_ok()
}

/// Runs a command that begins with a dot.
pub async fn dot(session: &mut Session, line: &str) -> Result<(), Failure> {
    let mut words = line.split_whitespace();
    let (command, argument) = (words.next().unwrap_or_default(), words.next());
    match (command, argument) {
        (".tables", like) => {
            let like = like.map_or_else(
                || "name NOT LIKE 'rota~_%' ESCAPE '~'".into(),
                |like| format!("name LIKE {}", quoted(like)),
            );
            let sql = format!(
                "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') \
                 AND name NOT LIKE 'sqlite~_%' ESCAPE '~' AND {like} ORDER BY name"
            );
            session.run(&sql).await
        }
        (".schema", table) => {
            let table = table.map_or_else(
                || "tbl_name NOT LIKE 'rota~_%' ESCAPE '~'".into(),
                |table| format!("tbl_name = {}", quoted(table)),
            );
            let sql = format!(
                "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND {table} ORDER BY rowid"
            );
            session.print_lines(&sql).await
        }
        (".mode", Some(mode)) => {
            session.mode = Mode::from_str(mode, true)
                .map_err(|_| Failure::new("the modes are table, csv, json and line"))?;
            Ok(())
        }
        (".timer", Some(on @ ("on" | "off"))) => {
            session.timer = on == "on";
            Ok(())
        }
        (".help", _) => {
            eprintln!("{HELP}");
            Ok(())
        }
        _ => Err(Failure::new(format!("`{line}` is no command of this shell; .help lists them"))),
    }
}

/// A text as SQL writes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Where lines are remembered: with the user's other state, by the XDG Base Directory
/// Specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(|| {
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local").join("state"))
    })?;
    let folder = state.join("rota");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}
