//! The HTTP door: rqlite's API, so that its clients and scripts work as they are. Steps 1 and 9 of
//! a transaction's life.
//!
//! ```text
//!  POST /db/execute   writes      GET /status   this server, in JSON
//!  POST /db/query     reads       GET /nodes    all servers, as this one sees them
//!  GET  /db/query?q=              GET /readyz   200 or 503, for load balancers
//!  POST /db/request   either      GET /         where to read on
//! ```
//!
//! Connections are `connections`' business, how long they may take is `pace`'s, and who may pass
//! is `gate`'s.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod answer;
mod asked;
mod backup;
mod chain;
mod cluster;
mod connections;
mod gate;
mod go;
mod hrana;
mod levels;
mod load;
mod pace;
mod queue;
mod rqlite;
mod run;
mod scratch;
mod sql;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;

use crate::auth::{Credentials, Entrance};
use crate::driver::Driver;
use crate::tls::Tls;

/// The largest body of a request: more than any single transaction may have, so that larger ones
/// are known at once to be for nothing; many small statements in one request fit well.
pub(crate) const MAX_BODY_BYTES: usize = 8 << 20;

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Door {
    driver: Driver,
    /// Where this server listens.
    address: SocketAddr,
    /// Who clients are.
    credentials: Arc<Credentials>,
    /// What is spoken with those who begin with TLS.
    tls: Option<Tls>,
    /// Whether clients may do without.
    plain: bool,
    /// What requests to the data API share.
    data: rqlite::Data,
    /// Where backups and loads keep files.
    scratch: scratch::Scratch,
    /// Since when it is open.
    opened: cluster::Opened,
}

/// Serves HTTP clients until the task is aborted.
pub async fn serve(listener: TcpListener, driver: Driver, entrance: Entrance) -> io::Result<()> {
    let address = listener.local_addr()?;
    let Entrance { credentials, tls, plain } = entrance;
    let data = rqlite::Data::new(&driver);
    let scratch = scratch::Scratch::new(driver.home());
    let opened = cluster::Opened::now();
    let door = Door { driver, address, credentials, tls, plain, data, scratch, opened };
    let routes = routes(door.clone());
    connections::serve(listener, door, routes).await;
    Ok(())
}

/// All there is. What part of the API it belongs to decides the file; who may pass is decided
/// before, in [`gate`], for all of them.
fn routes(door: Door) -> Router {
    Router::new()
        .route("/", get(start_page))
        .merge(data_routes())
        .merge(hrana::routes())
        .merge(chain::routes())
        .merge(cluster::routes())
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(map_response(rqlite::name_version))
        .with_state(door)
}

fn data_routes() -> Router<Door> {
    Router::new()
        .route("/db/execute", post(rqlite::execute))
        .route("/db/query", get(rqlite::query).post(rqlite::query))
        .route("/db/request", post(rqlite::request))
        .route("/db/sql", get(rqlite::sql_of).post(rqlite::sql_of))
        .route("/db/backup", get(backup::backup))
        .route("/db/load", post(load::load))
}

async fn start_page() -> &'static str {
    "This is a Rota server.\n\n\
     POST /db/execute   [\"INSERT INTO t(a) VALUES(1)\"] or [[\"INSERT INTO t(a) VALUES(?)\", 1]]\n\
     POST /db/query     [\"SELECT * FROM t\"]              GET /db/query?q=SELECT%201\n\
     POST /db/request   writes and reads\n\
     GET  /db/backup    a SQLite file        POST /db/load takes one\n\
     GET  /status       this server          GET /nodes    all servers\n\
     POST /v2/pipeline  Hrana, for libSQL's clients\n\
     GET  /readyz       200 when usable\n\n\
     The same data over PostgreSQL's protocol: psql -U rota -h HOST -p PORT rota\n"
}

async fn nothing_here() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing at this address: GET / tells what there is")
}

/// An error with a reason, in the shape of rqlite's.
pub(crate) fn refuse(code: StatusCode, reason: &str) -> Response {
    (code, Json(json!({ "error": reason }))).into_response()
}
