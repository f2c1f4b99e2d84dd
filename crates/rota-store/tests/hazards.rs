//! Each thing that could make two servers differ, written as SQL and applied by two servers: one
//! keeps its caches, the other is opened anew before every block. Results, receipts and roots must
//! be the same, and the root that of all rows.

mod support;

use rota_core::genesis::Parameters as Knobs;
use rota_core::members::Member;
use rota_core::transaction::Value;
use support::{Pair, genesis_with, statement};

fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        other => panic!("{other:?} is no text"),
    }
}

#[test]
fn every_way_to_ask_for_the_time_gives_the_blocks_time() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE t(a, b TEXT DEFAULT CURRENT_TIMESTAMP, c DEFAULT (datetime('now', '+1 day')),
             d DEFAULT (unixepoch('subsec')));
         CREATE TRIGGER r AFTER INSERT ON t WHEN new.a > 0 BEGIN
             INSERT INTO t(a) VALUES (-julianday()); END;
         CREATE VIEW v AS SELECT strftime('%s', 'NOW') AS s",
    );
    pair.run("INSERT INTO t(a) VALUES (date('now')), (current_time), (now()), (3)");
    pair.check();
    let now = pair.maker.time.0 + 1_001;
    let rows = pair.rows(
        "SELECT unixepoch('now'), CURRENT_TIMESTAMP, now(), date(char(110, 111, 119, 0, 65)),
             date(x'6e6f77'), (SELECT s FROM v), timediff('now', '2000-01-01'), time()",
    );
    let seconds = i64::try_from(now / 1000).unwrap();
    assert_eq!(rows[0][0], Value::Integer(seconds));
    let day = "2023-11-14";
    for index in [1, 2, 3, 4] {
        assert!(text(&rows[0][index]).starts_with(day), "{:?}", rows[0]);
    }
    assert_eq!(rows[0][5], Value::Text(seconds.to_string()));
    // Every server has its own time zone; SQL has one.
    let zone = pair.rows(
        "SELECT datetime('now', 'localtime') = datetime('now'),
             datetime('now', 'utc') = datetime('now')",
    );
    assert_eq!(zone[0], [Value::Integer(1), Value::Integer(1)]);
}

#[test]
fn random_numbers_are_drawn_from_the_transaction() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a DEFAULT (random()), b DEFAULT (hex(randomblob(40))), c)");
    pair.run(
        "INSERT INTO t(c) VALUES (1), (2);
             INSERT INTO t(c) SELECT abs(random()) FROM t ORDER BY random()",
    );
    let distinct = pair.rows("SELECT count(DISTINCT a), count(DISTINCT b) FROM t");
    assert_eq!(distinct[0], [Value::Integer(4), Value::Integer(4)]);
    let one = pair.maker.sql("SELECT random()");
    let other = pair.maker.sql("SELECT random()");
    let outcomes = pair.block(vec![one, other]);
    assert_ne!(outcomes[0], outcomes[1], "two transactions draw differently");
    pair.check();
}

#[test]
fn what_a_connection_remembers_begins_anew_in_each_transaction() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (41, 1), (42, 2)");
    let rows = pair.rows("SELECT changes(), last_insert_rowid()");
    assert_eq!(rows[0], [Value::Integer(0), Value::Integer(0)]);
    let results = pair.run(
        "INSERT INTO t(a) VALUES (1), (2);
             INSERT INTO t(a) SELECT changes() * 100 + last_insert_rowid()",
    );
    assert_eq!(results[1].last_insert_rowid, 45);
    assert_eq!(pair.rows("SELECT a FROM t WHERE id = 45")[0], [Value::Integer(244)]);
    assert_eq!(pair.refused("INSERT INTO t(a) VALUES (total_changes())"), "0A000");
    pair.check();
}

#[test]
fn functions_that_are_not_listed_are_refused_even_in_defaults() {
    let mut pair = Pair::new();
    for function in [
        "sqlite_version()",
        "sqlite_source_id()",
        "sqlite_compileoption_get(1)",
        "load_extension('x')",
        "sqlite_compileoption_used('x')",
        "fts5_source_id()",
        "rtreecheck('t')",
    ] {
        assert_eq!(pair.refused(&format!("SELECT {function}")), "0A000", "{function}");
        let script =
            format!("CREATE TABLE d(a, b DEFAULT ({function})); INSERT INTO d(a) VALUES (1)");
        assert!(pair.sql(&script).is_err(), "{function} in a default");
    }
    for function in ["sin(1)", "atan2(1, 0.5)"] {
        assert_eq!(pair.refused(&format!("SELECT {function}")), "42883", "{function}");
    }
}

#[test]
fn statements_in_disguise_are_refused() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a UNIQUE)");
    for disguise in [
        "\u{feff}EXPLAIN SELECT 1",
        "\u{feff}ROLLBACK",
        "INSERT OR \u{feff}ROLLBACK INTO t VALUES (1)",
        "INSERT INTO t SELECT a FROM t \u{feff}LIMIT 1",
    ] {
        assert_eq!(pair.refused(disguise), "0A000", "{disguise}");
    }
    pair.check();
}

#[test]
fn the_largest_rowid_is_refused() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a);
             CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)",
    );
    pair.run("INSERT INTO t VALUES (1, 1)");
    for sql in [
        "INSERT INTO t VALUES (9223372036854775807, 1)",
        "INSERT INTO t VALUES (9223372036854775807, 1), (NULL, 2)",
        "UPDATE t SET id = 9223372036854775807",
        "INSERT INTO s VALUES (9223372036854775807), (NULL)",
    ] {
        assert_eq!(pair.refused(sql), "22000", "{sql}");
    }
    pair.run("INSERT INTO t VALUES (9223372036854775806, 1)");
    pair.check();
}

#[test]
fn what_copies_could_not_agree_on_is_refused() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2);
         CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO q DEFAULT VALUES",
    );
    let root_rows = pair.rows("SELECT count(*) FROM sqlite_schema");
    for sql in [
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT rota",
        "RELEASE rota",
        "ROLLBACK TO rota",
        "PRAGMA foreign_keys = 0",
        "PRAGMA user_version = 3",
        "PRAGMA table_info(t)",
        "PRAGMA recursive_triggers = 0",
        "PRAGMA page_size = 512",
        "PRAGMA writable_schema = 1",
        "PRAGMA journal_mode = DELETE",
        "ATTACH 'x.db' AS x",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'x.db'",
        "ANALYZE",
        "ANALYZE t",
        "REINDEX",
        "REINDEX t",
        "INSERT OR ROLLBACK INTO t VALUES (1, 1)",
        "UPDATE OR ROLLBACK t SET id = 1",
        "CREATE TABLE u(a UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "CREATE TABLE u AS SELECT 1",
        "CREATE TEMP TABLE u(a)",
        "CREATE TABLE temp.u(a)",
        "CREATE TEMP VIEW u AS SELECT 1",
        "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE u USING fts5(a)",
        "CREATE VIRTUAL TABLE u USING rtree(a, b, c)",
        "INSERT INTO t SELECT id + 5, a + 5 FROM t LIMIT 1",
        "DELETE FROM t WHERE id IN (SELECT id FROM t LIMIT 1)",
        "INSERT INTO sqlite_sequence VALUES ('q', 7)",
        "DELETE FROM sqlite_sequence",
        "UPDATE sqlite_schema SET sql = ''",
        "DELETE FROM sqlite_schema",
        "DROP TABLE sqlite_sequence",
        "CREATE TABLE rota_x(a)",
        "CREATE VIEW rota_v AS SELECT 1",
        "CREATE INDEX rota_i ON t(a)",
        "ALTER TABLE t RENAME TO rota_x",
        "ALTER TABLE t RENAME TO \"ROTA_x\"",
        "DELETE FROM rota_transactions",
        "UPDATE rota_meta SET height = 7",
        "DROP TABLE rota_buckets",
        "INSERT INTO rota_tables VALUES (99, 99)",
        "CREATE INDEX i ON rota_transactions(height)",
        "CREATE TRIGGER r AFTER INSERT ON rota_transactions BEGIN SELECT 1; END",
        "ALTER TABLE rota_meta ADD COLUMN a",
        "CREATE TABLE u(a REFERENCES rota_transactions(id) ON DELETE CASCADE)",
        "CREATE TABLE u(rowid, oid, _rowid_)",
        "ALTER TABLE t RENAME TO sqlite_t",
        "INSERT INTO t SELECT 9, count(*) FROM rota_buckets",
        "SELECT * FROM rota_hashes",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM dbstat",
        "SELECT rootpage FROM sqlite_schema",
        "INSERT INTO t SELECT 7, max(rootpage) FROM sqlite_master",
        "SELECT * FROM pragma_table_info('t')",
        "INSERT INTO t SELECT 8, * FROM pragma_page_count",
        "EXPLAIN SELECT 1",
        "EXPLAIN QUERY PLAN SELECT 1",
        "SELECT 1; SELECT 2 LIMIT",
        "SELEC",
        "(",
        "'",
        "SELECT * FROM nowhere",
        "INSERT INTO t(nothing) VALUES (1)",
        "SELECT $1",
        "SELECT \u{0}",
    ] {
        assert!(pair.sql(sql).is_err(), "{sql} was not refused");
        pair.check();
    }
    assert_eq!(pair.rows("SELECT count(*) FROM sqlite_schema"), root_rows);
    assert_eq!(pair.rows("SELECT * FROM t").len(), 2);
}

#[test]
fn two_statements_in_one_are_refused() {
    let mut pair = Pair::new();
    let both = statement("CREATE TABLE a(x); CREATE TABLE b(x)", &[]);
    let transaction = pair.maker.transaction(vec![both]);
    assert_eq!(pair.block(vec![transaction])[0].as_ref().unwrap_err().code(), "42601");
}

#[test]
fn double_quotes_mean_what_their_transaction_says() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a)");
    let sql = "INSERT INTO t VALUES (\"word\")";
    for _ in 0..2 {
        let strict = pair.maker.sql(sql);
        let mut lenient = pair.maker.sql(sql);
        lenient.settings.double_quoted_strings = true;
        let outcomes = pair.block(vec![strict, lenient]);
        assert_eq!(outcomes[0].as_ref().unwrap_err().code(), "42703");
        assert!(outcomes[1].is_ok());
    }
    // A trigger's strings are read when it fires, by the setting of whoever fires it.
    let mut trigger = pair
        .maker
        .sql("CREATE TRIGGER r AFTER UPDATE ON t BEGIN INSERT INTO t VALUES (\"fired\"); END");
    trigger.settings.double_quoted_strings = true;
    assert!(pair.block(vec![trigger])[0].is_ok());
    let _ = pair.sql("UPDATE t SET a = 1");
    pair.check();
}

#[test]
fn a_deferred_key_fails_its_transaction_not_the_block() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE p(id INTEGER PRIMARY KEY);
         CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let bad = pair.maker.sql("INSERT INTO c VALUES (1)");
    let good = pair.maker.sql("INSERT INTO c VALUES (2); INSERT INTO p VALUES (2)");
    let outcomes = pair.block(vec![bad, good]);
    assert_eq!(outcomes[0].as_ref().unwrap_err().code(), "23503");
    assert!(outcomes[1].is_ok());
    assert_eq!(pair.refused("DELETE FROM p"), "23503");
    pair.check();
}

#[test]
fn rows_that_hashing_could_get_wrong_are_hashed_right() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE r(a REAL, b DOUBLE PRECISION, c FLOAT GENERATED ALWAYS AS (a + 1) STORED,
             d REAL GENERATED ALWAYS AS (a * 2) VIRTUAL, e);
         CREATE TABLE k(a TEXT PRIMARY KEY, b);
         CREATE TABLE w(a TEXT, b REAL, c, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE d(id INTEGER PRIMARY KEY DESC, a);
         CREATE TABLE n(a); CREATE TABLE s(a INTEGER, b REAL, c ANY, PRIMARY KEY (a)) STRICT;
         CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT, a UNIQUE)",
    );
    pair.run(
        "INSERT INTO r(a, b, e) VALUES (1, 2, 3), (1.5, '7', x'00'),
             (-0.0, 9007199254740993, NULL), (1e300, 9e999, '')",
    );
    pair.run("INSERT INTO k VALUES (NULL, 1), (NULL, 2), ('x', 3), (CAST(x'ff00' AS TEXT), 4)");
    pair.run("INSERT INTO w VALUES ('a', 1, 2), ('b', 1, 2)");
    pair.run(
        "INSERT INTO n VALUES (1), (1), (1); INSERT INTO s VALUES (1, 2, 3);
             INSERT INTO d VALUES (5, 1), (NULL, 2)",
    );
    pair.run("INSERT INTO q(a) VALUES (1), (2)");
    pair.check();
    pair.run("UPDATE r SET a = 7, b = rowid; UPDATE r SET e = 5.0 WHERE rowid = 2");
    pair.run(
        "DELETE FROM k WHERE b = 1; UPDATE k SET a = 'y' WHERE b = 2;
             UPDATE k SET rowid = rowid + 10",
    );
    pair.run(
        "UPDATE w SET b = 3 WHERE a = 'b'; REPLACE INTO w VALUES ('a', 1, 9);
             DELETE FROM n WHERE rowid = 2",
    );
    pair.run(
        "REPLACE INTO q(id, a) VALUES (9, 1);
             INSERT INTO q(a) VALUES (2) ON CONFLICT DO UPDATE SET a = a + 5",
    );
    pair.run("UPDATE OR REPLACE q SET a = 1; INSERT OR IGNORE INTO q(a) VALUES (1); DELETE FROM q");
    pair.check();
    pair.run("INSERT INTO q(a) VALUES (1)");
    assert_eq!(pair.rows("SELECT id FROM q")[0], [Value::Integer(12)]);
    pair.run("DELETE FROM n; DELETE FROM w; DELETE FROM r");
    pair.check();
}

#[test]
fn a_counter_alone_changes_the_root() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT)");
    let mut other = Pair::new();
    other.run("CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT)");
    pair.run("INSERT INTO q VALUES (1); DELETE FROM q");
    other.run("INSERT INTO q VALUES (2); DELETE FROM q");
    assert_ne!(pair.warm.applied().root, other.warm.applied().root);
    pair.check();
}

#[test]
fn changes_of_tables_keep_the_root_right() {
    let mut pair = Pair::new();
    pair.run(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, x, y REAL);
             CREATE TABLE b(k TEXT PRIMARY KEY, a REFERENCES a);
         INSERT INTO a VALUES (1, 2, 3), (2, 3, 4); INSERT INTO b VALUES ('k', 1)",
    );
    for sql in [
        "ALTER TABLE a RENAME TO c",
        "ALTER TABLE c RENAME COLUMN x TO z",
        "ALTER TABLE c ADD COLUMN d DEFAULT 5",
        "ALTER TABLE c ADD COLUMN e REAL DEFAULT 7; UPDATE c SET z = 1 WHERE id = 1",
        "INSERT INTO c VALUES (3, 1, 1, 1, 1);
             ALTER TABLE c DROP COLUMN y; DELETE FROM c WHERE id = 2",
        "CREATE INDEX i ON c(z); DROP INDEX i; CREATE VIEW v AS SELECT * FROM c; DROP VIEW v",
        "DROP TABLE b; CREATE TABLE b(k TEXT PRIMARY KEY, a); INSERT INTO b VALUES ('n', 1)",
        "DROP TABLE b; DROP TABLE c; CREATE TABLE c(a); INSERT INTO c VALUES (1)",
        "CREATE TABLE x(a); INSERT INTO x VALUES (1);
             ALTER TABLE x ADD COLUMN b DEFAULT 2; DROP TABLE x",
    ] {
        pair.run(sql);
        pair.check();
        let undone = format!("CREATE TABLE zz(a); {sql}; INSERT INTO nowhere VALUES (1)");
        assert!(pair.sql(&undone).is_err());
        pair.check();
    }
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (1)");
    for (script, code) in [
        ("INSERT INTO t VALUES (2), (1)", "23505"),
        (
            "INSERT INTO t VALUES (2); CREATE TABLE u(a NOT NULL); INSERT INTO u VALUES (NULL)",
            "23502",
        ),
        ("INSERT OR FAIL INTO t VALUES (3), (1)", "23505"),
        ("CREATE TABLE u(a CHECK (a > 0)); INSERT INTO u VALUES (0)", "23514"),
        ("DROP TABLE t; SELECT * FROM t", "42P01"),
    ] {
        assert_eq!(pair.refused(script), code, "{script}");
        pair.check();
    }
    assert_eq!(pair.rows("SELECT * FROM t"), [[Value::Integer(1)]]);
}

fn tight(steps: u64) -> Knobs {
    Knobs { transaction_steps: steps, block_steps: steps * 3, ..Knobs::default() }
}

const COSTLY: &str = "INSERT INTO t SELECT n.value FROM json_each('[1,2,3,4,5,6,7,8,9,10]') n, \
    json_each('[1,2,3,4,5,6,7,8,9,10]') m, json_each('[1,2,3,4,5,6,7,8,9,10]') o, \
    json_each('[1,2,3,4,5,6,7,8,9,10]') p";

/// Whether the costly statement fits this budget, after it has been run before or for the first
/// time.
fn fits(steps: u64, warm_up: bool) -> bool {
    let mut pair = Pair::with(genesis_with(tight(steps)));
    pair.run("CREATE TABLE t(a)");
    if warm_up {
        // Runs that are stopped or rolled back leave the statement's counters where they were.
        pair.reopen = false;
        for _ in 0..3 {
            let _ = pair.sql(COSTLY);
            let _ = pair.sql(&format!("{COSTLY}; INSERT INTO nowhere VALUES (1)"));
        }
        pair.reopen = true;
    }
    let outcome = pair.sql(COSTLY);
    pair.check();
    outcome.is_ok()
}

#[test]
fn a_statement_at_the_border_of_its_budget_is_judged_alike_warm_and_cold() {
    let (mut too_few, mut enough) = (10_000, 1_000_000);
    assert!(!fits(too_few, false) && fits(enough, false));
    while enough - too_few > 1 {
        let middle = (too_few + enough) / 2;
        if fits(middle, false) { enough = middle } else { too_few = middle }
    }
    for steps in [too_few - 1_000, too_few - 1, too_few] {
        assert!(!fits(steps, true), "{steps} steps are too few, warm");
    }
    // Steps are charged one by one, and add up.
    let mut pair = Pair::with(genesis_with(tight(enough + enough / 2)));
    pair.run("CREATE TABLE t(a)");
    assert_eq!(pair.refused(&format!("{COSTLY}; {COSTLY}")), "54001");
    for steps in [enough, enough + 1, enough + 1_000] {
        assert!(fits(steps, true), "{steps} steps are enough, warm");
    }
}

const ENDLESS: &str =
    "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT i FROM c";

#[test]
fn runaway_statements_fail_alone() {
    let mut pair = Pair::with(genesis_with(tight(100_000)));
    pair.run("CREATE TABLE t(a)");
    let mut blocks = Vec::new();
    for number in 0..12 {
        blocks.push(pair.maker.sql(&format!("INSERT INTO t VALUES ({number})")));
        blocks.push(pair.maker.sql(ENDLESS));
    }
    let outcomes = pair.block(blocks);
    let codes: Vec<&str> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map_or_else(|no| no.code(), |_| "00000"))
        .collect();
    // Two break out, and then the signer's other transactions are not run at all.
    assert_eq!(codes[..4], ["00000", "54001", "00000", "54001"]);
    assert!(codes[4..].iter().all(|code| *code == "54001"));
    pair.check();
    assert_eq!(pair.rows("SELECT a FROM t ORDER BY a").len(), 2);
    assert_eq!(pair.refused(&ENDLESS.replace("INSERT INTO t ", "")), "54001");
}

#[test]
fn other_signers_are_not_punished_until_eight_have_broken_out() {
    let mut pair = Pair::with(genesis_with(Knobs { block_steps: 10_000_000, ..tight(100_000) }));
    pair.run("CREATE TABLE t(a)");
    let mut envelopes = Vec::new();
    for signer in [1, 2, 3, 4, 1] {
        let transactions = [ENDLESS, ENDLESS, "SELECT 1"].map(|sql| pair.maker.sql(sql)).to_vec();
        envelopes.push(pair.maker.envelope(signer, transactions));
        let good = vec![pair.maker.sql("INSERT INTO t VALUES (1)")];
        envelopes.push(pair.maker.envelope(signer % 4 + 1, good));
    }
    let block = pair.maker.block_of(envelopes);
    let outcomes: Vec<bool> = pair
        .apply(&block)
        .unwrap()
        .receipts
        .iter()
        .map(|receipt| receipt.outcome.is_ok())
        .collect();
    let turn = [false, false, false];
    for (number, good) in [(0, true), (1, true), (2, true), (3, false), (4, false)] {
        assert_eq!(outcomes[number * 4..number * 4 + 3], turn);
        assert_eq!(outcomes[number * 4 + 3], good, "after signer {}", number + 1);
    }
    pair.check();
}

#[test]
fn after_eight_break_outs_nobody_runs_in_that_block_any_more() {
    let mut genesis = genesis_with(Knobs { block_steps: 10_000_000, ..tight(100_000) });
    genesis.members.push(Member { key: support::key(5).public(), weight: 1 });
    let mut pair = Pair::with(genesis);
    pair.run("CREATE TABLE t(a)");
    let mut envelopes = Vec::new();
    for signer in [1, 2, 3, 4] {
        let transactions = [ENDLESS, ENDLESS].map(|sql| pair.maker.sql(sql)).to_vec();
        envelopes.push(pair.maker.envelope(signer, transactions));
    }
    let good = vec![pair.maker.sql("INSERT INTO t VALUES (1)")];
    envelopes.push(pair.maker.envelope(5, good));
    let block = pair.maker.block_of(envelopes);
    let receipts = pair.apply(&block).unwrap().receipts;
    assert_eq!(receipts[8].outcome.as_ref().unwrap_err().code(), "54001");
    pair.check();
}

#[test]
fn rows_that_replace_drops_leave_the_root_too() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)");
    pair.run("INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)");
    pair.run("INSERT OR REPLACE INTO t VALUES (4, 'a', 9)");
    pair.run("UPDATE OR REPLACE t SET u = 'c' WHERE id = 2");
    pair.check();
    let left = pair.rows("SELECT count(*), sum(id) FROM t");
    assert_eq!(left[0], [Value::Integer(2), Value::Integer(2 + 4)]);
}

#[test]
fn large_work_is_refused_in_every_disguise() {
    let knobs =
        Knobs { transaction_bytes: 64 << 10, block_change_bytes: 1 << 20, ..Knobs::default() };
    let mut pair = Pair::with(genesis_with(knobs));
    pair.run("CREATE TABLE t(a)");
    let many = "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL
             SELECT i + 1 FROM c WHERE i < 500) SELECT i FROM c";
    pair.run(many);
    assert_eq!(pair.refused(&format!("{many};{many}")), "54000");
    pair.run(many);
    assert_eq!(pair.refused("ALTER TABLE t ADD COLUMN b DEFAULT 1"), "54000");
    assert_eq!(pair.refused("UPDATE t SET a = zeroblob(2000)"), "54000");
    for sql in [
        "SELECT hex(zeroblob(900000))",
        "SELECT printf('%2000000d', 1)",
        "SELECT replace(hex(zeroblob(400000)), '0', 'long')",
        "SELECT randomblob(1000000000)",
        "SELECT zeroblob(2000000000)",
        "SELECT group_concat(hex(zeroblob(400000))) FROM (SELECT 1 UNION ALL SELECT 2)",
        "SELECT zeroblob(900000) FROM t",
    ] {
        assert_eq!(pair.refused(sql), "54000", "{sql}");
    }
    let long = format!("SELECT '{}'", "x".repeat(1_000_001));
    assert_eq!(pair.refused(&long), "54000");
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(pair.sql(&deep).is_err());
    pair.check();
}

#[test]
fn views_of_views_do_not_hang_the_parser() {
    let mut pair = Pair::new();
    pair.run("CREATE VIEW v0 AS SELECT 1 AS a");
    for level in 1..12 {
        let below = format!("v{}", level - 1);
        let from: Vec<String> = (0..8).map(|n| format!("{below} x{n}")).collect();
        let from = from.join(", ");
        let _ = pair.sql(&format!("CREATE VIEW v{level} AS SELECT x0.a FROM {from}"));
    }
    assert!(pair.refused("SELECT * FROM v11").starts_with("54"));
    pair.check();
}

#[test]
fn as_many_parameters_as_postgresql_has_are_taken_and_more_refused() {
    let mut pair = Pair::new();
    for (count, works) in [(32_767, true), (65_535, true), (100_000, false)] {
        let values: Vec<Value> = (0..count).map(Value::Integer).collect();
        let mut sql = String::from("SELECT count(*) FROM (VALUES ");
        sql.push_str(&vec!["(?)"; values.len()].join(","));
        sql.push(')');
        let transaction = pair.maker.transaction(vec![statement(&sql, &values)]);
        let outcome = pair.block(vec![transaction]).remove(0);
        assert_eq!(outcome.is_ok(), works, "{count}: {outcome:?}");
    }
}

#[test]
fn a_client_that_sends_the_text_of_a_statement_of_ours_is_refused_like_anybody() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a)");
    pair.run("INSERT INTO t VALUES (1)");
    let number = Value::Integer(1);
    let blob = Value::Blob(vec![0; 32]);
    for (sql, values) in [
        ("SELECT name, type, coalesce(rootpage, 0) = 0 FROM main.sqlite_schema", vec![]),
        (
            "INSERT INTO rota_transactions VALUES (?1, ?2, ?3, ?4)",
            vec![Value::Integer(900), number.clone(), number.clone(), blob.clone()],
        ),
        (
            "UPDATE rota_meta SET height = ?1, block = ?2, root = ?3, next_table = ?4,
                     next_transaction = ?5",
            vec![number.clone(), blob.clone(), blob.clone(), number.clone(), number.clone()],
        ),
        ("DELETE FROM rota_staged WHERE expiry < ?1", vec![number.clone()]),
        ("SAVEPOINT rota", vec![]),
        ("PRAGMA wal_checkpoint(PASSIVE)", vec![]),
    ] {
        let transaction = pair.maker.transaction(vec![statement(sql, &values)]);
        let outcome = pair.block(vec![transaction]).remove(0);
        let code = outcome.unwrap_err().code().to_owned();
        assert!(["0A000", "42501"].contains(&code.as_str()), "{sql}: {code}");
    }
    pair.check();
}

#[test]
fn what_functions_do_with_long_values_counts_as_steps() {
    let mut pair = Pair::new();
    pair.run("CREATE TABLE t(a)");
    for expression in [
        "instr(hex(zeroblob(490000)), hex(zeroblob(100000)) || '1')",
        "replace(hex(zeroblob(490000)), hex(zeroblob(100000)) || '1', '')",
        "translate(hex(zeroblob(490000)), hex(zeroblob(490)), '') || i",
        "length(hex(zeroblob(490000 + i)))",
        "regexp_replace('aaaaaaaaaaaaaaaaaaaaaaaa', 'a{1,3}' || i || hex(zeroblob(200)), 'b')",
    ] {
        let sql = format!(
            "INSERT INTO t WITH RECURSIVE c(i) AS
             (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000)
             SELECT min({expression}) FROM c"
        );
        let transaction = pair.maker.sql(&sql);
        let outcome = pair.block(vec![transaction]).remove(0);
        assert_eq!(outcome.unwrap_err().code(), "54001", "{expression}");
    }
    pair.check();
}
