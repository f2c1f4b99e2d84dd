//! `POST /db/load`: a SQLite file, or SQL text as `sqlite3 .dump` writes it, becomes one
//! transaction of the cluster. Steps 1 and 9 of a transaction's life.
//!
//! ```text
//!  body ─► a file of its own ─┬─ SQLite ─► checked, read row by row ─┐
//!            413              └─ SQL ────► cut into statements ──────┴─► begin, run, …, commit
//! ```
//! What a SQLite file holds replaces all tables; SQL text is run as it is. Foreign keys count at
//! the end, since neither kind has its rows in an order that would keep them.

use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Settings, Statement, Value};
use rota_store::access::Privilege;
use rota_store::backup::given::{Given, MAGIC, count_on};
use rota_store::backup::keys::{Indexes, Key, children_first, quote};
use rota_store::sql::{Access, Lexer, Token, classify, split};
use rota_store::{StatementKind, StatementResult};
use serde_json::{Map, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::levels::given;
use super::scratch::Temporary;
use super::{Door, go, refuse};
use crate::auth::Login;
use crate::driver::{
    BeginOptions, Driver, RunOptions, Transaction, WriteError, WriteOptions, Written,
};
use crate::status::Depth;

/// The largest body. A SQLite file has its indexes and free pages with it, so it may be a few times
/// larger than the largest transaction.
const MOST_BYTES: u64 = 256 << 20;

/// SQL text is in memory as a whole: as much as one transaction may have.
const MOST_TEXT: u64 = 64 << 20;

/// How many statements are read ahead of those that run.
const READ_AHEAD: usize = 4;

/// What to do with what is too much for one transaction.
const IN_PIECES: &str = "load it in pieces: SQL text with some of the tables or rows at a time, \
                         or COPY … FROM STDIN over PostgreSQL's protocol";

/// The tables and views that users have made.
const WHAT_IS_THERE: &str = "SELECT type, name FROM sqlite_schema
     WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
     AND name NOT LIKE 'rota\\_%' ESCAPE '\\' ORDER BY rowid";

/// Their foreign keys, column by column.
const KEYS: &str = "SELECT m.name, k.\"table\", k.seq, k.\"from\"
     FROM sqlite_schema m, pragma_foreign_key_list(m.name) k
     WHERE m.type = 'table' AND m.name NOT LIKE 'rota\\_%' ESCAPE '\\'
     ORDER BY m.rowid, k.id, k.seq";

/// Columns that take their numbers from a sequence.
const SEQUENCES: &str = "SELECT m.name, c.name, c.dflt_value
     FROM sqlite_schema m, pragma_table_xinfo(m.name) c
     WHERE m.type = 'table' AND c.dflt_value LIKE '%rota_nextval%'";

/// From here on violations of foreign keys count at the transaction's end.
const DEFER: &str = "PRAGMA defer_foreign_keys = ON";

/// Loads what the body holds.
pub(super) async fn load(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Query(options): Query<Vec<(String, String)>>,
    body: Body,
) -> Response {
    let started = Instant::now();
    if !may(&door, &login) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a load may replace everything: it is for those who may do everything with all tables",
        );
    }
    let Some(_place) = door.scratch.load() else {
        let why = "this server is loading something already: try again";
        return refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let loaded = match receive(&door, body).await {
        Ok(given) => Loading::begin(&door, &login).run(given).await,
        Err(failure) => Err(failure),
    };
    match loaded {
        Ok(loaded) => loaded.response(&door.driver, &options, started),
        Err(failure) => failure.response(),
    }
}

fn may(door: &Door, login: &Login) -> bool {
    let all = [
        Privilege::Select,
        Privilege::Insert,
        Privilege::Update,
        Privilege::Delete,
        Privilege::Create,
    ];
    let access = door.driver.access();
    let rights = access.rights_of(&login.user);
    rights.is_some_and(|rights| all.into_iter().all(|one| rights.may_everywhere(one)))
}

/// Why nothing was loaded.
struct Failure {
    code: StatusCode,
    why: String,
    /// Present once the transaction was sent.
    id: Option<String>,
}

impl Failure {
    fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), id: None }
    }

    fn scratch(error: std::io::Error) -> Self {
        tracing::error!(%error, "a file to be loaded could not be kept");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("writing a temporary file: {error}"))
    }

    fn response(self) -> Response {
        match self.id {
            None => refuse(self.code, &self.why),
            Some(id) => {
                let body = json!({ "error": self.why, "rota": { "id": id } });
                (self.code, axum::Json(body)).into_response()
            }
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.code() {
            sqlstate::BUSY | sqlstate::CANNOT_CONNECT_NOW | sqlstate::SERIALIZATION_FAILURE => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            sqlstate::INSUFFICIENT_PRIVILEGE => StatusCode::FORBIDDEN,
            sqlstate::TOO_COMPLEX | sqlstate::STATEMENT_TOO_COMPLEX => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            sqlstate::INTERNAL | sqlstate::OUTCOME_UNKNOWN => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        if code == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(code, format!("{}; {IN_PIECES}", refusal.message));
        }
        Self::new(code, refusal.message)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let id = error.id.map(|id| id.to_string());
        Self { id, ..Self::from(error.refusal) }
    }
}

/// What came.
enum Received {
    File(Temporary),
    Sql(String),
}

/// Keeps a body in a file, as it comes.
async fn receive(door: &Door, body: Body) -> Result<Received, Failure> {
    let kept = door.scratch.file().map_err(Failure::scratch)?;
    let file = kept.file.try_clone().map_err(Failure::scratch)?;
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = 0u64;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {error}"))
        })?;
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > MOST_BYTES {
            let why = format!("a body of more than {MOST_BYTES} bytes; {IN_PIECES}");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        file.write_all(&chunk).await.map_err(Failure::scratch)?;
    }
    file.flush().await.map_err(Failure::scratch)?;
    tokio::task::spawn_blocking(move || sort(kept, bytes)).await.map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("reading the body: {error}"))
    })?
}

/// Tells a SQLite file from SQL text.
fn sort(mut kept: Temporary, bytes: u64) -> Result<Received, Failure> {
    if bytes == 0 {
        let why = "the body is empty: send a SQLite file, or SQL text (curl: --data-binary @FILE)";
        return Err(Failure::new(StatusCode::BAD_REQUEST, why));
    }
    kept.file.rewind().map_err(Failure::scratch)?;
    let mut start = Vec::with_capacity(MAGIC.len());
    (&kept.file).take(MAGIC.len() as u64).read_to_end(&mut start).map_err(Failure::scratch)?;
    if start == MAGIC {
        return Ok(Received::File(kept));
    }
    if bytes > MOST_TEXT {
        let why = format!("SQL text of more than {MOST_TEXT} bytes; {IN_PIECES}");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    kept.file.rewind().map_err(Failure::scratch)?;
    let mut text = String::new();
    match kept.file.read_to_string(&mut text) {
        Ok(_) => Ok(Received::Sql(text)),
        Err(_) => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "the body is neither a SQLite file nor SQL text in UTF-8 (a compressed one has to be \
             uncompressed first)",
        )),
    }
}

/// What was loaded.
struct Loaded {
    /// Of SQL text: what its statements did.
    result: Option<StatementResult>,
    written: Option<Written>,
}

impl Loaded {
    fn response(self, driver: &Driver, options: &[(String, String)], started: Instant) -> Response {
        let mut results = Vec::new();
        if let Some(result) = self.result {
            let mut one = Map::new();
            if result.last_insert_rowid != 0 {
                one.insert("last_insert_id".into(), result.last_insert_rowid.into());
            }
            if result.rows_affected != 0 {
                one.insert("rows_affected".into(), result.rows_affected.into());
            }
            results.push(one);
        }
        let mut body = Map::new();
        body.insert("results".into(), json!(results));
        if given(options, "timings").is_some() {
            body.insert("time".into(), started.elapsed().as_secs_f64().into());
        }
        let written = self.written.filter(|_| given(options, "rota").is_some());
        if let Some(written) = written {
            let mut position = Map::new();
            position.insert("height".into(), written.height.0.into());
            position.insert("index".into(), written.index.into());
            position.insert("id".into(), written.id.to_string().into());
            let depth = driver.depth(written.height);
            position.extend(depth.map(Depth::members).unwrap_or_default());
            body.insert("rota".into(), position.into());
        }
        let text = serde_json::Value::Object(body).to_string();
        let text = if given(options, "pretty").is_some() { go::indented(&text) } else { text };
        let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        (json, text).into_response()
    }
}

/// The transaction that it becomes.
struct Loading {
    begun: Result<Transaction, Refusal>,
}

impl Loading {
    fn begin(door: &Door, login: &Login) -> Self {
        // As at all of this door: a schema may have been made with strings in double quotes.
        let settings = Settings { double_quoted_strings: true, ..Settings::default() };
        Self { begun: door.driver.begin(&login.user, settings, BeginOptions::default()) }
    }

    async fn run(self, given: Received) -> Result<Loaded, Failure> {
        let mut transaction = self.begun?;
        let result = match given {
            Received::File(kept) => {
                replace(&mut transaction, kept).await?;
                None
            }
            Received::Sql(text) => Some(script(&mut transaction, &text).await?),
        };
        let written = transaction.commit(&WriteOptions::default()).await?;
        Ok(Loaded { result, written })
    }
}

async fn run(
    transaction: &mut Transaction,
    statement: Statement,
) -> Result<StatementResult, Refusal> {
    transaction.run(statement, &RunOptions::default()).await
}

fn plain(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), parameters: Parameters::Positional(Vec::new()) }
}

/// All tables and views go, and what is in the file comes.
async fn replace(transaction: &mut Transaction, kept: Temporary) -> Result<(), Failure> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let _gone = CallOff(Arc::clone(&cancelled));
    let (send, mut statements) = mpsc::channel(READ_AHEAD);
    // What no name of anybody's begins with.
    let prefix = transaction.id().to_string();
    let reading = tokio::task::spawn_blocking(move || {
        let given = Given::open(&kept.path, &cancelled)?;
        given.statements(&prefix, &mut |statement| send.blocking_send(statement).is_ok())
    });
    let Some(first) = statements.recv().await else {
        // Nothing is in it, or it cannot be read.
        finished(reading).await?;
        return drop_all(transaction).await;
    };
    drop_all(transaction).await?;
    run(transaction, first).await?;
    while let Some(statement) = statements.recv().await {
        run(transaction, statement).await?;
    }
    finished(reading).await
}

async fn finished(reading: JoinHandle<Result<(), Refusal>>) -> Result<(), Failure> {
    let read = reading.await.map_err(|error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("reading the file: {error}"))
    })?;
    Ok(read?)
}

/// Stops the reading of a file that nobody waits for any more.
struct CallOff(Arc<AtomicBool>);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Drops what is there; from then on foreign keys count at the end.
async fn drop_all(transaction: &mut Transaction) -> Result<(), Failure> {
    let there = run(transaction, plain(WHAT_IS_THERE)).await?;
    let (mut views, mut tables) = (Vec::new(), Vec::new());
    for row in there.rows.rows {
        if let [Value::Text(kind), Value::Text(name)] = row.as_slice() {
            let of_kind = if kind == "view" { &mut views } else { &mut tables };
            of_kind.push(name.clone());
        }
    }
    for view in views {
        run(transaction, plain(&format!("DROP VIEW {}", quote(&view)))).await?;
    }
    let keys = keys(transaction).await?;
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let turns = children_first(&names, &keys);
    let mut indexes = Indexes::new(transaction.id().to_string());
    let mut deferred = false;
    for turn in &turns {
        let Some(name) = names.get(turn.table) else { continue };
        let is_own = |key: &&Key| key.child.eq_ignore_ascii_case(name);
        // Rows that refer to a table that is gone are so for a moment only. It costs something.
        if !deferred && !turn.referred.iter().all(is_own) {
            deferred = true;
            run(transaction, plain(DEFER)).await?;
        }
        for key in &turn.referred {
            run(transaction, indexes.create(key)).await?;
        }
        run(transaction, plain(&format!("DROP TABLE {}", quote(name)))).await?;
    }
    if !deferred {
        run(transaction, plain(DEFER)).await?;
    }
    Ok(())
}

/// The foreign keys of all tables.
async fn keys(transaction: &mut Transaction) -> Result<Vec<Key>, Refusal> {
    let found = transaction.look(plain(KEYS), &RunOptions::default()).await?;
    let mut keys: Vec<Key> = Vec::new();
    for row in found.rows {
        let [Value::Text(child), Value::Text(parent), Value::Integer(seq), Value::Text(column)] =
            row.as_slice()
        else {
            continue;
        };
        if *seq == 0 {
            let (child, parent) = (child.clone(), parent.clone());
            keys.push(Key { child, parent, columns: Vec::new() });
        }
        if let Some(key) = keys.last_mut() {
            key.columns.push(column.clone());
        }
    }
    Ok(keys)
}

/// Runs SQL text; what it did, all together.
async fn script(transaction: &mut Transaction, text: &str) -> Result<StatementResult, Failure> {
    run(transaction, plain(DEFER)).await?;
    let mut sum = StatementResult::nothing(StatementKind::Other);
    for (number, sql) in (1..).zip(split(text)) {
        match role(sql) {
            Role::Skipped => continue,
            Role::Run => {}
            Role::Abandoned => {
                let why = format!("statement {number} is ROLLBACK: the text takes itself back");
                return Err(Failure::new(StatusCode::BAD_REQUEST, why));
            }
        }
        let result = run(transaction, plain(sql)).await.map_err(|mut refusal| {
            refusal.message = format!("statement {number}: {}", refusal.message);
            refusal
        })?;
        sum.rows_affected = sum.rows_affected.saturating_add(result.rows_affected);
        if result.kind == StatementKind::Insert {
            sum.last_insert_rowid = result.last_insert_rowid;
        }
    }
    // A dump says nothing of where they stand.
    let found = transaction.look(plain(SEQUENCES), &RunOptions::default()).await?;
    for row in found.rows {
        if let [Value::Text(table), Value::Text(column), Value::Text(default)] = row.as_slice() {
            for statement in count_on(table, column, default) {
                run(transaction, statement).await?;
            }
        }
    }
    Ok(sum)
}

/// What becomes of a statement of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Run,
    /// It is about the file that the dump would become, or about its transaction.
    Skipped,
    /// It says that the dump is not to be kept.
    Abandoned,
}

fn role(sql: &str) -> Role {
    let found = classify(sql);
    match found.kind {
        StatementKind::Pragma | StatementKind::Begin | StatementKind::Commit => Role::Skipped,
        StatementKind::Rollback => Role::Abandoned,
        _ if found.access == Access::Empty => Role::Skipped,
        _ if is_about_statistics(sql) => Role::Skipped,
        _ => Role::Run,
    }
}

/// ANALYZE, and rows of SQLite's own tables: where AUTOINCREMENT stands, and statistics.
fn is_about_statistics(sql: &str) -> bool {
    let words: Vec<String> = Lexer::new(sql)
        .take(3)
        .map(|(_, token)| match token {
            Token::Word(word) => word.to_ascii_lowercase(),
            Token::Quoted(name) => name.trim_matches('"').to_ascii_lowercase(),
            _ => String::new(),
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["analyze", ..] => true,
        ["insert", "into", table] | ["delete", "from", table] => {
            *table == "sqlite_sequence" || table.starts_with("sqlite_stat")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dump_says_of_its_own_file_is_skipped() {
        for (sql, want) in [
            ("PRAGMA foreign_keys=OFF", Role::Skipped),
            ("BEGIN TRANSACTION", Role::Skipped),
            ("COMMIT", Role::Skipped),
            ("DELETE FROM sqlite_sequence", Role::Skipped),
            ("INSERT INTO \"sqlite_sequence\" VALUES('t',5)", Role::Skipped),
            ("INSERT INTO sqlite_stat1 VALUES('t','i','5 1')", Role::Skipped),
            ("ANALYZE sqlite_schema", Role::Skipped),
            ("/* nothing */", Role::Skipped),
            ("ROLLBACK", Role::Abandoned),
            ("ROLLBACK TO s", Role::Run),
            ("INSERT INTO t VALUES('sqlite_sequence')", Role::Run),
            ("DELETE FROM t", Role::Run),
            ("CREATE TABLE t(a)", Role::Run),
        ] {
            assert_eq!(role(sql), want, "{sql}");
        }
    }
}
