//! Hrana over HTTP, as its clients' bytes are, at the door of a real server.

mod support;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use support::Cluster;

/// A user of the database `test`, over Hrana.
struct Hrana {
    address: std::net::SocketAddr,
    /// The header that says who it is, if it does.
    authorization: String,
}

impl Hrana {
    fn of(cluster: &Cluster, token: &str) -> Self {
        let address = cluster.servers[0].as_ref().unwrap().http;
        let authorization = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        Self { address, authorization }
    }

    /// A whole HTTP request; the answer's status and body.
    async fn http(&self, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let (length, authorization) = (body.len(), &self.authorization);
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{authorization}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn pipeline(&self, body: &Json) -> (u16, Json) {
        let (code, answer) = self.http("POST /v2/pipeline", &body.to_string()).await;
        (code, serde_json::from_str(&answer).unwrap_or(Json::Null))
    }

    /// Requests on a stream; the baton for the next ones, and the results.
    async fn ask(&self, baton: &Json, requests: Json) -> (Json, Vec<Json>) {
        let (code, answer) = self.pipeline(&json!({ "baton": baton, "requests": requests })).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["base_url"], Json::Null);
        let results = answer["results"].as_array().unwrap().clone();
        (answer["baton"].clone(), results)
    }

    /// One statement on a stream of its own: its result, or the code of its error.
    async fn execute(&self, sql: &str) -> Result<Json, String> {
        let (baton, results) = self.ask(&Json::Null, json!([execute(sql), close()])).await;
        assert_eq!(baton, Json::Null, "the stream is closed");
        outcome(&results[0])
    }

    async fn first(&self, sql: &str) -> Json {
        self.execute(sql).await.unwrap()["rows"][0][0].clone()
    }
}

fn execute(sql: &str) -> Json {
    json!({ "type": "execute", "stmt": { "sql": sql } })
}

fn close() -> Json {
    json!({ "type": "close" })
}

/// The result of a request, or the code of its error.
fn outcome(result: &Json) -> Result<Json, String> {
    match result["type"].as_str().unwrap() {
        "ok" => Ok(result["response"]["result"].clone()),
        _ => Err(result["error"]["code"].as_str().unwrap().to_owned()),
    }
}

fn codes(results: &[Json]) -> Vec<String> {
    let code = |result| outcome(result).err().unwrap_or_else(|| "ok".into());
    results.iter().map(code).collect()
}

fn integer(number: i64) -> Json {
    json!({ "type": "integer", "value": number.to_string() })
}

/// A number that JavaScript has not; SQLite takes the next one, the largest, for the last rowid.
const LARGE: i64 = i64::MAX - 1;

async fn start() -> (Cluster, Hrana) {
    let cluster = Cluster::start(1).await;
    let hrana = Hrana::of(&cluster, "");
    (cluster, hrana)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_give_values_of_every_type_and_what_they_changed() {
    let (_cluster, hrana) = start().await;
    for version in ["GET /v2", "GET /v3"] {
        assert_eq!(hrana.http(version, "").await.0, 200);
    }
    assert_eq!(hrana.http("GET /v3-protobuf", "").await.0, 404);

    hrana.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL, s TEXT, b BLOB)").await.unwrap();
    let insert = json!({ "type": "execute", "stmt": {
        "sql": "INSERT INTO t VALUES (?, ?, ?, ?)",
        "args": [integer(LARGE), {"type": "float", "value": 0.5},
                 {"type": "text", "value": "größe"}, {"type": "blob", "base64": "AAH/Bw=="}] } });
    let (_, results) = hrana.ask(&Json::Null, json!([insert, close()])).await;
    let inserted = outcome(&results[0]).unwrap();
    assert_eq!(inserted["affected_row_count"], 1);
    assert_eq!(inserted["last_insert_rowid"], LARGE.to_string());

    let select = json!({ "type": "execute", "stmt": {
        "sql": "SELECT *, NULL AS n FROM t WHERE s = :s",
        "named_args": [{"name": "s", "value": {"type": "text", "value": "größe"}}] } });
    let (_, results) = hrana.ask(&Json::Null, json!([select])).await;
    let selected = outcome(&results[0]).unwrap();
    assert_eq!(
        selected["cols"],
        json!([{"name": "id", "decltype": "INTEGER"}, {"name": "r", "decltype": "REAL"},
               {"name": "s", "decltype": "TEXT"}, {"name": "b", "decltype": "BLOB"},
               {"name": "n", "decltype": null}])
    );
    assert_eq!(
        selected["rows"],
        json!([[integer(LARGE), {"type": "float", "value": 0.5},
                {"type": "text", "value": "größe"}, {"type": "blob", "base64": "AAH/Bw"},
                {"type": "null"}]])
    );
    let update = hrana.execute("UPDATE t SET s = \"double quotes\" RETURNING s").await.unwrap();
    assert_eq!(update["rows"], json!([[{"type": "text", "value": "double quotes"}]]));
    assert_eq!(update["affected_row_count"], 1);

    let unwanted = json!({"type": "execute", "stmt": {"sql": "SELECT 1", "want_rows": false}});
    let (_, results) = hrana.ask(&Json::Null, json!([unwanted])).await;
    assert_eq!(outcome(&results[0]).unwrap()["rows"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_sqlite_s_codes_and_ours() {
    let (_cluster, hrana) = start().await;
    for sql in [
        "CREATE TABLE p(id INTEGER PRIMARY KEY, u TEXT UNIQUE, n INT NOT NULL DEFAULT 1, \
         c INT CHECK (c > 0))",
        "CREATE TABLE f(id INT REFERENCES p(id))",
        "INSERT INTO p(id, u) VALUES (1, 'a')",
    ] {
        hrana.execute(sql).await.unwrap();
    }
    for (sql, code) in [
        ("INSERT INTO p(u) VALUES ('a')", "SQLITE_CONSTRAINT_UNIQUE"),
        ("INSERT INTO p(id) VALUES (1)", "SQLITE_CONSTRAINT_PRIMARYKEY"),
        ("INSERT INTO p(n) VALUES (NULL)", "SQLITE_CONSTRAINT_NOTNULL"),
        ("INSERT INTO p(c) VALUES (0)", "SQLITE_CONSTRAINT_CHECK"),
        ("INSERT INTO f VALUES (7)", "SQLITE_CONSTRAINT_FOREIGNKEY"),
        ("SELECT * FROM absent", "SQLITE_ERROR"),
        ("SELEKT 1", "SQLITE_ERROR"),
        ("SELECT ?", "ARGS_INVALID"),
        ("ATTACH 'x' AS y", "SQLITE_AUTH"),
        ("", "SQL_NO_STATEMENT"),
        ("SELECT 1; SELECT 2", "SQL_MANY_STATEMENTS"),
        ("COMMIT", "SQLITE_ERROR"),
        ("ROLLBACK", "SQLITE_ERROR"),
        ("RELEASE a", "SQLITE_ERROR"),
        ("SET a = 1", "SQLITE_ERROR"),
    ] {
        assert_eq!(hrana.execute(sql).await.map(drop), Err(code.to_owned()), "{sql}");
    }
    let (_, results) =
        hrana.ask(&Json::Null, json!([execute("INSERT INTO p(id) VALUES (1)")])).await;
    assert_eq!(
        results[0]["error"],
        json!({"message": "UNIQUE constraint failed: p.id",
               "code": "SQLITE_CONSTRAINT_PRIMARYKEY", "sqlstate": "23505"})
    );
    for (body, part) in [
        ("", "EOF"),
        ("7", "pipeline"),
        (r#"{"requests": [{"type": "dance"}]}"#, "dance"),
        (r#"{"requests": [{"type": "execute"}]}"#, "stmt"),
    ] {
        let (code, answer) = hrana.http("POST /v2/pipeline", body).await;
        assert_eq!(code, 400, "{answer}");
        let answer: Json = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["code"], "BODY_INVALID");
        let message = answer["message"].as_str().unwrap().to_lowercase();
        assert!(message.contains(&part.to_lowercase()), "{body}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_lasts_over_requests_and_survives_errors_in_it() {
    let (_cluster, hrana) = start().await;
    hrana.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)").await.unwrap();
    let (baton, results) = hrana
        .ask(
            &Json::Null,
            json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t(b) VALUES (1)")]),
        )
        .await;
    assert_eq!(codes(&results), ["ok", "ok"]);
    assert_eq!(results[1]["response"]["result"]["last_insert_rowid"], "1");
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(0), "not there yet");

    // A statement that fails leaves the transaction as it was, as in SQLite.
    let inside = json!([
        execute("INSERT INTO t VALUES (1, 2)"),
        execute("SELECT count(*) FROM t"),
        execute("SAVEPOINT Half"),
        execute("INSERT INTO t VALUES (2, 2)"),
        execute("ROLLBACK TO half"),
        execute("INSERT INTO t VALUES (3, 3)"),
        execute("RELEASE HALF"),
        execute("BEGIN"),
        {"type": "get_autocommit"}
    ]);
    let (baton, results) = hrana.ask(&baton, inside).await;
    let mut wanted = vec!["ok"; 9];
    (wanted[0], wanted[7]) = ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_ERROR");
    assert_eq!(codes(&results), wanted);
    assert_eq!(outcome(&results[1]).unwrap()["rows"][0][0], integer(1));
    assert_eq!(results[8]["response"]["is_autocommit"], false);

    let (baton, results) =
        hrana.ask(&baton, json!([execute("COMMIT"), {"type": "get_autocommit"}])).await;
    assert_eq!(codes(&results), ["ok", "ok"]);
    assert_eq!(results[1]["response"]["is_autocommit"], true);
    assert_eq!(hrana.first("SELECT group_concat(a) FROM t").await["value"], "1,3");

    // Without COMMIT nothing is left: neither after ROLLBACK, nor when the stream is closed.
    let undone = json!([
        execute("BEGIN"),
        execute("DELETE FROM t"),
        execute("ROLLBACK"),
        execute("SAVEPOINT a"),
        execute("DELETE FROM t"),
        close(),
        execute("SELECT 1")
    ]);
    let (baton, results) = hrana.ask(&baton, undone).await;
    assert_eq!(baton, Json::Null);
    assert_eq!(codes(&results)[6], "STREAM_CLOSED");
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(2));

    // A savepoint outside of a transaction is one.
    let by_savepoint = json!([execute("SAVEPOINT a"), execute("DELETE FROM t WHERE a = 1"),
                              execute("RELEASE a"), {"type": "get_autocommit"}]);
    let (_, results) = hrana.ask(&Json::Null, by_savepoint).await;
    assert_eq!(results[3]["response"]["is_autocommit"], true);
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(1));

    let read_only = json!([
        execute("BEGIN TRANSACTION READONLY"),
        execute("SELECT count(*) FROM t"),
        execute("DELETE FROM t"),
        execute("COMMIT")
    ]);
    let (_, results) = hrana.ask(&Json::Null, read_only).await;
    assert_eq!(codes(&results), ["ok", "ok", "SQLITE_READONLY", "ok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_and_is_no_longer_so_is_a_conflict() {
    let (_cluster, hrana) = start().await;
    hrana.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b INT)").await.unwrap();
    hrana.execute("INSERT INTO t(b) VALUES (1)").await.unwrap();
    for (shown, changed) in [
        ("SELECT b FROM t", "UPDATE t SET b = b + 1"),
        // The number of the new row was shown, too.
        ("INSERT INTO t(b) VALUES (5)", "INSERT INTO t(b) VALUES (6)"),
    ] {
        let begin = json!([execute("BEGIN"), execute(shown), execute("UPDATE t SET b = 9")]);
        let (baton, results) = hrana.ask(&Json::Null, begin).await;
        assert_eq!(codes(&results), ["ok", "ok", "ok"]);
        hrana.execute(changed).await.unwrap();
        let (_, results) = hrana.ask(&baton, json!([execute("COMMIT"), close()])).await;
        assert_eq!(results[0]["error"]["code"], "SQLITE_BUSY", "{shown}");
        assert_eq!(results[0]["error"]["sqlstate"], "40001");
    }
    assert_eq!(hrana.first("SELECT count(*) FROM t WHERE b = 9").await, integer(0));

    // Where no column is the rowid it is not shown, and both may insert.
    hrana.execute("CREATE TABLE named(name TEXT PRIMARY KEY)").await.unwrap();
    let begin = json!([execute("BEGIN"), execute("INSERT INTO named VALUES ('a')")]);
    let (baton, results) = hrana.ask(&Json::Null, begin).await;
    assert_eq!(outcome(&results[1]).unwrap()["last_insert_rowid"], Json::Null);
    hrana.execute("INSERT INTO named VALUES ('b')").await.unwrap();
    let (_, results) = hrana.ask(&baton, json!([execute("COMMIT"), close()])).await;
    assert_eq!(codes(&results), ["ok", "ok"]);
}

fn step(sql: &str, condition: Json) -> Json {
    json!({ "stmt": { "sql": sql }, "condition": condition })
}

fn ok(step: usize) -> Json {
    json!({ "type": "ok", "step": step })
}

fn not(cond: Json) -> Json {
    json!({ "type": "not", "cond": cond })
}

/// Which steps gave a result (`+`), an error (`-`), neither (`.`).
fn steps(result: &Json) -> String {
    let results = result["step_results"].as_array().unwrap().iter();
    let pairs = results.zip(result["step_errors"].as_array().unwrap());
    pairs
        .map(|(result, error)| match (result, error) {
            (Json::Null, Json::Null) => '.',
            (Json::Null, _) => '-',
            (_, Json::Null) => '+',
            both => panic!("{both:?}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_run_what_their_conditions_say() {
    let (_cluster, hrana) = start().await;
    hrana.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)").await.unwrap();
    let batch = async |steps: Json| {
        let request = json!([{"type": "batch", "batch": {"steps": steps}}, close()]);
        let (_, results) = hrana.ask(&Json::Null, request).await;
        outcome(&results[0])
    };
    let error = json!({"type": "error", "step": 1});
    let both = json!({"type": "and", "conds": [ok(0), error.clone()]});
    let either = json!({"type": "or", "conds": [ok(1), error.clone()]});
    let auto = json!({"type": "is_autocommit"});
    let run = batch(json!([
        step("INSERT INTO t VALUES (1)", Json::Null),
        step("INSERT INTO t VALUES (1)", ok(0)),
        step("SELECT 1", ok(1)),
        step("SELECT 1", error),
        step("SELECT 1", both),
        step("SELECT 1", not(either)),
        step("SELECT 1", auto),
        step("SELECT 1", json!({"type": "error", "step": 2})),
    ]));
    assert_eq!(steps(&run.await.unwrap()), "+-.++.+.");

    // As `@libsql/client` has it: BEGIN, a chain, COMMIT, and ROLLBACK if it did not come to that.
    let chain = |second: &str| {
        batch(json!([
            step("BEGIN IMMEDIATE", Json::Null),
            step("INSERT INTO t VALUES (2)", ok(0)),
            step(second, ok(1)),
            step("SELECT count(*) FROM t", ok(2)),
            step("COMMIT", ok(3)),
            step("ROLLBACK", not(ok(4))),
        ]))
    };
    let failed = chain("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(steps(&failed), "++-..+");
    assert_eq!(failed["step_errors"][2]["code"], "SQLITE_CONSTRAINT_PRIMARYKEY");
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(1), "nothing of it is left");
    let done = chain("INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(steps(&done), "+++++.");
    assert_eq!(done["step_results"][3]["rows"][0][0], integer(3));
    assert_eq!(done["step_results"][2]["last_insert_rowid"], "3");

    let itself = batch(json!([step("SELECT 1", ok(0))]));
    assert_eq!(itself.await, Err("BATCH_COND_BAD_STEP".into()));

    // The same, line by line.
    let body = json!({"batch": {"steps": [
        step("SELECT a FROM t ORDER BY a LIMIT 2", Json::Null),
        step("SELECT x", Json::Null),
        step("SELECT 1", ok(1)),
        step("INSERT INTO t VALUES (4)", Json::Null),
    ]}});
    let (code, lines) = hrana.http("POST /v3/cursor", &body.to_string()).await;
    assert_eq!(code, 200, "{lines}");
    let lines: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["baton"].is_string());
    let said: Vec<String> = lines[1..]
        .iter()
        .map(|line| format!("{} {}", line["type"].as_str().unwrap(), line["step"]))
        .collect();
    let wanted = [
        "step_begin 0",
        "row null",
        "row null",
        "step_end null",
        "step_error 1",
        "step_begin 3",
        "step_end null",
    ];
    assert_eq!(said, wanted);
    assert_eq!(lines[2]["row"], json!([integer(1)]));
    assert_eq!(lines[7]["last_insert_rowid"], "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_texts_and_descriptions() {
    let (_cluster, hrana) = start().await;
    let sequence = |sql: &str| json!({"type": "sequence", "sql": sql});
    let script = "CREATE TABLE t(a INT, b TEXT); -- one; two\n\
                  CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;\n\
                  BEGIN; INSERT INTO t VALUES (1, 'x;y'); COMMIT;";
    let broken = "INSERT INTO t VALUES (2, 'z'); INSERT INTO absent VALUES (1); DELETE FROM t";
    let (_, results) =
        hrana.ask(&Json::Null, json!([sequence(script), sequence(broken), close()])).await;
    assert_eq!(codes(&results), ["ok", "SQLITE_ERROR", "ok"]);
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(2));

    let by_id = |id: i32| json!({"type": "execute", "stmt": {"sql_id": id}});
    let store = |id: i32, sql: &str| json!({"type": "store_sql", "sql_id": id, "sql": sql});
    let (baton, results) =
        hrana.ask(&Json::Null, json!([store(7, "SELECT 7"), store(7, "SELECT 8"), by_id(7)])).await;
    assert_eq!(codes(&results), ["ok", "SQL_EXISTS", "ok"]);
    let drop_7 = json!({"type": "close_sql", "sql_id": 7});
    let (_, results) = hrana.ask(&baton, json!([by_id(7), drop_7, by_id(7), drop_7])).await;
    assert_eq!(codes(&results), ["ok", "ok", "SQL_NOT_FOUND", "ok"]);
    let many: Vec<Json> = (0..51).map(|id| store(id, "SELECT 1")).collect();
    let (_, results) = hrana.ask(&Json::Null, json!(many)).await;
    assert_eq!(codes(&results)[49..], ["ok", "SQL_STORE_TOO_MANY"]);

    let describe = |sql: &str| json!({"type": "describe", "sql": sql});
    let (_, results) = hrana
        .ask(
            &Json::Null,
            json!([
                describe("SELECT a, b AS c FROM t WHERE a = ? AND b = :b"),
                describe("EXPLAIN QUERY PLAN SELECT 1"),
                describe("INSERT INTO t VALUES (?2, 1)"),
                describe("SELECT absent")
            ]),
        )
        .await;
    let first = outcome(&results[0]).unwrap();
    assert_eq!(first["params"], json!([{"name": null}, {"name": ":b"}]));
    assert_eq!(
        first["cols"],
        json!([{"name": "a", "decltype": "INT"}, {"name": "c", "decltype": "TEXT"}])
    );
    assert_eq!((&first["is_readonly"], &first["is_explain"]), (&json!(true), &json!(false)));
    assert_eq!(outcome(&results[1]).unwrap()["is_explain"], true);
    let insert = outcome(&results[2]).unwrap();
    assert_eq!(insert["is_readonly"], false);
    assert_eq!(insert["params"], json!([{"name": null}, {"name": "?2"}]));
    assert_eq!(codes(&results)[3], "SQLITE_ERROR");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_that_are_off_do_not_let_a_migration_delete_what_refers_to_a_table() {
    let (_cluster, hrana) = start().await;
    for sql in [
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, a)",
        "CREATE TABLE child(p INT REFERENCES parent(id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1, 1)",
        "INSERT INTO child VALUES (1)",
    ] {
        hrana.execute(sql).await.unwrap();
    }
    let migrate = |sql: &str| {
        let chain = json!([
            step("PRAGMA foreign_keys=off", Json::Null),
            step("BEGIN DEFERRED", Json::Null),
            step(sql, ok(1)),
            step("COMMIT", ok(2)),
            step("ROLLBACK", not(ok(3))),
            step("PRAGMA foreign_keys=on", Json::Null),
            step("PRAGMA foreign_keys", Json::Null)
        ]);
        json!([{"type": "batch", "batch": {"steps": chain}}, close()])
    };
    let (_, results) = hrana.ask(&Json::Null, migrate("ALTER TABLE parent ADD COLUMN b")).await;
    let done = outcome(&results[0]).unwrap();
    assert_eq!(steps(&done), "++++.++");
    assert_eq!(done["step_results"][6]["rows"][0][0], integer(1));
    let (_, results) = hrana.ask(&Json::Null, migrate("DROP TABLE parent")).await;
    let done = outcome(&results[0]).unwrap();
    assert_eq!(steps(&done), "++-.+++");
    assert_eq!(done["step_errors"][2]["sqlstate"], "0A000");
    assert_eq!(hrana.first("SELECT count(*) FROM child").await, integer(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_belongs_to_who_opened_it_and_each_baton_is_good_once() {
    let (cluster, root) = start().await;
    for sql in [
        "CREATE TABLE t(a)",
        "CREATE USER ann PASSWORD 'secret of ann'",
        "CREATE USER bob PASSWORD 'secret of bob'",
        "GRANT SELECT, INSERT ON t TO ann, bob",
    ] {
        root.execute(sql).await.unwrap();
    }
    let ann = Hrana::of(&cluster, "ann:secret of ann");
    let bob = Hrana::of(&cluster, "bob:secret of bob");
    let wrong = Hrana::of(&cluster, "ann:secret of bob");
    let nothing = json!({"requests": []});
    assert_eq!(wrong.pipeline(&nothing).await.0, 401);

    let (baton, _) =
        ann.ask(&Json::Null, json!([execute("BEGIN"), execute("INSERT INTO t VALUES (1)")])).await;
    let commit = |baton: &Json| json!({"baton": baton, "requests": [execute("COMMIT")]});
    let made_up = json!("0.00000000000000000000000000000000");
    for (who, baton) in [(&bob, &baton), (&root, &baton), (&ann, &made_up)] {
        let (code, answer) = who.pipeline(&commit(baton)).await;
        assert_eq!((code, &answer["code"]), (400, &json!("STREAM_EXPIRED")), "{answer}");
    }
    let (next, results) = ann.ask(&baton, json!([execute("COMMIT")])).await;
    assert_eq!(codes(&results), ["ok"]);
    assert_ne!(next, baton);
    assert_eq!(ann.pipeline(&commit(&baton)).await.0, 400, "used");

    // What each may do is decided by who it is.
    assert_eq!(bob.execute("DELETE FROM t").await.map(drop), Err("SQLITE_AUTH".into()));
    assert_eq!(bob.first("SELECT count(*) FROM t").await, integer(1));
    root.execute("REVOKE SELECT ON t FROM bob").await.unwrap();
    assert_eq!(bob.execute("SELECT * FROM t").await.map(drop), Err("SQLITE_AUTH".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_transactions_leaves_drafts_for_others() {
    let (cluster, hrana) = start().await;
    hrana.execute("CREATE TABLE t(a)").await.unwrap();
    let begin = || json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]);
    let (mut batons, mut refused) = (Vec::new(), 0);
    for _ in 0..80 {
        let (baton, results) = hrana.ask(&Json::Null, begin()).await;
        match codes(&results)[0].as_str() {
            "ok" => batons.push(baton),
            code => {
                assert_eq!(code, "SQLITE_BUSY");
                refused += 1;
            }
        }
    }
    assert_eq!((batons.len(), refused), (64, 16));
    let settings = rota_core::transaction::Settings::default();
    let other = cluster.driver(0).begin("rota", settings, Default::default()).unwrap();
    drop(other);
    assert_eq!(hrana.first("SELECT count(*) FROM t").await, integer(0));
    // Closing one makes room for another.
    hrana.ask(&batons.pop().unwrap(), json!([close()])).await;
    let (_, results) = hrana.ask(&Json::Null, begin()).await;
    assert_eq!(codes(&results), ["ok", "ok"]);
}
