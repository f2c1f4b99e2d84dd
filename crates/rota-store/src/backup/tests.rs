//! Backups: what is in them, what is not, and that they come back as they were.

use std::sync::atomic::Ordering;

use rota_core::transaction::{Parameters, Statement, Value};
use rusqlite::params_from_iter;
use rusqlite::types::Value as Stored;
use tempfile::TempDir;

use super::given::Given;
use super::*;

/// What a verifier would be.
const SECRET: &str = "SCRAM-SHA-256$4096:not-for-everybody";

const SCHEMA: &str = r#"
CREATE TABLE rota_meta(height);
INSERT INTO rota_meta VALUES (42);
CREATE TABLE rota_users(name, verifier);
CREATE TABLE plain(a, b TEXT, c REAL);
INSERT INTO plain(rowid, a, b, c) VALUES (3, NULL, 'it''s', 0.1), (9, x'00ff', 'two
lines', 5), (10, 'nul' || char(0) || '!', CAST(x'ff41' AS TEXT), 1e999),
    (11, -9223372036854775808, '', -0.1);
CREATE TABLE "odd ""name"""("select" INTEGER PRIMARY KEY, d TEXT DEFAULT 'x' -- the end
);
INSERT INTO "odd ""name""" VALUES (-5, 'a'), (7, NULL);
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT NOT NULL UNIQUE);
INSERT INTO counted VALUES (1, 'one'), (99, 'gone');
DELETE FROM counted WHERE id = 99;
CREATE TABLE pairs(a INT, b INT, sum INT AS (a + b) STORED, twice INT AS (a * 2),
    PRIMARY KEY (b, a)) WITHOUT ROWID;
INSERT INTO pairs(a, b) VALUES (2, 1), (1, 2);
CREATE TABLE tree(id INTEGER PRIMARY KEY, parent INT REFERENCES tree);
INSERT INTO tree VALUES (1, 2), (2, NULL);
CREATE TABLE "rowid taken"(rowid TEXT, _rowid_ TEXT);
INSERT INTO "rowid taken"(oid, rowid) VALUES (5, 'a');
CREATE TABLE serial(id BIGINT NOT NULL PRIMARY KEY DEFAULT (rota_nextval('serial_id_seq')), v);
INSERT INTO serial VALUES (7, 1);
CREATE INDEX by_b ON plain(b) WHERE b > '';
CREATE VIEW seen AS SELECT a, b FROM plain;
CREATE TRIGGER into_view INSTEAD OF INSERT ON seen BEGIN INSERT INTO plain(a) VALUES (new.a); END;
CREATE TRIGGER on_plain AFTER INSERT ON plain BEGIN DELETE FROM counted; END;
"#;

const TABLES: [&str; 7] =
    ["plain", r#""odd ""name""""#, "counted", "pairs", "tree", r#""rowid taken""#, "serial"];

fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let connection = Connection::open(home.path().join(STATE_FILE)).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute("INSERT INTO rota_users VALUES ('ada', ?1)", [SECRET]).unwrap();
    // Also what was deleted is nobody's business.
    connection.execute("INSERT INTO plain(rowid, b) VALUES (77, ?1)", [SECRET]).unwrap();
    connection.execute("DELETE FROM plain WHERE rowid = 77", []).unwrap();
    connection.execute("INSERT INTO counted VALUES (1, 'one')", []).ok();
    home
}

/// All rows of all tables with their rowids, and the rest of the schema.
fn contents(connection: &Connection) -> Vec<String> {
    let mut all = Vec::new();
    for table in TABLES {
        let number = match table {
            "pairs" => "0",
            r#""rowid taken""# => "oid",
            _ => "_rowid_",
        };
        let sql = format!("SELECT {number}, * FROM {table} ORDER BY 1, 2, 3");
        let mut statement = connection.prepare(&sql).unwrap();
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let row: Vec<_> = (0..width).map(|column| row.get_ref(column).unwrap()).collect();
            all.push(format!("{table} {row:?}"));
        }
    }
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema
        WHERE name NOT LIKE 'rota%' AND sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY 1, 2";
    let mut statement = connection.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let row: Vec<String> = (0..4).map(|column| row.get(column).unwrap()).collect();
        all.push(row.join(" "));
    }
    let seq = "SELECT seq FROM sqlite_sequence WHERE name = 'counted'";
    all.push(connection.query_row(seq, [], |row| row.get::<_, i64>(0)).unwrap().to_string());
    all
}

fn original(home: &TempDir) -> Vec<String> {
    contents(&Connection::open(home.path().join(STATE_FILE)).unwrap())
}

#[test]
fn a_copy_has_all_that_users_made_and_nothing_else() {
    let home = home();
    let target = home.path().join("copy of it?");
    assert_eq!(copy(home.path(), &target, &Wanted::default()).unwrap(), Height(42));
    let bytes = std::fs::read(&target).unwrap();
    assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    assert_eq!((bytes[18], bytes[19]), (1, 1), "a rollback journal's mode");
    let copied = Connection::open(&target).unwrap();
    let check = |sql| copied.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(check("PRAGMA integrity_check"), "ok");
    let ours = "SELECT coalesce(group_concat(name), '') FROM sqlite_schema WHERE name LIKE 'rota%'";
    assert_eq!(check(ours), "");
    assert_eq!(contents(&copied), original(&home));
}

#[test]
fn a_dump_makes_the_same_in_a_plain_sqlite() {
    let home = home();
    let dump = || {
        let mut text = Vec::new();
        assert_eq!(dump::dump(home.path(), &mut text, &Wanted::default()).unwrap(), Height(42));
        String::from_utf8(text).unwrap()
    };
    let text = dump();
    assert!(!text.contains("rota_users") && !text.contains(SECRET));
    assert!(text.starts_with("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE"));
    assert!(text.ends_with("END;\nCOMMIT;\n"), "{text}");
    let restored = Connection::open_in_memory().unwrap();
    restored.execute_batch(&text).unwrap();
    assert_eq!(contents(&restored), original(&home));
    assert_eq!(dump(), text);
}

#[test]
fn some_tables_come_with_what_belongs_to_them() {
    let home = home();
    let wanted = |names: &[&str]| Wanted {
        tables: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Wanted::default()
    };
    let mut text = Vec::new();
    dump::dump(home.path(), &mut text, &wanted(&["PLAIN", "tree"])).unwrap();
    let text = String::from_utf8(text).unwrap();
    for part in ["TABLE plain", "TABLE tree", "INDEX by_b", "TRIGGER on_plain"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["counted(", "VIEW", "into_view"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
    for name in ["nowhere", "rota_users", "sqlite_schema"] {
        let refused = copy(home.path(), &home.path().join(name), &wanted(&[name]));
        let Err(Trouble::Refusal(refusal)) = refused else { panic!("{name}: {refused:?}") };
        assert_eq!(refusal.code(), "42P01");
    }
}

#[test]
fn reals_come_back_bit_by_bit() {
    let home = tempfile::tempdir().unwrap();
    let connection = Connection::open(home.path().join(STATE_FILE)).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE rota_meta(height); INSERT INTO rota_meta VALUES (1);
            CREATE TABLE reals(id INTEGER PRIMARY KEY, r REAL)",
        )
        .unwrap();
    connection.execute_batch("BEGIN").unwrap();
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for id in 0..5_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(bits ^ bits >> 29);
        connection.execute("INSERT INTO reals VALUES (?1, ?2)", (id, number)).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    let mut text = Vec::new();
    dump::dump(home.path(), &mut text, &Wanted::default()).unwrap();
    let restored = Connection::open_in_memory().unwrap();
    restored.execute_batch(&String::from_utf8(text).unwrap()).unwrap();
    let all = |connection: &Connection| -> Vec<Option<u64>> {
        let mut statement = connection.prepare("SELECT r FROM reals ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Option<f64>>(0)).unwrap();
        rows.map(|real| real.unwrap().map(f64::to_bits)).collect()
    };
    let (before, after) = (all(&connection), all(&restored));
    let differ = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(differ, 0);
}

#[test]
fn nobody_waits_for_a_backup_that_was_called_off() {
    let home = home();
    let wanted = Wanted::default();
    wanted.cancelled.store(true, Ordering::Relaxed);
    let connection = Connection::open(home.path().join(STATE_FILE)).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n LIMIT 50000)
            INSERT INTO tree SELECT i, NULL FROM n",
        )
        .unwrap();
    let refused = copy(home.path(), &home.path().join("target"), &wanted);
    assert!(matches!(refused, Err(Trouble::Refusal(refusal)) if refusal.code() == "57014"));
}

fn statements(given: &Given) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut take = |statement| {
        statements.push(statement);
        true
    };
    given.statements("unlike any other", &mut take).unwrap();
    statements
}

fn run(connection: &Connection, statements: &[Statement]) {
    for Statement { sql, parameters } in statements {
        let Parameters::Positional(values) = parameters else { panic!("{parameters:?}") };
        let values = values.iter().map(|value| match value {
            Value::Null => Stored::Null,
            Value::Integer(number) => Stored::Integer(*number),
            Value::Real(bits) => Stored::Real(f64::from_bits(*bits)),
            Value::Text(text) => Stored::Text(text.clone()),
            Value::Blob(bytes) => Stored::Blob(bytes.clone()),
        });
        let mut prepared = connection.prepare(sql).unwrap();
        let mut rows = prepared.query(params_from_iter(values)).unwrap();
        while rows.next().unwrap().is_some() {}
    }
}

#[test]
fn a_file_becomes_statements_that_make_what_is_in_it() {
    let home = home();
    let file = home.path().join("file");
    copy(home.path(), &file, &Wanted::default()).unwrap();
    let given = Given::open(&file, &Arc::default()).unwrap();
    let restored = Connection::open_in_memory().unwrap();
    let raised = Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = Arc::clone(&raised);
    restored
        .create_scalar_function("rota_setval", 2, Default::default(), move |call| {
            to.lock().unwrap().push((call.get::<String>(0)?, call.get::<i64>(1)?));
            Ok(0)
        })
        .unwrap();
    restored
        .execute_batch("PRAGMA foreign_keys = ON; BEGIN; PRAGMA defer_foreign_keys = ON")
        .unwrap();
    run(&restored, &statements(&given));
    restored.execute_batch("COMMIT").unwrap();
    assert_eq!(contents(&restored), original(&home));
    assert_eq!(*raised.lock().unwrap(), [("serial_id_seq".to_owned(), 7)]);
}

#[test]
fn rows_share_statements() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1
            FROM n LIMIT 10000) INSERT INTO t SELECT i, 'text ' || i FROM n",
        )
        .unwrap();
    drop(connection);
    let statements = statements(&Given::open(&file, &Arc::default()).unwrap());
    assert!(statements.len() < 40, "{}", statements.len());
    assert!(statements.iter().all(|statement| statement.sql.len() < 4_096));
    let restored = Connection::open_in_memory().unwrap();
    run(&restored, &statements);
    let count = "SELECT count(*) || ' ' || sum(a) || ' ' || max(b) FROM t";
    let count: String = restored.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(count, "10000 50005000 text 9999");
}

fn refused(make: impl FnOnce(&Path)) -> Refusal {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    make(&file);
    Given::open(&file, &Arc::default()).err().expect("such a file is refused")
}

fn made(sql: &'static str) -> impl FnOnce(&Path) {
    move |file| Connection::open(file).unwrap().execute_batch(sql).unwrap()
}

#[test]
fn files_that_cannot_be_trusted_are_refused() {
    let virtual_table = refused(made("CREATE VIRTUAL TABLE f USING fts5(a)"));
    assert_eq!(virtual_table.code(), "0A000");
    let ours = refused(made("CREATE TABLE Rota_users(a)"));
    assert_eq!(ours.code(), "42501");
    let logged = refused(|file| {
        let connection = Connection::open(file).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
    });
    assert!(logged.message.contains("in WAL mode"), "{logged}");
    let no_file = refused(|file| std::fs::write(file, [7; 5_000]).unwrap());
    assert_eq!(no_file.code(), "22000");
    let short = refused(|file| std::fs::write(file, given::MAGIC).unwrap());
    assert_eq!(short.code(), "22000");
    let torn = refused(|file| {
        made("CREATE TABLE t(a); INSERT INTO t SELECT randomblob(9000); CREATE INDEX i ON t(a)")(
            file,
        );
        let mut bytes = std::fs::read(file).unwrap();
        for byte in &mut bytes[4_096..4_200] {
            *byte ^= 0x55;
        }
        std::fs::write(file, bytes).unwrap();
    });
    assert_eq!(torn.code(), "22000");
    let lies = refused(|file| {
        let connection = Connection::open(file).unwrap();
        connection.execute_batch("CREATE TABLE t(a); CREATE VIEW v AS SELECT 1").unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true).unwrap();
        connection
            .execute(
                "UPDATE sqlite_schema SET sql = 'CREATE TRIGGER v AFTER INSERT ON t BEGIN
                SELECT 1; END' WHERE name = 'v'",
                [],
            )
            .unwrap();
    });
    assert_eq!(lies.code(), "22000");
}
