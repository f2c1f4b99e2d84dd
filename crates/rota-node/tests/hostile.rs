//! Hostile statements at every door of running servers: the table that the state machine's tests
//! have too (`rota-store/tests/hostile`). After each, nothing has changed that should not have; at
//! the end both servers are alive and their copies equal.

mod support;
#[path = "../../rota-store/tests/hostile/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_core::crypto::SecretKey;
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry, Settings, Transaction, Value};
use rota_core::types::Height;
use rota_node::State;
use rota_node::driver::{ReadOptions, WriteOptions};
use rota_store::access::text_of;
use rota_store::sql::{Access, classify, split};
use serde_json::{Value as Json, json};
use support::{Cluster, PATIENCE, statement, write};
use table::{ADMINISTRATOR, Entry, UNTOUCHED, entries, world};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

/// The tests' own server goes on signing for the administrator, who has a key too.
const VERIFIER: &str = "PASSWORD 'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7\
                        BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU='";

/// `ok`, or why not.
type Verdict = Result<(), String>;

/// A way in.
enum Door {
    Simple(BTreeMap<String, Client>),
    Extended(BTreeMap<String, Client>),
    Http,
    Hrana,
    Envelope(u128),
}

impl Door {
    /// How the table names it.
    fn name(&self) -> &'static str {
        match self {
            Self::Simple(_) | Self::Extended(_) => "pg",
            Self::Http => "http",
            Self::Hrana => "hrana",
            Self::Envelope(_) => "block",
        }
    }

    async fn send(&mut self, cluster: &Cluster, who: &str, script: &str) -> Verdict {
        match self {
            Self::Simple(clients) => {
                let client = client(cluster, clients, who).await;
                client.batch_execute(script).await.map_err(code)
            }
            Self::Extended(clients) => {
                extended(client(cluster, clients, who).await, &split(script)).await.map_err(code)
            }
            Self::Http => rqlite(cluster, who, &split(script)).await,
            Self::Hrana => hrana(cluster, who, &split(script)).await,
            Self::Envelope(salt) => {
                *salt += 1;
                envelope(cluster, *salt, who, &split(script)).await
            }
        }
    }
}

fn code(error: tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("lost: {error}"), |code| code.code().to_owned())
}

async fn client<'a>(
    cluster: &Cluster,
    clients: &'a mut BTreeMap<String, Client>,
    who: &str,
) -> &'a mut Client {
    if !clients.contains_key(who) {
        let port = cluster.servers[0].as_ref().unwrap().pg.port();
        let config = format!("host=127.0.0.1 port={port} user={who} dbname=rota");
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        clients.insert(who.to_owned(), client);
    }
    clients.get_mut(who).unwrap()
}

/// Parse, Describe, Bind and Execute for each; several in a transaction.
async fn extended(client: &mut Client, script: &[&str]) -> Result<(), tokio_postgres::Error> {
    if let [one] = script {
        return client.query(*one, &[]).await.map(drop);
    }
    let transaction = client.transaction().await?;
    for sql in script {
        transaction.query(*sql, &[]).await?;
    }
    transaction.commit().await
}

/// A whole HTTP request; the answer's status and body.
async fn http(cluster: &Cluster, who: &str, request: &str, body: &Json) -> (u16, Json) {
    let address = cluster.servers[0].as_ref().unwrap().http;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (body, user) = (body.to_string(), STANDARD.encode(format!("{who}:")));
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/json\r\nAuthorization: Basic {user}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| Json::String(body.to_owned())))
}

fn only_reads(script: &[&str]) -> bool {
    matches!(script, [one] if classify(one).access == Access::Read)
}

async fn rqlite(cluster: &Cluster, who: &str, script: &[&str]) -> Verdict {
    let path = match script {
        script if only_reads(script) => "/db/query",
        [_] => "/db/execute",
        _ => "/db/request?transaction",
    };
    let (status, answer) = http(cluster, who, &format!("POST {path}"), &json!(script)).await;
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let error = results.iter().find_map(|result| result["error"].as_str());
    match error.or(answer["error"].as_str()) {
        Some(error) => Err(error.to_owned()),
        None if status == 200 && !results.is_empty() => Ok(()),
        None => Err(format!("{status} {answer}")),
    }
}

async fn hrana(cluster: &Cluster, who: &str, script: &[&str]) -> Verdict {
    let execute = |sql: &str| json!({ "type": "execute", "stmt": { "sql": sql } });
    let close = json!({ "type": "close" });
    let mut requests: Vec<Json> = script.iter().map(|sql| execute(sql)).collect();
    if let [_] = script {
        requests.push(close);
        return pipeline(cluster, who, &json!({ "requests": requests })).await.map(drop);
    }
    requests.insert(0, execute("BEGIN"));
    let answer = pipeline(cluster, who, &json!({ "requests": requests })).await;
    // A stream that nobody goes on with is rolled back.
    let last = json!({ "baton": answer?, "requests": [execute("COMMIT"), close] });
    pipeline(cluster, who, &last).await.map(drop)
}

/// The baton, or the first error.
async fn pipeline(cluster: &Cluster, who: &str, body: &Json) -> Result<Json, String> {
    let (status, answer) = http(cluster, who, "POST /v2/pipeline", body).await;
    let Some(results) = answer["results"].as_array() else {
        return Err(format!("{status} {answer}"));
    };
    let failed = results.iter().find(|result| result["type"] == "error");
    failed.map_or(Ok(answer["baton"].clone()), |result| {
        Err(result["error"]["code"].as_str().unwrap_or("no code").to_owned())
    })
}

/// Everybody's key in the test of envelopes.
fn key_of(who: &str) -> SecretKey {
    let mut bytes = [99; 32];
    bytes[..who.len()].copy_from_slice(who.as_bytes());
    SecretKey::from_bytes(bytes)
}

async fn envelope(cluster: &Cluster, salt: u128, who: &str, script: &[&str]) -> Verdict {
    let now = cluster.driver(0).chain_now().await.unwrap();
    let expiry = Expiry {
        height: Height(now.height.0 + 10_000),
        time: Time(now.time_ms).plus(std::time::Duration::from_secs(60)),
    };
    let transaction = Transaction {
        salt: salt.to_le_bytes(),
        user: who.into(),
        statements: script.iter().map(|sql| statement(sql, Vec::new())).collect(),
        settings: Settings::default(),
        interactive: None,
    };
    let chain = cluster.genesis.chain_id();
    let signed = Envelope::sign(chain, &key_of(who), expiry, vec![transaction]);
    let answers = cluster.driver(0).submit_envelope(signed, Instant::now() + PATIENCE).await;
    let mut answers = answers.map_err(|refusal| refusal.code().to_owned())?;
    answers.remove(0).map(drop).map_err(|error| error.refusal.code().to_owned())
}

async fn administer(cluster: &Cluster, script: &str) {
    let statements = split(script).into_iter().map(|sql| statement(sql, Vec::new())).collect();
    let (driver, settings) = (cluster.driver(0), Settings::default());
    let written = driver.write(ADMINISTRATOR, statements, settings, &WriteOptions::default()).await;
    written.unwrap_or_else(|error| panic!("{script}: {error}"));
}

async fn asked(cluster: &Cluster, query: &str) -> Vec<Vec<Value>> {
    let (driver, options) = (cluster.driver(0), ReadOptions::default());
    let query = statement(query, Vec::new());
    let read = driver.read(ADMINISTRATOR, query.clone(), Settings::default(), &options).await;
    read.unwrap_or_else(|refusal| panic!("{query:?}: {refusal}")).rows
}

/// All but the sequences: a draft has numbers reserved before it is refused.
async fn untouched(cluster: &Cluster) -> Vec<Vec<Vec<Value>>> {
    let mut found = Vec::new();
    for query in UNTOUCHED.iter().filter(|query| !query.contains("rota_sequences")) {
        found.push(asked(cluster, query).await);
    }
    found
}

fn judge(entry: &Entry, want: &str, found: &Verdict, failures: &mut Vec<String>) {
    let kept = match found {
        Ok(()) => want == "ok",
        Err(code) => want != "ok" && code != "XX000" && !code.starts_with("lost"),
    };
    if !kept {
        failures.push(format!("{found:?}, not {want}: {}", entry.name()));
    }
}

async fn try_all(cluster: &Cluster, mut door: Door) {
    let (mut failures, mut attacks) = (Vec::new(), 0);
    for entry in entries() {
        let want = entry.verdict_at(door.name(), only_reads(&split(&entry.script)));
        let want = if door.name() == "block" { entry.verdict("block") } else { want };
        if entry.is_setup() {
            administer(cluster, &entry.script).await;
            continue;
        }
        if want == "-" {
            continue;
        }
        attacks += 1;
        let before = untouched(cluster).await;
        let found = door.send(cluster, &entry.who, &entry.script).await;
        judge(&entry, want, &found, &mut failures);
        if found.is_err() {
            assert_eq!(untouched(cluster).await, before, "{}", entry.name());
        }
        for (query, value) in &entry.after {
            let found = asked(cluster, query).await;
            let is_so = match &found[0][0] {
                Value::Integer(number) => number.to_string() == *value,
                other => *other == Value::Text(value.clone()),
            };
            assert!(is_so, "{}: {query}: {found:?}", entry.name());
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(attacks >= 150, "only {attacks}");
}

/// Through one door, all of it: then both servers are there, and equal.
async fn attack(door: Door, keys: bool) {
    let cluster = Cluster::start(2).await;
    for number in 0..2 {
        cluster.is(number, State::Ready).await;
    }
    administer(&cluster, &world()).await;
    for who in ["alice", "maker", "bob", "carol", "nobody", ADMINISTRATOR] {
        if keys {
            let key = text_of(&key_of(who).public());
            let also = if who == ADMINISTRATOR { VERIFIER } else { "" };
            administer(&cluster, &format!("ALTER USER {who} KEY '{key}' {also}")).await;
        }
    }
    try_all(&cluster, door).await;
    let last = write(&cluster.driver(0), "CREATE TABLE alive(a)").await.unwrap();
    let roots = [cluster.root(0, last.height).await, cluster.root(1, last.height).await];
    assert_eq!(roots[0], roots[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_queries() {
    attack(Door::Simple(BTreeMap::new()), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_queries() {
    attack(Door::Extended(BTreeMap::new()), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rqlites_api() {
    attack(Door::Http, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libsqls_api() {
    attack(Door::Hrana, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_that_users_have_signed_themselves() {
    attack(Door::Envelope(0), true).await;
}
