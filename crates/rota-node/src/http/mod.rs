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
//! There are no passwords yet, so a browser on the same machine is the danger: any web page may
//! send requests to a loopback address. A request whose `Host` is not a loopback name (DNS
//! rebinding), or that another origin's page sent, is refused, and no CORS header is ever given.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod connections;
mod gate;
mod json;
mod levels;
mod rqlite;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value as JsonValue, json};
use tokio::net::TcpListener;

use crate::driver::Driver;
use crate::status::State as ServerState;

/// The largest body of a request: more than any single transaction may have, so that larger ones
/// are known at once to be for nothing; many small statements in one request fit well.
pub(crate) const MAX_BODY_BYTES: usize = 8 << 20;

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Door {
    driver: Driver,
    /// Where this server listens.
    address: SocketAddr,
}

/// Serves HTTP clients until the task is aborted.
pub async fn serve(listener: TcpListener, driver: Driver) -> io::Result<()> {
    let door = Door { driver, address: listener.local_addr()? };
    axum::serve(connections::Bounded::new(listener), routes(door)).await
}

/// All there is. What part of the API it belongs to decides the file; who may pass is decided
/// before, in [`gate`], for all of them.
fn routes(door: Door) -> Router {
    Router::new()
        .route("/", get(start_page))
        .merge(data_routes())
        .merge(cluster_routes())
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(door.clone(), gate::let_in))
        .layer(from_fn_with_state(door.address, refuse_strangers))
        .with_state(door)
}

fn data_routes() -> Router<Door> {
    Router::new()
        .route("/db/execute", post(rqlite::execute))
        .route("/db/query", get(rqlite::query_of_address).post(rqlite::query))
        .route("/db/request", post(rqlite::request))
}

fn cluster_routes() -> Router<Door> {
    Router::new()
        .route("/status", get(status))
        .route("/nodes", get(nodes))
        .route("/readyz", get(ready))
}

async fn start_page() -> &'static str {
    "This is a Rota server.\n\n\
     POST /db/execute   [\"INSERT INTO t(a) VALUES(1)\"] or [[\"INSERT INTO t(a) VALUES(?)\", 1]]\n\
     POST /db/query     [\"SELECT * FROM t\"]              GET /db/query?q=SELECT%201\n\
     POST /db/request   writes and reads\n\
     GET  /status       this server          GET /nodes    all servers\n\
     GET  /readyz       200 when usable\n\n\
     The same data over PostgreSQL's protocol: psql -U rota -h HOST -p PORT rota\n"
}

async fn nothing_here() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing at this address: GET / tells what there is")
}

/// rqlite's `/status` is one object per part; what is Rota's own is in the part `rota`.
async fn status(State(door): State<Door>) -> Response {
    let status = door.driver.status();
    let parts = json!({
        "build": { "version": status.version },
        "http": { "bind_addr": door.address.to_string() },
        "store": {
            "node_id": status.name,
            "fsm_index": status.applied.height,
            "leader": { "node_id": status.leader.as_ref().map(|leader| leader.name.clone()) },
        },
        "rota": status,
    });
    Json(parts).into_response()
}

/// rqlite's `/nodes`: by name; the HTTP address of others is not known to a server, their peer
/// address is.
async fn nodes(State(door): State<Door>) -> Response {
    let status = door.driver.status();
    let leads = |key| status.leader.as_ref().is_some_and(|leader| leader.key == key);
    let mut nodes = Map::new();
    let own = json!({
        "id": status.name,
        "api_addr": format!("http://{}", door.address),
        "addr": door.address.to_string(),
        "voter": true,
        "reachable": true,
        "leader": leads(status.key),
    });
    nodes.insert(status.name.clone(), own);
    for peer in &status.peers {
        let other = json!({
            "id": peer.name,
            "addr": peer.address,
            "voter": true,
            "reachable": peer.connected,
            "leader": leads(peer.key),
        });
        nodes.insert(peer.name.clone(), other);
    }
    Json(JsonValue::Object(nodes)).into_response()
}

/// rqlite's `/readyz`: 200 when reads and writes are served.
async fn ready(State(door): State<Door>, request: Request) -> Response {
    let state = door.driver.status().state;
    let reads_suffice = request.uri().query().is_some_and(|query| query.contains("noleader"));
    let node = match state {
        ServerState::Diverged => "[-]node diverged from the cluster",
        _ => "[+]node ok",
    };
    let leader = match state {
        ServerState::NoQuorum => "[-]leader does not exist: too few servers in reach",
        ServerState::Diverged => "[-]leader not followed",
        ServerState::Ready | ServerState::CatchingUp => "[+]leader ok",
    };
    let store = match state {
        ServerState::CatchingUp => "[-]store catching up",
        ServerState::Diverged => "[-]store not served",
        ServerState::Ready | ServerState::NoQuorum => "[+]store ok",
    };
    let usable = match state {
        ServerState::Ready => true,
        ServerState::NoQuorum | ServerState::CatchingUp => reads_suffice,
        ServerState::Diverged => false,
    };
    let code = if usable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{node}\n{leader}\n{store}\n")).into_response()
}

/// An error with a reason, in the shape of rqlite's.
pub(crate) fn refuse(code: StatusCode, reason: &str) -> Response {
    (code, Json(json!({ "error": reason }))).into_response()
}

async fn refuse_strangers(
    State(address): State<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match stranger(address, request.headers()) {
        None => next.run(request).await,
        Some(reason) => refuse(StatusCode::FORBIDDEN, reason),
    }
}

/// Why a request is not from whom it should be, if so.
fn stranger(address: SocketAddr, headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if address.ip().is_loopback() && !is_loopback_name(host) {
        return Some(
            "this server listens on a loopback address: the Host header must name it (localhost, \
             127.0.0.1 or [::1])",
        );
    }
    let own = |origin: &str| {
        let bare = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        bare.is_some_and(|bare| bare.eq_ignore_ascii_case(host))
    };
    if headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(own) {
        return Some("requests by the pages of other web sites are refused");
    }
    None
}

fn is_loopback_name(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = without_port.to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: &str, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        stranger(address.parse().unwrap(), &map).is_some()
    }

    #[test]
    fn only_loopback_names_reach_a_loopback_address() {
        for host in ["localhost:4001", "127.0.0.1:4001", "[::1]:4001", "127.0.0.1", "db.localhost"]
        {
            assert!(!told("127.0.0.1:4001", &[("host", host)]), "{host}");
        }
        for host in ["evil.example:4001", "", "127.0.0.1.evil.example", "localhost.evil:4001"] {
            assert!(told("127.0.0.1:4001", &[("host", host)]), "{host}");
        }
        assert!(!told("10.0.0.1:4001", &[("host", "db.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_refused_everywhere() {
        let own = [("host", "localhost:4001"), ("origin", "http://localhost:4001")];
        assert!(!told("127.0.0.1:4001", &own));
        for origin in ["http://evil.example", "null", "http://localhost:9999"] {
            assert!(told("127.0.0.1:4001", &[("host", "localhost:4001"), ("origin", origin)]));
            assert!(told("10.0.0.1:4001", &[("host", "db.example"), ("origin", origin)]));
        }
    }
}
