//! Backups out of a real server over HTTP, and back into another one.

mod support;

use std::net::SocketAddr;
use std::path::Path;

use rota_core::transaction::Settings;
use rota_node::driver::WriteOptions;
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use support::{Cluster, statement};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `ada:secret` and `bob:secret`.
const ADA: &str = "Authorization: Basic YWRhOnNlY3JldA==\r\n";
const BOB: &str = "Authorization: Basic Ym9iOnNlY3JldA==\r\n";

async fn http(to: SocketAddr, request: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         {headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early closes while the body is still on its way.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_off(end + 4))
}

async fn get(to: SocketAddr, path: &str) -> Vec<u8> {
    let (code, body) = http(to, &format!("GET {path}"), "", b"").await;
    assert_eq!(code, 200, "{path}: {}", String::from_utf8_lossy(&body));
    body
}

async fn json(to: SocketAddr, request: &str, body: &Json) -> Json {
    let (code, answer) = http(to, request, "", body.to_string().as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(code, 200, "{request}: {answer}");
    assert!(!answer.contains("\"error\""), "{request}: {answer}");
    serde_json::from_str(&answer).unwrap()
}

async fn execute(to: SocketAddr, statements: Json) -> Json {
    json(to, "POST /db/execute", &statements).await
}

async fn load(to: SocketAddr, body: &[u8]) -> (u16, Json) {
    let (code, answer) = http(to, "POST /db/load?rota", "", body).await;
    (code, serde_json::from_slice(&answer).unwrap())
}

/// The only server of a new database.
async fn start() -> (Cluster, SocketAddr) {
    let cluster = Cluster::start(1).await;
    let address = cluster.servers[0].as_ref().unwrap().http;
    (cluster, address)
}

fn made(sql: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("made");
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    std::fs::read(file).unwrap()
}

fn nothing_is_left_in(home: &Path) {
    let left = std::fs::read_dir(home.join("scratch")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_backed_up_is_there_again_when_it_is_loaded() {
    let (one, from) = start().await;
    let (two, to) = start().await;
    execute(from, json!([
        "CREATE TABLE person(id INTEGER PRIMARY KEY AUTOINCREMENT, boss INT REFERENCES person,
            name TEXT DEFAULT \"nobody\", photo BLOB, size REAL)",
        "CREATE TABLE loose(a, twice AS (a * 2))",
        "CREATE TABLE counted(id BIGINT NOT NULL PRIMARY KEY DEFAULT
            (rota_nextval('counted_id_seq')), v)",
        "CREATE INDEX by_name ON person(name)",
        "CREATE VIEW sizes AS SELECT name, size FROM person",
        ["INSERT INTO person VALUES (1, NULL, ?, ?, 0.1), (9, 1, 'gone', NULL, 1)",
            "it's", [0, 255]],
        "UPDATE person SET boss = 9",
        "DELETE FROM person WHERE id = 9 AND 0",
        "INSERT INTO loose(rowid, a) VALUES (3, 'x'), (7, 2)",
        "INSERT INTO counted(v) VALUES ('one'), ('two')",
        "CREATE TRIGGER grows AFTER INSERT ON loose BEGIN UPDATE person SET size = size + 1; END"
    ]))
    .await;
    execute(
        to,
        json!([
            "CREATE TABLE parent(id INTEGER PRIMARY KEY, child INT REFERENCES child DEFERRABLE
            INITIALLY DEFERRED)",
            "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INT NOT NULL REFERENCES parent)",
            "CREATE VIEW old AS SELECT * FROM parent"
        ]),
    )
    .await;
    let circle = json!(["INSERT INTO parent VALUES (1, 2)", "INSERT INTO child VALUES (2, 1)"]);
    json(to, "POST /db/execute?transaction", &circle).await;
    let file = get(from, "/db/backup").await;
    let dump = get(from, "/db/backup?fmt=sql").await;
    let (code, answer) = load(to, &file).await;
    assert_eq!((code, &answer["results"]), (200, &json!([])), "{answer}");
    assert_eq!(get(to, "/db/backup?fmt=sql").await, dump);
    assert_eq!(get(to, "/db/backup").await, file);
    let returning = json!([
        "INSERT INTO counted(v) VALUES ('three') RETURNING id",
        "INSERT INTO person(name) VALUES ('new') RETURNING id"
    ]);
    let answer = json(to, "POST /db/request", &returning).await;
    assert_eq!(answer["results"][0]["values"], json!([[3]]), "{answer}");
    assert_eq!(answer["results"][1]["values"], json!([[10]]), "{answer}");
    // The same as text, into a database without tables of those names.
    assert_eq!(load(to, &made("VACUUM")).await.0, 200);
    let (code, answer) = load(to, &dump).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["results"][0]["rows_affected"], 6, "{answer}");
    assert_eq!(get(to, "/db/backup?fmt=sql").await, dump);
    let answer = json(to, "POST /db/request", &returning).await;
    assert_eq!(answer["results"][0]["values"], json!([[3]]), "{answer}");
    nothing_is_left_in(one.homes[0].path());
    nothing_is_left_in(two.homes[0].path());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_rows_are_loaded_at_once_and_on_all_servers() {
    let cluster = Cluster::start(2).await;
    let to = cluster.servers[0].as_ref().unwrap().http;
    let file = made(
        "CREATE TABLE tree(id INTEGER PRIMARY KEY, next INT REFERENCES tree, name TEXT, r REAL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000)
            INSERT INTO tree SELECT i, CASE WHEN i < 50000 THEN i + 1 END, 'number ' || i, i / 7.0
            FROM n;",
    );
    // Twice: the second time it replaces as many.
    for _ in 0..2 {
        let (code, answer) = load(to, &file).await;
        assert_eq!(code, 200, "{answer}");
        let height = rota_core::types::Height(answer["rota"]["height"].as_u64().unwrap());
        let root = cluster.root(0, height).await;
        assert_eq!(cluster.root(1, height).await, root);
    }
    let sql = "GET /db/query?q=SELECT%20count(*),sum(next),max(name)%20FROM%20tree";
    let answer = json(cluster.servers[1].as_ref().unwrap().http, sql, &Json::Null).await;
    let want = json!([[50_000, 1_250_024_999, "number 9999"]]);
    assert_eq!(answer["results"][0]["values"], want);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_one_moment_while_writes_go_on() {
    let (_cluster, at) = start().await;
    execute(
        at,
        json!([
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT)",
            "INSERT INTO account VALUES (1, 1000), (2, 1000)"
        ]),
    )
    .await;
    let writing = tokio::spawn(async move {
        for _ in 0..200 {
            let step = json!([
                "UPDATE account SET balance = balance - 1 WHERE id = 1",
                "UPDATE account SET balance = balance + 1 WHERE id = 2"
            ]);
            json(at, "POST /db/execute?transaction", &step).await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    let mut seen = Vec::new();
    while !writing.is_finished() {
        std::fs::write(&path, get(at, "/db/backup").await).unwrap();
        let sql = "SELECT sum(balance), max(balance) FROM account";
        let found = Connection::open(&path)
            .unwrap()
            .query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let (sum, newest) = found.unwrap();
        assert_eq!(sum, 2_000);
        seen.push(newest);
    }
    writing.await.unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.last() > seen.first(), "nothing was written meanwhile: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_changes_nothing() {
    let (cluster, at) = start().await;
    execute(at, json!(["CREATE TABLE kept(a)", "INSERT INTO kept VALUES (1)"])).await;
    let before = get(at, "/db/backup?fmt=sql").await;
    let lonely = "PRAGMA foreign_keys=OFF; BEGIN; CREATE TABLE p(a PRIMARY KEY);
        CREATE TABLE c(a REFERENCES p); INSERT INTO c VALUES (1); COMMIT;";
    for (body, code, part) in [
        (made("CREATE TABLE t(a); PRAGMA journal_mode=WAL"), 400, "WAL mode"),
        (made("CREATE VIRTUAL TABLE f USING fts5(a)"), 400, "virtual"),
        (made("CREATE TABLE rota_users(a)"), 403, "rota_"),
        (made("CREATE TABLE t(a DEFAULT (load_extension('x')))"), 400, "load_extension"),
        (made("CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(1500000))"), 413, "pieces"),
        (made(lonely), 400, "FOREIGN KEY"),
        (made("CREATE TABLE t(a)")[..3_000].to_vec(), 400, "cannot be read"),
        (lonely.into(), 400, "FOREIGN KEY"),
        (b"CREATE TABLE t(a); INSERT INTO nowhere VALUES (1)".to_vec(), 400, "statement 2"),
        (b"BEGIN; CREATE TABLE t(a); ROLLBACK;".to_vec(), 400, "ROLLBACK"),
        (b"INSERT INTO rota_users VALUES (1)".to_vec(), 403, "system"),
        (b"\x1f\x8b\x08\x00\xff".to_vec(), 400, "neither"),
        (Vec::new(), 400, "the body is empty"),
    ] {
        let (got, answer) = load(at, &body).await;
        assert_eq!(got, code, "{part}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(part), "{part}: {answer}");
        assert_eq!(get(at, "/db/backup?fmt=sql").await, before, "{part}");
    }
    nothing_is_left_in(cluster.homes[0].path());
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_for_those_who_may_see_everything() {
    let (cluster, at) = start().await;
    execute(
        at,
        json!([
            "CREATE TABLE t(a)",
            "CREATE USER ada PASSWORD 'secret'",
            "CREATE USER bob PASSWORD 'secret'",
            "GRANT SELECT ON ALL TABLES TO ada",
            "GRANT SELECT ON t TO bob"
        ]),
    )
    .await;
    let dump = b"CREATE TABLE u(a);";
    for (user, backup, loading) in [(ADA, 200, 403), (BOB, 403, 403), ("", 200, 200)] {
        let (code, body) = http(at, "GET /db/backup", user, b"").await;
        assert_eq!(code, backup, "{user}");
        assert!(!body.windows(5).any(|window| window == b"SCRAM"));
        assert_eq!(http(at, "POST /db/load", user, dump).await.0, loading, "{user}");
    }
    // What a load may do with sequences, others may not: no numbers would be left.
    let greedy = statement("SELECT rota_setval('counted_id_seq', 9223372036854775806)", Vec::new());
    let driver = cluster.driver(0);
    let options = WriteOptions::default();
    let refused = driver.write("bob", vec![greedy], Settings::default(), &options).await;
    assert_eq!(refused.unwrap_err().refusal.code(), "42501");
    let wrong = "Authorization: Basic YWRhOndyb25n\r\n";
    assert_eq!(http(at, "GET /db/backup", wrong, b"").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_say_where_they_stand_as_rqlite_does() {
    let mut cluster = Cluster::start(2).await;
    cluster.is(1, rota_node::State::Ready).await;
    let first = cluster.servers[0].as_ref().unwrap().http;
    let second = cluster.servers[1].as_ref().unwrap().http;
    let text = async |path| String::from_utf8(get(second, path).await).unwrap();
    assert_eq!(text("/readyz").await, "[+]node ok\n[+]leader ok\n[+]store ok");
    assert_eq!(text("/readyz?noleader").await, "[+]node ok");
    let synced = "[+]node ok\n[+]leader ok\n[+]store ok\n[+]sync ok";
    assert_eq!(text("/readyz?sync&timeout=5s").await, synced);
    let nodes: Json = serde_json::from_str(&text("/nodes?ver=2").await).unwrap();
    let fields: Vec<&String> = nodes["nodes"][0].as_object().unwrap().keys().collect();
    let want = ["id", "api_addr", "addr", "version", "voter", "reachable", "leader", "time"];
    assert_eq!(fields[..8], want);
    assert_eq!(nodes["nodes"][0]["api_addr"], format!("http://{first}"));
    assert_eq!(nodes["nodes"][1]["api_addr"], format!("http://{second}"));
    let leaders = nodes["nodes"].as_array().unwrap().iter().filter(|node| node["leader"] == true);
    assert_eq!(leaders.count(), 1);
    let old: Json = serde_json::from_str(&text("/nodes").await).unwrap();
    assert_eq!(old["server-1"]["reachable"], true);
    let leader: Json = serde_json::from_str(&text("/leader").await).unwrap();
    assert_eq!(leader["leader"], true);
    assert!(text("/nodes?pretty").await.starts_with("{\n    \"server-1\": {\n"));
    let part: Json = serde_json::from_str(&text("/status?key=store.leader").await).unwrap();
    assert!(part["node_id"].as_str().unwrap().starts_with("server-"));
    for (request, code) in [
        ("POST /leader", 501),
        ("POST /boot", 501),
        ("DELETE /remove", 501),
        ("GET /debug/pprof/profile", 501),
        ("GET /nodes?timeout=soon", 400),
    ] {
        assert_eq!(http(second, request, "", b"").await.0, code, "{request}");
    }
    cluster.stop(0).await;
    cluster.is(1, rota_node::State::NoQuorum).await;
    let (code, body) = http(second, "GET /readyz", "", b"").await;
    assert_eq!((code, body.as_slice()), (503, &b"[+]node ok\n[+]leader does not exist"[..]));
    assert_eq!(http(second, "GET /readyz?noleader", "", b"").await.0, 200);
    assert_eq!(http(second, "GET /leader", "", b"").await.0, 503);
}
