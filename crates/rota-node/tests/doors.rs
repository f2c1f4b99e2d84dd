//! Real clients at the doors of a real server, the only member of its database.

use std::net::SocketAddr;

use rota_core::crypto::SecretKey;
use rota_core::genesis::{FORMAT, Genesis, Method, Parameters};
use rota_core::members::Member;
use rota_core::types::Digest;
use rota_node::{RunOptions, Server, ServerConfig, create_home};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

struct Running {
    server: Server,
    _home: TempDir,
}

async fn start() -> Running {
    let home = tempfile::tempdir().unwrap();
    let key = SecretKey::from_bytes([7; 32]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let genesis = Genesis {
        format: FORMAT,
        name: "test".into(),
        time_ms: u64::try_from(now.as_millis()).unwrap(),
        method: Method::Poa,
        seed: Digest([0; 32]),
        trusted_servers: true,
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        members: vec![Member { key: key.public(), weight: 1 }],
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config =
        ServerConfig { name: "server-1".into(), pg: any, http: any, peer: any, peers: Vec::new() };
    create_home(home.path(), &genesis, &key, &config).unwrap();
    let server = Server::start(home.path(), RunOptions::default()).await.unwrap();
    Running { server, _home: home }
}

impl Running {
    async fn client(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=rota dbname=rota", self.server.pg.port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A whole HTTP request; the answer's status and body.
    async fn http(&self, request: &str, headers: &str, body: &str) -> (u16, String) {
        let address = self.server.http;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early closes while the body is still on its way.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    async fn json(&self, request: &str, body: &Json) -> Json {
        let (code, answer) = self.http(request, "Host: localhost\r\n", &body.to_string()).await;
        assert_eq!(code, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", |code| code.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_go_in_and_out_in_binary() {
    let running = start().await;
    let client = running.client().await;
    client
        .batch_execute(
            "CREATE TABLE t(id BIGINT PRIMARY KEY, r DOUBLE PRECISION, s TEXT, b BYTEA, ok \
             BOOLEAN)",
        )
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO t VALUES($1, $2, $3, $4, $5)").await.unwrap();
    let types = [Type::INT8, Type::FLOAT8, Type::TEXT, Type::BYTEA, Type::BOOL];
    assert_eq!(insert.params(), types);
    let bytes = vec![0u8, 255];
    let full: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&i64::MIN, &1.5f64, &"größe", &bytes, &true];
    assert_eq!(client.execute(&insert, &full).await.unwrap(), 1);
    let none: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&1i64, &None::<f64>, &None::<String>, &None::<Vec<u8>>, &None::<bool>];
    client.execute(&insert, &none).await.unwrap();

    let rows = client.query("SELECT * FROM t WHERE id <= $1 ORDER BY id", &[&1i64]).await.unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), i64::MIN);
    assert_eq!(rows[0].get::<_, f64>(1), 1.5);
    assert_eq!(rows[0].get::<_, &str>(2), "größe");
    assert_eq!(rows[0].get::<_, Vec<u8>>(3), bytes);
    assert!(rows[0].get::<_, bool>(4));
    assert_eq!(rows[1].get::<_, Option<bool>>(4), None);

    let row = client.query_one("SELECT count(*), 'a' || $1::text, max(r) FROM t", &[&"b"]).await;
    let row = row.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (2, "ab"));
    assert_eq!(row.get::<_, f64>(2), 1.5);
    let row = client.query_one("INSERT INTO t(id) VALUES(7) RETURNING id", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_runs_statement_by_statement_and_tells_the_last_writes_position() {
    let running = start().await;
    let client = running.client().await;
    let script = "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); SELECT * FROM t; SHOW rota.last";
    let messages = client.simple_query(script).await.unwrap();
    let rows: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(rows[..2], ["1", "2"]);
    let parts: Vec<&str> = rows[2].split(' ').collect();
    assert_eq!(parts.len(), 3, "height, index, id: {rows:?}");
    let asked = client.simple_query(&format!("SELECT rota_transaction('{}')", parts[2])).await;
    let asked = format!("{:?}", asked.unwrap());
    assert!(asked.contains("final at"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_and_leave_the_connection_usable() {
    let running = start().await;
    let client = running.client().await;
    client.batch_execute("CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    client.batch_execute("INSERT INTO t VALUES(1)").await.unwrap();
    let large = format!("SELECT '{}'", "x".repeat(10 << 20));
    for (sql, want) in [
        ("INSERT INTO t VALUES(1)", "23505"),
        ("SELECT * FROM absent", "42P01"),
        ("SELEC 1", "42601"),
        ("BEGIN", "0A000"),
        ("SAVEPOINT a", "25P01"),
        ("SELECT * FROM pg_catalog.pg_proc", "0A000"),
        ("SELECT $1", "42P02"),
        (large.as_str(), "54000"),
    ] {
        let error = client.simple_query(sql).await.unwrap_err();
        assert_eq!(code(&error), want, "{sql:.40}: {error}");
    }
    let error = client.query(&large, &[]).await.unwrap_err();
    assert_eq!(code(&error), "54000");
    client.batch_execute("COMMIT; SET application_name = 'x'; DISCARD ALL; ;").await.unwrap();
    assert_eq!(client.query("SELECT a FROM t", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_told_which_one_there_is() {
    let running = start().await;
    let config = format!("host=127.0.0.1 port={} user=alice", running.server.pg.port());
    let error = tokio_postgres::connect(&config, NoTls).await.err().unwrap();
    assert_eq!(code(&error), "28000");
    assert!(format!("{error:?}").contains("psql -U rota"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_only() {
    let running = start().await;
    let client = running.client().await;
    let startup = b"\0\0\0\x13\0\x03\0\0user\0rota\0\0";
    for garbage in [
        [0xffu8; 300].to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        [&startup[..], &[0xff; 64]].concat(),
        [&startup[..], b"B\0\0\0\x08\0\0\xff\xff"].concat(),
        [&startup[..], b"P\0\0\0\x04"].concat(),
        [&startup[..], b"Q\0\0\0\x06ab"].concat(),
    ] {
        let mut stream = TcpStream::connect(running.server.pg).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("08P01"), "{answer:?}");
    }
    client.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rqlites_requests_get_rqlites_answers() {
    let running = start().await;
    let body = json!(["CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT)"]);
    let created = running.json("POST /db/execute", &body).await;
    assert_eq!(created["results"][0]["rows_affected"], 0);
    let body =
        json!([["INSERT INTO t(s) VALUES(?)", "a"], ["INSERT INTO t(s) VALUES(:s)", {"s": "b"}]]);
    let answer = running.json("POST /db/execute?timings", &body).await;
    assert_eq!(answer["results"][1]["last_insert_id"], 2);
    assert_eq!(answer["results"][1]["rows_affected"], 1);
    assert!(answer["time"].is_f64());
    let id = answer["results"][1]["rota"]["id"].as_str().unwrap();
    assert_eq!(id.len(), 64);

    let answer =
        running.json("POST /db/query", &json!([["SELECT * FROM t WHERE s = \"b\""]])).await;
    let want = json!({"columns": ["id", "s"], "types": ["integer", "text"], "values": [[2, "b"]]});
    assert_eq!(answer["results"][0], want);
    let answer = running
        .json("GET /db/query?associative&q=SELECT%20count(*)%20AS%20n%20FROM%20t", &Json::Null);
    assert_eq!(answer.await["results"][0]["rows"], json!([{"n": 2}]));

    let body = json!(["INSERT INTO t VALUES(9, 'x')", "INSERT INTO t VALUES(1, 'y')"]);
    let answer = running.json("POST /db/execute?transaction", &body).await;
    assert_eq!(answer["results"][0]["sqlstate"], "23505", "{answer}");
    let body =
        json!(["SELECT count(*) FROM t", "DELETE FROM t WHERE id = 1", "SELECT count(*) FROM t"]);
    let answer = running.json("POST /db/request", &body).await;
    assert_eq!(answer["results"][0]["values"], json!([[2]]));
    assert_eq!(answer["results"][1]["rows_affected"], 1);
    assert_eq!(answer["results"][2]["values"], json!([[1]]));

    let answer = running.json("POST /db/query", &json!(["DELETE FROM t"])).await;
    assert_eq!(answer["results"][0]["sqlstate"], "25006");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_http_request_is_told() {
    let running = start().await;
    let large = format!("[\"{}\"]", "x".repeat(11 << 20));
    let parameters = format!("[[\"SELECT 1\"{}]]", ",1".repeat(100_000));
    let local = "Host: localhost\r\n";
    for (request, headers, body, want) in [
        ("POST /db/execute", local, "nonsense", 400),
        ("POST /db/execute", local, "[]", 400),
        ("GET /db/query", local, "", 400),
        ("POST /db/query?level=linearizable", local, "[\"SELECT 1\"]", 400),
        ("POST /db/execute", local, large.as_str(), 413),
        ("POST /db/execute", "Host: evil.example\r\n", "[\"SELECT 1\"]", 403),
        ("POST /db/execute", "Host: localhost\r\nOrigin: http://evil.example\r\n", "[]", 403),
        ("GET /elsewhere", local, "", 404),
        ("POST /db/query", local, parameters.as_str(), 200),
    ] {
        let (code, answer) = running.http(request, headers, body).await;
        assert_eq!(code, want, "{request} {body:.40}: {answer:.200}");
        assert!(answer.contains("\"error\""), "{request}: {answer:.200}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_where_it_stands() {
    let running = start().await;
    running.json("POST /db/execute", &json!(["CREATE TABLE t(a)"])).await;
    let status = running.json("GET /status", &Json::Null).await;
    assert_eq!(status["rota"]["name"], "server-1");
    assert!(status["rota"]["height"].as_u64().unwrap() >= 1);
    let nodes = running.json("GET /nodes", &Json::Null).await;
    assert_eq!(nodes["server-1"]["reachable"], true);
    let (code, body) = running.http("GET /readyz", "Host: 127.0.0.1\r\n", "").await;
    assert_eq!((code, body.as_str()), (200, "[+]node ok\n[+]leader ok\n[+]store ok\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_to_a_client_that_flushes_before_it_syncs() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.server.pg).await.unwrap();
    stream.write_all(b"\0\0\0\x13\0\x03\0\0user\0rota\0\0").await.unwrap();
    let parse = b"P\0\0\0\x1c\0SELECT * FROM absent\0\0\0";
    stream.write_all(&[&parse[..], b"D\0\0\0\x06S\0", b"H\0\0\0\x04"].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("42P01") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
    }
    // What comes before Sync is skipped; then the conversation goes on.
    let rest =
        [&b"E\0\0\0\x09\0\0\0\0\0"[..], b"S\0\0\0\x04", b"Q\0\0\0\x0dSELECT 7\0", b"X\0\0\0\x04"];
    stream.write_all(&rest.concat()).await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"), "{answer:?}");
}
