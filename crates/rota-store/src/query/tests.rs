//! Reads: what they see, what they are refused, and what tools ask when they connect.

use std::time::Duration;

use rota_core::transaction::Parameters;

use super::*;
use crate::chain_db::ChainDb;
use crate::chain_db::tests::{Maker, genesis, receipts};
use crate::host::Journal;

struct Fixture {
    _home: tempfile::TempDir,
    writer: Connection,
    chain: ChainDb,
    maker: Maker,
    reader: Reader,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let writer = Connection::open(home.path().join(STATE_FILE)).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        writer
            .execute_batch(
                "CREATE TABLE rota_meta (height INTEGER);
                 INSERT INTO rota_meta VALUES (7);
                 CREATE TABLE rota_transactions (seq INTEGER PRIMARY KEY, height INTEGER,
                    expiry_time INTEGER, outcomes BLOB);
                 CREATE TABLE t
                    (id INTEGER PRIMARY KEY, name TEXT, price REAL, yes BOOLEAN, raw BLOB);
                 INSERT INTO t VALUES (1, 'one', 1.5, 1, x'00ff'), (2, 'two', 2, 0, NULL);",
            )
            .unwrap();
        let genesis = genesis("reads");
        let chain = ChainDb::open(home.path(), &genesis).unwrap();
        let users = View::of_users(&[("rota", true), ("alice", false)]);
        let reader = Reader::open(home.path(), users).unwrap();
        Self { maker: Maker::new(&genesis), writer, chain, reader, _home: home }
    }

    fn finalize(&mut self, slot: u64) {
        let block = self.maker.next(slot, 10);
        let record = self.maker.finalized(&[&block]);
        self.chain.append(&[record]).unwrap();
    }

    /// As somebody who is no administrator.
    fn alice(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, Refusal> {
        let parameters = Parameters::Positional(Vec::new());
        let statement = Statement { sql: sql.into(), parameters };
        let rows = self.reader.query("alice", &statement, &Settings::default(), &limits());
        rows.map(|rows| rows.rows)
    }

    fn query(&mut self, sql: &str) -> Result<Rows, Refusal> {
        self.ask(sql, Vec::new(), &limits())
    }

    fn ask(&mut self, sql: &str, values: Vec<Value>, limits: &ReadLimits) -> Result<Rows, Refusal> {
        let statement = Statement { sql: sql.into(), parameters: Parameters::Positional(values) };
        self.reader.query("rota", &statement, &Settings::default(), limits)
    }

    fn one(&mut self, sql: &str) -> Value {
        self.query(sql).unwrap().rows[0][0].clone()
    }

    fn code(&mut self, sql: &str) -> String {
        match self.query(sql) {
            Ok(rows) => format!("{rows:?}"),
            Err(refusal) => refusal.code().into(),
        }
    }

    fn types(&mut self, sql: &str) -> Vec<String> {
        let described = self.reader.describe("rota", sql, &Settings::default()).unwrap();
        let text = |p: Parameter| p.declared.unwrap_or_else(|| "-".into());
        described.parameters.into_iter().map(text).collect()
    }
}

fn limits() -> ReadLimits {
    let deadline = Instant::now() + Duration::from_secs(60);
    ReadLimits { deadline, cancelled: Arc::default(), max_rows: 1000, max_bytes: 1_000_000 }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn rows_come_with_names_declared_types_and_values_as_stored() {
    let mut t = Fixture::new();
    let sql = "SELECT *, id + 1 AS more FROM t WHERE id = $1";
    let rows = t.ask(sql, vec![Value::Integer(1)], &limits()).unwrap();
    let columns: Vec<_> =
        rows.columns.iter().map(|c| (c.name.as_str(), c.declared.as_deref())).collect();
    let declared = [
        ("id", Some("INTEGER")),
        ("name", Some("TEXT")),
        ("price", Some("REAL")),
        ("yes", Some("BOOLEAN")),
        ("raw", Some("BLOB")),
        ("more", None),
    ];
    assert_eq!(columns, declared);
    let values = [
        Value::Integer(1),
        text("one"),
        Value::real(1.5),
        Value::Integer(1),
        Value::Blob(vec![0, 255]),
        Value::Integer(2),
    ];
    assert_eq!(rows.rows, [values]);
    assert_eq!(t.query("-- nothing\n;").unwrap(), Rows::default());
    assert_eq!(t.reader.height().unwrap(), Height(7));
}

#[test]
fn whatever_is_no_read_is_refused() {
    let mut t = Fixture::new();
    for (sql, code) in [
        ("INSERT INTO t (name) VALUES ('x')", "25006"),
        ("INSERT INTO t (name) VALUES ('x') RETURNING id", "25006"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "25006"),
        ("CREATE TABLE u (a)", "25006"),
        ("DROP TABLE t", "25006"),
        ("VACUUM", "25006"),
        ("VACUUM INTO 'copy'", "25006"),
        ("BEGIN", "25000"),
        ("SAVEPOINT a", "25000"),
        ("ATTACH 'other.db' AS other", "42501"),
        ("DETACH chain", "42501"),
        ("PRAGMA query_only = 0", "42501"),
        ("PRAGMA journal_mode = DELETE", "42501"),
        ("SELECT * FROM pragma_database_list", "42501"),
        ("CREATE TEMP TABLE u (a)", "42501"),
        ("CREATE VIRTUAL TABLE u USING fts5(a)", "42501"),
        ("SELECT data FROM sqlite_dbpage LIMIT 1", "42501"),
        ("SELECT load_extension('x')", "42501"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT missing FROM t", "42703"),
        ("SELECT \"nothing\" FROM t", "42703"),
        ("SELECT nofunction(1)", "42883"),
    ] {
        assert_eq!(t.code(sql), code, "{sql}");
    }
    assert_eq!(t.one("SELECT count(*) FROM t"), Value::Integer(2));
}

#[test]
fn the_votes_of_others_are_not_for_clients_however_they_ask() {
    let mut t = Fixture::new();
    t.finalize(1);
    for sql in [
        "SELECT * FROM chain.rota_tail",
        "SELECT block FROM chain.rota_bodies",
        "SELECT certificate FROM chain.rota_certificates",
        "WITH blocks AS (SELECT block FROM chain.rota_bodies) SELECT * FROM blocks",
        "SELECT * FROM (SELECT block FROM chain.rota_bodies) AS receipts",
        "SELECT (SELECT count(*) FROM chain.rota_bodies)",
        "SELECT count(*) FROM rota_bodies",
        "SELECT count(*) FROM rota_tail",
        "SELECT 1 FROM rota_tail",
        "SELECT sql FROM chain.sqlite_schema",
        "INSERT INTO t (raw) SELECT block FROM chain.rota_bodies",
        "INSERT INTO chain.blocks (height) VALUES (1)",
        "DELETE FROM chain.receipts",
    ] {
        assert_eq!(t.code(sql), "42501", "{sql}");
    }
    assert_eq!(t.one("SELECT height FROM chain.blocks"), Value::Integer(1));
    assert_eq!(t.one("SELECT count(*) FROM chain.receipts"), Value::Integer(0));
}

#[test]
fn limits_of_rows_bytes_and_time_are_kept() {
    let mut t = Fixture::new();
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) ";
    let mut code = |sql: &str, limits: &ReadLimits| {
        t.ask(sql, Vec::new(), limits).map_err(|refusal| refusal.code().to_owned()).map(drop)
    };
    let rows = format!("{count} SELECT i FROM n");
    assert_eq!(code(&rows, &limits()), Err("54000".into()));
    let bytes = "SELECT zeroblob(600000), zeroblob(600000)";
    assert_eq!(code(bytes, &limits()), Err("54000".into()));
    assert_eq!(code("SELECT hex(zeroblob(100000000))", &limits()), Err("54000".into()));
    let late = ReadLimits { deadline: Instant::now(), ..limits() };
    let forever = format!("{count} SELECT count(*) FROM n");
    assert_eq!(code(&forever, &late), Err("57014".into()));
    assert_eq!(code("SELECT 1", &limits()), Ok(())); // and the next one is not late
    let called_off = limits();
    let flag = Arc::clone(&called_off.cancelled);
    let canceller = std::thread::spawn(move || flag.store(true, Ordering::Relaxed));
    let refusal = t.ask(&forever, Vec::new(), &called_off).unwrap_err();
    assert_eq!(refusal.message, "canceling statement due to user request");
    canceller.join().unwrap();
}

#[test]
fn a_changed_schema_is_noticed_by_kept_statements_and_by_descriptions() {
    let mut t = Fixture::new();
    let columns = |t: &mut Fixture| {
        let described = t.reader.describe("rota", "SELECT * FROM t", &Settings::default()).unwrap();
        (t.query("SELECT * FROM t").unwrap().columns.len(), described.columns.len())
    };
    assert_eq!(columns(&mut t), (5, 5));
    t.writer.execute_batch("ALTER TABLE t ADD COLUMN more").unwrap();
    let described = t.reader.describe("rota", "SELECT * FROM t", &Settings::default()).unwrap();
    assert_eq!(described.columns.len(), 6);
    assert_eq!(columns(&mut t), (6, 6));
    t.writer.execute_batch("DELETE FROM t; ALTER TABLE t DROP COLUMN raw").unwrap();
    assert_eq!(t.query("SELECT * FROM t").unwrap().columns.len(), 5);
    t.writer.execute_batch("DROP TABLE t").unwrap();
    assert_eq!(t.code("SELECT * FROM t"), "42P01");
    assert!(t.reader.describe("rota", "SELECT * FROM t", &Settings::default()).is_err());
}

#[test]
fn double_quoted_words_are_strings_for_those_who_want_them() {
    let mut t = Fixture::new();
    let sql = "SELECT \"nothing\" FROM t LIMIT 1";
    let statement = Statement { sql: sql.into(), parameters: Parameters::Positional(Vec::new()) };
    let quoting = Settings { double_quoted_strings: true, ..Settings::default() };
    for _ in 0..2 {
        assert_eq!(t.code(sql), "42703");
        let rows = t.reader.query("rota", &statement, &quoting, &limits()).unwrap();
        assert_eq!(rows.rows, [[text("nothing")]]);
    }
}

#[test]
fn parameters_have_the_types_of_the_columns_they_meet() {
    let mut t = Fixture::new();
    for (sql, want) in [
        ("SELECT * FROM t WHERE id = $1 AND name <> $2", "INTEGER TEXT"),
        ("SELECT * FROM t WHERE $1 <= price", "REAL"),
        ("SELECT * FROM t AS x, t y WHERE x.id = ? AND y.\"Price\" > ?", "INTEGER REAL"),
        (
            "SELECT * FROM main.t WHERE id IN ($1, 5, $2) AND name NOT IN ($3)",
            "INTEGER INTEGER TEXT",
        ),
        ("SELECT * FROM t WHERE price BETWEEN $1 AND $2 AND id IS NOT $3", "REAL REAL INTEGER"),
        ("SELECT * FROM t WHERE name LIKE $1 LIMIT $2 OFFSET $3", "TEXT BIGINT BIGINT"),
        ("SELECT id + $1, price * $2 FROM t WHERE rowid = $3", "INTEGER REAL BIGINT"),
        ("SELECT CAST($1 AS BLOB), $2::int, $2, 7 + $3, $4", "BLOB int INTEGER -"),
        ("INSERT INTO t VALUES ($1, $2, $3, $4, $5)", "INTEGER TEXT REAL BOOLEAN BLOB"),
        ("INSERT INTO t (yes, id) VALUES ($2, $1), (0, $3)", "INTEGER BOOLEAN INTEGER"),
        ("INSERT INTO t (name, id) SELECT $1, id FROM t WHERE yes = $2", "TEXT BOOLEAN"),
        ("INSERT INTO t (id, name) VALUES (abs($1), lower($2))", "- -"),
        (
            "INSERT INTO t (id, price) VALUES (1, $1) ON CONFLICT (id) DO UPDATE
             SET price = excluded.price + $2, name = $3 WHERE t.yes = $4 RETURNING id",
            "REAL REAL TEXT BOOLEAN",
        ),
        ("UPDATE t SET yes = $1, price = price - $2 WHERE id = $3", "BOOLEAN REAL INTEGER"),
        ("DELETE FROM t WHERE raw = $1", "BLOB"),
        ("SELECT * FROM chain.blocks WHERE height > $1 AND leader = $2", "INTEGER TEXT"),
        ("SELECT '$1', \"id\" FROM t -- $2\n WHERE id = ?3", "- - INTEGER"),
        ("SELECT $1", "-"),
        ("SELECT 1 FROM t GROUP BY id HAVING count(*) > $1 AND max(t.price) < $2", "BIGINT REAL"),
        (
            "SELECT now() > $1, $2 = length(name), CAST(id AS TEXT) = $3 FROM t",
            "TIMESTAMPTZ INT4 TEXT",
        ),
        ("UPDATE t SET name = coalesce($1, name), price = coalesce(price, $2)", "TEXT REAL"),
        ("SELECT * FROM t WHERE t.id IN (SELECT value FROM json_each($1))", "INTEGER[]"),
        ("SELECT name ->> $1, name -> $2, abs($3) FROM t", "TEXT TEXT -"),
        ("SELECT x.id, y.name FROM t AS x, t AS y WHERE x.id = $1", "INTEGER"),
    ] {
        assert_eq!(t.types(sql).join(" "), want, "{sql}");
    }
}

#[test]
fn writes_are_described_though_they_cannot_be_run() {
    let mut t = Fixture::new();
    let sql = "INSERT INTO t (name) VALUES (:name) RETURNING id, price, now() AS at";
    let described = t.reader.describe("rota", sql, &Settings::default()).unwrap();
    assert!(!described.read_only);
    assert_eq!(described.kind, StatementKind::Insert);
    let declared: Vec<_> = described.columns.iter().map(|c| c.declared.as_deref()).collect();
    assert_eq!(declared, [Some("INTEGER"), Some("REAL"), None]);
    let name = Parameter { name: Some("name".into()), declared: Some("TEXT".into()) };
    assert_eq!(described.parameters, [name]);
    for (sql, read_only) in
        [("CREATE TABLE u (a)", false), ("ALTER TABLE t ADD COLUMN z", false), ("SELECT 1", true)]
    {
        let described = t.reader.describe("rota", sql, &Settings::default()).unwrap();
        assert_eq!(described.read_only, read_only, "{sql}");
    }
    assert_eq!(t.one("SELECT count(*) FROM t"), Value::Integer(2));
}

#[test]
fn any_server_tells_what_became_of_a_transaction() {
    let mut t = Fixture::new();
    let new = "11".repeat(32);
    t.writer
        .execute_batch(&format!(
            "INSERT INTO rota_transactions
             VALUES (1, 3, 9, x'{new}02000000{}{}03000000{}')",
            hex::encode("00000"),
            "22".repeat(32),
            hex::encode("23505")
        ))
        .unwrap();
    let old = receipts(1, 5000, Ok(())); // enough for a run
    let failed = receipts(2, 2, Err(Refusal::new("40001", "try again")));
    t.chain.save_receipts(old.clone());
    t.finalize(1);
    t.chain.save_receipts(failed.clone());
    t.finalize(2);
    for (id, want) in [
        (new, "final at (3, 2)"),
        ("22".repeat(32), "failed 23505 at (3, 3)"),
        (old[4321].id.to_string(), "final at (1, 4321)"),
        (failed[0].id.to_string(), "failed 40001 try again at (2, 0)"),
        ("33".repeat(32), "unknown"),
    ] {
        assert_eq!(t.one(&format!("SELECT rota_transaction('{id}')")), text(want));
    }
    assert!(t.query("SELECT rota_transaction('zz')").is_err());
    assert_eq!(t.one("SELECT rota_transaction(NULL)"), Value::Null);
    // What a server knows to be on its way is pending, unless it is executed by now.
    struct All;
    impl Beyond for All {
        fn knows(&self, _: &TransactionId) -> bool {
            true
        }
        fn depth(&self, height: Height) -> Option<String> {
            Some(format!("depth {}", 10 - height.0))
        }
    }
    t.reader =
        Reader::informed(t._home.path(), Arc::new(All), View::of_administrator("rota")).unwrap();
    assert_eq!(t.one(&format!("SELECT rota_transaction('{}')", "33".repeat(32))), text("pending"));
    assert_eq!(
        t.one(&format!("SELECT rota_transaction('{}')", "11".repeat(32))),
        text("final at (3, 2), depth 7")
    );
    assert_eq!(
        t.one(&format!("SELECT rota_transaction('{}')", "22".repeat(32))),
        text("failed 23505 at (3, 3), depth 7")
    );
}

#[test]
fn others_statements_and_why_they_failed_are_for_administrators_only() {
    let mut t = Fixture::new();
    let secret = Refusal::new("23505", "there is a secret already");
    t.chain.save_receipts(receipts(1, 1, Err(secret)));
    t.finalize(1);
    t.maker.user = "alice".into();
    t.chain.save_receipts(receipts(2, 1, Ok(())));
    t.finalize(2);
    let sql = "SELECT height, position, username, statements, outcome FROM chain.transactions
               ORDER BY height";
    let statements = "[{\"sql\":\"xxxxxxxxxx\",\"parameters\":[]}]";
    let one = |height, user, outcome| {
        let at = [Value::Integer(height), Value::Integer(0)];
        [at.as_slice(), &[text(user), text(statements), text(outcome)]].concat()
    };
    let (rota_s, alice_s) =
        (one(1, "rota", "there is a secret already"), one(2, "alice", "INSERT 0 3"));
    assert_eq!(t.query(sql).unwrap().rows, [rota_s, alice_s.clone()]);
    // The same statement, prepared for an administrator just now.
    assert_eq!(t.alice(sql).unwrap(), [alice_s]);
    assert_eq!(t.alice("SELECT count(*) FROM chain.transactions").unwrap(), [[Value::Integer(1)]]);
    assert_eq!(t.alice("SELECT count(*) FROM chain.receipts").unwrap(), [[Value::Integer(2)]]);
    for part in ["signer", "user", "statements", "message"] {
        let sql = format!("SELECT rota_told(1, 0, '{part}')");
        assert_eq!(t.alice(&sql).unwrap(), [[Value::Null]], "{part}");
        assert_ne!(t.one(&sql), Value::Null, "{part}");
    }
    let failed = receipts(1, 1, Ok(()))[0].id;
    let sql = format!("SELECT rota_transaction('{failed}')");
    assert_eq!(t.alice(&sql).unwrap(), [[text("failed 23505 at (1, 0)")]]);
    assert_eq!(t.one(&sql), text("failed 23505 there is a secret already at (1, 0)"));
    for sql in [
        "SELECT * FROM chain.rota_messages",
        "SELECT message FROM rota_messages",
        "SELECT * FROM (SELECT message FROM chain.rota_messages) AS transactions",
        "SELECT * FROM rota_transactions",
    ] {
        assert_eq!(t.alice(sql).unwrap_err().code(), "42501", "{sql}");
    }
    assert_eq!(t.one("SELECT rota_told(7, 0, 'user')"), Value::Null, "there is no such block");
    assert_eq!(t.one("SELECT rota_told(1, 9, 'user')"), Value::Null, "nor such a transaction");
    assert_eq!(t.one("SELECT rota_told(-1, -1, 'user')"), Value::Null);
    assert!(t.query("SELECT rota_told(1, 0, 'password')").is_err());
}

#[test]
fn the_newest_receipt_of_a_transaction_counts() {
    let mut t = Fixture::new();
    t.chain.save_receipts(receipts(1, 1, Err(Refusal::new("42501", "nobody's key"))));
    t.finalize(1);
    let mut again = receipts(1, 1, Ok(()));
    again[0].height = Height(2);
    let id = again[0].id;
    t.chain.save_receipts(again);
    t.finalize(2);
    let sql = format!("SELECT rota_transaction('{id}')");
    assert_eq!(t.one(&sql), text("final at (2, 0)"));
    // Also once they are sorted, in one run.
    t.chain.save_receipts(receipts(3, 5000, Ok(())));
    t.finalize(3);
    assert_eq!(t.one(&sql), text("final at (2, 0)"));
}

#[test]
fn tools_hear_what_they_ask_when_they_connect() {
    let mut t = Fixture::new();
    for (sql, want) in [
        ("SELECT substr(version(), 1, 13)", "PostgreSQL 16"),
        ("SELECT current_schema() || '.' || current_database()", "public.rota"),
        ("SELECT current_user()", "rota"),
        (
            "SELECT substr(now(), 1, 2) || typeof(random()) || (now() >= CURRENT_TIMESTAMP)",
            "20integer1",
        ),
        ("SELECT name FROM pragma_table_info('t') WHERE cid = 1", "name"),
    ] {
        assert_eq!(t.one(sql), text(want), "{sql}");
    }
    assert_eq!(t.query("PRAGMA table_info(t)").unwrap().rows.len(), 5);
}

#[test]
fn an_open_file_is_read_while_another_connection_writes() {
    let mut t = Fixture::new();
    t.writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t (name) VALUES ('three')").unwrap();
    assert_eq!(t.one("SELECT count(*) FROM t"), Value::Integer(2));
    t.writer.execute_batch("COMMIT").unwrap();
    assert_eq!(t.one("SELECT count(*) FROM t"), Value::Integer(3));
}

#[test]
fn the_executors_file_is_what_readers_expect() {
    let home = tempfile::tempdir().unwrap();
    let genesis =
        rota_core::genesis::Genesis { sqlite: crate::sqlite::identity(), ..genesis("whole") };
    let state = crate::StateDb::open(home.path(), &genesis).unwrap();
    let _chain = ChainDb::open(home.path(), &genesis).unwrap();
    let mut reader = Reader::open(home.path(), state.access()).unwrap();
    assert_eq!(reader.height().unwrap(), Height(0));
    let sql = format!("SELECT rota_transaction('{}')", "11".repeat(32));
    let statement = Statement { sql, parameters: Parameters::Positional(Vec::new()) };
    let rows = reader.query("rota", &statement, &Settings::default(), &limits()).unwrap();
    assert_eq!(rows.rows, [[text("unknown")]]);
}
