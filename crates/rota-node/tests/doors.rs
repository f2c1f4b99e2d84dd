//! Real clients at the doors of a real server, the only member of its database.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use rota_core::crypto::SecretKey;
use rota_core::genesis::{Administrator, FORMAT, Genesis, Method, Parameters};
use rota_core::members::Member;
use rota_core::types::Digest;
use rota_node::{RunOptions, Server, ServerConfig, create_home};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

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
        pow: None,
        seed: Digest([0; 32]),
        trusted_servers: true,
        administrators: vec![Administrator::open("rota")],
        sqlite: rota_store::sqlite::identity(),
        parameters: Parameters::default(),
        members: vec![Member { key: key.public(), weight: 1 }],
    };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = ServerConfig { open: true, ..ServerConfig::new("server-1", any, any, any) };
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
async fn a_script_is_one_transaction_whose_position_is_told_after_it() {
    let running = start().await;
    let client = running.client().await;
    let script = "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); SELECT * FROM t";
    let mut messages = client.simple_query(script).await.unwrap();
    messages.extend(client.simple_query("SHOW rota.last").await.unwrap());
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
    let failing = "INSERT INTO t VALUES(3); INSERT INTO absent VALUES(1)";
    assert_eq!(code(&client.simple_query(failing).await.unwrap_err()), "42P01");
    assert_eq!(client.query("SELECT * FROM t", &[]).await.unwrap().len(), 2);
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
        ("LISTEN a", "0A000"),
        ("SAVEPOINT a", "25P01"),
        ("SELECT $1", "42P02"),
        (large.as_str(), "54000"),
    ] {
        let error = client.simple_query(sql).await.unwrap_err();
        assert_eq!(code(&error), want, "{sql:.40}: {error}");
    }
    let error = client.query(&large, &[]).await.unwrap_err();
    assert_eq!(code(&error), "54000");
    client.batch_execute("COMMIT; SET application_name = 'x'; ;").await.unwrap();
    client.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(client.query("SELECT a FROM t", &[]).await.unwrap().len(), 1);
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

impl Running {
    /// Sends COPY's data in these pieces; how many rows, or the error.
    async fn copy_in(&self, client: &Client, sql: &str, pieces: &[&[u8]]) -> Result<u64, Error> {
        let mut sink = Box::pin(client.copy_in(sql).await?);
        for piece in pieces {
            sink.send(Bytes::copy_from_slice(piece)).await?;
        }
        sink.as_mut().finish().await
    }

    async fn copy_out(&self, client: &Client, sql: &str) -> String {
        let stream = client.copy_out(sql).await.unwrap();
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(pieces.concat()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_copied_in_and_out_in_every_format() {
    let running = start().await;
    let client = running.client().await;
    client
        .batch_execute("CREATE TABLE t(id INT PRIMARY KEY, ok BOOLEAN, s TEXT, b BYTEA, l TEXT[])")
        .await
        .unwrap();
    let text: &[&[u8]] = &[b"1\tt\ta\\tb\t\\\\x00", b"ff\t{a,NULL}\n2\tf\t\\N\t\\N\t\\N\n"];
    assert_eq!(running.copy_in(&client, "COPY t FROM STDIN", text).await.unwrap(), 2);
    let csv: &[&[u8]] = &[b"s,id\r\n\"x, \"\"y\"\"\r\n\",3\r\n"];
    let sql = "COPY t (s, id) FROM STDIN WITH CSV HEADER";
    assert_eq!(running.copy_in(&client, sql, csv).await.unwrap(), 1);

    let out = running.copy_out(&client, "COPY t TO STDOUT").await;
    let third = "3\t\\N\tx, \"y\"\\r\\n\t\\N\t\\N\n";
    assert_eq!(out, format!("1\tt\ta\\tb\t\\\\x00ff\t{{a,NULL}}\n2\tf\t\\N\t\\N\t\\N\n{third}"));
    let sql = "COPY (SELECT s, id FROM t ORDER BY id DESC) TO STDOUT (FORMAT csv, HEADER)";
    let out = running.copy_out(&client, sql).await;
    assert_eq!(out, "s,id\n\"x, \"\"y\"\"\r\n\",3\n,2\na\tb,1\n");
    let out = running.copy_out(&client, "COPY (DELETE FROM t WHERE id = 3 RETURNING id) TO STDOUT");
    assert_eq!(out.await, "3\n");

    let types = [Type::INT4, Type::BOOL, Type::TEXT, Type::BYTEA, Type::TEXT_ARRAY];
    let sink = client.copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap();
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &types));
    let list = vec![Some("a"), None];
    writer.as_mut().write(&[&7i32, &true, &"größe\t", &[0u8, 9].as_slice(), &list]).await.unwrap();
    let none = (&None::<bool>, &None::<&str>, &None::<&[u8]>, &None::<Vec<&str>>);
    writer.as_mut().write(&[&8i32, none.0, none.1, none.2, none.3]).await.unwrap();
    assert_eq!(writer.as_mut().finish().await.unwrap(), 2);
    let stream = client.copy_out("COPY t TO STDOUT BINARY").await.unwrap();
    let rows: Vec<_> = BinaryCopyOutStream::new(stream, &types).try_collect().await.unwrap();
    let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, [1, 2, 7, 8]);
    assert_eq!(rows[2].get::<&str>(2), "größe\t");
    assert_eq!(rows[2].get::<Vec<Option<&str>>>(4), list);
    assert_eq!(rows[3].get::<Option<&[u8]>>(3), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_all_or_nothing_unless_batches_are_asked_for() {
    let running = start().await;
    let client = running.client().await;
    client.batch_execute("CREATE TABLE t(id INT PRIMARY KEY, s TEXT)").await.unwrap();
    let count =
        async || -> i64 { client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0) };
    for (sql, data, want) in [
        ("COPY t FROM STDIN", "1\ta\n2\n", "22P04"),
        ("COPY t FROM STDIN", "1\ta\n1\tb\n", "23505"),
        ("COPY t FROM STDIN", "1\ta\nx\tb\n", "22P02"),
        ("COPY t FROM STDIN (FORMAT binary)", "1\ta\n", "22P04"),
        ("COPY absent FROM STDIN", "", "42P01"),
        ("COPY t FROM '/etc/passwd'", "", "42501"),
        ("COPY t TO PROGRAM 'cat'", "", "42501"),
    ] {
        // What tokio-postgres sends after an early error would end its connection.
        let other = running.client().await;
        let error = running.copy_in(&other, sql, &[data.as_bytes()]).await.unwrap_err();
        assert_eq!(code(&error), want, "{sql} {data:?}: {error:?}");
    }
    assert_eq!(count().await, 0);

    // Three chunks are one transaction still; the second has a row that is there already.
    let line = |id: usize| format!("{id}\t{}\n", "x".repeat(1_000));
    let lines: String = (0..2_500).map(line).collect();
    let twice = [lines.as_bytes(), b"2000\ty\n"];
    let error = running.copy_in(&client, "COPY t FROM STDIN", &twice).await.unwrap_err();
    assert_eq!((code(&error), count().await), ("23505", 0));
    assert!(format!("{error:?}").contains("line 2501"), "{error:?}");
    assert_eq!(running.copy_in(&client, "COPY t FROM STDIN", &twice[..1]).await.unwrap(), 2_500);

    client.batch_execute("DELETE FROM t").await.unwrap();
    // More than fits into an envelope runs as a transaction.
    let large: String = (0..4_000).map(line).collect();
    let twice = [large.as_bytes(), b"2000\ty\n"];
    let error = running.copy_in(&client, "COPY t FROM STDIN", &twice).await.unwrap_err();
    assert_eq!((code(&error), count().await), ("23505", 0));
    assert_eq!(running.copy_in(&client, "COPY t FROM STDIN", &twice[..1]).await.unwrap(), 4_000);
    client.batch_execute("DELETE FROM t").await.unwrap();
    client.batch_execute("SET rota.copy_batch = 1000").await.unwrap();
    let data = [large.as_bytes(), b"5000\ta\n5000\tb\n"];
    let error = running.copy_in(&client, "COPY t FROM STDIN", &data).await.unwrap_err();
    assert_eq!((code(&error), count().await), ("23505", 4_000));
    assert!(format!("{error:?}").contains("4000 rows before were committed"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_its_copy_leaves_nothing_and_goes_on() {
    let running = start().await;
    let client = running.client().await;
    client.batch_execute("CREATE TABLE t(id INT)").await.unwrap();
    let mut sink = Box::pin(client.copy_in("COPY t FROM STDIN").await.unwrap());
    sink.send(Bytes::from_static(b"1\n2\n")).await.unwrap();
    drop(sink);
    let rows = client.query("SELECT * FROM t", &[]).await.unwrap();
    assert_eq!(rows.len(), 0);

    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(running.copy_in(&client, "COPY t FROM STDIN", &[b"1\n2\n"]).await.unwrap(), 2);
    assert_eq!(running.copy_out(&client, "COPY t TO STDOUT").await, "1\n2\n");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(running.copy_out(&client, "COPY t TO STDOUT").await, "");
    client.batch_execute("BEGIN READ ONLY").await.unwrap();
    let error = running.copy_in(&client, "COPY t FROM STDIN", &[]).await.unwrap_err();
    assert_eq!(code(&error), "25006");
}

/// Runs for as long as it is let.
const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_can_be_cancelled_and_only_with_its_secret() {
    let running = start().await;
    let client = running.client().await;
    let token = client.cancel_token();
    let asked = client.simple_query(ENDLESS);
    // A cancellation that comes before the statement has begun is without effect, as PostgreSQL's.
    let cancel = async {
        loop {
            token.cancel_query(NoTls).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::select! {
        answer = asked => answer.unwrap_err(),
        () = cancel => unreachable!(),
    };
    assert_eq!(code(&error), "57014");
    assert!(format!("{error:?}").contains("due to user request"), "{error:?}");
    assert_eq!(client.query("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_http_request_is_told() {
    let running = start().await;
    let large = format!("[\"{}\"]", "x".repeat(11 << 20));
    let local = "Host: localhost\r\n";
    for (request, headers, body, want) in [
        ("POST /db/execute", local, "nonsense", 400),
        ("POST /db/execute", local, "[]", 400),
        ("GET /db/query", local, "", 400),
        ("POST /db/query?level=nonsense", local, "[\"SELECT 1\"]", 400),
        ("POST /db/execute", local, large.as_str(), 413),
        ("POST /db/execute", "Host: evil.example\r\n", "[\"SELECT 1\"]", 403),
        ("POST /db/execute", "Host: localhost\r\nOrigin: http://evil.example\r\n", "[]", 403),
        ("GET /elsewhere", local, "", 404),
    ] {
        let (code, answer) = running.http(request, headers, body).await;
        assert_eq!(code, want, "{request} {body:.40}: {answer:.200}");
        // In words where rqlite has words, else in JSON.
        let told = answer.contains("\"error\"") || answer.ends_with('\n');
        assert!(told, "{request}: {answer:.200}");
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
    assert_eq!((code, body.as_str()), (200, "[+]node ok\n[+]leader ok\n[+]store ok"));
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
