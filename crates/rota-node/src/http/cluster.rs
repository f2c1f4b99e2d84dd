//! Where a server and its cluster stand, in the shapes that rqlite's clients and dashboards read:
//! `/status`, `/nodes`, `/leader`, `/readyz` (step 1: answered from memory). What rqlite has beside
//! them and Rota has not says what to use instead.
//!
//! rqlite's *leader* is where to send writes. Here every server takes them, and whose turn it is
//! changes all the time: the leader is that server if it is in reach, else the one that is asked.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use rota_core::genesis::Method;
use rota_core::types::NodeId;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::levels::given;
use super::{Door, go, refuse};
use crate::auth::Login;
use crate::status::{PeerStatus, ServerStatus, State as ServerState};

/// How long `/readyz?sync` waits, unless it says so itself (rqlite's default).
const SYNC_TIME: Duration = Duration::from_secs(30);

/// The longest that it can say.
const LONGEST_SYNC_TIME: Duration = Duration::from_secs(60);

/// How often it looks.
const SYNC_STEP: Duration = Duration::from_millis(20);

type Options = Query<Vec<(String, String)>>;

/// When the door was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    date: SystemTime,
    at: Instant,
}

impl Opened {
    pub(super) fn now() -> Self {
        Self { date: SystemTime::now(), at: Instant::now() }
    }
}

pub(super) fn routes() -> Router<Door> {
    let absent = |path: &'static str, why: &'static str| (path, any(move || not_here(why)));
    let mut routes = Router::new()
        .route("/status", get(status))
        .route("/nodes", get(nodes))
        .route("/leader", get(leader).post(step_down))
        .route("/readyz", get(ready));
    for (path, answer) in [
        absent("/boot", "a cluster is not booted from a file: POST it to /db/load"),
        absent("/remove", "members are fixed by the genesis: stop the server instead"),
        absent("/reap", "members are fixed by the genesis: there is nothing to reap"),
        absent("/snapshot", "there is no log to be cut: servers copy their logs into the database"),
        absent("/licenses", "licences are in the files LICENSE-MIT and LICENSE-APACHE"),
        absent("/debug/vars", "counts are in the part `rota` of GET /status"),
        absent("/debug/pprof", "there is no profiler here"),
        absent("/debug/pprof/{*rest}", "there is no profiler here"),
    ] {
        routes = routes.route(path, answer);
    }
    routes
}

async fn not_here(why: &'static str) -> Response {
    refuse(StatusCode::NOT_IMPLEMENTED, why)
}

/// JSON as rqlite sends it.
fn answer(options: &[(String, String)], text: String) -> Response {
    let text = if given(options, "pretty").is_some() { go::indented(&text) } else { text };
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

/// `timeout=5s`, if it is a duration.
fn time_out(options: &[(String, String)]) -> Option<Duration> {
    let Some(text) = given(options, "timeout") else { return Some(SYNC_TIME) };
    go::duration(text).map(|asked| asked.min(LONGEST_SYNC_TIME))
}

/// In rqlite's words.
fn no_duration() -> Response {
    refuse(StatusCode::BAD_REQUEST, "timeout is not a valid duration")
}

/// `GET /status`: one object per part, as in rqlite; what is Rota's own is in the part `rota`.
async fn status(State(door): State<Door>, headers: HeaderMap, Query(options): Options) -> Response {
    let status = door.driver.status();
    let nodes = Nodes::of(&door, &headers, &status);
    let home = door.driver.home().to_owned();
    let files = tokio::task::spawn_blocking(move || files(&home)).await.unwrap_or_default();
    let mut parts = json!({
        "build": { "version": format!("v{}", status.version), "compiler": "rustc" },
        "cluster": { "api_addr": nodes.own.api_addr, "https": door.tls.is_some().to_string() },
        "http": {
            "bind_addr": door.address.to_string(),
            "queue": { "_default": { "sequence_number": door.data.queued_and_written() } },
            "tls": { "enabled": door.tls.is_some().to_string() },
        },
        "node": node(&door.opened),
        "os": os(status.pid),
        "runtime": {
            "GOARCH": std::env::consts::ARCH,
            "GOOS": std::env::consts::OS,
            "num_cpu": std::thread::available_parallelism().map_or(1, usize::from),
            "version": "rustc",
        },
        "store": store(&nodes, &status, files),
        "rota": status,
    });
    if let Some(key) = given(&options, "key").filter(|key| !key.is_empty()) {
        parts = part(parts, key);
    }
    answer(&options, parts.to_string())
}

/// `key=store.raft`: only that; an empty object where there is nothing.
fn part(mut parts: Json, key: &str) -> Json {
    for name in key.split('.') {
        parts = match parts {
            Json::Object(mut names) => names.remove(name).unwrap_or_else(|| json!({})),
            _ => json!({}),
        };
    }
    parts
}

fn node(opened: &Opened) -> Json {
    let date = |date: SystemTime| {
        let since = date.duration_since(UNIX_EPOCH).unwrap_or_default();
        go::time_of_number(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    };
    json!({
        "start_time": date(opened.date),
        "current_time": date(SystemTime::now()),
        "uptime": go_duration(opened.at.elapsed()),
    })
}

/// As Go writes durations: `1h2m3.5s`, `12.345ms`.
fn go_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds == 0 {
        let (number, unit) = match time.as_nanos() {
            0 => return "0s".into(),
            nanos @ ..1_000 => (nanos as f64, "ns"),
            nanos @ ..1_000_000 => (nanos as f64 / 1e3, "µs"),
            nanos => (nanos as f64 / 1e6, "ms"),
        };
        return format!("{number}{unit}");
    }
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let rest = Duration::new(seconds % 60, time.subsec_nanos()).as_secs_f64();
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn os(pid: u32) -> Json {
    let mut os = json!({ "pid": pid, "ppid": std::os::unix::process::parent_id() });
    if let (Json::Object(os), Ok(executable)) = (&mut os, std::env::current_exe()) {
        os.insert("executable".into(), executable.to_string_lossy().into());
    }
    os
}

/// Bytes of the files that hold the database.
#[derive(Default)]
struct Files {
    home: String,
    state: u64,
    log: u64,
    all: u64,
}

fn files(home: &Path) -> Files {
    let length = |name: &str| std::fs::metadata(home.join(name)).map_or(0, |file| file.len());
    let all = std::fs::read_dir(home).map_or(0, |entries| {
        let files = entries.filter_map(|entry| entry.ok()?.metadata().ok());
        files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
    });
    let (state, log) = (length("state.db"), length("state.db-wal"));
    Files { home: home.display().to_string(), state, log, all }
}

/// rqlite's Raft is our chain: heights for indexes, epochs for terms.
fn store(nodes: &Nodes, status: &ServerStatus, files: Files) -> Json {
    let leads = nodes.own.leader;
    let leader = nodes.leader();
    let voters =
        nodes.all().map(|node| json!({ "id": node.id, "addr": node.addr, "suffrage": "voter" }));
    json!({
        "addr": nodes.own.addr,
        "node_id": status.name,
        "ready": status.state == ServerState::Ready,
        "leader": {
            "addr": leader.map_or("", |leader| leader.addr.as_str()),
            "node_id": leader.map_or("", |leader| leader.id.as_str()),
        },
        "nodes": voters.collect::<Vec<_>>(),
        "fsm_index": status.applied.height,
        "db_applied_index": status.applied.height,
        "raft": {
            "state": if leads { "Leader" } else { "Follower" },
            "term": status.term.unwrap_or(status.epoch),
            "commit_index": status.height,
            "last_log_index": status.height,
            "applied_index": status.applied.height,
            "num_peers": status.peers.len().to_string(),
        },
        "dir": files.home,
        "dir_size": files.all,
        "sqlite3": {
            "path": Path::new(&files.home).join("state.db").display().to_string(),
            "db_size": files.state,
            "wal_size": files.log,
        },
    })
}

/// A server in rqlite's words. The order of the fields is rqlite's.
#[derive(Serialize)]
struct Node {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_addr: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    addr: String,
    version: String,
    voter: bool,
    reachable: bool,
    leader: bool,
    /// How long it took to find out, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    time_s: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'static str,
}

/// All servers.
struct Nodes {
    own: Node,
    others: Vec<Node>,
}

impl Nodes {
    fn of(door: &Door, headers: &HeaderMap, status: &ServerStatus) -> Self {
        let started = Instant::now();
        let leads = leader_of(status);
        let (peer, api) = door.driver.own_addresses();
        let own = Node {
            id: status.name.clone(),
            api_addr: api.unwrap_or_else(|| own_address(door, headers)),
            addr: peer,
            version: format!("v{}", status.version),
            voter: status.role != "reader",
            reachable: true,
            leader: leads == Some(status.key),
            time: None,
            time_s: String::new(),
            error: "",
        };
        let others = status.peers.iter().map(|peer| other(peer, leads));
        let mut nodes = Self { own, others: others.collect() };
        nodes.others.sort_by(|one, other| one.id.cmp(&other.id));
        let time = started.elapsed();
        for node in std::iter::once(&mut nodes.own).chain(&mut nodes.others) {
            let mut text = String::new();
            go::real(&mut text, time.as_secs_f64());
            node.time = RawValue::from_string(text).ok();
            node.time_s = go_duration(time);
        }
        nodes
    }

    /// By their names.
    fn all(&self) -> impl Iterator<Item = &Node> {
        let before = self.others.iter().take_while(|other| other.id < self.own.id);
        let after = self.others.iter().skip_while(|other| other.id < self.own.id);
        before.chain(std::iter::once(&self.own)).chain(after)
    }

    fn leader(&self) -> Option<&Node> {
        self.all().find(|node| node.leader)
    }
}

fn other(peer: &PeerStatus, leads: Option<NodeId>) -> Node {
    let api_addr = peer.http.clone().unwrap_or_default();
    let error = match (peer.connected, api_addr.is_empty()) {
        (false, _) => "it is not connected to this server",
        (true, true) => "its HTTP address is not in this server's server.toml",
        (true, false) => "",
    };
    Node {
        id: peer.name.clone(),
        addr: peer.address.clone(),
        version: "unknown".into(),
        voter: true,
        // rqlite's clients go there.
        reachable: error.is_empty(),
        leader: leads == Some(peer.key),
        time: None,
        time_s: String::new(),
        api_addr,
        error,
    }
}

/// Whose turn it is, if a client can be sent there; else this server, if it takes writes.
fn leader_of(status: &ServerStatus) -> Option<NodeId> {
    if matches!(status.state, ServerState::NoQuorum | ServerState::Diverged) {
        return None;
    }
    let turn = status.leader.as_ref().map(|leader| leader.key);
    let in_reach = |key: &NodeId| {
        let mut peers = status.peers.iter();
        peers.any(|peer| peer.key == *key && peer.connected && peer.http.is_some())
    };
    turn.filter(in_reach).or(Some(status.key))
}

/// Where clients reach this server, if its settings do not say so: where it listens, or, where it
/// listens everywhere, what the client has called it.
fn own_address(door: &Door, headers: &HeaderMap) -> String {
    let scheme = if door.tls.is_some() { "https" } else { "http" };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match host.filter(|_| door.address.ip().is_unspecified()) {
        Some(host) => format!("{scheme}://{host}"),
        None => format!("{scheme}://{}", door.address),
    }
}

/// `GET /nodes`: an object by names, or with `ver=2` an array.
async fn nodes(State(door): State<Door>, headers: HeaderMap, Query(options): Options) -> Response {
    // What is asked for is known already: nothing has to be waited for.
    if time_out(&options).is_none() {
        return no_duration();
    }
    let nodes = Nodes::of(&door, &headers, &door.driver.status());
    let texts = nodes.all().map(|node| {
        let text = serde_json::to_string(node).unwrap_or_default();
        let mut name = String::new();
        go::string(&mut name, &node.id);
        (name, text)
    });
    let text = if given(&options, "ver") == Some("2") {
        let texts: Vec<String> = texts.map(|(_, text)| text).collect();
        format!("{{\"nodes\":[{}]}}", texts.join(","))
    } else {
        let texts: Vec<String> = texts.map(|(name, text)| format!("{name}:{text}")).collect();
        format!("{{{}}}", texts.join(","))
    };
    answer(&options, text)
}

/// `GET /leader`.
async fn leader(State(door): State<Door>, headers: HeaderMap, Query(options): Options) -> Response {
    let nodes = Nodes::of(&door, &headers, &door.driver.status());
    match nodes.leader() {
        Some(leader) => answer(&options, serde_json::to_string(leader).unwrap_or_default()),
        // rqlite's words.
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "leader not found"),
    }
}

/// `POST /leader`: the leader that was elected has another one elected.
async fn step_down(State(door): State<Door>, Extension(login): Extension<Login>) -> Response {
    let status = door.driver.status();
    if status.method != Method::Raft {
        return refuse(
            StatusCode::NOT_IMPLEMENTED,
            "nobody can be made to step down: nobody was elected; the turn goes round by itself, \
             and every server takes writes",
        );
    }
    if !login.administrator {
        return refuse(StatusCode::FORBIDDEN, "another leader is for administrators to ask for");
    }
    if status.role != "leader" {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "this server does not lead: GET /leader");
    }
    match door.driver.hand_over().await {
        true => StatusCode::OK.into_response(),
        false => refuse(StatusCode::SERVICE_UNAVAILABLE, "no other server could take over"),
    }
}

/// `GET /readyz`, line by line as rqlite has it.
async fn ready(State(door): State<Door>, Query(options): Options) -> Response {
    if door.driver.state() == ServerState::Diverged {
        let text = "[-]node diverged from the cluster";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    if given(&options, "noleader").is_some() {
        return "[+]node ok".into_response();
    }
    let Some(time) = time_out(&options) else { return no_duration() };
    let sync = given(&options, "sync").is_some();
    let by = tokio::time::Instant::now() + time;
    let synced = !sync || tokio::time::timeout_at(by, caught_up(&door)).await.is_ok();
    let (code, lines) = match door.driver.state() {
        ServerState::NoQuorum | ServerState::Diverged => {
            (StatusCode::SERVICE_UNAVAILABLE, "[+]node ok\n[+]leader does not exist")
        }
        _ if !synced => (
            StatusCode::SERVICE_UNAVAILABLE,
            "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync timeout",
        ),
        ServerState::CatchingUp => {
            (StatusCode::SERVICE_UNAVAILABLE, "[+]node ok\n[+]leader ok\n[+]store not ready")
        }
        ServerState::Ready if sync => {
            (StatusCode::OK, "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok")
        }
        ServerState::Ready => (StatusCode::OK, "[+]node ok\n[+]leader ok\n[+]store ok"),
    };
    (code, lines).into_response()
}

/// Returns when this server has executed all that was final here when it was asked.
async fn caught_up(door: &Door) {
    let wanted = door.driver.height();
    let mut again = tokio::time::interval(SYNC_STEP);
    while !door.driver.has_executed(wanted) {
        again.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_by_its_path() {
        let parts = json!({ "store": { "raft": { "term": 1 } } });
        for (key, want) in [
            ("store.raft", json!({ "term": 1 })),
            ("store.raft.term", json!(1)),
            ("store.nothing", json!({})),
            ("store.raft.term.deeper", json!({})),
        ] {
            assert_eq!(part(parts.clone(), key), want, "{key}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, want) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (12_345_000, "12.345ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want);
        }
    }
}
