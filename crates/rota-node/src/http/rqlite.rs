//! rqlite's data API: `/db/execute`, `/db/query`, `/db/request`.
//!
//! Every statement is a transaction of its own, one after the other, each whatever became of those
//! before; with `?transaction` all are one. An answer comes after its writes are executed here, so
//! that the next read sees them. Status 503 always means that nothing was done: a client may repeat
//! the request. What failed afterwards is told inside the results.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::{Parameters, Settings, Statement};
use rota_store::sql::{Access, classify};
use rota_store::{StatementKind, StatementResult};
use serde_json::{Map, Value as JsonValue, json};

use super::json::{self, Shape};
use super::levels::{Freshness, Levels};
use super::{Door, MAX_BODY_BYTES, refuse};
use crate::driver::{ReadOptions, Wait, WriteError, WriteOptions, Written};

/// In whose name everything happens until there are users.
const USER: &str = "rota";

/// The parameters of an address: `?transaction&timings`.
type Options = Query<Vec<(String, String)>>;

/// What may stand in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Writes,
    Reads,
    Both,
}

/// `POST /db/execute`.
pub(crate) async fn execute(
    State(door): State<Door>,
    Query(options): Options,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(&door, &options, body, Takes::Writes).await.unwrap_or_else(|refused| refused)
}

/// `POST /db/query`.
pub(crate) async fn query(
    State(door): State<Door>,
    Query(options): Options,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(&door, &options, body, Takes::Reads).await.unwrap_or_else(|refused| refused)
}

/// `POST /db/request`.
pub(crate) async fn request(
    State(door): State<Door>,
    Query(options): Options,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    answer(&door, &options, body, Takes::Both).await.unwrap_or_else(|refused| refused)
}

/// `GET /db/query?q=SELECT…`.
pub(crate) async fn query_of_address(
    State(door): State<Door>,
    Query(options): Options,
) -> Response {
    let sql = options.iter().find(|(name, _)| name == "q").map(|(_, sql)| sql.clone());
    let Some(sql) = sql else {
        return refuse(StatusCode::BAD_REQUEST, "?q= with a SELECT is missing");
    };
    let statements = vec![Statement { sql, parameters: Parameters::Positional(Vec::new()) }];
    match Levels::of(&options) {
        Err(why) => refuse(StatusCode::BAD_REQUEST, &why),
        Ok(levels) => run(&door, &options, levels, statements, Takes::Reads).await,
    }
}

async fn answer(
    door: &Door,
    options: &[(String, String)],
    body: Result<Bytes, BytesRejection>,
    takes: Takes,
) -> Result<Response, Response> {
    let body = body.map_err(|rejection| {
        let code = rejection.status();
        if code == StatusCode::PAYLOAD_TOO_LARGE {
            let reason =
                format!("a body of more than {MAX_BODY_BYTES} bytes: send several requests");
            refuse(code, &reason)
        } else {
            refuse(StatusCode::BAD_REQUEST, &rejection.body_text())
        }
    })?;
    let levels = Levels::of(options).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    let statements =
        json::statements(&body).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    Ok(run(door, options, levels, statements, takes).await)
}

/// Whether an option is given, and not as `=false`.
fn flag(options: &[(String, String)], wanted: &str) -> bool {
    options.iter().any(|(name, value)| name == wanted && value != "false" && value != "0")
}

async fn run(
    door: &Door,
    options: &[(String, String)],
    levels: Levels,
    statements: Vec<Statement>,
    takes: Takes,
) -> Response {
    let started = Instant::now();
    let run = Run {
        door,
        takes,
        levels,
        timings: flag(options, "timings"),
        shape: Shape {
            associative: flag(options, "associative"),
            blob_array: flag(options, "blob_array"),
        },
    };
    let together = flag(options, "transaction") && takes != Takes::Reads;
    let (code, results) =
        if together { run.together(statements).await } else { run.each(statements).await };
    let mut body = Map::new();
    body.insert("results".into(), JsonValue::Array(results));
    if run.timings {
        body.insert("time".into(), started.elapsed().as_secs_f64().into());
    }
    let body = JsonValue::Object(body);
    if flag(options, "pretty") {
        let json = [(CONTENT_TYPE, "application/json")];
        return (code, json, format!("{body:#}\n")).into_response();
    }
    (code, Json(body)).into_response()
}

struct Run<'a> {
    door: &'a Door,
    takes: Takes,
    levels: Levels,
    timings: bool,
    shape: Shape,
}

impl Run<'_> {
    /// All statements as one transaction, or none.
    async fn together(&self, statements: Vec<Statement>) -> (StatusCode, Vec<JsonValue>) {
        let started = Instant::now();
        if let Some(refusal) = statements.iter().find_map(|statement| self.check(statement).err()) {
            return (StatusCode::OK, vec![self.failed(&refusal.into(), started)]);
        }
        match self.write(statements).await {
            Ok(written) => {
                let results = written.results.iter();
                let results = results.map(|result| self.done(result, &written, started));
                (StatusCode::OK, results.collect())
            }
            Err(error) => (status(&error), vec![self.failed(&error, started)]),
        }
    }

    /// Every statement for itself.
    async fn each(&self, statements: Vec<Statement>) -> (StatusCode, Vec<JsonValue>) {
        let mut results = Vec::with_capacity(statements.len());
        for statement in statements {
            let started = Instant::now();
            match self.one(statement, started).await {
                Ok(result) => results.push(result),
                Err(error) => {
                    let code = status(&error);
                    results.push(self.failed(&error, started));
                    if results.len() == 1 && code != StatusCode::OK {
                        return (code, results);
                    }
                }
            }
        }
        (StatusCode::OK, results)
    }

    async fn one(&self, statement: Statement, started: Instant) -> Result<JsonValue, WriteError> {
        let access = self.check(&statement)?;
        if access == Access::Read {
            // What this server has acknowledged it has executed: no height to wait for.
            let options = ReadOptions { level: self.levels.read, ..ReadOptions::default() };
            if let Some(Freshness { within, strict }) = self.levels.freshness {
                self.door.driver.check_freshness(within, strict)?;
            }
            let read = self.door.driver.read(statement, settings(), &options);
            let result = json::rows(&read.await?, self.shape);
            return Ok(self.timed(result, started));
        }
        let written = self.write(vec![statement]).await?;
        let result = written.results.first().map(|result| self.done(result, &written, started));
        Ok(result.unwrap_or_else(|| json!({})))
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Written, WriteError> {
        let options = WriteOptions { wait: self.levels.wait, ..WriteOptions::default() };
        self.door.driver.write(USER, statements, settings(), &options).await
    }

    /// Whether a statement may stand in this request.
    fn check(&self, statement: &Statement) -> Result<Access, Refusal> {
        let unsupported = |why: &str| Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, why));
        let access = classify(&statement.sql).access;
        match (access, self.takes) {
            (Access::Empty, _) => Err(Refusal::new(sqlstate::SYNTAX_ERROR, "an empty statement")),
            (Access::Session, _) => unsupported(
                "BEGIN, COMMIT, SET and the like have no meaning over HTTP: use ?transaction",
            ),
            (Access::Write, Takes::Reads) => Err(Refusal::new(
                sqlstate::READ_ONLY,
                "this statement writes: send it to /db/execute or /db/request",
            )),
            (Access::Read, Takes::Writes) => {
                unsupported("this statement only reads: send it to /db/query or /db/request")
            }
            (access, _) => Ok(access),
        }
    }

    fn done(&self, result: &StatementResult, written: &Written, started: Instant) -> JsonValue {
        let mut json = Map::new();
        if self.levels.wait != Wait::Final {
            json.insert("rota".into(), self.sent(written));
            return self.timed(json, started);
        }
        if !result.rows.columns.is_empty() {
            json = json::rows(&result.rows, self.shape);
        }
        if result.kind != StatementKind::Select {
            if result.kind == StatementKind::Insert {
                json.insert("last_insert_id".into(), result.last_insert_rowid.into());
            }
            json.insert("rows_affected".into(), result.rows_affected.into());
        }
        json.insert(
            "rota".into(),
            json!({
                "height": written.height.0,
                "index": written.index,
                "id": written.id.to_string(),
            }),
        );
        self.timed(json, started)
    }

    /// What is known of a write that is not executed yet.
    fn sent(&self, written: &Written) -> JsonValue {
        let id = written.id.to_string();
        if self.levels.wait == Wait::None {
            return json!({ "id": id });
        }
        json!({ "height": written.height.0, "index": written.index, "id": id })
    }

    fn failed(&self, error: &WriteError, started: Instant) -> JsonValue {
        let mut json = Map::new();
        json.insert("error".into(), error.refusal.message.clone().into());
        json.insert("sqlstate".into(), error.refusal.code().into());
        if let Some(id) = error.id {
            json.insert("rota".into(), json!({ "id": id.to_string() }));
        }
        self.timed(json, started)
    }

    fn timed(&self, mut result: Map<String, JsonValue>, started: Instant) -> JsonValue {
        if self.timings {
            result.insert("time".into(), started.elapsed().as_secs_f64().into());
        }
        JsonValue::Object(result)
    }
}

/// rqlite's clients write strings in double quotes.
fn settings() -> Settings {
    Settings { double_quoted_strings: true, ..Settings::default() }
}

/// 503 where nothing was done and trying again is right, here or at another server.
fn status(error: &WriteError) -> StatusCode {
    match error.refusal.code() {
        sqlstate::BUSY | sqlstate::CANNOT_CONNECT_NOW => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}
