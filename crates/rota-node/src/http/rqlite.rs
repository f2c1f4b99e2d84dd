//! rqlite's data API: `/db/execute`, `/db/query`, `/db/request`, `/db/sql`. Step 1 of a
//! transaction's life begins here, and step 9 ends.
//!
//! ```text
//!  body ─► asked ─┬─► run ─► answer ─► JSON as rqlite writes it
//!                 └─► queue, with ?queue
//! ```
//!
//! Answers are rqlite's to the byte. What rqlite has no place for is in headers (`Rota-Height`,
//! `Rota-Transaction`), or in the results if the address says `?rota`. Status 503 always means that
//! nothing was done: a client may repeat the request. What failed afterwards is told inside the
//! results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use rota_core::transaction::Statement;
use rota_core::types::{Height, TransactionId};
use rota_store::sql::{Access, classify};

use super::answer::{Shape, Whole};
use super::asked::{self, Asked};
use super::levels::{Levels, given};
use super::queue::{Full, Queue};
use super::run::{Memory, Run, Shows, Stopped, Takes};
use super::{Door, MAX_BODY_BYTES, go, sql};
use crate::auth::Login;
use crate::driver::Driver;
use crate::status::State as ServerState;

/// The release of rqlite whose API this is; clients look at it to know what they may ask for.
const VERSION: HeaderValue =
    HeaderValue::from_static(concat!("v9.4.5+rota.", env!("CARGO_PKG_VERSION")));

const VERSION_NAME: HeaderName = HeaderName::from_static("x-rqlite-version");

/// The height of the newest block with a write of the request, or that its reads have seen.
const HEIGHT_NAME: HeaderName = HeaderName::from_static("rota-height");

/// The id of the newest transaction of the request.
const TRANSACTION_NAME: HeaderName = HeaderName::from_static("rota-transaction");

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How long `?queue&wait` waits unless the address says otherwise, as rqlite.
const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// Why a request has no results.
type Refused = (StatusCode, String);

/// The parameters of an address: `?transaction&timings`.
type Options = Query<Vec<(String, String)>>;

/// What requests to the data API share.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    memory: Memory,
    queue: Arc<Queue>,
}

impl Data {
    pub(crate) fn new(driver: &Driver) -> Self {
        Self { memory: Memory::default(), queue: Arc::new(Queue::new(driver.clone())) }
    }

    /// The number of the newest queued request that was written; 0: none yet.
    pub(crate) fn queued_and_written(&self) -> i64 {
        self.queue.written()
    }
}

/// A request: its address and its body.
struct Asking {
    method: Method,
    options: Vec<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
}

/// `POST /db/execute`.
pub(crate) async fn execute(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Query(options): Options,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let queue = given(&options, "queue").is_some();
    let asking = Asking { method: Method::POST, options, headers, body };
    let answer = if queue {
        queued(&door, &login, asking).await
    } else {
        run(&door, &login, asking, Takes::Writes).await
    };
    answer.unwrap_or_else(refuse)
}

/// `POST /db/query`, `GET /db/query?q=SELECT…`.
pub(crate) async fn query(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    method: Method,
    Query(options): Options,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let asking = Asking { method, options, headers, body };
    run(&door, &login, asking, Takes::Reads).await.unwrap_or_else(refuse)
}

/// `POST /db/request`.
pub(crate) async fn request(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Query(options): Options,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let asking = Asking { method: Method::POST, options, headers, body };
    run(&door, &login, asking, Takes::Both).await.unwrap_or_else(refuse)
}

/// `POST /db/sql`, `GET /db/sql?q=INSERT…`.
pub(crate) async fn sql_of(
    method: Method,
    Query(options): Options,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let asking = Asking { method, options, headers, body };
    match asking.read() {
        Ok(asked) => shown(&sql::json(&asked), asking.has("pretty")),
        Err(refused) => refuse(refused),
    }
}

/// Says with every answer what release of rqlite this is like.
pub(crate) async fn name_version(mut response: Response) -> Response {
    response.headers_mut().insert(VERSION_NAME, VERSION);
    response
}

impl Asking {
    /// Whether an option is given. As in rqlite, its value does not matter.
    fn has(&self, wanted: &str) -> bool {
        given(&self.options, wanted).is_some()
    }

    /// What it asks for, or why that cannot be read.
    fn read(&self) -> Result<Vec<Asked>, Refused> {
        let bad = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned());
        if self.method == Method::GET || self.method == Method::HEAD {
            let sql = given(&self.options, "q").filter(|sql| !sql.is_empty());
            return match sql {
                Some(sql) => Ok(vec![Asked::sql(sql.to_owned())]),
                None => Err(bad("query parameter not set")),
            };
        }
        let body = self.body.as_ref().map_err(|rejection| match rejection.status() {
            code @ StatusCode::PAYLOAD_TOO_LARGE => {
                (code, format!("a body of more than {MAX_BODY_BYTES} bytes: send several requests"))
            }
            _ => bad(&rejection.body_text()),
        })?;
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("text/plain")) {
            let sql = std::str::from_utf8(body).map_err(|_| bad("invalid request"))?;
            return Ok(vec![Asked::sql(sql.to_owned())]);
        }
        asked::read(body).map_err(bad)
    }
}

async fn run(
    door: &Door,
    login: &Login,
    asking: Asking,
    takes: Takes,
) -> Result<Response, Refused> {
    let started = Instant::now();
    let asked = asking.read()?;
    let levels = levels(&asking)?;
    let timings = asking.has("timings");
    let shows = Shows { timings, more: asking.has("rota") };
    let shape = Shape {
        associative: asking.has("associative"),
        blob_array: asking.has("blob_array"),
        rows_only: takes == Takes::Reads,
    };
    let settings = (takes, levels, shows);
    let mut run = Run::new(&door.driver, &login.user, settings, &door.data.memory);
    let mut whole = Whole::default();
    match run.all(asked, asking.has("transaction")).await {
        Ok(results) => whole.results = results,
        Err(Stopped::Stale) => whole.error = Some("stale read".into()),
        Err(Stopped::Unavailable(why)) => {
            return Err((StatusCode::SERVICE_UNAVAILABLE, why));
        }
    }
    let (height, id) = run.position();
    if asking.has("raft_index") {
        let applied = || door.driver.status().applied.height;
        whole.raft_index = Some(height.map_or_else(applied, |Height(height)| height));
    }
    whole.time = timings.then(|| started.elapsed().as_secs_f64());
    let mut response = shown(&whole.json(shape), asking.has("pretty"));
    tell_position(response.headers_mut(), height, id);
    Ok(response)
}

fn levels(asking: &Asking) -> Result<Levels, Refused> {
    Levels::of(&asking.options).map_err(|why| (StatusCode::BAD_REQUEST, why))
}

/// Takes writes, and answers before they are written unless `wait` is said.
async fn queued(door: &Door, login: &Login, asking: Asking) -> Result<Response, Refused> {
    let started = Instant::now();
    let levels = levels(&asking)?;
    let waits = asking.has("wait");
    let asked = match asking.read() {
        Ok(asked) => asked,
        // Nothing, to wait for what was queued before.
        Err((_, why)) if waits && why == asked::NO_STATEMENTS => Vec::new(),
        Err(refused) => return Err(refused),
    };
    if !asking.has("noleader") && door.driver.status().state == ServerState::NoQuorum {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "leader not found".into()));
    }
    let bytes = asking.body.as_ref().map_or(0, Bytes::len);
    let elements = asked.into_iter().filter_map(elements).collect();
    let queue = &door.data.queue;
    let (number, written) =
        queue.push(Arc::clone(&login.user), elements, bytes).map_err(|Full| {
            let why = "the queue of writes is full: send them again later, or without ?queue";
            (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        })?;
    if waits {
        let patience = levels.patience.unwrap_or(QUEUE_WAIT);
        if tokio::time::timeout(patience, written).await.is_err() {
            return Err((StatusCode::REQUEST_TIMEOUT, "timeout".into()));
        }
    }
    let time = asking.has("timings").then(|| started.elapsed().as_secs_f64());
    let whole = Whole { sequence_number: Some(number), time, ..Whole::default() };
    Ok(shown(&whole.json(Shape::default()), asking.has("pretty")))
}

/// The statements of an element, if it writes: nobody will be shown what it reads, or what is wrong
/// with it.
fn elements(asked: Asked) -> Option<Vec<Statement>> {
    let statements = asked.statements().ok()?;
    let writes = |statement: &Statement| classify(&statement.sql).access == Access::Write;
    statements.iter().any(writes).then_some(statements)
}

fn shown(json: &str, pretty: bool) -> Response {
    let body = if pretty { go::indented(json) } else { json.to_owned() };
    ([(CONTENT_TYPE, JSON)], body).into_response()
}

fn tell_position(headers: &mut HeaderMap, height: Option<Height>, id: Option<TransactionId>) {
    if let Some(Height(height)) = height {
        headers.insert(HEIGHT_NAME, HeaderValue::from(height));
    }
    let id = id.and_then(|id| HeaderValue::from_str(&id.to_string()).ok());
    if let Some(id) = id {
        headers.insert(TRANSACTION_NAME, id);
    }
}

/// What is wrong, as a line of text: rqlite has results in JSON, and everything else in words.
fn refuse((code, why): Refused) -> Response {
    let headers =
        [(CONTENT_TYPE, TEXT), (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (code, headers, format!("{why}\n")).into_response()
}
