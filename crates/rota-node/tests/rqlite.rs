//! rqlite's data API, byte for byte: the scripts in `tests/rqlite` are replayed against a server of
//! their own each, and its answers must be what stands there.
//!
//! ```text
//!  POST /db/query?pretty text/plain      method, address, and the Content-Type if there is one
//!  ["SELECT 1"]                          body
//!  -- 200                                status
//!  {"results":[…]}                       body
//! ```
//!
//! A script line's T, N and I stand for a time, a number and an id that differ from run to run.

mod support;

use std::fmt::Write;

use rota_node::State;
use support::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer as it came.
struct Answer {
    code: u16,
    head: String,
    body: String,
}

async fn ask(cluster: &Cluster, request: &str, headers: &str, body: &str) -> Answer {
    let address = cluster.servers[0].as_ref().unwrap().http;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, head: head.to_lowercase(), body: body.to_owned() }
}

async fn server() -> Cluster {
    let cluster = Cluster::start(1).await;
    cluster.is(0, State::Ready).await;
    cluster
}

/// Puts T, N and I where times, numbers and ids are.
fn without_chance(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    let names = [
        ("\"time\":", 'T'),
        ("\"sequence_number\":", 'N'),
        ("\"raft_index\":", 'N'),
        ("\"height\":", 'N'),
        ("\"index\":0,\"id\":\"", 'I'),
        ("\"rota\":{\"id\":\"", 'I'),
    ];
    let first = |rest: &str| {
        let found =
            names.iter().filter_map(|name| Some((rest.find(name.0)? + name.0.len(), name.1)));
        found.min_by_key(|(at, _)| *at)
    };
    while let Some((at, letter)) = first(rest) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(' ') {
            out.push(' ');
            rest = after;
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".+-".contains(c))).unwrap();
        out.push(letter);
        rest = &rest[end..];
    }
    out + rest
}

/// What a script becomes when it is replayed.
async fn replayed(script: &str) -> String {
    let cluster = server().await;
    let mut out = String::new();
    for case in script.trim_end().split("\n\n") {
        if case.starts_with('#') {
            out += case;
            continue;
        }
        let (asked, _) = case.split_once("\n-- ").expect("a status");
        let (line, body) = asked.split_once('\n').unwrap_or((asked, ""));
        let mut words = line.splitn(3, ' ');
        let request = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        let kind = words.next().map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
        let answer = ask(&cluster, &request, &kind, body).await;
        let shown = without_chance(&answer.body);
        let _ = write!(out, "\n\n{asked}\n-- {}\n{}", answer.code, shown);
        out.truncate(out.trim_end().len());
    }
    out
}

async fn check(script: &str, path: &str) {
    let replayed = replayed(script).await;
    for (at, (want, got)) in script.lines().zip(replayed.lines()).enumerate() {
        assert_eq!(got, want, "{path}, line {}", at + 1);
    }
    assert_eq!(script.trim_end(), replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_and_querying_is_answered_as_documented() {
    check(include_str!("rqlite/writing.txt"), "writing.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unified_endpoint_the_queue_and_sql_are_answered_as_documented() {
    check(include_str!("rqlite/unified.txt"), "unified.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_types_and_parameters_are_answered_as_measured() {
    check(include_str!("rqlite/values.txt"), "values.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_errors_are_answered_as_measured() {
    check(include_str!("rqlite/results.txt"), "results.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ours_is_answered_as_it_is_told() {
    check(include_str!("rqlite/ours.txt"), "ours.txt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_tell_what_results_have_no_place_for() {
    let cluster = server().await;
    let answer = ask(&cluster, "POST /db/execute", "", "[\"CREATE TABLE t(a)\"]").await;
    for header in [
        "content-type: application/json; charset=utf-8",
        "x-rqlite-version: v",
        "rota-height: ",
        "rota-transaction: ",
    ] {
        assert!(answer.head.contains(header), "{header}: {}", answer.head);
    }
    let answer = ask(&cluster, "POST /db/query", "", "nonsense").await;
    assert!(answer.head.contains("content-type: text/plain; charset=utf-8"), "{}", answer.head);
    assert!(answer.head.contains("x-rqlite-version: v"), "{}", answer.head);
    let answer = ask(&cluster, "GET /db/execute", "", "").await;
    assert_eq!((answer.code, answer.body.as_str()), (405, ""));
}

/// What stands next to each other takes one block, not one each.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_all_work_share_a_transaction() {
    let cluster = server().await;
    let body = "[\"CREATE TABLE t(a)\", \"INSERT INTO t VALUES(1)\", \"INSERT INTO t VALUES(2)\"]";
    let answer = ask(&cluster, "POST /db/execute?rota", "", body).await;
    let ids: Vec<_> =
        answer.body.match_indices("\"id\":\"").map(|(at, _)| &answer.body[at..at + 70]).collect();
    assert_eq!(ids.len(), 3, "{}", answer.body);
    assert!(ids.iter().all(|id| *id == ids[0]), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_act_as_the_user_who_is_logged_in() {
    let cluster = server().await;
    let users = "[\"CREATE TABLE t(a)\", \"CREATE USER alice PASSWORD 'secret'\", \
                 \"GRANT SELECT ON t TO alice\"]";
    let answer = ask(&cluster, "POST /db/execute", "", users).await;
    assert!(!answer.body.contains("error"), "{}", answer.body);
    // alice:secret
    let alice = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    let body = "[\"SELECT count(*) FROM t\", \"INSERT INTO t VALUES (1)\"]";
    let denied = "{\"error\":\"permission denied for table t\"}";
    for (request, want) in [
        ("POST /db/request", "\"values\":[[0]]},{\"error\":\"permission denied for table t\"}"),
        ("POST /db/execute", denied),
        ("POST /db/execute?transaction", denied),
        ("POST /db/execute?queue&wait", "\"results\":[]"),
    ] {
        let answer = ask(&cluster, request, alice, body).await;
        assert!(answer.body.contains(want), "{request}: {}", answer.body);
    }
    let answer = ask(&cluster, "POST /db/query", "", "[\"SELECT count(*) FROM t\"]").await;
    assert!(answer.body.contains("\"values\":[[0]]"), "{}", answer.body);
    // alice:wrong
    let wrong = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
    assert_eq!(ask(&cluster, "POST /db/query", wrong, "[\"SELECT 1\"]").await.code, 401);
}
