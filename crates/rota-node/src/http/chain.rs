//! `/chain`: what stands in the blocks, and the way in for envelopes that clients have signed with
//! their own keys. Steps 1, 2 and 9 of a transaction's life.
//!
//! ```text
//!  GET  /chain                     what a signer needs to know      for everybody
//!  GET  /chain/genesis             what a server needs to join      for everybody (`pow`)
//!  POST /chain/transactions        an envelope                      for whoever has signed it
//!  GET  /chain/transactions/{id}   what became of a transaction     ┐ for users: their own
//!  GET  /chain/blocks/{height}     a block                          ┘ statements, or all
//!  GET  /chain/leaders             who led when, and by what right  for users
//! ```
//! An envelope needs no password: its signature says whose it is. It is borsh
//! (`rota_core::transaction`) as it is, with `Content-Type: application/octet-stream`, or in
//! hexadecimal or base64.

use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rota_core::codec::decode;
use rota_core::error::{Refusal, sqlstate};
use rota_core::genesis::FORMAT;
use rota_core::transaction::{
    Envelope, MAX_ENVELOPE_BYTES, Parameters, Settings, Statement, Value,
};
use rota_core::types::TransactionId;
use rota_store::access::{key_of, text_of};
use rota_store::query::Fate;
use rota_store::{Rows, StatementResult};
use serde_json::{Map, Number, Value as JsonValue, json};

use super::{Door, MAX_BODY_BYTES};
use crate::auth::Login;
use crate::driver::{Driver, ReadOptions, WriteError, Written};
use crate::status::{Depth, Leaders, Led};

/// One block, as `chain.blocks` has it.
const BLOCK: &str = "SELECT height, slot, epoch, leader, turn, time, time_ms, bytes, id,
    transactions AS count FROM chain.blocks WHERE height = ?1";

/// Who led the newest blocks, newest first.
const LED: &str = "SELECT height, slot, time_ms, leader, turn FROM chain.blocks
    ORDER BY height DESC LIMIT ?1";

/// So many blocks' leaders are told unless `last` says how many ...
const LAST: u64 = 60;

/// ... and so many at most: 2 MB of JSON.
const MOST_LAST: u64 = 10_000;

/// What of its transactions is for who asks.
const TRANSACTIONS: &str = "SELECT position, id, signer, username AS user, statements, sqlstate,
    outcome FROM chain.transactions WHERE height = ?1 ORDER BY position";

/// What of one transaction is for who asks.
const TOLD: &str =
    "SELECT rota_told(?1, ?2, 'signer') AS signer, rota_told(?1, ?2, 'user') AS user,
    rota_told(?1, ?2, 'statements') AS statements, rota_told(?1, ?2, 'message') AS message";

/// All that begins with `/chain`.
pub(super) fn routes() -> Router<Door> {
    Router::new()
        .route("/chain", get(about))
        .route("/chain/genesis", get(genesis))
        .route("/chain/transactions", post(hand_in))
        .route("/chain/transactions/{id}", get(fate))
        .route("/chain/blocks/{height}", get(block))
        .route("/chain/leaders", get(leaders))
}

/// `GET /chain/genesis`: what a server needs that is to join.
async fn genesis(State(door): State<Door>) -> Response {
    let genesis = door.driver.genesis();
    // Members know each other, and their genesis may hold verifiers.
    if genesis.method.is_closed() {
        let reason = "only servers under pow can be joined by anybody; members of others get the \
                      genesis from whoever made it";
        return super::refuse(StatusCode::NOT_FOUND, reason);
    }
    Json(genesis).into_response()
}

/// `GET /chain`: what goes into an envelope beside its transactions; with `?key=ed25519:…` also
/// whose key that is.
async fn about(State(door): State<Door>, Query(options): Query<Vec<(String, String)>>) -> Response {
    let now = match door.driver.chain_now().await {
        Ok(now) => now,
        Err(refusal) => return refuse(&refusal),
    };
    let status = door.driver.status();
    let access = door.driver.access();
    let mut about = json!({
        "chain": status.chain,
        "format": FORMAT,
        "height": now.height.0,
        "block_time": status.block_time,
        "chain_time": now.time_ms,
        "patience_ms": u64::try_from(door.driver.write_timeout().as_millis()).unwrap_or(u64::MAX),
        "trusted_servers": access.trusted_servers(),
        "server": text_of(&status.key),
    });
    if let Some((_, text)) = options.iter().find(|(name, _)| name == "key") {
        let Some(key) = key_of(text) else {
            let reason = "key= must be a public key: ed25519: and 64 hex digits";
            return refuse(&Refusal::new(sqlstate::PROTOCOL_VIOLATION, reason));
        };
        let user = access.user_of_key(&key).map(|user| user.name.clone());
        let user = user.or_else(|| access.account(&key));
        if let Some(about) = about.as_object_mut() {
            about.insert("user".into(), user.into());
        }
    }
    Json(about).into_response()
}

/// `POST /chain/transactions`.
async fn hand_in(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match answer(&door, &headers, body).await {
        Ok(answers) => Json(json!({ "transactions": answers })).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn answer(
    door: &Door,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Vec<JsonValue>, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(
            sqlstate::TOO_COMPLEX,
            format!("a body of more than {MAX_BODY_BYTES} bytes; no envelope is as large"),
        ),
        _ => malformed(rejection.body_text()),
    })?;
    let envelope = envelope_of(headers, &body)?;
    let answers =
        door.driver.submit_envelope(envelope, Instant::now() + door.driver.write_timeout()).await?;
    Ok(answers.into_iter().map(|answer| told(&door.driver, answer)).collect())
}

fn envelope_of(headers: &HeaderMap, body: &[u8]) -> Result<Envelope, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let raw = kind.is_some_and(|kind| kind.starts_with("application/octet-stream"));
    let bytes = if raw { body.to_vec() } else { bytes_of(body).map_err(malformed)? };
    decode(&bytes, MAX_ENVELOPE_BYTES).map_err(|error| malformed(error.to_string()))
}

/// Hexadecimal, or base64: in that order, since some texts are both, but no envelope's: its length
/// is in it.
fn bytes_of(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = text.trim_ascii();
    hex::decode(text).or_else(|_| BASE64.decode(text)).map_err(|_| {
        "the body must be an envelope in hexadecimal or base64; or as it is, with Content-Type: \
         application/octet-stream"
            .into()
    })
}

/// What became of one transaction.
fn told(driver: &Driver, answer: Result<Written, WriteError>) -> JsonValue {
    match answer {
        Ok(Written { id, height, index, results }) => {
            let mut told = json!({
                "id": id.to_string(),
                "outcome": "final",
                "height": height.0,
                "index": index,
            });
            if let Some(told) = told.as_object_mut() {
                told.extend(driver.depth(height).map(Depth::members).unwrap_or_default());
                // There is one for each statement, unless it was executed before.
                if !results.is_empty() {
                    told.insert("results".into(), results.iter().map(result).collect());
                }
            }
            told
        }
        Err(WriteError { refusal, id }) => {
            let unknown = refusal.code() == sqlstate::OUTCOME_UNKNOWN;
            json!({
                "id": id.map(|id| id.to_string()),
                "outcome": if unknown { "unknown" } else { "failed" },
                "sqlstate": refusal.code(),
                "message": refusal.message,
            })
        }
    }
}

fn result(result: &StatementResult) -> JsonValue {
    let mut shown = json!({
        "tag": result.kind.tag(result.rows_affected),
        "rows_affected": result.rows_affected,
        "last_insert_rowid": result.last_insert_rowid,
    });
    let Rows { columns, rows } = &result.rows;
    if !columns.is_empty()
        && let Some(shown) = shown.as_object_mut()
    {
        let names = columns.iter().map(|column| JsonValue::from(column.name.as_str()));
        shown.insert("columns".into(), names.collect());
        let rows = rows.iter().map(|row| row.iter().map(cell).collect::<JsonValue>());
        shown.insert("rows".into(), rows.collect());
    }
    shown
}

/// Bytes as `{"blob": "hex"}`, so that they are no text; what JSON has no number for, as text.
fn cell(value: &Value) -> JsonValue {
    match value {
        Value::Null => JsonValue::Null,
        Value::Integer(number) => json!(number),
        Value::Real(bits) => {
            let number = f64::from_bits(*bits);
            Number::from_f64(number).map_or_else(|| number.to_string().into(), JsonValue::Number)
        }
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "blob": hex::encode(bytes) }),
    }
}

/// `GET /chain/transactions/{id}`.
async fn fate(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Path(id): Path<String>,
) -> Response {
    let found = async {
        let id: TransactionId =
            id.parse().map_err(|_| malformed("an id is 64 hex digits".into()))?;
        let outcome = match door.driver.fate(id).await? {
            Fate::Executed(outcome) => outcome,
            Fate::OnItsWay => return Ok(json!({ "id": id.to_string(), "outcome": "pending" })),
            Fate::Unknown => return Ok(json!({ "id": id.to_string(), "outcome": "unknown" })),
        };
        let at = vec![
            Value::Integer(i64::try_from(outcome.height.0).unwrap_or(i64::MAX)),
            Value::Integer(outcome.index.into()),
        ];
        let mut told = json!({
            "id": id.to_string(),
            "outcome": if outcome.refusal.is_some() { "failed" } else { "final" },
            "height": outcome.height.0,
            "index": outcome.index,
        });
        let depth = door.driver.depth(outcome.height);
        let rows = objects(&read(&door, &login, TOLD, at).await?);
        if let (Some(told), Some(row)) = (told.as_object_mut(), rows.into_iter().next()) {
            if let Some(refusal) = &outcome.refusal {
                told.insert("sqlstate".into(), refusal.code().into());
            }
            told.extend(depth.map(Depth::members).unwrap_or_default());
            told.extend(row.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Ok(told)
    };
    found.await.map_or_else(|refusal| refuse(&refusal), |told| Json(told).into_response())
}

/// `GET /chain/blocks/{height}`.
async fn block(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Path(height): Path<String>,
) -> Response {
    let found = async {
        let height: i64 = height
            .parse()
            .map_err(|_| malformed("a height is a whole number: /chain/blocks/1".into()))?;
        let blocks = objects(&read(&door, &login, BLOCK, vec![Value::Integer(height)]).await?);
        let Some(mut block) = blocks.into_iter().next() else { return Ok(None) };
        let rows = read(&door, &login, TRANSACTIONS, vec![Value::Integer(height)]).await?;
        let transactions = objects(&rows).into_iter().map(JsonValue::Object).collect();
        block.insert("transactions".into(), transactions);
        Ok(Some(JsonValue::Object(block)))
    };
    match found.await {
        Ok(Some(block)) => Json(block).into_response(),
        Ok(None) => super::refuse(StatusCode::NOT_FOUND, "this server has no block of that height"),
        Err(refusal) => refuse(&refusal),
    }
}

/// `GET /chain/leaders?last=N`.
async fn leaders(
    State(door): State<Door>,
    Extension(login): Extension<Login>,
    Query(options): Query<Vec<(String, String)>>,
) -> Response {
    let found = async {
        let asked = options.iter().find(|(name, _)| name == "last");
        let last = asked.map_or(Some(LAST), |(_, text)| text.parse().ok());
        let last = last.filter(|last| (1..=MOST_LAST).contains(last)).ok_or_else(|| {
            malformed(format!("last= must be a number of blocks, from 1 to {MOST_LAST}"))
        })?;
        let last = Value::Integer(i64::try_from(last).unwrap_or(i64::MAX));
        let mut rows = read(&door, &login, LED, vec![last]).await?.rows;
        rows.reverse();
        let blocks = rows.iter().filter_map(|row| led(row)).collect();
        let (method, servers) = (door.driver.method(), door.driver.servers());
        Ok(Leaders { method, servers, blocks })
    };
    found.await.map_or_else(|refusal| refuse(&refusal), |told| Json(told).into_response())
}

/// A row of [`LED`].
fn led(row: &[Value]) -> Option<Led> {
    let [
        Value::Integer(height),
        Value::Integer(slot),
        Value::Integer(time_ms),
        Value::Text(leader),
        Value::Text(turn),
    ] = row
    else {
        return None;
    };
    Some(Led {
        height: u64::try_from(*height).ok()?,
        slot: u64::try_from(*slot).ok()?,
        time_ms: u64::try_from(*time_ms).ok()?,
        leader: leader.clone(),
        turn: turn.clone(),
    })
}

async fn read(door: &Door, login: &Login, sql: &str, values: Vec<Value>) -> Result<Rows, Refusal> {
    let statement = Statement { sql: sql.into(), parameters: Parameters::Positional(values) };
    let options = ReadOptions::default();
    door.driver.read(&login.user, statement, Settings::default(), &options).await
}

/// Rows by the names of their columns; statements, which are JSON, as such.
fn objects(rows: &Rows) -> Vec<Map<String, JsonValue>> {
    let object = |row: &Vec<Value>| {
        let named = rows.columns.iter().zip(row).map(|(column, value)| {
            let parsed = match value {
                Value::Text(text) if column.name == "statements" => serde_json::from_str(text).ok(),
                _ => None,
            };
            (column.name.clone(), parsed.unwrap_or_else(|| cell(value)))
        });
        named.collect()
    };
    rows.rows.iter().map(object).collect()
}

fn malformed(message: String) -> Refusal {
    Refusal::new(sqlstate::PROTOCOL_VIOLATION, message)
}

/// A request of which nothing was done.
fn refuse(refusal: &Refusal) -> Response {
    let code = match refusal.code() {
        sqlstate::INSUFFICIENT_PRIVILEGE => StatusCode::FORBIDDEN,
        sqlstate::TOO_COMPLEX => StatusCode::PAYLOAD_TOO_LARGE,
        sqlstate::SERIALIZATION_FAILURE => StatusCode::GONE,
        sqlstate::BUSY | sqlstate::CANNOT_CONNECT_NOW => StatusCode::SERVICE_UNAVAILABLE,
        sqlstate::QUERY_CANCELED => StatusCode::GATEWAY_TIMEOUT,
        sqlstate::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = json!({ "error": refusal.message, "sqlstate": refusal.code() });
    (code, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_comes_as_bytes_hexadecimal_or_base64() {
        assert_eq!(bytes_of(b" 00ff10 \n").unwrap(), [0, 255, 16]);
        assert_eq!(bytes_of(b"AP8Q\n").unwrap(), [0, 255, 16]);
        assert!(bytes_of(b"what is this?").is_err());
    }

    #[test]
    fn what_is_no_envelope_is_refused_as_the_client_s_fault() {
        let raw = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            "application/octet-stream".parse().unwrap(),
        )]);
        for (headers, body) in [
            (&raw, b"".as_slice()),
            (&raw, &[0xff; 200]),
            (&HeaderMap::new(), b"00"),
            (&HeaderMap::new(), b""),
        ] {
            let refusal = envelope_of(headers, body).unwrap_err();
            assert_eq!(refuse(&refusal).status(), StatusCode::BAD_REQUEST, "{}", refusal.message);
        }
    }

    #[test]
    fn values_keep_their_kinds_in_json() {
        let infinite = Value::real(f64::INFINITY);
        for (value, want) in [
            (Value::Null, json!(null)),
            (Value::Integer(i64::MAX), json!(i64::MAX)),
            (Value::real(1.5), json!(1.5)),
            (infinite, json!("inf")),
            (Value::Text("a".into()), json!("a")),
            (Value::Blob(vec![0, 255]), json!({"blob": "00ff"})),
        ] {
            assert_eq!(cell(&value), want);
        }
    }
}
