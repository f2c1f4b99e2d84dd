//! Hrana over HTTP, versions 2 and 3 with JSON: what libSQL's clients speak, so that they work as
//! they are (<https://github.com/tursodatabase/libsql/tree/main/docs>, `HRANA_3_SPEC.md`). Steps 1
//! and 9 of a transaction's life.
//!
//! ```text
//!  GET  /v2, /v3                      200: spoken here
//!  POST /v2/pipeline, /v3/pipeline    requests on a stream ── baton ──► the next ones
//!  POST /v3/cursor                    a batch, answered line by line
//! ```
//!
//! A stream is what SQLite would call a connection: outside of a transaction each statement is one
//! of its own; BEGIN opens a draft, COMMIT sends what was done on it.

mod answers;
mod describe;
mod failure;
pub(super) mod keys;
mod requests;
mod steps;
mod stream;
mod streams;
mod words;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use rota_core::error::{Refusal, sqlstate};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::answers::{BatchDone, Columns, CursorAnswer, Entry, Line, PipelineAnswer};
use self::failure::Failure;
use self::requests::{Cursor, Pipeline};
use self::stream::Stream;
use self::streams::{IDLE, Limits, Streams};
use super::Door;
use crate::auth::Login;

/// What all requests of this door share.
#[derive(Clone)]
struct Shared {
    streams: Arc<Streams<Stream>>,
    limits: Arc<Limits>,
}

/// The addresses of Hrana. There is no `/v3-protobuf`: clients that ask for it go on with what
/// there is.
pub(super) fn routes() -> Router<Door> {
    let shared = Shared { streams: Streams::new(IDLE), limits: Arc::default() };
    Router::new()
        .route("/v2", get(spoken))
        .route("/v2/pipeline", post(pipeline))
        .route("/v3", get(spoken))
        .route("/v3/pipeline", post(pipeline))
        .route("/v3/cursor", post(cursor))
        .layer(Extension(shared))
}

async fn spoken() -> &'static str {
    "Hrana over HTTP, versions 2 and 3, JSON\n"
}

async fn pipeline(
    State(door): State<Door>,
    Extension(shared): Extension<Shared>,
    Extension(login): Extension<Login>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let read = read::<Pipeline>(body).and_then(|pipeline| {
        let stream = shared.stream(&door, &login, pipeline.baton.as_deref())?;
        Ok((stream, pipeline.requests))
    });
    let (mut stream, requests) = match read {
        Ok(read) => read,
        Err(refused) => return refused.into_response(),
    };
    let mut results = Vec::with_capacity(requests.len());
    for request in requests {
        results.push(stream.answer(request).await);
    }
    match shared.keep(&login, stream) {
        Ok(baton) => json(StatusCode::OK, &PipelineAnswer { baton, base_url: None, results }),
        Err(refused) => refused.into_response(),
    }
}

async fn cursor(
    State(door): State<Door>,
    Extension(shared): Extension<Shared>,
    Extension(login): Extension<Login>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let read = read::<Cursor>(body).and_then(|cursor| {
        let stream = shared.stream(&door, &login, cursor.baton.as_deref())?;
        Ok((stream, cursor.batch))
    });
    let (mut stream, batch) = match read {
        Ok(read) => read,
        Err(refused) => return refused.into_response(),
    };
    let done = steps::run(&mut stream, batch.steps).await;
    let baton = match shared.keep(&login, stream) {
        Ok(baton) => baton,
        Err(refused) => return refused.into_response(),
    };
    match lines(&CursorAnswer { baton, base_url: None }, &done) {
        Ok(lines) => ([(CONTENT_TYPE, "text/plain")], lines).into_response(),
        Err(error) => Refused::because(&error).into_response(),
    }
}

/// The entries of a cursor, one to a line.
fn lines(
    first: &CursorAnswer,
    done: &Result<BatchDone, Failure>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut lines = Vec::new();
    line(&mut lines, first)?;
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            line(&mut lines, &Entry::Error { error })?;
            return Ok(lines);
        }
    };
    for (step, (result, error)) in done.step_results.iter().zip(&done.step_errors).enumerate() {
        if let Some(error) = error {
            line(&mut lines, &Entry::StepError { step, error })?;
        }
        let Some(done) = result else { continue };
        let rows = &done.result.rows;
        line(&mut lines, &Entry::StepBegin { step, cols: Columns(&rows.columns) })?;
        for row in &rows.rows {
            line(&mut lines, &Entry::Row { row: Line(row) })?;
        }
        let (affected_row_count, last_insert_rowid) = (done.affected(), done.last_insert_rowid());
        line(&mut lines, &Entry::StepEnd { affected_row_count, last_insert_rowid })?;
    }
    Ok(lines)
}

fn line(lines: &mut Vec<u8>, entry: &impl Serialize) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *lines, entry)?;
    lines.push(b'\n');
    Ok(())
}

impl Shared {
    fn stream(&self, door: &Door, login: &Login, baton: Option<&str>) -> Result<Stream, Refused> {
        let Some(baton) = baton else {
            let limits = Arc::clone(&self.limits);
            return Ok(Stream::new(door.driver.clone(), Arc::clone(&login.user), limits));
        };
        let mut stream = self.streams.take(&login.user, baton).ok_or_else(|| {
            let message = format!(
                "no stream of yours waits under this baton: each is good for one request, and for \
                 {} seconds; what was not committed is rolled back",
                IDLE.as_secs()
            );
            Refused(StatusCode::BAD_REQUEST, Failure::new("STREAM_EXPIRED", message))
        })?;
        stream.begin_answer();
        Ok(stream)
    }

    /// The baton for what comes next, unless the stream is closed.
    fn keep(&self, login: &Login, stream: Stream) -> Result<Option<String>, Refused> {
        if stream.is_closed() {
            return Ok(None);
        }
        let kept = self.streams.keep(&login.user, stream);
        kept.map(Some).map_err(|failure| Refused(StatusCode::INTERNAL_SERVER_ERROR, failure))
    }
}

/// A request that nothing was done of.
struct Refused(StatusCode, Failure);

impl Refused {
    fn because(error: &serde_json::Error) -> Self {
        let refusal = Refusal::new(sqlstate::INTERNAL, format!("writing the answer: {error}"));
        Self(StatusCode::INTERNAL_SERVER_ERROR, refusal.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json(self.0, &self.1)
    }
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refused> {
    let body = body.map_err(|rejection| {
        Refused(rejection.status(), Failure::new("BODY_INVALID", rejection.body_text()))
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body is not what Hrana has here: {error}");
        Refused(StatusCode::BAD_REQUEST, Failure::new("BODY_INVALID", message))
    })
}

/// JSON with the content type that libSQL's clients look for.
fn json(code: StatusCode, answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => (code, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
